"""The declared tasks and suites: facts, no code.

Each data set is declared in ``eval/catalog/<task>.toml``. Its counts are those of the whole set as
the study uses it; smaller copies that are known are declared beside it, and every result on one
says so: a number on a subset must not be read as the number of the benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from eval.common.errors import UserError, did_you_mean
from eval.mini.factors import FACTOR_TASKS
from eval.settings.protocols import Kind

Rule = Literal["official", "per-class", "groups"]
CATALOG = Path(__file__).parent / "catalog"
SUBSET = "subset"  # the split of a known smaller copy: its own


@dataclass(frozen=True)
class SplitRule:
    """Who trains and who is tested. ``train`` and ``test`` count images; 0: not known yet."""

    name: str
    rule: Rule  # the authors' parts; the study's 70/30 a class; whole groups to one side
    train: int = 0
    test: int = 0
    train_per_class: tuple[int, ...] = ()
    test_per_class: tuple[int, ...] = ()
    members: str = ""  # eval.splits.members of the whole set, where it is known beforehand
    why: str = ""


@dataclass(frozen=True)
class HubCopy:
    """A Parquet copy of the set on the Hub, made by others."""

    repo: str
    revision: str  # a commit; its first seven digits where no more is known
    confidence: Literal["high", "medium", "low"]
    parts: tuple[str, ...] = ()  # Hub splits that together are the set
    train: tuple[str, ...] = ()  # or, where the authors' parts are used, those of each
    test: tuple[str, ...] = ()
    config: str = ""
    files: str = ""  # where the files must be named: a pattern with {part}
    image: str = "image"
    label: str = "label"
    name: str = ""  # column of the official file name
    group: str = ""
    single_of: tuple[str, ...] = ()  # label lists: rows with exactly one of these
    bytes: int = 0


@dataclass(frozen=True)
class Subset:
    """A smaller copy that is known by its hash."""

    classes: int
    train: int
    test: int
    split_hash: str = ""
    note: str = ""


@dataclass(frozen=True)
class Task:
    """One declared data set."""

    name: str
    title: str
    domain: str
    classes: int
    images: int
    licence: str
    citation: str
    splits: tuple[SplitRule, ...] = ()  # the first is the default
    subset: Subset | None = None
    hub: HubCopy | None = None
    per_class: tuple[int, ...] = ()  # images of the whole set by label
    names: tuple[str, ...] = ()  # of the classes, where they are few; else class_names reads them
    metric: str = "top1"
    home: str = ""
    on_hub: str = ""  # a repository of the Hub about the set, which is no usable copy
    download: str = ""  # which official files, from where
    share: Literal["yes", "private", "no"] = "private"  # may a copy be published?
    share_why: str = ""
    note: str = ""
    terms: str = ""  # where the licence can be read
    stand_in_for: str = ""
    pretrains: bool = False  # checkpoints that ship were trained on it: no transfer for them
    kind: Kind = "classification"
    embedded: bool = False  # made by eval.mini.suite on this machine, nothing to download

    @property
    def train(self) -> int:
        """Images to train on, in the default split; in the known subset where that is all."""
        return self.splits[0].train if self.splits else self.subset.train if self.subset else 0

    @property
    def test(self) -> int:
        return self.splits[0].test if self.splits else self.subset.test if self.subset else 0

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """By label; empty where they are not known."""
        file = CATALOG / f"{self.name}.classes.txt"
        if self.names or not file.is_file():
            return self.names
        return tuple(file.read_text(encoding="utf-8").splitlines())

    def split_named(self, name: str) -> SplitRule:
        """The split of that name, '' for the default. Raises UserError for an unknown one."""
        for split in self.splits:
            if name in ("", split.name):
                return split
        known = [s.name for s in self.splits]
        raise UserError(
            f"task '{self.name}@{name}' names an unknown split; "
            + (f"its splits are {', '.join(known)}" if known else "it has one split alone")
        )


def read_declaration(name: str, value: Mapping[str, Any]) -> Task:
    """A task from the content of its TOML file."""
    facts = dict(value)
    classes = facts.pop("classes")
    names = tuple(classes) if isinstance(classes, list) else ()
    count = len(names) or classes
    facts = {k: _tuple(_each(k, v, count)) for k, v in facts.items()}
    splits = tuple(
        SplitRule(s, **{k: _tuple(_each(k, v, count)) for k, v in rule.items()})
        for s, rule in facts.pop("splits", {}).items()
    )
    hub = None
    if copy := facts.pop("hub", None):
        parts = copy.pop("parts", ())
        given = parts if isinstance(parts, dict) else {"parts": parts}
        hub = HubCopy(**{k: _tuple(v) for k, v in (copy | given).items()})
    subset = Subset(**facts.pop("subset")) if "subset" in facts else None
    return Task(name, classes=count, names=names, splits=splits, hub=hub, subset=subset, **facts)


def _each(key: str, value: Any, classes: int) -> Any:
    """One number where every class has the same."""
    return [value] * classes if key.endswith("per_class") and isinstance(value, int) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _catalog() -> Iterator[Task]:
    import tomllib

    for name in _ORDER:
        yield read_declaration(name, tomllib.loads((CATALOG / f"{name}.toml").read_text("utf-8")))


# The study's twelve in the order of its domains, then others.
TRANSFER12 = (
    "cropdisease", "deepweeds", "eurosat", "resisc45", "chestx", "isic2018", "dtd", "omniglot",
    "svhn", "kaokore", "sketch", "flowers102",
)  # fmt: skip
_ORDER = (*TRANSFER12, "pacs_sketch", "tiny_imagenet",
          "voc0712", "coco2017", "voc2007", "coco128", "bccd")  # fmt: skip

_DIGITS = Task(
    "digits",
    "Handwritten digits (scikit-learn)",
    "symbols",
    classes=10,
    images=1797,
    splits=(SplitRule("drawn", "official", 1258, 539),),
    licence="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    citation="Alpaydin, Kaynak, UCI Machine Learning Repository 1998",
    note="8x8 pixels",
    embedded=True,
)


def _factor(name: str) -> Task:
    facts = FACTOR_TASKS[name]
    n = len(facts.classes)
    question, comma, nuisances = facts.description.partition(", whatever ")
    train, test = n * facts.train_per_class, n * facts.test_per_class
    return Task(
        name,
        question + ("?" if comma else ""),
        f"{facts.level}-level",
        classes=n,
        images=train + test,
        splits=(SplitRule("drawn", "official", train, test),),
        licence="Apache-2.0 (drawn by this package)",
        citation="TransferZoo",
        note=f"varies: {nuisances.rstrip('?')}" if nuisances else "",
        embedded=True,
    )


_MINI = {"digits": _DIGITS} | {name: _factor(name) for name in FACTOR_TASKS}

TASKS: dict[str, Task] = {t.name: t for t in _catalog()} | _MINI

SUITES: dict[str, tuple[str, ...]] = {
    "mini": tuple(_MINI),
    "transfer12": TRANSFER12,
    "subsets": tuple(
        t.name for t in TASKS.values()
        if t.kind == "classification" and t.subset and not t.pretrains
    ),
    "detection": ("voc0712", "coco2017", "voc2007", "coco128", "bccd"),
}  # fmt: skip
SUITE_NOTES = {
    "mini": "embedded, works offline: real digits and nine drawn tasks of known semantic level",
    "transfer12": "the twelve downstream sets of the study; what is not here is named and left out",
    "subsets": "the eleven sets of which a small copy is known; needs --data DIR",
    "detection": "sets with boxes, for --protocol detection; what is not here is left out",
}


@dataclass(frozen=True)
class TaskName:
    """A parsed task string: a declared task, or a user's own data in one of several forms."""

    kind: Literal["declared", "parquet", "imagefolder", "csv", "hub", "coco", "voc", "yolo", "file"]
    value: str  # declared name, directory, CSV file, Hub repository, data.yaml or task file
    image: str = "image"
    label: str = "label"
    revision: str | None = None
    config: str | None = None
    train: str = "train"
    test: str = "test"
    split: str = ""  # of a declared task, '' for its default; of a CSV file: the column
    group: str = ""  # column of a CSV file: rows of one group stay on one side
    objects: str = ""  # column of Parquet files with boxes; of the others:
    images: str = ""  # of COCO: the folder that file names count from
    classes: str = ""  # of VOC: names with commas between


