"""Small declared data sets: a made-up official download, and its declaration at that size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eval.prepare.layouts import LAYOUTS
from eval.tasks.declaration import Task
from eval.tasks.registry import TASKS
from tests.prepare import official
from tests.prepare.official import Made


def declare(name: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Make the task's declaration one of the download's size, for this test."""
    used = [
        label for label, part in zip(made.labels, made.parts, strict=True) if part != "validation"
    ]
    counts = np.bincount(used, minlength=len(made.classes)) if min(used) >= 0 else []
    splits = tuple(
        dataclasses.replace(
            rule,
            train=(sizes := expected_sizes(made, rule.rule)).get("train", 0),
            test=sizes.get("test", 0),
            train_per_class=(), test_per_class=(), members="",
        )
        for rule in TASKS[name].splits
    )  # fmt: skip
    task = dataclasses.replace(
        TASKS[name], names=made.classes, classes=len(made.classes), images=len(used),
        per_class=tuple(int(n) for n in counts), splits=splits, subset=None, hub=None,
    )  # fmt: skip
    monkeypatch.setitem(TASKS, name, task)
    monkeypatch.setitem(LAYOUTS, name, partial(LAYOUTS[name], **made.options))
    return task


def expected_sizes(made: Made, rule: str) -> dict[str, int]:
    if rule == "official":
        return {part: made.parts.count(part) for part in ("train", "test")}
    if rule == "groups":
        return {}
    parts = list(plain_split(made.names, made.labels).values())
    return {part: parts.count(part) for part in ("train", "test")}


def plain_split(names: Sequence[str], labels: Sequence[int]) -> Mapping[str, str]:
    """The study's rule, plainly: one RandomState through the classes as they first appear."""
    random = np.random.RandomState(0)
    out = {}
    for label in dict.fromkeys(labels):
        ours = [n for n, other in zip(names, labels, strict=True) if other == label]
        random.shuffle(ours)
        for i, name in enumerate(ours):
            out[name] = "train" if i < int(0.7 * len(ours)) else "test"
    return out


def make(name: str, folder: Path, **options: object) -> Made:
    """The official download of a task, made small."""
    return getattr(official, f"make_{name}")(folder, **options)
