"""Is an image file whole? Told without decoding its pixels where the format allows it."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from eval.common.errors import one_line

MOST_PIXELS = 178_956_970  # Pillow's own bound, of 512 MiB of pixels: loaders refuse more
_END = b"\xff\xd9"  # of a JPEG; within compressed pixels it cannot stand
_TAIL = 1024  # cameras and editors leave some bytes behind the end
# Those that data sets use: others may start programs (EPS) or are none a loader reads.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def flaw(data: bytes, *, decode: bool) -> str:
    """'' for a whole image file, else what is wrong with it. Raises nothing.

    With ``decode`` every pixel is decoded. Without, only where the format has no other way to
    tell: a JPEG ends with a marker and a PNG carries checksums, the others are decoded.
    """
    if not data:
        return "the file is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of sizes checked here
            return _flaw(data, decode)
    except Exception as error:  # a decoder fed with arbitrary bytes raises anything
        return one_line(error)


def _flaw(data: bytes, decode: bool) -> str:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        if data.lstrip()[:1] == b"<":
            return "it is a web page or XML, no image"
        return f"it is not an image of a known format ({', '.join(_FORMATS)})"
    width, height = image.size
    if width <= 0 or height <= 0:
        return f"its size is {width} x {height} pixels"
    if width * height > MOST_PIXELS:
        return f"it has {width} x {height} pixels, more than {MOST_PIXELS:,}"
    if not decode and _says_whole(image, data):
        return ""
    image.load()
    return ""


def _says_whole(image: Image.Image, data: bytes) -> bool:
    """Whether the file itself shows that nothing is missing. Raises for a broken PNG."""
    if image.format in ("JPEG", "MPO"):
        # Not there: cut off, or with a long tail of something else. Decoding tells.
        return _END in data[-_TAIL:]
    if image.format == "PNG":
        image.verify()
        return True
    return False
