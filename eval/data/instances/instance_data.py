"""A retrieval task by instances: queries, and the gallery in which each is to be found."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.task_data import TaskData, take
from eval.settings.protocols import Kind


@dataclass(frozen=True)
class InstanceData(TaskData):
    """A retrieval task with its data found: ``train`` is the gallery, ``test`` the queries, and
    ``classes`` are the instances of the gallery. Every query has a match there."""

    lost: tuple[str, ...] = ()  # the instance of each query that had none, which is left out

    @property
    def kind(self) -> Kind:
        return "instances"

    def _hash(self) -> str:
        """Another than that of the same images as a task with classes: its numbers are others."""
        return hashlib.sha256(f"instances:{super()._hash()}".encode()).hexdigest()


def limited(task: InstanceData, limit: int) -> InstanceData:
    """The first ``limit`` queries in canonical order, and as many images of the gallery: one of
    each instance that is asked for, then a second of each, then the others. Queries whose match is
    no longer there are left out. Raises UserError where one instance alone is left."""
    queries, gallery = task.test, task.train
    if len(queries) <= limit and len(gallery) <= limit:
        return task
    queries = take(queries, np.arange(min(limit, len(queries))))
    others = ~np.isin(gallery.labels, queries.labels)
    keep = np.lexsort((_place_within(gallery.labels), others))[:limit]
    gallery = take(gallery, np.sort(keep))
    queries = take(queries, np.flatnonzero(np.isin(queries.labels, gallery.labels)))
    if len(np.unique(gallery.labels)) < 2:
        raise BadInput(
            f"{task.name} with --limit {limit}: one instance is left in the gallery; take more"
        )
    note = f"limited to {limit} queries and as many images of the gallery"
    return dataclasses.replace(
        task, train=gallery, test=queries, limit=limit, notes=(*task.notes, note)
    )


def _place_within(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] how many images of the same label come before each."""
    order = np.argsort(labels, kind="stable")
    sizes = np.unique(labels, return_counts=True)[1]
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place
