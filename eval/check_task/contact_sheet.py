"""A task's images on one sheet: a row a class, as a model gets to see them before its own crop."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.common.errors import BadInput, UserError
from eval.common.files import atomic_file
from eval.common.images import Values, decode
from eval.data.labels.label_data import having
from eval.data.task_data import Split, TaskData

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TESTS = 2  # test images a class
GAP = 4  # px between tiles
PARTS = 16  # px between train and test
MARGIN = 12
# Neither is white: white drawings shall show their edges.
PAPER, EMPTY, INK, PALE, CROSS = "#ececef", "#cfcfd6", "#18181b", "#5b5b64", "#dc2626"


def contact_sheet(
    data: TaskData,
    path: Path,
    *,
    per_class: int = 6,
    most_classes: int = 24,
    tile: int = 96,
    seed: int = 0,
) -> Path:
    """Draw the sheet to ``path``, a PNG, and return it.

    Colours and orientation are those that models get (eval.common.images); images keep their shape,
    small ones are enlarged by whole pixels. Those that cannot be read are crossed out. Of more than
    ``most_classes`` classes some are chosen evenly, and the sheet says so. ``seed`` moves on which
    images of a class are shown. Raises UserError where the file cannot be written.
    """
    png_path(path)
    sheet = _Sheet(data, _evenly(len(data.classes), most_classes), per_class, tile)
    for part, first, count in ((data.train, 0, per_class), (data.test, per_class, TESTS)):
        places: dict[int, list[tuple[int, int]]] = {}  # of several labels, an image has several
        for line, label in enumerate(sheet.labels):
            for column, index in enumerate(_spread(part, label, count, seed)):
                places.setdefault(int(part.rows[index]), []).append((line, first + column))
        rows = np.asarray(sorted(places), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF and of large images, which are readable
            for row, content in part.source.images(rows):
                for place in places[row]:
                    sheet.paste(content, part.values, *place)
    save_png(sheet.image, path)
    return path


def png_path(path: Path) -> None:
    """Raises UserError where the file is not named as a PNG."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"the contact sheet is a PNG; name it FILE.png, not {str(path)!r}")


def save_png(image: Image.Image, path: Path) -> None:
    """Raises UserError where the file cannot be written."""
    try:
        with atomic_file(path) as file:
            image.save(file, "PNG")
    except OSError as error:
        raise UserError(
            f"contact sheet {str(path)!r} cannot be written: {error.strerror or error}"
        ) from None


