"""Findings as pictures: PNG or SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.common.errors import BadInput
from eval.common.extras import require
from eval.common.files import atomic_file
from eval.results.model_names import called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # of panels
MARKS = "osD^vPX*<>"  # with the colour they tell models apart in grey print


def check_picture(path: Path) -> None:
    """Raises UserError where it would be neither a PNG nor an SVG, or nothing can draw it."""
    if path.suffix not in (".png", ".svg"):
        raise BadInput(f"--out {str(path)!r} must end in .png or .svg")
    require("plots", f"--out {path}")


def saved(build: Callable[[], Figure], path: Path) -> Path:
    """Draw what ``build`` makes and write it atomically. Raises UserError for an unknown kind of
    file. Names are anybody's: what stands between dollars is not a formula."""
    check_picture(path)
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        figure = build()
        with atomic_file(path) as file:
            figure.savefig(file, format=path.suffix[1:])
    return path


def panels(count: int, models: int) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, with room for a legend of ``models`` below."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    columns = min(COLUMNS, math.ceil(count**0.5)) if count > COLUMNS else count
    lines = -(-count // columns)
    figure = Figure(figsize=(4.0 * columns, 3.2 * lines + 0.1 * models), dpi=130)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def line_with_band(
    axis: Axes,
    x: Sequence[float],
    shares: Sequence[tuple[float, float, float]],
    look: Mapping[str, Any],
) -> None:
    """A model's line of percentages, (value, low, high) as shares, and its interval as a band."""
    value, low, high = (100 * np.array(column) for column in zip(*shares, strict=True))
    axis.plot(x, value, ms=4, lw=1.4, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.15, lw=0)


def depth_figure(
    names: Sequence[str],
    values: Sequence[Mapping[str, Mapping[str, float]]],
    label: str,
    scale: float = 1,
) -> Figure:
    """A panel for each key of a model's {panel: {layer: value}}: value against depth, a line a
    model. Networks of unlike depth stand on one axis, from first to last."""
    figure, axes = panels(len(values[0]), len(names))
    for axis, panel in zip(axes, values[0], strict=True):
        for i, found in enumerate(values):
            layers = found[panel]
            y = [scale * v for v in layers.values()]
            axis.plot(np.linspace(0, 1, len(y)), y, ms=4, lw=1.4, **style(i))
        same = {tuple(found[panel]) for found in values}
        if len(same) == 1:
            depth = np.linspace(0, 1, len(layers))
            axis.set_xticks(depth, list(layers), rotation=40, ha="right")
        else:
            axis.set_xlabel("depth, from the first layer to the last", fontsize=9)
        axis.set_title(panel, fontsize=10)
        axis.set_ylabel(label, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(figure, axes[0], names)
    return figure


def style(i: int) -> dict[str, Any]:
    """Colour and mark of the i-th model, the same in all pictures of a finding."""
    # From the eleventh on the colours come again, each with another mark.
    return {"color": f"C{i % 10}", "marker": MARKS[(i + i // 10) % len(MARKS)]}


def legend_below(figure: Figure, axis: Axes, names: Sequence[str]) -> None:
    """A line a model under the panels; call it last, it lays the figure out."""
    handles = [axis.plot([], [], ms=4, lw=1.4, **style(i))[0] for i in range(len(names))]
    columns = 1 + (len(names) > 3)
    figure.legend(
        handles, called(names, 60), loc="lower center", fontsize=8, frameon=False, ncols=columns
    )
    lines = -(-len(names) // columns)
    figure.tight_layout(rect=(0, (0.17 * lines + 0.25) / figure.get_figheight(), 1, 1))
