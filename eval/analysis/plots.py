"""Findings as pictures: PNG or SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.analysis.finding import Finding
from eval.errors import UserError
from eval.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_picture(path: Path) -> None:
    """Raises UserError where it would be neither a PNG nor an SVG."""
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--out {str(path)!r} must end in .png or .svg")


def draw_cka(finding: Finding, path: Path) -> Path:
    """The map of two models' layers, the first layers at the bottom left."""
    check_picture(path)
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    values: dict[str, Any] = finding.values
    rows = [[math.nan if v is None else v for v in row] for row in values["cka"]]
    names_a, names_b = values["layers_a"], values["layers_b"]
    figure = Figure(figsize=(2.2 + 0.62 * len(names_b), 1.6 + 0.55 * len(names_a)), dpi=130)
    axis = figure.subplots()
    image = axis.imshow(rows, origin="lower", cmap="magma", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if math.isfinite(value):
                colour = "black" if value > 0.6 else "white"
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(names_b)), names_b, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(names_a)), names_a, fontsize=8)
    axis.set_xlabel(_short(finding.models[-1].id), fontsize=9)
    axis.set_ylabel(_short(finding.models[0].id), fontsize=9)
    kernel = finding.config["kernel"]
    axis.set_title(
        f"{kernel} CKA, {finding.tasks[0].name}, {values['images']:,} images", fontsize=10
    )
    figure.colorbar(image, ax=axis, fraction=0.05)
    return saved(figure, path)


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]


def saved(figure: Figure, path: Path, bottom: float = 0.0) -> Path:
    """Write the figure atomically; ``bottom`` is the share of it that is kept for a legend."""
    figure.tight_layout(rect=(0, bottom, 1, 1))
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix[1:])
    return path
