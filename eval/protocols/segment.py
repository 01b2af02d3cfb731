"""Segmentation by a linear layer on maps of the frozen backbone.

The form is that of DINOv2's linear segmentation (BatchNorm, a linear layer on patch tokens, logits
enlarged bilinearly, cross-entropy without void; dinov2/eval/segmentation, mmsegmentation's BNHead)
with our choices: maps are standardised by those of train, where they have a BatchNorm, as the
backbone is frozen; AdamW, rates and decays chosen on part of train (whole groups of it, where there
are some), the best point trained again on all of it; the loss is taken at cells of the enlarged
logits (`eval.solvers.dense`), scores at every pixel. No augmentation.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import BadInput
from eval.data.masks.mask_data import SegmentationData, held_out_masks
from eval.features.maps import mapping
from eval.metrics.segmentation import mean_iou
from eval.protocols.outcome import Outcome
from eval.protocols.segment_maps import (
    ROWS,
    Mapped,
    Statistics,
    cells_of,
    counted,
    describe,
    read_maps,
    sampled,
    standardised,
    tallied,
)
from eval.settings.protocols import Segment
from eval.solvers.dense import DenseProbes
from eval.training.context import Context

if TYPE_CHECKING:
    from eval.training.speed import Speed


def score(context: Context[SegmentationData], settings: Segment) -> Outcome:
    """mIoU and pixel accuracy on test, with resamples of the test images.

    Called on every process, which encode together; the outcome of the main one counts. Raises
    UserError where there is no room for the maps, nothing can be held out, or every point diverges.
    """
    mapped = read_maps(context, settings)
    if not context.workers.main:
        return Outcome()
    start = time.perf_counter()
    fit = SegmentFit(context, settings, mapped)
    probes, statistics, details = fit.best()
    out = Outcome(details=details, fit_seconds=time.perf_counter() - start)

    def answer(rows: NDArray[np.int64]) -> Callable[[int, tuple[int, int]], Tensor]:
        parts = fit.prepared(mapped.test(torch.from_numpy(rows)), statistics)
        return lambda i, size: probes.enlarged([x[i : i + 1] for x in parts], size)[0]

    describe(out, context, answer)
    return out


def cost(context: Context[SegmentationData], settings: Segment, speed: Speed) -> float:
    """Seconds of training: from a step of the whole grid on maps of zeros (the first warms up)."""
    _, layout = mapping(context.backbone, settings.layers)
    cells, classes = cells_of(layout, settings.cells), len(context.task.classes)
    points = list(itertools.product(settings.lrs, settings.weight_decays))
    lrs, decays = zip(*points, strict=True)
    images = len(context.task.train)
    size = min(settings.batch_size, images)
    probes = DenseProbes(layout.grids, layout.widths, cells, classes, lrs, decays, 2)
    zeros = [
        torch.zeros(size, h * w, d) for (h, w), d in zip(layout.grids, layout.widths, strict=True)
    ]
    counts = torch.ones(size, *cells, classes)
    probes.step(zeros, counts)
    start = time.perf_counter()
    probes.step(zeros, counts)
    seconds = time.perf_counter() - start
    steps = settings.epochs * images / size
    return seconds * steps * (1 - settings.validation + 1 / len(points))


class SegmentFit:
    """Some rows of train: tuned on a part of them, trained on all."""

    def __init__(
        self, context: Context[SegmentationData], settings: Segment, mapped: Mapped
    ) -> None:
        self.context, self.settings, self.mapped = context, settings, mapped
        self.device = context.workers.device
        self.classes = len(context.task.classes)
        self.cells = cells_of(mapped.layout, settings.cells)
        self.labels = sampled(context.task.train, self.cells)
        held = held_out_masks(context.task, settings.validation, context.seed)
        self.held, self.fitted = (torch.from_numpy(np.flatnonzero(x)) for x in (held, ~held))
        self.points = list(itertools.product(settings.lrs, settings.weight_decays))

    def best(self) -> tuple[DenseProbes, Statistics, dict[str, Any]]:
        """(the chosen point, trained on all of train; its statistics; what was found)."""
        name = self.context.task.name
        statistics = self.mapped.statistics(self.fitted)
        tuned = self.trained(self.points, self.fitted, statistics)
        if all(tuned.diverged):
            raise BadInput(
                f"segment on task {name!r}: all {len(self.points)} points of the grid diverged; "
                "use smaller rates with --set segment.lrs=[...]"
            )
        on_held = self.validated(tuned, statistics)
        found = [
            None if gone or np.isnan(value) else round(float(value), 6)
            for value, gone in zip(on_held, tuned.diverged, strict=True)
        ]
        best = max(range(len(found)), key=lambda i: -1.0 if (v := found[i]) is None else v)
        every = torch.arange(len(self.labels))
        statistics = self.mapped.statistics(every)
        final = self.trained([self.points[best]], every, statistics)
        if final.diverged[0]:
            lr, decay = self.points[best]
            raise BadInput(
                f"segment on task {name!r}: the point chosen on part of train (lr {lr:g}, weight "
                f"decay {decay:g}) diverged on all of it; use smaller rates"
            )
        layout = self.mapped.layout
        details: dict[str, Any] = {
            "chosen": dict(zip(("lr", "weight_decay"), self.points[best], strict=True)),
            "points": [
                {"lr": lr, "weight_decay": decay, "miou": value}
                for (lr, decay), value in zip(self.points, found, strict=True)
            ],
            "held_out": len(self.held),
            "layers": [
                {"name": name, "grid": list(grid), "width": width}
                for name, grid, width in zip(
                    layout.layers, layout.grids, layout.widths, strict=True
                )
            ],
            "cells": list(self.cells),
        }
        return final, statistics, details

    def trained(
        self, points: list[tuple[float, float]], rows: Tensor, statistics: Statistics
    ) -> DenseProbes:
        """Probes of the points, trained on rows of train together."""
        lrs, decays = zip(*points, strict=True)
        layout, size = self.mapped.layout, self.settings.batch_size
        steps = self.settings.epochs * -(-len(rows) // size)
        probes = DenseProbes(
            layout.grids, layout.widths, self.cells, self.classes, lrs, decays, steps, self.device
        )
        for epoch in range(self.settings.epochs):
            for some in self.order(epoch, rows).split(size):
                maps = self.prepared(self.mapped.train(some), statistics)
                probes.step(maps, self.counts(some))
        return probes

    def validated(self, probes: DenseProbes, statistics: Statistics) -> NDArray[np.float64]:
        """[G] mIoU on the cells of the part that is held out."""
        totals = np.zeros((probes.count, self.classes, self.classes))
        for some in self.held.split(max(1, ROWS // 4)):
            maps = self.prepared(self.mapped.train(some), statistics)
            answers = probes.answers(maps).argmax(4)
            counts = self.counts(some)
            for probe in range(probes.count):
                totals[probe] += tallied(answers[..., probe], counts).cpu().numpy()
        return mean_iou(totals)

    def counts(self, rows: Tensor) -> Tensor:
        return counted(self.labels[rows.numpy()], self.classes).to(self.device)

    def prepared(self, parts: list[Tensor], statistics: Statistics) -> list[Tensor]:
        return [x.to(self.device) for x in standardised(parts, statistics)]

    def order(self, epoch: int, rows: Tensor) -> Tensor:
        facts = f"{self.context.task.split_hash}:{self.context.seed}:segment:order:{epoch}"
        words = np.frombuffer(hashlib.sha256(facts.encode()).digest(), "<u4").tolist()
        random = np.random.RandomState(words)
        return rows[torch.from_numpy(random.permutation(len(rows)))]
