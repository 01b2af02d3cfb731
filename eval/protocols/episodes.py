"""The images few-shot episodes are drawn from, and the draw.

An episode depends on the task's split hash, the seed and its number, on nothing else. Each class
of an episode puts its images in a random order; the first ``queries`` of them are the queries and
the next k the support, so that the support of 1 shot is the head of that of 5, every shot count
meets the same queries, and a score does not depend on which other shot counts were asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import UserError
from eval.data.task_data import TaskData
from eval.settings.protocols import Fewshot


@dataclass(frozen=True)
class Pool:
    """The images episodes are drawn from: train and test together, each different image once."""

    rows: NDArray[np.int64]  # rows of the bank, in the order of the images' hashes
    labels: NDArray[np.int64]  # [len(rows)]
    copies: int  # left out: further copies of an image that is in
    ambiguous: int  # left out: images that stand under two labels

    @classmethod
    def of(cls, task: TaskData) -> Pool:
        keys = np.concatenate([task.train.keys, task.test.keys])
        labels = np.concatenate([task.train.labels, task.test.labels])
        _, first, copy_of = np.unique(keys, return_index=True, return_inverse=True)
        copy_of = copy_of.reshape(-1)
        low = np.full(len(first), np.iinfo(np.int64).max)
        high = np.full(len(first), -1)
        np.minimum.at(low, copy_of, labels)
        np.maximum.at(high, copy_of, labels)
        clear = low == high
        ambiguous = int((~clear[copy_of]).sum())
        rows = first[clear].astype(np.int64)
        return cls(rows, labels[rows], len(keys) - ambiguous - len(rows), ambiguous)


@dataclass(frozen=True)
class Episodes:
    """Rows of the bank. ``support`` is [E, way, shot], ``query`` [E, way, queries]."""

    support: NDArray[np.int64]
    query: NDArray[np.int64]


def eligible_classes(pool: Pool, shot: int, queries: int) -> tuple[int, ...]:
    """Classes with at least shot + queries different images."""
    labels, counts = np.unique(pool.labels, return_counts=True)
    return tuple(labels[counts >= shot + queries].tolist())


def draw_episodes(
    pool: Pool,
    classes: tuple[int, ...],
    *,
    shot: int,
    n_way: int,
    queries: int,
    episodes: int,
    split_hash: str,
    seed: int,
) -> Episodes:
    """Draw episodes among ``classes``, which must all be eligible for ``shot``."""
    by_class = {c: pool.rows[pool.labels == c] for c in classes}
    everyone = np.unique(pool.labels)
    allowed = np.isin(everyone, classes)
    support = np.empty((episodes, n_way, shot), np.int64)
    query = np.empty((episodes, n_way, queries), np.int64)
    for e in range(episodes):
        words = np.frombuffer(
            hashlib.sha256(f"{split_hash}:{seed}:{e}".encode()).digest(), "<u4"
        ).tolist()
        # All classes are shuffled and the eligible kept in that order: a class too small for
        # 20 shots changes only the 20-shot episodes it would have been in.
        order = np.random.RandomState(words).permutation(len(everyone))
        chosen = everyone[order[allowed[order]][:n_way]]
        for w, c in enumerate(chosen.tolist()):
            images = by_class[c]
            drawn = images[np.random.RandomState([*words, c]).permutation(len(images))]
            query[e, w] = drawn[:queries]
            support[e, w] = drawn[queries : queries + shot]
    return Episodes(support, query)


def refusals(pool: Pool, settings: Fewshot) -> dict[int, str]:
    """Shot counts that the pool cannot serve, each with the sentence that says why."""
    out = {}
    largest = max(np.unique(pool.labels, return_counts=True)[1].tolist(), default=0)
    for shot in settings.shots:
        able = len(eligible_classes(pool, shot, settings.queries))
        if able < settings.n_way:
            out[shot] = (
                f"{shot}-shot needs {settings.n_way} classes of {shot} + {settings.queries} "
                f"different images; only {able} are that large (the largest holds {largest})"
            )
    return out


def refuse(settings: Fewshot, tasks: Sequence[TaskData]) -> None:
    """A shot count that no task can serve is a mistake (UserError); one that some cannot, and one
    that nobody asked for, is noted in the result."""
    refused = [refusals(Pool.of(task), settings) for task in tasks]
    for shot in settings.shots:
        if all(shot in r for r in refused) and (
            settings.shots != Fewshot().shots or all(len(r) == len(settings.shots) for r in refused)
        ):
            raise UserError(f"task {tasks[0].name!r}: {refused[0][shot]}")


def merge(held: Mapping[str, Any], settings: Fewshot) -> Fewshot | None:
    """Shot counts accumulate: those of the held result are scored again with the new ones."""
    have = {int(k) for k in held.get("shots", [])}
    if set(settings.shots) <= have:
        return None
    return dataclasses.replace(settings, shots=tuple(sorted(have | set(settings.shots))))
