"""Finding, checking, ordering and splitting data; what a memo saves; what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.data.inventory.split_words import Given
from eval.data.load import load, load_task, locate
from eval.data.located import Located, Parts
from eval.data.manifest import MANIFEST
from eval.data.shards import read_shards
from eval.data.sources import HASH_BYTES, FolderSource, ParquetSource
from eval.data.task_data import Split, TaskData, stratified_part
from eval.tasks.declaration import SUBSET, Subset
from eval.tasks.registry import TASKS
from tests.factories import blobs, make_task, refusal, write_parquet
from tests.hub import LoopbackHub

Rows = Sequence[tuple[bytes, int]]

IMAGES = [b for c in range(2) for b in blobs(c, 4, 0, size=6)]
LABELS = [0] * 4 + [1] * 4


def write_shards(folder: Path, part: str, rows: Rows, cuts: Sequence[int] = ()) -> None:
    """The rows of a split in as many files as there are cuts, plus one."""
    edges = [0, *sorted(cuts), len(rows)]
    for i in range(len(edges) - 1):
        piece = rows[edges[i] : edges[i + 1]]
        write_parquet(
            folder / f"{part}-{i:05}-of-{len(edges) - 1:05}.parquet",
            [b for b, _ in piece],
            [label for _, label in piece],
            [f"kind {c}" for c in range(3)],
        )


def write_column(
    folder: Path, labels: Any, images: Any = None, part: str | None = None, **metadata: Any
) -> Path:
    """Both splits, or one, with columns as they are given."""
    if images is None:
        images = [{"bytes": b, "path": None} for b in IMAGES]
    table = pa.table({"image": images, "label": labels})
    if metadata:
        features = json.dumps({"info": {"features": metadata}})
        table = table.replace_schema_metadata({"huggingface": features})
    folder.mkdir(parents=True, exist_ok=True)
    for name in (part,) if part else ("train", "test"):
        pq.write_table(table, folder / f"{name}-0.parquet")
    return folder


def hash_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:HASH_BYTES]


def contents(split: Split) -> list[bytes]:
    """Every image's bytes in the split's order, by way of the streaming reader."""
    order = np.argsort(split.rows)
    read = dict(split.source.images(split.rows[order]))
    return [read[row] for row in split.rows.tolist()]


# --------------------------------------------------------------------------- canonical order

pictures = st.sampled_from([b"a", b"b", b"c"]) | st.binary(min_size=1, max_size=6)  # with copies
some_rows = st.lists(st.tuples(pictures, st.integers(0, 2)), min_size=3, max_size=24).filter(
    lambda rows: len({label for _, label in rows}) > 1
)


def load_rows(train: Rows, test: Rows, cuts: Sequence[int] = ()) -> tuple[TaskData, list[bytes]]:
    """The task, and the images of its train split as they come out of the source."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        write_shards(folder, "train", train, cuts)
        write_shards(folder, "test", test)
        task = load_task(f"parquet:{folder}", Path(name, "cache"))
        return task, contents(task.train)


@settings(deadline=None, max_examples=30)
@given(train=some_rows, test=some_rows, data=st.data())
def test_order_and_sharding_do_not_matter(train: Rows, test: Rows, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(train)), max_size=3))
    shuffled = data.draw(st.permutations(train))
    one, images = load_rows(train, test)
    two, same_images = load_rows(shuffled, test[::-1], cuts)

    expected = sorted((hash_of(b), label, b) for b, label in train)
    assert [h.tobytes() for h in one.train.hashes] == [h for h, _, _ in expected]
    assert one.train.labels.tolist() == [label for _, label, _ in expected]
    assert images == same_images == [b for _, _, b in expected]
    assert sorted(one.train.rows.tolist()) == list(range(len(train)))

    assert one.split_hash == two.split_hash
    assert one.name == two.name
    for a, b in ((one.train, two.train), (one.test, two.test)):
        assert np.array_equal(a.hashes, b.hashes)
        assert np.array_equal(a.labels, b.labels)
    test_images = [b for b, _ in test]
    assert one.duplicates == sum(b in {b for b, _ in train} for b in test_images)


@settings(deadline=None, max_examples=25)
@given(train=some_rows, data=st.data())
def test_bytes_and_labels_do_matter(train: Rows, data: st.DataObject) -> None:
    test = [(b"x", 0), (b"y", 1)]
    before = load_rows(train, test)[0]
    at = data.draw(st.integers(0, len(train) - 1))
    image, label = train[at]
    others = [
        [*train[:at], (image + b"!", label), *train[at + 1 :]],
        [*train[:at], (image, label + 1), *train[at + 1 :]],
        [*train, train[at]],
    ]
    for other in others:
        if len({label for _, label in other}) > 1 and max(label for _, label in other) < 3:
            changed = load_rows(other, test)[0]
            assert changed.train.hash != before.train.hash
            assert changed.test.hash == before.test.hash
            assert changed.split_hash != before.split_hash


def test_train_and_test_are_not_interchangeable() -> None:
    a, b = [(b"1", 0), (b"2", 1)], [(b"3", 0), (b"4", 1)]
    assert load_rows(a, b)[0].split_hash != load_rows(b, a)[0].split_hash


# --------------------------------------------------------------------------- streaming


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParquetSource, list[bytes]]:
    """600 images in three files of row groups of 50, and the images."""
    folder = tmp_path_factory.mktemp("sharded")
    images = [b"%d" % i * 40 for i in range(700)]
    files = []
    for i, (start, stop) in enumerate(((0, 300), (300, 420), (420, 700))):
        files.append(folder / f"train-{i}.parquet")
        table = pa.table({
            "label": [0] * (stop - start),  # the columns' order is the file's own affair
            "image": [{"path": None, "bytes": b} for b in images[start:stop]],
        })  # fmt: skip
        pq.write_table(table, files[-1], row_group_size=50)
    return ParquetSource(tuple(files)), images


@settings(deadline=None, max_examples=30)
@given(rows=st.sets(st.integers(0, 699), max_size=40))
def test_exactly_the_wanted_rows_stream(
    sharded: tuple[ParquetSource, list[bytes]], rows: set[int]
) -> None:
    source, images = sharded
    wanted = np.array(sorted(rows), np.int64)
    assert list(source.images(wanted)) == [(row, images[row]) for row in wanted.tolist()]


def test_all_rows_stream(sharded: tuple[ParquetSource, list[bytes]]) -> None:
    source, images = sharded
    assert list(source.images(np.arange(700))) == list(enumerate(images))
    assert [h.tobytes() for h in source.scan().hashes] == [hash_of(b) for b in images]


def test_row_groups_without_a_wanted_row_are_not_read(
    sharded: tuple[ParquetSource, list[bytes]], tmp_path: Path
) -> None:
    source, images = sharded
    file = tmp_path / "train-0.parquet"
    data = bytearray(source.files[0].read_bytes())
    column = pq.ParquetFile(source.files[0]).metadata.row_group(2).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(data)
    broken = ParquetSource((file,))
    sound = np.array([0, 49, 50, 99, 150, 299])
    assert list(broken.images(sound)) == [(row, images[row]) for row in sound.tolist()]
    for rows in ([100], [99, 149]):
        message = refusal(list, broken.images(np.array(rows)))
        assert f"{file} cannot be read as Parquet" in message


def test_a_row_in_words(sharded: tuple[ParquetSource, list[bytes]]) -> None:
    source, _ = sharded
    folder = source.files[0].parent.name
    for row, words in ((0, "row 0 of {}/train-0"), (299, "row 299 of {}/train-0"),
                       (300, "row 0 of {}/train-1"), (699, "row 279 of {}/train-2")):  # fmt: skip
        assert source.describe(row) == words.format(folder) + ".parquet"


