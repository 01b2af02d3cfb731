"""Several labels an image: a logistic regression for each label on standardised features.

All labels share one C (scikit-learn's, of L2-regularised regressions), chosen by the mean average
precision over labels on a held-out part of train. A set with one label an image is scored too: each
class against the others, which is how findings in X-rays are reported.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import TooFew
from eval.data.held_out import part_held_out
from eval.data.labels.label_data import labels_of
from eval.data.task_data import TaskData
from eval.metrics.label_ranking import (
    average_precision,
    by_label,
    macro,
    resampled,
    roc_area,
)
from eval.metrics.scores import Samples
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Multilabel
from eval.solvers.logistic import TOL, LinearModel, Problem, standardise
from eval.training.context import Context

MAX_ITERATIONS = 1000  # of the fits that are reported


def score(context: Context[TaskData], settings: Multilabel) -> Outcome:
    """mAP (macro and micro) and AUROC over labels, with resamples of the test images.

    Raises UserError where nothing can be held out of train.
    """
    start = time.perf_counter()
    task, bank = context.task, context.features
    x, x_test = bank.train[0], bank.test[0]
    truth, _ = labels_of(task)
    held = torch.from_numpy(part_held_out(task, settings.validation, context.seed))
    known = torch.from_numpy(truth)
    on_held = []
    models: list[LinearModel | None] = [None] * truth.shape[1]
    mean, scale = standardise(x[~held])
    fitted, asked = (x[~held] - mean) / scale, (x[held] - mean) / scale
    problem: Problem | None = None
    for c in settings.cs:
        models, problem = _fitted(fitted, known[~held], c, models, 300, problem)
        found = macro_precision(_scores(models, asked), truth[held.numpy()])
        on_held.append(round(found, 6))
    if np.isnan(on_held).all():
        raise TooFew(
            f"multilabel on task {task.name!r}: no label is on some and not on others of the "
            f"{int(held.sum())} training images that are held out; take more"
        )
    best = int(np.nanargmax(on_held))
    mean, scale = standardise(x)
    final, _ = _fitted((x - mean) / scale, known, settings.cs[best], models, MAX_ITERATIONS, None)
    out = Outcome(fit_seconds=time.perf_counter() - start)
    out.details = {
        "c": settings.cs[best],
        "validation_map": [[c, None if np.isnan(v) else v] for c, v in
                           zip(settings.cs, on_held, strict=True)],
    }  # fmt: skip
    slow = sum(m is not None and not m.converged for m in final)
    if slow:
        out.notes.append(f"{slow} of {len(final)} fits stopped after {MAX_ITERATIONS} iterations")
    describe(out, context, _scores(final, (x_test - mean) / scale))
    return out


def macro_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """mAP over the labels that some images have and others have not; NaN where there is none."""
    return float(macro(average_precision, scores, truth, np.ones((1, len(truth))))[0])


def describe(out: Outcome, context: Context[Any], scores: NDArray[np.float64]) -> None:
    """All scores of [N_test, C] answers; higher says yes."""
    _, truth = labels_of(context.task)
    n = len(truth)
    for name, (interval, values) in resampled(scores, truth, context.seed).items():
        out.add(name, interval, n)
        out.samples[name] = Samples.of_resamples(values, n)
    once = np.ones((1, n))
    both = [by_label(of, scores, truth, once)[0] for of in (average_precision, roc_area)]
    train, _ = labels_of(context.task)

    def known(value: float) -> float | None:
        return None if np.isnan(value) else round(float(value), 6)

    out.details["per_label"] = [
        {
            "name": name,
            "ap": known(ap),
            "auroc": known(area),
            "train": int(ours),
            "test": int(theirs),
        }
        for name, ap, area, ours, theirs in zip(
            context.task.classes, *both, train.sum(0), truth.sum(0), strict=True
        )
    ]
    left = [row["name"] for row in out.details["per_label"] if row["auroc"] is None]
    if left:
        named = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        out.notes.append(f"labels that all test images have, or none, have no score: {named}")


def _fitted(
    x: Tensor,
    truth: Tensor,
    c: float,
    start: list[LinearModel | None],
    most: int,
    problem: Problem | None,
) -> tuple[list[LinearModel | None], Problem | None]:
    """A model of each label [N, C]; None of one that all images have, or none.

    The problem is one of these rows, where there is one; it comes back for the next call.
    """
    found: list[LinearModel | None] = []
    for label in range(truth.shape[1]):
        y = truth[:, label].long()
        if y.all() or not y.any():
            found.append(None)
            continue
        problem = problem.relabelled(y, 2) if problem else Problem(x, y, 2)
        found.append(problem.solve([c], [start[label]], TOL, 1.0, most)[0])
    return found, problem


def _scores(models: list[LinearModel | None], x: Tensor) -> NDArray[np.float64]:
    """[N, C] log odds; 0 where there is no model."""
    columns = [
        torch.zeros(len(x)) if m is None else (z := m.logits(x))[:, 1] - z[:, 0] for m in models
    ]
    return torch.stack(columns, 1).double().numpy()
