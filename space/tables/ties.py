"""Which models cannot be told apart? Groups by paired tests of the mean over data sets.

For models i and j and data sets t with n_t shared units (episodes or test images), D_ij is the mean
over t of the mean difference, and its variance is sum_t var_t(i - j) / n_t / T^2, data sets being
independent. A score that is not a mean over units (AP) comes with its values in resamples of the
test images: their covariance is that of the score itself, and is not divided again. All variances
of differences come from one covariance matrix a data set, so every pair costs one look-up
afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from eval.metrics.paired import holm

Floats = NDArray[np.float64]
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Paired:
    """``mean`` [M] over data sets, ``covariance`` [M, M] of the models' means, from ``units`` in
    all."""

    mean: Floats
    covariance: Floats
    units: int

    def p_value(self, i: int, others: NDArray[np.int64]) -> Floats:
        """[len(others)] two-sided p of mean i = mean j, by the normal approximation."""
        difference = self.mean[i] - self.mean[others]
        diagonal = self.covariance.diagonal()
        variance = diagonal[i] + diagonal[others] - 2 * self.covariance[i, others]
        error = np.sqrt(np.maximum(variance, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(difference) / error
        z = np.where(error > 1e-12, z, np.where(difference == 0, 0.0, np.inf))
        # Fewer units cannot show a difference, however constant it is: a sign test of n units has
        # no p below 2 / 2**n.
        return np.maximum(2 * ndtr(-z), min(1.0, 2.0 ** (1 - self.units)))


@dataclass(frozen=True)
class Resampled:
    """One data set's scores [M] and their values [M, n] in the same n resamples of ``images``."""

    score: Floats
    values: NDArray[np.float32]
    images: int

    def statistics(self) -> tuple[Floats, Floats, int]:
        """(scores, their covariance [M, M], images); resamples that leave one undefined do not
        count, and without two of the others nothing can be told apart."""
        values = self.values[:, np.isfinite(self.values).all(0)].astype(np.float64)
        count = values.shape[1]
        if count < 2:
            return self.score, np.zeros((len(values), len(values))), 0
        values -= values.mean(1)[:, None]
        return self.score, values @ values.T / (count - 1), self.images


def paired(samples: Sequence[NDArray[np.uint8] | Resampled], scale: Sequence[int]) -> Paired:
    """``samples[t]`` [M, n_t] right answers of each model a unit, of ``scale[t]`` asked; of a score
    that is not a mean over units, its resamples."""
    first = samples[0]
    models = len(first.values if isinstance(first, Resampled) else first)
    total, mean, units = np.zeros((models, models)), np.zeros(models), 0
    for each, of in zip(samples, scale, strict=True):
        mine = each.statistics() if isinstance(each, Resampled) else _statistics(each, of)
        mean += mine[0]
        total += mine[1]
        units += mine[2]
    count = len(samples)
    return Paired(mean / count, total / count**2, units)


def _statistics(hits: NDArray[np.uint8], of: int) -> tuple[Floats, NDArray[Any], int]:
    """([M] means, [M, M] their covariance, units) of right answers [M, n], of so many asked."""
    shares = hits.astype(np.float32) / of
    units = shares.shape[1]
    centre = shares.mean(1, dtype=np.float64)
    shares -= centre[:, None].astype(np.float32)
    return centre, (shares @ shares.T) / (units * max(units - 1, 1)), units


def groups(pairs: Paired, order: NDArray[np.int64]) -> list[int]:
    """The group of each of ``order`` (models from best to worst), from 1.

    A group's first model is its leader; those after it belong to it while their difference from
    the leader is not significant (Holm-corrected over all models behind the leader, p < 0.05).
    """
    out: list[int] = []
    start = 0
    while start < len(order):
        behind = order[start + 1 :]
        corrected = np.array(holm(list(pairs.p_value(int(order[start]), behind))))
        worse = np.flatnonzero(corrected < SIGNIFICANT)
        size = 1 + (int(worse[0]) if len(worse) else len(behind))
        out += [(out[-1] if out else 0) + 1] * size
        start += size
    return out
