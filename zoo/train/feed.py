"""The order of images, and a thread that fetches them ahead of the training step.

Everything is a function of (seed, step, process): a resumed run draws what an uninterrupted one
would have drawn, and no sampler or generator state has to be saved.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.train.pixels import PixelStore

AHEAD = 3  # batches


@dataclass(frozen=True)
class Batch:
    """One process's share of one micro-batch."""

    images: Tensor  # [n, 3, S, S] uint8, channels_last
    aspect: Tensor  # [n] width / height of the originals
    labels: Tensor | None  # [n]


@dataclass(frozen=True)
class Schedule:
    """Which rows a step takes: each epoch one permutation, its last partial batch left out."""

    images: int
    batch_size: int  # of all processes and accumulated micro-batches
    seed: int
    accumulate: int = 1
    processes: int = 1
    rank: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def order(self, epoch: int) -> NDArray[np.int64]:
        """[N] the rows of one epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.images)

    def rows(self, step: int, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This process's rows of a step (counted from 0 over the whole run), by micro-batch."""
        start = step % self.steps_per_epoch * self.batch_size
        micro = np.split(order[start : start + self.batch_size], self.accumulate)
        return [np.split(rows, self.processes)[self.rank] for rows in micro]


def draw_seed(*parts: int) -> int:
    """A seed below 2^63 that differs whenever one of the parts does."""
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class Feed:
    """Batches of all steps from ``first`` on, copied from the store by a thread of its own."""

    def __init__(
        self, store: PixelStore, schedule: Schedule, first: int, last: int, pin: bool = False
    ) -> None:
        self._store, self._schedule, self._pin = store, schedule, pin
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self.waited = 0.0  # seconds the trainer stood still for a batch
        self._thread = threading.Thread(target=self._fill, args=(first, last), daemon=True)
        self._thread.start()

    def _fill(self, first: int, last: int) -> None:
        try:
            order, of_epoch = np.empty(0, np.int64), -1
            for step in range(first, last):
                epoch = step // self._schedule.steps_per_epoch
                if epoch != of_epoch:
                    order, of_epoch = self._schedule.order(epoch), epoch
                for rows in self._schedule.rows(step, order):
                    if not self._put(read(self._store, rows, self._pin)):
                        return
        except BaseException as error:  # raised again in the trainer's thread
            self._put(error)

    def _put(self, item: Batch | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        begin = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - begin
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def read(store: PixelStore, rows: NDArray[np.int64], pin: bool = False) -> Batch:
    """Copy rows out of the memory map."""
    images = torch.from_numpy(store.pixels[rows]).permute(0, 3, 1, 2)
    aspect = torch.from_numpy(store.aspect[rows])
    labels = None if store.labels is None else torch.from_numpy(store.labels[rows])
    if pin:
        images, aspect = images.pin_memory(), aspect.pin_memory()
        labels = None if labels is None else labels.pin_memory()
    return Batch(images, aspect, labels)
