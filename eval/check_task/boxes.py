"""A detection task looked over before any model is: its boxes, images and copies, and in words.

Boxes and sizes are known once the task is loaded, copies by their hashes; every image is decoded as
a run would decode it, so that what a run cannot read is named before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.check_task.facts import Copies, Spread
from eval.check_task.wording import Page, cannot_be_read, found_text, origin
from eval.common.text import counted, some
from eval.data.boxes.box_data import BoxSplit, DetectionData
from eval.data.concerns import concerns
from eval.data.decoding import undecodable
from eval.data.inventory.facts import Inventory
from eval.data.inventory.unreadable import NAMED
from eval.detection.resample import RANGES
from eval.settings.schedules import SMALL, Schedule, schedule_named

FINDABLE = 100  # boxes that the detector says of an image
TINY = 8  # px of a box's side, as the detector is shown it
FEW_IMAGES = 50  # of test: an interval says little
FEW_BOXES = 10  # of a class in test
FEW_TRAIN = 10  # boxes of a class in train
IMBALANCE = 50  # times as many boxes of one class as of another
GROUPS = 10  # groups of copies that are shown of each kind
PLACES = 4  # places that are shown of a group
MOST_ROWS = 24  # classes in the printed table; --json has all


@dataclass(frozen=True)
class PartBoxes:
    """One part. Boxes count that are trained on (no crowds), or asked for in test (no difficult
    ones either); all that follows ``boxes`` is of these."""

    images: int
    empty: int  # images without any box
    annotated: int
    difficult: int
    crowd: int
    twice: int  # boxes that repeat another of their class in their image
    boxes: int
    small: int  # under 32 x 32 px of area, as the authors give it
    medium: int
    large: int  # from 96 x 96 px
    per_image: Spread
    side: float  # median, px of the image: the root of width x height
    side_shown: float  # and as the short schedule shows it in test
    tiny: int  # boxes whose side is under TINY px there
    width: Spread | None  # None: sizes are not known
    height: Spread | None


@dataclass(frozen=True)
class ClassBoxes:
    name: str
    train: int  # boxes that count
    test: int
    train_images: int  # that show one
    test_images: int


@dataclass(frozen=True)
class BoxCheck:
    task: str
    where: str
    revision: str
    split: str
    split_hash: str
    subset: bool
    inventory: Inventory
    kind: str
    voc: bool
    train: PartBoxes
    test: PartBoxes
    classes: tuple[ClassBoxes, ...]
    duplicates: int  # test images that are also in train
    copies: tuple[Copies, ...]
    unreadable: int
    named: tuple[str, ...]  # the first NAMED unreadable ones, each with the reason
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def check_boxes(data: DetectionData) -> BoxCheck:
    """Look a detection task over. Decodes every image once, and keeps none."""
    schedule = schedule_named(SMALL)
    tables = [_table(part) for part in (data.train, data.test)]
    train, test = _part(data.train, tables[0], schedule), _part(data.test, tables[1], schedule)
    classes, copies = tuple(_classes(data.classes, tables)), _copies(data)
    broken = [f"{where}: {why}" for where, why in undecodable(data)]
    return BoxCheck(
        task=data.name,
        where=data.where,
        revision=data.revision,
        split=data.split,
        split_hash=data.split_hash,
        subset=data.subset,
        inventory=data.inventory,
        kind=data.kind,
        voc=data.voc,
        train=train,
        test=test,
        classes=classes,
        duplicates=data.duplicates,
        copies=copies,
        unreadable=len(broken),
        named=tuple(broken[:NAMED]),
        notes=data.notes,
        warnings=(
            *cannot_be_read(len(broken)),
            *concerns(data),
            *_warnings(data, train, test, classes, schedule),
        ),
    )


def as_json(found: BoxCheck) -> dict[str, Any]:
    """The check as plain values."""
    return dataclasses.asdict(found)


# --------------------------------------------------------------------------- facts


@dataclass(frozen=True)
class _Boxes:
    """The boxes of a part that count, in one table."""

    image: NDArray[np.int64]  # [K]
    labels: NDArray[np.int64]  # [K]
    area: NDArray[np.float64]  # [K] as the authors give it
    places: NDArray[np.float64]  # [K, 4]

    @property
    def side(self) -> NDArray[np.float64]:
        sides = self.places[:, 2:] - self.places[:, :2]
        return np.sqrt(sides[:, 0] * sides[:, 1])

    @property
    def twice(self) -> int:
        """How many repeat another of their image."""
        rows = np.column_stack([self.image, self.labels, self.places])
        return len(rows) - len(np.unique(rows, axis=0))


def _table(split: BoxSplit) -> _Boxes:
    found = split.objects
    counts = ~np.concatenate([o.crowd if split.name == "train" else o.ignore for o in found])
    return _Boxes(
        np.repeat(np.arange(len(split)), [len(o) for o in found])[counts],
        np.concatenate([o.labels for o in found])[counts],
        np.concatenate([o.area for o in found])[counts].astype(np.float64),
        np.concatenate([o.boxes for o in found])[counts].astype(np.float64),
    )


def _part(split: BoxSplit, table: _Boxes, schedule: Schedule) -> PartBoxes:
    side, sizes = table.side, split.sizes
    band = np.searchsorted(RANGES[2], table.area, side="right")  # 0, 1, 2: small to large
    small, medium, large = np.bincount(band, minlength=3).tolist()
    scale = np.ones(len(split))
    if sizes is not None:
        scale = np.minimum(schedule.test_side / sizes.min(1), schedule.max_side / sizes.max(1))
    shown = side * scale[table.image]
    return PartBoxes(
        images=len(split),
        empty=sum(len(o) == 0 for o in split.objects),
        annotated=sum(map(len, split.objects)),
        difficult=sum(int(o.difficult.sum()) for o in split.objects),
        crowd=sum(int(o.crowd.sum()) for o in split.objects),
        twice=table.twice,
        boxes=len(table.labels),
        small=small,
        medium=medium,
        large=large,
        per_image=_spread(np.bincount(table.image, minlength=len(split))),
        side=float(np.median(side)),
        side_shown=float(np.median(shown)),
        tiny=int((shown < TINY).sum()),
        width=None if sizes is None else _spread(sizes[:, 1]),
        height=None if sizes is None else _spread(sizes[:, 0]),
    )


def _spread(values: NDArray[np.int64]) -> Spread:
    return Spread(int(values.min()), float(np.median(values)), int(values.max()))


def _classes(names: Sequence[str], tables: Sequence[_Boxes]) -> Iterator[ClassBoxes]:
    boxes: list[list[int]] = []
    images: list[list[int]] = []
    for table in tables:
        pairs = np.unique(np.stack([table.image, table.labels]), axis=1)
        for found, labels in ((boxes, table.labels), (images, pairs[1])):
            found.append(np.bincount(labels, minlength=len(names)).tolist())
    for name, *numbers in zip(names, *boxes, *images, strict=True):
        yield ClassBoxes(name, *numbers)


def _copies(data: DetectionData) -> tuple[Copies, ...]:
    """Groups of images whose bytes are equal. An image's label is a hash of its boxes."""
    keys = np.concatenate([data.train.keys, data.test.keys])
    answers = np.concatenate([data.train.labels, data.test.labels])
    _, group_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    members = np.argsort(group_of.reshape(-1), kind="stable")  # train before test within a group
    begin = np.cumsum(sizes) - sizes
    border = len(data.train)
    groups: dict[str, list[list[int]]] = {
        "within train": [], "within test": [], "across train and test": [],
        "with different boxes": [],
    }  # fmt: skip
    for group in np.flatnonzero(sizes > 1).tolist():
        rows = members[begin[group] : begin[group] + sizes[group]].tolist()
        train, test = [r for r in rows if r < border], [r for r in rows if r >= border]
        different = len(np.unique(answers[rows])) > 1
        for kind, which, is_one in (
            ("within train", train, len(train) > 1),
            ("within test", test, len(test) > 1),
            ("across train and test", [*train[:2], *test, *train[2:]], bool(train and test)),
            ("with different boxes", rows, different),
        ):
            if is_one:
                groups[kind].append(which)

    def place(index: int) -> str:
        part, row = (data.train, index) if index < border else (data.test, index - border)
        return f"{part.source.describe(int(part.rows[row]))} ({part.name})"

    def places(rows: Sequence[int]) -> tuple[str, ...]:
        more = [f"and {len(rows) - PLACES:,} more"] if len(rows) > PLACES else []
        return (*map(place, rows[:PLACES]), *more)

    return tuple(
        Copies(
            kind,
            len(found),
            sum(map(len, found)),
            tuple(places(rows) for rows in sorted(found, key=len, reverse=True)[:GROUPS]),
        )
        for kind, found in groups.items()
    )


