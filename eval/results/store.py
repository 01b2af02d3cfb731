"""The result file: one (model, task, protocol), everything needed to trust or repeat it.

``schema_version`` 1. Scores are fractions (0..1). Files lie at
``RESULTS/<model>/<revision>/<task>.<protocol>[@changed settings].json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.common.errors import BadInput, NotFound, UserError
from eval.common.files import MOST_JSON, dump_json, read_plain, write_json
from eval.common.text import quoted
from eval.results.schema import ANALYSES, SCHEMA_VERSION, Result
from eval.stores.front import create

LOCK = ".lock"  # below a results directory: held for the moment in which a result is written


class NotAResult(ValueError):
    """The file is not a result of this schema; the text says why."""


def read_result(path: Path) -> Result:
    """Read and validate one file. Raises NotAResult in one line."""
    try:
        value = json.loads(read_plain(path, MOST_JSON), object_pairs_hook=_unlike_names)
    except _Twice as error:
        raise NotAResult(f"it says {error} twice in one object") from None
    except OSError as error:
        raise NotAResult(f"it cannot be read: {error.strerror or type(error).__name__}") from None
    except (ValueError, RecursionError) as error:
        raise NotAResult(f"no readable JSON ({type(error).__name__})") from None
    if not isinstance(value, dict) or "schema_version" not in value:
        raise NotAResult("it has no schema_version")
    if value["schema_version"] != SCHEMA_VERSION:
        raise NotAResult(
            f"schema_version is {value['schema_version']!r}, this version reads {SCHEMA_VERSION}"
        )
    try:
        # strict: a number written as text, or true for 1, is one number here and another elsewhere
        return Result.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise NotAResult(f"{where}: {first['msg']}") from None


class _Twice(ValueError):
    """A name that stands twice in one JSON object: every reader takes another of the two."""


def _unlike_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Twice(quoted(name))
    return found


def dump_result(result: Result) -> bytes:
    """The file's content."""
    return dump_json(result.model_dump(mode="json"))


def create_result(folder: Path, path: Path, result: Result) -> bool:
    """Write a new result of a results directory, or of the store behind it; False where there is
    one already. Raises UserError when the place cannot be written."""
    return create(folder, path, dump_result(result))


def disagreement(held: Result, result: Result) -> str:
    """Where two results of one name contradict each other, in words; '' where what both have is
    equal to the last digit."""
    for ours in result.scores:
        theirs = held.score(ours.name)
        if theirs is not None and theirs != ours:
            return f"{ours.name} is {theirs.value:.6g} there and {ours.value:.6g} here"
    for name, samples in result.samples.items():
        if name in held.samples and held.samples[name] != samples:
            return f"other answers make up {name} there than here"
    return ""


def write_result(path: Path, result: Result) -> None:
    """Write atomically, over what is there. Raises UserError when the place cannot be written."""
    try:
        write_json(path, result.model_dump(mode="json"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Shelf:
    """All results under a directory, and the JSON files there that are none."""

    results: tuple[tuple[Path, Result], ...]
    foreign: tuple[tuple[Path, str], ...]  # (file, why)


def read_shelf(directory: Path) -> Shelf:
    """Read every JSON file below ``directory``. Raises UserError when it is missing, a file,
    or holds JSON but no result at all."""
    if not directory.exists():
        raise NotFound(f"results directory {str(directory)!r} does not exist")
    if not directory.is_dir():
        raise BadInput(f"results directory {str(directory)!r} is a file")
    results, foreign = [], []
    for path in result_files(directory):
        try:
            results.append((path, read_result(path)))
        except NotAResult as why:
            foreign.append((path, str(why)))
    if foreign and not results:
        raise BadInput(
            f"results directory {str(directory)!r} holds {len(foreign)} JSON files and none is a "
            f"result (the first, {foreign[0][0].relative_to(directory)}: {foreign[0][1]})"
        )
    return Shelf(tuple(results), tuple(foreign))


def result_files(directory: Path) -> Iterator[Path]:
    """The JSON files below a directory that may be results, in a stable order."""
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != ANALYSES)
        for name in sorted(files):
            # config.json is timm's: a folder of checkpoints with their results is a shelf too
            if name.endswith(".json") and not name.startswith(".") and name != "config.json":
                yield Path(folder, name)


def check_writable(directory: Path) -> None:
    """Raises UserError when results could not be written under ``directory``; writes nothing."""
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"results directory {str(directory)!r} is a file; name a directory")
    place = directory
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"results directory {str(directory)!r} lies under the file {str(place)!r}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"results directory {str(directory)!r} cannot be written; choose another with --results"
        )
    if directory.exists():
        _check_shelf(directory)


def _check_shelf(directory: Path) -> None:
    """Raises UserError for a directory that is full of somebody else's JSON: the first result says
    that it is not, so that a large one is not read."""
    for path in result_files(directory):
        try:
            read_result(path)
            return
        except NotAResult:
            continue
    read_shelf(directory)
