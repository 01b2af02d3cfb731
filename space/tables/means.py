"""Means over tasks, each with its interval and the chance that this speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from space.tables.kept import Standing
from space.tables.matrix import Grid

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Means:
    """``value`` and ``half`` of its 95 % interval [M], nan where a row lacks a task; ``kind`` [M]
    of `eval.metrics.estimates.KINDS`, ``mixed`` for a mean over intervals of unlike kinds."""

    value: Floats
    half: Floats
    kind: NDArray[np.str_]


def means(
    grid: Grid, rows: Sequence[int] | NDArray[np.int64], tasks: Sequence[int] | NDArray[np.int64],
    told: Standing | None, counts: NDArray[np.bool_] | None = None,
) -> Means:  # fmt: skip
    """Each row's mean over ``tasks``, which are taken as given and independent of each other.

    ``told`` is the grid's standing on these tasks: what it knows of a row counts. Of other rows the
    half widths add up in squares; the mean of one task is that task's score as it stands.
    ``counts`` [rows, tasks]: a row has no mean over a score that does not count; None: all do.
    """
    place = np.ix_(np.asarray(rows, np.int64), np.asarray(tasks, np.int64))
    value, count = grid.value[place], max(len(tasks), 1)
    if counts is not None:
        value = np.where(counts, value, np.nan)
    whole = ~np.isnan(value).any(1) if len(tasks) else np.zeros(len(rows), bool)
    widths = (grid.high[place] - grid.low[place]) / 2
    half = np.where(whole, np.sqrt((widths**2).sum(1)) / count, np.nan)
    kinds = grid.kind[place]
    first = kinds[:, 0] if len(tasks) else np.full(len(rows), "")
    alike = (kinds == first[:, None]).all(1)
    kind = np.where(whole, np.where(alike, first, "mixed"), "")
    if told is not None and len(tasks) > 1:
        asked, found = told
        at = {int(row): i for i, row in enumerate(rows)}
        known = np.array([at[row] for row in asked.tolist()], np.int64)
        half[known], kind[known] = found.half_widths(), found.kind
    return Means(np.where(whole, value.sum(1) / count, np.nan), half, kind)
