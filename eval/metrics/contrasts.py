"""Ways of training, each trained several times and scored on several data sets, and contrasts.

A contrast is a sum of the ways' scores by factors that add up to 0. Two sources of chance are kept
apart: other samples of the test images, which are the same for all models, so that what is common
to them falls out; and other trainings, which are seen by training again with another seed. Seeds
are paired: one seed gives all ways the same order of images. Arrays in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics.estimates import Estimates, Floats, degrees
from eval.metrics.intervals import Interval

MOST_TRAININGS = 1000
_POWER_QUANTILE = 0.8416212335729143  # of the normal distribution, at 80 %
_SMALLEST = math.log(1e-15)  # of a level that is told from 0


@dataclass(frozen=True)
class Repeated:
    """A number that every training gives once, and what its mean is subject to. Data sets are
    fixed: nothing is said of other sets."""

    by_training: tuple[float, ...]  # of each seed
    images: float  # variance over other samples of the test images, of these trainings
    images_noise: float  # that variance's own

    @property
    def value(self) -> float:
        return float(np.mean(self.by_training))

    @property
    def trainings(self) -> float | None:
        """Variance of the mean over other trainings; None where there was but one."""
        n = len(self.by_training)
        return None if n < 2 else float(np.var(self.by_training, ddof=1)) / n

    @property
    def interval(self) -> Interval:
        """95 %, over all the chance that is known of: images alone for one training."""
        return self.over_both() or self.over_images()

    def over_images(self, level: float = 0.05) -> Interval:
        """By Student's t: other samples of the test images, these trainings."""
        return self._around(self._half_of_images(level))

    def over_trainings(self, level: float = 0.05) -> Interval | None:
        """By Student's t: other trainings, these images. None for one training."""
        own = self.trainings
        if own is None:
            return None
        return self._around(_quantile(len(self.by_training) - 1, level) * own**0.5)

    def over_both(self, level: float = 0.05) -> Interval | None:
        """Other images and other trainings. None for one training, whose chance is unknown.

        The two half widths are added in squares. (The sum of both variances with the degrees of
        freedom of a sum says too much: of two trainings that happen to be alike it takes the images
        alone, and rejected in 13 % of cases in simulation.) What an image does to one training
        alone counts twice, so it errs to the safe side where images are most of the chance.
        """
        half = self._half_of_both(level)
        return None if half is None else self._around(half)

    def p(self) -> float:
        """Two-sided, of no difference, over images and trainings: the level at which `over_both`
        would end at 0. 1 for one training."""
        from scipy import optimize

        if self.value == 0 or self.trainings is None:
            return 1.0

        def beyond(log_level: float) -> float:
            half = self._half_of_both(math.exp(log_level))
            assert half is not None  # there is more than one training
            return half - abs(self.value)

        if beyond(_SMALLEST) <= 0:
            return math.exp(_SMALLEST)
        return math.exp(optimize.brentq(beyond, _SMALLEST, 0.0))

    def trainings_needed(self, level: float = 0.05) -> int | None:
        """About how many trainings find a true difference of this size in 80 % of cases, if images
        and trainings vary as they do here: 2 to 1000. None where no such number would (the images
        alone leave it open), or where there was one training."""
        own = self.trainings
        if own is None or self.value == 0:
            return None
        spread = own * len(self.by_training)
        images = self._half_of_images(level)
        for n in range(2, MOST_TRAININGS + 1):
            half = math.hypot(_quantile(n - 1, level) * (spread / n) ** 0.5, images)
            error = (spread / n + self.images) ** 0.5
            if abs(self.value) >= half + _POWER_QUANTILE * error:
                return n
        return None

    def _half_of_both(self, level: float) -> float | None:
        own = self.trainings
        if own is None:
            return None
        half = _quantile(len(self.by_training) - 1, level) * own**0.5
        return math.hypot(half, self._half_of_images(level))

    def _half_of_images(self, level: float) -> float:
        if self.images == 0:
            return 0.0
        return _quantile(float(degrees(self.images, self.images_noise)), level) * self.images**0.5

    def _around(self, half: float) -> Interval:
        return Interval(self.value, self.value - half, self.value + half)


def _quantile(free: float, level: float) -> float:
    """Of Student's t: exceeded, to both sides, with probability ``level``."""
    from scipy import special

    return float(-special.stdtrit(min(free, 1e9), level / 2))


def combined(sets: Sequence[Estimates], factors: Floats) -> Repeated:
    """The mean over data sets of the ways' scores, summed by factors: a contrast, or one way alone.

    ``sets``: for each data set the same models, S trainings of each of A ways, in the order
    [S, A]. ``factors`` [A]. Raises ValueError where there is no set or no factor but 0.
    """
    if not sets or not np.any(factors):
        raise ValueError(f"{len(sets)} data sets and factors {factors.tolist()} combine to nothing")
    trainings = len(sets[0].values) // len(factors)
    weights = np.tile(factors / trainings, trainings)
    values = [f.values.reshape(trainings, len(factors)) @ factors for f in sets]
    parts = [_of_images(f, weights) for f in sets]
    return Repeated(
        tuple(np.mean(values, axis=0).tolist()),
        sum(variance for variance, _ in parts) / len(sets) ** 2,
        sum(noise for _, noise in parts) / len(sets) ** 4,
    )


def _of_images(found: Estimates, weights: Floats) -> tuple[float, float]:
    """(variance of a weighted sum of scores, that variance's own).

    With the variances v and those of differences d, `cov_ij = (v_i + v_j - d_ij) / 2`. So
    `sum_ij w_i w_j cov_ij = (sum w) (sum w v) - 1/2 sum_ij w_i w_j d_ij`, and a contrast takes
    differences alone. Its degrees of freedom are the fewest of all that it takes.
    """
    products = np.outer(weights, weights)
    np.fill_diagonal(products, 0.0)
    whole = float(weights.sum())
    variance = -0.5 * float(np.sum(products * found.pair_variance))
    free = degrees(found.pair_variance, found.pair_noise)[products != 0].tolist()
    if abs(whole) > 1e-9:
        variance += whole * float(weights @ found.variance)
        free += degrees(found.variance, found.noise)[weights != 0].tolist()
    variance = max(0.0, variance)
    return variance, 2 * variance**2 / min(free)
