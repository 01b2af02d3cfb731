"""Image bytes -> RGB, in one documented way.

EXIF orientation is applied first. Then, by mode:

========= ====================================================================
1, L      the grey value in all three channels
P         the palette's colours
RGBA, LA  alpha is dropped, as ``Image.convert("RGB")`` and the study's loader do
CMYK      Pillow's conversion (YCbCr, LAB, HSV alike)
I;16, I   16-bit grey scaled to 8 bits: value / 257, rounded and clipped to 0..255
F         values taken as 0..255, rounded and clipped
========= ====================================================================

16-bit images are scaled because Pillow's own conversion clips them, which turns most to white.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from eval.common.errors import one_line

try:
    import pillow_heif
except ImportError:  # HEIC is read where it is installed, and named where it is not
    pass
else:
    pillow_heif.register_heif_opener()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as mode RGB, by the table above."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        if image.mode.startswith("I"):
            values = values / 257.0
        grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns that the transparency is lost
    return image if image.mode == "RGB" else image.convert("RGB")


def decode(data: bytes) -> Image.Image:
    """Decode one image file. Raises OSError, ValueError or SyntaxError when it cannot be read."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


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
