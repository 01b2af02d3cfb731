"""The declared tasks and suites: facts, no code.

A task's counts are those of the data a run is expected to see; ``full`` is the size of the data
set as the study uses it, given where the task is only a *subset* of it. Every result says so: a
number on a subset must not be read as the number of the benchmark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from eval.errors import UserError, did_you_mean
from eval.mini import FACTOR_TASKS

Kind = Literal["classification", "detection"]


@dataclass(frozen=True)
class Task:
    """One declared data set. ``train`` and ``test`` count images."""

    name: str
    title: str
    domain: str
    classes: int
    train: int
    test: int
    licence: str
    citation: str
    full: tuple[int, int] | None = None  # classes and images of the whole set, for a subset
    note: str = ""
    terms: str = ""  # where the licence can be read
    hub: str = ""  # the whole data set on the Hub, for reference
    pretrains: bool = False  # checkpoints that ship were trained on it: no transfer for them
    kind: Kind = "classification"
    embedded: bool = False  # made by eval.mini on this machine, nothing to download

    @property
    def subset(self) -> bool:
        return self.full is not None


def _real(*tasks: Task) -> dict[str, Task]:
    return {t.name: t for t in tasks}


_REAL = _real(
    Task(
        "cropdisease",
        "CropDisease (PlantVillage, colour)",
        "agriculture",
        classes=15,
        train=1930,
        test=742,
        full=(38, 54305),
        licence="unsettled upstream (CC BY 3.0, CC BY-SA 3.0 or CC0 by copy): share-alike",
        citation="Mohanty, Hughes, Salathe, Frontiers in Plant Science 2016",
        note="pepper, potato, tomato; photos of one leaf may fall on both sides of this split",
    ),
    Task(
        "deepweeds",
        "DeepWeeds",
        "agriculture",
        classes=9,
        train=1800,
        test=720,
        full=(9, 17509),
        licence="CC BY 4.0",
        citation="Olsen et al., Scientific Reports 2019",
        note="from official fold 0, balanced over classes",
    ),
    Task(
        "eurosat",
        "EuroSAT RGB",
        "satellite",
        classes=10,
        train=2500,
        test=800,
        full=(10, 27000),
        licence="MIT",
        citation="Helber et al., IEEE JSTARS 2019",
        note="no official split",
    ),
    Task(
        "resisc45",
        "NWPU-RESISC45",
        "satellite",
        classes=14,
        train=1540,
        test=630,
        full=(45, 31500),
        licence="research use (none stated upstream)",
        citation="Cheng, Han, Lu, Proceedings of the IEEE 2017",
        note="14 of the 45 classes",
    ),
    Task(
        "chestx",
        "ChestX (NIH ChestX-ray14, single findings)",
        "medical",
        classes=7,
        train=141,
        test=90,
        full=(7, 25848),
        licence="NIH Clinical Center: acknowledge and cite",
        citation="Wang et al., CVPR 2017",
        note="very small; patient-disjoint split",
    ),
    Task(
        "isic2018",
        "ISIC 2018 task 3 (HAM10000)",
        "medical",
        classes=7,
        train=1035,
        test=362,
        full=(7, 10015),
        licence="CC BY-NC 4.0",
        citation="Tschandl, Rosendahl, Kittler, Scientific Data 2018",
        note="one image a lesion; lesion-disjoint split",
    ),
    Task(
        "dtd",
        "Describable Textures (DTD)",
        "texture",
        classes=10,
        train=800,
        test=400,
        full=(47, 5640),
        licence="research purposes",
        citation="Cimpoi et al., CVPR 2014",
        note="banded to crystalline; the official split lists are not in this copy",
    ),
    Task(
        "omniglot",
        "Omniglot",
        "symbols",
        classes=250,
        train=3750,
        test=1250,
        full=(659, 13180),
        licence="MIT",
        citation="Lake, Salakhutdinov, Tenenbaum, Science 2015",
        note="5 characters of each alphabet; 20 drawings a class, so 20-shot cannot be drawn",
    ),
    Task(
        "svhn",
        "SVHN, cropped digits",
        "symbols",
        classes=10,
        train=554,
        test=486,
        full=(10, 99289),
        licence="non-commercial use only",
        citation="Netzer et al., NIPS workshop 2011",
        note="digits of 512 full-number images, cut out as the official format does",
    ),
    Task(
        "pacs_sketch",
        "PACS sketch (stand-in for ImageNet-Sketch)",
        "drawing",
        classes=7,
        train=930,
        test=310,
        full=(7, 3929),
        licence="research use (none stated)",
        citation="Li et al., ICCV 2017",
        note="a stand-in: not ImageNet-Sketch",
    ),
    Task(
        "flowers102",
        "Oxford Flowers 102",
        "fine-grained",
        classes=102,
        train=2040,
        test=2040,
        full=(102, 8189),
        licence="research use (none stated)",
        citation="Nilsback, Zisserman, ICVGIP 2008",
        note="64x64 copy; official train+val, 20 a class of the official test part",
    ),
    Task(
        "tiny_imagenet",
        "Tiny-ImageNet",
        "natural images",
        classes=100,
        train=30000,
        test=5000,
        full=(200, 110000),
        licence="ImageNet terms: non-commercial research and education",
        citation="Le, Yang, Stanford CS231n 2015; Deng et al., CVPR 2009",
        note="the zoo's pretraining data: in-domain for its models; tested on validation images",
        terms="https://image-net.org/download.php",
        hub="zh-plus/tiny-imagenet",
        pretrains=True,
    ),
    Task(
        "voc2007",
        "Pascal VOC 2007 detection",
        "natural images",
        classes=20,
        train=320,
        test=130,
        full=(20, 9963),
        licence="Flickr terms: research use",
        citation="Everingham et al., IJCV 2010",
        note="both parts are drawn from the official test set",
        kind="detection",
    ),
    Task(
        "coco128",
        "MSCOCO 2017 detection, first images",
        "natural images",
        classes=80,
        train=128,
        test=128,
        full=(80, 123287),
        licence="annotations CC BY 4.0, images under Flickr terms",
        citation="Lin et al., ECCV 2014",
        note="first 128 images of train2017 and of val2017; crowd boxes absent",
        kind="detection",
    ),
    Task(
        "bccd",
        "BCCD blood cells detection",
        "medical",
        classes=3,
        train=280,
        test=84,
        licence="MIT",
        citation="Shenggan, BCCD Dataset, GitHub 2017",
        note="an extra, not of the study",
        kind="detection",
    ),
)

_DIGITS = Task(
    "digits",
    "Handwritten digits (scikit-learn)",
    "symbols",
    classes=10,
    train=1258,
    test=539,
    licence="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    citation="Alpaydin, Kaynak, UCI Machine Learning Repository 1998",
    note="8x8 pixels",
    embedded=True,
)


def _factor(name: str) -> Task:
    facts = FACTOR_TASKS[name]
    n = len(facts.classes)
    question, comma, nuisances = facts.description.partition(", whatever ")
    return Task(
        name,
        question + ("?" if comma else ""),
        f"{facts.level}-level",
        classes=n,
        train=n * facts.train_per_class,
        test=n * facts.test_per_class,
        licence="Apache-2.0 (drawn by this package)",
        citation="TransferZoo",
        note=f"varies: {nuisances.rstrip('?')}" if nuisances else "",
        embedded=True,
    )


_MINI = {"digits": _DIGITS} | {name: _factor(name) for name in FACTOR_TASKS}

TASKS: dict[str, Task] = _REAL | _MINI

SUITES: dict[str, tuple[str, ...]] = {
    "mini": tuple(_MINI),
    "subsets": tuple(
        t.name for t in _REAL.values() if t.kind == "classification" and t.name != "tiny_imagenet"
    ),
}
SUITE_NOTES = {
    "mini": "embedded, works offline: real digits and nine drawn tasks of known semantic level",
    "subsets": "eleven downstream sets of the study as small subsets; needs --data DIR",
}


@dataclass(frozen=True)
class TaskName:
    """A parsed task string: a declared task, or a user's own data in one of three forms."""

    kind: Literal["declared", "parquet", "imagefolder", "hub"]
    value: str  # declared name, directory or Hub repository
    image: str = "image"
    label: str = "label"
    revision: str | None = None
    config: str | None = None
    train: str = "train"
    test: str = "test"


