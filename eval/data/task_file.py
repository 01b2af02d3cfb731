"""A task file: a data set of the user's own, declared in about ten lines of TOML."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.common.errors import BadInput, Refused, UserError, did_you_mean, one_line
from eval.common.files import MOST_JSON, read_plain
from eval.data import own
from eval.data.located import Located
from eval.data.tables import as_named
from eval.data.task_data import TaskData
from eval.tasks.declaration import METRICS, SplitRule, Task
from eval.tasks.names import parse_task, split_query
from eval.tasks.registry import SUITES, TASKS


class TaskFile(BaseModel):
    """The file's content. What is optional and given is checked against the data."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    source: str  # a task string; paths in it are relative to the file
    title: str = ""
    domain: str = "own"
    licence: str = ""
    citation: str = ""
    home: str = ""
    note: str = ""
    classes: list[str] | None = None  # all class names, in any order
    train: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


def read_task_file(path: Path) -> TaskFile:
    """Read and validate. Raises UserError with the first thing wrong."""
    try:
        text = read_plain(path, MOST_JSON).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"task file {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"task file {str(path)!r} is not valid TOML: {one_line(error)}") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = ""
        if re.search(r'=\s*"[^"\n]*\\', text):
            hint = "; write a path with '\\' in single quotes: source = 'csv:C:\\photos\\all.csv'"
        why = one_line(error)
        raise BadInput(f"task file {str(path)!r} is not valid TOML: {why}{hint}") from None
    try:
        found = TaskFile.model_validate(tree)
    except ValidationError as error:
        raise BadInput(f"task file {str(path)!r} {_sentence(error)}") from None
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", found.name):
        raise BadInput(
            f"task file {str(path)!r}: name = {found.name!r}: use up to 64 of a-z, 0-9, '_', '-' "
            "and '.'"
        )
    if found.name in TASKS or found.name in SUITES:
        kind = "a declared task" if found.name in TASKS else "a suite"
        raise Refused(
            f"task file {str(path)!r}: name = {found.name!r} is that of {kind}; choose another, so "
            "that your numbers are not taken for its"
        )
    try:
        kind = parse_task(found.source).kind
    except UserError as why:
        raise BadInput(f"task file {str(path)!r}: source: {why}") from None
    if kind in ("declared", "file"):
        raise BadInput(
            f"task file {str(path)!r}: source = {found.source!r} is not data of your own; use "
            "imagefolder:DIR, parquet:DIR, csv:FILE, hub:org/name, coco:DIR, voc:DIR, yolo:DIR, "
            "masks:DIR or voc-seg:DIR"
        )
    return found


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    known = list(TaskFile.model_fields)
    if first["type"] == "extra_forbidden":
        return f"has an unknown key {key!r}" + did_you_mean(
            key, known, "known: " + ", ".join(known)
        )
    if first["type"] == "missing":
        return f"lacks {key!r}; it needs name and source"
    return f"has {key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


# --------------------------------------------------------------------------- the data it names


def locate(text: str, seed: int) -> Located:
    """The data that a task file names, to be checked against what it says of them."""
    path = Path(text).expanduser()
    facts = read_task_file(path)
    source = _absolute(facts.source, path)
    return _under_its_name(own.locate(parse_task(source), source, seed), facts, text, path)


def _under_its_name(found: Located, facts: TaskFile, text: str, path: Path) -> Located:
    def otherwise() -> Located | None:
        other = found.otherwise() if found.otherwise else None
        return None if other is None else _under_its_name(other, facts, text, path)

    return dataclasses.replace(
        found,
        name=facts.name,
        where=str(as_named(path)),
        kind="",
        checks=(*found.checks, partial(_as_promised, facts, f"task file {text!r}")),
        describe=partial(_declared, facts),
        otherwise=otherwise,
    )


def _absolute(source: str, file: Path) -> str:
    """The task string with its path seen from the file's folder."""
    prefix, _, rest = source.partition(":")
    if prefix == "hub":
        return source
    path, options = split_query(rest)
    try:
        place = as_named(file).parent / Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # ~nobody, a NUL
        raise BadInput(f"task file {str(file)!r}: source = {source!r}: {error}") from None
    return f"{prefix}:{place}" + (f"?{options}" if options else "")


def _as_promised(facts: TaskFile, subject: str, found: TaskData) -> None:
    """The data have the classes and the counts that the file names."""
    if facts.classes is not None and set(facts.classes) != set(found.classes):
        unlike = sorted(set(facts.classes) ^ set(found.classes))
        raise BadInput(
            f"{subject}: classes differ from those of the data in "
            f"{', '.join(map(repr, unlike[:5]))}"
        )
    for part in (found.train, found.test):
        promised = getattr(facts, part.name)
        if promised is not None and promised != len(part):
            raise BadInput(
                f"{subject}: {part.name} = {promised:,}, but the data have {len(part):,} images "
                "there"
            )


def _declared(facts: TaskFile, found: TaskData) -> Task:
    """The file's facts as a declaration, with the counts of what was found."""
    return Task(
        facts.name,
        facts.title or facts.name,
        facts.domain,
        classes=len(found.classes),
        images=len(found.train) + len(found.test),
        licence=facts.licence,
        citation=facts.citation,
        splits=(SplitRule("own", "official", len(found.train), len(found.test)),),
        home=facts.home,
        note=facts.note,
        metric=METRICS[found.kind],
        kind=found.kind,
    )
