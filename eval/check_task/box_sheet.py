"""A detection task's images on one sheet, a few of each part, with their true boxes drawn in."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.check_task.contact_sheet import (
    CROSS,
    EMPTY,
    INK,
    MARGIN,
    PALE,
    PAPER,
    fitted,
    load_font,
    png_path,
    save_png,
)
from eval.common.images import Values, decode
from eval.data.boxes.box_data import BoxSplit, DetectionData
from eval.data.boxes.objects import Objects
from eval.detection.draw import draw

LEGEND = "dashed: annotated boxes; dotted: difficult or crowd, which no metric asks for"
LETTERS = 14  # px
GAP = 12  # px between tiles


def box_sheet(
    data: DetectionData,
    path: Path,
    *,
    per_part: int = 8,
    columns: int = 4,
    tile: int = 400,
    seed: int = 0,
) -> Path:
    """Draw the sheet to ``path``, a PNG, and return it.

    Up to ``per_part`` images of train and of test, ``columns`` a row, in tiles ``tile`` px wide.
    Images with boxes come first, in canonical order, which is none of their content; ``seed``
    moves on which. Those that cannot be read are crossed out. Raises UserError where the file
    cannot be written.
    """
    png_path(path)
    sheet = _Sheet(data, per_part, columns, tile)
    for part, top in zip((data.train, data.test), sheet.tops, strict=True):
        chosen = _chosen(part, per_part, seed)
        slot_of = {int(part.rows[index]): slot for slot, index in enumerate(chosen)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF and of large images, which are readable
            for row, content in part.source.images(np.asarray(sorted(slot_of), np.int64)):
                slot = slot_of[row]
                truth = part.objects[chosen[slot]]
                sheet.paste(content, part.values, truth, part.source.describe(row), slot, top)
    save_png(sheet.image, path)
    return path


def _chosen(part: BoxSplit, count: int, seed: int) -> list[int]:
    """Canonical places of the images that are shown: those with boxes, then others."""
    bare = np.asarray([len(found) == 0 for found in part.objects], bool)
    order = np.concatenate([np.roll(np.flatnonzero(~bare), -seed * count), np.flatnonzero(bare)])
    return order[:count].tolist()


class _Sheet:
    def __init__(self, data: DetectionData, per_part: int, columns: int, tile: int) -> None:
        self.classes, self.columns = data.classes, columns
        self.tile = (tile, 3 * tile // 4)
        self.font, bold = load_font(LETTERS), load_font(LETTERS + 5)
        self.line = round(1.45 * LETTERS)
        self.step = self.tile[1] + 2 * self.line + GAP  # a tile with its caption
        width = 2 * MARGIN + columns * (tile + GAP) - GAP
        room = width - 2 * MARGIN
        y = MARGIN + round(1.6 * (LETTERS + 5)) + self.line + MARGIN
        self.tops = []
        for part in (data.train, data.test):
            self.tops.append(y + self.line + MARGIN // 2)
            lines = -(-min(per_part, len(part)) // columns)
            y = self.tops[-1] + lines * self.step + MARGIN
        self.image = Image.new("RGB", (width, y), PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.pen.text((MARGIN, MARGIN), fitted(data.name, room, bold), INK, bold)
        facts = (
            f"{len(data.classes):,} classes, {len(data.train):,} training and "
            f"{len(data.test):,} test images; {LEGEND}"
        )
        y = MARGIN + round(1.6 * (LETTERS + 5))
        self.pen.text((MARGIN, y), fitted(facts, room, self.font), PALE, self.font)
        for part, top in zip((data.train, data.test), self.tops, strict=True):
            text = f"{part.name}: {min(per_part, len(part)):,} of {len(part):,} images"
            self.pen.text((MARGIN, top - self.line - MARGIN // 2), text, INK, self.font)

    def paste(
        self, content: bytes, values: Values, truth: Objects, where: str, slot: int, top: int
    ) -> None:
        """Draw one image file and its boxes into its tile, with a caption below."""
        line, column = divmod(slot, self.columns)
        wide, high = self.tile
        x, y = MARGIN + column * (wide + GAP), top + line * self.step
        box = (x, y, x + wide - 1, y + high - 1)
        self.pen.rectangle(box, EMPTY)
        if where.startswith("file "):  # a path: its end tells most
            where = fitted(where.removeprefix("file ")[::-1], wide - GAP, self.font)[::-1]
        for i, (text, colour) in enumerate(((self._told(truth), INK), (where, PALE))):
            at = (x, y + high + MARGIN // 4 + i * self.line)
            self.pen.text(at, fitted(text, wide, self.font), colour, self.font)
        try:
            image = decode(content, values)
        except Exception:  # decoders raise whatever a broken file makes them raise
            self.pen.line(box, CROSS, 2)
            self.pen.line((box[0], box[3], box[2], box[1]), CROSS, 2)
            return
        width = max(1, min(wide, high * image.width // image.height))
        drawn = draw(image, None, truth, self.classes, width=width)
        drawn.thumbnail(self.tile)  # of a strip, whose rounding may exceed the tile
        corner = (x + (wide - drawn.width) // 2, y + (high - drawn.height) // 2)
        self.image.paste(drawn, corner)

    def _told(self, truth: Objects) -> str:
        """How many boxes there are of which class: small ones are not named in the image."""
        if not len(truth):
            return "no boxes"
        kinds = (("difficult", truth.difficult), ("crowd", truth.crowd))
        which = ", ".join(f"{int(mask.sum()):,} {kind}" for kind, mask in kinds if mask.any())
        ignored = f" ({which})" if which else ""
        of = Counter(truth.labels.tolist()).most_common()
        classes = ", ".join(f"{n:,} {self.classes[label]}" for label, n in of)
        return f"{len(truth):,} {'box' if len(truth) == 1 else 'boxes'}{ignored}: {classes}"
