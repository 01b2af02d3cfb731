"""``analyze geometry``: how a task's classes lie in each layer of a model.

On the training images and on the test images apart; for a data set that no layer was trained on,
both are unseen classes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eval.analysis import Geometry
from eval.analysis.finding import Finding
from eval.analysis.measures.geometry import (
    alignment,
    effective_rank,
    nc1,
    nc2,
    separation,
    uniformity,
)
from eval.analysis.plots import depth_figure
from eval.analysis.study import Layered, Study, task_key
from eval.data.task_data import TaskData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what stands in the picture of one task
DRAWN = {
    "index": "separation: 1 - within / total distance",
    "effective_rank": "effective rank",
    "nc1": "NC1: spread within classes",
}
SHOWN = (
    "within",
    "between",
    "index",
    "effective_rank",
    "alignment",
    "uniformity",
    "nc1",
    "equinorm",
)


def run(study: Study, settings: Geometry) -> dict[str, Any]:
    """{"models": {model: {task: {layer: {part: {measure: number or None}}}}}}; None where it is not
    defined."""
    return {
        "models": {
            name: {
                task_key(task): measure(
                    study.layers(backbone, task, settings.layers), task, settings.images
                )
                for task in study.tasks
            }
            for name, backbone in study.backbones()
        }
    }


def measure(model: Layered, task: TaskData, images: int) -> dict[str, Any]:
    """{layer: {part: {measure: number or None}}} of at most ``images`` of each part."""
    bank = model.features
    parts = {
        "train": (bank[: len(task.train)], task.train.labels),
        "test": (bank[len(task.train) :], task.test.labels),
    }
    return {
        layer.name: {
            part: _one(layer.of(features[:images]), torch.from_numpy(labels[:images].copy()))
            for part, (features, labels) in parts.items()
        }
        for layer in model.layers
    }


def _one(features: Tensor, labels: Tensor) -> dict[str, float | None]:
    found: dict[str, float] = dataclasses.asdict(separation(features, labels))
    found["effective_rank"] = effective_rank(features)
    found["uniformity"] = uniformity(torch.nn.functional.normalize(features.float(), dim=1))
    # The positive pairs of labelled images: neighbours in a class, whose order is that of hashes.
    order = torch.argsort(labels, stable=True)
    alike = labels[order[:-1]] == labels[order[1:]]
    a, b = features[order[:-1][alike]], features[order[1:][alike]]
    found["alignment"] = alignment(a, b) if len(a) > 1 else math.nan
    found["nc1"] = nc1(features, labels)
    found |= dataclasses.asdict(nc2(features, labels))
    return {k: round(v, 6) if math.isfinite(v) else None for k, v in found.items()}


def sentence(finding: Finding) -> str:
    """Which model separates the test classes most at its end, on the mean over tasks."""
    ends = {
        name: [_index(list(layers.values())[-1]) for layers in tasks.values()]
        for name, tasks in finding.values["models"].items()
    }
    mean = {name: sum(found) / len(found) for name, found in ends.items()}
    most, least = max(mean, key=mean.__getitem__), min(mean, key=mean.__getitem__)
    over = f" on the mean of {len(finding.tasks)} tasks" if len(finding.tasks) > 1 else ""
    text = (
        f"At the end of the network {most} separates the test classes most{over} "
        f"(1 - within / total distance {mean[most]:.3f})"
    )
    if most != least:
        text += f", {least} least ({mean[least]:.3f})"
    return text + "."


def _index(parts: dict[str, Any]) -> float:
    return parts["test"]["index"] or 0.0


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines): the last layer of each model on the test images, and its most separating."""
    lines = []
    for name, tasks in finding.values["models"].items():
        for task, layers in tasks.items():
            last = list(layers.values())[-1]["test"]
            cells = ["-" if last.get(k) is None else f"{last[k]:.3g}" for k in SHOWN]
            lines.append([name, task, *cells, max(layers, key=lambda x: _index(layers[x]))])
    header = ["model", "task", *(k.replace("_", " ") for k in SHOWN), "most separating layer"]
    return header, lines


def figure(finding: Finding) -> Figure:
    """Separation against depth, a panel a task; for one task, three measures."""
    values = finding.values["models"]
    if len(finding.tasks) > 1:
        panels = [
            {task: {k: _index(v) for k, v in layers.items()} for task, layers in tasks.items()}
            for tasks in values.values()
        ]
        return depth_figure(list(values), panels, "1 - within / total distance")
    panels = []
    for tasks in values.values():
        (layers,) = tasks.values()
        panels.append({
            title: {k: _number(v["test"][name]) for k, v in layers.items()}
            for name, title in DRAWN.items()
        })  # fmt: skip
    return depth_figure(list(values), panels, "on test images")


def _number(value: float | None) -> float:
    return math.nan if value is None else value
