"""What a protocol hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import intervals
from eval.metrics.estimates import of_answers
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

    def add(
        self, name: str, interval: Interval, n: int, kind: str = "test",
        these: Interval | None = None,
    ) -> None:  # fmt: skip
        """A score over n units (episodes or test images), its interval of a kind of
        `eval.metrics.estimates.KINDS`."""
        self.scores.append(Score.of(name, interval, n, kind, these))

    def note_one_class(self, classes: int) -> None:
        """A note where all test images were given the same one of several classes."""
        answers = self.predictions
        if answers is None or classes < 2 or len(answers) < 2:
            return
        if len(np.unique(answers)) == 1:
            self.notes.append(f"top1: all predictions are one class, number {int(answers[0])}")

    def add_top1(self, correct: NDArray[np.bool_], without: Sequence[float] | None = None) -> None:
        """Top-1 with its samples, whether each test image was answered right. ``without`` are the
        score's values with one group of training images left out, for each group: with them the
        interval takes in other training images too."""
        self.add_shares("top1", correct, without)

    def add_shares(
        self, name: str, correct: NDArray[np.bool_], without: Sequence[float] | None = None
    ) -> None:
        """As `add_top1`, of a score of another name."""
        n = len(correct)
        if without is None:
            self.add(name, intervals.accuracy(correct), n)
        else:
            rounded = [round(float(v), 6) for v in without]  # as the file has them
            found = of_answers(correct[None], np.array([rounded]))
            self.add(name, found.share(0, n), n, "sample")
        self.add_image_samples(name, correct, without)

    def add_image_samples(
        self, name: str, correct: NDArray[np.bool_], without: Sequence[float] | None = None
    ) -> None:
        """Whether each test image was answered right; ``without`` are the score's values with one
        group of training images left out, for each group."""
        rounded = None if without is None else [round(float(v), 6) for v in without]
        self.samples[name] = Samples.of_images(correct, rounded)
