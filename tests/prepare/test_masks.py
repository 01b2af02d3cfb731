"""Official downloads with a label a pixel: what the layouts mean, and what is refused."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from eval.cli.data_commands import MASK_SETS
from eval.data.load import load_task
from eval.data.masks.label_map import VOID
from eval.data.masks.mask_data import SegmentationData
from eval.data.own_masks import VOC_CLASSES
from eval.prepare.layouts.masks import CITYSCAPES_CLASSES, MASK_LAYOUTS
from eval.prepare.masks import prepare_masks
from tests.factories import Cli, refusal
from tests.prepare.official import draw

SIZE = (24, 20)  # columns, rows
Masks = dict[str, NDArray[np.uint8]]  # as the benchmark scores them, by part and image's number


def values(seed: int, of: list[int]) -> NDArray[np.uint8]:
    """[20, 24] stored values, each of them there."""
    random = np.random.RandomState(seed)
    found = random.choice(of, (SIZE[1], SIZE[0])).astype(np.uint8)
    found.reshape(-1)[: len(of)] = of
    return found


def png(pixels: NDArray[np.uint8], palette: bool = False) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([channel for i in range(256) for channel in (i, 255 - i, i // 2)])
    image.save(out, "PNG")
    return out.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def packed(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


Change = Callable[[dict[str, bytes]], None]


def make_voc(folder: Path, change: Change = lambda files: None) -> Masks:
    """VOCtrainval_11-May-2012.tar: more images than the two lists name, borders of 255."""
    root, found = "VOCdevkit/VOC2012", {}
    files = {f"{root}/JPEGImages/2007_000000.jpg": draw(7)}
    for part, first, listed in (("train", 32, "train"), ("test", 39, "val")):
        numbers = [f"2007_{first + i:06d}" for i in range(3)]
        files[f"{root}/ImageSets/Segmentation/{listed}.txt"] = "\n".join([*numbers, ""]).encode()
        for i, number in enumerate(numbers):
            mask = values(first + i, [0, 1 + i, 15, 20, 255])
            found[f"{part} {number}"] = mask
            files[f"{root}/JPEGImages/{number}.jpg"] = draw(first + i)
            files[f"{root}/SegmentationClass/{number}.png"] = png(mask, palette=True)
            files[f"{root}/SegmentationObject/{number}.png"] = png(mask, palette=True)
    change(files)
    tar(folder / "VOCtrainval_11-May-2012.tar", files)
    return found


def make_ade(folder: Path, change: Change = lambda files: None) -> Masks:
    """ADEChallengeData2016.zip: classes count from 1, and 0 is none of them."""
    root, found = "ADEChallengeData2016", {}
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    names = {1: "wall", 2: "building, edifice", 149: "screen, monitor", 150: "screen, projection"}
    lines += [f"{n}\t0.1\t11\t1\t{names.get(n, f'thing {n}, item')}" for n in range(1, 151)]
    files = {f"{root}/objectInfo150.txt": "\n".join(lines).encode()}
    for part, kind, short in (("train", "training", "train"), ("test", "validation", "val")):
        for i in range(3):
            number = f"ADE_{short}_{i + 1:08d}"
            mask = values(50 + i, [0, 1, 2, 100 + i, 150])
            found[f"{part} {kind}/{number}"] = np.where(mask == 0, VOID, mask - 1).astype(np.uint8)
            files[f"{root}/images/{kind}/{number}.jpg"] = draw(100 + i + 10 * (part == "test"))
            files[f"{root}/annotations/{kind}/{number}.png"] = png(mask)
    change(files)
    packed(folder / "ADEChallengeData2016.zip", files)
    return found


# labelId -> trainId, as the table of cityscapesscripts prints it: 255 is not scored
TRAIN_IDS = [
    255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9,
    10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18,
]  # fmt: skip


def make_cityscapes(folder: Path, change: Change = lambda files: None) -> Masks:
    """Two zips; test has images and empty masks, train two cities."""
    found, images, masks = {}, {}, {}
    for part, split, cities in (
        ("train", "train", ("aachen", "bochum")), ("test", "val", ("lindau",)), ("", "test", ("b",))
    ):  # fmt: skip
        for c, city in enumerate(cities):
            for i in range(3):
                number = f"{city}_{i:06d}_000019"
                mask = values(10 * c + i, [0, 3, 7, 8, 11 + i, 26, 33])
                images[f"leftImg8bit/{split}/{city}/{number}_leftImg8bit.png"] = draw(
                    200 + 40 * len(images), kind="PNG"
                )
                root = f"gtFine/{split}/{city}/{number}_gtFine"
                masks[f"{root}_labelIds.png"] = png(mask)
                masks[f"{root}_instanceIds.png"] = png(mask)
                masks[f"{root}_color.png"] = draw(1, kind="PNG")
                if part:
                    found[f"{part} {number}"] = np.array(TRAIN_IDS, np.uint8)[mask]
    files = images | masks
    change(files)
    for name, top in (
        ("leftImg8bit_trainvaltest", "leftImg8bit"),
        ("gtFine_trainvaltest", "gtFine"),
    ):
        packed(folder / f"{name}.zip", {n: d for n, d in files.items() if n.startswith(top)})
    return found


MAKERS = {"voc2012-seg": make_voc, "ade20k": make_ade, "cityscapes": make_cityscapes}
SETS = sorted(MAKERS)


def test_a_maker_a_set() -> None:
    assert set(MAKERS) == set(MASK_LAYOUTS) == set(MASK_SETS)


@pytest.mark.parametrize("name", SETS)
def test_masks_mean_what_the_benchmark_scores(name: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "in").mkdir()
    known = MAKERS[name](tmp_path / "in")
    done = prepare_masks(name, tmp_path / "in", tmp_path / "out")
    task = load_task(f"parquet:{done.folder}", cache)
    assert isinstance(task, SegmentationData)
    assert task.classes == done.classes
    seen = {}
    for part in (task.train, task.test):
        paths = pq.read_table(done.folder / f"{part.name}.parquet")["image"].to_pylist()
        for i, mask in part.label_maps(np.arange(len(part))):
            stem = str(paths[int(part.rows[i])]["path"]).removesuffix(".png")
            seen[f"{part.name} {stem}"] = mask
    assert seen.keys() == known.keys()
    for place, mask in known.items():
        np.testing.assert_array_equal(seen[place], mask)
    for part_name, counts in done.pixels.items():
        pixels = np.concatenate([m.ravel() for p, m in known.items() if p.startswith(part_name)])
        expected = np.bincount(pixels, minlength=256)
        np.testing.assert_array_equal(counts, [*expected[: len(task.classes)], expected[VOID]])
    if name == "cityscapes":
        assert len(np.unique(task.train.groups)) == 2
        assert done.groups == {"train": 2, "test": 1}
    else:
        assert task.train.groups is None


def test_names_of_the_classes(tmp_path: Path) -> None:
    classes = {}
    for name in SETS:
        (tmp_path / name).mkdir()
        MAKERS[name](tmp_path / name)
        classes[name] = prepare_masks(name, tmp_path / name, tmp_path / "out").classes
    assert classes["voc2012-seg"] == VOC_CLASSES
    assert classes["cityscapes"] == CITYSCAPES_CLASSES
    ade = classes["ade20k"]
    assert len(ade) == 150
    assert ade[:3] == ("wall", "building", "thing 3")
    assert ade[-2:] == ("screen, monitor", "screen, projection")  # one word is not enough


def test_the_authors_files_are_kept(tmp_path: Path) -> None:
    """Images, and masks that mean what they store."""
    (tmp_path / "in").mkdir()
    kept: dict[str, bytes] = {}
    make_voc(tmp_path / "in", kept.update)
    done = prepare_masks("voc2012-seg", tmp_path / "in", tmp_path / "out")
    rows = pq.read_table(done.folder / "train.parquet").to_pylist()
    root = "VOCdevkit/VOC2012"
    for row in rows:
        number = row["image"]["path"]
        assert row["image"]["bytes"] == kept[f"{root}/JPEGImages/{number}.jpg"]
        assert row["mask"]["bytes"] == kept[f"{root}/SegmentationClass/{number}.png"]


@pytest.mark.parametrize("name", SETS)
def test_what_is_no_whole_set(name: str, tmp_path: Path) -> None:
    """Images without a mask, masks of another size, of colours or with strange values, void
    everywhere, one class alone: each is refused, and nothing stays behind."""
    places = {
        "voc2012-seg": "SegmentationClass/2007_000033.png",
        "ade20k": "annotations/training/ADE_train_00000002.png",
        "cityscapes": "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png",
    }
    void = {"voc2012-seg": 255, "ade20k": 0, "cityscapes": 3}[name]
    one = {"voc2012-seg": 4, "ade20k": 5, "cityscapes": 26}[name]
    strange = {"voc2012-seg": 21, "ade20k": 151, "cityscapes": 34}[name]
    parts = {"voc2012-seg": "SegmentationClass/2007_00003[234]", "ade20k": "annotations/training",
             "cityscapes": "gtFine/train"}  # fmt: skip

    def mask_of(files: dict[str, bytes]) -> str:
        (found,) = (f for f in files if f.endswith(places[name]))
        return found

    def whole_train(value: int) -> Change:
        def change(files: dict[str, bytes]) -> None:
            for file in files:
                if re.search(parts[name], file) and file.endswith(".png"):
                    files[file] = png(np.full((SIZE[1], SIZE[0]), value, np.uint8))

        return change

    def put(data: bytes) -> Change:
        return lambda files: files.update({mask_of(files): data})

    cases: list[tuple[Change, str]] = [
        (lambda files: files.pop(mask_of(files)) and None, "without a mask, the first is"),
        (put(png(np.zeros((9, 7), np.uint8))), "has 7 x 9 pixels where its image has 24 x 20"),
        (put(draw(1, kind="PNG")), "its mask is a picture of colours (mode RGB)"),
        (put(png(values(1, [one, strange]))), f"has the value {strange}, which no class has"),
        (put(b"no picture"), "its mask cannot be read"),
        (whole_train(void), "all pixels of train are void"),
        (whole_train(one), "all pixels of train are of class"),
    ]
    for number, (change, words) in enumerate(cases):
        source = tmp_path / str(number)
        source.mkdir()
        MAKERS[name](source, change)
        assert words in refusal(prepare_masks, name, source, tmp_path / "out")
        assert not (tmp_path / "out" / name).exists()
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "holiday.jpg").write_bytes(draw(1))
    assert "holiday.jpg" in refusal(prepare_masks, name, tmp_path / "else", tmp_path / "out")


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "in").mkdir()
    make_cityscapes(tmp_path / "in")
    line = ("prepare", "cityscapes", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "o"))
    ran = cli(*line)
    assert ran.code == 0
    assert "train: 6 images, 2 groups;" in ran.out
    assert "note: classes without a pixel in train: 'pole', 'traffic light'," in ran.out
    assert f"--task parquet:{tmp_path / 'o' / 'cityscapes'} --protocol segment" in ran.out
    assert "is there already; remove it to prepare it again" in cli(*line).err
    again = (*line[:-1], str(tmp_path / "p"))
    found = cli(*again, "--json").json
    assert found["images"] == {"train": 6, "test": 3}
    assert "takes no --processes" in cli(*line, "--processes", "2").err
    assert "takes no --push-to" in cli(*line, "--push-to", "org/x").err
    assert "ade20k" in cli("prepare", "ade", "--out", str(tmp_path)).err
