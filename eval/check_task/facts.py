"""What a data set is seen to be before it is scored: the facts a check finds, without words."""

from __future__ import annotations

from dataclasses import dataclass

from eval.data.inventory.facts import Inventory


@dataclass(frozen=True)
class ClassCount:
    name: str
    train: int
    test: int


@dataclass(frozen=True)
class Spread:
    least: int
    median: float
    most: int


@dataclass(frozen=True)
class Images:
    """What they turned out to be when they were decoded."""

    width: Spread | None  # None: no image could be read
    height: Spread | None
    formats: dict[str, int]  # the most frequent first
    modes: dict[str, int]
    small: int  # with a side under SMALL pixels
    turned: int  # by their EXIF orientation; sizes here are those before
    unreadable: int
    named: tuple[str, ...]  # the first NAMED unreadable ones, each with the reason
    told: float  # of test: classes guessed from size, format and mode alone, as train has them
    guessed: float  # of test: the largest class of train


@dataclass(frozen=True)
class Copies:
    """Groups of images whose bytes are equal."""

    kind: str
    groups: int
    images: int  # in these groups
    shown: tuple[tuple[str, ...], ...]  # places, of the largest groups


@dataclass(frozen=True)
class FewshotCheck:
    n_way: int
    queries: int
    different: int  # images that episodes are drawn from
    most_shots: int  # 0: nothing can be drawn
    why_not: str
    classes: dict[int, int]  # shot count: classes large enough for it
    refused: dict[int, str]  # shot count: why


@dataclass(frozen=True)
class ProbeCheck:
    """A protocol that chooses settings on a part of train."""

    protocol: str
    works: bool
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    task: str
    where: str
    revision: str
    split: str
    split_hash: str
    subset: bool
    inventory: Inventory
    train: int
    test: int
    classes: tuple[ClassCount, ...]
    images: Images
    copies: tuple[Copies, ...]
    fewshot: FewshotCheck | None  # where images have one label each
    probes: tuple[ProbeCheck, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
