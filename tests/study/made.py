"""A small study's plan, and files of results made up for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from eval.study.table import Checkpoint, write
from tests.metrics.trainings import Trainings

PLAN: dict[str, Any] = {
    "name": "toy",
    "question": "Is b better\nthan a?",
    "statistics": "As usual.",
    "recipe": "tiny",  # a plan says more than a verdict needs
    "evaluation": {"tasks": ["one", "two"], "shots": [5]},
    "budgets": [{"epochs": 12, "seeds": [0, 1, 2]}, {"epochs": 50, "seeds": [0]}],
    "arms": [{"name": name, "objective": "ce"} for name in ("a", "b", "c")],
    "contrasts": [
        {"name": "b - a", "arms": {"b": 1, "a": -1}, "prediction": "above 0"},
        {"name": "c - a", "arms": {"c": 1, "a": -1}, "prediction": "none."},
    ],
}


def answer_row(at: Checkpoint, task: str, correct: np.ndarray, **facts: Any) -> dict[str, Any]:
    return {
        "arm": at.arm, "objective": "ce", "seed": at.seed, "epochs": at.epochs, "rate": 0.1,
        "weights_sha256": "0", "task": task, "split_hash": task, "protocol": "linear",
        "score": "top1", "value": float(correct.mean()), "ci_low": 0.0, "ci_high": 1.0,
        "n": len(correct), "unit": "image", "of": 1,
        "samples": np.packbits(correct).tobytes(), "without": [], "draw": None, **facts,
    }  # fmt: skip


def study_file(
    path: Path, better: float, arms: str = "ab", trainings: int = 3, tasks: str = "one two"
) -> Path:
    """A study's file: the last of the arms is ``better`` in skill; 12 epochs alone."""
    world = Trainings(len(arms), trainings, len(tasks.split()), 600, seeds=0.01, better=better)
    rows = []
    for task, answers in zip(tasks.split(), world.answers(np.random.default_rng(0)), strict=True):
        by_model = answers.reshape(trainings, len(arms), -1)
        for seed in range(trainings):
            for arm, correct in zip(arms[::-1], by_model[seed], strict=True):
                rows.append(answer_row(Checkpoint(arm, seed, 12), task, correct))
    write(path, rows, json.dumps(PLAN))
    return path