def _evenly(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _spread(part: Split, label: int, count: int, seed: int) -> Iterator[int]:
    """Places in the split of up to ``count`` images of a class, at even steps."""
    index = having(part, label)
    n = len(index)
    for i in range(min(count, n)):
        yield int(index[(i * n // min(count, n) + seed) % n])


class _Sheet:
    def __init__(self, data: TaskData, labels: list[int], per_class: int, tile: int) -> None:
        from PIL import Image, ImageDraw

        self.labels, self.per_class, self.tile = labels, per_class, tile
        size = max(11, tile // 7)
        self.font, self.bold = load_font(size), load_font(size + 4)
        line = round(1.45 * size)
        rows = [(data.classes[i], _counts(data, i)) for i in labels]
        widest = max(_width(self.font, _drawable(t)) for row in rows for t in row)
        self.left = MARGIN + min(max(widest, tile), round(2.2 * tile)) + MARGIN
        self.top = MARGIN + round(1.6 * (size + 4)) + 2 * line + GAP
        columns = self._column(per_class + TESTS)
        width, height = columns - GAP + MARGIN, self.top + len(labels) * (tile + GAP) + MARGIN
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

        room = width - 2 * MARGIN
        self._text((MARGIN, MARGIN), data.name, room, self.bold)
        hidden = len(data.classes) - len(labels)
        facts = (
            f"{len(data.classes):,} classes, {len(data.train):,} training and "
            f"{len(data.test):,} test images"
        )
        facts += f"; {len(labels)} classes shown, {hidden:,} are not" if hidden else ""
        y = MARGIN + round(1.6 * (size + 4))
        self._text((MARGIN, y), facts, room, self.font, PALE)
        self._text((self.left, y + line), "train", room, self.font, PALE)
        self._text((self._column(per_class), y + line), "test", room, self.font, PALE)
        room = self.left - 2 * MARGIN
        for i, (name, counts) in enumerate(rows):
            lines = _wrapped(_drawable(name), room, self.font)
            y = self.top + i * (tile + GAP) + max(0, (tile - line * (len(lines) + 1)) // 2)
            for text, colour in (*((t, INK) for t in lines), (counts, PALE)):
                self._text((MARGIN, y), text, room, self.font, colour)
                y += line
        bar = self._column(per_class) - (PARTS + GAP) // 2
        self.draw.line((bar, self.top, bar, height - MARGIN - GAP), EMPTY, 2)

    def _column(self, i: int) -> int:
        return self.left + i * (self.tile + GAP) + (PARTS if i >= self.per_class else 0)

    def _text(
        self,
        place: tuple[int, int],
        text: str,
        room: int,
        font: Font,
        colour: str = INK,
    ) -> None:
        self.draw.text(place, fitted(text, room, font), colour, font)

    def paste(self, content: bytes, values: Values, line: int, column: int) -> None:
        """Draw one image file into its tile."""
        from PIL import Image

        x, y = self._column(column), self.top + line * (self.tile + GAP)
        box = (x, y, x + self.tile - 1, y + self.tile - 1)
        self.draw.rectangle(box, EMPTY)
        try:
            image = decode(content, values)
        except Exception:  # decoders raise whatever a broken file makes them raise
            self.draw.line(box, CROSS, 2)
            self.draw.line((box[0], box[3], box[2], box[1]), CROSS, 2)
            return
        scale = self.tile / max(image.size)
        method = Image.Resampling.LANCZOS
        if scale >= 2:
            scale, method = int(scale), Image.Resampling.NEAREST
        width, height = (max(1, round(scale * side)) for side in image.size)
        small = image.resize((width, height), method)
        self.image.paste(small, (x + (self.tile - width) // 2, y + (self.tile - height) // 2))


def _counts(data: TaskData, label: int) -> str:
    train, test = (len(having(part, label)) for part in (data.train, data.test))
    return f"#{label}: {train:,} train, {test:,} test"


def load_font(size: int) -> Font:
    from PIL import ImageFont, features

    return ImageFont.load_default(size if features.check("freetype2") else None)


def _drawable(text: str) -> str:
    """One line that the font takes; what it has no sign for, it draws as a box."""
    from PIL import features

    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    if features.check("freetype2"):
        return line
    return line.encode("latin-1", "replace").decode("latin-1")


def _width(font: Font, text: str) -> int:
    return int(np.ceil(font.getlength(text)))


def _fitting(text: str, room: int, font: Font, more: str = "") -> int:
    """How many characters fit into the room, with ``more`` behind them."""
    return bisect_right(range(1, len(text) + 1), room, key=lambda n: _width(font, text[:n] + more))


def fitted(text: str, room: int, font: Font) -> str:
    """The text on one line that the font takes, cut where it exceeds ``room`` px."""
    text = _drawable(text)
    if _width(font, text) <= room:
        return text
    return text[: _fitting(text, room, font, "...")].rstrip() + "..."


def _wrapped(text: str, room: int, font: Font) -> tuple[str, ...]:
    """The text in one line or two, broken behind a space or a sign where there is one."""
    if _width(font, text) <= room:
        return (text,)
    end = max(1, _fitting(text, room, font))
    signs = [i + 1 for i in range(end // 2, end) if not text[i].isalnum()]
    end = signs[-1] if signs else end
    return text[:end].rstrip(), text[end:].lstrip()
