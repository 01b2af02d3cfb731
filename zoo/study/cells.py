"""The order of a study's work, and where each piece of it lies.

    OUT/tuning/ARM/rate-0.3/            a short run for each rate
    OUT/runs/ARM/seed-0/                the trunk; its last budget is exported here
    OUT/runs/ARM/seed-0/epochs-12/      a branch, exported
    OUT/results/                        result files of all checkpoints

What is done is read off the files: nothing else is kept, so a killed queue goes on where it was.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.study.plan import Arm, Plan
from zoo.train.export import RECIPE

FAILED = "failed.json"  # a training whose loss was no number any more, and why
SCORED = "scored.json"  # beside a checkpoint: what it was scored on, and what could not be
RESTORED = "restored.json"  # in place of a tuning run that is known from committed tables


@dataclass(frozen=True)
class Trial:
    """A tuning run of an arm at one rate."""

    arm: Arm
    rate: float

    @property
    def title(self) -> str:
        return f"{self.arm.name}, tuning at rate {self.rate:g}"

    def folder(self, out: Path) -> Path:
        return out / "tuning" / self.arm.name / f"rate-{self.rate:g}"

    lock = folder

    def failed(self, out: Path) -> bool:
        return (self.folder(out) / FAILED).is_file()

    def done(self, out: Path) -> bool:
        names = RECIPE, RESTORED, FAILED
        return any((self.folder(out) / name).is_file() for name in names)

    def validation_knn(self, out: Path) -> float:
        """%, at the end; -1 where it diverged."""
        folder = self.folder(out)
        if self.failed(out):
            return -1.0
        if (folder / RECIPE).is_file():
            facts = tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))["run"]
        else:
            facts = json.loads((folder / RESTORED).read_bytes())
        return float(facts["validation_knn_top1"])


@dataclass(frozen=True)
class Training:
    """A run of an arm with one seed up to one of its budgets."""

    arm: Arm
    seed: int
    epochs: int
    last: bool  # of the run's budgets

    @property
    def title(self) -> str:
        return f"{self.arm.name}, seed {self.seed}, {self.epochs} epochs"

    def run(self, out: Path) -> Path:
        return out / "runs" / self.arm.name / f"seed-{self.seed}"

    lock = run  # the budgets of one run are trained one after the other

    def folder(self, out: Path) -> Path:
        """Where the checkpoint of this budget lies."""
        return self.run(out) / ("" if self.last else f"epochs-{self.epochs}")

    def trained(self, out: Path) -> bool:
        """Whether it is exported: by a plan with other budgets the same folder may hold another."""
        path = self.folder(out) / RECIPE
        if not path.is_file():
            return False
        epochs = tomllib.loads(path.read_text(encoding="utf-8"))["train"]["epochs"]
        return bool(epochs == self.epochs)

    def failed(self, out: Path) -> bool:
        return (self.folder(out) / FAILED).is_file()

    def scored(self, out: Path) -> dict[str, Any] | None:
        """The note of what it was scored on; None where there is none, or another budget's."""
        path = self.folder(out) / SCORED
        facts = json.loads(path.read_bytes()) if path.is_file() else {}
        return facts if facts.get("epochs") == self.epochs else None

    def done(self, out: Path) -> bool:
        return self.scored(out) is not None or self.failed(out)


Cell = Trial | Training


def cells(plan: Plan) -> Iterator[Cell]:
    """All of a plan's work, the most telling first.

    Budget by budget with all of its seeds, since a contrast without several trainings decides
    nothing; at each wave by wave, the tuning of its arms before their first budget. Budgets that
    not every seed has come last.
    """
    waves = sorted({arm.wave for arm in plan.arms})
    tuned: set[int] = set()
    for whole in (True, False):
        for budget in plan.budgets:
            if (set(budget.seeds) == set(plan.seeds)) is not whole:
                continue
            for wave in waves:
                arms = [arm for arm in plan.arms if arm.wave == wave]
                if wave not in tuned:
                    tuned.add(wave)
                    yield from (
                        Trial(arm, rate) for arm in arms if arm.rate is None
                        for rate in plan.tuning.rates
                    )  # fmt: skip
                for seed in budget.seeds:
                    for arm in arms:
                        if arm.has(budget):
                            last = budget.epochs == plan.budgets_of(arm, seed)[-1]
                            yield Training(arm, seed, budget.epochs, last)


def trials(plan: Plan, out: Path, arm: Arm) -> dict[float, float]:
    """{rate: validation kNN, %} of an arm's finished tuning runs; -1 where one diverged."""
    tuning = (Trial(arm, rate) for rate in plan.tuning.rates)
    return {trial.rate: trial.validation_knn(out) for trial in tuning if trial.done(out)}


def chosen_rate(plan: Plan, out: Path, arm: Arm) -> float | None:
    """The arm's own, or that of the best validation kNN, the lower one of equals; None while one
    is missing."""
    if arm.rate is not None:
        return arm.rate
    found = trials(plan, out, arm)
    if len(found) < len(plan.tuning.rates):
        return None
    return max(sorted(found), key=lambda rate: found[rate])


def is_ready(plan: Plan, out: Path, cell: Cell) -> bool:
    """Whether all that a cell needs is there: a training needs its arm's rate."""
    return isinstance(cell, Trial) or chosen_rate(plan, out, cell.arm) is not None


def status(plan: Plan, out: Path) -> list[dict[str, str]]:
    """A row for each cell: what it is and how far it is."""
    rows = []
    for cell in cells(plan):
        if cell.failed(out):
            state = "failed"
        elif cell.done(out):
            state = "done"
        elif isinstance(cell, Training) and cell.trained(out):
            state = "trained"
        elif (epoch := _epoch(cell.lock(out) / "log.jsonl")) is not None:
            state = f"at epoch {epoch:.1f}" if isinstance(cell, Trial) else f"run at {epoch:.1f}"
        else:
            state = "-"
        rows.append({"work": cell.title, "state": state})
    return rows


def _epoch(log: Path) -> float | None:
    if not log.is_file():
        return None
    for line in reversed(log.read_text(encoding="utf-8").splitlines()):
        try:
            return float(json.loads(line)["epoch"])
        except (ValueError, KeyError):
            continue
    return None
