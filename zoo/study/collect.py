"""What a study has found so far, as two small Parquet files that are committed.

NAME.results.parquet: a row a score of each checkpoint, with the samples that paired tests need.
NAME.log.parquet: every line of every training's log, tuning runs too, and each run that failed.
Weights stay where they are: what ships is chosen later.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import Conflict
from eval.common.files import atomic_file
from eval.common.text import counted
from eval.study.table import row, write
from zoo.study.cells import FAILED, Cell, Training, Trial, cells, chosen_rate
from zoo.study.plan import Plan
from zoo.study.restore import (
    LogKey,
    goes_further,
    is_error,
    is_restored,
    log_lines,
    result_rows,
    run_key,
    step,
    table,
    tuning_key,
)

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
    """Write both files into ``to``. Returns how many checkpoints they hold, of how many.

    Raises Conflict where those that are there hold a checkpoint that ``out`` does not.
    """
    trainings = [cell for cell in cells(plan) if isinstance(cell, Training)]
    scored = {cell: facts for cell in trainings if (facts := cell.scored(out)) is not None}
    _check_all_kept(table(plan, to, "results"), scored, out)
    write(table(plan, to, "results"), _results(plan, out, scored), plan.model_dump_json())
    _write(table(plan, to, "log"), LOG, list(_log(plan, out)))
    return len(scored), len(trainings)


def _check_all_kept(path: Path, scored: Iterable[Training], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    try:
        rows = pq.read_table(path, columns=["arm", "seed", "epochs"]).to_pylist()
    except (pa.ArrowException, OSError):  # no table: nothing is lost
        return
    known = {(r["arm"], r["seed"], r["epochs"]) for r in rows}
    lost = known - {(cell.arm.name, cell.seed, cell.epochs) for cell in scored}
    if lost:
        arm, seed, epochs = min(lost)
        raise Conflict(
            f"{path} holds {counted(len(lost), 'checkpoint')} that {out} does not, such as {arm}, "
            f"seed {seed}, {epochs} epochs; `transfer-zoo study restore` them first, or give "
            "another --to"
        )


def _results(
    plan: Plan, out: Path, scored: Mapping[Training, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    from eval.results.store import read_result

    restored = result_rows(plan, out)
    for cell, note in scored.items():
        if is_restored(note):
            known = cell.arm.name, cell.seed, cell.epochs
            yield from (r for r in restored if (r["arm"], r["seed"], r["epochs"]) == known)
            continue
        facts = {
            "arm": cell.arm.name,
            "objective": cell.arm.objective,
            "seed": cell.seed,
            "epochs": cell.epochs,
            "rate": chosen_rate(plan, out, cell.arm),
        }
        for path in note["results"]:
            result = read_result(out / path)
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
    """Every log there is, each line in one of them only; of a log that was restored and one that
    was begun anew, the one that goes further."""
    seen: set[Path] = set()
    restored = log_lines(plan, out)
    for cell in cells(plan):
        for folder, kind in _folders(cell, out):
            if folder not in seen:
                seen.add(folder)
                known = restored.get(_key(plan, out, cell, kind), ())
                before, own = _parts(folder, kind)
                if goes_further(known, own):
                    trunk = restored.get(_key(plan, out, cell, "run"), ())
                    before, own = (_before(known, trunk) if kind == "budget" else ()), known
                yield RunLog(cell, kind, folder, before, own)


def _parts(folder: Path, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(of a branch: the lines that it has from its run, its own lines)."""
    lines = _lines(folder / "log.jsonl")
    trunk = _lines(folder.parent / "log.jsonl") if kind == "budget" else ()
    at = sum(1 for _ in itertools.takewhile(_equal, zip(lines, trunk, strict=False)))
    return lines[:at], lines[at:]


def _before(branch: tuple[str, ...], trunk: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of a run up to where a branch leaves it."""
    first = min(map(step, branch))
    return tuple(line for line in trunk if step(line) < first)


def _key(plan: Plan, out: Path, cell: Cell, kind: str) -> LogKey:
    """Under which the table of logs has a log."""
    if isinstance(cell, Trial):
        return tuning_key(plan, cell)
    rate = chosen_rate(plan, out, cell.arm)
    return run_key(plan, cell, kind, math.nan if rate is None else rate)


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _log(plan: Plan, out: Path) -> Iterator[dict[str, Any]]:
    for log in run_logs(plan, out):
        cell, lines = log.cell, list(log.lines)
        if (failed := log.folder / FAILED).is_file() and not (lines and is_error(lines[-1])):
            lines.append(json.dumps(json.loads(failed.read_bytes())))
        arm, kind, seed, epochs, rate = _key(plan, out, cell, log.kind)
        facts = {"arm": arm, "kind": kind, "seed": seed, "epochs": epochs, "rate": rate}
        yield from (facts | {"line": line} for line in lines)


def _folders(cell: Cell, out: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(cell, Trial):
        yield cell.folder(out), "tuning"
        return
    yield cell.run(out), "run"
    if not cell.last:
        yield cell.folder(out), "budget"


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
