"""An official download with a label a pixel -> Parquet files with image and mask.

Masks hold class numbers and 255 for void afterwards, whatever the authors store; the names of the
classes stand in the files, so that ``parquet:OUT/NAME`` needs no option. Each mask is looked at
while it is written: a folder that is there is one that a run can use.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.errors import BadInput, one_line
from eval.common.files import atomic_file
from eval.common.text import counted, some
from eval.data.masks.label_map import VOID, raw_map
from eval.data.own_masks import CLASSES, MASK, SEQUENCE
from eval.prepare.archives import Download
from eval.prepare.layouts.masks import MASK_LAYOUTS, UNKNOWN, MaskItem, MaskListing

GROUP_BYTES = 64 << 20  # of a row group


@dataclass(frozen=True)
class PreparedMasks:
    """A folder that every run can use."""

    folder: Path
    classes: tuple[str, ...]
    images: dict[str, int]  # by part
    pixels: dict[str, NDArray[np.int64]]  # [C + 1] by part: of each class, and void
    groups: dict[str, int]  # by part; 0 where nothing is grouped

    def notes(self) -> list[str]:
        """What a reader of a score should know."""
        lacking = {
            part: [name for name, n in zip(self.classes, pixels, strict=False) if not n]
            for part, pixels in self.pixels.items()
        }
        return [f"classes without a pixel in {part}: {some(names)}"
                for part, names in lacking.items() if names]  # fmt: skip


def prepare_masks(name: str, source: Path, out: Path) -> PreparedMasks:
    """Write OUT/NAME/train.parquet and test.parquet from the official download under ``source``.

    Raises UserError for a download that lacks images or masks, for a mask of another size than its
    image, of colours, or with values that no class has, for a part that is void everywhere or of
    one class alone, and where OUT/NAME is there.
    """
    folder = out / name
    if folder.exists():
        raise BadInput(f"{folder} is there already; remove it to prepare it again")
    download = Download.open(source)
    listing = MASK_LAYOUTS[name](download)
    pixels, images, groups = {}, {}, {}
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {one_line(error)}") from None
    try:
        with ExitStack() as both:  # both files or none
            for part in ("train", "test"):
                ours = [item for item in listing.items if item.part == part]
                file = both.enter_context(atomic_file(folder / f"{part}.parquet"))
                pixels[part] = _write(download, ours, listing, file, f"prepare {name}, {part}")
                _check(pixels[part], listing.classes, part, source)
                images[part] = len(ours)
                groups[part] = len({item.group for item in ours if item.group})
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # nothing stands there under its name
        raise
    return PreparedMasks(folder, listing.classes, images, pixels, groups)


def _write(
    download: Download, items: Sequence[MaskItem], listing: MaskListing, file: Any, title: str
) -> NDArray[np.int64]:
    """[C + 1] pixels of each class, and void, of a part, which is written in the list's order."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm import tqdm

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": picture, MASK: picture}
    columns |= {SEQUENCE: pa.string()} if any(item.group for item in items) else {}
    meta = {CLASSES: json.dumps(listing.classes)}
    schema = pa.schema(list(columns.items()), metadata=meta)
    total = np.zeros(len(listing.classes) + 1, np.int64)
    rows: list[dict[str, Any]] = []
    held = 0
    with pq.ParquetWriter(file, schema, use_dictionary=False, write_statistics=False) as writer:
        for item in tqdm(items, title, unit="img", leave=False, disable=None):
            image, mask, counts = _read(download, item, listing)
            total += counts
            row = {"image": {"bytes": image, "path": item.name},
                   MASK: {"bytes": mask, "path": item.mask.name}, SEQUENCE: item.group}  # fmt: skip
            rows.append({column: row[column] for column in columns})
            held += len(image) + len(mask)
            if held >= GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows, held = [], 0
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return total


def _read(
    download: Download, item: MaskItem, listing: MaskListing
) -> tuple[bytes, bytes, NDArray[np.int64]]:
    """(image file, mask file of class numbers, [C + 1] pixels of each class, and void)."""
    image, stored = download.read(item.image), download.read(item.mask)
    where = repr(download.where(item.mask))
    try:
        with Image.open(io.BytesIO(image)) as opened:
            size = opened.size
    except Exception as error:  # a parser fed with arbitrary bytes raises anything
        raise BadInput(
            f"{download.where(item.image)!r} is no image that can be read: {one_line(error)}"
        ) from None
    values = raw_map(stored, where)
    if values.shape != size[::-1]:
        raise BadInput(
            f"{where} has {values.shape[1]} x {values.shape[0]} pixels where its image has "
            f"{size[0]} x {size[1]}; take the official files"
        )
    seen = np.unique(values)
    beyond = [v for v in seen.tolist() if not 0 <= v < 256 or listing.table[v] == UNKNOWN]
    if beyond:
        raise BadInput(
            f"{where} has the value {beyond[0]}, which no class has; take the official masks, not "
            "those of another form"
        )
    labels = listing.table[values].astype(np.uint8)
    counts = np.bincount(labels.reshape(-1), minlength=256)
    found = np.append(counts[: len(listing.classes)], counts[VOID])
    if (listing.table[seen] == seen).all():
        return image, stored, found  # the authors' file, byte for byte
    out = io.BytesIO()
    Image.fromarray(labels).save(out, "PNG")
    return image, out.getvalue(), found


def _check(pixels: NDArray[np.int64], classes: Sequence[str], part: str, source: Path) -> None:
    there = [name for name, count in zip(classes, pixels, strict=False) if count]
    if len(there) < 2:
        what = f"of class {there[0]!r} or void" if there else "void"
        raise BadInput(
            f"{source}: all pixels of {part} are {what}; at least two classes are needed, so these "
            "are not the official masks"
        )


def report(done: PreparedMasks) -> Iterator[str]:
    """What the command prints, line by line."""
    for part, count in done.images.items():
        void = 100 * done.pixels[part][-1] / done.pixels[part].sum()
        groups = f", {counted(done.groups[part], 'group')}" if done.groups[part] else ""
        yield f"{part}: {counted(count, 'image')}{groups}; {void:.1f} % of the pixels are void"
    yield f"{len(done.classes):,} classes: {', '.join(done.classes)}"
    yield from (f"note: {note}" for note in done.notes())
