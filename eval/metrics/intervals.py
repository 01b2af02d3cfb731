"""Confidence intervals, paired tests and ranks. Arrays in, numbers out; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 1000
ECE_BINS = 15


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Floats) -> Interval:
    """Mean of [n] independent draws and 1.96 standard errors (population std, as the study)."""
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def bootstrap(statistic: Callable[[Floats], Floats], n: int, seed: int) -> Interval:
    """Percentile bootstrap over n units, ``DRAWS`` resamples.

    ``statistic`` maps weights [b, n] (how often each unit was drawn) to [b] values; the value
    itself is the statistic at weights of one. Resamples that leave it undefined (NaN) are
    dropped, as when a rare class was never drawn.
    """
    random = np.random.RandomState(seed)
    value = float(statistic(np.ones((1, n)))[0])
    step = max(1, (32 << 20) // (8 * n))  # bounded memory: at most 32 MiB of weights at a time
    found = []
    for begin in range(0, DRAWS, step):
        size = min(step, DRAWS - begin)
        drawn = random.randint(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        found.append(statistic(weights.astype(np.float64)))
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return Interval(value, float(low), float(high))


def accuracy(correct: NDArray[np.bool_], seed: int) -> Interval:
    """Share of [n] correct answers."""
    hits = correct.astype(np.float64)
    return bootstrap(lambda w: w @ hits / w.sum(1), len(hits), seed)


def mean_per_class(correct: NDArray[np.bool_], labels: NDArray[np.int64], seed: int) -> Interval:
    """Unweighted mean over classes of each class's accuracy. Both arrays are [n]."""
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)  # [n, classes]
    hits = one_hot * correct[:, None]

    def statistic(weights: Floats) -> Floats:
        drawn = weights @ one_hot  # [b, classes]
        with np.errstate(invalid="ignore"):
            return np.nanmean(weights @ hits / drawn, axis=1)

    return bootstrap(statistic, len(labels), seed)


def expected_calibration_error(
    confidence: Floats, correct: NDArray[np.bool_], seed: int
) -> Interval:
    """ECE with 15 equal-width bins (lo, hi] on the top probability (Guo et al. 2017).

    ``confidence`` and ``correct`` are [n].
    """
    edges = np.linspace(0, 1, ECE_BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, ECE_BINS - 1)
    member = (bins[:, None] == np.arange(ECE_BINS)).astype(np.float64)  # [n, bins]
    gap = member * (confidence - correct.astype(np.float64))[:, None]
    # share of a bin x |mean confidence - accuracy| = |sum of gaps in the bin| / n
    return bootstrap(lambda w: np.abs(w @ gap).sum(1) / w.sum(1), len(confidence), seed)


def negative_log_likelihood(truth: Floats, seed: int) -> Interval:
    """Mean of -log p over [n] probabilities of the true class, in nats; p is bounded by 1e-12."""
    loss = -np.log(np.maximum(truth, 1e-12))
    return bootstrap(lambda w: w @ loss / w.sum(1), len(loss), seed)


def wilson(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share ``right`` / n, n > 0; ties may make a fraction of it."""
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    share, z2 = right / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # exact at the ends, where rounding would leave 1e-17
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)
