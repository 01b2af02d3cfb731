"""Trainings of known worth: what statements over seeds and test images are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates, of_answers


@dataclass(frozen=True)
class Trainings:
    """Ways of training that are equally good, but for ``better`` of the first. An answer is right
    where a normal variable is below the training's skill plus how easy the image is; skills vary
    over seeds, once for all sets and once for each, by ``seeds``, perhaps a number a way."""

    ways: int = 2
    trainings: int = 3
    sets: int = 11
    images: int = 300
    seeds: float | tuple[float, ...] = 0.05
    shared: float = 0.7  # of an image's difficulty, by all models
    better: float = 0.0

    def drawn(self, random: np.random.Generator) -> list[Estimates]:
        """For each data set, of models in the order [trainings, ways]."""
        return [of_answers(correct) for correct in self.answers(random)]

    def answers(self, random: np.random.Generator) -> Sequence[NDArray[np.bool_]]:
        shape = self.trainings, self.ways
        everywhere = random.normal(0, self.seeds, shape)
        everywhere[:, 0] += self.better
        found = []
        for _ in range(self.sets):
            skill = random.normal(0, 0.5) + everywhere + random.normal(0, self.seeds, shape)
            ease = random.normal(size=self.images) * np.sqrt(self.shared / (1 - self.shared))
            noise = random.normal(size=(skill.size, self.images))
            found.append(noise < skill.reshape(-1, 1) + ease)
        return found
