"""What an analysis leaves: one file of the results' schema family, and one sentence.

Files lie at ``RESULTS/analyses/<analysis>/<tasks>.<models>[@changed settings].json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.analysis import ANALYSES as REGISTRY
from eval.common.errors import Conflict, UserError
from eval.common.files import MOST_JSON, dump_json, read_plain, write_json
from eval.common.text import slug
from eval.results.names import (
    differences,
    file_name,
    portable_model,
    portable_task,
    task_part,
)
from eval.results.schema import ANALYSES, Environment, ModelInfo, TaskInfo
from eval.stores.front import address_of, create

MOST = 120  # characters of a part of a file's name


class Finding(BaseModel):
    """``values`` are plain data, by names that the analysis documents."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[1] = 1
    analysis: str
    models: list[ModelInfo]
    tasks: list[TaskInfo]
    config: dict[str, Any]
    values: dict[str, Any]
    sentence: str  # what the picture shows
    environment: Environment
    seed: int
    seconds: dict[str, float]
    created: str
    notes: list[str] = Field(default_factory=list)


def finding_path(results: Path, finding: Finding) -> Path:
    """The file's place, by the finding's content alone. Many names make a hash of them; settings
    that differ from the analysis's own stand behind an @, so that none replaces another."""
    models = _joined([f"{slug(m.id)}@{m.revision[:7]}" for m in finding.models], "models")
    tasks = _joined([task_part(t.name, t.split) for t in finding.tasks], "tasks")
    known = REGISTRY.get(finding.analysis)
    # the image size and the limit stand in the config, None where none was asked for
    settings = known.settings if known else None
    changed = differences(finding.config, settings, seed=finding.seed)
    name = file_name(tasks, models, changed, most=MOST)
    return results / ANALYSES / finding.analysis / name


def _joined(names: list[str], what: str) -> str:
    text = "+".join(names)
    if len(text) <= MOST:
        return text
    return f"{len(names)}-{what}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_finding(results: Path, finding: Finding) -> Path:
    """Write it atomically, in a store where none of its name is. Raises UserError where the place
    cannot be written, or the store has one that says something else."""
    path = finding_path(results, finding)
    if address_of(results):
        _share(results, path, finding)
        return path
    try:
        write_json(path, finding.model_dump(mode="json"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _share(results: Path, path: Path, finding: Finding) -> None:
    if create(results, path, dump_json(finding.model_dump(mode="json"))):
        return
    held = json.loads(path.read_bytes())
    if held.get("values") != finding.model_dump(mode="json")["values"]:
        raise Conflict(f"{path} is there with other values, and stays as it is")


def read_findings(
    results: Path, analysis: str = "", say: Callable[[str], None] | None = None
) -> list[tuple[Path, Finding]]:
    """Every finding under a results directory, or those of one analysis, by path; ``say`` is told
    of files that are none (they may be of another version)."""
    folder = results / ANALYSES / analysis
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        try:
            # not pydantic's own parser: it refuses half a surrogate pair, which names may hold
            found.append((path, Finding.model_validate(json.loads(read_plain(path, MOST_JSON)))))
        except (OSError, ValueError, RecursionError) as error:
            if say:
                say(f"skipped {path}: {_why(error)}")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror or type(error).__name__})"
    if not isinstance(error, ValidationError):
        return f"it is not valid JSON ({type(error).__name__})"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def portable(finding: Finding) -> Finding:
    """The finding without this machine's folders, fit to be published."""
    update = {"tasks": [portable_task(t) for t in finding.tasks],
              "models": [portable_model(m) for m in finding.models]}  # fmt: skip
    return finding.model_copy(update=update)
