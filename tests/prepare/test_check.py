"""Whole images pass, cut ones do not, and nothing makes the check raise."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.prepare.check import flaw

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]


def encoded(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    pixels = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_whole_and_cut(kind: str, decode: bool) -> None:
    data = encoded(kind)
    assert flaw(data, decode=decode) == ""
    for keep in (0, 1, 10, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        assert flaw(data[:keep], decode=decode), keep


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 2000])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100}])
def test_a_jpeg_without_its_end(cut: int, options: dict[str, object]) -> None:
    data = encoded("JPEG", (64, 64), **options)
    assert len(data) > 2500
    assert "truncated" in flaw(data[:-cut], decode=False)
    assert "truncated" in flaw(data[:-cut], decode=True)


@pytest.mark.parametrize("tail", [1, 500, 5000])
def test_bytes_behind_the_end_of_a_jpeg_are_no_flaw(tail: int) -> None:
    assert flaw(encoded("JPEG") + bytes(tail), decode=False) == ""
    assert flaw(encoded("JPEG") + bytes(tail), decode=True) == ""


def test_a_thumbnail_does_not_end_a_cut_jpeg() -> None:
    exif = Image.Exif()
    exif[0x927C] = encoded("JPEG", (8, 8))  # with an end marker of its own
    data = encoded("JPEG", (64, 64), exif=exif)
    assert data.count(b"\xff\xd9") == 2
    assert flaw(data, decode=False) == ""
    assert flaw(data[:-2], decode=False)


def test_a_changed_byte_in_a_png() -> None:
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 1
    assert flaw(bytes(data), decode=False)
    assert flaw(bytes(data), decode=True)


def test_modes_and_sizes() -> None:
    for mode in ("1", "L", "P", "RGBA", "I;16", "LA"):
        buffer = io.BytesIO()
        Image.new(mode, (1, 1)).save(buffer, "PNG")
        assert flaw(buffer.getvalue(), decode=True) == flaw(buffer.getvalue(), decode=False) == ""
    buffer = io.BytesIO()
    Image.new("CMYK", (9, 9)).save(buffer, "JPEG")
    assert flaw(buffer.getvalue(), decode=True) == ""


@pytest.mark.parametrize("decode", [False, True])
def test_a_pixel_bomb(decode: bool) -> None:
    assert "pixels" in flaw(b"P5 20000 20000 255\n", decode=decode)
    size = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    head = (
        struct.pack(">I", len(size))
        + b"IHDR"
        + size
        + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    )
    png = b"\x89PNG\r\n\x1a\n" + head + encoded("PNG")[33:]
    assert "pixels" in flaw(png, decode=decode)


def test_what_is_no_image() -> None:
    assert flaw(b"", decode=False) == "the file is empty"
    assert "web page" in flaw(b"<html>429</html>", decode=False)
    assert "not an image of a known format" in flaw(b"name,label\n", decode=False)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    # it would run a program
    assert "not an image of a known format" in flaw(postscript, decode=True)


SEEDS = [encoded(kind, (9, 7)) for kind in FORMATS]


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=200) | st.sampled_from(SEEDS),
    st.integers(0, 400),
    st.binary(max_size=12),
    st.booleans(),
)
def test_arbitrary_bytes_raise_nothing(data: bytes, at: int, junk: bytes, decode: bool) -> None:
    assert isinstance(flaw(data[:at] + junk + data[at + len(junk) :], decode=decode), str)
