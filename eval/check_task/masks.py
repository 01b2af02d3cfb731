"""Look a segmentation task over: what its masks hold, and a sheet of them beside their images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.check_task.contact_sheet import (
    EMPTY,
    INK,
    MARGIN,
    PALE,
    PAPER,
    load_font,
    png_path,
    save_png,
)  # fmt: skip
from eval.check_task.wording import Page, cannot_be_read, found_text, origin
from eval.common.images import decode
from eval.common.text import counted, some
from eval.data.concerns import concerns
from eval.data.decoding import undecodable
from eval.data.inventory.facts import Inventory
from eval.data.inventory.unreadable import NAMED
from eval.data.masks.label_map import VOID
from eval.data.masks.mask_data import MaskSplit, SegmentationData

FEW_IMAGES = 50
SHOWN = 6  # images a part on the sheet
TILE = (240, 180)


@dataclass(frozen=True)
class ClassPixels:
    name: str
    train: float  # share of the labelled pixels
    test: float
    train_images: int  # that show it
    test_images: int


@dataclass(frozen=True)
class MaskCheck:
    task: str
    where: str
    revision: str
    split: str
    split_hash: str
    subset: bool
    inventory: Inventory
    kind: str
    train: int  # images
    test: int
    void: tuple[float, float]  # share of the pixels of train and of test
    groups: tuple[int, int]  # 0: nothing is grouped
    units: int  # of test, drawn again for intervals
    classes: tuple[ClassPixels, ...]
    duplicates: int
    unreadable: int
    named: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def check_masks(data: SegmentationData) -> MaskCheck:
    """Decodes every image and mask once, and keeps none."""
    parts = (data.train, data.test)
    pixels, images = zip(*(_count(part, len(data.classes)) for part in parts), strict=True)
    broken = [f"{where}: {why}" for where, why in undecodable(data)]
    shares = [p[:-1] / max(p[:-1].sum(), 1) for p in pixels]
    classes = tuple(
        ClassPixels(
            name, float(shares[0][c]), float(shares[1][c]), int(images[0][c]), int(images[1][c])
        )
        for c, name in enumerate(data.classes)
    )
    return MaskCheck(
        task=data.name, where=data.where, revision=data.revision, split=data.split,
        split_hash=data.split_hash, subset=data.subset, inventory=data.inventory, kind=data.kind,
        train=len(data.train), test=len(data.test),
        void=(float(pixels[0][-1] / pixels[0].sum()), float(pixels[1][-1] / pixels[1].sum())),
        groups=(_groups(data.train), _groups(data.test)),
        units=int(data.test.units().max()) + 1,
        classes=classes, duplicates=data.duplicates, unreadable=len(broken),
        named=tuple(broken[:NAMED]), notes=data.notes,
        warnings=(*cannot_be_read(len(broken)), *concerns(data), *_warnings(data, classes)),
    )  # fmt: skip


def as_json(found: MaskCheck) -> dict[str, Any]:
    """The check as plain values."""
    return dataclasses.asdict(found)


def _count(part: MaskSplit, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """([C + 1] pixels by class, void last; [C + 1] images that show each)."""
    pixels, images = np.zeros(classes + 1, np.int64), np.zeros(classes + 1, np.int64)
    for _, mask in part.label_maps(np.arange(len(part))):
        counts = np.bincount(
            np.where(mask == VOID, classes, mask).reshape(-1), minlength=classes + 1
        )
        pixels += counts
        images += counts > 0
    return pixels, images


def _groups(part: MaskSplit) -> int:
    return 0 if part.groups is None else len(np.unique(part.groups))


def _warnings(data: SegmentationData, classes: tuple[ClassPixels, ...]) -> Iterator[str]:
    if data.duplicates:
        yield (
            f"{data.duplicates:,} of {counted(len(data.test), 'test image')} also in train: the "
            "probe has learned their masks"
        )
    if len(data.test) < FEW_IMAGES:
        yield (
            f"{counted(len(data.test), 'test image')}: under {FEW_IMAGES} an interval is too wide "
            "to tell backbones apart"
        )
    if gone := [c.name for c in classes if not c.test_images]:
        yield f"{counted(len(gone), 'class', 'classes')} ({some(gone)}) without a pixel in test"


def render(found: MaskCheck, *, markdown: bool = False) -> str:
    """The check for a terminal, or as Markdown."""
    page = Page(markdown)
    head = (
        f"{found.task}: a label a pixel, {counted(len(found.classes), 'class', 'classes')}, "
        f"{found.train:,} training and {found.test:,} test images"
    )
    facts = [*origin(found), f"split hash: {found.split_hash}", *found.notes]
    facts.append(f"void: {found.void[0]:.1%} of train's pixels, {found.void[1]:.1%} of test's")
    if found.groups[1]:
        facts.append(
            f"groups: {found.groups[0]} in train, {found.groups[1]} in test; {found.units} "
            "stretches of test are drawn again for intervals"
        )
    out = [f"## {page.foreign(head)}\n" if markdown else page.foreign(head), *page.bullets(facts)]
    out += found_text(found.inventory, page)
    rows = [
        (c.name, f"{c.train:.1%}", f"{c.train_images:,}", f"{c.test:.1%}", f"{c.test_images:,}")
        for c in found.classes
    ]
    header = ("class", "train pixels", "in images", "test pixels", "in images")
    out += [page.title("Labelled pixels by class"), page.table(header, rows)]
    if found.named:
        out += [page.title("Images that cannot be read"), *page.bullets(found.named)]
    out += [page.title("Warnings"), *(page.bullets(found.warnings) or ["none"])]
    return "\n".join(out)


def palette(classes: int) -> np.ndarray:
    """[C + 1, 3] colours that differ, void last, black: VOC's, whose bits are those of the "
    "number."""
    found = np.zeros((classes + 1, 3), np.uint8)
    for number in range(classes):
        left = number + 1
        for shift in range(7, -1, -1):
            for channel in range(3):
                found[number, channel] |= ((left >> channel) & 1) << shift
            left >>= 3
    return found