# --------------------------------------------------------------------------- labels


def test_declared_names_and_raw_numbers(task_dir: Path, cache: Path, tmp_path: Path) -> None:
    declared = load_task(f"parquet:{task_dir}", cache)
    assert declared.classes == tuple(f"kind {i}" for i in range(6))
    assert (len(declared.train), len(declared.test)) == (96, 72)
    bare = load_task(f"parquet:{write_column(tmp_path / 'bare', LABELS)}", cache)
    assert bare.classes == ("class 0", "class 1")
    assert Counter(bare.train.labels.tolist()) == {0: 4, 1: 4}
    assert declared.notes == bare.notes == ()
    assert not declared.subset


def test_a_declaration_names_numbered_classes(cache: Path, tmp_path: Path) -> None:
    folder = write_column(tmp_path / "bare", LABELS)
    train, test = (ParquetSource((folder / f"{part}-0.parquet",)) for part in ("train", "test"))
    for names, found in (
        (("ash", "beech"), ("ash", "beech")),
        (("ash", "beech", "birch"), ("class 0", "class 1")),  # others, it seems
    ):
        located = Located("trees", "here", "", "task 'trees'", Parts(train, test, names))
        assert load(located, cache).classes == found


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array(["dog"] * 4 + ["cat"] * 4), ("cat", "dog")),
        (pa.array(["dog"] * 4 + ["cat"] * 4, pa.large_string()), ("cat", "dog")),
        (pa.array(["dog"] * 4 + ["cat"] * 4).dictionary_encode(), ("cat", "dog")),
        (pa.array([True] * 4 + [False] * 4), ("class 0", "class 1")),
        (pa.array([1] * 4 + [0] * 4, pa.uint8()), ("class 0", "class 1")),
        (pa.array([2] * 4 + [0] * 4), ("class 0", "class 1", "class 2")),
        (pa.array(["10"] * 4 + ["9"] * 4), ("10", "9")),
    ],
)
def test_label_columns(
    labels: pa.Array, classes: tuple[str, ...], cache: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # afresh, then from the memo
        task = load_task(f"parquet:{write_column(tmp_path / 'x', labels)}", cache)
        assert task.classes == classes
        value = {hash_of(b): v for b, v in zip(IMAGES, labels.to_pylist(), strict=True)}
        for key, label in zip(task.train.hashes, task.train.labels, strict=True):
            seen = value[key.tobytes()]
            assert classes[label] == seen if isinstance(seen, str) else label == seen


NAMED: dict[str, Any] = {"label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}


@pytest.mark.parametrize(
    ("train", "train_names", "test", "test_names", "classes"),
    [
        (LABELS, NAMED, LABELS, {}, ("dog", "cat")),
        (LABELS, {}, LABELS, NAMED, ("dog", "cat")),
        (["dog"] * 4 + ["cat"] * 4, {}, LABELS, NAMED, ("dog", "cat")),
        (LABELS, NAMED, ["dog"] * 4 + ["cat"] * 4, {}, ("dog", "cat")),
        (["0"] * 4 + ["1"] * 4, {}, LABELS, {}, ("0", "1")),
        (["9"] * 4 + ["10"] * 4, {}, [9] * 4 + [10] * 4, {}, ("10", "9")),
    ],
)
def test_names_and_numbers_on_the_two_sides_mean_the_same(
    train: Any, train_names: Any, test: Any, test_names: Any,
    classes: tuple[str, ...], cache: Path, tmp_path: Path,
) -> None:  # fmt: skip
    write_column(tmp_path / "x", train, part="train", **train_names)
    write_column(tmp_path / "x", test, part="test", **test_names)
    task = load_task(f"parquet:{tmp_path / 'x'}", cache)
    assert task.classes == classes
    assert task.duplicates == 8
    assert np.array_equal(task.train.labels, task.test.labels)  # the same images on both sides


NOT_LABELS = [
    (
        [None, *LABELS[1:]],
        "unlabelled: 1 of 8 images of train (no label), the first is row 0 of x/train-0.parquet; "
        "label them or take them out",
    ),
    ([*["a"] * 4, None, *["None"] * 3], "unlabelled: 1 of 8 images of train (no label)"),
    ([-1, *LABELS[1:]], "unlabelled: 1 of 8 images of train (label -1), the first is row 0"),
    ([*["a"] * 4, "nan", *["b"] * 3], "unlabelled: 1 of 8 images of train (label 'nan')"),
    ([*["a"] * 4, "", *["b"] * 3], "unlabelled: 1 of 8 images of train (label '')"),
    (["-1", *["0"] * 4, *["1"] * 3], "unlabelled: 1 of 8 images of train (label '-1')"),
    ([-2, *LABELS[1:]], "label -2 in row 0 of train is outside 0..1"),
    ([0] * 8, "all 8 images of train have label 0; at least two classes are needed"),
    (["x"] * 8, "all 8 images of train have label 0; at least two classes are needed"),
    ([0.5] * 8, "label 0.5 of row 0 of x/train-0.parquet is neither a class number"),
    ([0.0, float("nan"), *[1.0] * 6], "unlabelled: 1 of 8 images of train (no label)"),
    ([0.0, float("inf"), *[1.0] * 6], "label inf of row 1"),
    (
        [[0], [1]] * 4,
        "label [0] of row 0 of x/train-0.parquet is neither a class number nor a "
        "string but a list; give each image one label, or, where they have several, name the "
        "column as labels=",
    ),
    (["cat", "dog", "cat|dog", "cat"] * 2, "label 'cat|dog' names several classes"),
    ([{"a": 1}] * 8, "label {'a': 1} of row 0"),
    ([b"a", b"b"] * 4, "label b'a' of row 0"),
    (pa.array([0, 1, 2**63, 1] * 2, pa.uint64()), "label 9223372036854775808 of row 2"),
    ([0, 1, 1_700_000_000, 1] * 2, "label 1700000000 of row 2"),
]


@pytest.mark.parametrize(("labels", "why"), NOT_LABELS)
def test_labels_refused(labels: Any, why: str, cache: Path, tmp_path: Path) -> None:
    folder = write_column(tmp_path / "x", labels)
    for _ in range(2):  # afresh, then from the memo where there is one
        assert why in refusal(lambda: load_task(f"parquet:{folder}", cache))


@pytest.mark.parametrize(("label", "limits"), [(2, "outside 0..1"), (-2, "outside 0..1")])
def test_a_label_beyond_the_declared_names(
    label: int, limits: str, cache: Path, tmp_path: Path
) -> None:
    write_column(tmp_path / "x", LABELS, part="train", **NAMED)
    write_column(tmp_path / "x", [*LABELS[:7], label], part="test", **NAMED)
    message = refusal(lambda: load_task(f"parquet:{tmp_path / 'x'}", cache))
    assert f"label {label} in row 7 of test is {limits}" in message


def test_a_string_that_train_has_not(cache: Path, tmp_path: Path) -> None:
    write_column(tmp_path / "x", ["a", "b"] * 4, part="train")
    write_column(tmp_path / "x", ["a", "c"] * 4, part="test")
    message = refusal(lambda: load_task(f"parquet:{tmp_path / 'x'}", cache))
    assert "label 'c' in row 1 of test is not a class of train" in message


def test_names_that_differ_between_the_splits_or_between_shards(
    cache: Path, tmp_path: Path
) -> None:
    other: dict[str, Any] = {"label": {"_type": "ClassLabel", "names": ["cat", "cow"]}}
    write_column(tmp_path / "x", LABELS, part="train", **NAMED)
    write_column(tmp_path / "x", LABELS, part="test", **other)
    message = refusal(lambda: load_task(f"parquet:{tmp_path / 'x'}", cache))
    assert "train and test declare different class names: test has 'cow', which" in message

    write_column(tmp_path / "y", LABELS, **NAMED)
    (tmp_path / "x" / "test-0.parquet").rename(tmp_path / "y" / "train-1.parquet")
    message = refusal(lambda: load_task(f"parquet:{tmp_path / 'y'}", cache))
    assert f"{tmp_path / 'y' / 'train-1.parquet'} declares other class names" in message


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat"]])
def test_declared_names_in_another_order_are_matched_by_name(
    names: list[str], cache: Path, tmp_path: Path
) -> None:
    """Number 0 is a dog in train and a cat in test."""
    other: dict[str, Any] = {"label": {"_type": "ClassLabel", "names": names}}
    labels = [1, 0] * 4 if len(names) == 2 else [0] * 8
    images = blobs(5, 8, 5, size=6)
    write_column(tmp_path / "x", LABELS, part="train", **NAMED)
    cells = [{"bytes": b, "path": None} for b in images]
    write_column(tmp_path / "x", labels, cells, part="test", **other)
    if len(names) == 1:  # all cats
        assert "all 8 images of test have label 1" in refusal(
            load_task, f"parquet:{tmp_path / 'x'}", cache
        )
        return
    task = load_task(f"parquet:{tmp_path / 'x'}", cache)
    value = {hash_of(b): names[v] for b, v in zip(images, labels, strict=True)}
    found = [task.classes[v] for v in task.test.labels.tolist()]
    assert found == [value[key.tobytes()] for key in task.test.hashes]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0.0] * 4 + [1.0] * 4, ("class 0", "class 1")),
        (["2.0"] * 4 + ["10.0"] * 4, ("10", "2")),
        (["1.5"] * 4 + ["10.0"] * 4, ("1.5", "10.0")),
        (["-1"] * 4 + ["none"] * 4, ("-1", "none")),
        (["cafe\u0301"] * 2 + ["caf\u00e9"] * 2 + ["bar"] * 4, ("bar", "caf\u00e9")),
        (["cafe\u0301"] * 4 + ["bar"] * 4, ("bar", "cafe\u0301")),
        (["apple, red"] * 4 + ["apple, green"] * 4, ("apple, green", "apple, red")),
    ],
)
def test_labels_as_they_were_meant(
    labels: list[Any], classes: tuple[str, ...], cache: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # afresh, then from the memo
        task = load_task(f"parquet:{write_column(tmp_path / 'x', labels)}", cache)
        assert task.classes == classes
        assert np.bincount(task.train.labels).tolist() == [4, 4]


# --------------------------------------------------------------------------- Parquet


def test_other_column_names_and_plain_binary_images(cache: Path, tmp_path: Path) -> None:
    for name, images in (("a", IMAGES), ("b", pa.array(IMAGES, pa.large_binary()))):
        (tmp_path / name).mkdir()
        for part in ("train", "test"):
            table = pa.table({"y": LABELS, "other": LABELS, "img": images})
            pq.write_table(table, tmp_path / name / f"{part}.parquet")
        task = load_task(f"parquet:{tmp_path / name}?image=img&label=y", cache)
        assert sorted(contents(task.train)) == sorted(IMAGES)
        assert load_task(task.where, cache).split_hash == task.split_hash


def test_validation_stands_in_for_a_missing_test(cache: Path, tmp_path: Path) -> None:
    write_column(tmp_path / "x", LABELS, part="train")
    write_column(tmp_path / "x", LABELS, part="validation")
    assert len(load_task(f"parquet:{tmp_path / 'x'}", cache).test) == 8
    write_column(tmp_path / "x", LABELS[2:6], part="test", images=IMAGES[2:6])
    both = load_task(f"parquet:{tmp_path / 'x'}", cache)
    assert (len(both.train), len(both.test)) == (16, 4)
    order = np.argsort(both.train.rows)
    assert both.train.rows[order].tolist() == list(range(16))
    assert sorted(contents(both.train)) == sorted(IMAGES * 2)
    value = {hash_of(b): v for b, v in zip(IMAGES, LABELS, strict=True)}
    assert [value[k.tobytes()] for k in both.train.hashes] == both.train.labels.tolist()


def test_an_unlabelled_test_says_what_to_score_instead(cache: Path, tmp_path: Path) -> None:
    write_column(tmp_path / "x", LABELS, part="train", **NAMED)
    write_column(tmp_path / "x", LABELS, part="validation", **NAMED)
    write_column(tmp_path / "x", [-1] * 8, part="test", **NAMED)
    said = refusal(load_task, f"parquet:{tmp_path / 'x'}", cache)
    assert "unlabelled: all 8 images of test (label -1); score another part with" in said
    assert said.endswith("such as ?test=validation")
    task = load_task(f"parquet:{tmp_path / 'x'}?test=validation", cache)
    assert load_task(task.where, cache).split_hash == task.split_hash
    assert task.inventory.warnings() == ()


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001", "{}/0000", "{}/0000-of-0001"])
def test_as_a_copy_of_the_hub_lies(layout: str, cache: Path, tmp_path: Path) -> None:
    write_column(tmp_path / "x", LABELS)
    plain = load_task(f"parquet:{tmp_path / 'x'}", cache)
    for part in ("train", "test"):
        place = tmp_path / "y" / f"{layout.format(part)}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / f"{part}-0.parquet").rename(place)
    assert load_task(f"parquet:{tmp_path / 'y'}", cache).split_hash == plain.split_hash


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train-00000-of-00002", "test-0"],
         "has 1 of the 2 shards of train: train-00001-of-00002 is missing; fetch them"),
        (["train-00001-of-00002", "train-00002-of-00002", "test-0"], ""),  # counted from 1
        (["train-00001-of-00003", "train-00003-of-00003", "test-0"],
         "has 2 of the 3 shards of train: train-00002-of-00003 is missing"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002", "test-0"],
         "has train-00000-of-00001.parquet and train-00000-of-00002.parquet, two writings of one"),
        (["train-00000-of-00001-aa", "train-00000-of-00001-bb", "test-0"],
         "has train-00000-of-00001-aa.parquet and train-00000-of-00001-bb.parquet, two writings"),
        (["train", "train-0", "test-0"], "has train-0.parquet and train.parquet, two writings"),
        (["train-00000-of-00001", "train-0", "test-0"], "two writings of one part; take one"),
        (["train-0", "Training-0", "test-0"], "has Training and train; say which with ?train=NAME"),
        (["train-0", "val-0", "dev-0"], "has dev and val; say which with ?train=NAME&test=NAME"),
        (["train-0", "train-1", "TEST-0"], ""),
    ],
)  # fmt: skip
def test_shards(names: list[str], said: str, cache: Path, tmp_path: Path) -> None:
    write_column(tmp_path / "x", LABELS, part="train")
    (tmp_path / "y").mkdir()
    for name in names:
        shutil.copy(tmp_path / "x" / "train-0.parquet", tmp_path / "y" / f"{name}.parquet")
    text = f"parquet:{tmp_path / 'y'}"
    if said:
        assert said in refusal(load_task, text, cache)
        return
    task = load_task(text, cache)
    assert len(task.train) == 8 * (len(names) - 1)
    assert task.inventory.found == task.inventory.taken == len(names)


