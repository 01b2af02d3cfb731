"""``analyze geometry``: how a task's classes lie in each layer of a model.

On the training images and on the test images apart; for a data set that no layer was trained on,
both are unseen classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eval.analysis.geometry import effective_rank, nc1, nc2, separation, uniformity
from eval.analysis.likeness import Layered
from eval.data import TaskData

MOST = 5000  # images of a part that are looked at: the rank needs a full decomposition
SHOWN = ("within", "between", "index", "effective_rank", "uniformity", "nc1", "equinorm")


def measure(model: Layered, task: TaskData) -> dict[str, Any]:
    """{layer: {part: {measure: number or None}}}; None where it is not defined."""
    bank = model.features
    parts = {
        "train": (bank[: len(task.train)], task.train.labels),
        "test": (bank[len(task.train) :], task.test.labels),
    }
    return {
        layer.name: {
            part: _one(layer.of(features[:MOST]), torch.from_numpy(labels[:MOST].copy()))
            for part, (features, labels) in parts.items()
        }
        for layer in model.layers
    }


def _one(features: Tensor, labels: Tensor) -> dict[str, float | None]:
    found: dict[str, float] = dataclasses.asdict(separation(features, labels))
    found["effective_rank"] = effective_rank(features)
    found["uniformity"] = uniformity(torch.nn.functional.normalize(features.float(), dim=1))
    found["nc1"] = nc1(features, labels)
    found |= dataclasses.asdict(nc2(features, labels))
    return {k: round(v, 6) if math.isfinite(v) else None for k, v in found.items()}


def sentence(names: Sequence[str], values: Sequence[dict[str, Any]]) -> str:
    """Which model separates the test classes most, and where in it."""
    best = []
    for name, value in zip(names, values, strict=True):
        index = {layer: parts["test"]["index"] or 0.0 for layer, parts in value.items()}
        layer = max(index, key=index.__getitem__)
        best.append((index[layer], layer, name))
    top, layer, name = max(best)
    end = {
        n: list(v.values())[-1]["test"]["index"] or 0.0 for n, v in zip(names, values, strict=True)
    }
    least = min(end, key=end.__getitem__)
    text = (
        f"{name} separates the test classes most, in {layer} (1 - within / total distance "
        f"{top:.3f})"
    )
    if len(names) > 1 and least != name:
        text += f"; at its end {least} does least ({end[least]:.3f})"
    return text + "."


def table(
    names: Sequence[str], values: Sequence[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """(header, lines): the last layer of each model on the test images, and its most separating."""
    lines = []
    for name, value in zip(names, values, strict=True):
        index = {layer: parts["test"]["index"] or 0.0 for layer, parts in value.items()}
        last = list(value.values())[-1]["test"]
        cells = ["-" if last[k] is None else f"{last[k]:.3g}" for k in SHOWN]
        lines.append([name, *cells, max(index, key=index.__getitem__)])
    return ["model", *(k.replace("_", " ") for k in SHOWN), "most separating layer"], lines
