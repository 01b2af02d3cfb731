"""Example test images of a detection result, with its boxes and the true ones drawn in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.images import decode
from eval.data.boxes.box_data import DetectionData
from eval.data.boxes.objects import Objects
from eval.data.load import load_task
from eval.data.locations import Data
from eval.detection.draw import draw
from eval.results.names import task_label
from eval.results.schema import Result
from eval.tasks.registry import TASKS
from space.tables.detection import examples

KEPT = 3  # data sets whose example images are kept, decoded
SIDE = 800  # px, the longer side of a large image as it is shown


@dataclass(frozen=True, eq=False)
class Shown:
    """One test image with the boxes of one model. ``count`` boxes reach the least score."""

    row: int
    model: int  # its place among those asked for
    image: Image.Image
    count: int


@dataclass(frozen=True, eq=False)
class _Held:
    """Decoded example images, by row, with what is true of them."""

    images: dict[int, Image.Image]
    truth: dict[int, Objects]
    classes: tuple[str, ...]


class Album:
    """Makes the pictures; keeps the images of the last data sets. Safe to use from threads."""

    def __init__(self, data: Data | None, cache: Path) -> None:
        self.data, self.cache = data, cache
        self._held: OrderedDict[tuple[object, ...], _Held] = OrderedDict()
        self._lock = threading.Lock()

    def pictures(self, results: Sequence[Result], least: float = 0.5, most: int = 8) -> list[Shown]:
        """At most ``most`` images that all results have, each with every model's boxes in turn.

        Results are of one data set. Raises UserError where the data are not at hand, or are others
        than those of the results.
        """
        found = [examples(result) for result in results]
        rows = [
            row for row, mine in found[0].items()
            if all(row in other and other[row].hash == mine.hash for other in found[1:])
        ][:most]  # fmt: skip
        if not rows:
            raise BadInput("these results hold no example images in common; score both anew")
        held = self._images(results[0], {row: found[0][row].hash for row in rows})
        return [
            Shown(
                row, i, draw(held.images[row], mine[row].found, held.truth[row], held.classes,
                             least=least, width=_width(held.images[row])),
                int((mine[row].found.scores >= least).sum()),
            )
            for row in rows
            for i, mine in enumerate(found)
        ]  # fmt: skip

    def _images(self, result: Result, wanted: dict[int, str]) -> _Held:
        key = (result.task.name, result.task.split_hash, result.limit, result.seed,
               tuple(wanted.items()))  # fmt: skip
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = self._read(result, wanted)
        with self._lock:
            self._held[key] = made
            while len(self._held) > KEPT:
                self._held.popitem(last=False)
        return made

    def _read(self, result: Result, wanted: dict[int, str]) -> _Held:
        name = result.task.name
        if name not in TASKS:
            raise BadInput(f"images of data set {name!r} are not shown: it is none of the suite's")
        if self.data is None and not TASKS[name].embedded:
            raise BadInput(f"task {name!r} needs --data DIR: a visitor's click downloads nothing")
        label = task_label(name, result.task.split)
        task = load_task(label, self.cache, self.data, result.limit, result.seed)
        if not isinstance(task, DetectionData) or task.split_hash != result.task.split_hash:
            raise BadInput(
                f"the data of task {name!r} here are not those of the result (split hash "
                f"{task.split_hash[:8]} here, {result.task.split_hash[:8]} there)"
            )
        test = task.test
        for row, text in wanted.items():
            if row >= len(test) or not test.hashes[row].tobytes().hex().startswith(text.lower()):
                raise NotFound(f"example image {row} is not in the data of task {name!r} here")
        contents = dict(test.source.images(np.sort(test.rows[list(wanted)])))
        images, truth = {}, {}
        for row in wanted:
            source = int(test.rows[row])
            try:
                images[row] = decode(contents[source])
            except Exception as error:  # whatever a broken file makes a decoder raise
                where = test.source.describe(source)
                raise BadInput(
                    f"task {name!r}: {where} cannot be read as an image: {one_line(error, 120)}"
                ) from None
            truth[row] = test.objects[row]
        return _Held(images, truth, task.classes)


def _width(image: Image.Image) -> int | None:
    """The picture's, where the image is larger than a page needs."""
    longer = max(image.size)
    return max(1, round(SIDE * image.width / longer)) if longer > SIDE else None