def test_parts_that_are_not_used_are_said(cache: Path, tmp_path: Path) -> None:
    for part in ("train", "test", "validation", "unsupervised"):
        write_column(tmp_path / "x", LABELS, part=part)
    found = load_task(f"parquet:{tmp_path / 'x'}", cache).inventory
    assert (found.found, found.taken) == (4, 3)
    assert found.warnings() == (
        "validation is what settings are chosen on, and trained on with train in the end",
        "left out: of part unsupervised (1: unsupervised-0.parquet)",
    )


@pytest.mark.parametrize("form", ["{}_{}", "{}-{}", "{}_{:04d}", "seg_{}_{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbered_files_are_shards_of_one_part(
    form: str, first: int, cache: Path, tmp_path: Path
) -> None:
    """train_0 to train_3 beside one test_0: not one file in four."""
    write_column(tmp_path / "x", LABELS)
    plain = load_task(f"parquet:{tmp_path / 'x'}", cache)
    (tmp_path / "y").mkdir()
    halved = [(part, half) for part in ("train", "test") for half in (0, 1)]
    for part, half in halved:
        rows = slice(half, None, 2)
        write_column(tmp_path / "z", LABELS[rows], part=part, images=IMAGES[rows])
        place = tmp_path / "y" / f"{form.format(part, first + half)}.parquet"
        (tmp_path / "z" / f"{part}-0.parquet").rename(place)
    task = load_task(f"parquet:{tmp_path / 'y'}", cache)
    assert task.split_hash == plain.split_hash
    assert (task.inventory.found, task.inventory.taken) == (4, 4)
    said = task.inventory.warnings()
    assert len(said) == (0 if "-" in form else 2)
    assert all("are taken as the shards of one part" in one for one in said)
    one = f"?train={form.format('train', first)}&test={form.format('test', first)}"
    if "-" not in form:  # named as a part of its own, one file is that
        alone = load_task(f"parquet:{tmp_path / 'y'}{one}", cache)
        assert (len(alone.train), len(alone.test)) == (4, 4)
        assert alone.inventory.warnings() == ()
        assert load_task(alone.where, cache).split_hash == alone.split_hash
        half = load_task(f"parquet:{tmp_path / 'y'}{one.partition('&')[0]}", cache)
        assert half.split_hash == alone.split_hash
        assert [w[:12] for w in half.inventory.warnings()] == ["left out: of"]


def test_ten_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("test_0", *(f"train_{number}" for number in range(11))):
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    found = read_shards(tmp_path)
    assert [file.stem for file in found.train] == [f"train_{number}" for number in range(11)]
    assert found.inventory.said == (
        "train_0.parquet to train_10.parquet are taken as the shards of one part, train",
    )


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["train_0", "train_2", "test_0"], "train_2"),  # a gap
        (["train_2014", "train_2017", "test_2017"], "train_2014"),  # years are parts
        (["train", "test", "extra_train"], "extra_train"),
        (["train", "test", "test_more"], "test_more"),
    ],
)
def test_what_could_be_train_or_test_is_not_left_out_in_silence(
    names: list[str], left: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    (warning,) = read_shards(tmp_path).inventory.warnings()
    assert warning == f"left out: of part {left} (1: {left}.parquet)"
    train, test = sorted({*names} - {left}, reverse=True)
    assert read_shards(tmp_path, "", Given(train, test)).inventory.warnings() == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train_2014", "train_2017", "val_2014", "val_2017"], "has train_2014 and train_2017"),
        (["train", "train_0", "test_0"], "train.parquet and train_0.parquet, two writings"),
        (["train-0", "train_0", "test-0"], "train-0.parquet and train_0.parquet, two writings"),
    ],
)
def test_numbers_that_are_no_shards(names: list[str], said: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    assert said in refusal(read_shards, tmp_path)


def test_a_split_of_the_hub_that_is_not_used_is_said(
    hub: LoopbackHub, cache: Path, tmp_path: Path
) -> None:
    write_column(tmp_path / "x", LABELS)
    files = {
        f"data/{name}-00000-of-00001.parquet": (tmp_path / "x" / f"{part}-0.parquet").read_bytes()
        for name, part in (("train", "train"), ("extra_train", "train"), ("test", "test"))
    }
    hub.add_dataset("org/more", files)
    found = locate("hub:org/more", cache)
    assert found.inventory.warnings() == ("not used beside train and test: 'extra_train'",)
    assert locate("hub:org/more?train=train&test=test", cache).inventory.warnings() == ()


def test_an_empty_shard_is_no_harm(cache: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "x", "train", list(zip(IMAGES, LABELS, strict=True)), [0, 4, 4])
    write_column(tmp_path / "x", LABELS, part="test")
    assert len(load_task(f"parquet:{tmp_path / 'x'}", cache).train) == 8


def test_where_finds_the_data_from_another_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(tmp_path / "photos", classes=2, train=2, test=2)
    to_folders(tmp_path / "pictures", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    tasks = [load_task(t, cache) for t in ("parquet:photos", "imagefolder:./pictures")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for task in tasks:
        again = load_task(task.where, cache)
        assert (again.split_hash, again.name) == (task.split_hash, task.name)


def test_users_tasks_are_named_by_their_content(cache: Path, tmp_path: Path) -> None:
    one, two = (
        load_task(f"parquet:{make_task(tmp_path / f / 'my photos', 2, 3, 3, seed)}", cache)
        for f, seed in (("a", 0), ("b", 1))
    )
    assert re.fullmatch(r"parquet-my-photos-[0-9a-f]{8}", one.name)
    assert one.name != two.name
    copy = shutil.copytree(tmp_path / "a" / "my photos", tmp_path / "c" / "my photos")
    assert load_task(f"parquet:{copy}", cache).name == one.name


def unreadable(folder: Path, content: bytes) -> Path:
    write_column(folder, LABELS)
    (folder / "test-0.parquet").write_bytes(content)
    return folder


def flipped(folder: Path, at: float) -> Path:
    """A Parquet file whose footer is sound and whose pages are not."""
    write_column(folder, LABELS)
    file = folder / "train-0.parquet"
    data = bytearray(file.read_bytes())
    body = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    start = 4 + int(at * (body - 60))
    data[start : start + 30] = b"\xff" * 30
    file.write_bytes(data)
    return folder


def no_rows(folder: Path) -> Path:
    write_column(folder, LABELS, part="train")
    return write_column(folder, pa.array([], pa.int64()), pa.array([], pa.binary()), "test")


def null_image(folder: Path) -> Path:
    """The first file of train is sound; the null stands in the second."""
    write_column(folder, LABELS)
    images = [*IMAGES[:2], None, *IMAGES[3:]]
    write_column(folder, LABELS, pa.array(images, pa.binary()), "train")
    (folder / "train-0.parquet").rename(folder / "train-1.parquet")
    return write_column(folder, LABELS, part="train")


def null_bytes(folder: Path) -> Path:
    cells = [{"bytes": b, "path": None} for b in IMAGES[:7]] + [{"bytes": None, "path": "a.png"}]
    return write_column(folder, LABELS, cells)


def named_otherwise(folder: Path) -> Path:
    write_column(folder, LABELS)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"fold{number}-0.parquet")
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no folder": (lambda f: f, "", "/x' does not exist or is not a directory"),
    "a file": (lambda f: f.write_text("x"), "", "/x' does not exist or is not a directory"),
    "no Parquet": (lambda f: f.mkdir(), "", "no train-*.parquet; it holds no Parquet file at all"),
    "other names": (named_otherwise, "", "it holds fold0-0.parquet, fold1-0.parquet"),
    "no test": (
        lambda f: write_column(f, LABELS, part="train"),
        "",
        "has no test-*.parquet; it holds train-0.parquet",
    ),
    "no image column": (
        lambda f: write_column(f, LABELS),
        "?image=img",
        "train-0.parquet has no image column 'img'; its columns are image, label",
    ),
    "no label column": (
        lambda f: write_column(f, LABELS),
        "?label=y",
        "train-0.parquet has no label column 'y'; its columns are image, label",
    ),
    "labels as images": (
        lambda f: write_column(f, LABELS),
        "?image=label",
        "column 'label' of {}/train-0.parquet is of type int64, not encoded images",
    ),
    "images as labels": (
        lambda f: write_column(f, LABELS, IMAGES),
        "?label=image",
        "of row 0 of x/train-0.parquet is neither a class number",
    ),
    "paths as images": (
        lambda f: write_column(f, LABELS, ["a.png"] * 8),
        "",
        "column 'image' of {}/train-0.parquet is of type string, not encoded images",
    ),
    "structs without bytes": (
        lambda f: write_column(f, LABELS, [{"path": "a.png"}] * 8),
        "",
        "is of type struct<path: string>, not encoded images",
    ),
    "null image": (null_image, "", "row 2 of {}/train-1.parquet holds no image bytes"),
    "null bytes": (null_bytes, "", "row 7 of {}/train-0.parquet holds no image bytes"),
    "empty test": (no_rows, "", "the test split is empty"),
    "no bytes": (lambda f: unreadable(f, b""), "", "{}/test-0.parquet cannot be read as Parquet"),
    "not Parquet": (
        lambda f: unreadable(f, b"image,label\n" * 99),
        "",
        "{}/test-0.parquet cannot be read as Parquet",
    ),
    "first page": (lambda f: flipped(f, 0), "", "{}/train-0.parquet cannot be read as Parquet"),
    "last page": (lambda f: flipped(f, 1), "", "{}/train-0.parquet cannot be read as Parquet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parquet_refused(case: str, cache: Path, tmp_path: Path) -> None:
    make, options, why = REFUSED[case]
    make(tmp_path / "x")
    message = refusal(lambda: load_task(f"parquet:{tmp_path / 'x'}{options}", cache))
    assert why.format(tmp_path / "x") in message


def test_a_truncated_file_is_refused_wherever_it_ends(cache: Path, tmp_path: Path) -> None:
    folder = write_column(tmp_path / "x", LABELS)
    whole = (folder / "train-0.parquet").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (folder / "train-0.parquet").write_bytes(whole[: int(share * len(whole))])
        message = refusal(lambda: load_task(f"parquet:{folder}", cache))
        assert "train-0.parquet cannot be read as Parquet" in message


# --------------------------------------------------------------------------- declared tasks


def test_declared_tasks_need_their_folder(cache: Path, tmp_path: Path) -> None:
    missing = refusal(lambda: load_task("eurosat", cache, tmp_path / "no"))
    assert f"--data '{tmp_path / 'no'}' does not exist" in missing
    assert "it holds no folders" in refusal(lambda: load_task("eurosat", cache, tmp_path))
    for name in ("dtd", "svhn"):
        (tmp_path / name).mkdir()
    message = refusal(lambda: load_task("eurosat", cache, tmp_path))
    assert "has no folder 'eurosat'; it holds dtd, svhn; get EuroSAT_RGB.zip" in message
    assert "`transfer-eval prepare eurosat --source FOLDER --out DIR`" in message
    message = refusal(lambda: load_task("kaokore", cache))  # no copy on the Hub may exist
    assert message.startswith("task 'kaokore' is not at hand: no copy on the Hub is known; get the")


def test_other_images_under_a_declared_name_are_refused(cache: Path, tmp_path: Path) -> None:
    folder = make_task(tmp_path / "eurosat", classes=10, train=2, test=2)
    (folder / MANIFEST).unlink()
    message = refusal(lambda: load_task("eurosat", cache, tmp_path))
    assert "not a copy of 'eurosat' that is known: it has 10 classes, 20 train and 20" in message
    assert "where the known copy has 10 classes, 2,500 and 800, and no manifest.json" in message
    assert f"score it under a name of its own as parquet:{folder}" in message
    assert load_task(f"parquet:{folder}", cache).name.startswith("parquet-eurosat-")


def test_a_part_of_a_declared_set_says_so(cache: Path, tmp_path: Path) -> None:
    make_task(tmp_path / "eurosat", classes=10, train=2, test=2)
    task = load_task("eurosat", cache, tmp_path)
    assert (task.name, task.split, task.subset) == ("eurosat", "study", True)
    assert task.notes == ("part of the official set",)
    assert load_task("eurosat@study", cache, tmp_path).split_hash == task.split_hash


def test_data_that_are_no_longer_what_was_frozen(cache: Path, tmp_path: Path) -> None:
    def message() -> str:
        return refusal(lambda: load_task("isic2018", cache, tmp_path))

    folder = make_task(tmp_path / "isic2018", classes=3, train=4, test=2)
    frozen = (folder / MANIFEST).read_text()
    assert load_task("isic2018", cache, tmp_path).split == "clean"
    assert "lacks images of 'isic2018', so that it has its 'clean' split alone" in refusal(
        lambda: load_task("isic2018@study", cache, tmp_path)
    )

    make_task(tmp_path / "other" / "x", classes=3, train=5, test=2)
    shutil.copy(tmp_path / "other" / "x" / "train-00000-of-00001.parquet", folder)
    assert "15 images in train, not 12 ('kind 0' 5, not 4, 'kind 1' 5, not 4" in message()
    make_task(tmp_path / "twin" / "x", classes=3, train=4, test=2, seed=9)
    shutil.copy(tmp_path / "twin" / "x" / "train-00000-of-00001.parquet", folder)
    assert "train-00000-of-00001.parquet has other bytes; prepare the set again" in message()
    make_task(tmp_path / "names" / "x", classes=4, train=4, test=2)
    for file in (tmp_path / "names" / "x").iterdir():
        shutil.copy(file, folder)
    assert "its classes are kind 0, kind 1, kind 2, kind 3, not kind 0, kind 1, kind 2" in message()

    make_task(tmp_path / "isic2018", classes=3, train=4, test=2)
    for change, why in (
        (lambda m: m.replace('"isic2018"', '"dtd"'), "is about 'dtd', not 'isic2018'"),
        (lambda m: m.replace('"partial": true', '"partial": false'), "has the classes kind 0"),
        (
            lambda m: m.replace('"default"', '"defalt"'),
            "is not a manifest of a prepared data set",
        ),
        (lambda m: m[:50], "is not a manifest of a prepared data set (Unterminated string"),
        (lambda m: m.replace('"clean"', '"study"', 1), "freezes no split 'study', only clean"),
    ):
        (folder / MANIFEST).write_text(change(frozen))
        assert why in message(), why


def test_a_known_copy_with_other_images_of_the_same_number(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_task(tmp_path / "dtd", classes=3, train=4, test=2)
    (folder / MANIFEST).unlink()
    known = load_task(f"parquet:{folder}", cache).split_hash
    for split_hash, why in ((known, ""), ("0" * 64, "are those of the known copy, but not the")):
        task = dataclasses.replace(TASKS["dtd"], subset=Subset(3, 12, 6, split_hash))
        monkeypatch.setitem(TASKS, "dtd", task)
        if why:
            assert why in refusal(lambda: load_task("dtd", cache, tmp_path))
            continue
        found = load_task("dtd", cache, tmp_path)
        assert (found.split, found.subset) == (SUBSET, True)
        assert "with a split of its own, so there is no 'study'" in refusal(
            lambda: load_task("dtd@study", cache, tmp_path)
        )


def test_embedded_tasks_need_no_folder(cache: Path) -> None:
    task = load_task("digits", cache)
    assert (len(task.classes), len(task.train), len(task.test)) == (10, 1258, 539)
    assert (task.notes, task.subset, task.where) == ((), False, "mini v1")


# --------------------------------------------------------------------------- image folders


def to_folders(root: Path, classes: Sequence[str], per_class: int = 5, seed: int = 0) -> Path:
    """root/CLASS/IMAGE, with some folders below a class."""
    for c, name in enumerate(classes):
        for i, image in enumerate(blobs(c, per_class, seed, size=6)):
            file = root / name / ("deeper" if i == 1 else "") / f"{i}.{'PNG' if i == 2 else 'png'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    return root


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_a_folder_with_train_and_test(test_name: str, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "my set"
    to_folders(root / "train", ["cat", "dog", "eel"])
    to_folders(root / test_name, ["dog", "eel"], per_class=3, seed=7)
    task = load_task(f"imagefolder:{root}", cache)
    assert task.classes == ("cat", "dog", "eel")
    assert re.fullmatch("imagefolder-my-set-[0-9a-f]{8}", task.name)
    assert Counter(task.train.labels.tolist()) == {0: 5, 1: 5, 2: 5}
    assert Counter(task.test.labels.tolist()) == {1: 3, 2: 3}  # train's numbers
    assert task.notes == ()
    for split in (task.train, task.test):
        assert isinstance(split.source, FolderSource)
        for row, label, image in zip(split.rows, split.labels, contents(split), strict=True):
            file = split.source.root / split.source.files[row]
            assert file.read_bytes() == image
            assert split.source.files[row].startswith(task.classes[label])
            assert split.source.describe(row) == f"file {file}"


def test_one_folder_is_split_by_class_and_says_so(cache: Path, tmp_path: Path) -> None:
    root = to_folders(tmp_path / "x", ["a", "b", "c"], per_class=20)
    task = load_task(f"imagefolder:{root}", cache)
    assert Counter(task.train.labels.tolist()) == {0: 14, 1: 14, 2: 14}
    assert Counter(task.test.labels.tolist()) == {0: 6, 1: 6, 2: 6}
    assert task.notes == ("one folder, split here: 70 % of each class to train, seed 0",)
    assert task.duplicates == 0
    assert sorted([*task.train.rows, *task.test.rows]) == list(range(60))
    assert (task.train.name, task.test.name) == ("train", "test")

    again, other = (load_task(f"imagefolder:{root}", cache, seed=s) for s in (0, 1))
    assert again.split_hash == task.split_hash != other.split_hash
    moved = root.rename(tmp_path / "moved")  # the draw goes by the images, not by their names
    for file in sorted(moved.glob("*/*.png")):
        file.rename(file.parent / f"{9 - int(file.stem):02}.png")
    assert load_task(f"imagefolder:{moved}", cache).split_hash == task.split_hash


def test_copies_never_stand_on_both_sides_of_one_folder(cache: Path, tmp_path: Path) -> None:
    root = to_folders(tmp_path / "x", ["a", "b", "c"], per_class=12)
    for i in range(8):  # under the same label, and under another
        (root / "a" / f"copy{i}.png").write_bytes((root / "a" / "0.png").read_bytes())
        shutil.copy(root / "a" / f"{i + 3}.png", root / "b" / f"a{i}.png")
        shutil.copy(root / "b" / f"{i + 3}.png", root / "c" / f"b{i}.png")
    for seed in range(6):
        task = load_task(f"imagefolder:{root}", cache, seed=seed)
        assert task.duplicates == 0
        assert len(task.train) + len(task.test) == 60


def test_hidden_files_are_no_images_and_no_classes(cache: Path, tmp_path: Path) -> None:
    root = to_folders(tmp_path / "x", ["a", "b"])
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "1.png").write_bytes(IMAGES[0])
    (root / "a" / "._1.png").write_bytes(b"what macOS leaves")
    (root / "a" / "notes.txt").write_text("not an image")
    task = load_task(f"imagefolder:{root}", cache)
    assert task.classes == ("a", "b")
    assert len(task.train) + len(task.test) == 10


def only_train(root: Path) -> None:
    to_folders(root / "train", ["a", "b"])


def no_class_in_test(root: Path) -> None:
    to_folders(root / "train", ["a", "b"])
    (root / "test").mkdir()


def new_class_in_test(root: Path) -> None:
    to_folders(root / "train", ["a", "b"])
    to_folders(root / "test", ["a", "z"])


FOLDERS_REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda r: None, "does not exist or is not a directory"),
    (lambda r: r.mkdir(), "has no class folders; expected"),
    (lambda r: (r / "a").mkdir(parents=True), "holds no image files such as .jpg or .png"),
    (lambda r: to_folders(r, ["a"]), "have label 0; at least two classes are needed"),
    (
        lambda r: to_folders(r, ["a", "b"], per_class=1),
        "no image is left to test on: every",
    ),
    (
        only_train,
        "has train/ but no part to score (test, val, validation, dev or eval)",
    ),
    (new_class_in_test, "test has classes that train has not: 'z'"),
    (no_class_in_test, "/x/test has no class folders"),
]


@pytest.mark.parametrize(("make", "why"), FOLDERS_REFUSED)
def test_folders_refused(
    make: Callable[[Path], Any], why: str, cache: Path, tmp_path: Path
) -> None:
    make(tmp_path / "x")
    assert why in refusal(lambda: load_task(f"imagefolder:{tmp_path / 'x'}", cache))


# --------------------------------------------------------------------------- the stratified part


def keys_of(pictures: Sequence[int]) -> np.ndarray:
    """One key a picture number, as Split.keys has them."""
    hashes = b"".join(hash_of(b"%d" % p) for p in pictures)
    return np.frombuffer(hashes, np.dtype((np.void, HASH_BYTES)))


labelled = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), min_size=1, max_size=80)


