"""Every image mode becomes RGB as the module's table says, with the values computed by hand."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eval.common.images import decode, to_rgb

Pixels = NDArray[np.uint8]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rgb(data: bytes) -> Pixels:
    """[H, W, 3] of a decoded file, with no warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: Any) -> Pixels:
    """[H, W] as the same value in three channels."""
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [200, 100, 50]]], np.uint8)


def paletted() -> Image.Image:
    """2 x 2 in mode P whose decoded colours are COLOURS."""
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "L").convert("P")
    image.putdata([0, 1, 2, 3])
    image.putpalette(COLOURS.reshape(-1).tolist())
    return image


def test_rgb_stays_as_it_is() -> None:
    image = Image.fromarray(COLOURS)
    assert to_rgb(image) is image
    assert np.array_equal(rgb(encoded(image)), COLOURS)


def test_bilevel_is_black_and_white() -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    data = encoded(Image.fromarray(bits))
    assert Image.open(io.BytesIO(data)).mode == "1"
    assert np.array_equal(rgb(data), grey(bits * 255))


def test_grey_is_repeated() -> None:
    values = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
    assert np.array_equal(rgb(encoded(Image.fromarray(values))), grey(values))


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_gives_its_colours_whatever_is_transparent(transparency: int | bytes) -> None:
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    data = encoded(paletted(), **options)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == "P"
    assert ("transparency" in opened.info) == bool(options)
    assert np.array_equal(rgb(data), COLOURS)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_alpha_is_dropped_and_not_blended(alpha: int) -> None:
    coat = np.full((2, 2, 1), alpha, np.uint8)
    assert np.array_equal(
        rgb(encoded(Image.fromarray(np.concatenate([COLOURS, coat], 2)))), COLOURS
    )
    values = np.array([[[7], [90]], [[180], [255]]], np.uint8)
    data = encoded(Image.fromarray(np.concatenate([values, coat], 2), "LA"))
    assert Image.open(io.BytesIO(data)).mode == "LA"
    assert np.array_equal(rgb(data), grey(values[:, :, 0]))


def test_cmyk_inks_darken() -> None:
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 55)]
    image = Image.new("CMYK", (5, 1))
    image.putdata(inks)
    expected = [[[255] * 3, [0, 255, 255], [255, 0, 0], [0] * 3, [200] * 3]]
    assert np.array_equal(rgb(encoded(image, "TIFF")), np.array(expected, np.uint8))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_are_pillows(mode: str) -> None:
    if mode == "LAB":  # Pillow makes LAB only through a colour profile
        image = Image.fromarray(np.full((2, 2, 3), 128, np.uint8), "LAB")
    else:
        image = Image.fromarray(COLOURS).convert(mode)
    out = to_rgb(image)
    assert out.mode == "RGB"
    if mode != "LAB":
        assert np.abs(np.asarray(out).astype(int) - COLOURS.astype(int)).max() <= 4


SIXTEEN = [  # 16-bit grey, 8-bit grey
    (0, 0),
    (128, 0),  # 0.498
    (129, 1),  # 0.502
    (257, 1),
    (257 * 77, 77),
    (257 * 200, 200),  # 200.8 were it divided by 256
    (32768, 128),  # 127.502
    (65534, 255),
    (65535, 255),
]


@pytest.mark.parametrize(("form", "kind"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_sixteen_bits_are_scaled_to_eight(form: str, kind: str) -> None:
    values = np.array([[v for v, _ in SIXTEEN]], kind)
    mode = "I;16" if kind == "<u2" else "I;16B"
    image = Image.frombytes(mode, (len(SIXTEEN), 1), values.tobytes())
    data = encoded(image, form)
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    assert np.array_equal(rgb(data), grey([[v for _, v in SIXTEEN]]))


def test_wide_integers_are_scaled_like_sixteen_bits_and_clipped() -> None:
    values = np.array([[-5, 0, 257 * 9, 65535, 70_000, 2**31 - 1]], np.int32)
    image = Image.fromarray(values)
    assert image.mode == "I"
    expected = grey([[0, 0, 9, 255, 255, 255]])
    assert np.array_equal(np.asarray(to_rgb(image)), expected)
    assert np.array_equal(rgb(encoded(image, "TIFF")), expected)


def test_floats_are_rounded_and_clipped() -> None:
    image = Image.fromarray(np.array([[-3.0, 0.4, 0.6, 99.9, 254.6, 1e9]], np.float32))
    assert image.mode == "F"
    expected = grey([[0, 0, 1, 100, 255, 255]])
    assert np.array_equal(np.asarray(to_rgb(image)), expected)
    assert np.array_equal(rgb(encoded(image, "TIFF")), expected)


UPRIGHT = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
STORED = {  # EXIF orientation -> how the upright picture lies in the file
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation])), exif=exif)
    assert np.array_equal(rgb(data), UPRIGHT)


def test_an_unknown_orientation_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(rgb(encoded(Image.fromarray(UPRIGHT), exif=exif)), UPRIGHT)


def test_orientation_is_applied_to_grey_jpeg_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = np.zeros((16, 8), np.uint8)
    tall[:8] = 200  # bright above; turned clockwise, bright on the right
    out = rgb(encoded(Image.fromarray(tall), "JPEG", exif=exif))
    assert out.shape == (8, 16, 3)
    assert out[:, 12].mean() > 150 > 50 > out[:, 3].mean()


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (size, size, 3), np.uint8))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_raises(form: str) -> None:
    data = encoded(noise(), form)
    decode(data)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_bytes_that_are_no_image_raise(data: bytes) -> None:
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(data)
