"""Task strings, and the declared table held against the data it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.common.errors import UserError
from eval.data.load import load_task
from eval.data.split_rules import members, per_class
from eval.mini.factors import FACTOR_TASKS
from eval.protocols.episodes import Pool
from eval.tasks.declaration import CATALOG, SUBSET, Task, read_declaration
from eval.tasks.names import TaskName, parse_task
from eval.tasks.registry import SUITE_NOTES, SUITES, TASKS, suite_tasks
from tests.factories import refusal
from tests.tasks.facts import check_facts

PARSED = [
    ("eurosat", TaskName("declared", "eurosat")),
    ("digits", TaskName("declared", "digits")),
    ("isic2018@study", TaskName("declared", "isic2018", split="study")),
    ("isic2018@clean", TaskName("declared", "isic2018", split="clean")),
    ("flowers.toml", TaskName("file", "flowers.toml")),
    ("csv:a/list.csv", TaskName("csv", "a/list.csv")),
    (
        "csv:l.csv?image=file&label=dx&group=patient",
        TaskName("csv", "l.csv", "file", "dx", group="patient"),
    ),
    ("csv:l.csv?split=fold", TaskName("csv", "l.csv", split="fold")),
    ("parquet:photos", TaskName("parquet", "photos")),
    ("parquet:/a b/photos@2", TaskName("parquet", "/a b/photos@2")),
    ("parquet:C:\\photos", TaskName("parquet", "C:\\photos")),
    ("parquet:d?image=img", TaskName("parquet", "d", image="img")),
    ("parquet:d?label=y&image=img", TaskName("parquet", "d", image="img", label="y")),
    ("parquet:d?image=my%20image&label=a%26b", TaskName("parquet", "d", "my image", "a&b")),
    ("parquet:d?objects=things", TaskName("parquet", "d", objects="things")),
    ("coco:d", TaskName("coco", "d", train="", test="")),
    (
        "coco:d?train=a.json&test=b.json&images=my%20img",
        TaskName("coco", "d", train="a.json", test="b.json", images="my img"),
    ),
    ("voc:VOC2007", TaskName("voc", "VOC2007", train="", test="")),
    ("voc:d?classes=a,b", TaskName("voc", "d", train="", test="", classes="a,b")),
    ("yolo:d/data.yaml", TaskName("yolo", "d/data.yaml", train="", test="")),
    ("masks:d?classes=sky,road&void=0", TaskName("masks", "d", classes="sky,road", void="0")),
    ("voc-seg:VOC2012?test=val", TaskName("voc-seg", "VOC2012", test="val")),
    ("shift:eurosat=>csv:l.csv", TaskName("shift", "shift:eurosat=>csv:l.csv")),
    ("hub:org/name?labels=tags", TaskName("hub", "org/name", labels="tags")),
    (
        "csv:l.csv?labels=a,b&separator=;",
        TaskName("csv", "l.csv", labels="a,b", separator=";"),
    ),
    ("parquet:d?mask=m&group=drive", TaskName("parquet", "d", mask="m", group="drive")),
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
    ("qqqq", "see `transfer-eval list tasks`, or give your own data as imagefolder:DIR"),
    ("isic2018@", "'isic2018@' has '@' without a split"),
    ("isic2018@x", "names an unknown split; its splits are clean, study"),
    ("pacs_sketch@study", "names an unknown split; it has one split alone"),
    ("isic2017@study", "did you mean 'isic2018'"),
    ("csv:", "nothing behind the prefix"),
    ("shift:eurosat", "is no shift; use shift:TRAIN=>TEST, or --test-on TEST"),
    ("csv:l.csv?path=x", "unknown option 'path'"),
    ("mini", "'mini' is a suite: use --suite mini"),
    ("/data/photos", "give your own data as imagefolder:DIR, parquet:DIR, csv:FILE or a task"),
    ("parqet:d", "unknown prefix 'parqet'; did you mean 'parquet'?"),
    ("zip:d", "unknown prefix 'zip'; use parquet:DIR, imagefolder:DIR, csv:FILE or hub:org/name?"),
    ("C:\\photos", "unknown prefix 'C'"),
    ("parquet:", "nothing behind the prefix"),
    ("imagefolder:", "nothing behind the prefix"),
    ("hub:", "nothing behind the prefix"),
    ("parquet:?label=y", "nothing between the prefix and '?'"),
    ("hub:?label=y", "nothing between the prefix and '?'"),
    ("parquet:d?lable=y", "unknown option 'lable'; did you mean 'label' or 'labels'?"),
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
    suites = "suites are mini, transfer12, subsets, detection"
    for name, hint in (("minni", "did you mean 'mini'?"), ("q", suites)):
        with pytest.raises(UserError) as error:
            suite_tasks(name)
        assert str(error.value) == f"unknown suite {name!r}; {hint}"


# --------------------------------------------------------------------------- the table


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_declared_facts_are_whole(task: Task) -> None:
    check_facts(task)


def test_the_suite_of_the_study() -> None:
    """The counts of paper.md, section 2."""
    counts = {
        "cropdisease": (38, 43456, 10849), "deepweeds": (9, 12252, 5257),
        "eurosat": (10, 18900, 8100), "resisc45": (45, 22005, 9495), "chestx": (7, 18090, 7758),
        "isic2018": (7, 7007, 3008), "dtd": (47, 3760, 1880), "omniglot": (659, 9226, 3954),
        "svhn": (10, 73257, 26032), "kaokore": (8, 6568, 821), "sketch": (1000, 0, 0),
        "flowers102": (102, 2040, 6149),
    }  # fmt: skip
    assert SUITES["transfer12"] == tuple(counts)
    for name, (classes, train, test) in counts.items():
        task, study = TASKS[name], TASKS[name].split_named("study")
        assert (task.classes, study.train, study.test) == (classes, train, test)
        assert task.class_names
    # where images of one lesion or patient would be on both sides, another split is the default
    assert {n for n in counts if TASKS[n].splits[0].name == "clean"} == {"chestx", "isic2018"}
    assert all(TASKS[n].splits[0].why for n in ("chestx", "isic2018"))


def test_tasks_are_filed_under_their_own_names() -> None:
    assert all(name == task.name for name, task in TASKS.items())
    assert not TASKS.keys() & SUITES.keys()
    assert not [n for n in TASKS if ":" in n or "/" in n or "@" in n or n != n.lower()]
    assert {p.stem for p in CATALOG.glob("*.toml")} == {t.name for t in TASKS.values()
                                                        if not t.embedded}  # fmt: skip
    named = {p.name.removesuffix(".classes.txt") for p in CATALOG.glob("*.txt")}
    assert named <= TASKS.keys()


def test_suites_name_known_tasks_of_one_kind() -> None:
    assert SUITES.keys() == SUITE_NOTES.keys()
    for suite, names in SUITES.items():
        assert len(set(names)) == len(names)
        kind = "detection" if suite == "detection" else "classification"
        assert all(TASKS[n].kind == kind for n in names)
    assert set(SUITES["detection"]) == {n for n, t in TASKS.items() if t.kind == "detection"}
    assert set(SUITES["mini"]) == {"digits", *FACTOR_TASKS}
    assert all(TASKS[n].embedded for n in SUITES["mini"])
    assert len(SUITES["subsets"]) == 11
    assert all(TASKS[n].subset and not TASKS[n].embedded for n in SUITES["subsets"])


# ------------------------------------------------------------------- who is where, beforehand


def study_split(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The study's rule once more, plainly: official name -> part. Classes in their order."""
    random = np.random.RandomState(0)
    out = {}
    for names in groups.values():
        shuffled = list(names)
        random.shuffle(shuffled)
        share = int(0.7 * len(names))
        out |= dict.fromkeys(shuffled[:share], "train") | dict.fromkeys(shuffled[share:], "test")
    return out


