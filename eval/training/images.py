"""The images of a fine-tuning: augmented batches of train, and the model's own view of the rest.

The order of an epoch is drawn from (seed, epoch), a view from (seed, epoch, place of the image in
canonical order). So a resumed run draws what an uninterrupted one would have drawn, all points of a
grid see the same images in the same order, and neither the batch, the number of processes nor the
size of a micro-batch changes a view.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.data.task_data import TaskData
from eval.features.encode import default_batch_size, pixels_of
from eval.training.context import Context
from eval.training.crop_images import TrainCrops
from eval.training.windows import Drawn, Windows

KEEP_BYTES = 1 << 30  # decoded evaluation images are kept in memory below this


def draw_seed(*parts: int) -> int:
    """A seed below 2^63 that differs whenever one of the parts does."""
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def batches_of(count: int, size: int, processes: int = 1) -> list[slice]:
    """An epoch's batches. The last, partial one is kept, but left out where a process would get a
    single image (or none) of it: BatchNorm has no variance of one."""
    slices = [slice(at, min(at + size, count)) for at in range(0, count, size)]
    return [s for s in slices if s.stop - s.start >= 2 * processes]


def share_of(whole: slice, rank: int, processes: int) -> slice:
    """The part of a slice that falls to one process; parts differ by one at most."""
    count = whole.stop - whole.start
    bounds = (count * rank // processes, count * (rank + 1) // processes)
    return slice(whole.start + bounds[0], whole.start + bounds[1])


class TrainImages:
    """All training images of a task as decoded pixels, and augmented views of them."""

    def __init__(
        self,
        setup: Context[TaskData],
        scale: tuple[float, float],
        crops_from: str = "originals",
    ) -> None:
        """Decodes them, or finds them decoded. Raises UserError naming a row that cannot be read,
        and for a model whose input is not square."""
        self._images = TrainCrops(setup, scale, crops_from)
        self._labels = torch.from_numpy(setup.task.train.labels)
        self._device, self._seed = setup.workers.device, setup.seed

    def order(self, rows: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """[N] ``rows`` as an epoch takes them."""
        return rows[np.random.default_rng([self._seed, epoch]).permutation(len(rows))]

    def crops(self, epoch: int) -> Drawn:
        """Those of an epoch, of every image of train in canonical order."""
        return self._images.draw(draw_seed(self._seed, epoch))

    def read(self, rows: NDArray[np.int64], crops: Drawn) -> Windows:
        """The pixels under the crops of canonical rows."""
        return self._images.read(rows, crops)

    def views(self, rows: NDArray[np.int64], windows: Windows) -> tuple[Tensor, Tensor]:
        """[B, 3, px, px] float32 and labels [B], on the device, of what ``read`` returned."""
        return self._images.cut(windows), self._labels[rows].to(self._device)

    def batches(
        self, rows: NDArray[np.int64], share: Sequence[slice], crops: Drawn
    ) -> Iterator[tuple[NDArray[np.int64], Windows]]:
        """``rows`` and what was read of them by the slices; a thread reads one batch ahead."""
        with ThreadPoolExecutor(1) as pool:
            ahead: deque[Future[Windows]] = deque()
            for current, following in itertools.pairwise([None, *share, None]):
                if following is not None:
                    ahead.append(pool.submit(self.read, rows[following], crops))
                if current is not None:
                    yield rows[current], ahead.popleft().result()


class EvalImages:
    """One process's share of images under the model's own evaluation transform.

    They are decoded when they are first asked for, and again each time if they are too many to
    keep.
    """

    def __init__(self, setup: Context[TaskData], part: str, rows: NDArray[np.int64]) -> None:
        """``rows`` are canonical rows of the task's ``part``, train or test."""
        self._setup = setup
        self._split = getattr(setup.task, part)
        shape = setup.backbone.input_config["input_size"]
        self.count = len(rows)
        by_source = np.argsort(self._split.rows[rows])
        workers = setup.workers
        self._places = by_source[share_of(slice(0, len(rows)), workers.rank, workers.count)]
        self._rows = self._split.rows[rows[self._places]]
        self._size = default_batch_size(workers.device, shape[1] * shape[2])
        self._keep = len(self._places) * math.prod(shape) <= KEEP_BYTES
        self._kept: list[NDArray[np.uint8]] | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Places [B] among the rows that were asked for, and their pixels [B, 3, H, W].

        Raises UserError naming a row that cannot be read.
        """
        parts = np.split(self._places, range(self._size, len(self._places), self._size))
        if self._kept is not None:
            yield from zip(parts, self._kept, strict=True)
            return
        kept = []
        for part, pixels in zip(parts, self._decoded(), strict=True):
            if self._keep:
                kept.append(pixels)
            yield part, pixels
        self._kept = kept if self._keep else None

    def _decoded(self) -> Iterator[NDArray[np.uint8]]:
        """Batches decoded by threads: ahead of an accelerator, in turn with a CPU's computing."""
        backbone, task, split = self._setup.backbone, self._setup.task, self._split
        cpu = self._setup.workers.device.type == "cpu"
        ahead, threads = (0, max(1, torch.get_num_threads())) if cpu else (2, 8)
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        stream = split.source.images(self._rows)
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(itertools.islice(stream, self._size)):
                waiting.append(
                    [pool.submit(pixels_of, backbone, task, split, *item) for item in batch]
                )
                if len(waiting) > ahead:
                    yield np.stack([f.result() for f in waiting.popleft()])
            while waiting:
                yield np.stack([f.result() for f in waiting.popleft()])
