"""How far a study is: what was trained in which time, what is left, and what failed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.common.text import counted
from zoo.study.cells import FAILED, Cell, Trial, cells
from zoo.study.collect import run_logs
from zoo.study.plan import Plan


@dataclass(frozen=True)
class Progress:
    """Hours are those of processes at work on batches: probes, scoring and pauses not counted."""

    cells: int
    done: int
    epochs: float  # trained; what a run and its branches share counts once
    planned: float
    images: int  # in these epochs
    hours: float
    images_per_s: float | None  # of a process on a machine at rest: the median over log lines
    failed: tuple[str, ...]  # which work failed, and why

    @property
    def hours_left(self) -> float | None:
        """Of one process at that rate."""
        if not self.images_per_s:
            return None
        return self._images_left / self.images_per_s / 3600

    @property
    def hours_left_as_until_now(self) -> float | None:
        return self._images_left * self.hours / self.images if self.images else None

    @property
    def _images_left(self) -> float:
        return max(0.0, self.planned - self.epochs) * self.images / self.epochs

    def __str__(self) -> str:
        said = f"{self.done} of {self.cells} done, {counted(len(self.failed), 'failure')}."
        if self.hours_left is not None:
            mean = self.images / self.hours / 3600
            said += (
                f" Trained {self.epochs:.1f} of {self.planned:.1f} epochs in {self.hours:.1f} "
                f"hours of a process: {mean:.0f} images/s, {self.images_per_s:.0f} in the median "
                f"line of the logs. Hours of a process that are left: {self.hours_left:.1f} at the "
                f"median, {self.hours_left_as_until_now:.1f} at the mean."
            )
        return "\n".join([said, *(f"failed: {reason}" for reason in self.failed)])


def progress(plan: Plan, out: Path) -> Progress:
    """Read off the logs in the study's folder."""
    every = list(cells(plan))
    epochs = seconds = 0.0
    images, rates = 0, []
    for log in run_logs(plan, out):
        at = next(_readings(reversed(log.before)), {"epoch": 0.0, "images": 0})
        for line in _readings(log.lines):
            epochs += line["epoch"] - at["epoch"]
            images += line["images"] - at["images"]
            seconds += (line["images"] - at["images"]) / line["images_per_s"]
            rates.append(line["images_per_s"])
            at = line
    return Progress(
        len(every),
        sum(cell.done(out) for cell in every),
        epochs,
        planned_epochs(plan),
        images,
        seconds / 3600,
        statistics.median(rates) if rates else None,
        tuple(f"{cell.title}: {_reason(cell, out)}" for cell in every if cell.failed(out)),
    )


def _readings(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The lines of training, without those of probes."""
    for line in map(json.loads, lines):
        if line.get("images_per_s"):  # 0 where a run was stopped at once
            yield line


def _reason(cell: Cell, out: Path) -> str:
    return str(json.loads((cell.folder(out) / FAILED).read_bytes())["error"])


def planned_epochs(plan: Plan) -> float:
    """Of all tuning runs, all runs, and all their branches from where they leave."""
    total = 0.0
    for cell in cells(plan):
        if isinstance(cell, Trial):
            total += plan.tuning.epochs
        else:
            cooldown = plan.training(cell.arm, cell.seed, 1.0).train.cooldown
            total += cell.epochs * (1 if cell.last else cooldown)
    return total
