"""Which models cannot be told apart, and which places could each of them hold?

All pairs are compared at once: the largest of all differences between equal models, in standard
errors, exceeds the quantile of the studentised range in at most 5 % of boards, for any number of
models (Tukey; for unequal variances and correlated scores Tukey and Kramer's form, proven for the
usual layouts, held conservative in general, and simulated in `tests/bench/bench_certainty.py`). Who
is best is not taken as known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates

LEVEL = 0.05


@dataclass(frozen=True)
class Ties:
    """Of each model [M], in the order of the estimates. All statements hold together with 95 %.

    ``group``: from 1, the best model's. A group's leader is its best model, and those behind it
    belong to it up to the first that is worse than the leader. ``first`` and ``last``: the places
    that a model could hold, 1 for the best: behind as many as are better than it, before as many
    as are worse. ``better`` [M, M]: whether a model (row) is better than another.
    """

    group: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    better: NDArray[np.bool_]

    def places(self, model: int) -> str:
        """``1``, or ``2-5``."""
        first, last = int(self.first[model]), int(self.last[model])
        return str(first) if first == last else f"{first}-{last}"


def ties(found: Estimates, level: float = LEVEL) -> Ties:
    """Groups and places of the models, with an error in at most ``level`` of all boards."""
    values = found.values
    count = len(values)
    threshold = range_quantile(count, level) / np.sqrt(2)
    apart = found.scores_of_normal() > threshold
    better = apart & (values[:, None] > values[None, :])
    group = np.zeros(count, np.int64)
    order = np.argsort(-values, kind="stable")
    start, number = 0, 0
    while start < count:
        number += 1
        worse = np.flatnonzero(better[order[start], order[start + 1 :]])
        size = 1 + int(worse[0]) if len(worse) else count - start
        group[order[start : start + size]] = number
        start += size
    return Ties(group, 1 + better.sum(0), count - better.sum(1), better)


def pair_p(found: Estimates, i: int, j: int) -> float:
    """p of no difference between two of the models, corrected for all pairs as `ties` is."""
    return range_p(np.sqrt(2) * float(found.scores_of_normal()[i, j]), len(found.values))


def range_p(width: float, count: int) -> float:
    """Probability that the range of ``count`` > 0 independent standard normal variables exceeds
    ``width``."""
    from scipy.special import ndtr

    at = np.linspace(-8.5, 8.5, 2001)
    weight = np.exp(-at * at / 2) / np.sqrt(2 * np.pi) * (at[1] - at[0]) * count
    within = float(weight @ (ndtr(at + width) - ndtr(at)) ** (count - 1))
    return min(1.0, max(0.0, 1 - within))


@lru_cache(maxsize=4096)
def range_quantile(count: int, level: float = LEVEL) -> float:
    """The value that the range of ``count`` independent standard normal variables exceeds with
    probability ``level``. 0 for one variable."""
    if count < 2:
        return 0.0
    low, high = 0.0, 20.0
    for _ in range(50):  # halving: to 1e-14
        middle = (low + high) / 2
        low, high = (middle, high) if range_p(middle, count) > level else (low, middle)
    return high
