"""Which files are images: those of a format that Pillow, as it is installed here, can decode."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Literal

# Registered with Pillow, but no pixels come of them: stubs, films, metadata; and EPS, which is a
# program that Pillow would hand to Ghostscript.
_NO_PIXELS = {"EPS", "MPEG", "WMF", "HDF5", "GRIB", "BUFR", "IPTC"}
# Pictures that a plain Pillow does not read; a file of one that is not registered is named.
_FOREIGN = {
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".jxl", ".webp", ".svg", ".dcm", ".nii",
    ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2",
}  # fmt: skip
# Formats by which a file without a suffix is recognised: each begins with bytes of its own.
_SNIFFED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "HEIF")
HEIC = (".heic", ".heif")

Kind = Literal["image", "foreign", "other"]


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the images that can be read here, in lower case, with their dots."""
    from PIL import Image

    import eval.common.images  # registers what is installed beside Pillow  # noqa: F401

    known = Image.registered_extensions()
    return frozenset(
        suffix
        for suffix, kind in known.items()
        if kind not in _NO_PIXELS and (kind in Image.OPEN or kind == "MPO")
    )


def has_image_suffix(name: str) -> bool:
    return Path(name).suffix.lower() in image_suffixes()


def kind_of(path: Path) -> Kind:
    """What a file is: by its suffix, and by its first bytes where it has none."""
    suffix = path.suffix.lower()
    if suffix in image_suffixes():
        return "image"
    if suffix in _FOREIGN:
        return "foreign"
    if suffix:
        return "other"
    return "image" if _begins_like_an_image(path) else "other"


def unread(suffix: str) -> str:
    """Why images of a format are left out, to complete 'left out: ..'."""
    if suffix in HEIC:
        return f"{suffix} images, which need `pip install pillow-heif`"
    return f"{suffix} images, which cannot be read here; convert them to PNG or JPEG"


def _begins_like_an_image(path: Path) -> bool:
    from PIL import Image

    Image.init()
    formats = [name for name in _SNIFFED if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=formats):
                return True
    except Exception:  # decoders raise whatever a foreign file makes them raise
        return False
