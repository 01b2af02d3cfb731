"""Data of the user's own: Parquet files, class folders, a CSV list, a data set of the Hub, sets
with boxes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError
from eval.common.images import Range
from eval.common.text import counted
from eval.data import own_boxes, own_instances, own_labels, own_masks
from eval.data.folders import read_folders
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.labels import as_meant
from eval.data.inventory.split_words import FREE, Chosen, Given, choose, lost
from eval.data.labels.assemble import LabelParts
from eval.data.located import Located, Parts, Whole
from eval.data.shards import read_shards
from eval.data.sources import (
    HubSource,
    ListedSource,
    ParquetSource,
    open_parquet,
)
from eval.data.tables import as_named, count_twice, own_parts, read_table, refuse_apart
from eval.data.values import parse_range
from eval.data.whole_split import AsGiven, Drawn, WholeGroups
from eval.hub import client
from eval.hub.dataset import split_names
from eval.tasks.names import TaskName, query, with_option


def locate(parsed: TaskName, text: str, seed: int) -> Located:
    """The data of a task string that is not a declared name. Raises UserError for what is wrong.

    ``seed`` is that of a split made here, where the data have none.
    """
    found = _locate(parsed, text, seed)
    if not parsed.range:
        return found
    return _ranged(found, parsed.range, parse_range(parsed.range, f"task {text!r}"))


def _ranged(found: Located, text: str, given: Range) -> Located:
    def otherwise() -> Located | None:
        other = found.otherwise() if found.otherwise else None
        return None if other is None else _ranged(other, text, given)

    where = with_option(found.where, "range", text)
    return dataclasses.replace(found, where=where, range=given, otherwise=otherwise)


def _locate(parsed: TaskName, text: str, seed: int) -> Located:
    if parsed.kind == "parquet":
        return _parquet(parsed, text)
    if parsed.kind == "imagefolder":
        return _imagefolder(parsed, text, seed)
    if parsed.kind == "csv":
        return _csv(parsed, text, seed)
    if parsed.kind in ("coco", "voc", "yolo"):
        return own_boxes.locate(parsed, text)
    if parsed.kind in ("masks", "voc-seg"):
        return own_masks.locate(parsed, text, seed)
    return _hub(parsed, text)


OBJECTS = "objects"  # the column of boxes where a task string names none


def _parquet(parsed: TaskName, text: str) -> Located:
    folder = _existing_folder(parsed.value, text)
    given, subject = _given(parsed), f"task {text!r}"
    own_instances.check_options(parsed, subject)
    if parsed.instance:
        return own_instances.locate_parquet(folder, parsed, text)
    found = read_shards(folder, subject, given)
    train, test, *held = (
        ParquetSource(files, parsed.image, parsed.label)
        for files in (found.train, found.test, *found.validation)
    )

    def with_boxes(column: str) -> Located:
        inventory = read_shards(folder, subject, given, boxes=True).inventory
        parts = given.options()
        return own_boxes.locate_parquet(folder, train, test, column, text, parts, inventory)

    def otherwise() -> Located | None:
        """Looked at only where there is no label, so that the second load of a data set opens no
        file."""
        if _has_alone(train, OBJECTS):
            return with_boxes(OBJECTS)
        return with_masks(own_masks.MASK) if _has_alone(train, own_masks.MASK) else None

    def with_masks(column: str) -> Located:
        read = read_shards(folder, subject, given, boxes=True).inventory
        asked = dataclasses.replace(parsed, mask=column)
        return own_masks.locate_parquet(folder, train, test, asked, text, given.options(), read)

    if parsed.objects:
        return with_boxes(parsed.objects)
    if parsed.labels:
        inventory = found.inventory
        return own_labels.locate_parquet(folder, train, test, held, parsed, text, inventory)
    own_labels.refuse_lone(parsed, subject)
    if parsed.mask:
        return with_masks(parsed.mask)
    for option in ("group", "classes", "void"):
        if getattr(parsed, option):
            raise BadInput(f"{subject}: {option}= is about masks; name their column: mask=..")
    columns = query({"image": parsed.image, "label": parsed.label} | given.options())
    where, name = f"parquet:{folder.resolve()}{columns}", folder.resolve().name
    return Located(
        name, where, "", subject, Parts(train, test, validation=tuple(held)), kind="parquet",
        inventory=found.inventory, unused=found.names, otherwise=otherwise,
    )  # fmt: skip


def _given(parsed: TaskName) -> Given:
    return Given(parsed.train, parsed.test, parsed.validation)


def _has_alone(source: ParquetSource, column: str) -> bool:
    """A column of boxes or masks, and not one label an image."""
    columns = open_parquet(source.files[0]).schema_arrow.names
    return column in columns and source.label not in columns


def _existing_folder(path: str, subject: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise NotFound(f"task {subject!r}: {path!r} does not exist or is not a directory")
    return folder


def _imagefolder(parsed: TaskName, text: str, seed: int) -> Located:
    root = _existing_folder(parsed.value, text)
    subject = f"task {text!r}"
    found = read_folders(root, subject, _given(parsed))
    where = f"imagefolder:{root.resolve()}{query(_given(parsed).options())}"
    notes: tuple[str, ...] = ()
    images: Parts | Whole
    if found.test is not None:
        images = Parts(found.train, found.test, validation=found.validation)
    else:
        notes = (f"one folder, split here: 70 % of each class to train, seed {seed}",)
        images = Whole(found.train, Drawn(seed))
    return Located(
        root.resolve().name, where, "", subject, images, kind="imagefolder", notes=notes,
        inventory=found.inventory,
    )  # fmt: skip


def _csv(parsed: TaskName, text: str, seed: int) -> Located:
    file = _file(parsed.value, text)
    own_instances.check_options(parsed, f"task {text!r}")
    if parsed.instance:
        return own_instances.locate_csv(file, parsed, text)
    columns = {"image": parsed.image}
    own_labels.refuse_lone(parsed, f"task {text!r}")
    columns |= own_labels.roles(parsed) or {"label": parsed.label}
    columns |= {k: v for k in ("group", "split") if (v := getattr(parsed, k))}
    table = read_table(file, columns, f"task {text!r}")
    if parsed.labels:
        refuse_apart(table, f"task {text!r}: {str(file)!r}")
    given = _given(parsed)
    if given != FREE and "split" not in table:
        raise BadInput(f"task {text!r}: train= and test= are values of a column; name it: split=..")
    named = own_labels.options(parsed) or {"label": parsed.label}
    named |= {k: v for k in ("group", "split") if (v := getattr(parsed, k))}
    where = f"csv:{as_named(file)}{query({'image': parsed.image} | named | given.options())}"
    notes: list[str] = []
    tally = Tally("rows")
    held: tuple[bool, ...] = ()
    rule: Drawn | WholeGroups | AsGiven
    if "split" in table:
        table = own_parts(table, tally, text, given)
    else:
        tally.take(len(table["image"]))
    if parsed.labels:
        table, labelled = own_labels.by_image(table, parsed, text)
        if labelled.again:  # what a list of images and labels is for; columns of 1 and 0 are not
            say = tally.say if len(own_labels.roles(parsed)) > 1 else notes.append
            say(f"{counted(labelled.again, 'image')} listed more than once: the labels of all "
                "rows of an image are its")  # fmt: skip
    else:
        count_twice(table["image"], tally)
    if "split" in table:
        rule = AsGiven(tuple(side != "test" for side in table["split"]))
        held = tuple(side == "validation" for side in table["split"])
        if left := tally.done().left_out:
            which = ", ".join(one.why.removeprefix("of ") for one in left[:5])
            notes.append(f"{sum(one.count for one in left):,} rows of {which} are not used")
    elif "group" in table:
        rule = WholeGroups(tuple(table["group"]), seed)
    else:
        rule = Drawn(seed)
        notes.append(f"split here: 70 % of each class to train, seed {seed}")
    if parsed.labels:
        listed = own_labels.listed(file, table["image"], labelled)
        several = LabelParts(listed, None, rule, held)
        return Located(
            file.stem, where, "", f"task {text!r}", several, kind="csv", notes=tuple(notes),
            inventory=tally.done(),
        )  # fmt: skip
    labels = as_meant(table["label"])
    source = ListedSource(as_named(file).parent, tuple(table["image"]), tuple(labels))
    images = Whole(source, rule, validation=held)
    return Located(
        file.stem, where, "", f"task {text!r}", images, kind="csv", notes=tuple(notes),
        inventory=tally.done(),
    )  # fmt: skip


def _file(path: str, text: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UserError(f"task {text!r}: {error}") from None


def _hub(parsed: TaskName, text: str) -> Located:
    sha = client.pin(parsed.value, parsed.revision, "dataset", f"task {text!r}").sha
    own_instances.check_options(parsed, f"task {text!r}")
    if parsed.instance:
        return own_instances.locate_hub(sha, parsed, text)
    held_out = (parsed.validation,) if parsed.validation else ()
    chosen = Chosen(parsed.train or "train", parsed.test or "test", held_out)
    if names := split_names(parsed.value, parsed.config, sha):
        place = f"task {text!r}: {parsed.value}"
        chosen = choose(names, place, _given(parsed)) or chosen
    train, test, *held = (
        HubSource(parsed.value, sha, parsed.config, part, parsed.image, parsed.label)
        for part in (chosen.train, chosen.test, *chosen.validation)
    )
    own_labels.refuse_lone(parsed, f"task {text!r}")
    options = {"revision": sha, "image": parsed.image}
    options |= own_labels.options(parsed) or {"label": parsed.label}
    options |= {"config": parsed.config} if parsed.config else {}
    options |= {"train": chosen.train, "test": chosen.test}
    options |= {"validation": chosen.validation[0]} if chosen.validation else {}
    where = f"hub:{parsed.value}{query(options)}"
    name = parsed.value.replace("/", "--")
    found = Inventory(said=(*chosen.said, *lost(names, chosen, _given(parsed))))
    if parsed.labels:
        parts = own_labels.hub_parts(train, test, held, parsed)
        return Located(name, where, sha, f"task {text!r}", parts, kind="hub", inventory=found)
    return Located(
        name, where, sha, f"task {text!r}", Parts(train, test, validation=tuple(held)), kind="hub",
        inventory=found, unused=chosen.validation,
    )  # fmt: skip
