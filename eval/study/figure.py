"""Learning curves of transfer: a panel a score, a line an arm, against epochs of pretraining."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eval.analysis.plots import legend_below, panels, saved, style
from eval.common.errors import NotFound
from eval.metrics.intervals import Interval
from eval.study.verdict import ArmAt, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ASIDE = 1.012  # times as many epochs, from arm to arm


def aside(i: int, arms: int) -> float:
    """By what to multiply the epochs of the i-th of so many arms in a picture, for else their bars
    hide each other."""
    return ASIDE ** (i - (arms - 1) / 2)


def draw(found: Verdict, path: Path) -> Path:
    """Write a PNG or SVG. Raises UserError for another kind of file, and before anything is
    scored."""
    if not any(one.found for one in found.arms):
        raise NotFound(f"no checkpoint of {found.table.plan.name} is scored yet: nothing to draw")
    return saved(partial(figure, found), path)


def figure(found: Verdict) -> Figure:
    """Bands are 95 % over other samples of the data sets and other trainings; where there was one
    training the marker is hollow and has none, as nothing is known of others."""
    known = [one for one in found.arms if one.found]
    budgets = sorted({one.epochs for one in known})
    arms = list(dict.fromkeys(one.arm for one in known))
    scores = list(dict.fromkeys(one.score for one in known))
    drawn, axes = panels(len(scores), len(arms))
    for axis, score in zip(axes, scores, strict=True):
        for i, arm in enumerate(arms):
            points = [one for one in known if (one.score, one.arm) == (score, arm)]
            values = {one.epochs: 100 * _interval(one).value for one in points}
            near = aside(i, len(arms))
            axis.plot([near * e for e in values], [*values.values()], ms=4, lw=1.4, **style(i))
            bands = {
                one.epochs: (100 * _interval(one).low, 100 * _interval(one).high)
                for one in points if one.found and one.found.spread
            }  # fmt: skip
            low, high = ([band[end] for band in bands.values()] for end in (0, 1))
            x = [near * e for e in bands]
            axis.fill_between(x, low, high, color=style(i)["color"], alpha=0.15, lw=0)
            if len(bands) == 1:  # an area of no width is not seen
                axis.vlines(x, low, high, color=style(i)["color"], alpha=0.4)
            once = {epochs: value for epochs, value in values.items() if epochs not in bands}
            axis.plot(
                [near * e for e in once], [*once.values()],
                ms=4, lw=0, markerfacecolor="white", **style(i),
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(0.9 * budgets[0], 1.1 * budgets[-1])
        axis.set_xticks(budgets, [str(e) for e in budgets])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("epochs of pretraining (hollow: one training)", fontsize=9)
        axis.set_title(f"{score}, mean over data sets, %", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(drawn, axes[0], arms)
    return drawn


def _interval(one: ArmAt) -> Interval:
    assert one.found is not None
    return one.found.interval