_PREFIXES = ("parquet", "imagefolder", "csv", "hub", "coco", "voc", "yolo")
_KEYS = {
    "parquet": ("image", "label", "objects"),
    "csv": ("image", "label", "group", "split"),
    "hub": ("image", "label", "revision", "config", "train", "test"),
    "coco": ("train", "test", "images"),  # two JSON files and a folder
    "voc": ("train", "test", "classes"),  # two lists of ImageSets/Main
    "yolo": (),
}


def parse_task(text: str) -> TaskName:
    """Split a task string. Raises UserError for an unknown name, prefix or option."""
    if text.lower().endswith(".toml"):
        return TaskName("file", text)
    prefix, colon, rest = text.partition(":")
    if not colon:
        return _parse_declared(text)
    if prefix not in _PREFIXES:
        raise UserError(
            f"task {text!r} has an unknown prefix {prefix!r}"
            + did_you_mean(
                prefix,
                _PREFIXES,
                "use parquet:DIR, imagefolder:DIR, csv:FILE or hub:org/name?image=..&label=.., or, "
                "with boxes, coco:DIR, voc:DIR or yolo:DIR",
            )
        )
    if not rest:
        raise UserError(f"task {text!r} has nothing behind the prefix")
    if prefix == "imagefolder":
        return TaskName("imagefolder", rest)
    value, query = split_query(rest)
    if not value:
        raise UserError(f"task {text!r} has nothing between the prefix and '?'")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = _KEYS[prefix]
    for key, given in options.items():
        if key not in known:
            raise UserError(f"task {text!r} has an unknown option {key!r}" + did_you_mean(
                key, known, "known: " + (", ".join(known) or "none")))  # fmt: skip
        if not given:
            raise UserError(f"task {text!r}: option {key!r} is empty")
    if prefix == "parquet":
        return TaskName("parquet", value, **options)
    if prefix == "csv":
        return TaskName("csv", value, **options)
    boxes = {"train": "", "test": ""} | options  # '': found by the layout
    if prefix == "coco":
        return TaskName("coco", value, **boxes)
    if prefix == "voc":
        return TaskName("voc", value, **boxes)
    if prefix == "yolo":
        return TaskName("yolo", value, **boxes)
    value, at, revision = value.partition("@")
    if at and not revision:
        raise UserError(f"task {text!r} has '@' without a revision")
    if at:
        options.setdefault("revision", revision)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise UserError(f"task {text!r} names no Hub data set; use hub:org/name?image=..&label=..")
    return TaskName("hub", value, **options)


