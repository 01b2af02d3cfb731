"""Training schedules by name. Unlike schedules never share a board.

The study's own schedule is not published. ``voc-24k``, ``coco-1x`` and ``coco-2x`` are those of the
MoCo detection configs (facebookresearch/moco, detection/configs; He et al. 2020), which its numbers
are usually compared under; MoCo trains Mask R-CNN on COCO, these boxes alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.common.errors import NotFound


@dataclass(frozen=True)
class Schedule:
    """SGD in iterations: a linear warm-up, then a rate that falls to a tenth at each drop."""

    name: str
    iterations: int
    batch_size: int  # images a step, over all processes
    lr: float
    drops: tuple[int, ...]
    warmup: int
    sides: tuple[int, ...]  # short sides in training, one drawn an image
    test_side: int
    max_side: int  # of the long side
    channels: int = 256  # of the pyramid
    head: int = 1024  # width of the pyramid's box head
    rois: int = 512  # boxes of an image that its head learns from
    warmup_factor: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0 (detectron2's WarmupMultiStepLR)."""
        rate = self.lr * 0.1 ** sum(iteration >= drop for drop in self.drops)
        if iteration >= self.warmup:
            return rate
        share = iteration / self.warmup
        return rate * (self.warmup_factor * (1 - share) + share)


_VOC_SIDES = tuple(range(480, 801, 32))
_COCO_SIDES = tuple(range(640, 801, 32))
_SHORT_SIDES = (192, 224, 256, 288)
SMALL = "short:600"

NAMED = {
    s.name: s
    for s in (
        Schedule("voc-24k", 24_000, 16, 0.02, (18_000, 22_000), 100, _VOC_SIDES, 800, 1333),
        Schedule("coco-1x", 90_000, 16, 0.02, (60_000, 80_000), 1000, _COCO_SIDES, 800, 1333),
        Schedule("coco-2x", 180_000, 16, 0.02, (120_000, 160_000), 1000, _COCO_SIDES, 800, 1333),
    )
}
FORMS = ", ".join(NAMED) + " and short:N (N iterations, for small data and small machines)"


def schedule_named(name: str) -> Schedule:
    """The schedule of that name. ``short:N`` is for a machine without GPU: batches of 4 small
    images, a narrow pyramid, few background boxes for its head (with the 512 of the recipe it has
    learned to say nothing before it learns anything else), and the drops of voc-24k. Its rate and
    those boxes were chosen by training on three quarters of the shared voc2007 training images and
    testing on the others.

    Raises UserError for another name."""
    if name in NAMED:
        return NAMED[name]
    if short := re.fullmatch(r"short:([1-9]\d{0,6})", name):
        n = int(short[1])
        drops = tuple(sorted({n * 18 // 24, n * 22 // 24} - {0}))
        return Schedule(
            name, n, 4, 0.02, drops, min(100, n // 4), _SHORT_SIDES, 240, 400,
            channels=64, head=256, rois=64,
        )  # fmt: skip
    raise NotFound(f"unknown schedule {name!r}; schedules are {FORMS}")


_OF_TASK = {"voc0712": "voc-24k", "coco2017": "coco-1x"}


def default_schedule(task: str, whole: bool) -> str:
    """That of the recipe where the whole set is there, else one for a small set."""
    return _OF_TASK.get(task, SMALL) if whole else SMALL
