"""Uploads: what is read, and that hostile files cost nothing and tell nothing."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.common.errors import UserError
from eval.common.images import decode
from space.demo import uploads
from space.demo.uploads import MAX_NAME, MAX_SIDE, clean_text, read_pictures, shown_name
from tests.factories import png, refusal

RANDOM = np.random.RandomState(0)


def read_one(path: Path, root: Path | None = None) -> uploads.Picture:
    (picture,) = read_pictures([path], subject="queries", most=1, allowed_root=root)
    return picture


def sentence_of(path: Path) -> str:
    """The sentence of a refusal; empty where there is a picture."""
    try:
        assert max(read_one(path).image.size) <= MAX_SIDE
    except UserError as error:
        return str(error)
    return ""


def refused(path: Path | str, root: Path | None = None) -> str:
    """The sentence; it names no folder and took not much memory."""
    tracemalloc.start()
    try:
        text = refusal(lambda: read_pictures([path], subject="queries", most=1, allowed_root=root))
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    folder = str(Path(str(path).replace("\0", "")).parent)
    assert folder == "." or folder not in text
    assert "/" not in text.replace(", ", "")
    return text


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, extra: bytes = b"", rows: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + end


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("suffix", [".jpg", ".txt", ""])
def test_every_format_by_content_whatever_its_suffix(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 15:] = (250, 10, 20)
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(pixels).save(path, kind)
    picture = read_one(path, tmp_path)
    assert picture.name == path.name
    assert picture.image.mode == "RGB"
    assert picture.image.size == (30, 20)
    found = np.asarray(picture.image).astype(int)
    assert np.abs(found[:, [2, 27]] - pixels[:, [2, 27]]).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK", "F"])
def test_small_pictures_are_decoded_as_the_study_does(mode: str, tmp_path: Path) -> None:
    grey = RANDOM.randint(0, 256, (40, 30)).astype(np.uint8)
    image = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    path = tmp_path / "a.tiff"
    image.save(path)
    ours = read_one(path).image
    assert np.array_equal(np.asarray(ours), np.asarray(decode(path.read_bytes())))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16", "CMYK", "F"])
def test_large_pictures_shrink_and_look_the_same(mode: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1600)[None].repeat(900, 0).astype(np.uint8)
    image = (
        Image.fromarray(ramp.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(ramp).convert(mode)
    )
    path = tmp_path / "a.tiff"
    image.save(path)
    small = read_one(path).image
    assert small.size == (MAX_SIDE, 288)
    # In coarse blocks: mode 1 is dithered.
    full, coarse = (
        np.asarray(i.resize((32, 18), Image.Resampling.BOX)).astype(int)
        for i in (decode(path.read_bytes()), small)
    )
    assert np.abs(full - coarse).mean() < 4


def test_a_large_jpeg_is_drafted_and_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((1200, 2000, 3), np.uint8)
    pixels[:, :1000] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, exif=exif)
    image = read_one(path).image
    assert image.size == (307, 512)
    assert image.getpixel((150, 50))[0] > 240  # type: ignore[index]
    assert image.getpixel((150, 450))[0] < 15  # type: ignore[index]
    assert not image.info
    assert not image.getexif()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_sides_stay_in_bounds_and_keep_their_ratio(width: int, height: int) -> None:
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, "PNG", compress_level=1)
    size = uploads._decoded(out.getvalue(), "x").size
    assert max(size) <= MAX_SIDE
    if max(width, height) <= MAX_SIDE:
        assert size == (width, height)
    else:
        scale = MAX_SIDE / max(width, height)
        assert abs(size[0] - width * scale) <= 1
        assert abs(size[1] - height * scale) <= 1


def test_the_first_of_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not even looked for."""
    frames = [Image.new("RGB", (300, 300), (i % 256, 255 - i % 256, 0)) for i in range(400)]
    for kind in ("GIF", "TIFF", "WEBP"):
        path = tmp_path / f"many.{kind.lower()}"
        some = frames if kind == "GIF" else frames[:30]
        some[0].save(path, kind, save_all=True, append_images=some[1:])
        with Image.open(path) as image, monkeypatch.context() as patch:
            assert image.n_frames > 1
            patch.setattr(type(image), "seek", lambda *_: pytest.fail("looked on"))
            assert read_one(path).image.getpixel((5, 5)) == pytest.approx((0, 255, 0), abs=6)


# --------------------------------------------------------------------------- hostile files