def official_names(name: str) -> dict[str, list[str]]:
    """The files of the sets that number them, by class in the order of their folders."""
    task = TASKS[name]
    if name == "omniglot":  # characters 0965 to 1623, Syriac numbered before Sylheti
        alphabets = list(dict.fromkeys(c.split("/")[0] for c in task.class_names))
        alphabets.remove("Syriac_(Serto)")
        alphabets.insert(alphabets.index("Sylheti"), "Syriac_(Serto)")
        order = sorted(task.class_names, key=lambda c: (alphabets.index(c.split("/")[0]), c))
        number = {c: 965 + i for i, c in enumerate(order)}
        return {c: [f"{c}/{number[c]:04d}_{d:02d}" for d in range(1, 21)] for c in task.class_names}
    width = 3 if name == "resisc45" else 0
    return {
        c: sorted(f"{c}/{c}_{i:0{width}d}" for i in range(1, n + 1))
        for c, n in zip(task.class_names, task.per_class, strict=True)
    }


@pytest.mark.parametrize("name", ["eurosat", "resisc45", "omniglot"])
def test_frozen_members_are_those_of_the_rule(name: str) -> None:
    groups, rule = official_names(name), TASKS[name].split_named("study")
    plain = study_split(groups)
    assert members((part, n) for n, part in plain.items()) == rule.members
    names = [n for group in groups.values() for n in group]
    labels = [c for c, group in enumerate(groups.values()) for _ in group]
    in_train = per_class(labels)
    assert {n: "train" if t else "test" for n, t in zip(names, in_train, strict=True)} == plain
    assert (int(in_train.sum()), int((~in_train).sum())) == (rule.train, rule.test)


