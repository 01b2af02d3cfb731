"""A study's folder made anew from its committed tables: what they hold is not trained again.

    OUT/restored/                       copies of both tables
    OUT/runs/ARM/seed-0/scored.json     of each checkpoint in them, marked as restored
    OUT/tuning/ARM/rate-0.3/restored.json

States and weights are not in the tables: a run that goes on to a further budget begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.files import atomic_file, write_json
from zoo.study.cells import FAILED, RESTORED, SCORED, Cell, Training, Trial, cells
from zoo.study.plan import Plan
from zoo.train.recipe import decisive, load_recipe

TABLES = "restored"
KINDS = ("results", "log")

LogKey = tuple[str, str, int, int, float]  # arm, kind, seed, epochs, rate


def table(plan: Plan, folder: Path, kind: str) -> Path:
    """Where a folder has one of a study's two tables."""
    return folder / f"{plan.name}.{kind}.parquet"


def restore(plan: Plan, tables: Path, out: Path) -> tuple[int, int]:
    """Mark as done what both tables in ``tables`` hold and ``out`` does not. Returns how many
    (checkpoints, tuning runs) were restored.

    Raises UserError where a table is missing, or is of a plan under which the same work would give
    another answer.
    """
    for kind in KINDS:
        if not table(plan, tables, kind).is_file():
            raise NotFound(
                f"{str(table(plan, tables, kind))!r} is not a file; `transfer-zoo study collect` "
                "writes it"
            )
    _check_plan(plan, table(plan, tables, "results"))
    (out / TABLES).mkdir(parents=True, exist_ok=True)
    for kind in KINDS:  # the copies first: a mark without them would be empty
        with atomic_file(table(plan, out / TABLES, kind)) as file:
            file.write(table(plan, tables, kind).read_bytes())
    checkpoints = {(r["arm"], r["seed"], r["epochs"]) for r in result_rows(plan, out)}
    logs = log_lines(plan, out)
    trained = tuned = 0
    for cell in cells(plan):
        if cell.done(out):
            continue
        if isinstance(cell, Trial):
            tuned += _restore_trial(plan, cell, logs, out)
        elif (cell.arm.name, cell.seed, cell.epochs) in checkpoints:
            facts = {"arm": cell.arm.name, "objective": cell.arm.objective, "seed": cell.seed}
            facts |= {"epochs": cell.epochs, "results": [], "failures": [], "restored": True}
            _mark(cell, out, SCORED, facts)
            trained += 1
    return trained, tuned


def _restore_trial(
    plan: Plan, trial: Trial, logs: dict[LogKey, tuple[str, ...]], out: Path
) -> bool:
    lines = logs.get(tuning_key(plan, trial), ())
    if not lines:
        return False
    last = json.loads(lines[-1])
    if is_error(lines[-1]):
        _mark(trial, out, FAILED, last)
    elif last.get("epoch") == plan.tuning.epochs and "knn_top1" in last:
        _mark(trial, out, RESTORED, {"validation_knn_top1": last["knn_top1"]})
    else:
        return False
    return True


def _mark(cell: Cell, out: Path, name: str, facts: dict[str, Any]) -> None:
    cell.folder(out).mkdir(parents=True, exist_ok=True)
    write_json(cell.folder(out) / name, facts)


def _check_plan(plan: Plan, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        text = (pq.read_schema(path).metadata or {}).get(b"plan", b"")
        theirs = Plan.model_validate_json(text)
    except (pa.ArrowException, OSError, ValidationError) as error:
        raise BadInput(f"{path} holds no plan of a study: {one_line(error)}") from None
    parts = "recipe", "tuning", "evaluation"
    changed = [name for name in parts if getattr(theirs, name) != getattr(plan, name)]
    if not changed and _weights_hang_on(theirs) != _weights_hang_on(plan):
        changed = ["settings"]
    if changed:
        raise BadInput(
            f"{path} is of a plan with another {changed[0]!r}; restore under the plan that it was "
            "made with"
        )
    ours = {arm.name: (arm.objective, arm.rate) for arm in plan.arms}
    for arm in theirs.arms:
        if ours.get(arm.name, (arm.objective, arm.rate)) != (arm.objective, arm.rate):
            raise BadInput(
                f"{path} has another arm {arm.name!r} than the plan; restore under the plan that "
                "it was made with"
            )


def _weights_hang_on(plan: Plan) -> dict[str, Any]:
    return decisive(load_recipe(plan.recipe, plan.settings).model_dump(mode="json"))


def is_restored(scored: Mapping[str, Any]) -> bool:
    """Whether a scored checkpoint, by its note, is known from the tables alone."""
    return bool(scored.get("restored"))


def result_rows(plan: Plan, out: Path) -> list[dict[str, Any]]:
    """Rows of the restored results; none where nothing was restored."""
    return _rows(table(plan, out / TABLES, "results"))


def log_lines(plan: Plan, out: Path) -> dict[LogKey, tuple[str, ...]]:
    """Lines of the restored logs, in their order."""
    found: dict[LogKey, list[str]] = {}
    for r in _rows(table(plan, out / TABLES, "log")):
        key = r["arm"], r["kind"], r["seed"], r["epochs"], r["rate"]
        found.setdefault(key, []).append(r["line"])
    return {key: tuple(lines) for key, lines in found.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist()) if path.is_file() else []


def tuning_key(plan: Plan, trial: Trial) -> LogKey:
    """Under which the table of logs has a tuning run."""
    return trial.arm.name, "tuning", plan.tuning.seed, plan.tuning.epochs, trial.rate


def run_key(plan: Plan, cell: Training, kind: str, rate: float) -> LogKey:
    """Under which it has a run ("run") or one of its branches ("budget")."""
    last = plan.budgets_of(cell.arm, cell.seed)[-1]
    return cell.arm.name, kind, cell.seed, cell.epochs if kind == "budget" else last, rate


def step(line: str) -> int:
    """At which step a line of a log stands; -1 where it does not say so."""
    return int(json.loads(line).get("step", -1))


def is_error(line: str) -> bool:
    """Whether it says that the run failed."""
    return "error" in json.loads(line)


def goes_further(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Which of two logs of a run is the longer one; a run that begins anew writes the same numbers
    again, but for its times."""
    return max(map(step, one), default=-1) > max(map(step, other), default=-1)
