"""Ways of training, each trained several times and scored on several data sets, and contrasts.

A contrast is a sum of the ways' scores by factors that add up to 0. Two sources of chance are kept
apart: other samples of the test images, which are the same for all models, so that what is common
to them falls out; and other trainings, which are seen by training again with another seed. Seeds
are paired: one seed gives all ways the same order of images. Arrays in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.metrics.estimates import Estimates, Floats, degrees
from eval.metrics.intervals import Interval

MOST_TRAININGS = 1000
_POWER_QUANTILE = 0.8416212335729143  # of the normal distribution, at 80 %
_SMALLEST = math.log(1e-15)  # of a level that is told from 0


@dataclass(frozen=True)
class Spread:
    """How much one training differs from another: a variance, and its degrees of freedom."""

    variance: float
    free: float

    def times(self, factor: float) -> Spread:
        return Spread(factor * self.variance, self.free)


def pooled_spread(scores: Floats) -> Spread | None:
    """The spread of one way's trainings, from several ways that are taken to vary alike.

    ``scores`` [A ways, S seeds], NaN where there is none. What a seed does to all ways alike is
    left out, as it falls out of a contrast: the variance is that of the residuals beside the means
    of ways and of seeds. Its degrees of freedom are (A - 1)(S - 1) where nothing is missing. None
    where none are left.
    """
    ways, seeds = np.nonzero(~np.isnan(scores))
    design = np.zeros((len(ways), sum(scores.shape)))
    design[np.arange(len(ways)), ways] = 1
    design[np.arange(len(ways)), len(scores) + seeds] = 1
    if not len(ways) or (free := len(ways) - int(np.linalg.matrix_rank(design))) < 1:
        return None
    known = scores[ways, seeds]
    fitted = design @ np.linalg.lstsq(design, known, rcond=None)[0]
    return Spread(float(np.sum((known - fitted) ** 2)) / free, free)


@dataclass(frozen=True)
class Repeated:
    """A number that every training gives once, and what its mean is subject to. Data sets are
    fixed: nothing is said of other sets."""

    by_training: tuple[float, ...]  # of each seed
    images: float  # variance over other samples of the test images, of these trainings
    images_noise: float  # that variance's own
    images_once: float | None = None  # the same of one training, their mean; None: as `images`
    pooled: Spread | None = None  # of the number in one training, where more is known than from it

    @property
    def value(self) -> float:
        return float(np.mean(self.by_training))

    @property
    def alone(self) -> Repeated:
        """The same with no spread but that of its own trainings."""
        return replace(self, pooled=None)

    @property
    def spread(self) -> Spread | None:
        """Of the number from training to training; None where there was but one."""
        n = len(self.by_training)
        if n < 2:
            return None
        return self.pooled or Spread(float(np.var(self.by_training, ddof=1)), n - 1)

    @property
    def interval(self) -> Interval:
        """95 %, over all the chance that is known of: images alone for one training."""
        return self.over_both() or self.over_images()

    def over_images(self, level: float = 0.05) -> Interval:
        """By Student's t: other samples of the test images, these trainings."""
        return self._around(self._half_of_images(level))

    def over_trainings(self, level: float = 0.05) -> Interval | None:
        """By Student's t: other trainings, these images. None for one training."""
        half = self._half_of_trainings(level)
        return None if half is None else self._around(half)

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

        if self.value == 0 or self.spread is None:
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
        alone leave it open), or where there was one training. What an image does to one training
        alone averages out over more of them; what it does to all stays."""
        spread = self.spread
        if spread is None or self.value == 0:
            return None
        seen = len(self.by_training)
        once = self.images if self.images_once is None else self.images_once
        common = max(0.0, (seen * self.images - once) / (seen - 1))  # to all trainings
        quantile = self._half_of_images(level) / self.images**0.5 if self.images else 0.0
        for n in range(2, MOST_TRAININGS + 1):
            own = spread.variance / n
            images = common + max(0.0, once - common) / n
            half = math.hypot(
                _quantile(spread.free * (n - 1) / (seen - 1), level) * own**0.5,
                quantile * images**0.5,
            )
            error = (own + images) ** 0.5
            if abs(self.value) >= half + _POWER_QUANTILE * error:
                return n
        return None

    def _half_of_both(self, level: float) -> float | None:
        half = self._half_of_trainings(level)
        return None if half is None else math.hypot(half, self._half_of_images(level))

    def _half_of_trainings(self, level: float) -> float | None:
        spread = self.spread
        if spread is None:
            return None
        return _quantile(spread.free, level) * (spread.variance / len(self.by_training)) ** 0.5

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


def combined(sets: Sequence[Estimates], factors: Floats, one_way: Spread | None = None) -> Repeated:
    """The mean over data sets of the ways' scores, summed by factors: a contrast, or one way alone.

    ``sets``: for each data set the same models, S trainings of each of A ways, in the order
    [S, A]. ``factors`` [A]. ``one_way``: the `pooled_spread` of any one way's mean, taken for a
    contrast in place of what its few trainings show; it says nothing of a way alone. Raises
    ValueError where there is no set or no factor but 0.
    """
    if not sets or not np.any(factors):
        raise ValueError(f"{len(sets)} data sets and factors {factors.tolist()} combine to nothing")
    trainings = len(sets[0].values) // len(factors)
    weights = np.tile(factors / trainings, trainings)
    values = [f.values.reshape(trainings, len(factors)) @ factors for f in sets]
    parts = [_of_images(f, weights) for f in sets]
    once = [_of_images(f, one)[0] for f in sets for one in _each(trainings, factors)]
    return Repeated(
        tuple(np.mean(values, axis=0).tolist()),
        sum(variance for variance, _ in parts) / len(sets) ** 2,
        sum(noise for _, noise in parts) / len(sets) ** 4,
        sum(once) / trainings / len(sets) ** 2,
        one_way.times(float(factors @ factors)) if one_way and _is_contrast(factors) else None,
    )


def _each(trainings: int, factors: Floats) -> Iterator[Floats]:
    """The weights of each training's number alone."""
    for i in range(trainings):
        weights = np.zeros((trainings, len(factors)))
        weights[i] = factors
        yield weights.ravel()


def _is_contrast(factors: Floats) -> bool:
    return abs(float(factors.sum())) <= 1e-9


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
