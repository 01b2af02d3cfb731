"""Average precision and area under the ROC curve of labels, also where images count several times.

Per label the images are sorted by score once; a resample is a weight for each of them, and both
scores are read off weighted cumulative sums. Equal scores are one threshold, as in scikit-learn
(average_precision_score, roc_auc_score), whose numbers these are, but for a label that all images
have: any order of them gives an average precision of 1, which says nothing of the model. Such a
label, or one that no image has, has no score; it is left out of the mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.metrics.intervals import Interval, resamples

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_BUDGET = 32 << 20  # bytes of the weights that are looked at at once


def _steps(scores: Floats, truth: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """([B, T] right, [B, T] all images up to each of T thresholds, falling), of weights [B, n]."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    drawn = weights[:, order]
    return np.cumsum(drawn * truth[order], 1)[:, last], np.cumsum(drawn, 1)[:, last]


def average_precision(scores: Floats, truth: Bools, weights: Floats) -> Floats:
    """[B] of scores [n] and whether each image has the label [n], under weights [B, n]; NaN where
    none of the images that count has it, or all have."""
    right, seen = _steps(scores, truth, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, right / seen, 0.0)
        found = (np.diff(right, axis=1, prepend=0) * precision).sum(1) / right[:, -1]
    return np.where(right[:, -1] < seen[:, -1], found, np.nan)


def roc_area(scores: Floats, truth: Bools, weights: Floats) -> Floats:
    """[B], as `average_precision`, and NaN where that is."""
    right, seen = _steps(scores, truth, weights)
    wrong = seen - right
    steps = np.diff(wrong, axis=1, prepend=0)
    before = np.concatenate([np.zeros((len(right), 1)), right[:, :-1]], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (steps * (before + right)).sum(1) / 2 / (right[:, -1] * wrong[:, -1])


Statistic = Callable[[Floats, Bools, Floats], Floats]


def by_label(of: Statistic, scores: Floats, truth: Bools, weights: Floats) -> Floats:
    """[B, C] of scores and truth [n, C] under weights [B, n]."""
    labels = range(truth.shape[1])
    return np.stack([of(scores[:, c], truth[:, c], weights) for c in labels], axis=1)


def macro(of: Statistic, scores: Floats, truth: Bools, weights: Floats) -> Floats:
    """[B] mean over the labels that have a score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing
        return np.nanmean(by_label(of, scores, truth, weights), axis=1)


def micro(of: Statistic, scores: Floats, truth: Bools, weights: Floats) -> Floats:
    """[B] over all pairs of an image and a label, as one list."""
    count = truth.shape[1]
    return of(scores.reshape(-1), truth.reshape(-1), np.repeat(weights, count, axis=1))


SCORES: dict[str, tuple[Callable[..., Floats], Statistic]] = {
    "map": (macro, average_precision),
    "map_micro": (micro, average_precision),
    "auroc": (macro, roc_area),
}


def resampled(scores: Floats, truth: Bools, seed: int) -> dict[str, tuple[Interval, Floats]]:
    """mAP over labels, mAP over pairs and AUROC over labels with their 95 % intervals, and their
    values in each resample of the test images. All are [n, C]."""
    n = len(scores)
    found = {}
    for name, (mean, of) in SCORES.items():
        size = max(1, _BUDGET // (8 * n * truth.shape[1]))

        def drawn(
            weights: Floats,
            mean: Callable[..., Floats] = mean,
            of: Statistic = of,
            size: int = size,
        ) -> Floats:
            parts = range(0, len(weights), size)
            return np.concatenate([mean(of, scores, truth, weights[p : p + size]) for p in parts])

        # in single precision, as files keep them: an interval is held against its resamples
        values = resamples(drawn, n, seed).astype("<f4").astype(np.float64)
        low, high = np.nanquantile(values, [0.025, 0.975])
        value = float(drawn(np.ones((1, n)))[0])
        found[name] = Interval(value, float(low), float(high)), values
    return found
