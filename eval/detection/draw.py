"""Boxes drawn into an image: what a detector finds, and what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from eval.data.boxes.objects import BoxPrediction, Objects

# Okabe and Ito's colours, which the colour-blind tell apart; more classes begin again, for a label
# names the class in any case. Black and white are those of the true boxes.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
INK, PAPER = "#000000", "#FFFFFF"
SMALL = 480  # px of the longer side: smaller images are enlarged to it
TALLEST = 4  # times as high as wide, where a width is asked for
MOST = 100  # boxes drawn of an image, best first
LETTERS = 24  # of a class name

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Place = tuple[int, int, int, int]  # left, top, right, bottom, all inside


def colour_of(label: int) -> str:
    """A class's colour, the same in every image."""
    return COLOURS[label % len(COLOURS)]


def draw(
    image: Image.Image,
    found: BoxPrediction | None,
    truth: Objects | None,
    classes: Sequence[str],
    *,
    least: float = 0.5,
    width: int | None = None,
) -> Image.Image:
    """A copy of the image with boxes in it, in RGB.

    Found boxes of at least that score are lines in their class's colour, labelled ``name 87 %``,
    the best on top; in a crowd a label that would hide another is left out. True boxes are dashed
    white on black and named where they have room; those that a metric ignores are dotted and thin.
    ``width`` is that of the picture; without it small images are enlarged until labels can be read.
    """
    picture, scale = _scaled(image.convert("RGB"), width)
    page = _Page(picture)
    if truth is not None:
        for place, i in _places(truth.boxes, scale, picture.size):
            page.true_box(place, ignored=bool(truth.ignore[i]))
    kept = _kept(found, least)
    if found is not None:
        boxes = [(p, kept[i]) for p, i in _places(found.boxes[kept], scale, picture.size)]
        for place, i in reversed(boxes):
            page.box(place, colour_of(int(found.labels[i])))
        for place, i in boxes:
            label = int(found.labels[i])
            text = f"{_name(classes, label)} {100 * float(found.scores[i]):.0f} %"
            page.label(place, text, colour_of(label))
    if truth is not None:
        for place, i in _places(truth.boxes, scale, picture.size):
            if not truth.ignore[i]:
                page.name(place, _name(classes, int(truth.labels[i])))
    return picture


def _scaled(image: Image.Image, width: int | None) -> tuple[Image.Image, tuple[float, float]]:
    """(the picture to draw in, horizontal and vertical scale)."""
    if width is None:
        scale = max(1.0, SMALL / max(image.size))
    else:
        scale = max(1, width) / image.width
        scale = min(scale, TALLEST * max(1, width) / image.height)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    if size == image.size:
        return image.copy(), (1.0, 1.0)
    method = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.LANCZOS
    return image.resize(size, method), (size[0] / image.width, size[1] / image.height)


def _kept(found: BoxPrediction | None, least: float) -> NDArray[np.int64]:
    """Places of the found boxes that are drawn, best first."""
    if found is None:
        return np.zeros(0, np.int64)
    order = np.argsort(-found.scores, kind="stable")
    return order[found.scores[order] >= least][:MOST]


def _places(
    boxes: NDArray[np.float32], scale: tuple[float, float], size: tuple[int, int]
) -> Iterator[tuple[Place, int]]:
    """(pixels of the picture, place in ``boxes``) of each [K, 4] box that is one; cut to the
    picture, at least a pixel in size."""
    for i, box in enumerate(np.asarray(boxes, np.float64).reshape(-1, 4)):
        if not np.isfinite(box).all():
            continue
        low, high = [], []
        for axis in (0, 1):
            ends = sorted((box[axis] * scale[axis], box[axis + 2] * scale[axis]))
            last = size[axis] - 1
            low.append(round(min(max(ends[0], 0), last)))
            high.append(round(min(max(ends[1] - 1, low[-1]), last)))
        yield (low[0], low[1], high[0], high[1]), i


def _name(classes: Sequence[str], label: int) -> str:
    """The class on one line that the font can write; its number where it has no name."""
    name = classes[label] if 0 <= label < len(classes) else f"class {label}"
    name = "".join(c if c.isprintable() else "?" for c in " ".join(name.split()))
    if not features.check("freetype2"):
        name = name.encode("latin-1", "replace").decode("latin-1")
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


class _Page:
    """A picture that is drawn into, with the places that labels have taken."""

    def __init__(self, picture: Image.Image) -> None:
        self.pen = ImageDraw.Draw(picture)
        self.size = picture.size
        longer = max(picture.size)
        self.line = max(2, round(longer / 240))
        letters = max(12, round(longer / 38))
        self.font: Font = ImageFont.load_default(letters if features.check("freetype2") else None)
        self.pad = max(1, letters // 6)
        self.taken: list[Place] = []

    def box(self, place: Place, colour: str) -> None:
        self.pen.rectangle(place, outline=colour, width=self.line)

    def true_box(self, place: Place, ignored: bool) -> None:
        """White dashes on a black line; dots on a thin one for what a metric ignores."""
        line = max(1, self.line // 2) if ignored else self.line
        on, off = (line, 2 * line) if ignored else (4 * line, 3 * line)
        self.pen.rectangle(place, outline=INK, width=line)
        left, top, right, bottom = place
        for start in range(left, right + 1, on + off):
            end = min(start + on - 1, right)
            self._fill((start, top, end, min(top + line - 1, bottom)))
            self._fill((start, max(bottom - line + 1, top), end, bottom))
        for start in range(top, bottom + 1, on + off):
            end = min(start + on - 1, bottom)
            self._fill((left, start, min(left + line - 1, right), end))
            self._fill((max(right - line + 1, left), start, right, end))

    def _fill(self, place: Place) -> None:
        self.pen.rectangle(place, fill=PAPER)

    def label(self, place: Place, text: str, colour: str) -> None:
        """At the box's upper edge, or the lower where there is another label; else nowhere."""
        wide, high = self._extent(text)
        left, top, right, bottom = place
        for x in (left, right - wide + 1):
            for y in (top - high, top, bottom + 1, bottom - high + 1):
                if y >= 0 and y + high <= self.size[1] and self._write(x, y, text, colour):
                    return
        if not self.taken:  # an image lower than a line
            self._write(left, 0, text, colour)

    def name(self, place: Place, text: str) -> None:
        """Within a true box, at its lower edge, where it takes no more than a third of it."""
        wide, high = self._extent(text)
        left, top, right, bottom = place
        if wide <= right - left + 1 and 3 * high <= bottom - top + 1:
            self._write(left, bottom - high + 1, text, INK)

    def _extent(self, text: str) -> tuple[int, int]:
        left, top, right, bottom = self.font.getbbox(text)
        return int(right - left) + 2 * self.pad, int(bottom - top) + 2 * self.pad

    def _write(self, x: int, y: int, text: str, ground: str) -> bool:
        """Whether there was room: on a ground of that colour, moved into the picture."""
        wide, high = self._extent(text)
        x = max(0, min(x, self.size[0] - wide))
        place = (x, y, x + wide - 1, y + high - 1)
        if any(_meet(place, other) for other in self.taken):
            return False
        self.taken.append(place)
        self.pen.rectangle(place, fill=ground)
        left, top, *_ = self.font.getbbox(text)
        at = (x + self.pad - left, y + self.pad - top)
        self.pen.text(at, text, INK if _bright(ground) else PAPER, self.font)
        return True


def _meet(a: Place, b: Place) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _bright(colour: str) -> bool:
    """Whether black letters are read better on it than white ones (WCAG's luminance)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179
