"""Segmentation data: the same images from every source, groups and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.data.load import load_task
from eval.data.masks.label_map import VOID
from eval.data.masks.mask_data import SegmentationData, held_out_masks
from eval.data.own_masks import VOC_CLASSES
from eval.data.task_data import take
from eval.tasks.registry import TASKS
from tests.data.masks.pictures import SIZE, scene, write_folders, write_parquet, write_voc
from tests.factories import png, refusal


def loaded(text: str, cache: Path) -> SegmentationData:
    task = load_task(text, cache)
    assert isinstance(task, SegmentationData)
    assert task.kind == "segmentation"
    return task


def maps(task: SegmentationData) -> list[np.ndarray]:
    """The label maps of test in canonical order."""
    found = dict(task.test.label_maps(np.arange(len(task.test))))
    return [found[i] for i in range(len(task.test))]


def test_camvid_is_the_known_copy(real_data: Path, cache: Path) -> None:
    task = load_task("camvid", cache, real_data)
    assert isinstance(task, SegmentationData)
    known = TASKS["camvid"].subset
    assert known is not None
    assert (task.split_hash, task.subset) == (known.split_hash, True)
    assert (len(task.train), len(task.test), len(task.classes)) == (468, 233, 11)
    assert task.notes == ("62 of 233 test images are of groups that train has images of, too",)
    assert task.train.groups is not None
    assert sorted(np.unique(task.train.groups, return_counts=True)[1].tolist()) == [62, 101, 305]
    held = held_out_masks(task, 0.2, 0)
    assert len(set(task.train.groups[held]) & set(task.train.groups[~held])) == 0
    i, mask = next(task.test.label_maps(np.array([7])))
    assert (i, mask.shape, mask.dtype) == (7, (180, 240), np.uint8)


def test_every_source_has_the_same_masks(tmp_path: Path, cache: Path) -> None:
    folders = write_folders(tmp_path / "a", count=5)
    around = tmp_path / "b"
    for part in ("train", "test"):
        (around / part).mkdir(parents=True)
        for what in ("images", "masks"):
            (around / part / what).symlink_to(folders / what / part)
    one, other = loaded(f"masks:{folders}", cache), loaded(f"masks:{around}", cache)
    assert one.split_hash == other.split_hash
    assert one.classes == ("class 0", "class 1", "class 2")
    for found, plain in zip(maps(one), maps(other), strict=True):
        np.testing.assert_array_equal(found, plain)
    known = [scene(100 + i)[1] for i in range(5)]
    for mask in maps(one):
        assert any(np.array_equal(mask, truth) for truth in known)
    named = loaded(f"masks:{folders}?classes=ground,one,two", cache)
    assert named.classes == ("ground", "one", "two")
    assert loaded(named.where, cache).split_hash == named.split_hash


def test_a_part_beside_the_pair_is_said(tmp_path: Path, cache: Path) -> None:
    folders = write_folders(tmp_path / "a", count=5)
    plain = loaded(f"masks:{folders}", cache)
    for what in ("images", "masks"):
        (folders / what / "extra_train").symlink_to(folders / what / "train")
    task = loaded(f"masks:{folders}", cache)
    assert task.split_hash == plain.split_hash
    assert task.inventory.warnings() == ("not used beside train and test: 'extra_train'",)
    own = loaded(f"masks:{folders}?train=train&test=test", cache)
    assert own.inventory.warnings() == ()


def test_the_second_load_reads_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet(tmp_path / "scenes")
    first = loaded(f"parquet:{folder}", cache)
    monkeypatch.setattr("eval.data.masks.stored.scanned", None)
    again = loaded(f"parquet:{folder}?mask=mask", cache)
    assert (again.split_hash, again.name) == (first.split_hash, first.name)
    assert first.where.endswith("?image=image&mask=mask")


def test_voc_has_palettes_and_its_classes(tmp_path: Path, cache: Path) -> None:
    task = loaded(f"voc-seg:{write_voc(tmp_path / 'VOC2012')}", cache)
    assert (task.classes, len(task.train), len(task.test)) == (VOC_CLASSES, 5, 4)
    assert {v for mask in maps(task) for v in np.unique(mask)} == {0, 1, 2, VOID}
    other = loaded(f"voc-seg:{tmp_path}?train=val&test=train", cache)
    assert (len(other.train), len(other.test)) == (4, 5)


def test_without_parts_a_split_is_drawn(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "flat", parts=(), count=10)
    task = loaded(f"masks:{root}", cache)
    assert (len(task.train), len(task.test)) == (7, 3)
    assert not {*task.train.keys.tolist()} & {*task.test.keys.tolist()}
    assert task.notes == ("split here: 70 % of the images to train, seed 0",)
    assert load_task(f"masks:{root}", cache, seed=3).split_hash != task.split_hash


def test_limit_takes_the_first_images(tmp_path: Path, cache: Path) -> None:
    folder = write_parquet(tmp_path / "scenes")
    whole, few = loaded(f"parquet:{folder}", cache), load_task(f"parquet:{folder}", cache, limit=5)
    assert isinstance(few, SegmentationData)
    assert (len(few.train), len(few.test), few.limit) == (5, 5, 5)
    np.testing.assert_array_equal(few.test.hashes, whole.test.hashes[:5])
    np.testing.assert_array_equal(maps(few)[4], maps(whole)[4])


def test_void_values_are_the_user_s(tmp_path: Path, cache: Path) -> None:
    folder = write_parquet(tmp_path / "scenes")
    task = loaded(f"parquet:{folder}?mask=mask&void=0,255", cache)
    assert {v for mask in maps(task) for v in np.unique(mask)} == {1, 2, VOID}


# --------------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("images", "group", "units"), [(8, 0, 8), (60, 2, 30), (60, 30, 20), (50, 25, 24), (8, 4, 8)]
)
def test_units_are_images_groups_or_stretches(
    images: int, group: int, units: int, tmp_path: Path, cache: Path
) -> None:
    task = loaded(f"parquet:{write_parquet(tmp_path / 'x', 12, images, group)}", cache)
    found = task.test.units()
    assert sorted(set(found.tolist())) == list(range(units))
    for unit in range(units):  # neighbours of one group
        rows = np.sort(task.test.rows[found == unit])
        assert np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
        if group:
            assert len(set((rows // group).tolist())) == 1


def test_groups_decide_the_split_hash(tmp_path: Path, cache: Path) -> None:
    folder = write_parquet(tmp_path / "x", 12, 8, 4)
    grouped = loaded(f"parquet:{folder}", cache)
    path = folder / "test-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["sequence"]), path)
    plain = loaded(f"parquet:{folder}", cache)
    assert grouped.split_hash != plain.split_hash
    assert (grouped.test.groups is None, plain.test.groups is None) == (False, True)


def test_held_out_groups_are_whole_and_about_the_share(tmp_path: Path, cache: Path) -> None:
    task = loaded(f"parquet:{write_parquet(tmp_path / 'x', 40, 8, 4)}", cache)
    assert task.train.groups is not None
    draws = set()
    for seed in range(5):
        held = held_out_masks(task, 0.2, seed)
        assert held.sum() == 8
        assert not set(task.train.groups[held]) & set(task.train.groups[~held])
        draws.add(held.tobytes())
    assert len(draws) > 1
    one = take(task.train, np.flatnonzero(task.train.groups == task.train.groups[0]))
    alone = SegmentationData(task.name, "", "", task.classes, one, task.test)
    assert held_out_masks(alone, 0.25, 0).sum() == 1  # images, where there is one group


# --------------------------------------------------------------------------- what is refused


def with_mask(folder: Path, mask: bytes | None, part: str = "test") -> Path:
    """A Parquet set whose third image of a part has another mask."""
    write_parquet(folder)
    path = folder / f"{part}-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[2]["mask"] = mask and {"bytes": mask, "path": "2.png"}
    pq.write_table(pq.read_table(path).from_pylist(rows), path)
    return folder


def one_value(value: int) -> bytes:
    return png(np.full(SIZE, value, np.uint8))


def test_bad_masks(tmp_path: Path, cache: Path) -> None:
    picture, mask = scene(0)
    strange = mask.copy()
    strange[3, 3] = 37
    for number, (bad, words) in enumerate((
        (png(mask[:, :20]), "its mask has 20 x 24 pixels where the image has 32 x 24"),
        (png(picture), "its mask is a picture of colours (mode RGB)"),
        (png(strange), "has the value 37, which no class has: they are 0 to 2, and 255 is void"),
        (b"nothing", "its mask cannot be read: it is in no image format that Pillow knows"),
        (None, "1 of 8 images"),
    )):  # fmt: skip
        folder = with_mask(tmp_path / str(number), bad)
        sentence = refusal(load_task, f"parquet:{folder}", cache)
        assert words in sentence
        if bad is not None:
            assert "row 2 of" in sentence


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (255, "all pixels of test are void (255)"),
        (1, "all labelled pixels of test are of class 1; at least two classes are needed"),
    ],
)
def test_nothing_to_tell_apart(value: int, words: str, tmp_path: Path, cache: Path) -> None:
    folder = write_parquet(tmp_path / "x")
    path = folder / "test-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["mask"] = {"bytes": one_value(value), "path": ""}
    pq.write_table(pq.read_table(path).from_pylist(rows), path)
    assert words in refusal(load_task, f"parquet:{folder}", cache)


def test_bad_folders(tmp_path: Path, cache: Path) -> None:
    root = write_folders(tmp_path / "a")
    (root / "masks" / "test" / "3.png").unlink()
    sentence = refusal(load_task, f"masks:{root}", cache)
    assert "1 of 6 images have no mask in" in sentence
    assert "the first is '3.png'" in sentence
    (tmp_path / "empty").mkdir()
    assert "has no folders images and masks" in refusal(
        load_task, f"masks:{tmp_path / 'empty'}", cache
    )
    voc = write_voc(tmp_path / "voc")
    (voc / "SegmentationClass" / "0050.png").unlink()
    assert "1 of 4 images of val.txt have no mask" in refusal(load_task, f"voc-seg:{voc}", cache)
    assert "has no trainaug.txt; it holds train.txt, val.txt" in refusal(
        load_task, f"voc-seg:{voc}?train=trainaug", cache
    )
    assert "are on both train.txt and train.txt" in refusal(
        load_task, f"voc-seg:{write_voc(tmp_path / 'voc2')}?test=train", cache
    )


def test_bad_options(tmp_path: Path, cache: Path) -> None:
    folder = write_parquet(tmp_path / "x")
    for options, words in (
        ("mask=depth", "has no mask column 'depth'"),
        ("mask=mask&void=a", "?void=a is no list of values from 0 to 65535"),
        ("mask=mask&classes=a,,b", "has an empty name, or one twice"),
        ("mask=mask&classes=a,b", "has the value 2, which no class has: they are 0 to 1"),
        ("mask=mask&group=drive", "has no column 'drive'"),
        ("void=0", "void= is about masks; name their column: mask=.."),
    ):
        assert words in refusal(load_task, f"parquet:{folder}?{options}", cache)


def test_masks_of_palettes_and_sixteen_bits(tmp_path: Path, cache: Path) -> None:
    _, mask = scene(2)
    deep = Image.fromarray(mask.astype(np.uint16))
    file = tmp_path / "deep.png"
    deep.save(file)
    task = loaded(f"parquet:{with_mask(tmp_path / 'x', file.read_bytes())}", cache)
    assert any(np.array_equal(found, mask) for found in maps(task))
