"""A declared data set: the facts of one TOML file of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from eval.common.errors import BadInput, NotFound, one_line
from eval.settings.protocols import Kind

Rule = Literal["official", "per-class", "groups"]
CATALOG = Path(__file__).parents[1] / "catalog"
METRICS: dict[Kind, str] = {
    "classification": "top1",
    "detection": "mAP",
    "segmentation": "mIoU",
    "multilabel": "mAP",
    "instances": "mAP",
}
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
    members: str = (
        ""  # eval.data.split_rules.members of the whole set, where it is known beforehand
    )
    split_hash: str = ""  # eval.data.task_data.TaskData.split_hash, where it is known beforehand
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
    on_hub: str = ""  # a repository of the Hub about the set, which is not a usable copy
    download: str = ""  # which official files, from where
    preparable: bool = False  # `transfer-eval prepare` knows the layout of the official files
    share: Literal["yes", "private", "no"] = "private"  # may a copy be published?
    share_why: str = ""
    note: str = ""
    terms: str = ""  # where the licence can be read
    stand_in_for: str = ""
    pretrains: bool = False  # checkpoints that ship were trained on it: no transfer for them
    part_of: tuple[str, ...] = ()  # larger sets that hold its images
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
        raise NotFound(
            f"task '{self.name}@{name}' names an unknown split; "
            + (f"its splits are {', '.join(known)}" if known else "it has one split alone")
        )


def read_declaration(name: str, value: Mapping[str, Any]) -> Task:
    """A task from the content of its TOML file. Raises UserError for a key too few or too many."""
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
    try:
        subset = Subset(**facts.pop("subset")) if "subset" in facts else None
        return Task(
            name, classes=count, names=names, splits=splits, hub=hub, subset=subset, **facts
        )
    except TypeError as error:  # a key that is missing or unknown
        raise BadInput(f"declaration of task {name!r}: {one_line(error)}") from None


def _each(key: str, value: Any, classes: int) -> Any:
    """One number where every class has the same."""
    return [value] * classes if key.endswith("per_class") and isinstance(value, int) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
