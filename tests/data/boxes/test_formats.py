"""A user's own sets with boxes: COCO's JSON, PASCAL VOC's XML, YOLO's text files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    (first("annotations", image_id=[1]), "has no image_id"),
    (lambda f: [a.update(bbox=[], segmentation=[[1, 1, 2, 2]]) for a in f["annotations"]],
     "3 of 3 annotations in"),
    (lambda f: f["annotations"][1].pop("bbox"), "have no bbox, the first is annotation 1"),
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
    (first("categories", name="bee"), "lists category 4 ('bee') twice"),
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


def label(line: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")


def config(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "data.yaml").write_text(text)


YOLO_WRONG: list[tuple[Callable[[Path], object], str]] = [
    (label("1 0.1 0.1 0.2 0.1 0.2 0.2"), "a.txt has 7 numbers: it is a polygon, not a box"),
    (label("1 0.1 0.1 0.2"), "line 2 of"),
    (label("ant 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("0.5 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("nan 0.1 0.1 0.2 0.2"), "not class, centre x, centre y, width, height"),
    (label("3 0.1 0.1 0.2 0.2"), "is of class 3; there are 3 names, from 0"),
    (label("-1 0.1 0.1 0.2 0.2"), "is of class -1"),
    (label("1 12 40 30 20"), "has 40 where shares of the image's size are expected"),
    (lambda r: shutil.rmtree(r / "labels"), "none of 3 images has a label file"),
    (lambda r: shutil.rmtree(r / "images" / "val"), "names 'images/val', which is not there"),
    (lambda r: (r / "data.yaml").unlink(), "neither data.yaml with names nor classes.txt"),
    (config("names: {0: a, 2: b}"), "are not numbered from 0 without gaps"),
    (config("names: [a, a, b]"), "hold one twice: a, a, b"),
    (config("names: 3"), "are 3, not a list of names"),
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
        ("yolo:d?train=a", "unknown option 'train'; known: none"),
        ("coca:d", "unknown prefix 'coca'; did you mean 'coco'?"),
        ("voc:", "nothing behind the prefix"),
    ],
)
def test_task_strings_refused(text: str, said: str, cache: Path) -> None:
    with pytest.raises(UserError) as error:
        load_task(text, cache)
    assert said in str(error.value)
