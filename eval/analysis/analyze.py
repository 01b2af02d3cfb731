"""``transfer-eval analyze NAME MODEL...``: one analysis, run and described."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.analysis import analysis_named
from eval.analysis.finding import Finding
from eval.analysis.module import module_of
from eval.analysis.study import Study
from eval.common.distributed import Workers
from eval.common.errors import BadInput
from eval.data.task_data import TaskData
from eval.models.resolve import resolve
from eval.results.names import plain
from eval.results.receipt import environment, task_info
from eval.results.schema import Result


def analyze(
    name: str,
    models: Sequence[str],
    tasks: Sequence[TaskData],
    cache: Path,
    *,
    settings: Any = None,
    results: Iterable[Result] = (),
    img_size: int | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Finding:
    """Raises UserError for an unknown analysis, tasks or models that it does not take, or a model
    that does not load.

    Under torchrun every process calls this; all of them encode, and the main one's finding counts.
    """
    analysis = analysis_named(name)
    module = module_of(analysis)
    settings = analysis.settings() if settings is None else settings
    names = dict.fromkeys(models)  # a model twice is once
    _check(name, len(names), tasks)
    start = time.perf_counter()
    study = Study(
        tuple(resolve(text, cache, img_size) for text in names),
        tuple(tasks),
        cache,
        Workers(device),
        tuple(results),
        seed,
        notes=list(dict.fromkeys(note for task in tasks for note in task.notes)),
    )
    values = module.run(study, settings)
    finding = Finding(
        analysis=name,
        models=study.infos,
        tasks=[task_info(task) for task in tasks],
        config=plain(settings) | {"img_size": img_size, "limit": _limit(tasks)},
        values=values,
        sentence="",
        environment=environment(study.workers, study.precision, *study.models),
        seed=seed,
        seconds={
            "encode": round(study.seconds, 3),
            "score": round(time.perf_counter() - start - study.seconds, 3),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=study.notes,
    )
    return finding.model_copy(update={"sentence": module.sentence(finding)})


def _limit(tasks: Sequence[TaskData]) -> int | None:
    """Images of each split that the user asked for at most, where that made a difference."""
    return max((task.limit for task in tasks if task.limit is not None), default=None)


def _check(name: str, models: int, tasks: Sequence[TaskData]) -> None:
    analysis = analysis_named(name)
    for task in tasks:
        if task.kind != "classification":
            raise BadInput(f"task {task.name!r} has boxes; analyses need one label an image")
    if not tasks:
        raise BadInput(f"analyze {name} needs a task; name one with --task")
    if analysis.most_tasks is not None and len(tasks) > analysis.most_tasks:
        raise BadInput(f"analyze {name} takes one task, got {len(tasks)}; call it for each")
    if analysis.most_models is not None and models > analysis.most_models:
        raise BadInput(f"analyze {name} takes {analysis.most_models} models at most, got {models}")
