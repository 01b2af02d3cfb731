"""Confidence intervals of single scores. Arrays in, numbers out; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 1000
Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
ECE_BINS = 15
ECE_LEVEL = 0.965  # a bootstrap of few images is a little narrow: this covers 95 % at 60 too


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Floats) -> Interval:
    """Mean of [n] independent draws and 1.96 standard errors (population std, as the study): what
    other episodes of the same images would give."""
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def runs_interval(values: Floats, variance: float = 0.0, free: float = np.inf) -> Interval:
    """Mean of [n] runs, n >= 2, by Student's t.

    ``variance`` of ``free`` degrees of freedom is added to that of the mean: the part of the test
    images, which are the same in every run.
    """
    count = len(values)
    mean, own = float(np.mean(values)), float(np.var(values, ddof=1)) / count
    total = own + variance
    noise = own**2 / (count - 1) + variance**2 / free
    half = 0.0 if total == 0 else float(t_quantile(total**2 / noise)) * total**0.5
    return Interval(mean, mean - half, mean + half)


def resamples(statistic: Callable[[Floats], Floats], n: int, seed: int) -> Floats:
    """[DRAWS] of a statistic in resamples of n units; NaN where one leaves it undefined.

    ``statistic`` maps weights [b, n] (how often each unit was drawn) to [b] values.
    """
    random = np.random.RandomState(seed)
    step = max(1, (32 << 20) // (8 * n))  # bounded memory: at most 32 MiB of weights at a time
    found = []
    for begin in range(0, DRAWS, step):
        size = min(step, DRAWS - begin)
        drawn = random.randint(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        found.append(statistic(weights.astype(np.float64)))
    return np.concatenate(found)


def bootstrap(statistic: Callable[[Floats], Floats], n: int, seed: int) -> Interval:
    """Percentile bootstrap over n units, ``DRAWS`` resamples.

    ``statistic`` maps weights [b, n] (how often each unit was drawn) to [b] values; the value
    itself is the statistic at weights of one. Resamples that leave it undefined (NaN) are
    dropped, as when a rare class was never drawn.
    """
    low, high = np.nanquantile(resamples(statistic, n, seed), [0.025, 0.975])
    return Interval(float(statistic(np.ones((1, n)))[0]), float(low), float(high))


def accuracy(correct: NDArray[np.bool_]) -> Interval:
    """Share of [n] correct answers, with Jeffreys' interval."""
    value = float(np.mean(correct))
    return Interval(value, *jeffreys(value, len(correct)))


def mean_per_class(correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> Interval:
    """Unweighted mean over classes of each class's accuracy. Both arrays are [n].

    Jeffreys' interval of as many answers as have the variance of the mean. A class adds a right and
    a wrong answer to its own (Agresti and Coull, American Statistician 1998), so that none counts
    as known for sure; the variance p (1 - p) of that share is divided by what it is too small by at
    p = 1/2. How well small classes tell their own variance says its delta-method variance, and from
    that follow Student's degrees of freedom (Satterthwaite, Biometrics Bulletin 1946).
    """
    _, member = np.unique(labels, return_inverse=True)
    size = np.bincount(member)
    value = float((np.bincount(member, correct) / size).mean())
    share = (np.bincount(member, correct) + 1) / (size + 2)  # [C]
    spread = share * (1 - share)
    scale = 1 / (1 - size / (size + 2) ** 2) / size
    variance = float((spread * scale).sum()) / len(size) ** 2
    noise = float((spread * ((1 - 2 * share) * scale) ** 2 / size).sum()) / len(size) ** 4
    free = 2 * variance**2 / noise if noise else np.inf
    middle = float(share.mean())
    wider = float(t_quantile(max(free, 1.0))) / Z
    return Interval(value, *jeffreys(value, middle * (1 - middle) / variance / wider**2))


def expected_calibration_error(
    confidence: Floats, correct: NDArray[np.bool_], seed: int
) -> Interval:
    """ECE with 15 equal-width bins (lo, hi] on the top probability (Guo et al. 2017).

    ``confidence`` and ``correct`` are [n]. The statistic is biased upwards by the noise of every
    bin, most where a model is calibrated, so that its own resamples do not cover the true value.
    The interval does, in at least 95 % of cases: the sum of absolute gaps is nowhere further from
    its true value than the absolute errors of the gaps sum up to, and a quantile of that sum is
    read from a bootstrap over the images.
    """
    gap = _calibration_gaps(confidence, correct)
    n = len(confidence)
    # share of a bin x |mean confidence - accuracy| = |sum of gaps in the bin| / n
    gaps = gap.sum(0) / n
    errors = resamples(lambda w: np.abs(w @ gap / n - gaps).sum(1), n, seed)
    value, bound = float(np.abs(gaps).sum()), float(np.quantile(errors, ECE_LEVEL))
    return Interval(value, max(0.0, value - bound), min(1.0, value + bound))


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """The value of `expected_calibration_error` alone."""
    return float(np.abs(_calibration_gaps(confidence, correct).sum(0)).sum() / len(confidence))


def _calibration_gaps(confidence: Floats, correct: NDArray[np.bool_]) -> Floats:
    """[n, bins] confidence minus correctness of each answer, in its bin."""
    edges = np.linspace(0, 1, ECE_BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, ECE_BINS - 1)
    member = (bins[:, None] == np.arange(ECE_BINS)).astype(np.float64)
    return member * (confidence - correct.astype(np.float64))[:, None]


def negative_log_likelihood(truth: Floats, seed: int) -> Interval:
    """Mean of -log p over [n] probabilities of the true class, in nats; p is bounded by 1e-12.

    Its interval is a bootstrap that is corrected for bias and skewness (BCa; Efron, JASA 1987).
    """
    from scipy import special

    loss = -np.log(np.maximum(truth, 1e-12))
    value = float(loss.mean())
    deviation = loss - value
    spread = float((deviation**2).sum())
    if spread == 0:
        return Interval(value, value, value)
    found = resamples(lambda w: w @ loss / w.sum(1), len(loss), seed)
    below = (np.sum(found < value) + np.sum(found == value) / 2) / DRAWS
    shift = float(special.ndtri(np.clip(below, 0.5 / DRAWS, 1 - 0.5 / DRAWS)))
    skew = float((deviation**3).sum()) / (6 * spread**1.5)
    ends = [special.ndtr(shift + (shift + z) / (1 - skew * (shift + z))) for z in (-Z, Z)]
    low, high = np.quantile(found, ends)
    return Interval(value, float(low), float(high))


def t_quantile(free: Floats | float) -> Floats:
    """97.5 % quantile of Student's t; ``free`` degrees of freedom may be infinite."""
    from scipy import special  # a tenth of a second that boards of one model do without

    return np.asarray(special.stdtrit(np.minimum(free, 1e9), 0.975), np.float64)


def jeffreys(value: float, n: float) -> tuple[float, float]:
    """Jeffreys' 95 % interval of a share ``value`` of n > 0 answers, which may be a fraction.

    With the modification of Brown, Cai and DasGupta (Statistical Science 2001): 0 belongs to it
    where one or none is right, 1 where one or none is wrong.
    """
    from scipy import special

    right, wrong = value * n, (1 - value) * n
    low, high = special.betaincinv(right + 0.5, wrong + 0.5, [0.025, 0.975])
    return (0.0 if right < 1 + 1e-9 else min(float(low), value)), (
        1.0 if wrong < 1 + 1e-9 else max(float(high), value)
    )


def wilson(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share ``right`` / n, n > 0; ties may make a fraction of it."""
    share, z2 = right / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # exact at the ends, where rounding would leave 1e-17
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)