def test_bombs_are_refused_from_their_headers(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    for width, height in (
        (50_000, 50_000),
        (10_000, 9_000),
        (7_100, 7_100),
        (2**31 - 1, 2**31 - 1),
    ):
        bomb.write_bytes(png_claiming(width, height))
        assert refused(bomb).startswith("'bomb.png' has more than 50 million pixels") or (
            width > 10**9
        )
    gif = tmp_path / "bomb.gif"
    side = struct.pack("<HH", 65000, 65000)
    gif.write_bytes(b"GIF89a" + side + bytes(3) + b"," + bytes(4) + side + b"\0\2\2\x4c\1\0;")
    assert "50 million pixels" in refused(gif)
    bmp = tmp_path / "bomb.bmp"
    info = struct.pack("<IiiHHIIiiII", 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp.write_bytes(struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + info)
    assert "50 million pixels" in refused(bmp)
    # A small picture of one huge tile: the decoder would make room for the tile.
    tiff = tmp_path / "tile.tiff"
    tags = ((256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1),
            (322, 60000), (323, 60000), (324, 8), (325, 8))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    tiff.write_bytes(b"II*\0" + struct.pack("<IIIH", 16, 0, 0, len(tags)) + entries + b"\0" * 4)
    assert "50 million pixels" in refused(tiff)


def test_text_that_inflates_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(b"a" * (64 << 20), 9)
    for kind, head in ((b"zTXt", b"Comment\0\0"), (b"iCCP", b"profile\0\0")):
        path = tmp_path / "text.png"
        path.write_bytes(png_claiming(4, 4, chunk(kind, head + bomb), b"\0" * 13 * 4))
        tracemalloc.start()
        assert sentence_of(path) in ("", "'text.png' is damaged or cut off and cannot be decoded")
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_a_file_of_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse: costs no disk, and must cost no memory
    assert "larger than 10 MB" in refused(path)
    path.write_bytes(png(np.zeros((9, 9), np.uint8)))
    size = path.stat().st_size
    monkeypatch.setattr(uploads, "MAX_BYTES", size)
    read_one(path)
    monkeypatch.setattr(uploads, "MAX_BYTES", size - 1)
    assert "larger than" in refused(path)


def test_what_is_no_picture(tmp_path: Path) -> None:
    zipped = tmp_path / "zip.png"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"0" * (8 << 20))
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "drawing.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    ico = tmp_path / "icon.png"
    Image.new("RGB", (16, 16)).save(ico, "ICO")
    for name in ("zip", "text", "empty", "drawing", "page", "icon"):
        assert refused(tmp_path / f"{name}.png").startswith(
            f"'{name}.png' is not a picture that can be read"
        )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_cut_off_files(kind: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(RANDOM.randint(0, 256, (200, 200, 3)).astype(np.uint8)).save(out, kind)
    path = tmp_path / "cut"
    path.write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    assert "'cut' is" in refused(path)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]), st.data())
def test_any_bytes_give_a_picture_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    out = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(out, kind)
    raw = bytearray(out.getvalue())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)
    ):
        raw[place] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.bin"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    text = sentence_of(path)
    assert not text or text.startswith("'fuzz.bin' ")


# --------------------------------------------------------------------------- paths and names


def test_paths_outside_the_uploads(tmp_path: Path) -> None:
    root = tmp_path / "uploads"
    root.mkdir()
    outside = tmp_path / "private.png"
    outside.write_bytes(png(np.zeros((5, 5), np.uint8)))
    (root / "link.png").symlink_to(outside)
    (tmp_path / "uploads-of-others").mkdir()
    near = tmp_path / "uploads-of-others" / "x.png"
    near.write_bytes(outside.read_bytes())
    for path in ("/etc/passwd", outside, root / ".." / "private.png", root / "link.png", near):
        assert "not among the uploaded files" in refused(path, root)
    inside = root / "a.png"
    inside.write_bytes(outside.read_bytes())
    (root / "second.png").symlink_to(inside)
    assert read_one(root / "second.png", root).name == "second.png"
    (tmp_path / "door").symlink_to(root)
    read_one(inside, tmp_path / "door")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert "cannot be opened" in refused(tmp_path / "missing.png", tmp_path)
    assert "cannot be opened" in refused(f"{tmp_path}/a\0b.png", tmp_path)
    assert "cannot be opened" in refused(f"{tmp_path}/{'a' * 5000}.png", tmp_path)
    (tmp_path / "folder").mkdir()
    assert "'folder' is a folder" in refused(tmp_path / "folder", tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it in the plain way would wait for ever
    assert "not a file" in refused(tmp_path / "pipe", tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be opened" in refused(tmp_path / "loop", tmp_path)


def test_how_many(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((5, 5), np.uint8)))
    assert read_pictures([], subject="class 'cat'", most=2) == []
    assert len(read_pictures([path] * 2, subject="class 'cat'", most=2)) == 2
    text = refusal(lambda: read_pictures([path] * 3, subject="class 'cat'", most=2))
    assert text == "class 'cat': 3 pictures were given, at most 2 are taken"


def test_names() -> None:
    assert shown_name("/srv/up/cat.png") == "cat.png"
    assert shown_name("C:\\up\\cat.png") == "cat.png"
    assert shown_name("/srv/up/") == "up"
    assert shown_name("\x1b[31m\u202egnp.exe\n") == "[31mgnp.exe"
    assert shown_name("") == shown_name("/") == shown_name("\u200d") == "picture"
    assert len(shown_name("a" * 500)) == MAX_NAME
    assert clean_text("a \x1b\n b\u2029c", 9) == "a b c"


@settings(max_examples=300)
@given(st.text(), st.integers(1, 40))
def test_clean_text(text: str, most: int) -> None:
    clean = clean_text(text, most)
    assert len(clean) <= most
    clean.encode()  # no lone surrogate
    assert clean == clean_text(clean, most)
    assert "\n" not in clean
    assert clean == clean.strip()


def test_digest_tells_pixels_and_shape(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "b.bmp"
    Image.new("RGB", (4, 6), "red").save(a)
    Image.new("RGB", (4, 6), "red").save(b)
    assert read_one(a).digest == read_one(b).digest
    Image.new("RGB", (6, 4), "red").save(b)
    assert read_one(a).digest != read_one(b).digest
