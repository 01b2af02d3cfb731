"""A user's own sets with boxes: COCO's JSON, PASCAL VOC's XML, YOLO's text files."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.common.errors import UserError
from eval.data.boxes.box_data import DetectionData
from eval.data.load import load_task
from tests.detection.drawn import (
    NAMES,
    Picture,
    coco_facts,
    picture,
    some,
    write_coco,
    write_voc,
    write_yolo,
)
from tests.factories import refusal

WRITERS: dict[str, Callable[[Path, Any], Path]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
}


def load(text: str, cache: Path, **options: Any) -> DetectionData:
    found = load_task(text, cache, **options)
    assert isinstance(found, DetectionData)
    return found


def shown(task: DetectionData) -> dict[bytes, list[tuple[int, list[float]]]]:
    """Image hash -> its boxes."""
    return {
        key.tobytes(): list(zip(o.labels.tolist(), o.boxes.tolist(), strict=True))
        for split in (task.train, task.test)
        for key, o in zip(split.keys, split.objects, strict=True)
    }


def say_what_shows_nothing(root: Path) -> None:
    """An empty label file for each picture without one."""
    for image in root.glob("images/*/*.png"):
        label = root / "labels" / image.parent.name / f"{image.stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.touch()


@st.composite
def sets(draw: st.DrawFn) -> dict[str, list[Picture]]:
    """Drawn images with drawn boxes of a pixel or more; each part shows every class."""

    def one(name: str, must: list[int]) -> Picture:
        width, height = draw(st.integers(3, 60)), draw(st.integers(3, 60))
        boxes = []
        for label in must + draw(st.lists(st.integers(0, 2), max_size=2)):
            x1, y1 = draw(st.floats(0, width - 1.5)), draw(st.floats(0, height - 1.5))
            x2, y2 = draw(st.floats(x1 + 1.25, width)), draw(st.floats(y1 + 1.25, height))
            boxes.append((label, (x1, y1, x2, y2)))
        return picture(name, boxes, width, height)

    return {
        part: [one(f"{part}-{i}", [0, 1, 2] if i == 0 else []) for i in range(draw(counts))]
        for part, counts in (("train", st.integers(1, 3)), ("test", st.integers(1, 2)))
    }


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets())
def test_the_same_boxes_from_every_format(parts: dict[str, list[Picture]]) -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, write in WRITERS.items():
            root = write(Path(folder, form), parts)
            if form == "yolo":
                say_what_shows_nothing(root)
            task = load(f"{form}:{root}", Path(folder, "cache"))
            assert task.classes == NAMES
            assert task.voc == (form == "voc")
            assert (len(task.train), len(task.test)) == (len(parts["train"]), len(parts["test"]))
            assert task.notes == ()
            found[form] = shown(task)
    drawn = sorted(len(p.boxes) for part in parts.values() for p in part)
    assert sorted(map(len, found["coco"].values())) == drawn
    for other in ("voc", "yolo"):
        assert found[other].keys() == found["coco"].keys()
        for key, boxes in found["coco"].items():
            assert [label for label, _ in found[other][key]] == [label for label, _ in boxes]
            for (_, ours), (_, theirs) in zip(boxes, found[other][key], strict=True):
                assert np.allclose(ours, theirs, atol=1e-3)


IMAGE_FOLDERS = {
    "coco": ("train2017", "val2017"), "voc": ("JPEGImages",), "yolo": ("images/train", "images/val")
}  # fmt: skip
strange = st.tuples(
    st.lists(st.sampled_from(["deep", "@eaDir", "__MACOSX", ".git"]), max_size=2),
    st.sampled_from(["x.txt", "Thumbs.db", "._a.png", "x.heic", "x.svg", "README"]),
).map(lambda p: "/".join([*p[0], p[1]]))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(strange, max_size=8), st.sampled_from(sorted(WRITERS)))
def test_taken_and_left_out_are_all_that_was_found(files: set[str], form: str) -> None:
    """What programs and people leave beside the pictures changes nothing and is counted."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = WRITERS[form](Path(folder, "set"), some()), Path(folder, "cache")
        before = load(f"{form}:{root}", cache)
        for number, name in enumerate(sorted(files)):
            top = IMAGE_FOLDERS[form][number % len(IMAGE_FOLDERS[form])]
            file = root / top / name
            file.parent.mkdir(parents=True, exist_ok=True)
            data = picture(f"strange{number}", []).data
            file.write_bytes(b"in words" if file.name == "README" else data)
        task = load(f"{form}:{root}", cache)
        assert task.split_hash == before.split_hash
        found = task.inventory
        below = [len(names) for top in IMAGE_FOLDERS[form] for *_, names in os.walk(root / top)]
        assert found.found == sum(below) == 5 + len(files)
        assert found.taken + sum(one.count for one in found.left_out) == found.found
        assert found.taken == len(task.train) + len(task.test) == 5


