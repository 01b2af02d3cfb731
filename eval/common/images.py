"""Image bytes -> RGB, in one documented way.

EXIF orientation is applied first. Then, by mode:

========= ====================================================================
1, L      the grey value in all three channels
P         the palette's colours
RGBA, LA  alpha is dropped, as ``Image.convert("RGB")`` and the study's loader do
CMYK      Pillow's conversion (YCbCr, LAB, HSV alike)
I;16, I   ``Values.integers`` become 0..255, rounded and clipped; by default 0..65535
F         ``Values.floats`` become 0..255, rounded and clipped; by default 0..255
========= ====================================================================

Images of more than 8 bits are scaled because Pillow's own conversion clips them, which turns most
to white. Which values are black and white a file does not say; ``eval.data.values`` finds out for
a whole data set.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from eval.common.errors import one_line

try:
    import pillow_heif
except ImportError:  # HEIC is read where it is installed, and named where it is not
    pass
else:
    pillow_heif.register_heif_opener()


Range = tuple[float, float]  # black, white


@dataclass(frozen=True)
class Values:
    """What is black and what is white in grey images of more than 8 bits."""

    integers: Range = (0.0, 65535.0)
    floats: Range = (0.0, 255.0)


PLAIN = Values()


def is_deep(data: bytes) -> bool:
    """Whether an image file holds grey values of more than 8 bits, by its header. False for what
    cannot be read."""
    if data.startswith((b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")):
        return False  # JPEG, GIF, BMP, WebP: the usual ones are not opened
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[24:26] == b"\x10\x00"  # 16 bits, grey
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            with Image.open(io.BytesIO(data)) as image:
                return image.mode.startswith(("I", "F"))
    except Exception:  # a parser fed with arbitrary bytes raises anything
        return False


def grey_values(data: bytes) -> tuple[str, NDArray[np.float64]]:
    """('I' or 'F', [H, W] grey values) of an image for which ``is_deep`` holds. Raises OSError,
    ValueError or SyntaxError when it cannot be read."""
    with Image.open(io.BytesIO(data)) as image:
        return image.mode[0], np.asarray(image).astype(np.float64)


def to_rgb(image: Image.Image, values: Values = PLAIN) -> Image.Image:
    """Any Pillow image as mode RGB, by the table above. What is not a number is black."""
    if image.mode.startswith(("I", "F")):
        black, white = values.integers if image.mode.startswith("I") else values.floats
        grey = (np.asarray(image).astype(np.float64) - black) / ((white - black) / 255.0)
        grey = np.clip(np.rint(np.nan_to_num(grey, nan=0.0)), 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns that the transparency is lost
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(data: bytes, values: Values = PLAIN) -> Image.Image:
    """Decode one image file. Raises OSError, ValueError or SyntaxError when it cannot be read."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image, values)


def why_unreadable(data: bytes, error: Exception) -> str:
    """Why bytes are no image, to complete 'it cannot be read: ..'. Pillow's own words name an
    address in memory."""
    start = data[:200].lstrip().lower()
    if not data:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the files with `git lfs pull`"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if isinstance(error, UnidentifiedImageError):
        return "it is in no image format that Pillow knows"
    return one_line(error, 120)
