"""Images kept as large as their crops need: no larger, no smaller, and whole or absent."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from PIL import Image

from eval.data.sources import ParquetSource, Source
from eval.training import crop_store, pixel_store
from eval.training.augment import Augmentation, draw_crops
from eval.training.crop_store import Bound, CropStore, expected_bytes, open_crop_store
from tests.factories import png, refusal, write_parquet

# width and height: as they are, shrunk (the last because it is so wide), one pixel
SIZES = [(30, 20), (8, 9), (200, 150), (90, 300), (1, 1), (600, 40), (25, 25)]
BOUND = Bound(px=16, share=0.2 * 3 / 4)


def picture(width: int, height: int) -> bytes:
    random = np.random.RandomState(width)
    return png(random.randint(0, 256, (height, width, 3), np.uint8))


PICTURES = [picture(*size) for size in SIZES]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return made(tmp_path / "data", PICTURES)


def made(folder: Path, images: list[bytes]) -> Source:
    write_parquet(folder / "train.parquet", images, [0] * len(images), ["a"])
    return ParquetSource((folder / "train.parquet",), "image", "label")


def opened(source: Source, cache: Path, count: int = len(SIZES)) -> CropStore:
    return open_crop_store(source, "some", np.arange(count), BOUND, cache, progress=False)


def whole(store: CropStore, place: int) -> np.ndarray:
    window = np.array([[0, 0, store.height[place], store.width[place]]])
    return store.read(np.array([place]), window)[0]


def check(store: CropStore, images: list[bytes] = PICTURES) -> None:
    assert not store.flat.flags.writeable
    for place, data in enumerate(images):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert store.aspect[place] == np.float32(image.width / image.height)
        size = BOUND.size(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(whole(store, place), np.asarray(image))


def test_small_images_are_kept_as_they_are_and_large_ones_shrunk(
    source: Source, cache: Path
) -> None:
    store = opened(source, cache)
    check(store)
    kept = [(w, h) == size for w, h, size in zip(store.width, store.height, SIZES, strict=True)]
    assert kept == [True, True, False, False, True, False, True]
    assert len(store.flat) == sum(w * h * 3 for w, h in (BOUND.size(*s) for s in SIZES))


def test_windows_are_read(source: Source, cache: Path) -> None:
    store = opened(source, cache)
    windows = np.array([[2, 3, 9, 7], [0, 1, 20, 30]])
    found = store.read(np.array([6, 0]), windows)
    assert found.shape == (2, 20, 29, 3)
    np.testing.assert_array_equal(found[0, :7, :4], whole(store, 6)[2:9, 3:7])
    np.testing.assert_array_equal(found[1], whole(store, 0)[:, 1:])


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    px=st.integers(8, 300),
    least=st.floats(0.01, 1),
)
def test_no_view_is_enlarged_beyond_its_crop_of_the_original(
    width: int, height: int, px: int, least: float
) -> None:
    settings = Augmentation(px, (0, 0, 0), (1, 1, 1), scale=(least, 1.0))
    bound = Bound(px, least * 3 / 4)
    wide, high = bound.size(width, height)
    assert wide <= width
    assert high <= height
    crops = draw_crops(
        500, torch.full((500,), width / height), settings, torch.Generator().manual_seed(0)
    )
    for share, side, original in ((crops.width, wide, width), (crops.height, high, height)):
        smallest = float(share.abs().min())
        assert smallest * side >= min(px, smallest * original) * (1 - 1e-5)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 20_000),
    ratio=st.floats(0.2, 5),
    px=st.integers(8, 300),
    least=st.floats(0.01, 1),
)
def test_an_image_takes_no_more_than_the_bound(
    width: int, ratio: float, px: int, least: float
) -> None:
    """However large; more than 1 / share times as wide as high, or high as wide, it takes more."""
    bound = Bound(px, least * 3 / 4)
    height = max(1, round(width * ratio))
    if not bound.share <= height / width <= 1 / bound.share:
        return
    wide, high = bound.size(width, height)
    assert (wide - 1) * (high - 1) <= bound.pixels
    if (wide, high) != (width, height):  # and not much less
        assert wide * high >= bound.pixels - 1


def test_the_studys_crops_at_224() -> None:
    bound = Bound(224, 0.2 * 3 / 4)
    assert bound.pixels * 3 == 1_003_521  # 27 GB of 27,000 images, however large
    assert bound.size(4000, 3000) == (668, 501)
    assert bound.size(256, 256) == (256, 256)


def test_the_bytes_are_known_before_a_pixel_is_decoded(
    source: Source, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(len(SIZES))
    expected = expected_bytes(source, rows, BOUND)
    assert expected == len(opened(source, cache).flat)
    assert expected_bytes(source, rows[:0], BOUND) == 0
    monkeypatch.setattr(crop_store, "SAMPLE", 3)  # rows 0, 3 and 6
    some = [w * h * 3 for w, h in (BOUND.size(*SIZES[row]) for row in (0, 3, 6))]
    assert expected_bytes(source, rows, BOUND) == math.ceil(sum(some) / 3 * 7)


def test_the_second_call_decodes_nothing(
    source: Source, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(opened(source, cache))

    def broken(*_: object) -> Image.Image:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(crop_store, "decode", broken)
    check(opened(source, cache))
    refused = refusal(lambda: opened(source, cache, 3))  # other rows are another store
    assert "was decoded again" in refused


def test_an_interrupted_build_is_not_trusted(
    source: Source, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def dies(data: bytes, _: object) -> Image.Image:
        seen.append(data)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return Image.open(io.BytesIO(data)).convert("RGB")

    with monkeypatch.context() as patch:
        patch.setattr(crop_store, "decode", dies)
        patch.setattr(crop_store, "CHUNK_IMAGES", 1)
        with pytest.raises(KeyboardInterrupt):
            opened(source, cache)
    assert list((cache / "pixels").iterdir()) == []
    check(opened(source, cache))


@pytest.mark.parametrize("name", ["pixels.bin", "images.npz"])
def test_a_damaged_store_is_built_again(name: str, source: Source, cache: Path) -> None:
    opened(source, cache)
    (store,) = (cache / "pixels").iterdir()
    for damage in (lambda f: os.truncate(f, f.stat().st_size - 50), lambda f: f.unlink()):
        damage(store / name)
        check(opened(source, cache))


def test_a_full_disk(source: Source, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = expected_bytes(source, np.arange(len(SIZES)), BOUND)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(pixel_store.shutil, "disk_usage", lambda _: usage)
    text = refusal(lambda: opened(source, cache))
    assert f"{needed:,} bytes are needed for the decoded pixels of 7 images but only 1,000" in text
    assert "set TRANSFERZOO_CACHE" in text
    assert list((cache / "pixels").iterdir()) == []


def test_an_image_that_cannot_be_read(tmp_path: Path, cache: Path) -> None:
    source = made(tmp_path / "broken", [PICTURES[0], PICTURES[1][:60]])
    assert "row 1" in refusal(lambda: opened(source, cache, 2))
    source = made(tmp_path / "no header", [PICTURES[0], PICTURES[1][:20]])
    assert "row 1" in refusal(lambda: expected_bytes(source, np.arange(2), BOUND))