def test_the_copy_at_hand_bears_official_names(real_data: Path) -> None:
    """EuroSAT, RESISC45 and Omniglot: the names that the frozen members rest on are real."""
    for name in ("eurosat", "resisc45", "omniglot"):
        known = {n.rpartition("/")[2] for group in official_names(name).values() for n in group}
        for part in ("train", "test"):
            (file,) = (real_data / name).glob(f"{part}-*.parquet")
            cells = pq.ParquetFile(file).read(columns=["image.path"])["image"].to_pylist()
            ours = {Path(cell["path"]).stem for cell in cells}
            if name == "omniglot":  # the background set has the characters up to 0964
                ours = {n for n in ours if int(n[:4]) > 964}
            # two classes of this copy are called by names of its own (SOURCES.md)
            ours = {n for n in ours if not n.startswith(("farmland", "residential"))}
            assert ours <= known
            assert len(ours) > 300


# --------------------------------------------------------------------------- real data

REAL = [n for n, t in TASKS.items() if t.subset and t.kind == "classification"]
BOXES = [n for n, t in TASKS.items() if t.subset and t.kind == "detection"]  # tests/detection
MASKS = [n for n, t in TASKS.items() if t.subset and t.kind == "segmentation"]  # tests/data/masks
# /work/shared/data/SOURCES.md: byte-equal drawings 0192_03 and 0192_19, pictures image_07015 and
# image_07040, and n03770439_128 = val_5819. Elsewhere exact duplicates were dropped.
DUPLICATES = {"omniglot": 1, "flowers102": 1, "tiny_imagenet": 1}
# The last under two labels, as is the pair n04596742_342 = n04597913_232 within train.
AMBIGUOUS = {"tiny_imagenet": 4}


def test_every_real_data_set_is_declared(real_data: Path) -> None:
    there = {p.name for p in real_data.iterdir() if p.is_dir()}
    assert there == {*REAL, *BOXES, *MASKS}


@pytest.mark.parametrize("name", REAL)
def test_a_real_set_is_the_known_subset(name: str, real_data: Path, cache: Path) -> None:
    task, declared = load_task(name, cache, real_data), TASKS[name]
    known = declared.subset
    assert known is not None
    found = (len(task.classes), len(task.train), len(task.test))
    assert found == (known.classes, known.train, known.test)
    assert len(set(task.classes)) == known.classes
    for split in (task.train, task.test):  # no class is declared and absent
        assert np.array_equal(np.unique(split.labels), np.arange(known.classes))
    assert (task.notes, task.subset, task.split) == ((), True, SUBSET)
    assert task.declared is declared
    assert task.where == str((real_data / name).resolve())

    train = {h.tobytes() for h in task.train.hashes}
    assert task.duplicates == sum(h.tobytes() in train for h in task.test.hashes)
    assert task.duplicates == DUPLICATES.get(name, 0)
    assert Pool.of(task).ambiguous == AMBIGUOUS.get(name, 0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"subset": {"split_hash": "0" * 64}}, "'classes'"), ({"odd": 1}, "'odd'")],
)
def test_a_declaration_with_a_wrong_key_is_one_sentence(
    changes: dict[str, object], named: str
) -> None:
    whole = {
        "title": "Leaves", "domain": "plants", "classes": ["a", "b"], "images": 4,
        "licence": "MIT", "citation": "me", **changes,
    }  # fmt: skip
    sentence = refusal(read_declaration, "leaves", whole)
    assert "declaration of task 'leaves'" in sentence
    assert named in sentence
