"""Paired comparison of two models on the same questions, corrected for many tasks; ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.metrics.intervals import Floats, Interval, bootstrap


@dataclass(frozen=True)
class Paired:
    """A minus B on the same units: the mean difference, its interval, and a p-value."""

    difference: Interval
    p_value: float
    wins: int  # units on which A is better
    losses: int


def paired(a: Floats, b: Floats, unit: str, seed: int = 0) -> Paired:
    """Compare two models on the same [n] units.

    The interval is a bootstrap over the units. The p-value is McNemar's exact test for images
    (each right or wrong), a paired t-test for episodes (each a mean over queries).
    """
    from scipy import stats

    if a.shape != b.shape:
        raise ValueError(f"unpaired samples: {a.shape} and {b.shape}")
    delta = a - b
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    interval = bootstrap(lambda w: w @ delta / w.sum(1), len(delta), seed)
    if wins + losses == 0:
        p = 1.0
    elif unit == "image":
        p = float(stats.binomtest(wins, wins + losses).pvalue)
    elif np.ptp(delta) == 0:  # the same difference in every episode: no spread to test against
        p = 0.0
    else:
        p = float(stats.ttest_rel(a, b).pvalue)
    return Paired(interval, p, wins, losses)


def paired_resamples(difference: float, a: Floats, b: Floats) -> Paired:
    """Compare two models by a score that is not a mean over units.

    ``a`` and ``b`` are [n] its values in the same n resamples of the test images, ``difference``
    that of the scores on all of them. The p-value is the bootstrap's: twice the smaller share of
    resamples on either side of no difference, at least 2 / (n + 1). Wins count resamples.
    """
    if a.shape != b.shape:
        raise ValueError(f"unpaired resamples: {a.shape} and {b.shape}")
    delta = (a - b)[np.isfinite(a - b)]
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    n = len(delta)
    p = min(1.0, 2 * (1 + n - max(wins, losses)) / (n + 1)) if wins + losses else 1.0
    low, high = np.quantile(delta, [0.025, 0.975]) if n else (np.nan, np.nan)
    return Paired(Interval(difference, float(low), float(high)), p, wins, losses)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction, in the given order."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * (len(values) - np.arange(len(values)))
    out = np.empty_like(values)
    out[order] = np.maximum.accumulate(np.minimum(steps, 1.0))
    return out.tolist()


def ranks(values: Floats) -> Floats:
    """Ranks of [n] values, 1 for the largest; equal values share the mean of their places."""
    _, place, count = np.unique(-values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
