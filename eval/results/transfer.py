"""What is transfer for a model: scores on images that it was not pretrained on.

One decision for every board, comparison and page. A score on a model's own training data, or on a
set that shares images with them, stands apart: it is shown, and counts in no mean, difference or
rank. The training data are those that the model's author declared (`eval.results.facts`) and, for
the checkpoints that ship, those that the catalog says; where nothing is declared nothing can be
set apart, and the row says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.results.facts import facts_of
from eval.results.schema import ModelInfo
from eval.tasks.overlap import unlisted, why_seen
from eval.tasks.registry import TASKS

Bools = NDArray[np.bool_]
NOT_DECLARED, NOT_LISTED = "not declared", "never listed"  # training data, for all that is said
IN_ZOO = "checkpoints that ship were pretrained on it"
SIGN = "‡"  # behind a score, or a set, that stands apart


@dataclass(frozen=True, eq=False)
class Counted:
    """``columns`` [T] of which means are made; ``cells`` [M, T] that count there."""

    columns: Bools
    cells: Bools


def seen(model: ModelInfo, task: str) -> str:
    """Why a model's score on a task is none of transfer, in words; '' where nothing is declared
    that speaks against it. ``task`` is its name, perhaps with a split behind an @; of a shift both
    sets count."""
    data = facts_of(model).data
    return next((why for one in _sets(task) if (why := why_seen(data, one))), "")


def pretrains(task: str) -> bool:
    """Whether checkpoints that ship were trained on the task's images."""
    return any(name in TASKS and TASKS[name].pretrains for name in _sets(task))


def _sets(task: str) -> tuple[str, ...]:
    """The data sets of a task: two of ``tiny_imagenet-on-sketch`` (`eval.data.shifted`)."""
    name = task.partition("@")[0]
    train, _, test = name.partition("-on-")
    return (train, test) if train in TASKS and test in TASKS else (name,)


def counted(present: Bools, own: Bools, shipped: Bools) -> Counted:
    """Which sets and scores of a board count.

    ``present`` [M, T]: there is a score. ``own`` [M, T]: the model has `seen` the set's images.
    ``shipped`` [T]: the set `pretrains` checkpoints that ship. A set stands apart as a whole where
    it is one of these, or where more than half of the models that were scored on it have seen it:
    a single model that declares a set as its own does not take it from the others, but has no mean
    over it. Where all sets would stand apart there is no transfer to speak of: all count as they
    are.
    """
    away = ~shipped & (2 * (own & present).sum(0) <= present.sum(0))
    if not away.any():
        return Counted(np.ones_like(away), present.copy())
    return Counted(away, present & ~own & away)


def pair_counts(own_a: Bools, own_b: Bools, shipped: Bools) -> Bools:
    """[T] which of the sets that two models share count in their comparison: those that neither has
    seen; all where there are none."""
    own = np.stack([own_a, own_b])
    found = np.asarray(counted(np.ones_like(own), own, shipped).cells.all(0), bool)
    return found if found.any() else np.ones_like(found)


def mark(data: Sequence[str], objective: str, mine: Sequence[str]) -> str:
    """What a row's declared training data mean for its scores: ``mine``, the sets on the board that
    it has `seen`; that nothing is declared, or that what was declared was never listed; '' for a
    row of which nothing is to be said."""
    if mine:
        return f"{SIGN} trained on {', '.join(mine)}"
    if not data and objective != "untrained":
        return NOT_DECLARED
    return NOT_LISTED if unlisted(data) else ""