def split_query(text: str) -> tuple[str, str]:
    """(path or name, options) of ``PATH?key=value``; a path may have a '?' of its own."""
    value, mark, query = text.rpartition("?")
    if not mark or "=" not in query:
        value, _, query = text.partition("?")
    return value, query


def _parse_declared(text: str) -> TaskName:
    name, at, split = text.partition("@")
    if name in TASKS:
        if at and not split:
            raise UserError(f"task {text!r} has '@' without a split")
        return TaskName("declared", name, split=TASKS[name].split_named(split).name if at else "")
    hint = (
        "see `transfer-eval list tasks`, or give your own data as imagefolder:DIR, parquet:DIR, "
        "csv:FILE or a task file (FILE.toml); with boxes as coco:DIR, voc:DIR or yolo:DIR"
    )
    if text in SUITES:
        raise UserError(f"unknown task {text!r}; {text!r} is a suite: use --suite {text}")
    raise UserError(f"unknown task {text!r}" + did_you_mean(name, TASKS, hint))


def suite_tasks(name: str) -> tuple[str, ...]:
    """The task names of a suite. Raises UserError for an unknown one."""
    if name not in SUITES:
        raise UserError(f"unknown suite {name!r}" + did_you_mean(
            name, SUITES, "suites are " + ", ".join(SUITES)))  # fmt: skip
    return SUITES[name]
