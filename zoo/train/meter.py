"""Means of the loss terms, and where the time went."""

from __future__ import annotations

import time

from torch import Tensor

from zoo.train.feed import Feed


class Meter:
    """Means of the terms, and where the time went, since the last reading."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.total_seconds = 0.0
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._waited = 0.0
        self._begin = time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._steps += 1

    def read(self, feed: Feed) -> dict[str, float]:
        steps = max(self._steps, 1)
        line = {name: float(total) / steps for name, total in self._sums.items()}
        now = time.perf_counter()
        seconds = max(now - self._begin, 1e-9)
        self.total_seconds += seconds
        line["images_per_s"] = round(steps * self.batch_size / seconds, 1)
        line["waiting"] = round((feed.waited - self._waited) / seconds, 4)
        self._sums, self._steps, self._waited, self._begin = {}, 0, feed.waited, now
        return line

    def skip(self) -> None:
        """Leave the time since the last reading out (a probe, a save)."""
        self._begin = time.perf_counter()
