"""What a study has found so far, as two small Parquet files that are committed.

NAME.results.parquet: a row a score of each checkpoint, with the samples that paired tests need.
NAME.log.parquet: every line of every training's log, tuning runs too, and each run that failed.
Weights stay where they are: what ships is chosen later.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.files import atomic_file
from eval.study.table import row, write
from zoo.study.cells import FAILED, SCORED, Cell, Training, Trial, cells, chosen_rate
from zoo.study.plan import Plan

if TYPE_CHECKING:
    import pyarrow

LOG = {
    "arm": "string",
    "kind": "string",  # tuning, run (the trunk), or budget (a branch from where it leaves)
    "seed": "int64",
    "epochs": "int64",
    "rate": "float64",
    "line": "string",  # JSON, as in log.jsonl; or {"error": ..} of a run that failed
}


def score_names(plan: Plan, protocol: str) -> tuple[str, ...]:
    """The scores of a protocol that count."""
    if protocol == "linear":
        return ("top1",)
    return tuple(f"top1_{k}shot" for k in plan.evaluation.shots)


def collect(plan: Plan, out: Path, to: Path) -> tuple[int, int]:
    """Write both files into ``to``. Returns how many checkpoints they hold, of how many."""
    trainings = [cell for cell in cells(plan) if isinstance(cell, Training)]
    scored = [cell for cell in trainings if (cell.folder(out) / SCORED).is_file()]
    write(to / f"{plan.name}.results.parquet", _results(plan, out, scored), plan.model_dump_json())
    _write(to / f"{plan.name}.log.parquet", LOG, list(_log(plan, out)))
    return len(scored), len(trainings)


def _results(plan: Plan, out: Path, scored: list[Training]) -> Iterator[dict[str, Any]]:
    from eval.results.store import read_result

    for cell in scored:
        facts = json.loads((cell.folder(out) / SCORED).read_bytes())
        for path in facts["results"]:
            result = read_result(out / path)
            facts = {
                "arm": cell.arm.name,
                "objective": cell.arm.objective,
                "seed": cell.seed,
                "epochs": cell.epochs,
                "rate": chosen_rate(plan, out, cell.arm),
            }
            for name in score_names(plan, result.protocol.name):
                yield row(result, name, facts)


@dataclass(frozen=True)
class RunLog:
    """The log of a tuning run, of a run, or of a branch from where it leaves its run."""

    cell: Cell
    kind: str
    folder: Path
    before: tuple[str, ...]  # of a branch: the lines of its run up to there
    lines: tuple[str, ...]


def run_logs(plan: Plan, out: Path) -> Iterator[RunLog]:
    """Every log there is, each line in one of them only."""
    seen: set[Path] = set()
    for cell in cells(plan):
        for folder, kind in _folders(cell, out):
            if folder in seen:
                continue
            seen.add(folder)
            lines = _lines(folder / "log.jsonl")
            trunk = _lines(folder.parent / "log.jsonl") if kind == "budget" else ()
            at = sum(1 for _ in itertools.takewhile(_equal, zip(lines, trunk, strict=False)))
            yield RunLog(cell, kind, folder, lines[:at], lines[at:])


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _log(plan: Plan, out: Path) -> Iterator[dict[str, Any]]:
    for log in run_logs(plan, out):
        cell, lines = log.cell, list(log.lines)
        if (failed := log.folder / FAILED).is_file():
            lines.append(json.dumps(json.loads(failed.read_bytes())))
        for line in lines:
            yield {
                "arm": cell.arm.name,
                "kind": log.kind,
                "seed": plan.tuning.seed if isinstance(cell, Trial) else cell.seed,
                "epochs": _epochs(plan, cell, log.kind),
                "rate": cell.rate if isinstance(cell, Trial) else chosen_rate(plan, out, cell.arm),
                "line": line,
            }


def _folders(cell: Cell, out: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(cell, Trial):
        yield cell.folder(out), "tuning"
        return
    yield cell.run(out), "run"
    if not cell.last:
        yield cell.folder(out), "budget"


def _epochs(plan: Plan, cell: Cell, kind: str) -> int:
    if isinstance(cell, Trial):
        return plan.tuning.epochs
    return cell.epochs if kind == "budget" else plan.budgets_of(cell.arm, cell.seed)[-1]


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def _write(path: Path, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    table: pyarrow.Table = pa.Table.from_pylist(rows, schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")
