"""Scores of several models on the same questions, and how far they are to be trusted.

Every estimate says of which chance it speaks (`KINDS`). All variances are of one of two forms: of a
model's own score, and of the difference of two, where what is common to both (easy images) falls
out. Each variance is itself estimated; how well says ``noise``, its own variance, from which come
the degrees of freedom of Student's t (Satterthwaite). Arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eval.metrics.episode_variance import EpisodeDesign, episode_variance
from eval.metrics.intervals import Interval, Z, jeffreys, t_quantile
from eval.metrics.jackknife import delete_group_covariance

Floats = NDArray[np.float64]
Kind = Literal["sample", "test", "items"]
KINDS: dict[str, str] = {
    "sample": "another sample of the data set",
    "test": "other test images, the same training",
    "items": "other items of the same kind",
    "episodes": "other episodes of these images",
    "draws": "other draws",
    "trainings": "other trainings",
}
# The delete-a-group jackknife of top-1 is 2.2 to 3.8 times the variance over training samples with
# ten groups (`eval.metrics.jackknife`): answers flip as whole images, and their number grows with
# the size of a change, not with its square. Half of it still errs to the safe side.
FLIPS = 2.0
_ORDER: tuple[Kind, ...] = ("items", "test", "sample")  # the first says least


@dataclass(frozen=True)
class Estimates:
    """``values`` [M]; ``variance`` [M] and its ``noise`` [M]; the same of the differences of any
    two, [M, M]. ``kind`` is the chance that they speak of."""

    values: Floats
    variance: Floats
    noise: Floats
    pair_variance: Floats
    pair_noise: Floats
    kind: Kind

    def half_widths(self) -> Floats:
        """[M] half of each value's 95 % interval, by Student's t."""
        return _quantile(self.variance, self.noise) * np.sqrt(self.variance)

    def share(self, model: int, units: int) -> Interval:
        """A model's value, a share of right answers, with an interval that stays within 0 and 1.

        Jeffreys' interval of as many independent answers as have this variance; ``units`` are the
        images behind it, which bound them where every answer is alike.
        """
        value, variance = float(self.values[model]), float(self.variance[model])
        shrunk = (value * units + 1) / (units + 2)
        wider = float(_quantile(self.variance[model], self.noise[model])) / Z
        low, high = jeffreys(value, shrunk * (1 - shrunk) / variance / wider**2)
        return Interval(value, low, high)

    def difference(self, i: int = 0, j: int = 1) -> tuple[Interval, float]:
        """(value i - value j with its 95 % interval, two-sided p of no difference)."""
        from scipy import special

        value = float(self.values[i] - self.values[j])
        variance, noise = self.pair_variance[i, j], self.pair_noise[i, j]
        error = float(np.sqrt(variance))
        half = float(_quantile(variance, noise)) * error
        if error == 0:
            p = 1.0 if value == 0 else 0.0
        else:
            free = np.minimum(degrees(variance, noise), 1e9)
            p = float(2 * special.stdtr(free, -abs(value) / error))
        return Interval(value, value - half, value + half), p

    def scores_of_normal(self) -> Floats:
        """[M, M] each difference in standard errors, as a standard normal variable would show it:
        |z| of the same p as Student's t (Wallace's approximation, Annals of Mathematical
        Statistics 1959). Zero on the diagonal."""
        gap = self.values[:, None] - self.values[None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            square = gap * gap / self.pair_variance
            free = np.minimum(2 * self.pair_variance**2 / self.pair_noise, 1e6)
            normal = np.sqrt(free * np.log1p(square / free)) * ((8 * free + 1) / (8 * free + 3))
        normal = np.where(self.pair_variance > 0, normal, np.where(gap == 0, 0.0, np.inf))
        np.fill_diagonal(normal, 0.0)
        return normal

    def of(self, rows: NDArray[np.int64]) -> Estimates:
        """Those of some of the models."""
        both = np.ix_(rows, rows)
        return Estimates(
            self.values[rows], self.variance[rows], self.noise[rows], self.pair_variance[both],
            self.pair_noise[both], self.kind,
        )  # fmt: skip


def degrees(variance: Floats | float, noise: Floats | float) -> Floats:
    """Degrees of freedom of a variance whose own variance is ``noise``; infinite without noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        free = 2 * np.square(variance) / noise
    return np.where(np.asarray(noise) > 0, np.maximum(free, 1.0), np.inf)


def _quantile(variance: Floats | float, noise: Floats | float) -> Floats:
    return t_quantile(degrees(variance, noise))