@given(labelled, st.floats(0.05, 0.95), st.integers(0, 2**32 - 1), st.randoms())
def test_stratified_part(rows: list[tuple[int, int]], share: float, seed: int, random: Any) -> None:
    labels, keys = np.array([c for _, c in rows]), keys_of([p for p, _ in rows])
    part = stratified_part(labels, keys, share, seed)
    assert part.shape == labels.shape
    sides: dict[int, set[bool]] = {}
    for (picture, _), side in zip(rows, part.tolist(), strict=True):
        sides.setdefault(picture, set()).add(side)
    assert all(len(s) == 1 for s in sides.values())  # copies on one side, whatever their labels

    classes: dict[int, set[int]] = {}
    for picture, label in rows:
        classes.setdefault(picture, set()).add(label)
    for label in range(5):
        own = {p for p, c in rows if c == label}
        if len([p for p in own if len(classes[p]) == 1]) >= 2:
            assert {side for p in own for side in sides[p]} == {True, False}

    order = list(range(len(rows)))
    random.shuffle(order)
    assert np.array_equal(stratified_part(labels[order], keys[order], share, seed), part[order])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.05, 0.95), st.integers(0, 9)
)
def test_stratified_part_takes_its_share_of_each_class(
    sizes: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    part = stratified_part(labels, keys_of(range(len(labels))), share, seed)
    for label, size in enumerate(sizes):
        taken = int(part[labels == label].sum())
        if size == 1:
            assert taken == 1
        else:
            assert taken == min(max(round(share * size), 1), size - 1)


def test_stratified_part_depends_on_the_seed_and_is_even() -> None:
    labels, keys = np.repeat([0, 1], 30), keys_of(range(60))
    parts = np.array([stratified_part(labels, keys, 0.5, seed) for seed in range(200)])
    assert len({p.tobytes() for p in parts}) == 200
    assert np.abs(parts.mean(0) - 0.5).max() < 0.2  # each image is as likely as another


# --------------------------------------------------------------------------- --limit


def test_limit_is_balanced_and_the_same_for_any_order(cache: Path, tmp_path: Path) -> None:
    rows = [(b, c) for c, n in enumerate((12, 7, 3)) for b in blobs(c, n, 0, size=6)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        write_shards(tmp_path / name, "train", order)
        write_shards(tmp_path / name, "test", order[:])
    whole = load_task(f"parquet:{tmp_path / 'a'}", cache)
    for limit, expected in (
        (2, {0: 1, 1: 1}),
        (7, {0: 3, 1: 2, 2: 2}),
        (12, {0: 5, 1: 4, 2: 3}),
        (20, {0: 10, 1: 7, 2: 3}),
    ):
        one, two = (load_task(f"parquet:{tmp_path / n}", cache, limit=limit) for n in "ab")
        assert Counter(one.train.labels.tolist()) == expected
        assert one.split_hash == two.split_hash != whole.split_hash
        assert one.notes == (f"limited to {limit} images a split",)
        assert (one.limit, one.subset, one.classes) == (limit, True, whole.classes)
        assert set(one.train.rows) <= set(whole.train.rows)
        images = {hash_of(b): c for b, c in rows}
        assert [images[h.tobytes()] for h in one.train.hashes] == one.train.labels.tolist()
        assert [hash_of(b) for b in contents(one.train)] == [h.tobytes() for h in one.train.hashes]
        keys = [h.tobytes() for h in one.train.hashes]
        assert keys == sorted(keys)


@pytest.mark.parametrize("limit", [22, 1000])
def test_a_limit_that_limits_nothing(limit: int, cache: Path, tmp_path: Path) -> None:
    make_task(tmp_path / "x", classes=2, train=11, test=5)
    task = load_task(f"parquet:{tmp_path / 'x'}", cache, limit=limit)
    assert (task.limit, task.subset, task.notes) == (None, False, ())


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        (0, "--limit must be at least 1, got 0"),
        (-3, "--limit must be at least 1, got -3"),
        (1, "with --limit 1: all 1 images of train have label 0"),
    ],
)
def test_limits_refused(limit: int, why: str, task_dir: Path, cache: Path) -> None:
    assert why in refusal(lambda: load_task(f"parquet:{task_dir}", cache, limit=limit))


