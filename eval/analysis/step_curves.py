"""Accuracy against the steps of a training: a panel a data set and score, a line a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eval.analysis.plots import legend_below, line_with_band, panels, saved, style
from eval.common.errors import NotFound
from eval.results.leaderboard import main_scores, score_title, setting_label
from eval.results.names import task_label
from eval.results.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Reading:
    """A score at a step with its 95 % interval, fractions of one."""

    step: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class StepCurve:
    """One training on one data set by one score; readings with rising steps."""

    task: str
    protocol: str
    setting: str
    score: str
    model: str
    readings: tuple[Reading, ...]


def step_curves(results: Iterable[Result]) -> list[StepCurve]:
    """The results that were read at a step, as one curve for each training and score.

    A step that was read twice (a training begun again under its name) counts as it was read last.
    """
    found: dict[tuple[str, str, str, str, str], dict[int, tuple[str, Reading]]] = {}
    for result in results:
        step = result.model.step
        if step is None:
            continue
        task = task_label(result.task.name, result.task.split)
        for score in main_scores(result):
            model = result.model.id.removesuffix(f"@{step}")
            where = task, result.protocol.name, setting_label(result), score.name, model
            curve = found.setdefault(where, {})
            if step not in curve or curve[step][0] <= result.created:
                reading = Reading(step, score.value, score.ci_low, score.ci_high)
                curve[step] = result.created, reading
    return [
        StepCurve(*key, tuple(reading for _, (_, reading) in sorted(curve.items())))
        for key, curve in sorted(found.items())
    ]


def draw(found: Sequence[StepCurve], path: Path) -> Path:
    """Draw the curves to a PNG or SVG file. Raises UserError where there are none."""
    if not found:
        raise NotFound(
            "no result here was read at a step of a training; eval.TrainingProbe makes them, by "
            "default in the folder 'probe'"
        )
    return saved(partial(figure, found), path)


def figure(found: Sequence[StepCurve]) -> Figure:
    """A panel a data set, protocol and score, with the 95 % intervals as bands."""
    places = list(dict.fromkeys((c.task, c.protocol, c.setting, c.score) for c in found))
    models = list(dict.fromkeys(c.model for c in found))
    drawn, axes = panels(len(places), len(models))
    for axis, panel in zip(axes, places, strict=True):
        for curve in found:
            if (curve.task, curve.protocol, curve.setting, curve.score) != panel:
                continue
            line_with_band(
                axis,
                [r.step for r in curve.readings],
                [(r.value, r.low, r.high) for r in curve.readings],
                style(models.index(curve.model)),
            )
        axis.set_title(f"{panel[0]}, {panel[1]}", fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.set_ylabel(f"{score_title(panel[3])}, %", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(drawn, axes[0], models)
    return drawn
