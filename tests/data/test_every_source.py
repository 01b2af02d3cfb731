"""Each kind of task source keeps the split that results were published on: frozen hashes.

The images are bytes written here, not encoded by a library, so that the hashes hold everywhere. A
hash that changes means that episodes, feature banks and committed results no longer belong to it.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.data.load import load, load_task, locate
from eval.data.manifest import FileFacts, Manifest, PartFacts, SplitFacts, write_manifest
from eval.data.sources import HASH_BYTES
from eval.data.split_rules import by_groups, per_class
from eval.data.task_data import Rows, hash_parts
from eval.tasks.declaration import HubCopy, SplitRule, Task
from eval.tasks.registry import TASKS
from tests.detection.drawn import Picture, write_boxes, write_coco, write_voc, write_yolo
from tests.factories import write_parquet
from tests.hub import LoopbackHub

NAMES = ("ant", "bee", "cow")
EACH = 9  # images of a class


def image(label: int, number: int, width: int = 4, height: int = 3) -> bytes:
    """A PPM file whose pixels tell its label and number."""
    pixels = bytes((37 * label + 11 * number + i) % 256 for i in range(3 * width * height))
    return b"P6 %d %d 255\n" % (width, height) + pixels


IMAGES = [image(label, n) for label in range(3) for n in range(EACH)]
LABELS = [label for label in range(3) for _ in range(EACH)]
IN_TRAIN = [n % 3 > 0 for n in range(3 * EACH)]


def halves(values: list[Any]) -> tuple[list[Any], list[Any]]:
    """What stands in train and in test."""
    train = [v for v, trains in zip(values, IN_TRAIN, strict=True) if trains]
    return train, [v for v, trains in zip(values, IN_TRAIN, strict=True) if not trains]


def parquet(root: Path, named: bool = True, words: bool = False) -> str:
    names = list(NAMES) if named else None
    labels: list[Any] = [f"kind {v}" for v in LABELS] if words else LABELS
    for part, images, found in zip(("train", "test"), halves(IMAGES), halves(labels), strict=True):
        write_parquet(root / f"{part}-0.parquet", images, found, names)
    return f"parquet:{root}"


def folders(root: Path, parts: bool) -> str:
    for n, (data, label, trains) in enumerate(zip(IMAGES, LABELS, IN_TRAIN, strict=True)):
        part = ("train" if trains else "val") if parts else ""
        file = root / part / NAMES[label] / f"{n}.ppm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return f"imagefolder:{root}"


def listed(root: Path, options: str = "") -> str:
    root.mkdir()
    with (root / "all.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "nest", "part"])
        for n, (data, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
            (root / f"{n}.ppm").write_bytes(data)
            part = "unused" if n % 7 == 0 else "train" if IN_TRAIN[n] else "test"
            rows.writerow([f"{n}.ppm", NAMES[label], f"nest {n // 3}", part])
    return f"csv:{root / 'all.csv'}{options}"


def with_boxes(outside: bool = True) -> dict[str, list[Picture]]:
    """Boxes that touch the edge, hang over it, and lie outside; an image without any."""
    places = [
        [(0, (1.0, 2.0, 11.0, 12.0)), (1, (0.0, 0.0, 32.0, 24.0)), (2, (3.0, 3.0, 9.5, 20.0))],
        [(1, (20.0, 10.0, 40.0, 20.0))],
        [],
        [(2, (50.0, 50.0, 60.0, 60.0)), (0, (2.0, 2.0, 30.0, 22.0))],
    ]
    if not outside:
        places[1], places[3] = [(1, (20.0, 10.0, 30.0, 20.0))], places[3][1:]

    def part(name: str, first: int) -> list[Picture]:
        return [
            Picture(f"{name}{i}.ppm", image(first, i, 32, 24), (32, 24), tuple(boxes))
            for i, boxes in enumerate(places)
        ]

    return {"train": part("a", 0), "test": part("b", 1)[:2]}


def wrong_sizes(root: Path) -> str:
    parts = {
        name: [dataclasses.replace(p, size=(64, 24)) for p in pictures]
        for name, pictures in with_boxes().items()
    }
    return f"voc:{write_voc(root, parts)}"


def task_file(root: Path) -> str:
    folders(root / "photos", parts=False)
    (root / "mine.toml").write_text('name = "mine"\nsource = "imagefolder:photos"\nlicence = "CC0"')
    return str(root / "mine.toml")


def task_file_of_boxes(root: Path) -> str:
    """Its source does not say that the Parquet files hold boxes."""
    write_boxes(root / "boxes", with_boxes())
    (root / "mine.toml").write_text('name = "mine"\nsource = "parquet:boxes"\n')
    return str(root / "mine.toml")


SOURCES: dict[str, Callable[[Path], str]] = {
    "parquet": parquet,
    "parquet, numbers": lambda root: parquet(root, named=False),
    "parquet, words": lambda root: parquet(root, named=False, words=True),
    "parquet with boxes": lambda root: f"parquet:{write_boxes(root, with_boxes())}",
    "folders, two parts": lambda root: folders(root, parts=True),
    "folders, one": lambda root: folders(root, parts=False),
    "csv": listed,
    "csv, groups": lambda root: listed(root, "?group=nest"),
    "csv, parts": lambda root: listed(root, "?split=part"),
    "coco": lambda root: f"coco:{write_coco(root, with_boxes())}",
    "voc": lambda root: f"voc:{write_voc(root, with_boxes())}",
    "voc, other sizes": wrong_sizes,
    "yolo": lambda root: f"yolo:{write_yolo(root, with_boxes(outside=False))}",
    "task file": task_file,
    "task file of boxes": task_file_of_boxes,
}
# name, where, split hash, classes, images of train and test, notes; ROOT is the source's folder
Facts = tuple[str, str, str, tuple[str, ...], int, int, tuple[str, ...]]
FROZEN: dict[str, Facts] = {
    "parquet": (
        "parquet-own-195db7c4",
        "parquet:ROOT?image=image&label=label",
        "195db7c47f7f32e9",
        NAMES,
        18,
        9,
        (),
    ),
    "parquet, numbers": (
        "parquet-own-195db7c4",
        "parquet:ROOT?image=image&label=label",
        "195db7c47f7f32e9",
        ("class 0", "class 1", "class 2"),
        18,
        9,
        (),
    ),
    "parquet, words": (
        "parquet-own-195db7c4",
        "parquet:ROOT?image=image&label=label",
        "195db7c47f7f32e9",
        ("kind 0", "kind 1", "kind 2"),
        18,
        9,
        (),
    ),
    "parquet with boxes": (
        "parquet-own-0fb013c5",
        "parquet:ROOT?image=image&objects=objects",
        "0fb013c5c21c190b",
        NAMES,
        4,
        2,
        (
            "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside "
            "the image (such as box 0 of row 1 of own/train-00000-of-00001.parquet: clipped"
            " to the image; box 0 of row 3 of own/train-00000-of-00001.parquet: outside the"
            " image)",
            "test: annotated boxes left out or changed: 1 clipped to the image (such as box"
            " 0 of row 1 of own/test-00000-of-00001.parquet: clipped to the image)",
        ),
    ),
    "folders, two parts": (
        "imagefolder-own-195db7c4",
        "imagefolder:ROOT",
        "195db7c47f7f32e9",
        NAMES,
        18,
        9,
        (),
    ),
    "folders, one": (
        "imagefolder-own-461d68f0",
        "imagefolder:ROOT",
        "461d68f0763816ae",
        NAMES,
        18,
        9,
        ("one folder, split here: 70 % of each class to train, seed 3",),
    ),
    "csv": (
        "csv-all-461d68f0",
        "csv:ROOT/all.csv?image=image&label=label",
        "461d68f0763816ae",
        NAMES,
        18,
        9,
        ("split here: 70 % of each class to train, seed 3",),
    ),
    "csv, groups": (
        "csv-all-fc504782",
        "csv:ROOT/all.csv?image=image&label=label&group=nest",
        "fc504782e3343c30",
        NAMES,
        18,
        9,
        (
            "split here: whole groups, 70 % of each class to train as near as they come, seed 3; "
            "it is 67 % of the images, 67 to 67 % of a class",
        ),
    ),
    "csv, parts": (
        "csv-all-e144305f",
        "csv:ROOT/all.csv?image=image&label=label&split=part",
        "e144305fa997a3c5",
        NAMES,
        16,
        7,
        ("4 rows of unused are not used",),
    ),
    "coco": (
        "coco-own-0fb013c5",
        "coco:ROOT",
        "0fb013c5c21c190b",
        NAMES,
        4,
        2,
        (
            "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside "
            "the image (such as box 0 of file ROOT/train2017/a1.ppm: clipped to the image; "
            "box 0 of file ROOT/train2017/a3.ppm: outside the image)",
            "test: annotated boxes left out or changed: 1 clipped to the image (such as box"
            " 0 of file ROOT/val2017/b1.ppm: clipped to the image)",
        ),
    ),
    "voc": (
        "voc-own-0fb013c5",
        "voc:ROOT",
        "0fb013c5c21c190b",
        NAMES,
        4,
        2,
        (
            "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside "
            "the image (such as box 0 of file ROOT/JPEGImages/a1.ppm: clipped to the image;"
            " box 0 of file ROOT/JPEGImages/a3.ppm: outside the image)",
            "test: annotated boxes left out or changed: 1 clipped to the image (such as box"
            " 0 of file ROOT/JPEGImages/b1.ppm: clipped to the image)",
        ),
    ),
    "voc, other sizes": (
        "voc-own-0fb013c5",
        "voc:ROOT",
        "0fb013c5c21c190b",
        NAMES,
        4,
        2,
        (
            "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside "
            "the image (such as box 0 of file ROOT/JPEGImages/a1.ppm: clipped to the image;"
            " box 0 of file ROOT/JPEGImages/a3.ppm: outside the image)",
            "test: annotated boxes left out or changed: 1 clipped to the image (such as box"
            " 0 of file ROOT/JPEGImages/b1.ppm: clipped to the image)",
            "train: 4 of 4 images have another size than their annotation says, such as "
            "file ROOT/JPEGImages/a0.ppm with 32 x 24 pixels where 64 x 24 are annotated; "
            "their boxes may be off",
            "test: 2 of 2 images have another size than their annotation says, such as file"
            " ROOT/JPEGImages/b0.ppm with 32 x 24 pixels where 64 x 24 are annotated; their"
            " boxes may be off",
        ),
    ),
    "yolo": (
        "yolo-own-6f97accf",
        "yolo:ROOT",
        "6f97accfd3d76668",
        NAMES,
        4,
        2,
        (),
    ),
    "task file": (
        "mine",
        "ROOT/mine.toml",
        "461d68f0763816ae",
        NAMES,
        18,
        9,
        ("one folder, split here: 70 % of each class to train, seed 3",),
    ),
    "task file of boxes": (
        "mine",
        "ROOT/mine.toml",
        "0fb013c5c21c190b",
        NAMES,
        4,
        2,
        (
            "train: annotated boxes left out or changed: 1 clipped to the image, 1 outside "
            "the image (such as box 0 of row 1 of boxes/train-00000-of-00001.parquet: "
            "clipped to the image; box 0 of row 3 of boxes/train-00000-of-00001.parquet: "
            "outside the image)",
            "test: annotated boxes left out or changed: 1 clipped to the image (such as box"
            " 0 of row 1 of boxes/test-00000-of-00001.parquet: clipped to the image)",
        ),
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_data_of_the_users_own(kind: str, tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "own"
    text = SOURCES[kind](root)
    for _ in range(2):  # the second from the memo
        found = load_task(text, cache, seed=3)
        notes = tuple(note.replace(str(root), "ROOT") for note in found.notes)
        where = found.where.replace(str(root), "ROOT")
        counts = len(found.train), len(found.test)
        facts = found.name, where, found.split_hash[:16], found.classes, *counts, notes
        assert facts == FROZEN[kind]
        assert (found.revision, found.split, found.partial, found.limit) == ("", "", False, None)


def no_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes) -> bytes:
        raise AssertionError("an image was read")

    for module in ("eval.data.sources", "eval.data.boxes.stored"):
        monkeypatch.setattr(f"{module}.image_hash", refuse)


@pytest.mark.parametrize("kind", SOURCES)
def test_locating_reads_no_image(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SOURCES[kind](tmp_path / "own")
    no_image_is_read(monkeypatch)
    found = locate(text, cache)
    with pytest.raises(AssertionError, match="an image was read"):
        load(found, cache)


# --------------------------------------------------------------------------- declared data sets

NESTS = [f"nest {n // 3}" for n in range(3 * EACH)]
STUDY, CLEAN = "study", "clean"


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    def declare(hub: HubCopy | None = None, **facts: Any) -> Task:
        known: dict[str, Any] = {
            "title": "Nests", "domain": "insects", "classes": 3, "images": 3 * EACH,
            "licence": "MIT", "citation": "Nobody", "names": NAMES,
            "splits": (SplitRule(STUDY, "per-class"), SplitRule(CLEAN, "groups")),
        }  # fmt: skip
        task = Task("nests", hub=hub, **(known | facts))
        monkeypatch.setitem(TASKS, "nests", task)
        return task

    return declare


def table(rows: list[int]) -> pa.Table:
    """Some rows of the whole set as ``prepare`` and copies on the Hub hold them."""
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": IMAGES[n], "path": None} for n in rows], image_type),
        "label": [LABELS[n] for n in rows],
        "position": rows,
        "file": [f"{n:03d}.ppm" for n in rows],
        "group": [NESTS[n] for n in rows],
    }
    kinds = {"position": "int64", "file": "string", "group": "string"}
    features: dict[str, Any] = {k: {"dtype": v, "_type": "Value"} for k, v in kinds.items()}
    features |= {"image": {"_type": "Image"}}
    features |= {"label": {"names": list(NAMES), "_type": "ClassLabel"}}
    ordered = {name: features[name] for name in columns}
    info = json.dumps({"info": {"features": ordered}})
    return pa.table(columns).replace_schema_metadata({"huggingface": info})


def prepared(folder: Path) -> Path:
    """A folder as ``prepare`` makes it: the study's split in the files, both in the manifest."""
    folder.mkdir(parents=True)
    rules = {STUDY: per_class(LABELS), CLEAN: by_groups(LABELS, NESTS)}
    hashes = np.asarray(
        [list(hashlib.sha256(data).digest()[:HASH_BYTES]) for data in IMAGES], np.uint8
    )
    labels = np.asarray(LABELS)

    def facts(trains: np.ndarray) -> SplitFacts:
        def rows(mask: np.ndarray) -> Rows:
            return labels[mask], hashes[mask]

        counts = {
            part: PartFacts(
                images=int(mask.sum()), per_class=np.bincount(labels[mask], minlength=3).tolist()
            )
            for part, mask in (("train", trains), ("test", ~trains))
        }
        split_hash = hash_parts(rows(trains), rows(~trains), 3)
        return SplitFacts(parts=counts, members="0" * 64, split_hash=split_hash)

    files = {}
    shuffled = np.random.RandomState(1).permutation(3 * EACH)
    for part, mask in (("train", rules[STUDY]), ("test", ~rules[STUDY])):
        rows = [int(n) for n in shuffled if mask[n]]
        pq.write_table(table(rows), folder / f"{part}-0.parquet")
        files[f"{part}-0.parquet"] = FileFacts(rows=len(rows), sha256="0" * 64)
    manifest = Manifest(
        manifest_version=1, task="nests", classes=list(NAMES), default=STUDY,
        splits={name: facts(mask) for name, mask in rules.items()}, files=files,
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


STUDY_HASH, CLEAN_HASH = (
    "051e718c364bef6e",
    "87ac28a32b980375",
)  # of the very split, wherever the images come from


@pytest.mark.parametrize(("split", "expected"), [("", STUDY_HASH), (STUDY, STUDY_HASH),
                                                 (CLEAN, CLEAN_HASH)])  # fmt: skip
def test_a_prepared_folder(
    split: str, expected: str, declared: Callable[..., Task], tmp_path: Path, cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    task = declared()
    folder = prepared(tmp_path / "nests")
    with monkeypatch.context() as patched:
        no_image_is_read(patched)
        located = locate("nests", cache, tmp_path)
    assert (located.where, located.split, located.resplit) == (str(folder), STUDY, None)
    found = load_task(f"nests@{split}" if split else "nests", cache, tmp_path)
    assert found.split_hash[:16] == expected
    assert (found.name, found.where, found.revision) == ("nests", str(folder), "")
    assert (found.split, found.partial, found.notes) == (split or STUDY, False, ())
    assert (found.declared, found.classes) == (task, NAMES)


ROW_ORDER_HASH, PARTS_HASH = "8e94fefdfe5a4fdb", "69fd5d082daa3cd0"
ROW_ORDER = "split in the row order of this copy, so not the study's very split"


@pytest.mark.parametrize(
    ("split", "facts", "expected", "notes"),
    [
        (STUDY, {"name": "file"}, STUDY_HASH, ()),
        (CLEAN, {"name": "file", "group": "group"}, CLEAN_HASH, ()),
        (STUDY, {}, ROW_ORDER_HASH, (ROW_ORDER,)),
        ("authors", {"train": ("train",), "test": ("test",)}, PARTS_HASH, ()),
    ],
)
def test_a_copy_on_the_hub(
    split: str, facts: dict[str, Any], expected: str, notes: tuple[str, ...], hub: LoopbackHub,
    declared: Callable[..., Task], cache: Path,
) -> None:  # fmt: skip
    repo = f"every-{split}-{len(facts)}/nests"
    sha = hub.add_dataset(repo, uploaded())
    parts = {} if "train" in facts else {"parts": ("train", "test")}
    splits = (SplitRule(STUDY, "per-class"), SplitRule(CLEAN, "groups"),
              SplitRule("authors", "official"))  # fmt: skip
    task = declared(HubCopy(repo, sha, "high", **(parts | facts)), splits=splits)
    found = load_task(f"nests@{split}", cache)
    assert found.split_hash[:16] == expected
    assert (found.name, found.where, found.revision) == ("nests", f"hub:{repo}", sha)
    assert (found.split, found.partial, found.notes) == (split, False, notes)
    assert (found.declared, found.classes) == (task, NAMES)


def test_a_data_set_on_the_hub(hub: LoopbackHub, cache: Path) -> None:
    sha = hub.add_dataset("every-own/nests", uploaded())
    found = load_task("hub:every-own/nests", cache)
    assert found.split_hash[:16] == PARTS_HASH
    assert found.name == f"hub-every-own--nests-{PARTS_HASH[:8]}"
    assert found.where == (
        f"hub:every-own/nests?revision={sha}&image=image&label=label&train=train&test=test"
    )
    assert (found.revision, found.classes, found.notes) == (sha, NAMES, ())


def uploaded() -> dict[str, bytes]:
    """The whole set in no order, dealt to two parts."""
    files = {}
    shuffled = np.random.RandomState(2).permutation(3 * EACH).tolist()
    for part, rows in zip(("train", "test"), halves(shuffled), strict=True):
        out = io.BytesIO()
        pq.write_table(table(rows), out)
        files[f"data/{part}-00000-of-00001.parquet"] = out.getvalue()
    return files