# --------------------------------------------------------------------------- the memo


def overwrite(file: Path, content: bytes, *, unnoticed: bool) -> None:
    """Change a file's content; ``unnoticed`` keeps the size and time that the memo goes by."""
    before = file.stat()
    file.write_bytes(content)
    assert file.stat().st_size == before.st_size
    times = (before.st_atime_ns, before.st_mtime_ns + (0 if unnoticed else 1_000_000_000))
    os.utime(file, ns=times)


def memos(cache: Path) -> Iterator[Path]:
    return (cache / "splits").iterdir()


def test_a_second_load_reads_no_image(task_dir: Path, cache: Path) -> None:
    first = load_task(f"parquet:{task_dir}", cache)
    for file in task_dir.iterdir():
        overwrite(file, b"\0" * file.stat().st_size, unnoticed=True)
    second = load_task(f"parquet:{task_dir}", cache)
    assert second.split_hash == first.split_hash
    assert (second.classes, second.name) == (first.classes, first.name)
    assert np.array_equal(second.train.rows, first.train.rows)
    assert "cannot be read" in refusal(lambda: load_task(f"parquet:{task_dir}", cache / "other"))


def test_a_changed_file_is_read_again(task_dir: Path, cache: Path, tmp_path: Path) -> None:
    first = load_task(f"parquet:{task_dir}", cache)
    file = task_dir / "train-00000-of-00001.parquet"
    make_task(tmp_path / "other", seed=5)
    file.write_bytes((tmp_path / "other" / file.name).read_bytes())
    second = load_task(f"parquet:{task_dir}", cache)
    assert second.train.hash != first.train.hash
    assert second.test.hash == first.test.hash
    overwrite(file, b"\0" * file.stat().st_size, unnoticed=False)
    assert "cannot be read" in refusal(lambda: load_task(f"parquet:{task_dir}", cache))


