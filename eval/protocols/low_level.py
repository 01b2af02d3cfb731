"""Low-level content on natural images: how much of an image's colours, edges and contrasts a linear
map of the features tells, place by place.

Targets need no labels (`eval.features.low_level`), so that any images do. The maps of a layer (by
default the last) are enlarged bilinearly to a grid of cells; a ridge regression, its penalty chosen
on a held-out part of train for each target, answers each cell of the test images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import Unreadable
from eval.common.images import decode, why_unreadable
from eval.data.held_out import part_held_out
from eval.data.masks.mask_data import MaskSplit
from eval.data.task_data import Split, TaskData
from eval.features import maps
from eval.features.low_level import TARGETS, VALUES, targets
from eval.features.maps import Layout, MapCost, check_room, encode_maps, mapping
from eval.features.readout import layer_names
from eval.metrics.regression import ImageSums, resampled
from eval.metrics.scores import Samples
from eval.protocols.outcome import Outcome
from eval.protocols.segment_maps import ROWS, Mapped, standardised
from eval.settings.protocols import LowLevel
from eval.solvers.dense import enlarging
from eval.solvers.ridge import Moments, Ridge, solve
from eval.training.context import Context

if TYPE_CHECKING:
    from eval.models.backbone import Backbone
    from eval.training.speed import Speed


def score(context: Context[TaskData], settings: LowLevel) -> Outcome:
    """R2 of each target and their mean on test, with resamples of the test images.

    Called on every process, which encode together; the outcome of the main one counts. Raises
    UserError where there is no room for the maps, an image cannot be read, or nothing can be held
    out.
    """
    mapped, layout = mapping(context.backbone, _layers(context.backbone, settings))
    needed = foreseen(context, settings)
    # of all processes or of none: what is free may differ between the moments they look
    context.workers.together(lambda: check_room(needed, context.task, context.cache))
    bank = encode_maps(mapped, context.task, context.cache, context.workers, context.precision)
    if not context.workers.main:
        return Outcome()
    start = time.perf_counter()
    probe = _Probe(context.task, settings, Mapped(bank, layout))
    held = part_held_out(context.task, settings.validation, context.seed)
    rows = np.arange(min(settings.images, len(held)))  # canonical order: as good as drawn
    if held[rows].all() or not held[rows].any():
        rows = np.arange(len(held))
    fitted, judged = (probe.moments(rows[held[rows] == side]) for side in (False, True))
    chosen: dict[str, float] = {}
    on_held: dict[str, list[float]] = {}
    tried = solve(fitted, settings.penalties)
    for name, where in TARGETS.items():
        left = [(m.error(judged) / judged.squares())[where].mean() for m in tried]
        on_held[name] = [round(1 - float(v), 6) for v in left]
        chosen[name] = settings.penalties[int(np.argmax(on_held[name]))]
    every = fitted + judged
    final = {p: solve(every, [p])[0] for p in set(chosen.values())}
    weight, bias = torch.empty_like(every.xy), torch.empty_like(every.y)
    for name, where in TARGETS.items():
        weight[:, where] = final[chosen[name]].weight[:, where]
        bias[where] = final[chosen[name]].bias[where]
    out = Outcome(fit_seconds=time.perf_counter() - start)
    sums = probe.tested(Ridge(weight, bias, float("nan")))
    test = context.task.test
    units = test.units() if isinstance(test, MaskSplit) else np.arange(len(test))
    for name, (interval, values) in resampled(sums, TARGETS, units, context.seed).items():
        out.add(name, interval, len(test))
        out.samples[name] = Samples.of_resamples(values, len(test))
    out.details = {
        "chosen": chosen,
        "validation_r2": on_held,
        "layers": list(layout.layers),
        "grids": [list(grid) for grid in layout.grids],
        "train_images": len(rows),
    }
    return out


def foreseen(context: Context[TaskData], settings: LowLevel) -> MapCost:
    """What the maps and the work on them take."""
    mapped, layout = mapping(context.backbone, _layers(context.backbone, settings))
    width = sum(layout.widths)
    values = settings.cells**2 * (width + VALUES)
    memory = 6 * 8 * width**2 + ROWS * 4 * (3 * values + 2 * layout.bytes)
    return maps.foreseen(mapped, layout, context.task, context.cache, context.precision, memory)


def cost(context: Context[TaskData], settings: LowLevel, speed: Speed) -> float:
    """Seconds of the moments: from those of some images of noise (the first warms up)."""
    _, layout = mapping(context.backbone, _layers(context.backbone, settings))
    x = torch.randn(ROWS * settings.cells**2, sum(layout.widths))
    found = Moments.none(x.shape[1], VALUES)
    found.add(x, x[:, :1].expand(-1, VALUES))
    start = time.perf_counter()
    found.add(x, x[:, :1].expand(-1, VALUES))
    seconds = time.perf_counter() - start
    images = min(settings.images, len(context.task.train)) + len(context.task.test)
    return seconds * images / ROWS


def _layers(backbone: Backbone, settings: LowLevel) -> tuple[str, ...]:
    return settings.layers or layer_names(backbone)[-1:]


class _Probe:
    def __init__(self, task: TaskData, settings: LowLevel, mapped: Mapped) -> None:
        self.task, self.cells, self.mapped = task, settings.cells, mapped
        self.layout: Layout = mapped.layout
        self.statistics = mapped.statistics(torch.arange(min(settings.images, len(task.train))))

    def moments(self, rows: NDArray[np.int64]) -> Moments:
        """Of all cells of rows of train."""
        found = Moments.none(sum(self.layout.widths), VALUES)
        for some, truth in self._targets(self.task.train, rows):
            x = self._cells(self.mapped.train(torch.from_numpy(some)))
            found.add(x.flatten(0, 1), torch.from_numpy(truth).flatten(0, 1))
        return found

    def tested(self, model: Ridge) -> ImageSums:
        """Sums over the cells of each test image, in canonical order."""
        n = len(self.task.test)
        parts: dict[str, NDArray[np.float64]] = {
            "n": np.zeros(n), **{k: np.zeros((n, VALUES)) for k in ("error", "y", "yy")}
        }  # fmt: skip
        for some, truth in self._targets(self.task.test, np.arange(n)):
            answer = model(self._cells(self.mapped.test(torch.from_numpy(some))))
            sums = ImageSums.of(truth.astype(np.float64), answer.double().numpy())
            for name, values in parts.items():
                values[some] = getattr(sums, name)
        return ImageSums(**parts)

    def _cells(self, parts: list[Tensor]) -> Tensor:
        """[B, cells, D]: standardised maps enlarged to the cells, side by side."""
        found = []
        for x, grid in zip(standardised(parts, self.statistics), self.layout.grids, strict=True):
            up, across = (enlarging(side, self.cells) for side in grid)
            large = torch.einsum("yh,xw,bhwd->byxd", up, across, x.unflatten(1, grid))
            found.append(large.flatten(1, 2))
        return torch.cat(found, 2)

    def _targets(
        self, split: Split, index: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(canonical rows, [B, cells, VALUES]), some images at a time, in the source's order."""
        order = index[np.argsort(split.rows[index])]
        stream = split.source.images(split.rows[order])
        with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:
            for begin in range(0, len(order), ROWS):
                some = order[begin : begin + ROWS]
                read = [next(stream) for _ in some]
                found = list(pool.map(lambda item: self._of(split, *item), read))
                yield some, np.stack(found).reshape(len(some), -1, VALUES)

    def _of(self, split: Split, row: int, data: bytes) -> NDArray[np.float32]:
        try:
            return targets(decode(data, split.values), self.cells)
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            raise Unreadable(
                f"task {self.task.name!r}: {split.source.describe(row)} ({split.name}) cannot be "
                f"read as an image: {why_unreadable(data, error)}"
            ) from None
