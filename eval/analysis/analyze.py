"""``transfer-eval analyze NAME MODEL...``: one analysis of many models on one task."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.analysis import forecast, profile, shape
from eval.analysis.finding import Finding
from eval.analysis.likeness import layer_bank
from eval.data import TaskData
from eval.encode import encode
from eval.errors import UserError, did_you_mean
from eval.models import load, resolve
from eval.precision import Precision
from eval.results import ModelInfo, Result
from eval.run import environment, model_info, task_info
from eval.workers import Workers

ANALYSES = {
    "geometry": "class separation, dimension and collapse in every layer",
    "profile": "linear probes on every layer, of tasks whose semantic level is known",
    "predictors": "LogME, H-score, TransRate and centroids: which model to try first",
}


@dataclass(frozen=True)
class Analysed:
    """What is written, and a table of it."""

    finding: Finding
    header: list[str]
    lines: list[list[str]]


def check_name(name: str) -> None:
    """Raises UserError for an unknown analysis."""
    if name not in ANALYSES:
        known = "analyses are " + ", ".join(ANALYSES)
        raise UserError(f"unknown analysis {name!r}" + did_you_mean(name, ANALYSES, known))


def analyze(
    name: str,
    models: Sequence[str],
    tasks: Sequence[TaskData],
    cache: Path,
    *,
    results: Iterable[Result] = (),
    img_size: int | None = None,
    device: str | None = None,
) -> Analysed:
    """Raises UserError for an unknown analysis, a detection task, more than the one task that an
    analysis takes, or a model that does not load."""
    check_name(name)
    for task in tasks:
        if task.kind != "classification":
            raise UserError(f"task {task.name!r} has boxes; analyses need one label an image")
    if name != "profile" and len(tasks) != 1:
        raise UserError(f"analyze {name} takes one task, got {len(tasks)}; call it for each")
    workers = Workers(device)
    found: list[ModelInfo] = []
    values: list[dict[str, Any]] = []
    encoding, precision = 0.0, Precision()
    start = time.perf_counter()
    for text in tqdm(dict.fromkeys(models), unit="model", leave=False, disable=None):
        backbone = load(resolve(text, cache, img_size))
        found.append(model_info(backbone))
        if name == "predictors":
            encoded = encode(backbone, tasks[0], cache, workers)
            values.append(forecast.measure(encoded.bank))
            seconds, precision = encoded.seconds, Precision.parse(encoded.bank.precision)
            encoding += seconds
            continue
        measured: dict[str, Any] = {}
        for task in tasks:
            model = layer_bank(backbone, task, cache, workers)
            encoding, precision = encoding + model.seconds, model.precision
            if name == "profile":
                measured[task.name] = profile.measure(model, task)
            else:
                measured = shape.measure(model, task)
        values.append(measured)
    names = [m.id for m in found]
    content: dict[str, Any] = {"models": dict(zip(names, values, strict=True))}
    if name == "predictors":
        weights = [m.weights_sha256 for m in found]
        scores = forecast.measured(results, tasks[0].split_hash, weights)
        held = forecast.held_against(values, scores)
        content |= {"measured": [None if math.isnan(s) else s for s in scores], "agreement": held}
        sentence = forecast.sentence(names, values, held)
        header, lines = forecast.table(names, values, scores)
    else:
        module = profile if name == "profile" else shape
        sentence = module.sentence(names, values)
        header, lines = module.table(names, values)
    finding = Finding(
        analysis=name,
        models=found,
        tasks=[task_info(task) for task in tasks],
        config={"img_size": img_size},
        values=content,
        sentence=sentence,
        environment=environment(workers, precision),
        seed=0,
        seconds={
            "encode": round(encoding, 3),
            "score": round(time.perf_counter() - start - encoding, 3),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=list(dict.fromkeys(note for task in tasks for note in task.notes)),
    )
    return Analysed(finding, header, lines)