@pytest.mark.parametrize("form", WRITERS)
def test_name_and_where_find_the_set_again(form: str, tmp_path: Path, cache: Path) -> None:
    root = WRITERS[form](tmp_path / "my set", some())
    task = load(f"{form}:{root}", cache)
    assert task.name == f"{form}-my-set-{task.split_hash[:8]}"
    assert load(task.where, cache).name == task.name
    assert len(load(f"{form}:{root}", cache, limit=1).train) == 1


@pytest.mark.parametrize("form", WRITERS)
def test_in_a_task_file(form: str, tmp_path: Path, cache: Path) -> None:
    WRITERS[form](tmp_path / "boxes", some())
    file = tmp_path / "farm.toml"
    facts = f'name = "farm"\nsource = "{form}:boxes"\nclasses = ["ant", "bee", "cow"]\n'
    file.write_text(facts + "train = 3\ntest = 2\n")
    task = load(str(file), cache)
    assert (task.name, task.kind, len(task.train)) == ("farm", "detection", 3)
    assert task.declared is not None
    assert task.declared.kind == "detection"
    file.write_text(facts + "train = 4\n")
    assert "train = 4, but the data have 3 images there" in refusal(load_task, str(file), cache)
    file.write_text(facts.replace("bee", "bat"))
    assert "classes differ" in refusal(load_task, str(file), cache)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("what", ["absent", "empty", "file"])
def test_no_such_folder(form: str, what: str, tmp_path: Path, cache: Path) -> None:
    place = tmp_path / "set"
    if what == "empty":
        place.mkdir()
    elif what == "file":
        place.write_text("x")
    assert f"task '{form}:{place}'" in refusal(load_task, f"{form}:{place}", cache)


@pytest.mark.parametrize("form", WRITERS)
def test_other_sizes_than_annotated_are_noted(form: str, tmp_path: Path, cache: Path) -> None:
    parts = some()
    root = WRITERS[form](tmp_path / "set", parts)
    bigger = picture("a", [], 64, 48)
    for path in root.rglob("a.png"):
        path.write_bytes(bigger.data)
    notes = load(f"{form}:{root}", cache).notes
    if form == "yolo":
        assert notes == ()
    else:
        assert "train: 1 of 3 images have another size than their annotation says" in notes[0]
        assert "with 64 x 48 pixels where 32 x 24 are annotated" in notes[0]


# --------------------------------------------------------------------------- COCO


def test_coco_in_other_places(tmp_path: Path, cache: Path) -> None:
    parts = some()
    plain = load(f"coco:{write_coco(tmp_path / 'plain', parts)}", cache)
    roboflow = load(f"coco:{write_coco(tmp_path / 'robo', parts, roboflow=True)}", cache)
    named = tmp_path / "named"
    for part, pictures in parts.items():
        facts = coco_facts(pictures)
        for image in facts["images"]:
            image["file_name"] = f"deep/{image['file_name']}"
        (named / "img" / "deep").mkdir(parents=True, exist_ok=True)
        (named / f"{part}.json").write_text(json.dumps(facts))
        for p in pictures:
            (named / "img" / "deep" / p.name).write_bytes(p.data)
    explicit = load(f"coco:{named}?train=train.json&test=test.json&images=img", cache)
    assert plain.split_hash == roboflow.split_hash == explicit.split_hash
    assert load(explicit.where, cache).name == explicit.name


def test_coco_keeps_area_and_crowd(tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some())
    edit(root, lambda f: f["annotations"][0].update(area=7.5, iscrowd=1))
    task = load(f"coco:{root}", cache)
    crowd = [o for o in task.train.objects if o.crowd.any()]
    assert [(o.area[0], o.crowd.tolist()) for o in crowd] == [(7.5, [True, False])]
    assert not task.voc


def edit(root: Path, change: Callable[[Any], object], part: str = "train") -> None:
    path = root / "annotations" / f"instances_{part}2017.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def first(key: str, **fields: object) -> Callable[[Any], object]:
    return lambda facts: facts[key][0].update(fields)


