"""Task strings, and the declared table held against the data it declares."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.data import load_task
from eval.errors import UserError
from eval.mini import FACTOR_TASKS
from eval.pool import Pool
from eval.tasks import SUITE_NOTES, SUITES, TASKS, TaskName, parse_task, suite_tasks

PARSED = [
    ("eurosat", TaskName("declared", "eurosat")),
    ("digits", TaskName("declared", "digits")),
    ("parquet:photos", TaskName("parquet", "photos")),
    ("parquet:/a b/photos@2", TaskName("parquet", "/a b/photos@2")),
    ("parquet:C:\\photos", TaskName("parquet", "C:\\photos")),
    ("parquet:d?image=img", TaskName("parquet", "d", image="img")),
    ("parquet:d?label=y&image=img", TaskName("parquet", "d", image="img", label="y")),
    ("parquet:d?image=my%20image&label=a%26b", TaskName("parquet", "d", "my image", "a&b")),
    ("imagefolder:photos", TaskName("imagefolder", "photos")),
    ("imagefolder:~/what?", TaskName("imagefolder", "~/what?")),
    ("hub:org/name", TaskName("hub", "org/name")),
    ("hub:org/name@v1", TaskName("hub", "org/name", revision="v1")),
    ("hub:org/name?revision=v1", TaskName("hub", "org/name", revision="v1")),
    ("hub:org/na.me-2?image=img&label=y", TaskName("hub", "org/na.me-2", "img", "y")),
    (
        "hub:org/name@abc?config=plain&train=training&test=validation",
        TaskName(
            "hub", "org/name", revision="abc", config="plain", train="training", test="validation"
        ),
    ),
]


@pytest.mark.parametrize(("text", "expected"), PARSED)
def test_parse(text: str, expected: TaskName) -> None:
    assert parse_task(text) == expected


NOT_PARSED = [
    ("", "unknown task ''"),
    ("eurosatt", "unknown task 'eurosatt'; did you mean 'eurosat'?"),
    ("EuroSAT ", "unknown task 'EuroSAT '"),
    ("qqqq", "see `transfer-eval list tasks`, or give your own data as parquet:DIR"),
    ("mini", "'mini' is a suite: use --suite mini"),
    ("/data/photos", "give your own data as parquet:DIR"),
    ("parqet:d", "unknown prefix 'parqet'; did you mean 'parquet'?"),
    ("zip:d", "unknown prefix 'zip'; use parquet:DIR, imagefolder:DIR or hub:org/name?image="),
    ("C:\\photos", "unknown prefix 'C'"),
    ("parquet:", "nothing behind the prefix"),
    ("imagefolder:", "nothing behind the prefix"),
    ("hub:", "nothing behind the prefix"),
    ("parquet:?label=y", "nothing between the prefix and '?'"),
    ("hub:?label=y", "nothing between the prefix and '?'"),
    ("parquet:d?lable=y", "unknown option 'lable'; did you mean 'label'?"),
    ("parquet:d?revision=y", "unknown option 'revision'; known: image, label"),
    ("hub:org/name?zzz=1", "unknown option 'zzz'; known: image, label, revision, config, train"),
    ("hub:org/name?image=", "option 'image' is empty"),
    ("hub:org/name?image", "option 'image' is empty"),
    ("hub:org/name@", "has '@' without a revision"),
    ("hub:name", "names no Hub data set"),
    ("hub:a/b/c", "names no Hub data set"),
    ("hub:org/my name", "names no Hub data set"),
    ("hub:https://huggingface.co/datasets/org/name", "names no Hub data set"),
]


@pytest.mark.parametrize(("text", "why"), NOT_PARSED)
def test_parse_refuses(text: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        parse_task(text)
    message = str(error.value)
    assert why in message
    assert repr(text) in message
    assert "\n" not in message


def test_unknown_suites() -> None:
    assert suite_tasks("mini") == SUITES["mini"]
    for name, hint in (("minni", "did you mean 'mini'?"), ("q", "suites are mini, subsets")):
        with pytest.raises(UserError) as error:
            suite_tasks(name)
        assert str(error.value) == f"unknown suite {name!r}; {hint}"


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_declared_facts_are_whole(task: object) -> None:
    facts = dataclasses.asdict(task)  # type: ignore[call-overload]
    for name in ("name", "title", "domain", "licence", "citation"):
        assert facts[name] == facts[name].strip() != "", name
    assert min(facts["classes"], facts["train"], facts["test"]) >= 2
    assert facts["train"] >= facts["classes"] or facts["kind"] == "detection"
    if facts["full"] is not None:
        classes, images = facts["full"]
        assert classes >= facts["classes"]
        assert images > facts["train"] + facts["test"]


def test_tasks_are_filed_under_their_own_names() -> None:
    assert all(name == task.name for name, task in TASKS.items())
    assert not TASKS.keys() & SUITES.keys()
    assert not [n for n in TASKS if ":" in n or "/" in n or n != n.lower()]


def test_suites_name_known_classification_tasks() -> None:
    assert SUITES.keys() == SUITE_NOTES.keys()
    for names in SUITES.values():
        assert len(set(names)) == len(names)
        assert all(TASKS[n].kind == "classification" for n in names)
    assert set(SUITES["mini"]) == {"digits", *FACTOR_TASKS}
    assert all(TASKS[n].embedded for n in SUITES["mini"])
    assert len(SUITES["subsets"]) == 11
    assert all(TASKS[n].subset and not TASKS[n].embedded for n in SUITES["subsets"])


# --------------------------------------------------------------------------- real data

REAL = [t.name for t in TASKS.values() if not t.embedded and t.kind == "classification"]
BOXES = [t.name for t in TASKS.values() if t.kind == "detection"]
# /work/shared/data/SOURCES.md: byte-equal drawings 0192_03 and 0192_19, pictures image_07015 and
# image_07040, and n03770439_128 = val_5819. Elsewhere exact duplicates were dropped.
DUPLICATES = {"omniglot": 1, "flowers102": 1, "tiny_imagenet": 1}
# The last under two labels, as is the pair n04596742_342 = n04597913_232 within train.
AMBIGUOUS = {"tiny_imagenet": 4}


def test_every_real_data_set_is_declared(real_data: Path) -> None:
    assert {p.name for p in real_data.iterdir() if p.is_dir()} == {*REAL, *BOXES}


@pytest.mark.parametrize("name", REAL)
def test_a_real_set_is_as_declared(name: str, real_data: Path, cache: Path) -> None:
    task, declared = load_task(name, cache, real_data), TASKS[name]
    found = (len(task.classes), len(task.train), len(task.test))
    assert found == (declared.classes, declared.train, declared.test)
    assert len(set(task.classes)) == declared.classes
    for split in (task.train, task.test):  # no class is declared and absent
        assert np.array_equal(np.unique(split.labels), np.arange(declared.classes))
    assert task.notes == ()
    assert task.subset
    assert task.declared is declared
    assert task.where == str((real_data / name).resolve())

    train = {h.tobytes() for h in task.train.hashes}
    assert task.duplicates == sum(h.tobytes() in train for h in task.test.hashes)
    assert task.duplicates == DUPLICATES.get(name, 0)
    assert Pool.of(task).ambiguous == AMBIGUOUS.get(name, 0)


@pytest.mark.parametrize("name", BOXES)
def test_a_real_detection_set_is_as_declared(name: str, real_data: Path, cache: Path) -> None:
    declared = TASKS[name]
    for part, count in (("train", declared.train), ("test", declared.test)):
        (file,) = (real_data / name).glob(f"{part}-*.parquet")
        parquet = pq.ParquetFile(file)
        assert parquet.metadata.num_rows == count
        info = json.loads(parquet.schema_arrow.metadata[b"huggingface"])
        boxes = info["info"]["features"]["objects"]
        category = boxes.get("feature", boxes)["category"]
        assert len(category.get("feature", category)["names"]) == declared.classes
    with pytest.raises(UserError, match=f"task '{name}' is a detection set"):
        load_task(name, cache, real_data)
