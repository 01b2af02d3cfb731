"""What is known of many models on one task, in little room, and their means over any tasks at once.

For a thousand models a task has half a million pairs. They are kept once each and in float32, and
summed as such: the rounding (6e-8 of a variance a task) is far below what any decision hangs on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates, mean

Floats = NDArray[np.float64]
Standing = tuple[NDArray[np.int64], Estimates]  # rows of a grid, rising, and what is known of them


@dataclass(frozen=True, eq=False)
class Kept:
    """Estimates of K models. ``own`` lacks the pairs, which stand in ``pair_variance`` and
    ``pair_noise`` [K (K - 1) / 2]: those above the diagonal, row by row."""

    rows: NDArray[np.int64]  # [K] of the grid, rising
    own: Estimates
    pair_variance: NDArray[np.float32]
    pair_noise: NDArray[np.float32]

    @classmethod
    def of(cls, rows: NDArray[np.int64], found: Estimates) -> Kept:
        none = np.zeros((0, 0))
        own = dataclasses.replace(found, pair_variance=none, pair_noise=none)
        return cls(rows, own, _above(found.pair_variance), _above(found.pair_noise))

    def pair(self, a: int, b: int) -> Estimates | None:
        """Of the models in rows ``a`` and ``b`` of the grid, in this order; None where one is not
        among them."""
        at = np.searchsorted(self.rows, [a, b])
        if (at >= len(self.rows)).any() or (self.rows[at] != [a, b]).any() or a == b:
            return None
        i, j, count = int(min(at)), int(max(at)), len(self.rows)
        place = i * (2 * count - i - 3) // 2 - 1 + j
        own = self.own
        return dataclasses.replace(
            own, values=own.values[at], variance=own.variance[at], noise=own.noise[at],
            pair_variance=_both(self.pair_variance[place]),
            pair_noise=_both(self.pair_noise[place]),
        )  # fmt: skip


def standing(tasks: Sequence[Kept], rows: NDArray[np.int64]) -> Standing | None:
    """Those of ``rows`` that every task has, with their means over the tasks (at least one); None
    where there are none."""
    shared: NDArray[np.int64] = reduce(np.intersect1d, [one.rows for one in tasks], rows)
    if not len(shared):
        return None
    count, size = len(tasks), len(shared) * (len(shared) - 1) // 2
    variance, noise = np.zeros(size, np.float32), np.zeros(size, np.float32)
    own = []
    place: NDArray[np.int64] | slice = slice(None)
    known: tuple[int, bytes] | None = None
    for one in tasks:
        at = np.searchsorted(one.rows, shared)
        if known != (len(one.rows), at.tobytes()):  # mostly all tasks have the same models
            known = len(one.rows), at.tobytes()
            place = _places(at, len(one.rows))
        variance += one.pair_variance[place]
        noise += one.pair_noise[place]
        found = one.own
        own.append(
            dataclasses.replace(
                found, values=found.values[at], variance=found.variance[at], noise=found.noise[at]
            )
        )
    return shared, dataclasses.replace(
        mean(own),
        pair_variance=_square(variance, len(shared)) / count**2,
        pair_noise=_square(noise, len(shared)) / count**4,
    )


def _above(square: Floats) -> NDArray[np.float32]:
    """[K (K - 1) / 2] of [K, K]: what stands above the diagonal, row by row."""
    return square[np.triu_indices(len(square), 1)].astype(np.float32)


def _places(at: NDArray[np.int64], count: int) -> NDArray[np.int64] | slice:
    """Where the pairs of the models ``at`` (rising) stand among those of ``count`` models."""
    if len(at) == count:
        return slice(None)
    i, j = np.triu_indices(len(at), 1)
    first = at * (2 * count - at - 3) // 2 - 1  # a row's place, less its first column
    return np.asarray(first[i] + at[j], np.int64)


def _both(value: np.float32) -> Floats:
    """[2, 2] of a pair: the value beside the diagonal."""
    return float(value) * (1 - np.eye(2))


def _square(above: NDArray[np.float32], count: int) -> Floats:
    """[count, count] with both halves; zero on the diagonal."""
    out, start = np.zeros((count, count)), 0
    for i in range(count - 1):
        end = start + count - 1 - i
        out[i, i + 1 :] = above[start:end]
        start = end
    out += out.T  # numpy copies what overlaps
    return out
