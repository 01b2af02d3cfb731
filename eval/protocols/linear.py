"""Linear evaluation on cached features: L2-regularised logistic regression."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.data.groups import GROUPS, training_groups
from eval.data.task_data import TaskData, take
from eval.data.validation import held_out
from eval.features.bank import FeatureBank
from eval.protocols.outcome import Outcome
from eval.protocols.trained import outcome
from eval.settings.protocols import Linear
from eval.solvers.c_path import search_c
from eval.solvers.logistic import LinearModel, Metric, fit, fit_without, standardise
from eval.training.context import Context
from eval.training.setup import Answer

# The search stops early by design; the one fit that is reported gets the time it needs.
MAX_ITERATIONS = 1000
# Threads add in another order, which changes the last digits of the weights and with them the
# ECE. Below this many feature values one thread is fast enough, and a score is the same on any
# number of cores; a million images of 2048 features take all there are.
ONE_THREAD_BELOW = 1 << 26


@contextlib.contextmanager
def _steady_sums(values: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if values < ONE_THREAD_BELOW else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Head:
    """A linear classifier of standardised features."""

    model: LinearModel
    mean: Tensor  # [D]
    scale: Tensor  # [D]

    def probability(self, features: Tensor) -> NDArray[np.float64]:
        """[N, C] of features [N, D]."""
        with _steady_sums(features.numel()):
            logits = self.model.logits((features - self.mean) / self.scale)
            return logits.double().softmax(1).numpy()


def score(context: Context[TaskData], settings: Linear) -> Outcome:
    """See `score_bank`."""
    return score_bank(context.features, context.task, settings, context.seed)


def score_bank(bank: FeatureBank, task: TaskData, settings: Linear, seed: int) -> Outcome:
    """Choose C on a stratified part of train, refit on all of train, score once on test.

    Parts of train that the settings ask for are scored beside it, each with a C of its own.
    """

    def fit_rows(rows: NDArray[np.int64]) -> Answer:
        head, metric, details = _fit(bank, task, settings, seed, rows)
        notes = []
        if not head.model.converged:
            notes.append(
                f"the final fit stopped after {head.model.iterations} iterations, unconverged"
            )
        without = _without(head, metric, bank, task, seed) if len(rows) == len(task.train) else None
        return Answer(head.probability(bank.test[0]), details, notes, without)

    with _steady_sums(bank.features.numel()):
        return outcome(fit_rows, task, settings, seed)


def fit_head(bank: FeatureBank, task: TaskData, seed: int = 0) -> Head:
    """The classifier that `score` fits on all of train, by its default settings."""
    with _steady_sums(bank.features.numel()):
        return _fit(bank, task, Linear(), seed, np.arange(len(task.train)))[0]


def _without(
    head: Head, metric: Metric | None, bank: FeatureBank, task: TaskData, seed: int
) -> list[float]:
    """Test top-1 with each group of training images left out, at the C and scale of all of them."""
    groups = torch.from_numpy(training_groups(task, seed))
    (x, y), (x_test, y_test) = bank.train, bank.test
    x, x_test = ((part - head.mean) / head.scale for part in (x, x_test))
    models = fit_without(x, y, len(task.classes), head.model, groups, GROUPS, metric=metric)
    return [float((m.logits(x_test).argmax(1) == y_test).double().mean()) for m in models]


def _fit(
    bank: FeatureBank, task: TaskData, settings: Linear, seed: int, rows: NDArray[np.int64]
) -> tuple[Head, Metric | None, dict[str, Any]]:
    x, y = (part[rows] if len(rows) < len(part) else part for part in bank.train)
    part = dataclasses.replace(task, train=take(task.train, rows))
    classes = len(task.classes)
    held = torch.from_numpy(held_out(part, settings.validation, seed))
    mean, scale = standardise(x[~held])
    search = search_c(
        (x[~held] - mean) / scale, y[~held], (x[held] - mean) / scale, y[held], classes
    )
    mean, scale = standardise(x)
    x_all = (x - mean) / scale
    model = fit(
        x_all, y, classes, search.best_c,
        init=search.model, max_iter=MAX_ITERATIONS, metric=search.metric,
    )  # fmt: skip
    details = {
        "c": search.best_c,
        "validation_top1": [[c, round(v, 6)] for c, v in search.tried],
        "converged": model.converged,
        "iterations": model.iterations,
    }
    return Head(model, mean, scale), search.metric, details
