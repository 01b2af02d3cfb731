"""Pools of made-up images whose classes are known: what statements of certainty are tried on.

Every class is a normal distribution. Two models see the same classes through noise of their own and
noise that they share, so that they are equally good and every difference between them is chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval.metrics.episode_variance import EpisodeDesign

Features = NDArray[np.float32]
WAY, QUERIES = 5, 15


@dataclass(frozen=True)
class World:
    """Classes of known distribution. ``shared`` is the share of the noise that models have in
    common; ``better`` makes the noise of the second model smaller."""

    means: Features  # [C, d]
    sigma: float = 3.0
    shared: float = 0.5
    better: float = 0.0

    @classmethod
    def of(cls, random: np.random.Generator, classes: int, dim: int = 32, **facts: float) -> World:
        return cls(random.normal(size=(classes, dim)).astype(np.float32), **facts)

    def images(self, random: np.random.Generator, each: int, models: int = 2) -> list[Features]:
        """[C, each, d] features of new images, by each model."""
        shape = (len(self.means), each, self.means.shape[1])
        common = random.normal(size=shape).astype(np.float32)
        found = []
        for m in range(models):
            own = random.normal(size=shape).astype(np.float32)
            noise = np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * own
            found.append(self.means[:, None] + (self.sigma - self.better * m) * noise)
        return found


def drawn(
    random: np.random.Generator,
    sizes: Sequence[int],
    shot: int,
    episodes: int,
    queries: int = QUERIES,
) -> EpisodeDesign:
    """Episodes of five classes each, drawn evenly."""
    classes = np.argsort(random.random((episodes, len(sizes))), 1)[:, :WAY]
    places = np.empty((episodes, WAY, shot + queries), np.int64)
    if len(set(sizes)) == 1 and sizes[0] <= 400:
        places = np.argsort(random.random((episodes, WAY, sizes[0])), 2)[..., : shot + queries]
    else:
        for e, row in enumerate(classes):
            for w, c in enumerate(row):
                places[e, w] = random.choice(sizes[c], shot + queries, replace=False)
    return EpisodeDesign(np.array(sizes), classes, places[..., queries:], places[..., :queries])


def nearest_mean(features: Features, design: EpisodeDesign) -> NDArray[np.bool_]:
    """[E, way, queries] whether the mean of its own class is the nearest to each query."""
    out = np.empty(design.query.shape, bool)
    for start in range(0, len(out), 100):  # bounded memory
        part = slice(start, start + 100)
        classes = design.classes[part][..., None]
        means = features[classes, design.support[part]].mean(2)
        scores = 2 * np.einsum("ewqd,evd->ewqv", features[classes, design.query[part]], means)
        scores -= (means**2).sum(-1)[:, None, None]
        out[part] = scores.argmax(-1) == np.arange(WAY)[None, :, None]
    return out


def answers(
    seed: int, models: int, n: int, p: float = 0.7, shared: float = 0.5
) -> NDArray[np.bool_]:
    """[models, n] right answers of equally good models; images are easy or hard for all."""
    random = np.random.default_rng(seed)
    common, own = random.normal(size=n), random.normal(size=(models, n))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own < stats.norm.ppf(p)
