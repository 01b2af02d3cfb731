"""R2 of dense regressions from sums over each image, also where images count several times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.intervals import Interval, resamples

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSums:
    """Of the places of each of N images and K values."""

    n: Floats  # [N] places
    error: Floats  # [N, K] squared errors
    y: Floats  # [N, K] values
    yy: Floats  # [N, K] squares of values

    @classmethod
    def of(cls, truth: Floats, answer: Floats) -> ImageSums:
        """From values [N, places, K]."""
        n = np.full(len(truth), float(truth.shape[1]))
        return cls(n, ((truth - answer) ** 2).sum(1), truth.sum(1), (truth**2).sum(1))


def r2(sums: ImageSums, weights: Floats) -> Floats:
    """[B, K] of weights [B, N]: 1 less the squared errors over the squares about the mean of the
    same images, as scikit-learn's r2_score; NaN of a value that never varies."""
    n = (weights @ sums.n)[:, None]
    about = weights @ sums.yy - (weights @ sums.y) ** 2 / n
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(about > 1e-9 * n, 1 - (weights @ sums.error) / about, np.nan)


def resampled(
    sums: ImageSums, groups: dict[str, slice], units: Ints, seed: int
) -> dict[str, tuple[Interval, Floats]]:
    """R2 of each group of values (the mean over them), and ``r2``, the mean over groups, with 95 %
    intervals and values in each resample. ``units`` [N] (from 0) are drawn again as a whole.

    R2 has no lower bound; below -1 a model is said to be at -1.
    """
    count = int(units.max()) + 1

    def of_unit(values: Floats) -> Floats:
        found = np.zeros((count, *values.shape[1:]))
        np.add.at(found, units, values)
        return found

    whole = ImageSums(*(of_unit(v) for v in (sums.n, sums.error, sums.y, sums.yy)))

    def each(weights: Floats) -> Floats:
        """[B, 1 + groups], the mean over groups first."""
        values = r2(whole, weights)
        parts = np.stack([values[:, where].mean(1) for where in groups.values()], axis=1)
        return np.maximum(np.concatenate([parts.mean(1, keepdims=True), parts], axis=1), -1.0)

    # in single precision, as files keep them: an interval is held against its resamples
    drawn = resamples(each, count, seed).astype("<f4").astype(np.float64)
    value = each(np.ones((1, count)))[0]
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    names = ["r2", *(f"r2_{name}" for name in groups)]
    return {
        name: (Interval(float(value[i]), float(low[i]), float(high[i])), drawn[:, i])
        for i, name in enumerate(names)
    }
