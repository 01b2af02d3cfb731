"""What both segmentation protocols share: maps of the task's images, labels by cell, the scores.

Test pixels are answered at the size of their mask and counted by image; training sees each cell's
labels by four samples (``SAMPLES`` a side), so that memory is bounded by the cells, however large
the masks are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eval.data.masks.mask_data import MaskSplit, SegmentationData
from eval.features import maps
from eval.features.bank import FeatureBank
from eval.features.maps import Layout, MapCost, check_room, encode_maps, mapping
from eval.metrics.scores import Samples
from eval.metrics.segmentation import confusion, iou, resampled
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Segment, SegmentKnn
from eval.training.context import Context

SAMPLES = 2  # a side, of a cell's labels
KNN_SAMPLES = 4  # of a place's: there are fewer
EXAMPLES = 8  # test images whose answers the result keeps
ROWS = 32  # images whose maps are read at once

Statistics = list[tuple[Tensor, Tensor]]  # of each layer: mean and deviation [D]


@dataclass(frozen=True)
class Mapped:
    """A task's maps, and how they lie."""

    bank: FeatureBank
    layout: Layout

    def train(self, rows: Tensor) -> list[Tensor]:
        """[B, T, D] of each layer, of rows of train."""
        return self.layout.split(self.bank.train[0][rows])

    def test(self, rows: Tensor) -> list[Tensor]:
        return self.layout.split(self.bank.test[0][rows])

    def statistics(self, rows: Tensor) -> Statistics:
        """Of places of rows of train; the deviation is 1 for a constant channel."""
        widths = self.layout.widths
        totals = [torch.zeros(2, width, dtype=torch.float64) for width in widths]
        for some in rows.split(ROWS):
            for total, x in zip(totals, self.train(some), strict=True):
                flat = x.flatten(0, 1).double()
                total += torch.stack([flat.sum(0), flat.square().sum(0)])
        found = []
        for (first, second), (height, width) in zip(totals, self.layout.grids, strict=True):
            count = len(rows) * height * width
            mean = first / count
            scale = (second / count - mean.square()).clamp_min(0).sqrt()
            scale[scale <= 1e-6 * mean.abs()] = 1
            scale[scale == 0] = 1
            found.append((mean.float(), scale.float()))
        return found


def standardised(parts: list[Tensor], statistics: Statistics) -> list[Tensor]:
    return [(x - mean) / scale for x, (mean, scale) in zip(parts, statistics, strict=True)]


def cells_of(layout: Layout, least: int) -> tuple[int, int]:
    """Rows and columns of cells: those of the finest map, or as many as asked for."""
    rows, columns = layout.finest
    return max(rows, least), max(columns, least)


def foreseen(context: Context[SegmentationData], settings: Segment | SegmentKnn) -> MapCost:
    """What the maps and the work on them take: a plan says it, and a run is refused by it."""
    mapped, layout = mapping(context.backbone, settings.layers)
    images = len(context.task.train)
    values = sum(h * w * d for (h, w), d in zip(layout.grids, layout.widths, strict=True))
    if isinstance(settings, Segment):
        rows, columns = cells_of(layout, settings.cells)
        labels = images * rows * columns * SAMPLES**2
        batch = settings.batch_size * 3 * 4 * values
        memory = labels + batch + 4 * (64 << 20)  # of DenseProbes' pieces
    else:
        rows, columns = layout.finest
        labels = images * rows * columns * KNN_SAMPLES**2
        width = sum(layout.widths)
        memory = labels + settings.memory * 4 * (width + len(context.task.classes)) + (256 << 20)
    memory += ROWS * 3 * 4 * values
    return maps.foreseen(
        mapped, layout, context.task, context.cache, context.precision, memory
    )  # fmt: skip


def read_maps(context: Context[SegmentationData], settings: Segment | SegmentKnn) -> Mapped:
    """Called by all processes. Raises UserError where there is no room, and as `encode` does."""
    mapped, layout = mapping(context.backbone, settings.layers)
    needed = foreseen(context, settings)
    # of all processes or of none: what is free may differ between the moments they look
    context.workers.together(lambda: check_room(needed, context.task, context.cache))
    bank = encode_maps(mapped, context.task, context.cache, context.workers, context.precision)
    return Mapped(bank, layout)


