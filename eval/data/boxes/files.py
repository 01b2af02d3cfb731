"""Image files of the user's own with boxes that stand in other files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, Refused, one_line
from eval.common.files import read_plain
from eval.data.boxes.stored import BoxScan, Stored, look_at_all
from eval.data.inventory.facts import Tally
from eval.data.inventory.image_files import kind_of, unread
from eval.data.inventory.junk import JUNK, NO_IMAGES
from eval.data.inventory.walk import walk
from eval.data.sources import Scan


@dataclass(frozen=True)
class FileBoxes:
    """One part of a set. With ``shares`` a box is stored as centre x, centre y, width, height, each
    a share of the upright image's size (YOLO); the scan turns it into pixels."""

    files: tuple[Path, ...]  # [N]
    stored: Stored  # of N images
    classes: tuple[str, ...]
    shares: bool = False
    claimed: NDArray[np.int64] | None = None  # [N, 2] height, width as annotated; 0 unknown

    def fingerprint(self) -> list[Any]:
        stats = [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in self.files]
        stored = self.stored.digest()
        return ["files", stats, stored, self.stored.flagged, self.classes, self.shares]

    def describe(self, row: int) -> str:
        return f"file {self.files[row]}"

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for row in rows.tolist():
            try:
                yield row, read_plain(self.files[row])
            except OSError as error:
                why = one_line(error)
                raise BadInput(f"{self.describe(row)} cannot be read: {why}") from None

    def scan(self) -> Scan:
        return self.box_scan().plain()

    def annotations(self) -> Stored:
        return self.box_scan().stored if self.shares else self.stored

    def box_scan(self) -> BoxScan:
        rows = np.arange(len(self.files))
        found = look_at_all(self.images(rows), self.describe)
        sizes = np.asarray([one.size for one in found], np.int64).reshape(-1, 2)
        stored = in_pixels(self.stored, sizes) if self.shares else self.stored
        return BoxScan.of(stored, found, self.classes)


def in_pixels(stored: Stored, sizes: NDArray[np.int64]) -> Stored:
    """Shares of an image's size as pixels. ``sizes`` [N, 2] height, width."""
    scale = sizes[stored.image_of][:, ::-1].astype(np.float64)  # [K, 2] width, height
    shares = stored.xywh.astype(np.float64)
    extent = shares[:, 2:] * scale
    corner = shares[:, :2] * scale - extent / 2
    boxes = np.concatenate([corner, extent], axis=1).astype(np.float32)
    return replace(stored, xywh=boxes, area=boxes[:, 2] * boxes[:, 3])


def images_below(folder: Path, tally: Tally) -> list[Path]:
    """The image files of a folder and of those below it, sorted; what else lies there is counted as
    left out. Empty where there is no such folder."""
    found = []
    for entry in walk(folder) if folder.is_dir() else ():
        if entry.is_folder:
            continue
        path = folder / entry.path
        kind = "other" if entry.is_junk else kind_of(path)
        if kind == "image":
            found.append(path)
        elif entry.is_junk:
            tally.leave(JUNK, entry.path, expected=True)
        elif kind == "foreign":
            tally.leave(unread(path.suffix.lower()), entry.path)
        else:
            tally.leave(NO_IMAGES, entry.path, expected=True)
    return sorted(found)


def count_listed(found: Sequence[Path], listed: Collection[Path], tally: Tally, by: str) -> None:
    """Count images as taken that are listed, and others that were found as left out."""
    tally.take(len(listed))
    for path in found:
        if path not in listed:
            tally.leave(f"images that {by} does not list", path.name, expected=True)


def safe_name(name: Any, where: str) -> str:
    """A path that stays in its folder, with '/'. Raises UserError for an absolute one, for '..'
    and for what is not a file name."""
    if not isinstance(name, str) or not name.strip("/\\. ") or not name.isprintable():
        raise BadInput(f"{where} names an image {str(name)[:80]!r}, which is not a file name")
    plain = name.replace("\\", "/")
    if (
        PurePosixPath(plain).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in PurePosixPath(plain).parts
    ):
        raise Refused(
            f"{where} names an image {name[:80]!r}, which leaves its folder; use a path below it"
        )
    return plain


def refuse_missing(gone: Sequence[Path | str], total: int, subject: str) -> None:
    """Raise UserError where image files are missing."""
    if gone:
        raise NotFound(
            f"{subject}: {len(gone):,} of {total:,} images are missing, the first is "
            f"{str(gone[0])[:300]!r}"
        )


# What an XML file may say that it is written in, beside UTF-8; each tells its bytes without doubt.
_CODECS = ("iso-8859-1", "iso-8859-15", "latin-1", "latin1", "windows-1252", "cp1252", "us-ascii")
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.-]+)["']""")


def read_text(path: Path, subject: str) -> str:
    """A text file's content: UTF-8, or, of XML, one of some encodings that it declares. Raises
    UserError."""
    try:
        raw = read_plain(path)
    except OSError as error:
        raise BadInput(f"{subject}: {str(path)!r} cannot be read: {error.strerror}") from None
    said = _DECLARED.match(raw)
    codec = said[1].decode().lower() if said else ""
    try:
        content = raw.decode(codec if codec in _CODECS else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{subject}: {str(path)!r} is not UTF-8 text: {one_line(error)}") from None
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in content:  # UTF-16; the XML parser would take it for that
        raise BadInput(f"{subject}: {str(path)!r} is not UTF-8 text: it holds a NUL")
    return content
