"""Segmentation without training: a place of a test image asks its nearest places of train.

Each place of train that is kept has the share of every class in it; a place of a test image gets
the shares of its k nearest by cosine, weighted by a softmax of similarity over temperature, and the
shares are enlarged to the mask. So does Hummingbird (Balazevic et al., Towards In-Context Scene
Understanding, NeurIPS 2023), with k = 30, temperature 0.02 and memories of millions; ours keeps
10,000 places drawn at random and chooses k and temperature on part of train.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import TooFew
from eval.data.masks.mask_data import SegmentationData, held_out_masks
from eval.features.maps import mapping
from eval.metrics.segmentation import mean_iou
from eval.protocols.outcome import Outcome
from eval.protocols.segment_maps import (
    KNN_SAMPLES,
    ROWS,
    Mapped,
    Statistics,
    counted,
    describe,
    read_maps,
    sampled,
    standardised,
    tallied,
)
from eval.settings.protocols import SegmentKnn
from eval.solvers.knn import nearest
from eval.training.context import Context

if TYPE_CHECKING:
    from eval.training.speed import Speed

Way = tuple[int, float]  # k, temperature


def score(context: Context[SegmentationData], settings: SegmentKnn) -> Outcome:
    """mIoU and pixel accuracy on test, with resamples of the test images.

    Called on every process, which encode together; the outcome of the main one counts. Raises
    UserError where there is no room for the maps or nothing can be held out.
    """
    mapped = read_maps(context, settings)
    if not context.workers.main:
        return Outcome()
    start = time.perf_counter()
    fit = _Fit(context, settings, mapped)
    held = held_out_masks(context.task, settings.validation, context.seed)
    memory = fit.memory(np.flatnonzero(~held))
    ks = [k for k in settings.ks if k <= len(memory.places)] or [len(memory.places)]
    ways = list(itertools.product(ks, settings.temperatures))
    totals = np.zeros((len(ways), fit.classes, fit.classes))
    for rows in torch.from_numpy(np.flatnonzero(held)).split(ROWS):
        shares = fit.shares(mapped.train(rows), memory, ways)
        counts = fit.counts(rows.numpy())
        for i, share in enumerate(shares):
            totals[i] += tallied(share.argmax(2).unflatten(1, fit.grid), counts).numpy()
    on_held = mean_iou(totals)
    best = ways[int(np.nanargmax(on_held))]
    every = fit.memory(np.arange(len(context.task.train)))
    out = Outcome(fit_seconds=time.perf_counter() - start)
    out.details = {
        "chosen": {"k": best[0], "temperature": best[1]},
        "points": [
            {"k": k, "temperature": temperature, "miou": round(float(value), 6)}
            for (k, temperature), value in zip(ways, on_held, strict=True)
        ],
        "held_out": int(held.sum()),
        "places": len(every.places),
        "layers": list(mapped.layout.layers),
        "grid": list(fit.grid),
    }
    if dropped := sorted(set(settings.ks) - set(ks)):
        out.notes.append(f"k {dropped} left out: only {len(memory.places)} places to choose among")

    def answer(rows: NDArray[np.int64]) -> Callable[[int, tuple[int, int]], Tensor]:
        [share] = fit.shares(mapped.test(torch.from_numpy(rows)), every, [best])
        small = share.transpose(1, 2).unflatten(2, fit.grid)  # [B, C, h, w]

        def of(i: int, size: tuple[int, int]) -> Tensor:
            one = small[i : i + 1]
            return F.interpolate(one, size=size, mode="bilinear", align_corners=False)[0]

        return of

    describe(out, context, answer)
    return out


def cost(context: Context[SegmentationData], settings: SegmentKnn, speed: Speed) -> float:
    """Seconds of searching: from the places of an image of noise among a memory of it (the first
    search warms up)."""
    _, layout = mapping(context.backbone, settings.layers)
    rows, columns = layout.finest
    images = len(context.task.train)
    memory = torch.randn(min(settings.memory, images * rows * columns), sum(layout.widths))
    asking = torch.randn(rows * columns, memory.shape[1])
    most = min(max(settings.ks), len(memory))
    nearest(memory, asking, most)
    start = time.perf_counter()
    nearest(memory, asking, most)
    seconds = time.perf_counter() - start
    return seconds * (settings.validation * images + len(context.task.test))


class _Memory:
    """Places of train, and what they show."""

    def __init__(self, places: Tensor, shares: Tensor, statistics: Statistics) -> None:
        self.places, self.shares, self.statistics = places, shares, statistics  # [M, D], [M, C]


class _Fit:
    def __init__(
        self, context: Context[SegmentationData], settings: SegmentKnn, mapped: Mapped
    ) -> None:
        self.context, self.settings, self.mapped = context, settings, mapped
        self.classes = len(context.task.classes)
        self.grid = mapped.layout.finest
        self.labels = sampled(context.task.train, self.grid, KNN_SAMPLES)

    def memory(self, rows: NDArray[np.int64]) -> _Memory:
        """Places of some images of train, drawn at random among those with a labelled sample.
        Raises TooFew where there is none."""
        labelled = []  # of each image, the places
        for row in rows:
            counts = self.counts(np.array([row])).sum(3).view(-1)
            labelled.append(torch.nonzero(counts)[:, 0].numpy())
        sizes = np.array([len(some) for some in labelled])
        if not sizes.sum():
            raise TooFew(f"task {self.context.task.name!r}: no labelled place of train is left")
        facts = f"{self.context.task.split_hash}:{self.context.seed}:segment-knn"
        words = np.frombuffer(hashlib.sha256(facts.encode()).digest(), "<u4").tolist()
        drawn = np.random.RandomState(words).permutation(int(sizes.sum()))[: self.settings.memory]
        drawn = np.sort(drawn)
        ends = np.cumsum(sizes)
        image = np.searchsorted(ends, drawn, side="right")
        statistics = self.mapped.statistics(torch.from_numpy(rows))
        places, shares = [], []
        for i in np.unique(image):
            mine = labelled[i][drawn[image == i] - (ends[i] - sizes[i])]
            row = rows[i : i + 1]
            found = self.vectors(self.mapped.train(torch.from_numpy(row)), statistics)[0]
            counts = self.counts(row)[0].flatten(0, 1)[mine]
            places.append(found[mine])
            shares.append(counts / counts.sum(1, keepdim=True))
        return _Memory(torch.cat(places), torch.cat(shares), statistics)

    def vectors(self, parts: list[Tensor], statistics: Statistics) -> Tensor:
        """[B, T, D] of length 1: layers enlarged to the finest grid, each of the same length."""
        found = []
        for x, grid in zip(
            standardised(parts, statistics), self.mapped.layout.grids, strict=True
        ):  # fmt: skip
            if grid != self.grid:
                small = x.transpose(1, 2).unflatten(2, grid)
                large = F.interpolate(small, size=self.grid, mode="bilinear", align_corners=False)
                x = large.flatten(2).transpose(1, 2)
            found.append(F.normalize(x, dim=2))
        return F.normalize(torch.cat(found, dim=2), dim=2)

    def shares(self, parts: list[Tensor], memory: _Memory, ways: Sequence[Way]) -> list[Tensor]:
        """[B, T, C] of each way: the classes' shares at each place, of maps of B images."""
        asking = self.vectors(parts, memory.statistics)
        images, places = asking.shape[:2]
        most = max(k for k, _ in ways)
        similarity, index = nearest(memory.places, asking.flatten(0, 1), most)
        found = [torch.empty(len(index), self.classes) for _ in ways]
        for some in torch.arange(len(index)).split(places):  # an image's neighbours at a time
            shown = memory.shares[index[some]]  # [T, k, C]
            for share, (k, temperature) in zip(found, ways, strict=True):
                weight = (similarity[some, :k] / temperature).softmax(1)
                share[some] = torch.bmm(weight[:, None], shown[:, :k])[:, 0]
        return [share.view(images, places, -1) for share in found]

    def counts(self, rows: NDArray[np.int64]) -> Tensor:
        return counted(self.labels[rows], self.classes, KNN_SAMPLES)
