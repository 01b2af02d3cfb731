"""A task string -> what it names: kind, place, columns, split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import quote, unquote

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.tasks.registry import SUITES, TASKS


@dataclass(frozen=True)
class TaskName:
    """A parsed task string: a declared task, or a user's own data in one of several forms."""

    kind: Literal[
        "declared", "parquet", "imagefolder", "csv", "hub", "coco", "voc", "yolo", "masks",
        "voc-seg", "file",
        "shift",  # two task strings
    ]  # fmt: skip
    value: str  # declared name, directory, CSV file, Hub repository, data.yaml or task file
    image: str = "image"
    label: str = "label"
    revision: str | None = None
    config: str | None = None
    train: str = ""  # the parts by name, '' to find them
    test: str = ""
    validation: str = ""
    split: str = ""  # of a declared task, '' for its default; of a CSV file: the column
    # column of a CSV file: rows of one group stay on one side; of Parquet files with masks
    group: str = ""
    objects: str = ""  # column of Parquet files with boxes; of the others:
    images: str = ""  # of COCO: the folder that file names count from
    classes: str = ""  # of VOC and of masks: names with commas between
    labels: str = ""  # of several labels an image: a column of lists, or one column a label
    separator: str = ""  # between labels of one text
    none: str = ""  # a label that stands for none
    instance: str = ""  # of queries and a gallery: the column of what an image shows
    role: str = ""  # and that which says query or gallery; '': the parts do
    mask: str = ""  # column of Parquet files with a label a pixel
    void: str = ""  # of masks: values that are not scored, with commas between
    range: str = ""  # LOW,HIGH: black and white in images of more than 8 bits


_Prefix = Literal["parquet", "imagefolder", "csv", "hub", "coco", "voc", "yolo", "masks", "voc-seg"]
_PREFIXES: tuple[_Prefix, ...] = get_args(_Prefix)
SHIFT = "shift:"
_PARTS = ("train", "test", "validation")
_SEVERAL = ("labels", "separator", "none")
_INSTANCES = ("instance", "role")
_KEYS = {
    "parquet": (
        "image",
        "label",
        *_SEVERAL,
        *_INSTANCES,
        "objects",
        "mask",
        "group",
        "classes",
        "void",
        *_PARTS,
    ),
    "imagefolder": _PARTS,
    "csv": ("image", "label", *_SEVERAL, *_INSTANCES, "group", "split", *_PARTS),
    "hub": ("image", "label", "revision", "config", *_PARTS, *_SEVERAL, *_INSTANCES),
    "coco": ("train", "test", "images"),  # two JSON files and a folder
    "voc": ("train", "test", "classes"),  # two lists of ImageSets/Main
    "yolo": ("train", "test"),
    "masks": ("train", "test", "classes", "void"),
    "voc-seg": ("train", "test", "classes", "void"),  # two lists of ImageSets/Segmentation
}


def parse_task(text: str) -> TaskName:
    """Split a task string. Raises UserError for an unknown name, prefix or option."""
    if text.startswith(SHIFT):
        train, test, _ = shift_parts(text)
        parse_task(train)
        parse_task(test)
        return TaskName("shift", text)
    if text.lower().endswith(".toml"):
        return TaskName("file", text)
    prefix, colon, rest = text.partition(":")
    if not colon:
        return _parse_declared(text)
    if prefix not in _PREFIXES:
        raise NotFound(
            f"task {text!r} has an unknown prefix {prefix!r}"
            + did_you_mean(
                prefix,
                _PREFIXES,
                "use parquet:DIR, imagefolder:DIR, csv:FILE or hub:org/name?image=..&label=.., or, "
                "with boxes, coco:DIR, voc:DIR or yolo:DIR, or, with masks, masks:DIR or "
                "voc-seg:DIR",
            )
        )
    if not rest:
        raise BadInput(f"task {text!r} has nothing behind the prefix")
    value, given_options = split_query(rest)
    if prefix == "hub":  # no name on the Hub has a '?'
        value, _, given_options = rest.partition("?")
    if not value:
        raise BadInput(f"task {text!r} has nothing between the prefix and '?'")
    options = options_of(given_options)
    known = (*_KEYS[prefix], "range")
    for key, given in options.items():
        if key not in known:
            raise NotFound(f"task {text!r} has an unknown option {key!r}" + did_you_mean(
                key, known, "known: " + (", ".join(known) or "none")))  # fmt: skip
        if not given:
            raise BadInput(f"task {text!r}: option {key!r} is empty")
    if prefix != "hub":
        return TaskName(cast(_Prefix, prefix), value, **options)
    value, at, revision = value.partition("@")
    if at and not revision:
        raise BadInput(f"task {text!r} has '@' without a revision")
    if at:
        options.setdefault("revision", revision)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise BadInput(f"task {text!r} names no Hub data set; use hub:org/name?image=..&label=..")
    return TaskName("hub", value, **options)


def shift_parts(text: str) -> tuple[str, str, str]:
    """(train's task, test's task, mapping file or '') of ``shift:TRAIN=>TEST&map=FILE``. Raises
    UserError where one is missing."""
    both, _, mapping = text.removeprefix(SHIFT).partition("&map=")
    train, arrow, test = both.partition("=>")
    if not arrow or not train or not test:
        raise BadInput(f"task {text!r} is no shift; use shift:TRAIN=>TEST, or --test-on TEST")
    return train, test, mapping


def split_query(text: str) -> tuple[str, str]:
    """(path or name, options) of ``PATH?key=value``; a path may have a '?' of its own."""
    value, mark, options = text.rpartition("?")
    if mark and re.match(r"[A-Za-z_]+=", options):
        return value, options
    return text, ""


def options_of(text: str) -> dict[str, str]:
    """As typed: '+' is a plus, ``%2B`` and the like stand for what a '&' or '=' would break."""
    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return {unquote(key): unquote(value) for key, _, value in pairs}


def query(options: Mapping[str, str]) -> str:
    """``?key=value&..`` that ``parse_task`` reads back; '' for none."""
    pairs = [f"{key}={quote(value, safe='/,')}" for key, value in options.items()]
    return "?" + "&".join(pairs) if pairs else ""


def with_option(text: str, key: str, value: str) -> str:
    """A task string with one more option."""
    place, options = split_query(text)
    return f"{place}?{options}&{query({key: value})[1:]}" if options else text + query({key: value})


def _parse_declared(text: str) -> TaskName:
    name, at, split = text.partition("@")
    if name in TASKS:
        if at and not split:
            raise BadInput(f"task {text!r} has '@' without a split")
        return TaskName("declared", name, split=TASKS[name].split_named(split).name if at else "")
    hint = (
        "see `transfer-eval list tasks`, or give your own data as imagefolder:DIR, parquet:DIR, "
        "csv:FILE or a task file (FILE.toml); with boxes as coco:DIR, voc:DIR or yolo:DIR; with "
        "masks as masks:DIR or voc-seg:DIR"
    )
    if text in SUITES:
        raise NotFound(f"unknown task {text!r}; {text!r} is a suite: use --suite {text}")
    raise NotFound(f"unknown task {text!r}" + did_you_mean(name, TASKS, hint))
