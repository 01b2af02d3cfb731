"""``analyze profile``: where in a network is which kind of information, and what its end keeps.

Each layer, averaged over its places, is given to the protocol ``linear`` on tasks that ask for one
known factor each: the drawn tasks of the suite ``mini``, of low, middle and high semantic level.
The study explains transfer by the low and middle levels that contrastive features keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.analysis.likeness import Layered
from eval.data import TaskData
from eval.factors import FACTOR_TASKS
from eval.protocols import Linear
from eval.protocols.linear import score

LEVELS = ("low", "mid", "high")
DEFAULT_TASKS = tuple(FACTOR_TASKS)


def measure(model: Layered, task: TaskData, seed: int = 0) -> dict[str, list[float]]:
    """{layer: [top-1, low end, high end of its 95 % interval]}, fractions of one."""
    found = {}
    for layer in model.layers:
        (top1,) = (
            s for s in score(model.bank_of(layer), task, Linear(), seed).scores if s.name == "top1"
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


def sentence(names: Sequence[str], values: Sequence[dict[str, Any]]) -> str:
    """Where the first level is read best, and which model has most of each at its end."""
    levels = [by_level(value) for value in values]
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


def table(
    names: Sequence[str], values: Sequence[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """(header, lines): each level's best layer, its top-1 there and at the end, in percent."""
    levels = [by_level(value) for value in values]
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


def draw(names: Sequence[str], values: Sequence[dict[str, Any]], path: Path) -> Path:
    """One panel a level: top-1 against depth, a line a model."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    from eval.analysis.plots import check_picture, saved

    check_picture(path)
    levels = [by_level(value) for value in values]
    shown = list(levels[0])
    height = 3.4 + 0.2 * len(names)
    figure = Figure(figsize=(4.0 * len(shown), height), dpi=130)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, level in zip(axes, shown, strict=True):
        for i, found in enumerate(levels):
            layers = found[level]
            depth = np.linspace(0, 1, len(layers))  # networks of unlike depth on one axis
            axis.plot(depth, [100 * v for v in layers.values()], "o-", ms=3, lw=1.4, color=f"C{i}")
        same = {tuple(found[level]) for found in levels}
        if len(same) == 1:
            axis.set_xticks(np.linspace(0, 1, len(layers)), list(layers), rotation=40, ha="right")
        axis.set_title(level, fontsize=10)
        axis.set_ylabel("top-1 of a linear probe, %", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    handles = [axes[0].plot([], [], "o-", ms=3, color=f"C{i}")[0] for i in range(len(names))]
    figure.legend(handles, list(names), loc="lower center", fontsize=8, frameon=False)
    return saved(figure, path, bottom=0.2 * (len(names) + 0.5) / height)
