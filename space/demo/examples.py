"""Example sets drawn from the embedded suite `mini`: nothing ships, every pixel is made here.

Drawn when one is first asked for: the digits take scikit-learn, whose import the start need not
wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.mini.factors import FACTOR_TASKS
from eval.mini.suite import draw
from space.demo.uploads import Picture

SHOTS = 5
_DIGITS = ("0", "1", "2", "3", "4")
# The five of each task's eight that the shipped models tell apart best, by other draws than these.
_FACTORS = {
    "texture": ("stripes", "checker", "bricks", "voronoi", "clouds"),
    "shape": ("circle", "triangle", "cross", "heart", "crescent"),
}
TITLES = {
    "digits": "Handwritten digits",
    "texture": "Drawn textures",
    "shape": "Drawn shapes",
}
_SIZE = 64  # digits have 8 pixels a side: too small to look at


@dataclass(frozen=True)
class ExampleSet:
    """Five classes of ``SHOTS`` support pictures, and one query of each with its true class."""

    name: str
    title: str
    supports: tuple[tuple[str, tuple[Picture, ...]], ...]
    queries: tuple[Picture, ...]
    answers: tuple[str, ...]
    licence: str


@cache
def example_sets() -> dict[str, ExampleSet]:
    """The three sets by name; support from the tasks' train parts, queries from their tests.

    Queries do not come in the order of the classes. The same pixels on every machine.
    """
    sets = [_digits(), *(_factor(name, classes) for name, classes in _FACTORS.items())]
    return {each.name: each for each in sets}


def _digits() -> ExampleSet:
    from eval.mini.suite import digits_split

    train, train_labels, test, test_labels = digits_split()

    def picture(pixels: NDArray[np.uint8], name: str) -> Picture:
        """Of [8, 8] grey values."""
        grey = Image.fromarray(pixels)
        return Picture(grey.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BILINEAR), name)

    supports = tuple(
        (
            digit,
            tuple(
                picture(pixels, f"digit-{digit}-{i}.png")
                for i, pixels in enumerate(train[train_labels == int(digit)][:SHOTS], 1)
            ),
        )
        for digit in _DIGITS
    )
    order = _mixed(_DIGITS)
    queries = tuple(
        picture(test[test_labels == int(digit)][0], f"query-{i}.png")
        for i, digit in enumerate(order, 1)
    )
    licence = "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)"
    return ExampleSet("digits", TITLES["digits"], supports, queries, order, licence)


def _factor(name: str, classes: tuple[str, ...]) -> ExampleSet:
    labels = {c: FACTOR_TASKS[name].classes.index(c) for c in classes}
    supports = tuple(
        (
            c,
            tuple(
                Picture(Image.fromarray(draw(name, "train", labels[c], i)), f"{c}-{i + 1}.png")
                for i in range(SHOTS)
            ),
        )
        for c in classes
    )
    order = _mixed(classes)
    queries = tuple(
        Picture(Image.fromarray(draw(name, "test", labels[c], 0)), f"query-{i}.png")
        for i, c in enumerate(order, 1)
    )
    licence = "Apache-2.0 (drawn by this package)"
    return ExampleSet(name, TITLES[name], supports, queries, order, licence)


def _mixed(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A fixed order that is not the classes' own: places 2, 4, 1, 3, 0."""
    return tuple(classes[i] for i in (2, 4, 1, 3, 0))
