"""``transfer-eval analyze NAME MODEL...``: one analysis of many models on one task."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from eval.analysis import forecast, shape
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
    task: TaskData,
    cache: Path,
    *,
    results: Iterable[Result] = (),
    img_size: int | None = None,
    device: str | None = None,
) -> Analysed:
    """Raises UserError for an unknown analysis, a detection task, or a model that does not load."""
    check_name(name)
    if task.kind != "classification":
        raise UserError(f"task {task.name!r} has boxes; analyses need one label an image")
    workers = Workers(device)
    found: list[ModelInfo] = []
    values: list[dict] = []
    encoding, precision = 0.0, Precision()
    start = time.perf_counter()
    for text in dict.fromkeys(models):
        if name == "geometry":
            model = layer_bank(text, task, cache, workers, img_size=img_size)
            found.append(model_info(model.backbone))
            values.append(shape.measure(model, task))
            encoding, precision = encoding + model.seconds, model.precision
        else:
            backbone = load(resolve(text, cache, img_size))
            encoded = encode(backbone, task, cache, workers)
            found.append(model_info(backbone))
            values.append(forecast.measure(encoded.bank))
            encoding += encoded.seconds
            precision = Precision.parse(encoded.bank.precision)
    seconds = time.perf_counter() - start - encoding
    names = [m.id for m in found]
    content: dict = {"models": dict(zip(names, values, strict=True))}
    if name == "geometry":
        sentence = shape.sentence(names, values)
        header, lines = shape.table(names, values)
    else:
        weights = [m.weights_sha256 for m in found]
        scores = forecast.measured(results, task.split_hash, weights)
        held = forecast.held_against(values, scores)
        content |= {
            "measured": [None if math.isnan(s) else s for s in scores], "agreement": held
        }  # fmt: skip
        sentence = forecast.sentence(names, values, held)
        header, lines = forecast.table(names, values, scores)
    finding = Finding(
        analysis=name,
        models=found,
        task=task_info(task),
        config={"images": len(task.train) + len(task.test), "img_size": img_size},
        values=content,
        sentence=sentence,
        environment=environment(workers, precision),
        seed=0,
        seconds={"encode": round(encoding, 3), "score": round(seconds, 3)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=list(task.notes),
    )
    return Analysed(finding, header, lines)
