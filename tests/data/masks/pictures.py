"""Made-up segmentation sets: bright squares of a class's brightness on a dark ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.factories import png

SIZE = (24, 32)  # rows, columns


def scene(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """([H, W, 3] picture, [H, W] its classes: 0 the ground, others rectangles, 255 a frame)."""
    random = np.random.RandomState(seed)
    mask = np.zeros(SIZE, np.uint8)
    for label in range(1, classes):
        top, left = random.randint(0, 12), random.randint(0, 16)
        mask[top : top + 10, left : left + 12] = label
    tone = np.array([30, 120, 210, 80, 160])[mask][..., None]
    picture = np.clip(tone + random.normal(0, 12, (*SIZE, 3)), 0, 255).astype(np.uint8)
    mask[0] = 255
    return picture, mask


def write_parquet(
    folder: Path, train: int = 12, test: int = 8, group: int = 0, classes: int = 3
) -> Path:
    """train and test files with image and mask; with ``group`` images of one drive follow each
    other, so many a drive."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count, first in (("train", train, 0), ("test", test, 1000)):
        both = [scene(first + i, classes) for i in range(count)]
        columns = {
            name: [
                {"bytes": png(pair[place]), "path": f"{i:03d}.png"} for i, pair in enumerate(both)
            ]
            for place, name in enumerate(("image", "mask"))
        }
        if group:
            columns["sequence"] = [f"{part}{i // group}" for i in range(count)]  # type: ignore[misc]
        pq.write_table(pa.table(columns), folder / f"{part}-00000.parquet")
    return folder


def write_folders(root: Path, parts: tuple[str, ...] = ("train", "test"), count: int = 6) -> Path:
    """images/PART and masks/PART; without parts images and masks alone."""
    for number, part in enumerate(parts or ("",)):
        for i in range(count):
            picture, mask = scene(100 * number + i)
            for what, pixels in (("images", picture), ("masks", mask)):
                file = root / what / part / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(pixels))
    return root


def write_voc(root: Path, train: int = 5, val: int = 4) -> Path:
    """As VOC 2012 lies: palette PNGs, lists of ImageSets/Segmentation."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    colours = np.random.RandomState(0).randint(0, 255, 768).tolist()
    for part, first, count in (("train", 0, train), ("val", 50, val)):
        for i in range(first, first + count):
            picture, mask = scene(i)
            Image.fromarray(picture).save(root / "JPEGImages" / f"{i:04d}.jpg")
            palette = Image.fromarray(mask).convert("P")
            palette.putdata(mask.reshape(-1).tolist())
            palette.putpalette(colours)
            palette.save(root / "SegmentationClass" / f"{i:04d}.png")
        numbers = "\n".join(f"{i:04d}" for i in range(first, first + count))
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text(numbers + "\n")
    return root
