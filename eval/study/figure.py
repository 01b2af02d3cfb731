"""Learning curves of transfer: a panel a score, a line an arm, against epochs of pretraining."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eval.analysis.plots import legend_below, line_with_band, panels, saved, style
from eval.common.errors import NotFound
from eval.study.verdict import Level, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Verdict, path: Path) -> Path:
    """Write a PNG or SVG. Raises UserError for another kind of file, and before anything is
    scored."""
    if not any(one.found for one in found.levels):
        raise NotFound(f"no checkpoint of {found.table.plan.name} is scored yet: nothing to draw")
    return saved(partial(figure, found), path)


def figure(found: Verdict) -> Figure:
    """Bands are 95 % over other images and, from two trainings on, other trainings."""
    known = [one for one in found.levels if one.found]
    budgets = sorted({one.epochs for one in known})
    arms = list(dict.fromkeys(one.arm for one in known))
    scores = list(dict.fromkeys(one.score for one in known))
    drawn, axes = panels(len(scores), len(arms))
    for axis, score in zip(axes, scores, strict=True):
        for i, arm in enumerate(arms):
            points = [one for one in known if (one.score, one.arm) == (score, arm)]
            if not points:
                continue
            epochs, shares = [one.epochs for one in points], [_band(one) for one in points]
            line_with_band(axis, epochs, shares, style(i))
            if len(points) == 1:  # a band of one point is not seen
                _, low, high = (100 * v for v in shares[0])
                axis.vlines(epochs, low, high, color=style(i)["color"], alpha=0.4)
        axis.set_xscale("log")
        axis.set_xlim(0.9 * budgets[0], 1.1 * budgets[-1])
        axis.set_xticks(budgets, [str(e) for e in budgets])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("epochs of pretraining", fontsize=9)
        axis.set_title(f"{score}, mean over data sets, %", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(drawn, axes[0], arms)
    return drawn


def _band(one: Level) -> tuple[float, float, float]:
    assert one.found is not None
    interval = one.found.interval
    return interval.value, interval.low, interval.high
