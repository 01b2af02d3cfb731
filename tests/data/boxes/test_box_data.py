"""Detection tasks: boxes checked, canonical order, declared sets, limits, encoded images."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eval.data.boxes.box_check import REASONS, check
from eval.data.boxes.box_data import DetectionData
from eval.data.boxes.stored import upright_size
from eval.data.load import load_task
from eval.data.locations import HubData, missing, presence
from eval.data.manifest import read_manifest, write_manifest
from eval.data.sources import image_hash
from eval.detection import store
from eval.detection.store import EncodedImages
from eval.prepare.prepare import prepare
from eval.tasks.declaration import SUBSET
from eval.tasks.registry import SUITES, TASKS
from tests.detection.drawn import NAMES, picture, some, write_boxes, write_objects
from tests.factories import png, refusal
from tests.prepare.official import VOC, make_coco2017, make_voc0712
from tests.prepare.small import declare


def load(text: str, cache: Path, data: Any = None, limit: int | None = None) -> DetectionData:
    found = load_task(text, cache, data, limit)
    assert isinstance(found, DetectionData)
    return found


# --------------------------------------------------------------------------- boxes

EDGES = st.one_of(
    st.floats(-50, 150, width=32), st.integers(-3, 103).map(float), st.floats(width=32)
)


@given(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), max_size=8), st.integers(1, 100),
       st.integers(1, 100))  # fmt: skip
def test_kept_boxes_are_inside_and_have_area(
    boxes: list[tuple[float, ...]], height: int, width: int
) -> None:
    xywh = np.asarray(boxes, np.float32).reshape(-1, 4)
    found = check(xywh, np.tile([height, width], (len(boxes), 1)))
    x1, y1, x2, y2 = found.boxes[found.kept].T
    assert (x1 >= 0).all()
    assert (y1 >= 0).all()
    assert (x2 <= width).all()
    assert (y2 <= height).all()
    assert (x2 - x1 > 0.99).all()
    assert (y2 - y1 > 0.99).all()
    for box, kept, reason in zip(xywh, found.kept, found.reasons, strict=True):
        x, y, w, h = box.astype(float)
        inside = min(x, y) >= 0 and x + w <= width and y + h <= height
        if inside and min(w, h) >= 1:  # false where one is not finite
            assert (kept, reason) == (True, 0)
        if kept and inside:
            assert reason == 0
        assert kept or reason


@pytest.mark.parametrize(
    ("box", "reason", "expected"),
    [
        ((2, 3, 4, 5), "", (2, 3, 6, 8)),
        ((0, 0, 20, 10), "", (0, 0, 20, 10)),
        ((-0.5, -1, 4, 5), "", (0, 0, 3.5, 4)),  # a pixel beyond the edge is cut without a word
        ((-1.5, 0, 4, 5), "clipped to the image", (0, 0, 2.5, 5)),
        ((18, 8, 40, 40), "clipped to the image", (18, 8, 20, 10)),
        ((19, 9, 1, 1), "", (19, 9, 20, 10)),
        ((20, 2, 3, 3), "outside the image", None),
        ((-5, 2, 5, 3), "outside the image", None),
        ((2, 50, 3, 3), "outside the image", None),
        ((2, 2, 0, 3), "without area", None),
        ((2, 2, 3, -1), "inverted", None),
        ((2, 2, -3, 0), "inverted", None),
        ((2, 2, 0.5, 5), "smaller than a pixel", None),
        ((19.5, 2, 3, 3), "smaller than a pixel", None),
        ((np.nan, 2, 3, 3), "not finite", None),
        ((2, 2, np.inf, 3), "not finite", None),
        ((3e38, 2, 3e38, 3), "outside the image", None),
    ],
)
def test_what_becomes_of_a_box(box: Any, reason: str, expected: Any) -> None:
    found = check(np.asarray([box], np.float32), np.asarray([[10, 20]]))
    assert REASONS[found.reasons[0]] == reason
    assert found.kept[0] == (expected is not None)
    if expected:
        assert found.boxes[0].tolist() == pytest.approx(expected)


def test_small_boxes_are_asked_for_as_the_official_evaluators_do() -> None:
    box = np.asarray([[2, 2, 0.5, 5], [19.5, 2, 3, 3], [2, 2, 0, 5]], np.float32)
    found = check(box, np.asarray([[10, 20]] * 3), least=0.0)
    assert found.kept.tolist() == [True, True, False]


def test_a_one_pixel_image_is_legal() -> None:
    found = check(np.asarray([[0, 0, 1, 1]], np.float32), np.asarray([[1, 1]]))
    assert found.kept.tolist() == [True]


# --------------------------------------------------------------------------- own Parquet


def test_parquet_with_boxes(tmp_path: Path, cache: Path) -> None:
    parts = some()
    folder = write_boxes(tmp_path / "my farm", parts)
    task = load(f"parquet:{folder}", cache)
    assert task.kind == "detection"
    assert task.name == f"parquet-my-farm-{task.split_hash[:8]}"
    assert (task.classes, task.voc, task.notes) == (NAMES, False, ())
    assert (len(task.train), len(task.test)) == (3, 2)
    by_bytes = {p.data: p for part in parts.values() for p in part}
    for split in (task.train, task.test):
        assert np.array_equal(split.keys, np.sort(split.keys))
        assert split.sizes is not None
        stream = dict(split.source.images(np.sort(split.rows)))
        for row, found, size in zip(split.rows, split.objects, split.sizes, strict=True):
            drawn = by_bytes[stream[int(row)]]
            assert tuple(size) == drawn.size[::-1]
            assert found.boxes.tolist() == [list(map(float, box)) for _, box in drawn.boxes]
            assert found.labels.tolist() == [label for label, _ in drawn.boxes]
            assert not found.ignore.any()
            whole = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in drawn.boxes]
            assert found.area.tolist() == whole
    again = load(task.where, cache)
    assert (again.name, again.split_hash) == (task.name, task.split_hash)


def test_row_order_does_not_matter(tmp_path: Path, cache: Path) -> None:
    parts = some()
    one = load(f"parquet:{write_boxes(tmp_path / 'one', parts)}", cache)
    turned = {part: pictures[::-1] for part, pictures in parts.items()}
    other = load(f"parquet:{write_boxes(tmp_path / 'other', turned)}", cache)
    assert one.split_hash == other.split_hash
    for a, b in zip(one.train.objects + one.test.objects,
                    other.train.objects + other.test.objects, strict=True):  # fmt: skip
        assert np.array_equal(a.boxes, b.boxes)


def test_a_moved_box_is_another_split(tmp_path: Path, cache: Path) -> None:
    parts = some()
    one = load(f"parquet:{write_boxes(tmp_path / 'one', parts)}", cache)
    first = parts["train"][0]
    (label, (x1, y1, x2, y2)), *others = first.boxes
    moved = dataclasses.replace(first, boxes=((label, (x1, y1, x2, y2 + 0.5)), *others))
    parts["train"][0] = moved
    other = load(f"parquet:{write_boxes(tmp_path / 'other', parts)}", cache)
    assert one.split_hash != other.split_hash


def test_the_second_load_reads_no_image(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_boxes(tmp_path / "farm", some())
    one = load(f"parquet:{folder}", cache)
    (memo, _) = sorted((cache / "splits").iterdir())
    monkeypatch.setattr("eval.data.boxes.parquet.ParquetBoxes.images", None)
    again = load(f"parquet:{folder}", cache)
    assert again.split_hash == one.split_hash
    assert [o.boxes.tolist() for o in again.train.objects] == [
        o.boxes.tolist() for o in one.train.objects
    ]
    monkeypatch.undo()
    memo.write_bytes(memo.read_bytes()[:100])  # damaged: made again
    assert load(f"parquet:{folder}", cache).split_hash == one.split_hash


def jpeg(width: int, height: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 20, 200)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sizes_are_those_of_the_upright_image(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("RGB", (30, 20)).save(out, form, exif=exif)
    size = upright_size(out.getvalue())
    assert size == ((30, 20) if orientation in (6, 8) else (20, 30))


def test_boxes_refer_to_the_upright_image(tmp_path: Path, cache: Path) -> None:
    box = {"bbox": [[2.0, 22.0, 10.0, 8.0]], "category": [0]}  # inside 20 x 30 alone
    for part in ("train", "test"):
        data = jpeg(30, 20, 6) + part.encode()
        write_objects(tmp_path / "p" / f"{part}-0.parquet", [data], [box])
    task = load(f"parquet:{tmp_path / 'p'}", cache)
    assert task.train.sizes is not None
    assert task.train.sizes.tolist() == [[30, 20]]
    assert task.train.objects[0].boxes.tolist() == [[2, 22, 12, 30]]
    assert EncodedImages.of(task.train, cache).image(0).size == (20, 30)


def test_dropped_boxes_are_named(tmp_path: Path, cache: Path) -> None:
    parts = some()
    first = parts["train"][0]
    boxes = (*first.boxes, (1, (40.0, 1.0, 50.0, 5.0)), (2, (28.0, 20.0, 44.0, 30.0)))
    parts["train"][0] = dataclasses.replace(first, boxes=boxes)
    task = load(f"parquet:{write_boxes(tmp_path / 'farm', parts)}", cache)
    (note,) = task.notes
    assert note == (
        "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside the image "
        "(such as box 2 of row 0 of farm/train-00000-of-00001.parquet: outside the image; box 3 "
        "of row 0 of farm/train-00000-of-00001.parquet: clipped to the image)"
    )
    found = next(o for o in task.train.objects if len(o) == 3)
    assert found.boxes[2].tolist() == [28, 20, 32, 24]
    assert found.area[2] == 16  # of what is left


def test_unseen_classes_are_noted(tmp_path: Path, cache: Path) -> None:
    parts = some()
    parts["train"].pop()
    task = load(f"parquet:{write_boxes(tmp_path / 'farm', parts)}", cache)
    assert task.notes == ("classes without a box in train, asked for in test: cow",)


ONE = {"bbox": [[1.0, 1.0, 5.0, 5.0]], "category": [0]}


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([{"bbox": [], "category": []}], "no image of train has a box that counts"),
        ([None], "no image of train has a box that counts"),
        ([ONE | {"category": [3]}], "category 3 in row 0 of p/train-0.parquet (train) is outside"),
        ([ONE | {"category": [-1]}], "category -1 in row 0 of p/train-0.parquet (train) is out"),
        ([ONE | {"category": [None]}], "category None of box 0 is not a class number"),
        ([ONE | {"category": [0, 1]}], "do not fit together: 1 bbox, 2 category"),
        ([{"bbox": [[1.0, 2.0, 3.0]], "category": [0]}], "not x, y, width, height"),
        ([{"category": [0]}], "its objects have category, not bbox and category"),
        ([ONE | {"iscrowd": [1]}], "no image of train has a box that counts"),
        ([ONE | {"bbox": [[90.0, 1.0, 5.0, 5.0]]}], "counts; annotated boxes left out or changed"),
    ],
)
def test_parquet_refused(objects: list[Any], said: str, tmp_path: Path, cache: Path) -> None:
    data = png(np.zeros((20, 20, 3), np.uint8))
    write_objects(tmp_path / "p" / "train-0.parquet", [data], objects)
    write_objects(tmp_path / "p" / "test-0.parquet", [data], [ONE])
    assert said in refusal(load_task, f"parquet:{tmp_path / 'p'}", cache)


def test_unreadable_header_is_named(tmp_path: Path, cache: Path) -> None:
    good = png(np.zeros((20, 20, 3), np.uint8))
    for part, images in (("train", [good, b"nothing"]), ("test", [good])):
        write_objects(tmp_path / "p" / f"{part}-0.parquet", images, [ONE] * len(images))
    said = refusal(load_task, f"parquet:{tmp_path / 'p'}", cache)
    assert said == (
        "row 1 of p/train-0.parquet cannot be read as an image: it is in no image format that "
        "Pillow knows"
    )


def test_all_unreadable_headers_are_named(tmp_path: Path, cache: Path) -> None:
    good = png(np.zeros((20, 20, 3), np.uint8))
    bad = [good, b"nothing", b"", b"<html>"] + [b"x%d" % i for i in range(30)]
    for part, images in (("train", bad), ("test", [good])):
        write_objects(tmp_path / "p" / f"{part}-0.parquet", images, [ONE] * len(images))
    said = refusal(load_task, f"parquet:{tmp_path / 'p'}", cache)
    assert said.startswith("33 images cannot be read: row 1 of p/train-0.parquet: it is in no ")
    assert "row 2 of p/train-0.parquet: it is empty; row 3 of p/train-0.parquet: it is a" in said
    assert said.endswith("; and 13 more")


def test_objects_as_a_list_of_structs(tmp_path: Path, cache: Path) -> None:
    import pyarrow as pa

    data = [png(np.full((20, 20, 3), i, np.uint8)) for i in range(2)]
    for part, image in zip(("train", "test"), data, strict=True):
        path = tmp_path / "p" / f"{part}-0.parquet"
        path.parent.mkdir(exist_ok=True)
        objects = [[{"bbox": [1.0, 2.0, 3.0, 4.0], "category": 1, "difficult": False}]]
        table = pa.table({"image": [{"bytes": image}], "things": objects})
        pq.write_table(table, path)
    task = load(f"parquet:{tmp_path / 'p'}?objects=things", cache)
    assert task.classes == ("class 0", "class 1")
    assert task.train.objects[0].boxes.tolist() == [[1, 2, 4, 6]]
    assert task.voc  # says which objects are difficult


# --------------------------------------------------------------------------- prepared sets


def prepared(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    maker = {"voc0712": make_voc0712, "coco2017": make_coco2017}[name]
    made = maker(tmp_path / "download")
    declare(name, made, monkeypatch)
    prepare(name, tmp_path / "download", tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["voc0712", "coco2017"])
def test_a_prepared_set(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(name, tmp_path, monkeypatch)
    task = load(name, cache, data)
    manifest = read_manifest(data / name)
    assert manifest is not None
    assert task.split_hash == manifest.splits["study"].split_hash
    assert (task.split, task.partial, task.voc) == ("study", False, name == "voc0712")
    for split in (task.train, task.test):
        assert len(split) == manifest.splits["study"].parts[split.name].images
    flags = [found.difficult if task.voc else found.crowd for found in task.train.objects]
    assert np.concatenate(flags).any()
    if not task.voc:  # areas are the authors', not those of the boxes
        found = next(o for o in task.train.objects if len(o))
        assert found.area[0] == pytest.approx(61.25, abs=10)

    # the same rows in another order
    for path in (data / name).glob("*.parquet"):
        table = pq.read_table(path)
        order = np.random.RandomState(0).permutation(len(table))
        pq.write_table(table.take(order), path)
    assert load(name, cache, data).split_hash == task.split_hash


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], row: int = 0) -> None:
    """Change one row's objects."""
    table = pq.read_table(path)
    objects = table["objects"].to_pylist()
    change(objects[row])
    import pyarrow as pa

    column = pa.array(objects, table.schema.field("objects").type)
    place = table.schema.get_field_index("objects")
    pq.write_table(table.set_column(place, table.schema.field("objects"), column), path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o: [values.pop() for values in o.values()], "'person' "),
        (lambda o: o["bbox"][0].__setitem__(0, 3.25), "other bytes"),
        (lambda o: o["difficult"].__setitem__(0, not o["difficult"][0]), "other bytes"),
    ],
)
def test_a_changed_prepared_set_is_refused(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path, cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = prepared("voc0712", tmp_path, monkeypatch)
    (path,) = (data / "voc0712").glob("train-*.parquet")
    rewrite(path, change)
    text = refusal(load_task, "voc0712", cache, data)
    assert "is not what its manifest.json froze" in text
    assert said in text


def test_other_class_names_are_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared("voc0712", tmp_path, monkeypatch)
    turned = dataclasses.replace(TASKS["voc0712"], names=tuple(reversed(VOC)))
    monkeypatch.setitem(TASKS, "voc0712", turned)
    assert "has the classes aeroplane" in refusal(load_task, "voc0712", cache, data)


def test_a_partial_set_says_so(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared("coco2017", tmp_path, monkeypatch)
    manifest = read_manifest(data / "coco2017")
    assert manifest is not None
    less = manifest.model_copy(update={"partial": True, "missing": ["train2017/x.jpg"]})
    write_manifest(data / "coco2017", less)
    task = load("coco2017", cache, data)
    assert task.partial
    assert task.notes[-1] == "1 image is missing of the official set"


def test_other_copies_are_refused(tmp_path: Path, cache: Path) -> None:
    write_boxes(tmp_path / "voc2007", some())
    text = refusal(load_task, "voc2007", cache, tmp_path)
    assert "has the classes ant, bee, cow where 'voc2007' has aeroplane" in text
    write_boxes(tmp_path / "bccd", some())
    for part in ("train", "test"):
        path = tmp_path / "bccd" / f"{part}-00000-of-00001.parquet"
        table = pq.read_table(path).replace_schema_metadata(None)  # names are the declaration's
        pq.write_table(table, path)
    text = refusal(load_task, "bccd", cache, tmp_path)
    assert "not a copy of 'bccd' that is known" in text
    assert "3 train and 2 test images where the known copy has 3 classes, 280 and 84" in text
    assert f"as parquet:{tmp_path / 'bccd'}" in text
    assert "prepare bccd" not in text  # it has no official layout
    assert len(load(f"parquet:{tmp_path / 'bccd'}", cache).classes) == 3


def test_copies_on_the_hub_are_not_used(cache: Path) -> None:
    for name in SUITES["detection"]:
        for data in (None, HubData()):
            text = refusal(load_task, name, cache, data)
            assert "the form of the boxes in other people's copies on the Hub is not check" in text
    assert "transfer-eval prepare voc0712" in refusal(load_task, "voc0712", cache)
    assert "voc:FOLDER" in refusal(load_task, "bccd", cache)


def test_what_of_the_suite_is_missing(tmp_path: Path) -> None:
    write_boxes(tmp_path / "coco128", some())
    assert missing("coco128", tmp_path) == ""
    assert presence(TASKS["coco128"], tmp_path) == "subset"
    for name in ("voc0712", "coco2017", "voc2007", "bccd"):
        assert missing(name, tmp_path).startswith(f"{name}: not under {tmp_path}")
        assert missing(name, None).startswith(f"{name}: no copy on the Hub is known")
        assert presence(TASKS[name], tmp_path) == presence(TASKS[name], None) == "no"


# --------------------------------------------------------------------------- real data

BOXES = {"voc2007": (1022, 444), "coco128": (926, 898), "bccd": (3823, 1063)}  # that are kept


@pytest.mark.parametrize("name", BOXES)
def test_a_real_set_is_the_known_subset(name: str, real_data: Path, cache: Path) -> None:
    task, declared = load(name, cache, real_data), TASKS[name]
    known = declared.subset
    assert known is not None
    assert task.split_hash == known.split_hash
    assert (len(task.classes), len(task.train), len(task.test)) == (
        known.classes, known.train, known.test
    )  # fmt: skip
    assert task.classes == declared.class_names
    assert (task.split, task.subset, task.duplicates) == (SUBSET, True, 0)
    assert task.voc == (name == "voc2007")
    counts = tuple(sum(map(len, split.objects)) for split in (task.train, task.test))
    assert counts == BOXES[name]
    images = EncodedImages.of(task.test, cache)
    assert task.test.sizes is not None
    for i in range(0, len(images), 10):
        assert images.image(i).size == tuple(task.test.sizes[i][::-1])
    if declared.splits:
        assert "split of its own" in refusal(load_task, f"{name}@study", cache, real_data)


# --------------------------------------------------------------------------- limits


def test_limit_takes_images_with_boxes_first(tmp_path: Path, cache: Path) -> None:
    parts = some()
    parts["train"] = [
        picture(f"n{i}", [(0, (1, 1, 9, 9))] if i % 2 else [], seed=i) for i in range(12)
    ]
    text = f"parquet:{write_boxes(tmp_path / 'farm', parts)}"
    whole = load(text, cache)
    some_of = load(text, cache, limit=4)
    assert some_of.notes == (*whole.notes, "limited to 4 images a split")
    assert (some_of.limit, some_of.subset, len(some_of.test)) == (4, True, 2)
    with_boxes = [i for i, found in enumerate(whole.train.objects) if len(found)]
    assert np.array_equal(some_of.train.keys, whole.train.keys[with_boxes[:4]])
    assert all(len(found) for found in some_of.train.objects)
    nine = load(text, cache, limit=9)
    assert sum(len(found) == 0 for found in nine.train.objects) == 3
    assert np.array_equal(nine.train.keys, np.sort(nine.train.keys))
    assert load(text, cache, limit=50).limit is None
    assert load(text, cache, limit=50).split_hash == whole.split_hash
    assert "at least 1" in refusal(load_task, text, cache, None, 0)


def test_limit_without_a_box_that_counts(tmp_path: Path, cache: Path) -> None:
    images = [png(np.full((20, 20, 3), i, np.uint8)) for i in range(2)]
    by_hash = sorted(images, key=image_hash)  # the first in canonical order shows a crowd alone
    alone, counts = ONE | {"iscrowd": [1]}, ONE | {"iscrowd": [0]}
    write_objects(tmp_path / "p" / "train-0.parquet", images, [counts, counts])
    write_objects(tmp_path / "p" / "test-0.parquet", by_hash, [alone, counts])
    said = refusal(load_task, f"parquet:{tmp_path / 'p'}", cache, None, 1)
    assert "--limit 1: no image of test has a box that counts" in said


# --------------------------------------------------------------------------- encoded images


@pytest.fixture
def farm(tmp_path: Path, cache: Path) -> DetectionData:
    return load(f"parquet:{write_boxes(tmp_path / 'farm', some())}", cache)


def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "IN_MEMORY", 2000)  # about one image


@pytest.mark.parametrize("small", [True, False])
def test_encoded_images(
    small: bool, farm: DetectionData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small:
        on_disk(monkeypatch)
    split = farm.train
    images = EncodedImages.of(split, cache)
    assert bool(list(cache.glob("pixels/*.images"))) != small
    assert len(images) == len(split) == 3
    stream = dict(split.source.images(np.sort(split.rows)))
    for i, row in enumerate(split.rows.tolist()):
        assert images.bytes(i) == stream[row]
        assert split.sizes is not None
        assert images.image(i).size == tuple(split.sizes[i][::-1])
        assert images.image(i).mode == "RGB"
    if not small:  # nothing is read from the source again
        monkeypatch.setattr("eval.data.boxes.parquet.ParquetBoxes.images", None)
        assert EncodedImages.of(split, cache).bytes(2) == images.bytes(2)


@pytest.mark.parametrize("damage", ["cut", "empty", "footer", "index", "body"])
def test_a_damaged_store_is_made_again(
    damage: str, farm: DetectionData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(monkeypatch)
    expected = [EncodedImages.of(farm.train, cache).bytes(i) for i in range(3)]
    (path,) = cache.glob("pixels/*.images")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-20]
    elif damage == "empty":
        data.clear()
    else:
        place = {"footer": -1, "index": -60, "body": 50}[damage]
        data[place] ^= 255
    path.unlink()
    path.write_bytes(data)
    images = EncodedImages.of(farm.train, cache)
    assert [images.bytes(i) for i in range(3)] == expected
    again = EncodedImages.of(farm.train, cache)
    assert [again.bytes(i) for i in range(3)] == expected


def test_reads_from_several_threads(
    farm: DetectionData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(monkeypatch)
    images = EncodedImages.of(farm.train, cache)
    expected = [images.bytes(i) for i in range(3)]
    wrong = []

    def read(seed: int) -> None:
        for i in np.random.RandomState(seed).randint(0, 3, 200).tolist():
            if images.bytes(i) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_image_that_does_not_decode_is_named(tmp_path: Path, cache: Path) -> None:
    good = png(np.random.RandomState(0).randint(0, 256, (20, 20, 3), np.uint8))
    for part, images in (("train", [good, good[:300]]), ("test", [good])):
        write_objects(tmp_path / "p" / f"{part}-0.parquet", images, [ONE] * len(images))
    split = load(f"parquet:{tmp_path / 'p'}", cache).train
    images = EncodedImages.of(split, cache)
    bad = int(np.flatnonzero(split.rows == 1)[0])
    said = refusal(images.image, bad)
    assert said.startswith("row 1 of p/train-0.parquet cannot be read as an image")
    assert images.image(1 - bad).size == (20, 20)


def test_changed_images_are_refused(farm: DetectionData, tmp_path: Path, cache: Path) -> None:
    parts = some()
    parts["train"][1] = picture("b", [], seed=99)
    write_boxes(tmp_path / "farm", parts)
    said = refusal(EncodedImages.of, farm.train, cache)
    assert "has other bytes than when the task was loaded" in said


def test_a_full_disk_is_one_sentence(
    farm: DetectionData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(monkeypatch)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    assert "no space is left for the images of train" in refusal(
        EncodedImages.of, farm.train, cache
    )
    assert not list(cache.glob("pixels/*"))
