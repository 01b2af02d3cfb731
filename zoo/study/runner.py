"""The queue of a study's trainings: take the first open piece of work, do it, go on.

    transfer-zoo study run --plan budget-projector --data DIR --out DIR --jobs 2

Any number of processes may work on one folder; a file lock keeps two from the same run. Stopped
(Ctrl-C, SIGTERM, ``timeout``) they save their states, and the same command goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from eval.common.files import write_json
from eval.results.estimates import measured
from eval.results.store import read_result
from zoo.study.cells import FAILED, SCORED, Cell, Training, Trial, cells, chosen_rate, is_ready
from zoo.study.collect import score_names
from zoo.study.plan import Plan
from zoo.study.restore import is_restored
from zoo.train.pixels import PretrainingData, open_data
from zoo.train.pretrain import Diverged, pretrain
from zoo.train.recipe import Recipe

PRETRAINING = "tiny_imagenet"
WAIT = 5.0  # seconds between looks while others hold all that is left

Say = Callable[[str], None]


def run(plan: Plan, data: Path, out: Path, cache: Path, device: str | None, say: Say) -> None:
    """Work until every cell is done, by this process or by others.

    ``data`` holds the pretraining images and the tasks, a folder each. Raises what a training
    raises: UserError, and Interrupted when it was stopped, its state saved.
    """
    while True:
        open_cells = [cell for cell in cells(plan) if not cell.done(out)]
        if not open_cells:
            return
        if not any(_try(plan, cell, data, out, cache, device, say) for cell in open_cells):
            time.sleep(WAIT)


def _try(
    plan: Plan, cell: Cell, data: Path, out: Path, cache: Path, device: str | None, say: Say
) -> bool:
    """Do a cell, unless it is not ready or another process is at its run."""
    if not is_ready(plan, out, cell):
        return False
    folder = cell.lock(out)
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(folder / ".lock", timeout=0):
        if not cell.done(out):
            begin = time.monotonic()
            say(f"{cell.title}: begins")
            try:
                if isinstance(cell, Trial):
                    _tune(plan, cell, data, out, cache, device)
                else:
                    _train(plan, cell, data, out, cache, device)
                    _score(plan, cell, data, out, cache, device, say)
            except Diverged as error:
                say(f"{cell.title}: failed: {error}")
                cell.folder(out).mkdir(exist_ok=True)
                write_json(cell.folder(out) / FAILED, {"error": str(error)})
                return True
            say(f"{cell.title}: done in {(time.monotonic() - begin) / 60:.1f} min")
        return True
    return False


def rescore(
    plan: Plan, data: Path, out: Path, cache: Path, device: str | None, say: Say
) -> tuple[int, int]:
    """Score again what says nothing of other images, as results of before single answers and fits
    without a group were kept, and what the plan had not named yet. The earlier files go to
    OUT/earlier-results. Returns (checkpoints scored again, those left to a process that is at
    their run)."""
    done = busy = 0
    for cell in cells(plan):
        if not isinstance(cell, Training) or (facts := cell.scored(out)) is None:
            continue
        if is_restored(facts):
            say(f"{cell.title}: known from the tables alone; there are no weights to score")
            continue
        outdated, missing = _to_score_again(plan, facts, out)
        if not outdated and not missing:
            continue
        try:
            with FileLock(cell.lock(out) / ".lock", timeout=0):
                say(f"{cell.title}: {len(outdated)} results are outdated, {missing} missing")
                # First the note that it is scored: whoever is killed here leaves it to be scored.
                (cell.folder(out) / SCORED).unlink()
                for path in outdated:
                    kept = out / "earlier-results" / path.relative_to(out / "results")
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(kept)
                _score(plan, cell, data, out, cache, device, say)
                done += 1
        except Timeout:
            say(f"{cell.title}: another process is at this run; later")
            busy += 1
    return done, busy


def _to_score_again(plan: Plan, facts: dict[str, Any], out: Path) -> tuple[list[Path], int]:
    """(results that say too little, how many tasks of content have none)."""
    outdated, missing = [], set(plan.evaluation.content_tasks)
    for place in facts["results"]:
        result = read_result(out / place)
        missing.discard(result.task.name)
        for name in score_names(plan, result.protocol.name):
            known = measured(result, name)
            if known is None or (known.unit == "image" and not known.without):
                outdated.append(out / place)
    return outdated, len(missing)


def _tune(plan: Plan, trial: Trial, data: Path, out: Path, cache: Path, device: str | None) -> None:
    recipe = plan.trial(trial.arm, trial.rate)
    pretrain(
        recipe, trial.arm.parsed, _images(recipe, data, cache), trial.folder(out),
        resume=True, device=device,
    )  # fmt: skip


def _train(
    plan: Plan, cell: Training, data: Path, out: Path, cache: Path, device: str | None
) -> None:
    if cell.trained(out):
        return
    rate = chosen_rate(plan, out, cell.arm)
    assert rate is not None  # it is ready
    recipe = plan.training(cell.arm, cell.seed, rate)
    pretrain(
        recipe, cell.arm.parsed, _images(recipe, data, cache), cell.run(out),
        resume=True, device=device, until=None if cell.last else cell.epochs,
    )  # fmt: skip


def _images(recipe: Recipe, data: Path, cache: Path) -> PretrainingData:
    # With labels for every arm: the probe that chooses rates needs them.
    return open_data(
        str(data / PRETRAINING), recipe.image.store_px, cache, need_labels=True, progress=False
    )


def _score(
    plan: Plan, cell: Training, data: Path, out: Path, cache: Path, device: str | None, say: Say
) -> None:
    """Score the checkpoint; a task that cannot be scored is named and does not stop the rest."""
    from eval.run.execute import execute
    from eval.run.plan import Request
    from eval.run.plan import plan as plan_cells
    from eval.settings.protocols import Fewshot, Linear

    asked = Request(
        models=[f"local-dir:{cell.folder(out)}"],
        tasks=plan.evaluation.tasks,
        protocols={"linear": Linear(), "fewshot": Fewshot(shots=plan.evaluation.shots)},
        cache=cache,
        results=out / "results",
        data=data,
        device=device,
    )
    content = plan.evaluation.content_tasks
    explaining = dataclasses.replace(asked, tasks=content, protocols={"linear": Linear()})
    requests = [asked, explaining] if content else [asked]
    reports = [execute(request, plan_cells(request)) for request in requests]
    failures = [failure for report in reports for failure in report.failures]
    for failure in failures:
        say(f"not scored: {failure.title}: {failure.error}")
    scored = [c.path for report in reports for c in report.cells if c.path.exists()]
    write_json(
        cell.folder(out) / SCORED,
        {
            "arm": cell.arm.name,
            "objective": cell.arm.objective,
            "seed": cell.seed,
            "epochs": cell.epochs,
            "results": [str(path.relative_to(out)) for path in scored],
            "failures": [{"cell": f.title, "error": f.error} for f in failures],
        },
    )
