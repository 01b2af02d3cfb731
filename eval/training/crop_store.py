"""Training images decoded once, each with the pixels that its smallest crop needs.

A crop that covers the share a of an image's area, with a width / height of r (in pixels), is
sqrt(a r W H) by sqrt(a H W / r) pixels. Where the smallest of all that may be drawn is P pixels
at its narrower side or more, no view of P pixels is enlarged beyond its crop of the original. So an
image is stored as it is, or shrunk, its shape kept, to the size at which its smallest crop has P
pixels: about 6.7 P^2 of them for the study's crops (a of 0.2, r of 3/4), 1.0 MB at 224 and 82 kB at
64. Images that are smaller keep their own size, whatever it is.

What is shrunk goes through Pillow's bicubic filter, which widens its support and keeps what the
filter of the crop will let through. The file of all pixels is memory-mapped, as
``eval.training.pixel_store`` has it, whose squares can be read in the same way: `squares`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.images import decode
from eval.data.sources import Source
from eval.data.values import values_of
from eval.training.pixel_store import (
    CHUNK_IMAGES,
    Pixels,
    check_room,
    decoding,
    in_parts,
    store_folder,
    synced,
    unreadable,
    whole_store,
)

VERSION = 1  # of the stored pixels: raise it when decoding or shrinking changes
SAMPLE = 256  # images whose size is looked at, for the bytes of all
_CHUNK_BYTES = 8 << 20  # of pixels in a thread's piece of work


@dataclass(frozen=True)
class Bound:
    """What crops need: views of ``px`` pixels, and the ``share`` of an image's area that has the
    square on the narrower side of the smallest crop: for the study's, 0.2 times 3/4."""

    px: int
    share: float

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which an image of that size is stored: never larger."""
        # In an image narrower than such a box the widest one that fits is drawn instead.
        side = min(math.sqrt(self.share * width * height), width, height)
        scale = min(1.0, self.px / side)
        return max(1, math.ceil(width * scale)), max(1, math.ceil(height * scale))

    @property
    def pixels(self) -> int:
        """Of a stored image whose sides are not too unlike, at most, but for rounding."""
        return math.ceil(self.px**2 / self.share)


@dataclass(frozen=True)
class CropStore:
    """Decoded images of any size, in the order of the rows that were asked for."""

    flat: NDArray[np.uint8]  # all pixels, RGB, row after row, image after image
    begin: NDArray[np.int64]  # [N] where an image begins in it
    height: NDArray[np.int64]  # [N], as stored
    width: NDArray[np.int64]  # [N]
    aspect: NDArray[np.float32]  # [N] width / height of the original

    def read(self, places: NDArray[np.int64], windows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[n, h, w, 3]: of each image the window [n, 4] (top, left, bottom, right), at the top left
        of the largest. The rest is whatever memory held."""
        high, wide = (windows[:, 2:] - windows[:, :2]).max(0)
        out = np.empty((len(places), high, wide, 3), np.uint8)
        shapes = zip(self.begin[places].tolist(), self.height[places].tolist(),
                     self.width[places].tolist(), windows.tolist(), strict=True)  # fmt: skip
        for slot, (begin, h, w, (top, left, bottom, right)) in zip(out, shapes, strict=True):
            image = self.flat[begin : begin + h * w * 3].reshape(h, w, 3)
            slot[: bottom - top, : right - left] = image[top:bottom, left:right]
        return out


def squares(stored: Pixels) -> CropStore:
    """The squares of ``open_pixels`` as such a store."""
    count, side = stored.pixels.shape[:2]
    sides = np.full(count, side, np.int64)
    begin = np.arange(count, dtype=np.int64) * (side * side * 3)
    return CropStore(stored.pixels.reshape(-1), begin, sides, sides, stored.aspect)


def open_crop_store(
    source: Source,
    name: str,
    rows: NDArray[np.int64],
    bound: Bound,
    cache: Path,
    progress: bool = True,
) -> CropStore:
    """The images of ascending ``rows``; decoded now where they are not in the cache. ``name`` is
    shown on the progress bar. Raises UserError."""
    folder = place(source, rows, bound, cache)

    def build(temp: Path) -> None:
        check_room(expected_bytes(source, rows, bound), len(rows), cache)
        _build(source, name, rows, bound, temp, progress)

    return whole_store(
        folder, cache, f"the decoded pixels of {len(rows):,} images",
        lambda folder: _open(folder, len(rows)), build,
    )  # fmt: skip


def place(source: Source, rows: NDArray[np.int64], bound: Bound, cache: Path) -> Path:
    """The folder of such a store, whether or not it is there. Raises UserError."""
    return store_folder(source, rows, ["crops", VERSION, bound.px, bound.share], cache)


def expected_bytes(source: Source, rows: NDArray[np.int64], bound: Bound) -> int:
    """Of the store, from the sizes of up to `SAMPLE` of the images, taken evenly.

    Raises UserError for an image that cannot be read.
    """
    if not len(rows):
        return 0
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))]
    total = 0
    for row, data in source.images(some):
        with (
            unreadable(source, row, data),
            Image.open(io.BytesIO(data)) as image,
        ):  # the header alone
            width, height = bound.size(*image.size)
        total += width * height * 3
    return math.ceil(total / len(some) * len(rows))


@dataclass(frozen=True)
class _Piece:
    """A few images of the store."""

    pixels: list[NDArray[np.uint8]]  # [h, w, 3] each
    aspect: list[float]


def _decode_chunk(source: Source, chunk: list[tuple[int, bytes]], bound: Bound) -> _Piece:
    piece = _Piece([], [])
    values = values_of(source)
    for row, data in chunk:
        with unreadable(source, row, data):
            image = decode(data, values)
            size = bound.size(*image.size)
            kept = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
            piece.pixels.append(np.asarray(kept))
        piece.aspect.append(image.width / image.height)
    return piece


def _build(
    source: Source, name: str, rows: NDArray[np.int64], bound: Bound, temp: Path, progress: bool
) -> None:
    most = max(1, min(CHUNK_IMAGES, _CHUNK_BYTES // (bound.pixels * 3)))
    pieces = in_parts(source, rows, lambda chunk: _decode_chunk(source, chunk, bound), most)
    sizes, aspect = [], []
    with decoding(name, len(rows), progress) as bar, synced(temp / "pixels.bin") as file:
        for piece in pieces:
            for pixels in piece.pixels:
                file.write(pixels.tobytes())
                sizes.append(pixels.shape[:2])
            aspect += piece.aspect
            bar.update(len(piece.pixels))
    with synced(temp / "images.npz") as file:
        np.savez(file, size=np.array(sizes, np.int64), aspect=np.array(aspect, np.float32))


def _open(folder: Path, count: int) -> CropStore | None:
    """The store, or None where it is missing or not what it should be."""
    try:
        with np.load(folder / "images.npz", allow_pickle=False) as saved:
            size, aspect = saved["size"], saved["aspect"]
        flat = np.memmap(folder / "pixels.bin", np.uint8, "r")
    except Exception:  # a damaged file makes numpy raise nearly anything; it is built again
        return None
    if size.shape != (count, 2) or len(aspect) != count:
        return None
    ends = (size.prod(1) * 3).cumsum()
    if ends[-1:].tolist() != [len(flat)]:
        return None
    begin = ends - size.prod(1) * 3
    # A plain view of the map, without np.memmap's own bookkeeping at each index.
    return CropStore(np.asarray(flat), begin, size[:, 0], size[:, 1], aspect)
