"""Made-up results of detectors, as valid as measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.data.boxes.box_data import DetectionData
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.metrics.scores import Samples
from eval.results.schema import Result
from tests.factories import make_result

COCO = ("ap", "ap50", "ap75")
VOC = ("voc07_ap", "voc07_ap50", "voc07_ap75")
CLASSES = ("RBC", "WBC", "Platelets")
RESAMPLES = 1000
IMAGES = 84


def resampled(value: float, own: float = 0.01, seed: int = 0) -> np.ndarray:
    """[RESAMPLES] a score in resamples that all models share, with a spread of its own."""
    common = np.random.RandomState(99).normal(0, 0.03, RESAMPLES)
    mine = np.random.RandomState(seed).normal(0, own, RESAMPLES)
    return np.clip(value + common + mine, 0, 1).astype(np.float32).astype(np.float64)


def detector(
    model: str, ap: float = 0.4, task: str = "bccd", *, seed: int = 0,
    names: tuple[str, ...] = COCO, own: float = 0.01, examples: list[dict[str, Any]] | None = None,
    per_class: list[dict[str, Any]] | None = None, schedule: str = "short:600",
    split_hash: str = "", task_split: str = "", **changes: Any,
) -> Result:  # fmt: skip
    """A valid result of protocol detection with an AP of about that."""
    scores, samples = [], {}
    for i, name in enumerate(names):
        value = round(min(ap + (0.0, 0.3, -0.1)[i % 3], 1.0), 6)
        values = resampled(value, own, seed + 31 * i)
        low, high = np.quantile(values, [0.025, 0.975])
        scores.append({"name": name, "value": value, "ci_low": float(low), "ci_high": float(high),
                       "n": IMAGES})  # fmt: skip
        samples[name] = Samples.of_resamples(values, IMAGES).model_dump()
    scores.append({"name": "ap_small", "value": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n": IMAGES})
    if per_class is None:
        per_class = [
            {"class": i, "name": name, "boxes": 100 * (3 - i), "ap": ap, "ap50": ap + 0.2 + 0.1 * i}
            for i, name in enumerate(CLASSES)
        ]
    base = make_result(
        model, task, "detection", config={"schedule": schedule}, scores=scores, samples=samples,
        details={"classes": list(CLASSES), "per_class": per_class, "examples": examples or []},
        **changes,
    )  # fmt: skip
    about = {
        "split_hash": split_hash or base.task.split_hash,
        "subset": True,
        "split": task_split,
        "counts": base.task.counts | {"test": IMAGES},
    }
    return base.model_copy(update={"task": base.task.model_copy(update=about)})


def example(row: int, boxes: Any = ((10, 10, 60, 60),), hash: str = "", **changes: Any) -> Any:
    count = len(boxes)
    return {"row": row, "hash": hash, "boxes": [list(b) for b in boxes], "scores": [0.9] * count,
            "labels": [0] * count} | changes  # fmt: skip


def task_of(data: Path, cache: Path, name: str = "bccd") -> DetectionData:
    found: TaskData = load_task(name, cache, data)
    assert isinstance(found, DetectionData)
    return found


def real_examples(task: DetectionData, seed: int, most: int = 6) -> list[dict[str, Any]]:
    """What a middling detector would find in the task's first test images."""
    random = np.random.RandomState(seed)
    out = []
    for row in range(most):
        true = task.test.objects[row]
        kept = random.uniform(size=len(true)) < 0.8
        boxes = (true.boxes + random.normal(0, 4, true.boxes.shape))[kept]
        scores = np.sort(random.uniform(0.2, 1, kept.sum()))[::-1]
        out.append({
            "row": row, "hash": task.test.hashes[row].tobytes().hex(), "boxes": boxes.tolist(),
            "scores": scores.tolist(), "labels": true.labels[kept].tolist(),
        })  # fmt: skip
    return out
