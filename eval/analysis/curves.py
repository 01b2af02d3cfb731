"""Accuracy against the number of labelled training images: a panel a data set, a line a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.analysis.plots import legend_below, line_with_band, panels, saved, style
from eval.common.errors import NotFound
from eval.results.leaderboard import model_label, setting_label
from eval.results.names import task_label
from eval.results.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One part of train: its images, the mean accuracy over draws and their range."""

    train: float
    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One model on one data set under one protocol; points with rising numbers of images."""

    task: str
    protocol: str
    setting: str
    model: str
    points: tuple[Point, ...]


def curves(results: Iterable[Result]) -> list[Curve]:
    """The results that have parts of train, each as a curve that ends at the whole."""
    found = []
    for result in results:
        parts: dict[str, list[dict[str, Any]]] = {}
        for entry in result.details.get("curve", []):
            parts.setdefault(entry["part"], []).append(entry)
        whole = result.score("top1")
        if not parts or whole is None:
            continue
        points = [
            Point(
                float(np.mean([e["train"] for e in entries])),
                float(np.mean([e["top1"] for e in entries])),
                min(e["top1"] for e in entries),
                max(e["top1"] for e in entries),
            )
            for entries in parts.values()
        ]
        points.append(Point(result.task.counts["train"], whole.value, whole.value, whole.value))
        found.append(
            Curve(
                task_label(result.task.name, result.task.split),
                result.protocol.name,
                setting_label(result),
                model_label(result),
                tuple(sorted(points, key=lambda p: p.train)),
            )
        )
    return found


def draw(found: Sequence[Curve], path: Path) -> Path:
    """Draw the curves to a PNG or SVG file. Raises UserError where there are none."""
    if not found:
        raise NotFound(
            "no result here has parts of train; make some with `transfer-eval run --protocol "
            "linear --train-fraction 0.01 0.1 0.25 0.5 1`"
        )
    return saved(partial(figure, found), path)


def figure(found: Sequence[Curve]) -> Figure:
    """One or more curves, a panel a data set and protocol."""
    places = list(dict.fromkeys((c.task, c.protocol, c.setting) for c in found))
    models = list(dict.fromkeys(c.model for c in found))
    drawn, axes = panels(len(places), len(models))
    for axis, panel in zip(axes, places, strict=True):
        for curve in (c for c in found if (c.task, c.protocol, c.setting) == panel):
            line_with_band(
                axis,
                [p.train for p in curve.points],
                [(p.top1, p.low, p.high) for p in curve.points],
                style(models.index(curve.model)),
            )
        axis.set_xscale("log")
        counts = sorted({p.train for c in found if (c.task, c.protocol, c.setting) == panel
                         for p in c.points})  # fmt: skip
        axis.set_xticks(counts, [f"{n:,.0f}" for n in counts])
        axis.set_xticks([], minor=True)
        axis.set_title(f"{panel[0]}, {panel[1]}", fontsize=10)
        axis.set_xlabel("training images", fontsize=9)
        axis.set_ylabel("top-1, %", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(drawn, axes[0], models)
    return drawn