def test_a_folder_is_read_again_when_one_image_changes(cache: Path, tmp_path: Path) -> None:
    root = to_folders(tmp_path / "x", ["a", "b"], per_class=8)
    first = load_task(f"imagefolder:{root}", cache)
    file = root / "a" / "0.png"
    changed = file.read_bytes()[:-1] + b"?"
    overwrite(file, changed, unnoticed=True)
    assert load_task(f"imagefolder:{root}", cache).split_hash == first.split_hash
    overwrite(file, changed, unnoticed=False)
    assert load_task(f"imagefolder:{root}", cache).split_hash != first.split_hash
    (root / "b" / "new.png").write_bytes(IMAGES[0])
    assert len(load_task(f"imagefolder:{root}", cache).classes) == 2
    task = load_task(f"imagefolder:{root}", cache)
    assert len(task.train) + len(task.test) == 17


def test_other_columns_of_one_file_have_a_memo_of_their_own(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for part in ("train", "test"):
        table = pa.table({"image": IMAGES, "label": LABELS, "fine": [0, 1, 2, 3] * 2})
        pq.write_table(table, tmp_path / "x" / f"{part}-0.parquet")
    coarse, fine = (
        load_task(f"parquet:{tmp_path / 'x'}?label={c}", cache) for c in ("label", "fine")
    )
    assert (len(coarse.classes), len(fine.classes)) == (2, 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not a memo",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data.replace(b"kind 3", b"kind\xff3"),
        lambda data: data.replace(b"hashes.npy", b"haches.npy"),
    ],
    ids=["empty", "text", "half", "a byte short", "a changed byte", "an array missing"],
)
def test_a_damaged_memo_is_made_again(
    damage: Callable[[bytes], bytes], task_dir: Path, cache: Path
) -> None:
    first = load_task(f"parquet:{task_dir}", cache)
    whole = {memo: memo.read_bytes() for memo in memos(cache)}
    assert len(whole) == 2
    for memo, data in whole.items():
        memo.write_bytes(damage(data))
        assert memo.read_bytes() != data
    second = load_task(f"parquet:{task_dir}", cache)
    assert (second.split_hash, second.classes) == (first.split_hash, first.classes)
    for memo in whole:
        with np.load(memo) as saved:
            assert len(saved["hashes"]) in (96, 72)


