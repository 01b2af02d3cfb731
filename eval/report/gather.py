"""Directories and repositories -> the results and findings that a page is made from."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.analysis.finding import Finding, read_findings
from eval.analysis.finding import portable as portable_finding
from eval.common.errors import BadInput
from eval.models.facts import UNTRAINED
from eval.models.objectives import STUDY
from eval.results.evidence import broken
from eval.results.facts import facts_of
from eval.results.leaderboard import model_label, setting_label
from eval.results.names import portable
from eval.results.parquet_table import flaw
from eval.results.schema import ModelInfo, ProtocolInfo, Result, TaskInfo
from eval.results.shared import pull_results
from eval.results.signoff import SignOff, SignOffs, sign_offs
from eval.results.sound import sound
from eval.results.store import read_shelf
from eval.stores.front import address_of, folder_of

Say = Callable[[str], None]
Held = TypeVar("Held", Result, Finding)


@dataclass(frozen=True)
class Gathered:
    """(file, what it holds): files are named without the folders above the places.

    Results are in the order of the study's objectives, others behind; no two answer one question.
    """

    sources: tuple[str, ...]
    results: tuple[tuple[str, Result], ...]
    findings: tuple[tuple[str, Finding], ...]
    signed: SignOffs | None = None  # who computed results again; None where nobody asks


def gather(places: Sequence[str], say: Say) -> Gathered:
    """Read directories and ``hub:ORG/NAME``; ``say`` gets a line for each file that is left out.

    Raises UserError for a place that is not there, or where none holds a result or a finding.
    """
    folders = _named(places)
    results: list[tuple[str, Result]] = []
    findings: list[tuple[str, Finding]] = []
    signed: dict[str, SignOff] = {}
    for name, folder in folders.items():
        shelf = sound(read_shelf(folder), flaw if name.startswith("hub:") else broken)
        for path, why in shelf.foreign:
            say(f"skipped {path}: {why}")
        results += [(_below(name, folder, path), _harmless(r)) for path, r in shelf.results]
        signed |= sign_offs(folder)
        findings += [
            (_below(name, folder, path), _harmless_finding(f))
            for path, f in read_findings(folder, say=say)
        ]
    if not results and not findings:
        named = ", ".join(map(repr, places))
        raise BadInput(
            f"there are no results and no findings in {named}; make some with `transfer-eval run` "
            "or `transfer-eval analyze`"
        )
    newest = _newest(results, _question)
    newest.sort(key=lambda filed: _place(filed[1].model))
    kept = _newest(findings, lambda f: (f.analysis, f.models, f.tasks, f.config))
    again = len(results) - len(newest) + len(findings) - len(kept)
    if again:
        say(f"left out {again} file{'s' * (again != 1)} whose like was read, as new or newer")
    asked = bool(signed) or any(name.startswith("hub:") for name in folders)
    return Gathered(tuple(folders), tuple(newest), tuple(kept), signed if asked else None)


def _named(places: Sequence[str]) -> dict[str, Path]:
    """{what a place is called on the page: the folder}; each folder once."""
    found: dict[str, Path] = {}
    for name, folder in map(_folder, places):
        if folder.resolve() in {f.resolve() for f in found.values()}:
            continue
        count = sum(known == name or known.startswith(f"{name} (") for known in found)
        found[f"{name} ({count + 1})" if count else name] = folder
    return found


def _folder(place: str) -> tuple[str, Path]:
    """(what it is called on the page, where it lies)."""
    if place.startswith("hub:"):
        from eval.sharing.read import fetch

        folder = fetch(place)
        return f"{place.partition('@')[0]}@{folder.name[:12]}", folder
    folder = folder_of(place)
    pull_results(folder)
    return address_of(folder) or folder.resolve().name or "/", folder


def _below(name: str, folder: Path, path: Path) -> str:
    return f"{name}/{path.relative_to(folder).as_posix()}"


def _harmless(result: Result) -> Result:
    """Without folders of a machine, and with names that can be drawn."""
    shown = portable(result)
    update = {
        "model": ModelInfo.model_validate(_clean(shown.model.model_dump())),
        "task": TaskInfo.model_validate(_clean(shown.task.model_dump())),
        "protocol": ProtocolInfo.model_validate(_clean(shown.protocol.model_dump())),
        "notes": _clean(shown.notes),
        "warnings": _clean(shown.warnings),
    }
    return shown.model_copy(update=update)


def _harmless_finding(finding: Finding) -> Finding:
    return Finding.model_validate(_clean(portable_finding(finding).model_dump()))


def _clean(value: Any) -> Any:
    """Text on one line, without control characters, marks that turn it around, and halves of
    characters: no file of XML or UTF-8 holds them."""
    if isinstance(value, str):
        line = " ".join(value.split())
        return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in line)
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    return [_clean(v) for v in value] if isinstance(value, list) else value


def _newest(
    filed: Sequence[tuple[str, Held]], key: Callable[[Held], tuple[Any, ...]]
) -> list[tuple[str, Held]]:
    """One for each key: the newest, in the place of the first."""
    found: dict[str, tuple[str, Held]] = {}
    for file, one in filed:
        name = repr(key(one))
        if name not in found or one.created >= found[name][1].created:
            found[name] = file, one
    return list(found.values())


def _question(result: Result) -> tuple[Any, ...]:
    return (
        model_label(result),
        result.model.revision,
        result.task.name,
        result.task.split,
        result.task.split_hash,
        result.protocol.name,
        setting_label(result),
    )


def _place(model: ModelInfo) -> int:
    """Where a model stands: the study's order, then the other objectives, then the rest."""
    objective = facts_of(model).objective
    if objective in STUDY:
        return STUDY.index(objective)
    return len(STUDY) + (objective in ("", UNTRAINED))
