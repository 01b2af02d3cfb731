"""A CSV file that lists images with their labels: read strictly, split by its own column."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.files import read_plain
from eval.common.text import counted
from eval.data.inventory.facts import Tally
from eval.data.inventory.labels import MULTI_LABEL, are_numbers, is_unlabelled, unlabelled
from eval.data.inventory.split_words import FREE, Given, choose, is_told, role_of

DELIMITERS = ",;\t"


def as_named(file: Path) -> Path:
    """The absolute path under which a file is named: links of its folders are followed, its own is
    not. Paths inside count from there: a snapshot of the Hub, DVC and git-annex keep a link beside
    the images, and what it points to elsewhere."""
    return file.parent.resolve() / file.name


def read_table(file: Path, columns: dict[str, str], subject: str) -> dict[str, list[str]]:
    """The named columns of a CSV file, by role, ``label`` among them where each image has one.
    Fields are separated by commas, or, where the
    header has none, by semicolons or tabs.

    Raises UserError for a file, a column or a row that is not as promised, for images that are
    missing and for one that stands under two labels.
    """
    name = repr(str(file))
    header, rows = _rows(file, subject)
    if not rows:
        raise BadInput(f"{subject}: {name} has no rows")
    for role, column in columns.items():
        if column not in header:
            raise NotFound(
                f"{subject}: {name} has no {role} column {column!r}; its columns are "
                f"{', '.join(header)}"
            )
        if header.count(column) > 1:
            raise BadInput(
                f"{subject}: {name} has {header.count(column)} columns called {column!r}; rename "
                "all but one"
            )
    for line, row in rows:
        if len(row) > len(header):
            raise BadInput(
                f"{subject}: line {line} of {name} has {len(row)} fields where the header has "
                f"{len(header)}; put quotes around a text that holds a separator, as in "
                f'"{row[-2].strip()}, {row[-1].strip()}"'
            )
    places = {role: header.index(column) for role, column in columns.items()}
    table = {
        role: [row[at] if at < len(row) else "" for _, row in rows] for role, at in places.items()
    }
    for role, values in table.items():
        if not role.startswith("label") and "" in values:
            line = rows[values.index("")][0]
            raise BadInput(f"{subject}: line {line} of {name} has no {role}")
    if "label" in table:
        _refuse_unlabelled(table["label"], [line for line, _ in rows], f"{subject}: {name}")
        _refuse_two_labels(table["image"], table["label"], f"{subject}: {name}")
    folder = as_named(file).parent
    table["image"] = [_as_here(folder, image) for image in table["image"]]
    gone = [image for image in table["image"] if not _is_file(folder / image)]
    if gone:
        raise NotFound(
            f"{subject}: {len(gone):,} of {len(rows):,} images are missing, the first is "
            f"{str(folder / gone[0])[:300]!r}"
        )
    return table


def _rows(file: Path, subject: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(the header, each row with the line on which it ends)."""
    try:
        lines = io.StringIO(read_plain(file).decode("utf-8-sig"), newline="")
        first = lines.readline()
        mark = next((m for m in DELIMITERS if m in first), ",")
        lines.seek(0)
        reader = csv.reader(lines, delimiter=mark, skipinitialspace=True)
        header = next(reader, [])
        return header, [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise BadInput(f"{subject}: {str(file)!r} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(
            f"{subject}: {str(file)!r} is not valid CSV in UTF-8: {one_line(error)}"
        ) from None


def _refuse_unlabelled(labels: list[str], lines: list[int], place: str) -> None:
    numbers = are_numbers(labels)
    bare = [i for i, label in enumerate(labels) if is_unlabelled(label, numbers)]
    if bare:
        label = labels[bare[0]]
        where = f"on line {lines[bare[0]]}"
        raise BadInput(f"{place}: {unlabelled(len(bare), len(labels), 'rows', label, where)}")


def _refuse_two_labels(images: list[str], labels: list[str], place: str) -> None:
    under: dict[str, str] = {}
    both: dict[str, tuple[str, str]] = {}
    for image, label in zip(map(os.path.normpath, images), labels, strict=True):
        if under.setdefault(image, label) != label:
            both.setdefault(image, (under[image], label))
    if both:
        image, (one, other) = next(iter(both.items()))
        raise BadInput(
            f"{place}: {counted(len(both), 'image')} under two labels, such as {image!r} under "
            f"{one!r} and {other!r}; {MULTI_LABEL}"
        )


def count_twice(images: list[str], tally: Tally) -> None:
    """Say how many images are listed more than once, under one label."""
    twice = [n for n in Counter(map(os.path.normpath, images)).values() if n > 1]
    if twice:
        tally.say(f"{counted(len(twice), 'image')} listed more than once: each row counts")


def refuse_apart(table: dict[str, list[str]], place: str) -> None:
    """Raises UserError where the rows of one image are of two parts or groups."""
    images = list(map(os.path.normpath, table["image"]))
    for role, what in (("split", "parts"), ("group", "groups")):
        first: dict[str, str] = {}
        for image, value in zip(images, table.get(role, ()), strict=role in table):
            known = first.setdefault(image, value)
            if known != value and (role == "group" or _plain(known) != _plain(value)):
                raise BadInput(
                    f"{place}: image {image!r} stands in two {what}, {known!r} and {value!r}; "
                    f"write one {role} in all its rows"
                )


def own_parts(
    table: dict[str, list[str]], tally: Tally, text: str, given: Given = FREE
) -> dict[str, list[str]]:
    """The rows of the parts alone, their split being 'train', 'validation' or 'test'; the others
    are counted as left out. Raises UserError where a side is missing or a group is on both."""
    plain = [_plain(value) for value in table["split"]]
    written = dict(zip(plain, table["split"], strict=True))
    place = f"task {text!r}: its split column"
    asked = Given(*map(_plain, (given.train, given.test, given.validation)))
    chosen = choose(plain, place, asked)
    if chosen is None:
        values = ", ".join(repr(v) for v in sorted(set(table["split"]))[:8])
        raise BadInput(
            f"{place} holds {values}; use 'train' and 'test', or say which with "
            "&train=VALUE&test=VALUE"
        )
    for said in chosen.said:
        tally.say(said)
    sides = dict.fromkeys(chosen.validation, "validation")
    sides |= {chosen.train: "train", chosen.test: "test"}
    kept = [i for i, value in enumerate(plain) if value in sides]
    out = {role: [values[i] for i in kept] for role, values in table.items()}
    out["split"] = [sides[plain[i]] for i in kept]
    tally.take(len(kept))
    for value, count in sorted(Counter(v for v in plain if v not in sides).items()):
        tally.leave(f"of {written[value]}", table["image"][plain.index(value)], count=count,
                    expected=is_told(value, chosen, asked))  # fmt: skip
    both = set()
    if "group" in table:
        rows = list(zip(out["group"], out["split"], strict=True))
        both = {g for g, s in rows if s != "test"} & {g for g, s in rows if s == "test"}
    if both:
        raise BadInput(
            f"task {text!r}: {len(both):,} groups are on both sides of the split, such as "
            f"{min(both)!r}; leave out ?split= to split whole groups here"
        )
    return out


def _plain(value: str) -> str:
    """A value of a split column: spellings of one word are the same part."""
    found = role_of(value)
    if found and not found[1] and found[0] != "validation":
        return found[0]
    return value.strip().lower()


def _as_here(folder: Path, image: str) -> str:
    """An image's path; one that was written on Windows with the slashes of here."""
    plain = image.replace("\\", "/")
    return plain if plain != image and not _is_file(folder / image) else image


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is not a name of a file
        return False
