"""Paired differences as forest plots: a row a task, a panel a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eval.common.text import p_value
from eval.report.blocks import Sheet, sheet
from eval.report.pairs import Pair, Row, mean_difference
from eval.results.compare import SIGNIFICANT, Comparison, TaskDifference
from eval.results.leaderboard import score_title
from eval.results.model_names import short
from eval.results.transfer import SIGN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # side by side
BETTER, WORSE, OPEN = "#1f5fa8", "#b4451f", "#777777"
MEAN = "mean"


def panel_title(comparison: Comparison) -> str:
    """The protocol and its score, on two lines where they are long."""
    title = score_title(comparison.score)
    return f"{comparison.protocol},{' ' if len(title) < 12 else chr(10)}{title}"


def keyed(comparison: Comparison) -> dict[str, TaskDifference]:
    """The tasks by name; a second split of one name has a number."""
    found: dict[str, TaskDifference] = {}
    for task in comparison.tasks:
        count = sum(known.partition(" (")[0] == task.task for known in found)
        found[f"{task.task} ({count + 1})" if count else task.task] = task
    return found


def order(pair: Pair) -> list[str]:
    """The tasks of all scores, best for A first on the mean of its scores."""
    values: dict[str, list[float]] = {}
    for comparison in pair.comparisons:
        for name, task in keyed(comparison).items():
            values.setdefault(name, []).append(task.difference.value)
    return sorted(values, key=lambda name: (-float(np.mean(values[name])), name))


def figure(pair: Pair, a: str, b: str) -> Figure:
    """Each task's difference with its interval, and the mean of the tasks below."""
    tasks = order(pair)
    drawn, panels = _panels(len(pair.comparisons), len(tasks) + 1.6)
    for axis, comparison in zip(panels, pair.comparisons, strict=True):
        found = keyed(comparison)
        for y, name in enumerate(tasks):
            if name in found:
                task = found[name]
                d = task.difference
                sure = {"A": BETTER, "B": WORSE, "tie": OPEN}[task.verdict]
                _point(axis, y, d.value, d.low, d.high, sure, task.verdict != "tie")
        if len(found) > 1:
            _mean(axis, len(tasks) + 0.3, comparison)
        axis.axhline(len(tasks) - 0.35, color="0.8", lw=0.7)
        axis.set_ylim(len(tasks) + 0.9, -0.7)
        axis.set_yticks(
            [*range(len(tasks)), len(tasks) + 0.3], [*(short(t, 24) for t in tasks), MEAN]
        )
        _dress(axis, comparison)
    _legend(drawn, a, b)
    return drawn


def overview(pairs: Sequence[Pair], names: dict[Row, str]) -> Figure:
    """The mean difference of every pair, a panel a score."""
    kinds = _kinds(pairs)
    drawn, panels = _panels(len(kinds), len(pairs) + 0.6)
    labels = [f"{short(names[p.a], 26)} less {short(names[p.b], 26)}" for p in pairs]
    for axis, kind in zip(panels, kinds, strict=True):
        some = None
        for y, pair in enumerate(pairs):
            for comparison in pair.comparisons:
                if _kind(comparison) == kind:
                    some = comparison
                    _mean(axis, y, comparison)
        axis.set_ylim(len(pairs) - 0.4, -0.6)
        axis.set_yticks(range(len(pairs)), labels)
        assert some is not None
        _dress(axis, some)
    return drawn


def _kind(comparison: Comparison) -> tuple[str, str, str]:
    return comparison.protocol, comparison.setting, comparison.score


def _kinds(pairs: Sequence[Pair]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys(_kind(c) for pair in pairs for c in pair.comparisons))


def _panels(count: int, rows: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    columns = min(count, PANELS)
    lines = -(-count // columns)
    size = (1.7 + 2.1 * max(columns, 2), lines * (0.95 + 0.23 * rows))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(lines, columns, squeeze=False, sharey="row")
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return drawn, list(axes.flat[:count])


def _point(
    axis: Axes, y: float, value: float, low: float, high: float, colour: str, sure: bool
) -> None:
    axis.plot([100 * low, 100 * high], [y, y], color=colour, lw=1.4)
    axis.plot(
        100 * value, y, "o", ms=5, color=colour, mfc=colour if sure else "white", mew=1.2,
    )  # fmt: skip


def _mean(axis: Axes, y: float, comparison: Comparison) -> None:
    mean, half = mean_difference(comparison)
    axis.plot([100 * (mean - half), 100 * (mean + half)], [y, y], color="black", lw=1.6)
    axis.plot(100 * mean, y, "D", ms=5, color="black")


def _dress(axis: Axes, comparison: Comparison) -> None:
    axis.axvline(0, color="0.35", lw=0.9)
    axis.set_title(panel_title(comparison), fontsize=9)
    axis.set_xlabel("difference, points", fontsize=8)
    axis.tick_params(labelsize=8, length=2)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _legend(drawn: Figure, a: str, b: str) -> None:
    from matplotlib.lines import Line2D

    def mark(colour: str, face: str, shape: str = "o") -> Line2D:
        return Line2D([], [], marker=shape, ls="", ms=5, color=colour, mfc=face, mew=1.2)

    handles = [mark(BETTER, BETTER), mark(WORSE, WORSE), mark(OPEN, "white"),
               mark("black", "black", "D")]  # fmt: skip
    texts = [f"{short(a, 30)} better", f"{short(b, 30)} better", "undecided", "mean of the tasks"]
    wide = len(a) + len(b) > 40
    drawn.legend(
        handles, texts, loc="outside lower center", ncols=2 if wide else 4, fontsize=8,
        frameon=False,
    )  # fmt: skip


def numbers(pair: Pair) -> tuple[Sheet, ...]:
    """A row a task, a column a score: A - B with its interval and p; bold where it is decided."""
    tasks = order(pair)
    lines = [[task] for task in tasks] + [["mean"]]
    bold = set()
    for c, comparison in enumerate(pair.comparisons):
        found = keyed(comparison)
        for r, name in enumerate(tasks):
            task = found.get(name)
            lines[r].append(_cell(task) if task else "-")
            if task and task.p_holm < SIGNIFICANT:
                bold.add((r, c + 1))
        mean, half = mean_difference(comparison)
        lines[-1].append(
            f"{100 * mean:+.1f} [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"
        )
    aside = sorted({t.task for c in pair.comparisons for t in c.apart})
    for apart in aside:  # below the mean, in which they do not count
        lines.append([apart + SIGN])
        for comparison in pair.comparisons:
            mine = next((t for t in comparison.apart if t.task == apart), None)
            lines[-1].append(_cell(mine) if mine else "-")
    header = ["task", *(" ".join(panel_title(c).split()) for c in pair.comparisons)]
    title = (
        f"{pair.comparisons[0].a} minus {pair.comparisons[0].b}: points [95 % interval], p (Holm)"
    )
    return sheet(header, lines, bold=frozenset(bold), title=title)


def _cell(task: TaskDifference) -> str:
    d = task.difference
    p = p_value(task.p_holm)
    return f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}], {p}"
