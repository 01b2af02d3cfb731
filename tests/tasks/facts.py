"""What every declaration must hold."""

from __future__ import annotations

import re

from eval.tasks.declaration import Task


def check_facts(task: Task) -> None:
    """Counts that add up, names that are whole, a home, and a pinned copy."""
    for name in ("name", "title", "domain", "licence", "citation"):
        value = getattr(task, name)
        assert value == value.strip() != "", name
    assert task.classes >= 2
    assert task.splits or task.subset
    for split in task.splits:
        if split.train:
            assert split.train + split.test == task.images
        for part in ("train", "test"):
            each = getattr(split, f"{part}_per_class")
            assert not each or (len(each), sum(each)) == (task.classes, getattr(split, part))
        if split.rule == "per-class" and task.per_class and split.train:
            kept = [int(0.7 * n) for n in task.per_class]
            assert (sum(kept), task.images - sum(kept)) == (split.train, split.test)
    assert len({s.name for s in task.splits}) == len(task.splits)
    if task.per_class:
        assert (len(task.per_class), sum(task.per_class)) == (task.classes, task.images)
    names = task.class_names
    assert not names or len(set(names)) == len(names) == task.classes
    assert all(n == n.strip() != "" for n in names)
    if known := task.subset:
        assert known.classes <= task.classes
        assert known.train + known.test <= task.images
        assert known.split_hash
    if not task.embedded:
        assert task.home.startswith("http")
        assert task.download
        assert (task.share == "yes") == (not task.share_why)
    if task.hub:
        assert re.fullmatch(r"[0-9a-f]{7}|[0-9a-f]{40}", task.hub.revision)
        assert bool(task.hub.parts) != bool(task.hub.train and task.hub.test)