COCO_WRONG: list[tuple[Callable[[Any], object], str]] = [
    (lambda f: f.update(annotations=[]), "has no annotations (an empty list)"),
    (lambda f: f.update(images=[]), "lists no images"),
    (lambda f: f.update(categories=[]), "lists no categories"),
    (lambda f: (f.pop("images"), f.pop("categories"), f.update(shapes=[])),
     "it lacks the lists images, categories; its keys are annotations, shapes"),
    (dict.clear, "it lacks the lists images, annotations, categories; it has no keys"),
    (first("annotations", image_id=77), "annotation 0 is of image id 77, which is not listed"),
    (first("annotations", category_id=2), "of category id 2, which is not listed"),
    (first("annotations", bbox=[1, 2, 3]), "has bbox [1, 2, 3]"),
    (first("annotations", bbox=["a", 1, 2, 3]), "not x, y, width, height"),
    (first("annotations", area=[]), "and a number"),
    (first("annotations", image_id=[1]), "has image_id [1], not a whole number or a text"),
    (first("annotations", image_id=0.5), "has image_id 0.5, not a whole number or a text"),
    (lambda f: f["images"][0].pop("id"), "image 0 has no id; it has file_name, width, height"),
    (lambda f: [a.update(bbox=[], segmentation=[[1, 1, 2, 2]]) for a in f["annotations"]],
     "3 of 3 annotations in"),
    (first("annotations", bbox=None, segmentation={"counts": [1], "size": [2, 2]}),
     "have no bbox and no polygon, the first is annotation 0"),
    (lambda f: f["annotations"][1].pop("bbox"), "no polygon, the first is annotation 1"),
    (first("annotations", iscrowd="maybe"), "has iscrowd 'maybe', not 0 or 1"),
    (first("categories", id=1), "lists category id 1 twice"),
    (first("images", id=10), "lists image id 10 twice"),
    (lambda f: f["images"][0].pop("file_name"), "image 0 has no file_name"),
    (first("images", file_name="none.png"), "1 of 3 images are missing, the first is"),
    (first("images", file_name="../val2017/d.png"), "'../val2017/d.png', which leaves its folder"),
    (first("images", file_name="/etc/passwd"), "'/etc/passwd', which leaves its folder"),
    (first("images", file_name="a\\..\\..\\d.png"), "which leaves its folder"),
    (first("images", file_name="C:\\d.png"), "which leaves its folder"),
    (first("images", file_name="."), "which is not a file name"),
    (first("images", file_name="a\0.png"), "which is not a file name"),
    (first("categories", name="dog"), "have different categories, such as"),
    (first("categories", id=8), "have different categories, such as"),
    (first("categories", name="bee"), "categories 7 and 4 are both called 'bee'; give each a name"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), COCO_WRONG, ids=[said for _, said in COCO_WRONG])
def test_coco_refused(
    change: Callable[[Any], object], said: str, tmp_path: Path, cache: Path
) -> None:
    root = write_coco(tmp_path / "set", some())
    edit(root, change)
    assert said in refusal(load_task, f"coco:{root}", cache)


def test_coco_files_refused(tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some())
    folder = root / "annotations"
    path = folder / "instances_train2017.json"
    text = refusal(load_task, f"coco:{root}?train=annotations/instances_train2017.json", cache)
    assert "only ?train= is given" in text
    assert "cannot be read" in refusal(load_task, f"coco:{root}?train=a.json&test=b.json", cache)
    shutil.copy(path, folder / "instances_train2014.json")
    text = refusal(load_task, f"coco:{root}", cache)
    assert "has instances_train2014.json and instances_train2017.json; say which" in text
    (folder / "instances_train2014.json").unlink()
    path.write_text("{")
    assert "is not valid JSON" in refusal(load_task, f"coco:{root}", cache)
    path.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in refusal(load_task, f"coco:{root}", cache)
    path.unlink()
    assert "has neither annotations/instances_train*.json" in refusal(
        load_task, f"coco:{root}", cache
    )


@pytest.mark.parametrize("flag", ["0", 0.0, False, "0.0", None, "false", ""])
def test_coco_says_no_crowd_in_many_ways(flag: object, tmp_path: Path, cache: Path) -> None:
    expected = load(f"coco:{write_coco(tmp_path / 'plain', some())}", cache)
    root = write_coco(tmp_path / "set", some())
    edit(root, lambda f: [a.update(iscrowd=flag) for a in f["annotations"]])
    assert load(f"coco:{root}", cache).split_hash == expected.split_hash