def mask_sheet(data: SegmentationData, path: Path) -> Path:
    """Draw the first images of each part above their masks to ``path``, a PNG, and return it.
    Raises UserError where the file cannot be written."""
    from PIL import Image, ImageDraw

    png_path(path)
    wide, high = TILE
    colours = palette(len(data.classes))
    line = 18
    step = line + 2 * (high + 4) + MARGIN
    names = 2 * line + line * -(-len(data.classes) // SHOWN)
    height = 2 * MARGIN + names + 2 * step
    sheet = Image.new("RGB", (2 * MARGIN + SHOWN * (wide + 4), height), PAPER)
    pen, font = ImageDraw.Draw(sheet), load_font(13)
    pen.text((MARGIN, MARGIN), data.name, INK, font)
    for c, name in enumerate(data.classes):
        row, column = divmod(c, SHOWN)
        x, y = MARGIN + column * (wide + 4), MARGIN + line * (row + 1) + 4
        pen.rectangle((x, y, x + 12, y + 12), tuple(colours[c].tolist()), EMPTY)
        pen.text((x + 18, y - 2), name[:30], INK, font)
    for number, part in enumerate((data.train, data.test)):
        top = MARGIN + names + number * step
        pen.text((MARGIN, top), f"{part.name}: {len(part):,} images", PALE, font)
        shown = np.arange(min(SHOWN, len(part)))
        order = shown[np.argsort(part.rows[shown])]
        both = zip(order, part.source.images(part.rows[order]), part.label_maps(shown), strict=True)
        for i, (_, content), (_, mask) in both:
            x = MARGIN + int(i) * (wide + 4)
            picture = decode(content, part.values)
            painted = Image.fromarray(colours[np.where(mask == VOID, len(data.classes), mask)])
            for place, drawn in enumerate((picture, painted)):
                drawn.thumbnail(
                    TILE, Image.Resampling.NEAREST if place else Image.Resampling.LANCZOS
                )
                sheet.paste(drawn, (x, top + line + place * (high + 4)))
    save_png(sheet, path)
    return path