# --------------------------------------------------------------------------- warnings


def _warnings(
    data: DetectionData,
    train: PartBoxes,
    test: PartBoxes,
    classes: Sequence[ClassBoxes],
    schedule: Schedule,
) -> Iterator[str]:
    if data.duplicates:
        yield (
            f"{data.duplicates:,} of {counted(test.images, 'test image')} also in train: the "
            "detector has learned their boxes"
        )
    if test.images < FEW_IMAGES:
        yield (
            f"{counted(test.images, 'test image')}: under {FEW_IMAGES} an interval is too wide to "
            "tell backbones apart"
        )
    yield from _class_warnings(classes)
    yield from _part_warnings(train, test, schedule)
    if all(re.fullmatch(r"class \d+", name) for name in data.classes):
        yield "the classes have numbers for names: the source declares none"


def _class_warnings(classes: Sequence[ClassBoxes]) -> Iterator[str]:
    def named(wanted: Callable[[ClassBoxes], bool]) -> str:
        names = [c.name for c in classes if wanted(c)]
        return f"{counted(len(names), 'class', 'classes')} ({some(names)})" if names else ""

    if which := named(lambda c: not c.train and c.test > 0):
        yield f"{which} without a box in train, though asked for in test: the AP of each is 0"
    if which := named(lambda c: not c.train and not c.test):
        yield f"{which} without any box that counts"
    if which := named(lambda c: 0 < c.train < FEW_TRAIN):
        yield f"{which} with fewer than {FEW_TRAIN} boxes in train"
    if which := named(lambda c: c.train > 0 and not c.test):
        yield f"{which} without a box in test: no score speaks of them"
    if which := named(lambda c: 0 < c.test < FEW_BOXES):
        yield f"{which} with fewer than {FEW_BOXES} boxes in test: the AP of each is coarse"
    trained = [c for c in classes if c.train]
    large, small = (pick(trained, key=lambda c: c.train) for pick in (max, min))
    if large.train > IMBALANCE * small.train:
        yield (
            f"strong imbalance: {some([large.name])} has {large.train:,} boxes in train, "
            f"{some([small.name])} {small.train:,}; each class weighs the same in the mean AP"
        )


