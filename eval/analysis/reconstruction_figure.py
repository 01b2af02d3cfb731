"""The picture of ``analyze reconstruction``: curves, and rebuilt images beside their originals."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.analysis.finding import Finding
from eval.analysis.plots import style
from eval.results.model_names import called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("decoded", "inverted")
CELL, GAP, CURVES = 0.8, 0.14, 3.3  # inches: a picture, between blocks, the panels
MOST_SIDE = 512  # pixels of a picture that a finding may hold
Pixels = NDArray[np.uint8]


def side_by_side(finding: Finding) -> Figure:
    """PSNR and SSIM against depth; beneath them the pictures, a row a model, the originals first.

    The pictures stand in blocks, each of one layer and one way back to the pixels. The dashed line
    is the floor, the mean training image.
    """
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    models = of_models(finding)
    originals = [picture_of(uri) for uri in finding.values["originals"]]
    blocks = _blocks(models) if originals else []
    titles = _titles(models)
    header = 0.35 + 0.15 * max(map(len, titles), default=0)
    cell = min(CELL, 13 / max(len(blocks) * len(originals), 1))
    names = 0.065 * max(map(len, called(list(models)))) + 0.3
    inner = len(blocks) * (len(originals) * cell + GAP)
    width = max(names + inner, names + 7.5)
    pictures = (len(models) + 1) * cell + header + 0.1 if blocks else 0.0
    height = CURVES + pictures
    figure = Figure(figsize=(width, height), dpi=130)

    def place(left: float, top: float, wide: float, high: float) -> Axes:
        """Axes by inches from the upper left corner."""
        return figure.add_axes(
            (left / width, 1 - (top + high) / height, wide / width, high / height)
        )

    wide = (width - names - 1.6) / 2
    panels = [place(0.65 + k * (wide + 0.75), 0.35, wide, CURVES - 1.0) for k in (0, 1)]
    _curves(panels, models)
    figure.legend(
        *panels[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="upper left",
        bbox_to_anchor=((2 * wide + 1.5) / width, 1 - 0.3 / height),
    )  # fmt: skip
    for i, (method, n) in enumerate(blocks):
        left = names + i * (len(originals) * cell + GAP)
        axis = place(left, CURVES + header, len(originals) * cell, (len(models) + 1) * cell)
        rows = [originals, *(_of_block(found, method, n) for found in models.values())]
        axis.imshow(_sheet(rows, len(originals)), aspect="auto", interpolation="nearest")
        axis.set_title("\n".join([method, *titles[n]]), fontsize=9)
        axis.set_axis_off()
        for row, name in enumerate(("original", *called(list(models)))) if i == 0 else ():
            at = 1 - (row + 0.5) / (len(models) + 1)
            axis.text(-0.08 / cell / len(originals), at, name, transform=axis.transAxes,
                      ha="right", va="center", fontsize=8)  # fmt: skip
    return figure


def _curves(panels: Sequence[Axes], models: Mapping[str, Any]) -> None:
    for axis, (key, label) in zip(panels, (("psnr", "PSNR"), ("ssim", "SSIM")), strict=True):
        shown = called(list(models))
        for i, (name, found) in enumerate(zip(shown, models.values(), strict=True)):
            y = [one[key][0] for one in found["layers"].values()]
            x = np.linspace(0, 1, len(y))
            axis.plot(x, y, ms=4, lw=1.4, label=name, **style(i))
        # Models with one view of the images have one floor.
        floors = sorted({found["floor"][key] for found in models.values()})
        for i, floor in enumerate(floors):
            axis.axhline(floor, color="0.5", ls="--", lw=1, label="" if i else "mean image")
        layers = {tuple(found["layers"]) for found in models.values()}
        if len(layers) == 1:
            (names,) = layers
            axis.set_xticks(np.linspace(0, 1, len(names)), list(names), rotation=40, ha="right")
        else:
            axis.set_xlabel("depth, from the first layer to the last", fontsize=9)
        axis.set_title(f"{label} of what a decoder rebuilds", fontsize=10)
        axis.set_ylabel("dB" if key == "psnr" else label, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)


def _blocks(models: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(method, n): the n-th of the layers that were inverted of each model."""
    most = max(len(found["prior"]) for found in models.values())
    return [(method, n) for method in METHODS for n in range(most)]


def _titles(models: Mapping[str, Any]) -> list[list[str]]:
    """What the n-th inverted layer is called, each name once; three lines at most."""
    lists = [list(found["prior"]) for found in models.values()]
    names = [
        list(dict.fromkeys(layers[n] for layers in lists if n < len(layers)))
        for n in range(max(map(len, lists)))
    ]
    return [n if len(n) <= 3 else [*n[:2], "..."] for n in names]


def _of_block(found: Mapping[str, Any], method: str, n: int) -> list[Pixels]:
    """A model's pictures; none where it has fewer layers."""
    layers = list(found[method].values())
    return [picture_of(uri) for uri in layers[n]] if n < len(layers) else []


def _sheet(rows: Sequence[Sequence[Pixels]], columns: int) -> Pixels:
    """Pictures in one, with white between them. They may differ in size: the first sets it."""
    height, width = rows[0][0].shape[:2]
    sheet = np.full((len(rows) * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for k, pixels in enumerate(row):
            if pixels.shape[:2] != (height, width):
                pixels = np.asarray(Image.fromarray(pixels).resize((width, height)))
            y, x = i * (height + 2) + 1, k * (width + 2) + 1
            sheet[y : y + height, x : x + width] = pixels
    return sheet


def of_models(finding: Finding) -> dict[str, Any]:
    """{model: its values}: there is one task."""
    return {name: next(iter(tasks.values())) for name, tasks in finding.values["models"].items()}


def picture_of(uri: str) -> Pixels:
    """[H, W, 3] of what ``data_uri`` made; findings may be anybody's. Raises ValueError."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])), formats=["PNG"])
        if max(image.size) > MOST_SIDE:
            raise ValueError(f"a picture of {image.size} pixels")
        return np.asarray(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture: {error}") from None
