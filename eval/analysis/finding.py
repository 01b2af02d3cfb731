"""What an analysis leaves: one file of the results' schema family, and one sentence.

Files lie at ``RESULTS/analyses/<analysis>/<tasks>.<models>.json``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.errors import UserError
from eval.files import write_json
from eval.results import (
    ANALYSES,
    Environment,
    ModelInfo,
    TaskInfo,
    portable_model,
    portable_task,
    task_label,
)
from eval.text import slug


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
    """The file's place, by the finding's content alone. Many names make a hash of them."""
    models = _joined([f"{slug(m.id)}@{m.revision[:7]}" for m in finding.models], "models")
    labels = [slug(task_label(t.name, t.split).replace("@", "__")) for t in finding.tasks]
    name = f"{_joined(labels, 'tasks')}.{models}.json"
    return results / ANALYSES / finding.analysis / name


def _joined(names: list[str], what: str, most: int = 120) -> str:
    text = "+".join(names)
    if len(text) <= most:
        return text
    return f"{len(names)}-{what}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_finding(results: Path, finding: Finding) -> Path:
    """Write it atomically. Raises UserError where the place cannot be written."""
    path = finding_path(results, finding)
    try:
        write_json(path, finding.model_dump(mode="json"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def read_findings(results: Path, analysis: str = "") -> list[tuple[Path, Finding]]:
    """Every finding under a results directory, or those of one analysis, by path; files that are
    none are passed over (they may be of another version)."""
    folder = results / ANALYSES / analysis
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        try:
            found.append((path, Finding.model_validate_json(path.read_bytes())))
        except (OSError, ValidationError):
            continue
    return found


def portable(finding: Finding) -> Finding:
    """The finding without this machine's folders, fit to be published."""
    update = {"tasks": [portable_task(t) for t in finding.tasks],
              "models": [portable_model(m) for m in finding.models]}  # fmt: skip
    return finding.model_copy(update=update)
