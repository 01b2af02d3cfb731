"""Findings as pictures: PNG or SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.errors import UserError
from eval.files import atomic_file
from eval.resulttable import objective_of
from zoo.names import parse_objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # of panels
MARKS = "osD^vPX*<>"  # with the colour they tell models apart in grey print


def check_picture(path: Path) -> None:
    """Raises UserError where it would be neither a PNG nor an SVG."""
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--out {str(path)!r} must end in .png or .svg")


def saved(figure: Figure, path: Path) -> Path:
    """Write the figure atomically. Raises UserError for an unknown kind of file."""
    check_picture(path)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix[1:])
    return path


def short(name: str, most: int = 44) -> str:
    """A long name's end, where models differ; dollars begin no formula (``plain``)."""
    return plain(name if len(name) <= most else "..." + name[3 - most :])


def plain(text: str) -> str:
    """Foreign text for matplotlib, which takes what stands between dollars for TeX."""
    return text.replace("$", "\\$")


def called(names: Sequence[str], most: int = 44) -> list[str]:
    """Models in a picture: by their objective where it tells them apart, as the paper writes it;
    else by their names without the prefix."""
    objectives = [objective_of(name) for name in names]
    return [
        parse_objective(objective).shown
        if objective and objectives.count(objective) == 1
        else ("untrained " if name.startswith("random:") else "")
        + short(re.sub(r"^[\w-]+:", "", name), most)
        for name, objective in zip(names, objectives, strict=True)
    ]


def depth_figure(
    names: Sequence[str],
    values: Sequence[Mapping[str, Mapping[str, float]]],
    label: str,
    scale: float = 1,
) -> Figure:
    """A panel for each key of a model's {panel: {layer: value}}: value against depth, a line a
    model. Networks of unlike depth stand on one axis, from first to last."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    shown = list(values[0])
    columns = min(len(shown), COLUMNS)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(4.0 * columns, 3.2 * lines + 0.1 * len(names)), dpi=130)
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, shown, strict=False):
        for i, found in enumerate(values):
            layers = found[panel]
            y = [scale * v for v in layers.values()]
            axis.plot(np.linspace(0, 1, len(y)), y, ms=4, lw=1.4, **style(i))
        same = {tuple(found[panel]) for found in values}
        if len(same) == 1:
            depth = np.linspace(0, 1, len(layers))
            axis.set_xticks(depth, [plain(k) for k in layers], rotation=40, ha="right")
        else:
            axis.set_xlabel("depth, from the first layer to the last", fontsize=9)
        axis.set_title(plain(panel), fontsize=10)
        axis.set_ylabel(label, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    legend_below(figure, axes.flat[0], names)
    return figure


def style(i: int) -> dict[str, str]:
    """Colour and mark of the i-th model, the same in all pictures of a finding."""
    return {"color": f"C{i % 10}", "marker": MARKS[i % len(MARKS)]}


def legend_below(figure: Figure, axis: Axes, names: Sequence[str]) -> None:
    """A line a model under the panels; call it last, it lays the figure out."""
    handles = [
        axis.plot([], [], ms=4, lw=1.4, **style(i))[0]  # type: ignore[arg-type]  # of a dict of keywords
        for i in range(len(names))
    ]
    columns = 1 + (len(names) > 3)
    figure.legend(
        handles, called(names, 60), loc="lower center", fontsize=8, frameon=False, ncols=columns
    )
    lines = -(-len(names) // columns)
    figure.tight_layout(rect=(0, (0.17 * lines + 0.25) / figure.get_figheight(), 1, 1))
