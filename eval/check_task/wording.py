"""A check in words: what to be warned of, and tables for a terminal or Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eval.common.text import counted, escaped, quoted, some, text_table
from eval.data.concerns import concerns
from eval.data.inventory.image_files import has_image_suffix
from eval.data.task_data import TaskData

if TYPE_CHECKING:
    from eval.check_task.facts import Check, ClassCount, FewshotCheck, Images, ProbeCheck
    from eval.data.inventory.facts import Inventory

MOST_ROWS = 24  # classes in the printed table; --json has all
SMALL = 32  # pixels
FEW_TEST = 10
FEW_TRAIN = 5
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}


def warnings_of(data: TaskData, counts: Sequence[ClassCount], images: Images) -> Iterator[str]:
    yield from cannot_be_read(images.unreadable)
    if data.duplicates:
        queries = data.kind == "instances"
        yield (
            f"{data.duplicates:,} of {counted(len(data.test), 'query', 'queries')} also in the "
            "gallery: each finds itself"
            if queries
            else f"{data.duplicates:,} of {counted(len(data.test), 'test image')} also in train: "
            "knn and linear have seen the answer"
        )
    found = list(concerns(data))
    yield from found
    told = any("without an image" in concern for concern in found)  # by the names of folders
    if data.kind != "instances":  # there are many, with few images each
        yield from _count_warnings(counts, told)
    yield from _image_warnings(images, len(data.test))
    if data.kind != "instances":
        yield from _name_warnings(data.classes)


def cannot_be_read(count: int) -> Iterator[str]:
    if count:
        yield (
            f"{counted(count, 'image')} cannot be read, so that nothing is scored; take them out "
            "or fetch them anew"
        )


def _count_warnings(counts: Sequence[ClassCount], empty_told: bool) -> Iterator[str]:
    def named(wanted: Callable[[ClassCount], bool]) -> str:
        names = [c.name for c in counts if wanted(c)]
        return f"{counted(len(names), 'class', 'classes')} ({some(names)})" if names else ""

    trained = [c for c in counts if c.train]
    large = max(trained, key=lambda c: c.train)
    small = min(trained, key=lambda c: c.train)
    if large.train > 10 * small.train:
        yield (
            f"strong imbalance: {quoted(large.name)} has {large.train:,} training images, "
            f"{quoted(small.name)} {small.train:,}; read the mean per class beside top-1"
        )
    total = sum(c.train for c in trained)
    if len(trained) > total / 2:
        yield (
            f"{len(trained):,} classes for {total:,} training images: is the label column an id, "
            "or a value that is measured?"
        )
    if not empty_told and (which := named(lambda c: not c.train and not c.test)):
        yield f"{which} without any image"
    if which := named(lambda c: 0 < c.train < FEW_TRAIN):
        yield f"{which} with fewer than {FEW_TRAIN} training images"
    if which := named(lambda c: c.train > 0 and not c.test):
        yield f"{which} without a test image: no score speaks of them"
    if which := named(lambda c: 0 < c.test < FEW_TEST):
        yield f"{which} with fewer than {FEW_TEST} test images: the accuracy of each is coarse"


def _image_warnings(images: Images, tests: int) -> Iterator[str]:
    error = np.sqrt(images.guessed * (1 - images.guessed) / tests)
    if images.told - images.guessed > max(0.1, 3 * error):
        yield (
            f"size, format and mode alone tell the class of {images.told:.0%} of the test images "
            f"(the largest class: {images.guessed:.0%}): classes may come from different sources, "
            "and a model can go by that"
        )
    if images.small:
        yield (
            f"{counted(images.small, 'image')} with a side under {SMALL} px: models enlarge them "
            "and see little in them"
        )
    modes = images.modes
    grey = sum(n for mode, n in modes.items() if mode in GREY)
    read = sum(modes.values())
    if 0 < grey < read:
        yield (
            f"grey images ({grey:,}) and colour images ({read - grey:,}) are mixed: where one "
            "class is mostly grey, a model may go by that"
        )
    if alpha := sum(n for mode, n in modes.items() if mode in ALPHA):
        yield (
            f"{counted(alpha, 'image')} with transparency, which is dropped: the colour under it "
            "shows, often black"
        )
    if printed := modes.get("CMYK", 0):
        yield (
            f"{counted(printed, 'image')} in CMYK, converted without the colour profile: colours "
            "may be off"
        )


def _name_warnings(names: Sequence[str]) -> Iterator[str]:
    if all(re.fullmatch(r"class \d+", name) for name in names):
        yield "the classes have numbers for names: the source declares none"
    if measured := [n for n in names if re.fullmatch(r"[-+]?\d*[.,]\d+(e[-+]?\d+)?", n.strip())]:
        yield f"class names that are decimal numbers ({some(measured)}): are they measurements?"
    elif all(re.fullmatch(r"[-+]?\d+", name.strip()) for name in names):
        yield f"the class names are numbers ({some(names)}): are they classes, not amounts or ids?"
    if paths := [n for n in names if _like_a_path(n)]:
        yield f"class names that look like paths ({some(paths)}): is it the right column?"


def _like_a_path(name: str) -> bool:
    if has_image_suffix(name):
        return True
    return name.startswith(("/", "./", "../", "~/")) or "\\" in name or "://" in name


# --------------------------------------------------------------------------- words


class Page:
    """Lines of a check for a terminal, or as Markdown."""

    def __init__(self, markdown: bool) -> None:
        self.markdown = markdown

    def foreign(self, text: object) -> str:
        return escaped(printable(text)) if self.markdown else printable(text)

    def title(self, text: str) -> str:
        return f"\n### {text}\n" if self.markdown else f"\n{text}"

    def bullets(self, lines: Sequence[str]) -> list[str]:
        return [f"- {self.foreign(line)}" for line in lines]

    def table(self, header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
        return text_table(
            header, [[self.foreign(c) for c in line] for line in lines], self.markdown
        )


class CheckedTask(Protocol):
    """What every check says of its data."""

    @property
    def where(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def subset(self) -> bool: ...


def origin(found: CheckedTask) -> list[str]:
    """Where the data are from, line by line."""
    facts = [f"source: {found.where}"]
    facts += [f"revision: {found.revision}"] if found.revision else []
    facts += [f"split: {found.split}"] if found.split else []
    return facts + (["less than the whole data set"] if found.subset else [])


def found_text(found: Inventory, page: Page) -> list[str]:
    """What a source holds, and what of it is left out; nothing where it was not counted."""
    if not found.unit:
        return []
    left = found.found - found.taken
    lines = [
        f"{found.found:,} {found.unit} found: {found.taken:,} taken, {left:,} left out",
        *(f"left out: {one}" for one in found.left_out),
    ]
    return [page.title("What was found"), *page.bullets(lines)]


def render(found: Check, *, markdown: bool = False) -> str:
    """The check for a terminal, or as Markdown."""

    page = Page(markdown)
    foreign, title, bullets, table = page.foreign, page.title, page.bullets, page.table
    head = (
        f"{found.task}: {counted(len(found.classes), 'class', 'classes')}, "
        f"{found.train:,} training and {found.test:,} test images"
    )
    out = [f"## {foreign(head)}\n" if markdown else foreign(head)]
    out += bullets([*origin(found), f"split hash: {found.split_hash}", *found.notes])

    out += found_text(found.inventory, page)

    out += [title("Classes"), *bullets(list(_balance(found.classes)))]
    rows = [(_cell(c.name), f"{c.train:,}", f"{c.test:,}") for c in _table_classes(found.classes)]
    out += ["", table(("class", "train", "test"), rows)]
    if hidden := len(found.classes) - len(rows):
        out.append(f"\n{hidden:,} classes between the largest and the smallest are in --json only")

    out += [title("Images"), *_sizes(found.images, table)]
    out += bullets(found.images.named)
    if (more := found.images.unreadable - len(found.images.named)) > 0:
        out.append(f"- and {more:,} more that cannot be read")

    out.append(title("Copies (equal bytes)"))
    if any(c.groups for c in found.copies):
        out.append(
            table(
                ("where", "groups", "images"),
                [(c.kind, f"{c.groups:,}", f"{c.images:,}") for c in found.copies],
            )
        )
        for c in found.copies:
            if c.shown:
                of = f" ({len(c.shown)} of {c.groups:,})" if c.groups > len(c.shown) else ""
                out += [f"\n{c.kind}{of}:" + "\n" * markdown]
                out += bullets(["; ".join(group) for group in c.shown])
    else:
        out.append("none")

    if few := found.fewshot:
        out.append(title("Protocols, with their default settings"))
        verdicts = list(_verdicts(few, found.probes))
        out.append(table(("protocol", "works", "in detail"), verdicts))
        reasons = [f"{p.protocol}: {finding}" for p in found.probes for finding in p.findings]
        if few.most_shots:  # else the table says it
            reasons += [f"fewshot: {why}" for why in few.refused.values()]
        out += ["", *bullets(reasons)] if reasons else []

    out += [title("Warnings"), *(bullets(found.warnings) or ["none"])]
    return "\n".join(out)


def _balance(classes: Sequence[ClassCount]) -> Iterator[str]:
    for part in ("train", "test"):
        sizes = np.asarray([getattr(c, part) for c in classes])
        low, middle, high = sizes.min(), np.median(sizes), sizes.max()
        yield f"{part}: {low:,} to {high:,} images a class, median {middle:,.10g}"


def _table_classes(classes: Sequence[ClassCount]) -> list[ClassCount]:
    """The largest first; of many, both ends."""
    order = sorted(classes, key=lambda c: (-c.train, -c.test))
    half = MOST_ROWS // 2
    return order if len(order) <= MOST_ROWS else order[:half] + order[-half:]


def _sizes(images: Images, table: Callable[..., str]) -> Iterator[str]:
    if images.width is None or images.height is None:
        yield "no image could be read"
        return
    sides = (("width", images.width), ("height", images.height))
    lines = [(n, f"{s.least:,}", f"{s.median:,.10g}", f"{s.most:,}") for n, s in sides]
    yield table(("px", "least", "median", "most"), lines)
    modes = ", ".join(f"{mode} {n:,}" for mode, n in images.modes.items())
    formats = ", ".join(f"{kind} {n:,}" for kind, n in images.formats.items())
    turned = f"; turned by EXIF: {images.turned:,}" if images.turned else ""
    yield f"\nformats: {formats}; modes: {modes}{turned}"


def _verdicts(few: FewshotCheck, probes: Sequence[ProbeCheck]) -> Iterator[tuple[str, str, str]]:
    shots, taking = ("/".join(map(str, part)) for part in (few.classes, few.classes.values()))
    if few.most_shots:
        up_to = f"up to {few.most_shots:,}-shot ({few.n_way}-way, {few.queries} queries)"
        works = few.classes.keys() - few.refused.keys()
        yield (
            "fewshot",
            "no" if not works else "yes, but" if few.refused else "yes",
            f"{up_to}; classes at {shots} shots: {taking}",
        )
    else:
        yield "fewshot", "no", few.why_not
    for probe in probes:
        works_out = "yes" if not probe.findings else "yes, but" if probe.works else "no"
        yield probe.protocol, works_out, "see below" if probe.findings else "nothing in the way"


def _cell(name: str) -> str:
    """A class name in a table: quoted where it would not show as it is."""
    return name[:57] + "..." if len(name) > 60 else name if printable(name) == name else repr(name)


def printable(text: object) -> str:
    """Foreign text that moves no cursor: what cannot be printed stands as its escape."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