def _part_warnings(train: PartBoxes, test: PartBoxes, schedule: Schedule) -> Iterator[str]:
    parts = (("train", train), ("test", test))
    if small := [f"{part.side_shown:.1f} px in {n}" for n, part in parts if part.side_shown < TINY]:
        yield (
            f"most boxes are tiny as schedule {schedule.name} shows them (short side "
            f"{schedule.test_side} px): the median side is {' and '.join(small)}; give larger "
            "images (--set detection.sides=[..] detection.test_side=.. detection.max_side=..) or "
            "another --schedule"
        )
    for name, part in parts:
        if 2 * part.empty > part.images:
            yield (
                f"{part.empty:,} of {counted(part.images, 'image')} of {name} without boxes: are "
                "annotations missing?"
            )
        if part.twice:
            yield (
                f"{counted(part.twice, 'box', 'boxes')} of {name} annotated twice (equal place and "
                "class in one image)" + (": each can be found only once" * (name == "test"))
            )
    if test.per_image.most > FINDABLE:
        yield (
            f"an image of test has {test.per_image.most:,} boxes; a detector says at most "
            f"{FINDABLE} of an image, so not all can be found"
        )


# --------------------------------------------------------------------------- words


def render(found: BoxCheck, *, markdown: bool = False) -> str:
    """The check for a terminal, or as Markdown."""

    page = Page(markdown)
    foreign, title, bullets, table = page.foreign, page.title, page.bullets, page.table
    head = (
        f"{found.task}: object detection, {counted(len(found.classes), 'class', 'classes')}, "
        f"{found.train.images:,} training and {found.test.images:,} test images"
    )
    rules = "PASCAL VOC's rules beside COCO's" if found.voc else "COCO's rules"
    facts = [*origin(found), f"scored by {rules}", f"split hash: {found.split_hash}", *found.notes]
    out = [f"## {foreign(head)}\n" if markdown else foreign(head), *bullets(facts)]

    out += found_text(found.inventory, page)
    out += [title("Images and boxes"), table(("", "train", "test"), list(_rows(found)))]
    out += [title("Boxes that count, by class")]
    rows = [
        (c.name if len(c.name) <= 60 else c.name[:57] + "...", *(f"{n:,}" for n in _counts(c)))
        for c in _table_classes(found.classes)
    ]
    header = ("class", "train boxes", "in images", "test boxes", "in images")
    out.append(table(header, rows))
    if hidden := len(found.classes) - len(rows):
        out.append(f"\n{hidden:,} classes between the largest and the smallest are in --json only")

    out += [title("Images that cannot be read"), *bullets(found.named)] if found.named else []
    if (more := found.unreadable - len(found.named)) > 0:
        out.append(f"- and {more:,} more")

    out.append(title("Copies (equal bytes)"))
    if any(c.groups for c in found.copies):
        counts = [(c.kind, f"{c.groups:,}", f"{c.images:,}") for c in found.copies]
        out.append(table(("where", "groups", "images"), counts))
        for c in found.copies:
            if c.shown:
                of = f" ({len(c.shown)} of {c.groups:,})" if c.groups > len(c.shown) else ""
                out += [f"\n{c.kind}{of}:" + "\n" * markdown]
                out += bullets(["; ".join(group) for group in c.shown])
    else:
        out.append("none")

    out += [title("Warnings"), *(bullets(found.warnings) or ["none"])]
    return "\n".join(out)


