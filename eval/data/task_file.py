"""A task file: a data set of the user's own, declared in about ten lines of TOML."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.common.errors import UserError, did_you_mean, one_line
from eval.tasks.names import parse_task
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
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"task file {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"task file {str(path)!r} is no TOML: {one_line(error)}") from None
    try:
        found = TaskFile.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"task file {str(path)!r} {_sentence(error)}") from None
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", found.name):
        raise UserError(
            f"task file {str(path)!r}: name = {found.name!r}: use up to 64 of a-z, 0-9, '_', '-' "
            "and '.'"
        )
    if found.name in TASKS or found.name in SUITES:
        kind = "a declared task" if found.name in TASKS else "a suite"
        raise UserError(
            f"task file {str(path)!r}: name = {found.name!r} is that of {kind}; choose another, so "
            "that your numbers are not taken for its"
        )
    try:
        kind = parse_task(found.source).kind
    except UserError as why:
        raise UserError(f"task file {str(path)!r}: source: {why}") from None
    if kind in ("declared", "file"):
        raise UserError(
            f"task file {str(path)!r}: source = {found.source!r} is no data of your own; use "
            "imagefolder:DIR, parquet:DIR, csv:FILE, hub:org/name, coco:DIR, voc:DIR or yolo:DIR"
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
