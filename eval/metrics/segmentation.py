"""Intersection over union from confusion matrices. Arrays in, numbers out.

A class that neither stands in the masks nor is answered has no IoU, and is left out of the mean, as
in mmsegmentation and torchmetrics. Drawing the test images again re-weights the matrices of single
images: which pixel is answered how depends on no other image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.metrics.intervals import Interval, resamples

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusion(truth: NDArray[np.uint8], answer: NDArray[np.integer], classes: int) -> Ints:
    """[C, C] pixels by true and answered class; truth that is no class (void) does not count."""
    scored = truth < classes
    pairs = truth[scored].astype(np.int64) * classes + answer[scored]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(matrix: NDArray[np.floating | np.integer]) -> Floats:
    """[.., C] of matrices [.., C, C]; NaN of a class that nowhere occurs."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    union = matrix.sum(-1) + matrix.sum(-2) - right
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, right / union, np.nan)


def mean_iou(matrix: NDArray[np.floating | np.integer]) -> Floats:
    """[..] mean over classes of matrices [.., C, C]; NaN where no pixel counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing
        return np.nanmean(iou(matrix), axis=-1)


def pixel_accuracy(matrix: NDArray[np.floating | np.integer]) -> Floats:
    """[..] share of right pixels of matrices [.., C, C]; NaN where no pixel counts."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1).sum(-1).astype(np.float64)
    total = matrix.sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, right / total, np.nan)


def resampled(images: Ints, units: Ints, seed: int) -> dict[str, tuple[Interval, Floats]]:
    """``miou`` and ``pixel_accuracy`` with their 95 % intervals and their values in each resample.

    ``images`` [N, C, C] are the matrices of the test images, ``units`` [N] (from 0) what is drawn
    again as a whole.
    """
    classes = images.shape[1]
    count = int(units.max()) + 1
    of_unit = np.zeros((count, classes * classes))
    np.add.at(of_unit, units, images.reshape(len(images), -1))
    found = {}
    for name, statistic in STATISTICS.items():

        def drawn(weights: Floats, of: Callable[..., Floats] = statistic) -> Floats:
            return of((weights @ of_unit).reshape(len(weights), classes, classes))

        # in single precision, as files keep them: an interval is held against its resamples
        values = resamples(drawn, count, seed).astype("<f4").astype(np.float64)
        low, high = np.nanquantile(values, [0.025, 0.975])
        found[name] = (
            Interval(float(drawn(np.ones((1, count)))[0]), float(low), float(high)),
            values,
        )
    return found


STATISTICS: dict[str, Callable[..., Floats]] = {
    "miou": mean_iou, "pixel_accuracy": pixel_accuracy
}  # fmt: skip
