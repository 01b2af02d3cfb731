"""An attentive probe on frozen tokens: one query learns where to look, a linear layer what it is.

The form is AIM's (`eval.solvers.attentive`); rates, decays, epochs and the choice on part of train
are ours. Tokens are standardised by the training tokens' mean and deviation of each channel, where
AIM has a BatchNorm: the backbone is frozen, so they can be known beforehand, and a batch's size
changes nothing. Tokens are a layer's patches, or the places of a map.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import BadInput
from eval.data.task_data import TaskData, take
from eval.data.validation import held_out
from eval.features.readout import tokens_of
from eval.protocols.outcome import Outcome
from eval.protocols.trained import outcome
from eval.settings.protocols import Attentive
from eval.solvers.attentive import AttentiveProbes, initial, most_heads
from eval.training.context import Context
from eval.training.setup import Answer

_ROWS = 256  # images whose tokens are held at once where nothing is learned


def score(context: Context[TaskData], settings: Attentive) -> Outcome:
    """Top-1, mean per-class accuracy, ECE and NLL on test. Rate and decay are chosen on a part of
    train by all points trained side by side; the best is trained again on all of train.

    Raises UserError where nothing can be held out of train, or every point diverges.
    """

    def fit(rows: NDArray[np.int64]) -> Answer:
        return _Fit(context, settings, rows).answer()

    return outcome(fit, context.task, settings, context.seed)


class _Fit:
    """Some rows of train: tuned on a part of them, trained on all."""

    def __init__(
        self, context: Context[TaskData], settings: Attentive, rows: NDArray[np.int64]
    ) -> None:
        self.context, self.settings = context, settings
        self.device = context.workers.device
        bank = context.features
        self.tokens, self.labels = tokens_of(context.backbone, bank.train[0]), bank.train[1]
        self.test = tokens_of(context.backbone, bank.test[0])
        part = dataclasses.replace(context.task, train=take(context.task.train, rows))
        held = held_out(part, settings.validation, context.seed)
        self.rows, self.held, self.fitted = (
            torch.from_numpy(r) for r in (rows, rows[held], rows[~held])
        )
        self.points = list(itertools.product(settings.lrs, settings.weight_decays))
        self.heads = most_heads(self.tokens.shape[2], settings.heads)

    def answer(self) -> Answer:
        mean, scale = self._statistics(self.fitted)
        tuned = self._trained(self.points, self.fitted, mean, scale)
        if all(tuned.diverged):
            raise BadInput(
                f"attentive on task {self.context.task.name!r}: all {len(self.points)} points of "
                "the grid diverged; use smaller rates with --set attentive.lrs=[...]"
            )
        right = torch.zeros(len(self.points))
        for at in self.held.split(_ROWS):
            found = tuned.logits(self._prepared(self.tokens[at], mean, scale)).cpu()
            right += (found.argmax(2) == self.labels[at, None]).sum(0)
        top1 = [
            None if gone else round(float(r) / len(self.held), 6)
            for r, gone in zip(right, tuned.diverged, strict=True)
        ]
        best = max(range(len(top1)), key=lambda i: -1.0 if top1[i] is None else top1[i])  # type: ignore[arg-type,return-value]  # None is -1
        mean, scale = self._statistics(self.rows)
        final = self._trained([self.points[best]], self.rows, mean, scale)
        parts = [
            final.logits(self._prepared(some, mean, scale))[:, 0].cpu()
            for some in self.test.split(_ROWS)
        ]
        logits = torch.cat(parts)
        if final.diverged[0] or not logits.isfinite().all():
            lr, decay = self.points[best]
            raise BadInput(
                f"attentive on task {self.context.task.name!r}: the point chosen on part of train "
                f"(lr {lr:g}, weight decay {decay:g}) diverged on all of it; use smaller rates"
            )
        details: dict[str, Any] = {
            "chosen": dict(zip(("lr", "weight_decay"), self.points[best], strict=True)),
            "points": [
                {"lr": lr, "weight_decay": decay, "top1": value}
                for (lr, decay), value in zip(self.points, top1, strict=True)
            ],
            "heads": self.heads,
            "tokens": self.tokens.shape[1],
        }
        return Answer(logits.double().softmax(1).numpy(), details)

    def _trained(
        self, points: list[tuple[float, float]], rows: Tensor, mean: Tensor, scale: Tensor
    ) -> AttentiveProbes:
        """Probes of the points, trained on rows of train together."""
        generator = torch.Generator().manual_seed(self._words("start")[0])
        classes = len(self.context.task.classes)
        start = initial(self.tokens.shape[2], classes, generator)
        lrs, decays = zip(*points, strict=True)
        size = self.settings.batch_size
        probes = AttentiveProbes(
            {name: value.to(self.device) for name, value in start.items()},
            self.heads, lrs, decays, self.settings.epochs * -(-len(rows) // size),
        )  # fmt: skip
        for epoch in range(self.settings.epochs):
            for some in self._order(epoch, rows).split(size):
                tokens = self._prepared(self.tokens[some], mean, scale)
                probes.step(tokens, self.labels[some].to(self.device))
        return probes

    def _prepared(self, tokens: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return ((tokens.to(self.device) - mean) / scale).float()

    def _statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [D] of the tokens of rows of train; 1 for a constant channel."""
        total = torch.zeros(2, self.tokens.shape[2], dtype=torch.float64)
        for some in self._blocks(rows):
            total += torch.stack([some.sum((0, 1)), some.square().sum((0, 1))])
        mean, square = total / (len(rows) * self.tokens.shape[1])
        scale = (square - mean.square()).clamp_min(0).sqrt()
        scale[scale <= 1e-6 * mean.abs()] = 1
        scale[scale == 0] = 1
        return mean.float().to(self.device), scale.float().to(self.device)

    def _blocks(self, rows: Tensor) -> Iterator[Tensor]:
        return (self.tokens[some].double() for some in rows.split(_ROWS))

    def _order(self, epoch: int, rows: Tensor) -> Tensor:
        random = np.random.RandomState(self._words(f"order:{epoch}"))
        return rows[torch.from_numpy(random.permutation(len(rows)))]

    def _words(self, what: str) -> list[int]:
        facts = f"{self.context.task.split_hash}:{self.context.seed}:attentive:{what}"
        return np.frombuffer(hashlib.sha256(facts.encode()).digest(), "<u4").tolist()
