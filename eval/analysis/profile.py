"""``analyze profile``: where in a network is which kind of information, and what its end keeps.

Each layer, averaged over its places, is given to the protocol ``linear`` on tasks that ask for one
known factor each: the drawn tasks of the suite ``mini``, of low, middle and high semantic level.
The study explains transfer by the low and middle levels that contrastive features keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eval.analysis import Profile
from eval.analysis.finding import Finding
from eval.analysis.plots import depth_figure
from eval.analysis.study import Layered, Study, task_key
from eval.data.task_data import TaskData
from eval.mini.factors import FACTOR_TASKS
from eval.protocols.linear import score_bank
from eval.settings.protocols import Linear

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = ("low", "mid", "high")


def run(study: Study, settings: Profile) -> dict[str, Any]:
    """{"models": {model: {task: {layer: [top-1, low end, high end]}}}}, fractions of one."""
    return {
        "models": {
            name: {
                task_key(task): measure(
                    study.layers(backbone, task, settings.layers, spatial=settings.spatial),
                    task,
                    study.seed,
                )
                for task in study.tasks
            }
            for name, backbone in study.backbones()
        }
    }


def measure(model: Layered, task: TaskData, seed: int = 0) -> dict[str, list[float]]:
    """{layer: [top-1, low end, high end of its 95 % interval]}."""
    found = {}
    for layer in model.layers:
        (top1,) = (
            s
            for s in score_bank(model.bank_of(layer), task, Linear(), seed).scores
            if s.name == "top1"
        )
        found[layer.name] = [top1.value, top1.ci_low, top1.ci_high]
    return found


def level_of(task: str) -> str:
    """low, mid or high; a task of unknown level stands for itself."""
    return FACTOR_TASKS[task].level if task in FACTOR_TASKS else task


def by_level(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """{level: {layer: mean top-1 over its tasks}} of one model's {task: {layer: ...}}."""
    levels: dict[str, list[dict[str, list[float]]]] = {}
    for task, layers in values.items():
        levels.setdefault(level_of(task), []).append(layers)
    return {
        level: {name: float(np.mean([t[name][0] for t in tasks])) for name in tasks[0]}
        for level, tasks in sorted(levels.items(), key=lambda item: _place(item[0]))
    }


def _place(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def sentence(finding: Finding) -> str:
    """Where the first level is read best, and which model has most of each at its end."""
    names, levels = _levels(finding)
    parts = []
    for level in levels[0]:
        ends = [list(found[level].values())[-1] for found in levels]
        best = int(np.argmax(ends))
        parts.append(f"{level} in {names[best]} ({100 * ends[best]:.1f} %)")
    first = next(iter(levels[0]))
    peaks = [max(found[first], key=found[first].__getitem__) for found in levels]
    common = max(dict.fromkeys(peaks), key=peaks.count)
    return (
        f"At the end of the network a linear probe reads most: {', '.join(parts)}; before it, "
        f"{first} is read best from {common} in {peaks.count(common)} of {len(names)} models."
    )


def _levels(finding: Finding) -> tuple[list[str], list[dict[str, dict[str, float]]]]:
    values = finding.values["models"]
    return list(values), [by_level(v) for v in values.values()]


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines): each level's best layer, its top-1 there and at the end, in percent."""
    names, levels = _levels(finding)
    header = ["model"]
    for level in levels[0]:
        header += [f"{level}: best layer", f"{level}, there %", f"{level}, end %"]
    lines = []
    for name, found in zip(names, levels, strict=True):
        cells = [name]
        for layers in found.values():
            best = max(layers, key=layers.__getitem__)
            cells += [best, f"{100 * layers[best]:.1f}", f"{100 * list(layers.values())[-1]:.1f}"]
        lines.append(cells)
    return header, lines


def figure(finding: Finding) -> Figure:
    """One panel a level: top-1 against depth, a line a model."""
    names, levels = _levels(finding)
    return depth_figure(names, levels, "top-1 of a linear probe, %", 100)