_HUB_KEYS = ("image", "label", "revision", "config", "train", "test")


def parse_task(text: str) -> TaskName:
    """Split a task string. Raises UserError for an unknown name, prefix or option."""
    prefix, colon, rest = text.partition(":")
    if not colon:
        if text in TASKS:
            return TaskName("declared", text)
        hint = "see `transfer-eval list tasks`, or give your own data as parquet:DIR"
        if text in SUITES:
            hint = f"{text!r} is a suite: use --suite {text}"
            raise UserError(f"unknown task {text!r}; {hint}")
        raise UserError(f"unknown task {text!r}" + did_you_mean(text, TASKS, hint))
    if prefix not in ("parquet", "imagefolder", "hub"):
        raise UserError(
            f"task {text!r} has an unknown prefix {prefix!r}"
            + did_you_mean(
                prefix,
                ("parquet", "imagefolder", "hub"),
                "use parquet:DIR, imagefolder:DIR or hub:org/name?image=..&label=..",
            )
        )
    if not rest:
        raise UserError(f"task {text!r} has nothing behind the prefix")
    if prefix == "imagefolder":
        return TaskName("imagefolder", rest)
    value, _, query = rest.partition("?")
    if not value:
        raise UserError(f"task {text!r} has nothing between the prefix and '?'")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = _HUB_KEYS if prefix == "hub" else ("image", "label")
    for key, given in options.items():
        if key not in known:
            raise UserError(f"task {text!r} has an unknown option {key!r}"
                            + did_you_mean(key, known, "known: " + ", ".join(known)))  # fmt: skip
        if not given:
            raise UserError(f"task {text!r}: option {key!r} is empty")
    if prefix == "parquet":
        return TaskName("parquet", value, **options)
    value, at, revision = value.partition("@")
    if at and not revision:
        raise UserError(f"task {text!r} has '@' without a revision")
    if at:
        options.setdefault("revision", revision)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise UserError(f"task {text!r} names no Hub data set; use hub:org/name?image=..&label=..")
    return TaskName("hub", value, **options)


def suite_tasks(name: str) -> tuple[str, ...]:
    """The task names of a suite. Raises UserError for an unknown one."""
    if name not in SUITES:
        raise UserError(f"unknown suite {name!r}" + did_you_mean(
            name, SUITES, "suites are " + ", ".join(SUITES)))  # fmt: skip
    return SUITES[name]
