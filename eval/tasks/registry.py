"""The declared tasks and suites: facts, no code.

Each data set is declared in ``eval/catalog/<task>.toml``. Its counts are those of the whole set as
the study uses it; smaller copies that are known are declared beside it, and every result on one
says so: a number on a subset must not be read as the number of the benchmark.

To add a data set:

1. Write ``eval/catalog/NAME.toml``. Its keys are the fields of ``declaration.Task``, with tables
   ``[splits.SPLIT]``, ``[hub]`` and ``[subset]``. ``classes`` lists the names by label; where they
   are many it is their number, and the names stand in ``NAME.classes.txt``, one a line.
2. Put NAME into ``_ORDER`` below, the order of lists and boards, and a set with boxes into the
   suite ``detection`` too. An image set with ``[subset]`` joins the suite ``subsets`` by itself.
3. Run ``python -m eval.tasks.catalog_page``, which writes the page of the catalog.
4. Where ``transfer-eval prepare NAME`` is to read the official download: ``preparable = true``, and
   a reader of its layout in ``eval/prepare/layouts``, in the table ``LAYOUTS`` there.
"""

from __future__ import annotations

from collections.abc import Iterator

from eval.common.errors import NotFound, did_you_mean
from eval.mini.factors import FACTOR_TASKS, SPLIT_HASHES
from eval.tasks.declaration import CATALOG, SplitRule, Task, read_declaration


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
          "voc0712", "coco2017", "voc2007", "coco128", "bccd", "camvid")  # fmt: skip

_DIGITS = Task(
    "digits",
    "Handwritten digits (scikit-learn)",
    "symbols",
    classes=10,
    images=1797,
    splits=(SplitRule("drawn", "official", 1258, 539, split_hash=SPLIT_HASHES["digits"]),),
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
        splits=(SplitRule("drawn", "official", train, test, split_hash=SPLIT_HASHES[name]),),
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


def suite_tasks(name: str) -> tuple[str, ...]:
    """The task names of a suite. Raises UserError for an unknown one."""
    if name not in SUITES:
        raise NotFound(f"unknown suite {name!r}" + did_you_mean(
            name, SUITES, "suites are " + ", ".join(SUITES)))  # fmt: skip
    return SUITES[name]


def known_splits(task: str) -> frozenset[str]:
    """The split hashes under which a declared task's images are known; empty where none is."""
    declared = TASKS.get(task)
    if declared is None:
        return frozenset()
    known = {rule.split_hash for rule in declared.splits}
    known |= {declared.subset.split_hash} if declared.subset else set()
    return frozenset(known - {""})
