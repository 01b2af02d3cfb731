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
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import UserError
from eval.data.task_data import TaskData
from eval.metrics.episode_variance import EpisodeDesign
from eval.settings.protocols import Fewshot


@dataclass(frozen=True)
class Pool:
    """The images episodes are drawn from: train and test together, each different image once."""

    rows: NDArray[np.int64]  # rows of the bank, in the order of the images' hashes
    labels: NDArray[np.int64]  # [len(rows)]
    copies: int  # left out: further copies of an image that is in
    ambiguous: int  # left out: images that stand under two labels

    def class_images(self, classes: int) -> list[int]:
        """Images of each class, by label: all that a draw depends on."""
        return np.bincount(self.labels, minlength=classes).tolist()

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
class Draw:
    """All that says which images stand in which episode."""

    class_images: tuple[int, ...]  # by label
    shot: int
    n_way: int
    queries: int
    episodes: int
    split_hash: str
    seed: int

    @property
    def eligible(self) -> tuple[int, ...]:
        """Labels of the classes with at least shot + queries different images."""
        return tuple(
            c for c, n in enumerate(self.class_images) if n >= max(self.shot + self.queries, 1)
        )


@lru_cache(maxsize=64)
def design(draw: Draw) -> EpisodeDesign:
    """Draw the episodes. Raises ValueError where fewer than ``n_way`` classes are eligible."""
    eligible = draw.eligible
    if len(eligible) < draw.n_way:
        raise ValueError(f"{len(eligible)} classes are large enough for {draw.n_way} ways")
    place = {c: i for i, c in enumerate(eligible)}
    everyone = np.flatnonzero(draw.class_images)
    allowed = np.isin(everyone, eligible)
    classes = np.empty((draw.episodes, draw.n_way), np.int64)
    support = np.empty((draw.episodes, draw.n_way, draw.shot), np.int64)
    query = np.empty((draw.episodes, draw.n_way, draw.queries), np.int64)
    random = np.random.RandomState(0)  # seeded anew for each draw: ten times as fast as a new one
    for e in range(draw.episodes):
        words = np.frombuffer(
            hashlib.sha256(f"{draw.split_hash}:{draw.seed}:{e}".encode()).digest(), "<u4"
        ).tolist()
        # All classes are shuffled and the eligible kept in that order: a class too small for
        # 20 shots changes only the 20-shot episodes it would have been in.
        random.seed(words)
        order = random.permutation(len(everyone))
        chosen = everyone[order[allowed[order]][: draw.n_way]]
        for w, c in enumerate(chosen.tolist()):
            random.seed([*words, c])
            drawn = random.permutation(draw.class_images[c])
            classes[e, w] = place[c]
            query[e, w] = drawn[: draw.queries]
            support[e, w] = drawn[draw.queries : draw.queries + draw.shot]
    sizes = np.array([draw.class_images[c] for c in eligible], np.int64)
    return EpisodeDesign(sizes, classes, support, query)


def bank_rows(
    pool: Pool, drawn: EpisodeDesign, eligible: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(support [E, way, shot], query [E, way, queries]) as rows of the bank."""
    rows = np.concatenate([pool.rows[pool.labels == c] for c in eligible])
    return rows[drawn.support_images], rows[drawn.query_images]


def able(pool: Pool, images: int) -> int:
    """Classes with so many different images or more."""
    return int((np.unique(pool.labels, return_counts=True)[1] >= images).sum())


def refusals(pool: Pool, settings: Fewshot) -> dict[int, str]:
    """Shot counts that the pool cannot serve, each with the sentence that says why."""
    out = {}
    largest = max(np.unique(pool.labels, return_counts=True)[1].tolist(), default=0)
    for shot in settings.shots:
        large = able(pool, shot + settings.queries)
        if large < settings.n_way:
            out[shot] = (
                f"{shot}-shot needs {settings.n_way} classes of {shot} + {settings.queries} "
                f"different images; only {large} are that large (the largest holds {largest})"
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
            way = _instead(Pool.of(tasks[0]), shot, settings)
            raise UserError(f"task {tasks[0].name!r}: {refused[0][shot]}; {way}")


def _instead(pool: Pool, shot: int, settings: Fewshot) -> str:
    """What works with a pool that the settings ask too much of."""
    ways = able(pool, shot + settings.queries)
    fewer = f"--n-way {ways}" if ways > 1 else "fewer --queries" if shot == 1 else "fewer --shots"
    return f"try {fewer}, or leave few-shot out (--protocol knn linear)"


def merge(held: Mapping[str, Any], settings: Fewshot) -> Fewshot | None:
    """Shot counts accumulate: those of the held result are scored again with the new ones."""
    have = {int(k) for k in held.get("shots", [])}
    if set(settings.shots) <= have:
        return None
    return dataclasses.replace(settings, shots=tuple(sorted(have | set(settings.shots))))
