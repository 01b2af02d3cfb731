"""What the protocols that train have in common: a grid, a schedule, answers, limited data.

Such a protocol is a function ``fit(setup, settings, rows) -> Answer``: tune on ``rows`` of train
alone, train once more on all of them, answer every test image. Everything else is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import TooFew
from eval.data.task_data import TaskData
from eval.metrics import intervals
from eval.protocols import train_fractions
from eval.protocols.outcome import Outcome
from eval.training.context import Context
from eval.training.setup import Answer

Fit = Callable[[Context[TaskData], Any, NDArray[np.int64]], Answer]


def score(setup: Context[TaskData], settings: Any, fit: Fit) -> Outcome:
    """On every process; the outcome of the main one counts."""
    return outcome(lambda rows: fit(setup, settings, rows), setup.task, settings, setup.seed)


def outcome(
    fit: Callable[[NDArray[np.int64]], Answer], task: TaskData, settings: Any, seed: int
) -> Outcome:
    """All of train, then the smaller parts that were asked for; ``fit`` takes rows of train."""
    start = time.perf_counter()
    labels = task.test.labels
    answer = fit(np.arange(len(task.train)))
    out = Outcome(details=answer.details, notes=answer.notes)
    out.fit_seconds = time.perf_counter() - start
    out.predictions = answer.probability.argmax(1).astype(np.int64)
    out.note_one_class(answer.probability.shape[1])
    describe(out, answer.probability, labels, seed, answer.without)
    curve = []
    for part in train_fractions.parts(settings):
        correct = []
        for draw in range(settings.subsets):
            start = time.perf_counter()
            try:
                rows = train_fractions.subset(task.train, part, seed, draw)
                small = fit(rows)
            except TooFew as why:  # that part alone is left out
                out.notes.append(f"{part.label} of train is left out: {why}")
                break
            out.fit_seconds += time.perf_counter() - start
            hits = small.probability.argmax(1) == labels
            correct.append(hits)
            curve.append(
                {"part": part.label, "draw": draw, "train": len(rows),
                 "top1": round(float(hits.mean()), 6), "details": small.details}
            )  # fmt: skip
            out.notes += [note for note in small.notes if note not in out.notes]
        if len(correct) == settings.subsets:
            train_fractions.add(out, part, np.stack(correct))
    if curve:
        out.details = out.details | {"curve": curve}
    return out


def describe(
    out: Outcome,
    probability: NDArray[np.float64],
    labels: NDArray[np.int64],
    seed: int,
    without: list[float] | None = None,
) -> None:
    """Top-1, mean per-class accuracy, ECE and NLL with intervals over the test images."""
    correct = probability.argmax(1) == labels
    out.confidence = probability.max(1)
    n = len(labels)
    out.add_top1(correct, without)
    out.add("mean_per_class", intervals.mean_per_class(correct, labels), n)
    out.add("ece", intervals.expected_calibration_error(out.confidence, correct, seed), n)
    out.add("nll", intervals.negative_log_likelihood(probability[np.arange(n), labels], seed), n)
