"""Correction for many tests, and ranks."""

from __future__ import annotations

import numpy as np

from eval.metrics.intervals import Floats


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
