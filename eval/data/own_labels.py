"""Data of the user's own with several labels an image: ``labels=COLUMN`` of a CSV file, of Parquet
or of a data set of the Hub."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.common.errors import BadInput
from eval.data.inventory.facts import Inventory
from eval.data.labels.assemble import LabelParts
from eval.data.labels.columns import Columns
from eval.data.labels.stored import HubLabels, ListedLabels, ParquetLabels
from eval.data.located import Located
from eval.data.sources import HubSource, ListedSource, ParquetSource
from eval.data.tables import as_named
from eval.tasks.names import TaskName, query


def columns_of(parsed: TaskName) -> Columns:
    """Which columns, and how they say labels."""
    names = tuple(name for name in parsed.labels.split(",") if name)
    return Columns(names, parsed.separator or "|", parsed.none)


def options(parsed: TaskName) -> dict[str, str]:
    """Those of a task string that are about several labels; empty where it is about one."""
    if not parsed.labels:
        return {}
    names = ("labels", "separator", "none")
    return {name: value for name in names if (value := getattr(parsed, name))}


def refuse_lone(parsed: TaskName, subject: str) -> None:
    """Raises UserError for an option about several labels without their column."""
    for option in ("separator", "none"):
        if getattr(parsed, option) and not parsed.labels:
            raise BadInput(
                f"{subject}: {option}= is about several labels an image; name their column: "
                "labels=.."
            )


def locate_parquet(
    folder: Path,
    train: ParquetSource,
    test: ParquetSource,
    held: Sequence[ParquetSource],
    parsed: TaskName,
    text: str,
    inventory: Inventory,
) -> Located:
    """Parquet files with a column of lists, or one column a label."""
    columns = columns_of(parsed)
    first, scored, *others = (ParquetLabels(source, columns) for source in (train, test, *held))
    parts = LabelParts(first, scored, validation=others[0] if others else None)
    named = {"image": parsed.image} | options(parsed)
    named |= {k: v for k in ("train", "test", "validation") if (v := getattr(parsed, k))}
    place = folder.resolve()
    return Located(
        place.name, f"parquet:{place}{query(named)}", "", f"task {text!r}", parts, kind="parquet",
        inventory=inventory,
    )  # fmt: skip


def hub_parts(
    train: HubSource, test: HubSource, held: Sequence[HubSource], parsed: TaskName
) -> LabelParts:
    """Splits of a data set of the Hub, whose image column alone is read as pixels."""
    columns = columns_of(parsed)

    first, scored, *others = (
        HubLabels(dataclasses.replace(source, label=columns.top[0]), columns)
        for source in (train, test, *held)
    )
    return LabelParts(first, scored, validation=others[0] if others else None)


def roles(parsed: TaskName) -> dict[str, str]:
    """The columns of a table to be read, by role; empty where an image has one label."""
    if not parsed.labels:
        return {}
    return {f"labels {name}": name for name in columns_of(parsed).names}


class Labelled(NamedTuple):
    """The labels of a table's images, one row each."""

    sets: tuple[tuple[str, ...], ...]
    again: int  # images that stood in several rows
    said: tuple[str, ...]  # what was decided about values


def by_image(
    table: Mapping[str, list[str]], parsed: TaskName, text: str
) -> tuple[dict[str, list[str]], Labelled]:
    """The table with the first row of each image alone, and the labels that its rows have
    together. Raises UserError for a value that says no labels."""
    columns = dataclasses.replace(columns_of(parsed), paths=False)
    rows = {name: table[f"labels {name}"] for name in columns.names}
    sets = columns.read(rows, lambda row: f"task {text!r}: image {table['image'][row]!r}")
    of: dict[str, list[int]] = {}
    for row, image in enumerate(table["image"]):
        of.setdefault(os.path.normpath(image), []).append(row)
    united = tuple(
        tuple(dict.fromkeys(label for row in these for label in sets[row])) for these in of.values()
    )
    once = {role: [values[these[0]] for these in of.values()] for role, values in table.items()}
    again = sum(len(these) > 1 for these in of.values())
    return once, Labelled(united, again, columns.said(rows))


def listed(file: Path, images: Sequence[str], labelled: Labelled) -> ListedLabels:
    """Images of a table as a source."""
    source = ListedSource(as_named(file).parent, tuple(images), ())
    return ListedLabels(source, labelled.sets, labelled.said)
