"""What a protocol hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.intervals import Interval
from eval.metrics.scores import Samples, Score


@dataclass
class Outcome:
    """Scores, the samples paired tests need, and what was found on the way.

    ``predictions`` are [N_test] classes, in canonical order, behind the main score of a protocol
    that answers each test image once. Result files do not keep them. ``confidence`` are [N_test]
    the probabilities of these answers, where there are any; result files keep them.
    """

    scores: list[Score] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fit_seconds: float = 0.0
    predictions: NDArray[np.int64] | None = None
    confidence: NDArray[np.float64] | None = None

    def add(self, name: str, interval: Interval, n: int) -> None:
        """A score over n units (episodes or test images)."""
        self.scores.append(Score.of(name, interval, n))

    def add_image_samples(self, name: str, correct: NDArray[np.bool_]) -> None:
        self.samples[name] = Samples.of_images(correct)