def test_data_that_are_refused_leave_no_split_behind(cache: Path, tmp_path: Path) -> None:
    folder = write_column(tmp_path / "x", [0.5, 1.5] * 4)
    refusal(lambda: load_task(f"parquet:{folder}", cache))
    assert not cache.exists()


# --------------------------------------------------------------------------- Hub data sets


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the Hub and its cache live as long as the session."""
    return f"data/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def as_upload(folder: Path) -> dict[str, bytes | str | Path | None]:
    return {f"data/{p.name}": p.read_bytes() for p in folder.iterdir()}


def on_hub(labels: list[Any], images: list[Any], feature: dict[str, Any]) -> bytes:
    """One Parquet file with columns img and y, as ``datasets`` uploads it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [b if b is None else {"bytes": b, "path": None} for b in images]
    table = pa.table({"img": pa.array(cells, kind), "y": labels})
    features = {"img": {"_type": "Image"}, "y": feature}
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


INT: dict[str, Any] = {"_type": "Value", "dtype": "int64"}


def test_a_hub_data_set_is_the_same_as_its_files(
    hub: LoopbackHub, repo: str, cache: Path, tmp_path: Path
) -> None:
    folder = make_task(tmp_path / "x", classes=3, train=6, test=4)
    first = hub.add_dataset(repo, as_upload(folder))
    task = load_task(f"hub:{repo}", cache)
    local = load_task(f"parquet:{folder}", cache)
    assert task.split_hash == local.split_hash
    assert (task.classes, task.revision) == (local.classes, first)
    assert contents(task.train) == contents(local.train)
    rows = np.array([1, 2, 17])
    assert [row for row, _ in task.train.source.images(rows)] == [1, 2, 17]
    assert re.fullmatch(rf"hub-{repo.replace('/', '--')}-[0-9a-f]{{8}}", task.name)

    second = hub.add_dataset(repo, as_upload(make_task(tmp_path / "y", 3, 6, 4, seed=9)))
    assert load_task(f"hub:{repo}", cache).revision == second != first
    for text in (task.where, f"hub:{repo}@{first}", f"hub:{repo}?revision={first}"):
        pinned = load_task(text, cache)
        assert (pinned.revision, pinned.split_hash) == (first, task.split_hash)
        assert (pinned.name, pinned.where) == (task.name, task.where)


