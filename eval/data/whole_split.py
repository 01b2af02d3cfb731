"""Rules that split one whole source, each over its rows in canonical order.

The arithmetic is that of ``split_rules`` and ``stratified_part``; here stands on which columns, and
in which order of the rows, it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.data.split_rules import TRAIN_SHARE, by_groups, near_share, per_class
from eval.data.task_data import Split, stratified_part


class Table(Protocol):
    """A source with further columns."""

    def column(self, name: str) -> list[Any]:
        """One value a row. Raises UserError where there is no such column."""


@dataclass(frozen=True)
class Drawn:
    """70 % of each class, drawn by the images themselves; copies of an image stay together."""

    seed: int

    def in_train(self, whole: Split) -> NDArray[np.bool_]:
        return stratified_part(whole.labels, whole.keys, TRAIN_SHARE, self.seed)


@dataclass(frozen=True)
class WholeGroups:
    """As near to 70 % of each class as whole groups come, no group on both sides."""

    groups: tuple[str, ...]  # by row of the source
    seed: int

    def in_train(self, whole: Split) -> NDArray[np.bool_]:
        groups = np.asarray(self.groups)[whole.rows]
        return near_share(whole.labels, groups.tolist(), self.seed)

    def note(self, train: NDArray[np.int64], test: NDArray[np.int64], share: float) -> str:
        """What the split came to, of [C] images a class on each side and the ``share`` of all
        images that train has: groups seldom add up to 70 %."""
        both = train + test
        each = 100 * train[both > 0] / both[both > 0]
        return (
            f"split here: whole groups, 70 % of each class to train as near as they come, seed "
            f"{self.seed}; it is {100 * share:.0f} % of the images, {each.min():.0f} to "
            f"{each.max():.0f} % of a class"
        )


@dataclass(frozen=True)
class AsGiven:
    """As a column of the user's own says."""

    train: tuple[bool, ...]  # by row of the source

    def in_train(self, whole: Split) -> NDArray[np.bool_]:
        return np.asarray(self.train, np.bool_)[whole.rows]


@dataclass(frozen=True)
class OfficialOrder:
    """The study's rule, or whole groups, over the images in the authors' order."""

    table: Table
    order: str = ""  # the column that sorts them; '' where the rows lie in that order
    as_text: bool = False  # its values are names, also where they look like numbers
    group: str = ""  # the column of what stays on one side; '' for the study's rule

    def in_train(self, whole: Split) -> NDArray[np.bool_]:
        order = np.arange(len(whole))
        if self.order:
            values = self.table.column(self.order)
            array = np.asarray(values, str) if self.as_text else np.asarray(values)
            order = np.argsort(array, kind="stable")
        groups = self.table.column(self.group) if self.group else None
        by_row = np.empty(len(whole), np.int64)
        by_row[whole.rows] = whole.labels
        labels = by_row[order]
        if groups is not None:
            chosen = by_groups(labels, [str(groups[row]) for row in order])
        else:
            chosen = per_class(labels)
        in_train = np.zeros(len(order), np.bool_)
        in_train[order] = chosen
        return in_train[whole.rows]
