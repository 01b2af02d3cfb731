"""Several labels an image by cosine nearest neighbours: the share of them that have each label."""

from __future__ import annotations

import itertools
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import TooFew
from eval.data.held_out import part_held_out
from eval.data.labels.label_data import labels_of
from eval.data.task_data import TaskData
from eval.protocols.multilabel import describe, macro_precision
from eval.protocols.outcome import Outcome
from eval.settings.protocols import MultilabelKnn
from eval.solvers.knn import nearest
from eval.training.context import Context


def score(context: Context[TaskData], settings: MultilabelKnn) -> Outcome:
    """mAP (macro and micro) and AUROC at the (k, weighting) that does best on held-out train.

    Raises UserError where nothing can be held out.
    """
    start = time.perf_counter()
    task, bank = context.task, context.features
    x, x_test = bank.train[0], bank.test[0]
    truth, _ = labels_of(task)
    known = torch.from_numpy(truth).double()
    held = torch.from_numpy(part_held_out(task, settings.validation, context.seed))
    fitted = int((~held).sum())
    ks = [k for k in settings.ks if k <= fitted] or [fitted]
    out = Outcome()
    if dropped := sorted(set(settings.ks) - set(ks)):
        out.notes.append(f"k {dropped} left out: only {fitted} images to choose among")
    ways = list(itertools.product((None, settings.temperature), ks))
    similarity, index = nearest(x[~held], x[held], max(ks))
    on_held = [
        macro_precision(_votes(similarity, known[~held][index], k, t), truth[held.numpy()])
        for t, k in ways
    ]
    if np.isnan(on_held).all():
        raise TooFew(
            f"multilabel-knn on task {task.name!r}: no label is on some and not on others of the "
            f"{int(held.sum())} training images that are held out; take more"
        )
    temperature, k = ways[int(np.nanargmax(on_held))]
    similarity, index = nearest(x, x_test, k)
    scores = _votes(similarity, known[index], k, temperature)
    out.fit_seconds = time.perf_counter() - start
    out.details = {
        "chosen": _name(temperature, k),
        "validation_map": {
            _name(*way): None if np.isnan(value) else round(value, 6)
            for way, value in zip(ways, on_held, strict=True)
        },
    }
    describe(out, context, scores)
    return out


def _votes(
    similarity: Tensor, labels: Tensor, k: int, temperature: float | None
) -> NDArray[np.float64]:
    """[M, C] share of the first k neighbours with each label, of similarity [M, K] and labels
    [M, K, C]; with a temperature each weighs exp(similarity / temperature)."""
    near = similarity[:, :k].double()
    weight = torch.ones_like(near) if temperature is None else ((near - 1) / temperature).exp()
    shares = (weight[..., None] * labels[:, :k]).sum(1) / weight.sum(1, keepdim=True)
    found: NDArray[np.float64] = shares.numpy()
    return found


def _name(temperature: float | None, k: int) -> str:
    return f"k{k}" if temperature is None else f"k{k}_weighted"
