"""The grid of settings that a training protocol chooses from, and what it answers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.settings.protocols import Trained


@dataclass(frozen=True)
class Point:
    """One point of the grid."""

    lr: float
    batch_size: int
    weight_decay: float


@dataclass
class Answer:
    """[N_test, C] probabilities of a model trained on some rows of train, and how it was found."""

    probability: NDArray[np.float64]
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # top-1 with one group of the rows left out, for each group, where the protocol finds it
    without: list[float] | None = None


def points(settings: Trained) -> list[Point]:
    """In a fixed order: the first of equally good ones is chosen."""
    grid = itertools.product(settings.lrs, settings.batch_sizes, settings.weight_decays)
    return [Point(*values) for values in grid]


def milestones(epochs: int) -> tuple[int, ...]:
    """When the rate falls to a tenth: the study's 10, 15 of 20 and 25, 37 of 50.

    The first epoch always has the whole rate, and the rate falls once an epoch at most.
    """
    return tuple(sorted({int(0.5 * epochs), int(0.75 * epochs)} - {0}))


def rate(point: Point, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0."""
    return point.lr * 0.1 ** sum(epoch >= m for m in milestones(epochs))