def of_answers(correct: NDArray[np.bool_], without: Floats | None = None) -> Estimates:
    """``correct`` [M, n] right answers on the same test images.

    ``without`` [M, G] are the scores with each of G groups of the training images left out: their
    jackknife is the training sample's part. One more image than was seen counts as answered by one
    model alone, so that two models that never differ are not held for equal for sure, nor one that
    is always right for perfect (Agresti and Min, Statistics in Medicine 2005, for the difference;
    for a share add one of each, Agresti and Coull 1998).
    """
    hits = correct.astype(np.float32)
    n = hits.shape[1]
    values = hits.mean(1, dtype=np.float64)
    both = (hits @ hits.T).astype(np.float64) / n
    unlike = values[:, None] + values[None, :] - 2 * both  # share of images answered unlike
    pair = np.maximum(unlike - (values[:, None] - values[None, :]) ** 2, 0) / n + 1 / n**2
    shrunk = (values * n + 1) / (n + 2)
    own = shrunk * (1 - shrunk) / n
    free = max(n - 1, 1)
    found = Estimates(
        values, own, 2 * own**2 / free, pair, 2 * pair**2 / free,
        "test" if without is None else "sample",
    )  # fmt: skip
    return found if without is None else _with_training(found, without)


def _with_training(found: Estimates, without: Floats) -> Estimates:
    gram = delete_group_covariance(without) / FLIPS
    own, pair = gram.diagonal(), _of_differences(gram)
    free = without.shape[1] - 1
    return Estimates(
        found.values, found.variance + own, found.noise + 2 * own**2 / free,
        found.pair_variance + pair, found.pair_noise + 2 * pair**2 / free, found.kind,
    )  # fmt: skip


def of_episodes(correct: NDArray[np.bool_], design: EpisodeDesign) -> Estimates:
    """``correct`` [M, E, way, queries] right answers in the same episodes.

    Raises ValueError where the design does not tell how images differ.
    """
    found = episode_variance(correct, design)
    images, classes = design.images, len(design.sizes)
    free = max(images - classes, 1)
    least = 1 / images**2  # one image more, answered by one model alone

    def parts(pool: Floats, episodes: Floats, residual: Floats) -> tuple[Floats, Floats]:
        pool = np.maximum(pool, 0)
        return pool + episodes + least, found.noise * residual**2 + 2 * pool**2 / free

    own = parts(*(m.diagonal() for m in (found.pool, found.episodes, found.residual)))
    pair = parts(*map(_of_differences, (found.pool, found.episodes, found.residual)))
    values = correct.reshape(len(correct), -1).mean(1, dtype=np.float64)
    return Estimates(values, *own, *pair, "sample")


def of_resamples(values: Floats, resamples: Floats) -> Estimates:
    """``values`` [M] of a score that is not a mean over units, and ``resamples`` [M, R]: the score
    in the same resamples of the test images. Resamples that leave one undefined do not count.

    Raises ValueError where fewer than two are left.
    """
    known = resamples[:, np.isfinite(resamples).all(0)].astype(np.float64)
    if known.shape[1] < 2:
        raise ValueError("fewer than two resamples have all scores")
    covariance = np.cov(known).reshape(len(values), len(values))
    none = np.zeros_like(covariance)
    return Estimates(
        values, covariance.diagonal(), none.diagonal(), _of_differences(covariance), none, "test"
    )


def of_items(scores: Floats) -> Estimates:
    """``scores`` [M, n] of any kind, n >= 2: of each model on the same items, or with the same
    seeds."""
    if np.isin(scores, (0, 1)).all():
        return replace(of_answers(scores.astype(bool)), kind="items")
    n = scores.shape[1]
    covariance = np.cov(scores).reshape(len(scores), len(scores)) / n
    own, pair = covariance.diagonal(), _of_differences(covariance)
    return Estimates(
        scores.mean(1), own, 2 * own**2 / (n - 1), pair, 2 * pair**2 / (n - 1), "items"
    )


def mean(found: Sequence[Estimates]) -> Estimates:
    """The mean over data sets, which are taken as given and independent of each other."""
    count = len(found)

    def total(parts: list[Floats], power: int) -> Floats:
        return np.sum(parts, axis=0) / count**power

    return Estimates(
        total([f.values for f in found], 1),
        total([f.variance for f in found], 2),
        total([f.noise for f in found], 4),
        total([f.pair_variance for f in found], 2),
        total([f.pair_noise for f in found], 4),
        min((f.kind for f in found), key=_ORDER.index),
    )


def _of_differences(covariance: Floats) -> Floats:
    """[M, M] the variance of each difference."""
    own = covariance.diagonal()
    return np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)