def sampled(split: MaskSplit, cells: tuple[int, int], samples: int = SAMPLES) -> NDArray[np.uint8]:
    """[N, samples rows, samples columns] class numbers at the middles of so many parts of each
    mask, VOID where there is none."""
    rows, columns = (samples * side for side in cells)
    found = np.empty((len(split), rows, columns), np.uint8)
    for i, mask in split.label_maps(np.arange(len(split))):
        down, across = (
            ((np.arange(n) + 0.5) * size / n).astype(np.int64)
            for n, size in zip((rows, columns), mask.shape, strict=True)
        )
        found[i] = mask[down[:, None], across]
    return found


def counted(labels: NDArray[np.uint8], classes: int, samples: int = SAMPLES) -> Tensor:
    """[B, Y, X, C] samples of each class in each cell, of labels [B, samples Y, samples X]."""
    images, rows, columns = labels.shape
    one = torch.from_numpy(labels.astype(np.int64)).clamp_max(classes)  # void: one class more
    counts = torch.zeros(images, rows // samples, columns // samples, classes + 1)
    for i in range(samples):
        for j in range(samples):
            part = one[:, i::samples, j::samples, None]
            counts.scatter_add_(3, part, torch.ones(part.shape))
    return counts[..., :classes]


def tallied(answers: Tensor, counts: Tensor) -> Tensor:
    """[C, C] samples by true and answered class, of answers [B, Y, X] by cell."""
    classes = counts.shape[3]
    answered = F.one_hot(answers, classes).float().flatten(0, 2)
    return counts.flatten(0, 2).t() @ answered


def describe(
    out: Outcome,
    context: Context[SegmentationData],
    answer: Callable[[NDArray[np.int64]], Callable[[int, tuple[int, int]], Tensor]],
) -> None:
    """mIoU and pixel accuracy on test with their resamples, IoU by class, a few answers.

    ``answer(rows)`` prepares rows of test and gives a function of (place in rows, mask size) to
    logits [C, rows, columns].
    """
    task = context.task
    split, classes = task.test, len(task.classes)
    matrices = np.zeros((len(split), classes, classes), np.int64)
    kept: dict[int, NDArray[np.uint8]] = {}
    order = np.argsort(split.rows)  # as masks are read
    for begin in range(0, len(order), ROWS):
        rows = order[begin : begin + ROWS]
        of = answer(rows)
        places = {int(row): place for place, row in enumerate(rows)}
        for i, mask in split.label_maps(rows):
            found = of(places[i], mask.shape).argmax(0).cpu().numpy().astype(np.uint8)
            matrices[i] = confusion(mask, found, classes)
            if i < EXAMPLES:
                kept[i] = found
    n = len(split)
    for name, (interval, values) in resampled(matrices, split.units(), context.seed).items():
        out.add(name, interval, n)
        out.samples[name] = Samples.of_resamples(values, n)
    whole = matrices.sum(0)
    pixels = whole.sum(1)
    out.details |= {
        "per_class": [
            {"name": name, "iou": None if np.isnan(value) else round(float(value), 6),
             "pixels": int(count)}
            for name, value, count in zip(task.classes, iou(whole), pixels, strict=True)
        ],
        "examples": [_example(split, i, kept[i]) for i in sorted(kept)],
    }  # fmt: skip
    if split.groups is not None:
        units, groups = int(split.units().max()) + 1, len(np.unique(split.groups))
        if units != groups:
            out.notes.append(
                f"test has {groups} groups: {units} stretches of neighbouring images in them are "
                "drawn again for intervals"
            )


def _example(split: MaskSplit, i: int, answer: NDArray[np.uint8]) -> dict[str, Any]:
    """The answer as a small PNG of class numbers."""
    picture = Image.fromarray(answer)
    picture.thumbnail((160, 160), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return {
        "row": i,
        "hash": split.hashes[i].tobytes().hex(),
        "answer": base64.b64encode(out.getvalue()).decode(),
    }