def test_a_hub_data_set_with_other_columns_and_splits(
    hub: LoopbackHub, repo: str, cache: Path
) -> None:
    names = {"_type": "ClassLabel", "names": ["dog", "cat"]}
    file = on_hub(LABELS, IMAGES, names)
    hub.add_dataset(repo, {"data/train-0.parquet": file, "data/validation-0.parquet": file})
    task = load_task(f"hub:{repo}?image=img&label=y&test=validation", cache)
    assert task.classes == ("dog", "cat")
    assert sorted(contents(task.test)) == sorted(IMAGES)
    assert load_task(task.where, cache).split_hash == task.split_hash
    assert task.inventory.said == ()
    found = load_task(f"hub:{repo}?image=img&label=y", cache)
    assert found.split_hash == task.split_hash
    assert found.inventory.said == ("there is no test: validation is scored in its place",)
    for option, why in (
        ("image=img", "split 'train' of '{}' has no label column 'label'; its columns are img, y"),
        ("label=y", "has no image column 'image'"),
        ("image=y&label=y", "column 'y' of '{}' is ClassLabel(names=['dog', 'cat']), not images"),
        ("image=img&label=y&test=test", "has no 'test'; there are train, validation"),
        ("image=img&label=y&config=no", "BuilderConfig 'no' not found"),
    ):
        message = refusal(load_task, f"hub:{repo}?{option}", cache)
        assert why.format(repo) in message


@pytest.mark.parametrize(
    ("labels", "images", "feature", "why"),
    [
        (LABELS, [*IMAGES[:5], None, *IMAGES[6:]], INT, "row 5 of split 'train' of {} holds no im"),
        ([*LABELS[:7], -1], IMAGES, INT, "unlabelled: 1 of 8 images of train (label -1)"),
        ([*LABELS[:7], None], IMAGES, INT, "unlabelled: 1 of 8 images of train (no label)"),
        (
            [[c] for c in LABELS],
            IMAGES,
            {"_type": "List", "feature": INT},
            "label [0] of row 0 of split 'train' of {} is neither a class number",
        ),
    ],
)
def test_hub_data_refused(
    labels: list[Any], images: list[Any], feature: dict[str, Any], why: str,
    hub: LoopbackHub, repo: str, cache: Path,
) -> None:  # fmt: skip
    file = on_hub(labels, images, feature)
    hub.add_dataset(repo, {"train.parquet": file, "test.parquet": file})
    message = refusal(lambda: load_task(f"hub:{repo}?image=img&label=y", cache))
    assert why.format(repo) in message


def test_a_validation_split_of_the_hub_is_found_again(
    hub: LoopbackHub, repo: str, cache: Path, tmp_path: Path
) -> None:
    """Alike as files and on the Hub, also by ``where``, which names all three."""
    for number, part in enumerate(("train", "validation", "test")):
        cells = [{"bytes": b, "path": None} for c in range(2) for b in blobs(c, 4, number, size=6)]
        write_column(tmp_path / "x", LABELS, cells, part, **NAMED)
    hub.add_dataset(repo, as_upload(tmp_path / "x"))
    local, there = (load_task(t, cache) for t in (f"parquet:{tmp_path / 'x'}", f"hub:{repo}"))
    assert local.split_hash == there.split_hash == load_task(there.where, cache).split_hash
    assert there.where.endswith("&train=train&test=test&validation=validation")
    assert (len(there.train), len(there.test)) == (16, 8)
    assert len(contents(there.train)) == 16
    assert "row 0 of split 'validation'" in there.train.source.describe(8)
    assert local.inventory.said == there.inventory.said != ()
    alone = load_task(f"hub:{repo}?train=train&test=test", cache)
    assert (len(alone.train), alone.validation) == (8, None)


@pytest.mark.parametrize("images", ["struct", "bytes"])
def test_images_without_the_type_of_the_hub(
    images: str, hub: LoopbackHub, repo: str, cache: Path, tmp_path: Path
) -> None:
    """A plain struct of bytes and path, and plain bytes, as `parquet:` takes them."""
    cells = [{"bytes": b, "path": None} for b in IMAGES] if images == "struct" else IMAGES
    folder = write_column(tmp_path / "x", LABELS, cells)
    hub.add_dataset(repo, as_upload(folder))
    task = load_task(f"hub:{repo}", cache)
    assert task.split_hash == load_task(f"parquet:{folder}", cache).split_hash
    assert contents(task.train) == contents(load_task(f"parquet:{folder}", cache).train)


def test_hub_data_sets_that_cannot_be_had(hub: LoopbackHub, repo: str, cache: Path) -> None:
    def message(text: str) -> str:
        return refusal(lambda: load_task(f"hub:{text}", cache))

    assert f"the Hub has no dataset '{repo}-a'" in message(f"{repo}-a")
    hub.add_dataset(f"{repo}-b", {"README.md": "# no data"})
    assert f"data set '{repo}-b' does not load" in message(f"{repo}-b")
    hub.add_dataset(f"{repo}-c", {f"{repo.split('/')[1]}-c.py": "raise SystemExit"})
    assert "scripts are no longer supported" in message(f"{repo}-c")
    hub.add_dataset(f"{repo}-d", {"README.md": "x"}, private=True)
    assert "or it is private" in message(f"{repo}-d")
    hub.add_dataset(f"{repo}-e", {"train.parquet": b"x"}, gated=True)
    assert "gated" in message(f"{repo}-e")
    assert f"'{repo}-e' has no revision 'v9'" in message(f"{repo}-e@v9")
    hub.fail_next(99, 503, match=f"{repo}-f")
    assert "the Hub cannot be reached" in message(f"{repo}-f")
