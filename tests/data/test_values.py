"""Grey values of more than 8 bits: which are black and white, by rule and by the user."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.common.images import PLAIN, Values, decode, is_deep
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.data.values import by_rule, values_of
from tests.factories import refusal


def tiff(pixels: np.ndarray, kind: str = "TIFF", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def drawn(label: int, number: int) -> np.ndarray:
    """[8, 8] float in 0..1, brighter for label 1; 0 and 1 occur."""
    pixels = np.random.RandomState(100 * label + number).uniform(0, 0.4, (8, 8)) + 0.5 * label
    pixels[0, 0], pixels[0, 1] = 0, 1
    return pixels


def folder(root: Path, convert: Any, test: Any = None) -> str:
    """train/ and test/ of eight images each, as ``convert`` writes values of 0..1."""
    for part, first, write in (("train", 0, convert), ("test", 50, test or convert)):
        for label in range(2):
            place = root / part / "ab"[label]
            place.mkdir(parents=True, exist_ok=True)
            for i in range(4):
                (place / f"{i}.tif").write_bytes(write(drawn(label, first + i)))
    return f"imagefolder:{root}"


def scaled(low: float, high: float, kind: Any) -> Any:
    def write(values: np.ndarray) -> bytes:
        grey = low + (high - low) * values
        return tiff(np.rint(grey).astype(kind) if kind != np.float32 else grey.astype(kind))

    return write


def seen(task: TaskData) -> np.ndarray:
    """[N, 8, 8] grey of all images as a model sees them, in canonical order."""
    found = []
    for part in (task.train, task.test):
        order = np.argsort(part.rows)
        images = dict(part.source.images(part.rows[order]))
        found += [np.asarray(decode(images[r], part.values))[:, :, 0] for r in part.rows.tolist()]
    return np.stack(found)


@pytest.mark.parametrize(
    ("low", "high", "kind", "read"),
    [
        (0, 1, np.float32, (0, 1)),
        (-1, 1, np.float32, (-1, 1)),
        (0, 255, np.float32, (0, 255)),
        (0, 65535, np.float32, (0, 65535)),
        (0, 255, np.uint16, (0, 255)),
        (0, 1023, np.uint16, (0, 1023)),
        (0, 4095, np.uint16, (0, 4095)),
        (0, 4000, np.uint16, (0, 4095)),
        (0, 16383, np.uint16, (0, 16383)),
        (0, 65535, np.uint16, (0, 65535)),
        (0, 4095, np.int32, (0, 4095)),
    ],
)
def test_every_usual_range_is_visible(
    low: float, high: float, kind: Any, read: tuple[float, float], tmp_path: Path, cache: Path
) -> None:
    text = folder(tmp_path / "x", scaled(low, high, kind))
    for _ in range(2):  # measured, then from the memo
        task = load_task(text, cache)
        values = task.train.values
        assert read in (values.integers, values.floats)
        assert task.test.values == values
        (said,) = task.inventory.said
        assert said.startswith(f"16 images with more than 8 bits: values {low:g} to {high:g} of")
        assert f"are read as {read[0]:g} for black and {read[1]:g} for white" in said
        grey = seen(task)
        assert grey.min() == 0
        assert grey.max() == pytest.approx(255 * (high - read[0]) / (read[1] - read[0]), abs=0.5)
        dark, bright = (grey[:8][task.train.labels == label].mean() for label in range(2))
        assert bright - dark > 100


def test_the_default_range_keeps_the_split_hash(tmp_path: Path, cache: Path) -> None:
    """A set whose pixels are read as before has the name that it had; another has another."""
    full = load_task(folder(tmp_path / "full", scaled(0, 65535, np.uint16)), cache)
    assert full.train.values == PLAIN
    text = folder(tmp_path / "few", scaled(0, 4095, np.uint16))
    by_itself, as_before = load_task(text, cache), load_task(f"{text}?range=0,65535", cache)
    assert as_before.train.values == PLAIN
    assert by_itself.split_hash != as_before.split_hash
    assert by_itself.name != as_before.name
    assert seen(as_before).max() == 16  # 4095 / 257
    same = load_task(f"{text}?range=0,4095", cache)
    assert same.split_hash == by_itself.split_hash
    assert np.array_equal(seen(same), seen(by_itself))


def test_a_range_of_the_users_own(tmp_path: Path, cache: Path) -> None:
    text = folder(tmp_path / "x", scaled(-1000, 3000, np.int32))
    said = refusal(load_task, text, cache)
    assert "run from -1000 to 3000 in train; say which are black and white with ?range=" in said
    task = load_task(f"{text}?range=-1000,3000", cache)
    assert task.train.values == Values(integers=(-1000, 3000))
    assert task.inventory.warnings() == ()
    assert np.ptp(seen(task)) == 255
    again = load_task(task.where, cache)
    assert (again.where, again.split_hash) == (task.where, task.split_hash)
    narrow = load_task(f"{text}?range=0,1000", cache)  # what lies beyond is cut
    assert {0, 255} <= set(seen(narrow).reshape(-1).tolist())


@pytest.mark.parametrize("value", ["1", "a,b", "5,1", "0,0", "0,inf", "0,1,2", "nan,1"])
def test_ranges_refused(value: str, tmp_path: Path, cache: Path) -> None:
    text = folder(tmp_path / "x", scaled(0, 4095, np.uint16))
    said = refusal(load_task, f"{text}?range={value}", cache)
    assert f"range={value} is not LOW,HIGH, such as 0,4095" in said


def test_a_range_without_effect_is_refused(tmp_path: Path, cache: Path) -> None:
    text = folder(tmp_path / "x", scaled(0, 255, np.uint8))
    assert load_task(text, cache).inventory.said == ()
    said = refusal(load_task, f"{text}?range=0,1", cache)
    assert "range= has no effect, no image has more than 8 bits" in said


def test_train_alone_says_the_range(tmp_path: Path, cache: Path) -> None:
    """Test chooses nothing: what is brighter there than in train is white."""
    text = folder(tmp_path / "x", scaled(0, 1023, np.uint16), test=scaled(0, 3000, np.uint16))
    task = load_task(text, cache)
    assert task.train.values.integers == (0, 1023)
    assert seen(task).max() == 255


def test_values_that_are_no_numbers_are_black(tmp_path: Path, cache: Path) -> None:
    def write(values: np.ndarray) -> bytes:
        values = values.astype(np.float32)
        values[7, 7] = np.nan
        return tiff(values)

    task = load_task(folder(tmp_path / "x", write), cache)
    assert task.train.values.floats == (0, 1)
    assert (seen(task)[:, 7, 7] == 0).all()


def test_rule_is_the_smallest_usual_range_that_holds_all() -> None:
    assert by_rule({"I": (0, 256)}, "it").integers == (0, 1023)
    assert by_rule({"F": (0, 1.5)}, "it").floats == (0, 255)
    assert by_rule({}, "it") == PLAIN
    for kind, low, high in (("I", -1, 5), ("I", 0, 65536), ("F", -2, 1), ("F", 0, 1e6)):
        assert f"run from {low:g} to {high:g}" in refusal(by_rule, {kind: (low, high)}, "it")


GREY = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "kind", "deep"),
    [
        (GREY.astype(np.uint16), "PNG", True), (GREY.astype(np.uint16), "TIFF", True),
        (GREY.astype(np.float32), "TIFF", True), (GREY.astype(np.int32), "TIFF", True),
        (GREY.astype(np.uint16), "PPM", True), (GREY, "PNG", False), (GREY, "TIFF", False),
        *((np.stack([GREY] * 3, 2), kind, False)
          for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")),
    ],
)  # fmt: skip
def test_deep_images_are_those_that_pillow_opens_as_such(
    pixels: np.ndarray, kind: str, deep: bool
) -> None:
    data = tiff(pixels, kind)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode.startswith(("I", "F")) == deep
    assert is_deep(data) == deep


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"\x89PNG\r\n\x1a\n", b"II*\0" + b"\0" * 30])
def test_what_is_no_image_is_not_deep(data: bytes) -> None:
    assert not is_deep(data)


def test_parts_keep_how_they_are_read(tmp_path: Path, cache: Path) -> None:
    """Under --limit too, and where one folder is split here."""
    text = folder(tmp_path / "x", scaled(0, 1, np.float32))
    cut = load_task(text, cache, limit=4)
    assert (len(cut.train), cut.train.values.floats) == (4, (0, 1))
    whole = load_task(f"imagefolder:{tmp_path / 'x' / 'train'}", cache)
    assert values_of(whole.test.source).floats == (0, 1)
