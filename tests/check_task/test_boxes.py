"""Detection tasks looked over: what is counted and warned of, in words, as JSON and as a sheet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.check_task.box_sheet import box_sheet
from eval.check_task.boxes import BoxCheck, as_json, check_boxes, render
from eval.data.boxes.box_data import DetectionData
from eval.data.load import load_task
from tests.detection.drawn import (
    Box,
    Parts,
    Picture,
    picture,
    some,
    write_boxes,
    write_coco,
    write_objects,
    write_voc,
    write_yolo,
)
from tests.factories import Cli, refusal


def load(text: str, cache: Path) -> DetectionData:
    found = load_task(text, cache)
    assert isinstance(found, DetectionData)
    return found


def checked(root: Path, parts: Parts) -> BoxCheck:
    return check_boxes(load(f"coco:{write_coco(root / 'set', parts)}", root / "cache"))


def warned(found: BoxCheck, words: str) -> str:
    """The one warning with these words."""
    (warning,) = [w for w in found.warnings if words in w]
    return warning


def large(name: str, boxes: list[tuple[int, Box]], side: int = 240) -> Picture:
    return picture(name, boxes, side, side)


# --------------------------------------------------------------------------- facts


def test_boxes_images_and_classes_are_counted(tmp_path: Path) -> None:
    found = checked(tmp_path, some())
    train, test = found.train, found.test
    assert (train.images, train.empty, train.annotated, train.boxes) == (3, 1, 3, 3)
    assert (test.images, test.empty, test.annotated, test.boxes) == (2, 0, 3, 3)
    assert train.width is not None
    assert (train.width.least, train.width.median, train.width.most) == (32, 32, 40)
    assert (train.per_image.least, train.per_image.median, train.per_image.most) == (0, 1, 2)
    numbers = {c.name: (c.train, c.test, c.train_images, c.test_images) for c in found.classes}
    assert numbers == {"ant": (1, 1, 1, 1), "bee": (1, 1, 1, 1), "cow": (1, 1, 1, 1)}
    assert (found.kind, found.duplicates) == ("detection", 0)
    assert "under 50 an interval" in warned(found, "2 test images")


def test_the_ranges_of_coco_and_the_short_schedule(tmp_path: Path) -> None:
    """Images of 480 px are halved: 14 px are 7 there."""
    boxes: list[tuple[int, Box]] = [
        (0, (0, 0, 14, 14)), (0, (0, 0, 31, 32)), (0, (0, 0, 32, 32)), (0, (0, 0, 95, 96)),
        (0, (0, 0, 96, 96)),
    ]  # fmt: skip
    found = checked(tmp_path, {"train": [large("a", boxes, 480)], "test": [large("b", boxes)]})
    for part in (found.train, found.test):
        assert (part.small, part.medium, part.large, part.side) == (2, 2, 1, 32)
    assert (found.train.side_shown, found.test.side_shown) == (16, 32)
    assert (found.train.tiny, found.test.tiny) == (1, 0)
    assert not any("tiny" in w for w in found.warnings)


def test_a_long_side_limits_what_is_shown(tmp_path: Path) -> None:
    long = picture("a", [(0, (0, 0, 40, 10))], 800, 240)  # shown at 400 x 120
    found = checked(tmp_path, {"train": [long], "test": [long]})
    assert found.train.side_shown == pytest.approx(10)


def test_tiny_boxes_are_warned_of(tmp_path: Path) -> None:
    parts = {n: [large(n, [(0, (5, 5, 12, 12))])] for n in ("train", "test")}
    warning = warned(checked(tmp_path, parts), "tiny")
    assert "short:600" in warning
    assert "7.0 px in train and 7.0 px in test" in warning


def test_classes_that_cannot_be_answered(tmp_path: Path) -> None:
    box = (0.0, 0.0, 100.0, 100.0)
    many: list[tuple[int, Box]] = [(0, (i, 0.0, i + 50.0, 90.0)) for i in range(60)]
    parts = {"train": [large("a", [*many, (1, box)])], "test": [large("b", [(0, box), (2, box)])]}
    found = checked(tmp_path, parts)
    assert "('cow')" in warned(found, "without a box in train, though asked for in test")
    assert "('bee')" in warned(found, "without a box in test")
    assert "'ant' has 60 boxes in train, 'bee' 1" in warned(found, "imbalance")


def test_copies_and_boxes_that_stand_twice(tmp_path: Path) -> None:
    box = (0.0, 0.0, 100.0, 100.0)
    twin = large("same", [(0, box)])
    other = Picture("other.png", twin.data, twin.size, ((1, box),))
    test = [twin, large("b", [(2, box), (2, box), (1, box)])]
    found = checked(tmp_path, {"train": [twin, other, large("a", [(2, box)])], "test": test})
    assert {c.kind: (c.groups, c.images) for c in found.copies} == {
        "within train": (1, 2), "within test": (0, 0), "across train and test": (1, 3),
        "with different boxes": (1, 3),
    }  # fmt: skip
    assert (found.duplicates, found.train.twice, found.test.twice) == (1, 0, 1)
    assert "1 of 2 test images also in train" in warned(found, "also in train")
    assert "3 images" in warned(found, "different boxes")
    assert "1 box of test" in warned(found, "annotated twice")
    across = next(c for c in found.copies if c.kind == "across train and test")
    assert {place.rsplit(" ", 1)[1] for place in across.shown[0]} == {"(train)", "(test)"}


def test_difficult_and_crowd_boxes_count_where_the_metric_counts_them(tmp_path: Path) -> None:
    places = [[0, 0, 20, 20], [30, 0, 20, 20], [60, 0, 20, 20]]
    objects = {
        "bbox": places, "category": [0, 1, 2], "difficult": [0, 1, 0], "iscrowd": [0, 0, 1],
    }  # fmt: skip
    for part in ("train", "test"):
        path = tmp_path / f"set/{part}-00000-of-00001.parquet"
        write_objects(path, [large(part, []).data], [objects])
    found = check_boxes(load(f"parquet:{tmp_path / 'set'}?objects=objects", tmp_path / "cache"))
    assert (found.train.difficult, found.train.crowd, found.train.boxes) == (1, 1, 2)
    assert (found.test.difficult, found.test.crowd, found.test.boxes) == (1, 1, 1)
    assert [(c.train, c.test) for c in found.classes] == [(1, 1), (1, 0), (0, 0)]
    assert "crowd (left out)" in render(found)


def test_many_images_without_boxes_and_more_boxes_than_a_detector_says(tmp_path: Path) -> None:
    many: list[tuple[int, Box]] = [(0, (i, 0.0, i + 50.0, 90.0)) for i in range(101)]
    train = [large("a", many[:20]), large("b", []), large("c", [])]
    found = checked(tmp_path, {"train": train, "test": [large("d", many)]})
    assert "2 of 3 images of train" in warned(found, "are annotations missing?")
    assert "101 boxes" in warned(found, "at most 100")


# --------------------------------------------------------------------------- words


def test_notes_of_boxes_left_out_are_told(tmp_path: Path) -> None:
    parts = some()
    parts["train"].append(large("z", [(0, (200, 200, 400, 230)), (1, (300, 300, 310, 310))]))
    found = checked(tmp_path, parts)
    for text in (render(found), render(found, markdown=True)):
        assert "1 clipped to the image" in text
        assert "1 outside the image" in text


def test_foreign_names_move_no_cursor_and_make_no_markdown(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", some(), names="txt")
    (root / "classes.txt").write_text("a|b\n\x1b[31m\n<b>\n")
    found = check_boxes(load(f"yolo:{root}", tmp_path / "cache"))
    assert "\x1b" not in render(found)
    text = render(found, markdown=True)
    assert "<b>" not in text
    assert "a|b" not in text


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "file"])
def test_the_command(form: str, tmp_path: Path, cache: Path, cli: Cli) -> None:
    makers: dict[str, Callable[[Path, Parts], Path]] = {
        "coco": write_coco, "voc": write_voc, "yolo": write_yolo, "file": write_boxes
    }  # fmt: skip
    root = makers[form](tmp_path / "set", some())
    task = f"{form}:{root}"
    if form == "file":
        task = str(tmp_path / "t.toml")
        Path(task).write_text('name = "set"\nsource = "parquet:set?objects=objects"\n')
    sheet = tmp_path / "s.png"
    ran = cli("check-task", task, "--sheet", sheet, "--cache", cache)
    assert (ran.code, ran.err) == (0, "")
    assert "object detection, 3 classes, 3 training and 2 test images" in ran.out
    assert str(sheet) in ran.out
    data = cli("check-task", task, "--sheet", sheet, "--cache", cache, "--json").json
    assert (data["kind"], data["sheet"]) == ("detection", str(sheet))
    assert (data["train"]["boxes"], data["train"]["empty"]) == (3, 1)


def test_json_is_plain(tmp_path: Path) -> None:
    found = checked(tmp_path, some())
    tree = json.loads(json.dumps(as_json(found)))
    assert tree["classes"][0] == {
        "name": "ant", "train": 1, "test": 1, "train_images": 1, "test_images": 1
    }  # fmt: skip


def test_real_sets(real_data: Path, tmp_path: Path, cache: Path, cli: Cli) -> None:
    for name, boxes in (("bccd", 1063), ("voc2007", 360)):
        sheet = tmp_path / f"{name}.png"
        options = ("--data", real_data, "--sheet", sheet, "--cache", cache, "--json")
        found = cli("check-task", name, *options).json
        assert found["test"]["boxes"] == boxes
        assert sheet.is_file()


# --------------------------------------------------------------------------- the sheet


def test_the_sheet_shows_the_boxes_of_each_part(tmp_path: Path) -> None:
    box = (20.0, 20.0, 180.0, 180.0)
    grey = Image.new("RGB", (240, 240), (90, 90, 90))
    grey.save(tmp_path / "grey.png")
    content = (tmp_path / "grey.png").read_bytes()
    parts = {
        "train": [Picture("a.png", content, (240, 240), ((0, box),)), large("b", [])],
        "test": [Picture("c.png", content, (240, 240), ((1, box),))],
    }
    data = load(f"coco:{write_coco(tmp_path / 'set', parts)}", tmp_path / "cache")
    path = box_sheet(data, tmp_path / "s.png", tile=240, columns=2)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    tile = (pixels == 90).all(axis=2)  # 180 px high, at the left of each part's first line
    runs = np.flatnonzero(np.diff(np.r_[0, tile.sum(axis=1) > 100, 0])).reshape(-1, 2)
    assert len(runs) >= 2
    assert tile[:, 12 + 240 :].sum() < 100  # the second tile is noise, the rest paper
    white = (pixels == 255).all(axis=2)
    for top, bottom in ((runs[0][0], runs[0][0] + 180), (runs[-1][1] - 180, runs[-1][1])):
        assert white[top:bottom, 12 : 12 + 240].sum() > 200  # dashes


def test_images_with_boxes_come_first_and_a_seed_moves_on(tmp_path: Path) -> None:
    box = (20.0, 20.0, 180.0, 180.0)
    train = [large(n, [(0, box)] if n in "bd" else []) for n in "abcdef"]
    data = load(
        f"coco:{write_coco(tmp_path / 'set', {'train': train, 'test': train[1:2]})}",
        tmp_path / "cache",
    )
    sheets = [box_sheet(data, tmp_path / f"{i}.png", per_part=1, seed=i, tile=64) for i in range(3)]
    first, second, third = (path.read_bytes() for path in sheets)
    assert first == third
    assert first != second


def test_what_cannot_be_decoded_is_crossed_out(tmp_path: Path) -> None:
    parts = some()
    cut = large("z", [(0, (1, 1, 200, 200))])
    parts["train"].append(Picture(cut.name, cut.data[:5000], cut.size, cut.boxes))
    data = load(f"coco:{write_coco(tmp_path / 'set', parts)}", tmp_path / "cache")
    path = box_sheet(data, tmp_path / "s.png", tile=120)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert (pixels == (0xDC, 0x26, 0x26)).all(axis=2).sum() > 100


def test_the_sheet_is_a_png_that_can_be_written(tmp_path: Path) -> None:
    data = load(f"coco:{write_coco(tmp_path / 'set', some())}", tmp_path / "cache")
    assert "is a PNG" in refusal(box_sheet, data, tmp_path / "s.jpg")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(box_sheet, data, tmp_path / "file/s.png")


def test_strips_and_dots_have_a_tile(tmp_path: Path) -> None:
    strip = picture("b", [(0, (0, 0, 1, 500))], 1, 500)
    dot = picture("c", [(1, (0, 0, 1, 1))], 1, 1)
    parts = {"train": [picture("a", [(0, (0, 0, 600, 1))], 600, 1)], "test": [strip, dot]}
    data = load(f"coco:{write_coco(tmp_path / 'set', parts)}", tmp_path / "cache")
    assert Image.open(box_sheet(data, tmp_path / "s.png")).size[0] > 1600