@pytest.mark.parametrize("flag", ["1", 1.0, True, "true"])
def test_coco_says_crowd_in_many_ways(flag: object, tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some())
    edit(root, first("annotations", iscrowd=flag))
    assert sum(int(o.crowd.sum()) for o in load(f"coco:{root}", cache).train.objects) == 1


def as_text(facts: Any) -> None:
    for image in facts["images"]:
        image["id"] = str(image["id"])
    for category in facts["categories"]:
        category["id"] = str(category["id"])


def as_floats(facts: Any) -> None:
    for key, field in (
        ("images", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
    ):
        for one in facts[key]:
            one[field] = float(one[field])


def absolute(folder: Path) -> Callable[[Any], None]:
    def change(facts: Any) -> None:
        for image in facts["images"]:
            image["file_name"] = str(folder / image["file_name"])

    return change


def without_extras(facts: Any) -> None:
    for note in facts["annotations"]:
        del note["iscrowd"], note["area"]
    for image in facts["images"]:
        del image["width"], image["height"]


def test_coco_written_otherwise(tmp_path: Path, cache: Path) -> None:
    """Ids as text on one side, or 1.0; paths that begin at the root; no area, flag or size."""
    expected = load(f"coco:{write_coco(tmp_path / 'plain', some())}", cache)
    root = tmp_path / "set"
    for change in (as_text, as_floats, without_extras, absolute(root / "train2017")):
        write_coco(root, some())
        edit(root, change)
        assert load(f"coco:{root}", cache).split_hash == expected.split_hash, change
    edit(root, absolute(tmp_path / "plain" / "train2017"))
    write_coco(root, some())
    edit(root, absolute(Path("/elsewhere")))
    assert "'/elsewhere/a.png', which leaves its folder" in refusal(
        load_task, f"coco:{root}", cache
    )


def test_coco_polygons_become_boxes(tmp_path: Path, cache: Path) -> None:
    expected = load(f"coco:{write_coco(tmp_path / 'plain', some())}", cache)

    def outline(facts: Any) -> None:
        for note in facts["annotations"]:
            x, y, w, h = note.pop("bbox")
            corners = [x, y, x + w, y, x + w, y + h]
            note["segmentation"] = [corners, [x, y + h, x, y, x + w / 2, y + h / 2]]

    root = write_coco(tmp_path / "set", some())
    edit(root, outline)
    task = load(f"coco:{root}", cache)
    assert shown(task) == shown(expected)
    assert (
        "3 objects of instances_train2017.json without bbox: the box around the polygons is taken"
    ) in task.inventory.said


def test_coco_corners_are_told(tmp_path: Path, cache: Path) -> None:
    def corners(facts: Any) -> None:
        for note in facts["annotations"]:
            x, y, w, h = note["bbox"]
            note["bbox"] = [x, y, x + w, y + h]

    parts = some()
    parts["train"][0] = picture("a", [(0, (16, 2, 31, 12)), (1, (4, 14, 20, 23))])
    root = write_coco(tmp_path / "set", parts)
    load(f"coco:{root}", cache)
    edit(root, corners)
    said = refusal(load_task, f"coco:{root}", cache)
    assert "all 3 boxes of train fit their images as corners x1, y1, x2, y2, and 2 of them" in said
    assert "such as 16, 2, 31, 12 in file" in said


def test_coco_parts_that_are_not_used_are_said(tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some(), roboflow=True)
    assert load(f"coco:{root}", cache).inventory.warnings() == (
        "there is no test: valid is scored in its place",
    )
    shutil.copytree(root / "valid", root / "test")
    task = load(f"coco:{root}", cache)
    assert task.inventory.warnings() == ("valid is not used: test is scored",)
    (root / "train" / "more.png").write_bytes(picture("more", []).data)
    found = load(f"coco:{root}", cache).inventory
    assert (found.found, found.taken) == (8, 5)  # two JSON files are no images
    assert [(one.why, one.count) for one in found.left_out] == [
        ("not images", 2),
        ("images that either JSON file does not list", 1),
    ]


def test_sizes_before_the_exif_turn_are_told(tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some())
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.fromarray(np.zeros((24, 32, 3), np.uint8))
    pixels.save(turned, "JPEG", exif=exif)
    for path in root.rglob("a.png"):
        path.write_bytes(turned.getvalue())
    notes = load(f"coco:{root}", cache).notes
    assert "with 24 x 32 pixels where 32 x 24 are annotated; their boxes are those before" in (
        " ".join(notes)
    )


# --------------------------------------------------------------------------- PASCAL VOC


@pytest.mark.parametrize("above", ["", "VOC2007", "VOCdevkit/VOC2007", "BCCD"])
def test_voc_below_other_folders(above: str, tmp_path: Path, cache: Path) -> None:
    write_voc(tmp_path / "set" / above, some())
    assert len(load(f"voc:{tmp_path / 'set'}", cache).train) == 3


def test_voc_lists(tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", some(), ("train", "val"))
    one = load(f"voc:{root}", cache)
    lists = root / "ImageSets" / "Main"
    assert load(f"voc:{root}?train=train&test=val.txt", cache).split_hash == one.split_hash
    # trainval holds what val has, so it is taken beside a test list alone
    (lists / "trainval.txt").write_text("a\nb\nc\nd\ne\n")
    assert load(f"voc:{root}", cache).split_hash == one.split_hash
    both = refusal(load_task, f"voc:{root}?train=trainval&test=val", cache)
    assert "2 images are on both trainval.txt and val.txt, such as 'd'" in both
    (lists / "train.txt").unlink()
    assert "has no train.txt; it holds trainval.txt, val.txt" in refusal(
        load_task, f"voc:{root}", cache
    )


def test_voc_difficult_and_classes(tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", some())
    path = root / "Annotations" / "d.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    task = load(f"voc:{root}?classes=cow,bee,ant", cache)
    assert task.voc
    assert task.classes == ("cow", "bee", "ant")
    hard = [o.labels.tolist() for o in task.test.objects if o.difficult.any()]
    assert hard == [[1]]
    text = refusal(load_task, f"voc:{root}?classes=cow,bees,ant", cache)
    assert "objects are of 'bee', none of the 3 given classes; did you mean 'bees'?" in text
    assert "an empty name, or one twice" in refusal(load_task, f"voc:{root}?classes=a,,b", cache)


def test_voc_masks_beside_the_images(tmp_path: Path, cache: Path) -> None:
    """x.png is a mask of x.jpg, or a picture in two formats: <filename> says which."""
    parts = some()
    root = write_voc(tmp_path / "set", parts)
    expected = load(f"voc:{root}", cache).split_hash
    for p in parts["train"]:
        (root / "JPEGImages" / p.name).with_suffix(".tif").write_bytes(parts["test"][0].data)
    task = load(f"voc:{root}", cache)
    assert task.split_hash == expected
    assert [(o.why, o.count) for o in task.inventory.left_out] == [
        ("images that either list does not list", 3)
    ]
    xml = root / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("a.png", "a"))
    said = refusal(load_task, f"voc:{root}", cache)
    assert "has a.png and a.tif, and <filename> of Annotations/a.xml is 'a', neither of" in said


@pytest.mark.parametrize("word", ["true", "True", "1"])
def test_voc_difficult_in_words(word: str, tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", some())
    path = root / "Annotations" / "d.xml"
    path.write_text(path.read_text().replace("<difficult>0", f"<difficult>{word}"))
    assert sum(int(o.difficult.sum()) for o in load(f"voc:{root}", cache).test.objects) == 1


@pytest.mark.parametrize("codec", ["ISO-8859-1", "windows-1252", "utf-8"])
def test_voc_in_the_encoding_that_it_declares(codec: str, tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", some())
    for path in (root / "Annotations").glob("*.xml"):
        text = path.read_text().replace(">ant<", ">Ameise äöü<")
        head = f'<?xml version="1.0" encoding="{codec}"?>\n'
        path.write_bytes((head + text).encode(codec))
    assert load(f"voc:{root}", cache).classes == ("Ameise äöü", "bee", "cow")
    path.write_bytes(path.read_bytes().replace(head.encode(), b"") + b"<!-- \xe4 -->")
    assert "is not UTF-8 text" in refusal(load_task, f"voc:{root}", cache)


def test_voc_lists_by_any_word(tmp_path: Path, cache: Path) -> None:
    root = write_voc(tmp_path / "set", some(), ("train", "valid"))
    lists = root / "ImageSets" / "Main"
    (lists / "ant_train.txt").write_text("a  1\n")
    (lists / "ant_valid.txt").write_text("d -1\n")
    task = load(f"voc:{root}", cache)
    assert len(task.test) == 2
    assert task.inventory.said == ("there is no test: valid is scored in its place",)


VOC_WRONG: list[tuple[Callable[[Path], object], str]] = [
    (lambda r: (r / "JPEGImages/a.png").unlink(), "1 of 3 images are missing, the first is"),
    (lambda r: (r / "Annotations/a.xml").unlink(), "image 'a' has no annotation"),
    (lambda r: (r / "Annotations/a.xml").write_text("<a"), "is not valid XML"),
    (lambda r: (r / "Annotations/a.xml").write_text("<!DOCTYPE a><a/>"), "declares XML entities"),
    (lambda r: (r / "Annotations/a.xml").write_text("<a><object/></a>"), "object 1 has no name"),
    (lambda r: (r / "Annotations/a.xml").write_text("<a><object><name>ant</name></object></a>"),
     "object 1 (ant) has no bndbox of four numbers"),
    (lambda r: (r / "ImageSets/Main/test.txt").write_text("\n"), "lists no images"),
    (lambda r: (r / "ImageSets/Main/test.txt").write_text("d\nd\n"), "lists 'd' twice"),
    (lambda r: (r / "ImageSets/Main/test.txt").write_text("../d\n"), "which leaves its folder"),
    (lambda r: (r / "ImageSets/Main/test.txt").unlink(), "has no train.txt"),
    (lambda r: shutil.rmtree(r / "ImageSets"), "it holds no lists"),
    (lambda r: shutil.rmtree(r / "Annotations"), "has no folders JPEGImages and Annotations"),
    (lambda r: (write_voc(r / "VOC2012", some()), r.joinpath("JPEGImages").rename(r / "x"),
                write_voc(r / "VOC2007", some())),
     "has VOC2007 and VOC2012; name one"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), VOC_WRONG, ids=[said for _, said in VOC_WRONG])
def test_voc_refused(
    change: Callable[[Path], object], said: str, tmp_path: Path, cache: Path
) -> None:
    root = write_voc(tmp_path / "set", some())
    change(root)
    assert said in refusal(load_task, f"voc:{root}", cache)


# --------------------------------------------------------------------------- YOLO


@pytest.mark.parametrize("test", ["test", "val", "valid"])
@pytest.mark.parametrize("names", ["yaml", "classes.txt"])
def test_yolo_layouts(test: str, names: str, tmp_path: Path, cache: Path) -> None:
    parts = some()
    root = write_yolo(tmp_path / "set", parts, test, names)
    expected = load(f"coco:{write_coco(tmp_path / 'coco', parts)}", cache)
    task = load(f"yolo:{root}", cache)
    assert task.classes == NAMES
    for ours, theirs in zip(task.train.objects, expected.train.objects, strict=True):
        assert np.allclose(ours.boxes, theirs.boxes, atol=1e-3)
    if names == "yaml":
        assert load(f"yolo:{root}/data.yaml", cache).name == task.name
        assert load(task.where, cache).name == task.name


def test_yolo_paths_of_the_yaml(tmp_path: Path, cache: Path) -> None:
    parts = some()
    root = write_yolo(tmp_path / "set", parts)
    expected = load(f"yolo:{root}", cache).split_hash
    file = root / "data.yaml"
    names = "names: [ant, bee, cow]\n"
    for yaml in (
        "train: ../images/train\nval: ../images/val\n",  # as Roboflow writes them
        f"path: {root}\ntrain: images/train\nval: images/val\n",
        "path: ../elsewhere\ntrain: images/train\nval: images/val\n",
        "path: images\ntrain: train\nval: val\n",
        "train: [images/train]\nval: [images/val]\n",
        "train: train.txt\nval: val.txt\n",
        "",
    ):
        for part in ("train", "val"):
            files = sorted((root / "images" / part).iterdir())
            lines = "".join(f"./images/{part}/{f.name}\n" for f in files)
            (root / f"{part}.txt").write_text(lines)
        file.write_text(yaml + names)
        assert load(f"yolo:{root}", cache).split_hash == expected, yaml
    # folders by part, as Roboflow lays them out
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (root / part).mkdir(exist_ok=True)
            (root / kind / part).rename(root / part / kind)
    file.write_text(names)
    assert load(f"yolo:{root}", cache).split_hash == expected


def test_yolo_names_are_texts(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    for names, expected in (
        ("[yes, no, on]", ("yes", "no", "on")),
        ("[010, 1.0, null]", ("010", "1.0", "null")),
        ("{0: off, 1: 2020-01-01, 2: '3'}", ("off", "2020-01-01", "3")),
    ):
        (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
        assert load(f"yolo:{root}", cache).classes == expected


@pytest.mark.parametrize("test", ["test: ../test/images\n", "test:\n", "test: null\n", ""])
def test_yolo_takes_val_where_test_is_not_there(test: str, tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache).split_hash
    yaml = "names: [ant, bee, cow]\ntrain: images/train\nval: images/val\n"
    (root / "data.yaml").write_text(yaml + test)
    task = load(f"yolo:{root}", cache)
    assert task.split_hash == expected
    said = task.inventory.said
    assert "there is no test: val is scored in its place" in said
    if "../test" in test:
        assert said[0] == "data.yaml names '../test/images' for test, which is not there"


def test_coco_part_beside_the_pair_is_said(tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set", some(), roboflow=True)
    plain = load(f"coco:{root}", cache)
    shutil.copytree(root / "train", root / "extra_train")
    task = load(f"coco:{root}", cache)
    assert task.split_hash == plain.split_hash
    new = "not used beside train and valid: 'extra_train'"
    assert set(task.inventory.said) - set(plain.inventory.said) == {new}


def test_yolo_part_beside_the_pair_is_warned_of(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache).split_hash
    for folder in (root / "images", root / "labels"):
        shutil.copytree(folder / "train", folder / "train_1")
        (folder / "train").rename(folder / "train_0")
        (folder / "val").rename(folder / "test_0")
    (root / "data.yaml").write_text("names: [ant, bee, cow]\n")
    task = load(f"yolo:{root}", cache)
    assert task.split_hash == expected
    (warning,) = (w for w in task.inventory.warnings() if "of part" in w)
    assert warning.startswith("left out: of part train_1 (")
    own = load(f"yolo:{root}?train=train_0&test=test_0", cache)
    assert own.split_hash == task.split_hash
    assert not any("of part" in w for w in own.inventory.warnings())


def test_yolo_both_val_and_test(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    shutil.copytree(root / "images" / "val", root / "images" / "test")
    shutil.copytree(root / "labels" / "val", root / "labels" / "test")
    (root / "labels" / "train" / "b.txt").touch()
    task = load(f"yolo:{root}", cache)
    assert task.inventory.said == ("val is not used: test is scored",)
    own = load(f"yolo:{root}?train=train&test=val", cache)
    assert (own.split_hash, own.inventory.warnings()) == (task.split_hash, ())
    assert load(own.where, cache).where == own.where
    assert (task.inventory.found, task.inventory.taken) == (7, 5)


@pytest.mark.parametrize("place", ["labels/{}.png.txt", "images/{}.txt", "images/{}.png.txt"])
def test_yolo_label_files_elsewhere(place: str, tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache).split_hash
    for file in (root / "labels").rglob("*.txt"):
        name = f"{file.parent.name}/{file.stem}"
        file.rename(root / place.format(name))
    assert load(f"yolo:{root}", cache).split_hash == expected


def test_yolo_pictures_without_label_files(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    said = load(f"yolo:{root}", cache).inventory.said
    assert said[1] == (
        "no label file for 1 of 3 images of train, such as b.png: taken as pictures without objects"
    )
    (root / "labels/train/b.txt").write_text("")
    assert len(load(f"yolo:{root}", cache).inventory.said) == 1
    for name in "ab":
        (root / f"labels/train/{name}.txt").unlink()
    refused = refusal(load_task, f"yolo:{root}", cache)
    assert "1 of 3 images of train has a label file, such as" in refused
    assert refused.endswith("labels/train/a.txt; of a picture without objects it is empty")


def test_yolo_polygons_become_boxes(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache)
    for file in (root / "labels").rglob("*.txt"):
        lines = []
        for line in file.read_text().splitlines():
            number, x, y, w, h = line.split()
            left, top, right, bottom = (
                float(c) + side * float(s) / 2
                for side in (-1, 1) for c, s in ((x, w), (y, h))
            )  # fmt: skip
            lines.append(f"{number} {left} {top} {right} {top} {right} {bottom} {left} {bottom}\n")
        file.write_text("".join(lines))
    task = load(f"yolo:{root}", cache)
    for ours, theirs in zip(task.train.objects, expected.train.objects, strict=True):
        assert np.allclose(ours.boxes, theirs.boxes, atol=1e-3)
    assert any(
        "3 polygons among the objects of train, as in" in said for said in task.inventory.said
    )


def test_yolo_copies_that_programs_leave_are_no_pictures(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache).split_hash
    for n, name in enumerate(
        (".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png/x.jpg", "._a.png")
    ):
        file = root / "images" / "train" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(f"copy{n}", []).data)
    task = load(f"yolo:{root}", cache)
    assert task.split_hash == expected
    assert (task.inventory.found, task.inventory.taken) == (8, 5)


def test_yolo_a_picture_listed_twice(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some())
    expected = load(f"yolo:{root}", cache).split_hash
    files = sorted((root / "images" / "train").iterdir())
    (root / "train.txt").write_text("".join(f"{f}\n" for f in [*files, files[0]]))
    yaml = "names: [ant, bee, cow]\ntrain: train.txt\nval: images/val\n"
    (root / "data.yaml").write_text(yaml)
    task = load(f"yolo:{root}", cache)
    assert task.split_hash == expected
    assert "1 image listed twice in one part: taken once" in task.inventory.said


def label(line: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")


def config(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "data.yaml").write_text(text)


YOLO_WRONG: list[tuple[Callable[[Path], object], str]] = [
    (label("1 0.1 0.1 0.2 0.2 0.9"), "a.txt has 6 numbers, neither a box (class, centre x, centre"),
    (label("1 0.1 0.1 0.2 0.2 0.9"), "corners): is the last a confidence or a track?"),
    (label("1 0.1 0.1 0.2 0.1 0.2 0.2 0.3"), "a.txt has 8 numbers, neither a box (class"),
    (label("1,0.1,0.1,0.2,0.2"), "has commas; separate its numbers by spaces"),
    (label("1 0.1 0.1 20 0.1 0.2 0.2"), "has 20 where shares of the image's size are expected"),
    (label("1 0.1 0.1 0.2"), "line 2 of"),
    (label("ant 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("0.5 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("nan 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("3 0.1 0.1 0.2 0.2"), "is of class 3; there are 3 names, from 0"),
    (label("-1 0.1 0.1 0.2 0.2"), "is of class -1"),
    (label("1 12 40 30 20"), "has 40 where shares of the image's size are expected"),
    (lambda r: shutil.rmtree(r / "labels"), "none of 3 images of train has a label file"),
    (lambda r: shutil.rmtree(r / "images" / "val"), "names 'images/val' for val, which is"),
    (config("names: [a, b, c]\ntrain: ../train\nval: images/val"),
     "data.yaml names '../train' for train, which is not there"),
    (lambda r: (r / "data.yaml").unlink(), "neither data.yaml with names nor classes.txt"),
    (config("names: {0: a, 2: b}"), "are not numbered from 0 without gaps"),
    (config("names: [a, a, b]"), "hold one twice: a, a, b"),
    (config("names: 3"), "are 3, not a list of names"),
    (config("names: [[a], b, c]"), "names in data.yaml are [['a'], 'b', 'c'], not a list"),
    (config("names:"), "neither data.yaml with names nor classes.txt"),
    (config("names: [a, b, c]\ntrain: images/train\nval: images/train"), "3 images are in both"),
    (config("[1, 2"), "is not valid YAML"),
    (config("text"), "is not YAML with names, train and val"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), YOLO_WRONG, ids=[said for _, said in YOLO_WRONG])
def test_yolo_refused(
    change: Callable[[Path], object], said: str, tmp_path: Path, cache: Path
) -> None:
    root = write_yolo(tmp_path / "set", some())
    change(root)
    assert said in refusal(load_task, f"yolo:{root}", cache)


def test_yolo_without_a_test_part(tmp_path: Path, cache: Path) -> None:
    root = write_yolo(tmp_path / "set", some(), names="classes.txt")
    shutil.rmtree(root / "images" / "val")
    said = refusal(load_task, f"yolo:{root}", cache)
    assert "has no images of test: neither images/test nor test/images" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("coco:d?classes=a", "unknown option 'classes'; known: train, test, images"),
        ("voc:d?images=a", "unknown option 'images'; known: train, test, classes"),
        ("yolo:d?images=a", "unknown option 'images'; known: train, test"),
        ("coca:d", "unknown prefix 'coca'; did you mean 'coco'?"),
        ("voc:", "nothing behind the prefix"),
    ],
)
def test_task_strings_refused(text: str, said: str, cache: Path) -> None:
    with pytest.raises(UserError) as error:
        load_task(text, cache)
    assert said in str(error.value)
