"""Data of the user's own with queries and a gallery: ``instance=COLUMN`` of a CSV file, of Parquet
or of a data set of the Hub.

``role=COLUMN`` says of each row whether it is a query or of the gallery. Without it the parts do:
test asks, train is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput
from eval.data.instances.assemble import InstanceParts, Side
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.split_words import Chosen, Given, choose, lost
from eval.data.located import Located
from eval.data.shards import every_shard, read_shards
from eval.data.sources import HubSource, ListedSource, ParquetSource
from eval.data.tables import as_named, read_table
from eval.hub.dataset import split_names
from eval.tasks.names import TaskName, query

_WORDS: dict[str, Side] = {
    "query": "query", "queries": "query",
    "gallery": "gallery", "index": "gallery", "database": "gallery",
}  # fmt: skip
_OTHERS = ("labels", "separator", "none", "objects", "mask", "group", "split", "validation",
           "classes", "void")  # fmt: skip


def check_options(parsed: TaskName, subject: str) -> None:
    """Raises UserError for options that do not go with instances, and for a role without them."""
    if not parsed.instance:
        if parsed.role:
            raise BadInput(
                f"{subject}: role= is about queries and a gallery; name the column of what they "
                "show: instance=.."
            )
        return
    for option in _OTHERS:
        if getattr(parsed, option):
            raise BadInput(
                f"{subject}: {option}= does not go with instance=, which takes role=, train= (the "
                "gallery) and test= (the queries)"
            )


def locate_csv(file: Path, parsed: TaskName, text: str) -> Located:
    """A table with a column of instances and one of roles. Raises UserError for what is wrong."""
    subject = f"task {text!r}"
    if not parsed.role:
        raise BadInput(
            f"{subject}: a table has one part; name the column that says query or gallery: role=.."
        )
    columns = {"image": parsed.image, "instance": parsed.instance, "role": parsed.role}
    table = read_table(file, columns, subject)
    sides, inventory = _sides(table["role"], table["image"], parsed, subject)
    place = as_named(file)
    source = ListedSource(place.parent, tuple(table["image"]), tuple(table["instance"]))
    where = f"csv:{place}{query(_options(parsed))}"
    return Located(
        file.stem, where, "", subject, InstanceParts(source, None, sides), kind="csv",
        inventory=inventory,
    )  # fmt: skip


def locate_parquet(folder: Path, parsed: TaskName, text: str) -> Located:
    """Parquet files: two parts, or, with a column of roles, all that the folder holds."""
    subject = f"task {text!r}"
    if parsed.role:
        files = every_shard(folder, subject)
        source = ParquetSource(files, parsed.image, parsed.instance)
        parts, inventory = _by_role(source, parsed, subject)
    else:
        read = read_shards(folder, subject, Given(parsed.train, parsed.test), boxes=True)
        gallery, queries = (
            ParquetSource(files, parsed.image, parsed.instance) for files in (read.train, read.test)
        )
        parts, inventory = InstanceParts(gallery, queries), read.inventory
    place = folder.resolve()
    where = f"parquet:{place}{query(_options(parsed))}"
    return Located(place.name, where, "", subject, parts, kind="parquet", inventory=inventory)


def locate_hub(sha: str, parsed: TaskName, text: str) -> Located:
    """A data set of the Hub at a commit: two splits, or, with a column of roles, all of them."""
    subject = f"task {text!r}"
    splits = split_names(parsed.value, parsed.config, sha)

    def rows_of(split: str) -> HubSource:
        return HubSource(parsed.value, sha, parsed.config, split, parsed.image, parsed.instance)

    named = _options(parsed)
    if parsed.role:
        parts, inventory = _by_role(rows_of("+".join(splits) or "train"), parsed, subject)
    else:
        given = Given(parsed.train, parsed.test)
        chosen = choose(splits, f"{subject}: {parsed.value}", given, boxes=True) if splits else None
        chosen = chosen or Chosen(parsed.train or "train", parsed.test or "test")
        parts = InstanceParts(rows_of(chosen.train), rows_of(chosen.test))
        inventory = Inventory(said=(*chosen.said, *lost(splits, chosen, given)))
        named |= {"train": chosen.train, "test": chosen.test}
    options = {"revision": sha} | ({"config": parsed.config} if parsed.config else {}) | named
    name = parsed.value.replace("/", "--")
    where = f"hub:{parsed.value}{query(options)}"
    return Located(name, where, sha, subject, parts, kind="hub", inventory=inventory)


def _options(parsed: TaskName) -> dict[str, str]:
    names = ("image", "instance", "role", "train", "test")
    return {name: value for name in names if (value := getattr(parsed, name))}


def _by_role(
    source: ParquetSource | HubSource, parsed: TaskName, subject: str
) -> tuple[InstanceParts, Inventory]:
    sides, inventory = _sides(source.column(parsed.role), None, parsed, subject)
    return InstanceParts(source, None, sides), inventory


def _sides(
    values: Sequence[Any], names: Sequence[str] | None, parsed: TaskName, subject: str
) -> tuple[tuple[Side, ...], Inventory]:
    """What each row is, by the value of its role: that which ``train=`` or ``test=`` names, else a
    word for it. Rows of other values are left out and counted."""
    texts = [str(value).strip().lower() for value in values]
    words: dict[str, Side] = dict(_WORDS)
    named: tuple[tuple[Side, str], ...] = (("gallery", parsed.train), ("query", parsed.test))
    for side, name in named:
        if name:
            words = {word: known for word, known in words.items() if known != side}
            words[name.strip().lower()] = side
    sides: tuple[Side, ...] = tuple(words.get(text, "") for text in texts)
    if not {"query", "gallery"} <= set(sides):
        have = ", ".join(repr(text) for text in sorted(set(texts))[:8])
        raise BadInput(
            f"{subject}: its role column {parsed.role!r} holds {have}; use 'query' and 'gallery', "
            "or say which with &test=VALUE&train=VALUE (test asks, train is the gallery)"
        )
    tally = Tally("rows")
    tally.take(sum(side != "" for side in sides))
    for text, count in sorted(
        Counter(t for t, s in zip(texts, sides, strict=True) if not s).items()
    ):
        row = texts.index(text)
        tally.leave(f"of role {text}", names[row] if names else f"row {row}", count=count)
    return sides, tally.done()
