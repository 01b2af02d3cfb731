"""The drawn tasks of the embedded suite: their names, classes and semantic levels. No pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MINI_VERSION = 1  # Part of every seed: bump it when any pixel or split changes.
IMAGE_SIZE = 64  # Pixels a side of every factor image.

Level = Literal["low", "mid", "high"]


@dataclass(frozen=True)
class FactorTask:
    """The declared facts of one procedurally drawn task."""

    name: str
    level: Level
    classes: tuple[str, ...]
    train_per_class: int
    test_per_class: int
    description: str


_TASKS = (
    FactorTask(
        "orientation",
        "low",
        ("0", "22.5", "45", "67.5", "90", "112.5", "135", "157.5"),
        100,
        50,
        "At which angle (degrees anticlockwise from horizontal) do the dominant stripes run, "
        "whatever their frequency, phase, profile, bend, colours, contrast and weaker crossing "
        "stripes?",
    ),
    FactorTask(
        "frequency",
        "low",
        ("2", "3", "4.5", "6.75", "10.125", "15.1875"),
        100,
        50,
        "How many cycles does the grating make across the image, whatever its angle, phase, "
        "profile, colours, contrast and window?",
    ),
    FactorTask(
        "hue",
        "low",
        ("red", "amber", "lime", "green", "cyan", "blue", "violet", "magenta"),
        100,
        50,
        "Which hue has the one vivid patch, whatever its outline, place, size, shading and the "
        "paler hues around it?",
    ),
    FactorTask(
        "texture",
        "mid",
        ("stripes", "checker", "dots", "bricks", "voronoi", "clouds", "waves", "hatch"),
        100,
        50,
        "Which family does the texture belong to, whatever its scale, angle, phase, duty, warp, "
        "colours and contrast?",
    ),
    FactorTask(
        "shape",
        "mid",
        ("circle", "triangle", "square", "pentagon", "star", "cross", "heart", "crescent"),
        100,
        50,
        "Which closed outline is drawn, whatever its place, size, slight turn and stretch, line "
        "width or fill, colours, background and stray strokes?",
    ),
    FactorTask(
        "symmetry",
        "mid",
        ("none", "left-right", "top-bottom", "both", "half-turn", "quarter-turn"),
        100,
        50,
        "Which symmetry does the figure have, whatever its strokes, their number and width, "
        "centre, slight tilt, colours and background?",
    ),
    FactorTask(
        "count",
        "high",
        ("1", "2", "3", "4", "5", "6"),
        100,
        50,
        "How many objects are there, whatever their shapes, sizes, total area, places, colours "
        "and background?",
    ),
    FactorTask(
        "relation",
        "high",
        ("left", "right", "above", "below", "inside", "overlapping"),
        100,
        50,
        "Where is the filled disc relative to the outlined square, whatever their sizes, places, "
        "tilt, colours, background and stray strokes?",
    ),
    FactorTask(
        "glyph",
        "high",
        tuple(f"glyph-{i:02d}" for i in range(20)),
        60,
        30,
        "Which of twenty characters of several strokes is written, whatever the jitter of its "
        "strokes, affine pose, pen width, colours and background?",
    ),
)
FACTOR_TASKS: dict[str, FactorTask] = {task.name: task for task in _TASKS}

# eval.data.task_data.TaskData.split_hash of each task of the suite, as this version draws it
SPLIT_HASHES = {
    "digits": "d0394836554693aff958e28dc3e3813210b7f7e9be1fe672743648d8d69eae7a",
    "orientation": "a8e5cfc9756df85252568a0289886c27385365315fc1c2b020141645a8446544",
    "frequency": "361a9755629e8daa3ffbb90c1c8301de53b40ad0914ed164944100dc1927f843",
    "hue": "d04b6050db36850911df3ba79ac55becee1770a1134a81ada8451a771e939a18",
    "texture": "aa7fad32d0a4d4a0b92e216839294dc95eeb0b33db028a5c3b478f99c3f5c04d",
    "shape": "2c88326f55d410977ce6cf0cc57a051accfb257bc90d23421ddd91f27e67260a",
    "symmetry": "c2b3dc15ab227151142f0bd5ba03c39545a3c7e612a901b311f6335c2c413f40",
    "count": "0a7d007209fb2388c4a4a231bc3e4b3a3e060ebc6bcad48f9515681fc8c256b6",
    "relation": "5ec690668aab3d5414e149a80dfff81426308e117d50827999e7b3ed20f7fccc",
    "glyph": "0d7e5701b36c66c2c3c0ee182916ec23f8e633d4e02ea142ef1cc0ccb4c7ce43",
}
