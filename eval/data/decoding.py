"""Every image of a task decoded once, as a run would: what they are, and which cannot be read."""

from __future__ import annotations

import io
import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eval.common.images import Values, decode, why_unreadable
from eval.data.task_data import Split, TaskData

AHEAD = 64  # images that are in memory at once


@dataclass(frozen=True)
class Decoded:
    """What an image turned out to be, or why it could not be read."""

    part: Split
    row: int  # of its source
    label: int
    size: tuple[int, int] = (0, 0)  # width, height, before its EXIF orientation
    format: str = "?"
    mode: str = ""
    turned: bool = False  # by its EXIF orientation
    why: str = ""  # it cannot be read; '' where it can

    @property
    def place(self) -> str:
        return f"{self.part.source.describe(self.row)} ({self.part.name})"


def decoded(task: TaskData) -> Iterator[Decoded]:
    """Each image of train, then of test, in its source's order; decoded by threads, then dropped.

    Raises UserError where a source cannot be read at all.
    """
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd EXIF and of large images, which are readable
        for part in (task.train, task.test):
            order = np.argsort(part.rows)
            labels = iter(part.labels[order].tolist())
            for row, data in part.source.images(part.rows[order]):
                waiting.append(pool.submit(_decoded, part, row, next(labels), data, part.values))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def undecodable(task: TaskData) -> list[tuple[str, str]]:
    """Where each image stands that cannot be read, and why."""
    return [(one.place, one.why) for one in decoded(task) if one.why]


def _decoded(part: Split, row: int, label: int, data: bytes, values: Values) -> Decoded:
    try:
        with Image.open(io.BytesIO(data)) as image:
            size, kind, mode = image.size, image.format or "?", image.mode
            turned = image.getexif().get(0x0112, 1) != 1
        decode(data, values)
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        return Decoded(part, row, label, why=why_unreadable(data, error))
    return Decoded(part, row, label, size, kind, mode, turned)