def _rows(found: BoxCheck) -> Iterator[tuple[str, str, str]]:
    parts, schedule = (found.train, found.test), schedule_named(SMALL)

    def row(name: str, tell: Callable[[PartBoxes], object]) -> tuple[str, str, str]:
        train, test = (tell(part) for part in parts)
        return name, str(train), str(test)

    yield row("images", lambda p: f"{p.images:,}")
    yield row("without boxes", lambda p: f"{p.empty:,}")
    if found.train.width is not None:
        yield row("width, least / median / most px", lambda p: _three(p.width))
        yield row("height", lambda p: _three(p.height))
    yield row("annotated boxes", lambda p: f"{p.annotated:,}")
    if any(p.difficult or p.crowd for p in parts):
        yield row("difficult (only trained on)", lambda p: f"{p.difficult:,}")
        yield row("crowd (left out)", lambda p: f"{p.crowd:,}")
    yield row("boxes that count", lambda p: f"{p.boxes:,}")
    yield row("small, under 32 x 32 px", lambda p: _share(p.small, p.boxes))
    yield row("medium", lambda p: _share(p.medium, p.boxes))
    yield row("large, from 96 x 96 px", lambda p: _share(p.large, p.boxes))
    yield row("boxes an image, least / median / most", lambda p: _three(p.per_image))
    yield row("median side of a box, px", lambda p: f"{p.side:.1f}")
    shown = f"as {schedule.name} shows it ({schedule.test_side} px)"
    yield row(shown, lambda p: f"{p.side_shown:.1f}")
    yield row(f"under {TINY} px there", lambda p: _share(p.tiny, p.boxes))


def _three(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.least:,} / {spread.median:,.10g} / {spread.most:,}"


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})"


def _counts(c: ClassBoxes) -> tuple[int, int, int, int]:
    return c.train, c.train_images, c.test, c.test_images


def _table_classes(classes: Sequence[ClassBoxes]) -> list[ClassBoxes]:
    """The largest first; of many, both ends."""
    order = sorted(classes, key=lambda c: (-c.train, -c.test))
    half = MOST_ROWS // 2
    return order if len(order) <= MOST_ROWS else order[:half] + order[-half:]
