"""A visitor's files -> small RGB pictures, with every cost bounded before it is paid.

Nothing here trusts a name, a suffix or a header: bytes are counted before they are read, pixels
before they are decoded, and only a regular file inside the folder of uploads is opened. What a
sentence says of a file is its base name, never where it lies on this server.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from eval.common.errors import BadInput, UserError
from eval.common.images import to_rgb

MAX_BYTES = 10 * 10**6  # of one file
MAX_PIXELS = 50 * 10**6  # of one picture, as its header claims
MAX_SIDE = 512  # longer side of what is kept: no backbone here looks at more
MAX_NAME = 80
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# Decoding takes two bytes a pixel (16-bit PNG) to fifteen (WebP), 0.75 GB at MAX_PIXELS: visitors
# must not add that up. Small pictures go two at a time, large ones one at a time.
_DECODERS = threading.BoundedSemaphore(2)
_LARGE = threading.Lock()
_LARGE_PIXELS = 8 * 10**6

_JOINERS = "\u200c\u200d"  # format characters that words and emoji are spelled with
_TILE_TAGS = (322, 323)  # TIFF: TileWidth, TileLength


@dataclass(frozen=True)
class Picture:
    """One decoded upload: ``image`` is RGB, at most ``MAX_SIDE`` a side; ``name`` is only shown."""

    image: Image.Image
    name: str

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of size and pixels: the same for copies under other names."""
        digest = hashlib.sha256(repr(self.image.size).encode())
        digest.update(self.image.tobytes())
        return digest.hexdigest()


def clean_text(text: str, most: int) -> str:
    """The text without control, bidirectional and unassigned characters, on one line, at most
    ``most`` characters. May be empty."""
    text = re.sub(r"\s", " ", text[: 50 * most])
    kept = "".join(c for c in text if c in _JOINERS or not unicodedata.category(c).startswith("C"))
    kept = re.sub(" +", " ", unicodedata.normalize("NFC", kept)).strip()[:most].strip()
    return kept if kept.strip(_JOINERS) else ""


def shown_name(path: str | Path) -> str:
    """The base name of a path of any system, fit for a sentence."""
    base = re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]
    return clean_text(base, MAX_NAME) or "picture"


def read_pictures(
    paths: Sequence[str | Path], *, subject: str, most: int, allowed_root: Path | None = None
) -> list[Picture]:
    """Decode the files, in order; ``subject`` names the group in the sentence about their number.

    Each must be a regular file, and lie inside ``allowed_root`` (if given) once all links are
    followed. Of several frames the first is taken; EXIF orientation is applied; a picture of at
    most ``MAX_SIDE`` pixels a side is exactly what ``eval.common.images.decode`` makes of it.

    Raises UserError in one sentence, for more than ``most`` files or for the first file that is
    missing, elsewhere, too large in bytes or pixels, of another format, or damaged.
    """
    if len(paths) > most:
        raise BadInput(f"{subject}: {len(paths)} pictures were given, at most {most} are taken")
    return [_read(path, allowed_root) for path in paths]


def _read(path: str | Path, allowed_root: Path | None) -> Picture:
    name = shown_name(path)
    data = _bytes_of(path, name, allowed_root)
    try:
        return Picture(_decoded(data, name), name)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise BadInput(
            f"{name!r} is not a picture that can be read; use JPEG, PNG, WebP, BMP, GIF or TIFF"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(_too_many_pixels(name)) from None
    except Exception:  # decoders raise whatever a broken file makes them raise
        raise BadInput(f"{name!r} is damaged or cut off and cannot be decoded") from None


def _bytes_of(path: str | Path, name: str, allowed_root: Path | None) -> bytes:
    """The file's content, at most ``MAX_BYTES``. Raises UserError."""
    try:
        real = Path(path).resolve(strict=True)
        if allowed_root is not None and not real.is_relative_to(allowed_root.resolve()):
            raise BadInput(f"{name!r} is not among the uploaded files")
        # Not to follow a link put there since, and not to wait at a pipe.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(real, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadInput(f"{name!r} is a folder or a device, not a file")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte in the path
        if isinstance(error, IsADirectoryError):
            raise BadInput(f"{name!r} is a folder, not a file") from None
        raise BadInput(f"{name!r} cannot be opened; upload it again") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"{name!r} is larger than {MAX_BYTES / 1e6:g} MB; use a smaller file")
    return data


def _decoded(data: bytes, name: str) -> Image.Image:
    """RGB, at most ``MAX_SIDE`` a side. Raises what Pillow raises, and UserError on its size."""
    # Opening reads the header alone. No frame but the first is ever sought.
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        tile = [getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE_TAGS]
        if max(image.width * image.height, int(tile[0]) * int(tile[1])) > MAX_PIXELS:
            raise BadInput(_too_many_pixels(name))
        with _turn(image.width * image.height):
            return _small(image)


@contextlib.contextmanager
def _turn(pixels: int) -> Iterator[None]:
    with _LARGE if pixels > _LARGE_PIXELS else contextlib.nullcontext(), _DECODERS:
        yield


def _small(image: Image.Image) -> Image.Image:
    large = max(image.size) > MAX_SIDE
    if large:
        image.draft(None, (MAX_SIDE, MAX_SIDE))  # a JPEG then decodes at 1/2, 1/4 or 1/8
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    if large:
        if image.mode.startswith(("I", "F")):  # to_rgb makes eight bytes of each of their pixels
            image = image.resize(_fitting(image.size), Image.Resampling.BOX)
        elif image.mode in ("1", "P", "PA"):
            image = to_rgb(image)  # indices cannot be averaged
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
    rgb = to_rgb(image)
    if orientation != 1:
        rgb.getexif()[0x0112] = orientation
        rgb = ImageOps.exif_transpose(rgb)
    plain = Image.new("RGB", rgb.size)  # without the file's metadata, which may be large
    plain.paste(rgb)
    return plain


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """The size with the longer side ``MAX_SIDE``."""
    scale = MAX_SIDE / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _too_many_pixels(name: str) -> str:
    return f"{name!r} has more than {MAX_PIXELS // 10**6} million pixels; use a smaller picture"
