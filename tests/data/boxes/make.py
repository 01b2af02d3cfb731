"""Small drawn sets that a detector can learn: rectangles and discs of two colours on noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.common.distributed import Workers
from eval.data.boxes.box_data import DetectionData
from eval.data.load import load_task
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.training.context import Context
from tests.detection.drawn import Picture, write_objects
from tests.factories import png

SHAPES = ("rectangle", "disc")
COLOURS = ((200, 40, 40), (40, 60, 200))
MODEL = "random:test_resnet"
# A network of some 100,000 parameters on images of about 64 pixels.
SMALL: dict[str, Any] = {
    "channels": 16, "head": 32, "sides": (48, 64), "test_side": 64, "max_side": 96,
}  # fmt: skip
Change = Callable[[int, dict[str, list[Any]]], None]  # of the objects of an image, by its number


def flags(values: dict[str, Any]) -> list[str]:
    """As ``--set`` takes them."""
    return [f"detection.{k}={list(v) if type(v) is tuple else v}" for k, v in values.items()]


def scene(seed: int, width: int = 64, height: int = 48, most: int = 3) -> Picture:
    """1 to ``most`` shapes on noise; a later one does not cover an earlier one."""
    random = np.random.RandomState(seed)
    pixels = random.normal(128, 20, (height, width, 3))
    rows, columns = np.mgrid[:height, :width] + 0.5
    free = np.ones((height, width), bool)
    boxes: list[tuple[int, tuple[float, float, float, float]]] = []
    for _ in range(random.randint(1, most + 1)):
        w, h = (int(v) for v in random.randint(14, 27, 2))
        label = int(random.randint(2))
        if label == 1:
            h = w
        x, y = int(random.randint(width - w)), int(random.randint(height - h))
        if not free[y : y + h, x : x + w].all():
            continue
        free[y : y + h, x : x + w] = False
        inside = (columns > x) & (columns < x + w) & (rows > y) & (rows < y + h)
        if label == 1:
            inside &= (columns - x - w / 2) ** 2 + (rows - y - h / 2) ** 2 < (w / 2) ** 2
        pixels[inside] = np.asarray(COLOURS[label]) + random.normal(0, 8, (inside.sum(), 3))
        boxes.append((label, (x, y, x + w, y + h)))
    data = png(np.clip(pixels, 0, 255).astype(np.uint8))
    return Picture(f"{seed}.png", data, (width, height), tuple(boxes))


def scenes(count: int, seed: int, tall: int = 4) -> list[Picture]:
    """Every ``tall``-th is taller than wide; none where it is 0."""
    return [
        scene(1000 * seed + i, *((48, 64) if tall and i % tall == tall - 1 else (64, 48)))
        for i in range(count)
    ]


def write_part(path: Path, pictures: Sequence[Picture], change: Change | None = None) -> None:
    """A Parquet file of ``pictures``; ``change`` may alter what is written of an image."""
    objects = []
    for number, p in enumerate(pictures):
        one: dict[str, list[Any]] = {
            "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in p.boxes],
            "category": [label for label, _ in p.boxes],
            "difficult": [0] * len(p.boxes),
            "iscrowd": [0] * len(p.boxes),
        }
        if change:
            change(number, one)
        objects.append(one)
    write_objects(path, [p.data for p in pictures], objects, SHAPES)


def write_set(
    folder: Path, train: int = 10, test: int = 8, tall: int = 4, change: Change | None = None
) -> Path:
    """``change`` is of the images to train on."""
    write_part(folder / "train-00000-of-00001.parquet", scenes(train, 1, tall), change)
    write_part(folder / "test-00000-of-00001.parquet", scenes(test, 2, tall))
    return folder


def make_setup(
    folder: Path, cache: Path, model: str = MODEL, seed: int = 0, dtype: Any = "fp32"
) -> Context:
    task = load_task(f"parquet:{folder}", cache)
    assert isinstance(task, DetectionData)
    backbone = load(resolve(model, cache))
    return Context(backbone, task, None, Workers("cpu"), Precision(dtype), cache, seed)
