"""``transfer-eval cka A B``: how alike are the layers of two models, on a task's images?

Linear or RBF CKA by the unbiased minibatch estimator (Nguyen, Raghu, Kornblith 2021) over the
images of train and test in the order of their hashes, which is as good as drawn. Each model sees
the images at its own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.analysis import LayerCka
from eval.analysis.finding import Finding
from eval.analysis.measures.cka import Cka, CkaSums
from eval.analysis.study import Layered, Study
from eval.common.errors import BadInput, NotFound
from eval.data.task_data import TaskData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 256  # images behind one term of the estimate


def run(study: Study, settings: LayerCka) -> dict[str, Any]:
    """Each layer of one model with each of another, or of itself where there is only one.

    Raises UserError for a layer that is not there, an unknown kernel or fewer than 4 images.
    """
    if settings.kernel not in ("linear", "rbf"):
        raise NotFound(f"unknown kernel {settings.kernel!r}; use linear or rbf")
    (task,) = study.tasks
    rows = _rows(task, settings.images)
    a, *rest = (
        study.layers(backbone, task, settings.layers, spatial=settings.spatial)
        for _, backbone in study.backbones()
    )
    b = rest[0] if rest else a
    found = _sums(a, b, rows, settings.kernel)
    study.notes += _notes(found, a, b)
    return {
        "layers_a": [x.name for x in a.layers],
        "layers_b": [x.name for x in b.layers],
        "cka": _plain(found.values),
        "error": _plain(found.errors),
        "images": found.images,
        "batches": found.batches,
    }


def _rows(task: TaskData, images: int) -> NDArray[np.int64]:
    """Rows of the bank in the order of their images' hashes, both parts mixed."""
    keys = np.concatenate([task.train.keys, task.test.keys])
    order = np.argsort(keys, kind="stable")
    chosen = order[: images or None]
    if len(chosen) < 4:
        raise BadInput(
            f"task {task.name!r}: an unbiased estimate of CKA needs at least 4 images, got "
            f"{len(chosen)}"
        )
    return chosen


def _sums(a: Layered, b: Layered, rows: NDArray[np.int64], kernel: str) -> Cka:
    sums = CkaSums(len(a.layers), len(b.layers), "rbf" if kernel == "rbf" else "linear")
    ends = list(range(BATCH, len(rows) + 1, BATCH))
    if not ends or len(rows) - ends[-1] >= 4:  # fewer give no estimate, and are left out
        ends.append(len(rows))
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        batch = rows[begin:end]
        of_a = [layer.of(a.features[batch]) for layer in a.layers]
        same = b is a
        sums.add(of_a, of_a if same else [layer.of(b.features[batch]) for layer in b.layers])
    return sums.result()


def _plain(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[round(float(v), 6) if np.isfinite(v) else None for v in row] for row in values]


def _notes(found: Cka, a: Layered, b: Layered) -> list[str]:
    notes = []
    sides = [(a, found.constant[0])] + ([] if b is a else [(b, found.constant[1])])
    for side, constant in sides:
        if constant:
            names = ", ".join(side.layers[i].name for i in constant)
            notes.append(f"{side.backbone.resolved.id}: layer {names} is the same for all images")
    sizes = [side.backbone.input_config["input_size"][1:] for side in (a, b)]
    if sizes[0] != sizes[1]:
        notes.append(
            f"the models see the images at different sizes: {_size(sizes[0])} and "
            f"{_size(sizes[1])} px"
        )
    return notes


def _size(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def sentence(finding: Finding) -> str:
    """Which layers are most and least alike."""
    values = finding.values
    names_a, names_b = values["layers_a"], values["layers_b"]
    alike = np.array([[math.nan if v is None else v for v in row] for row in values["cka"]])
    a, b = finding.models[0].id, finding.models[-1].id
    images = f"on {values['images']:,} images"
    if not np.isfinite(alike).any():
        return f"{a}: every layer is the same for all images, so none is like any, {images}."
    if len(finding.models) == 1:
        apart = np.where(np.eye(len(names_a), dtype=bool), np.inf, np.nan_to_num(alike, nan=9.0))
        i, j = (int(v) for v in np.unravel_index(np.argmin(apart), apart.shape))
        return (
            f"Within {a} the least alike layers are {names_a[i]} and {names_a[j]} "
            f"(CKA {alike[i, j]:.2f}), {images}."
        )
    shared = [i for i, name in enumerate(names_a) if name in names_b]
    paired = {names_a[i]: float(alike[i, names_b.index(names_a[i])]) for i in shared}
    paired = {name: value for name, value in paired.items() if math.isfinite(value)}
    if not paired:
        first = int(np.argmax(np.nan_to_num(alike[0], nan=-9.0)))
        return (
            f"{names_a[0]} of {a} is most like {names_b[first]} of {b} "
            f"(CKA {alike[0, first]:.2f}), {images}."
        )
    most, least = max(paired, key=paired.__getitem__), min(paired, key=paired.__getitem__)
    return (
        f"{a} and {b} are most alike in {most} (CKA {paired[most]:.2f}) and least in {least} "
        f"({paired[least]:.2f}), layer by layer, {images}."
    )


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of a CKA map in text, with standard errors."""
    values = finding.values
    lines = []
    for name, row, errors in zip(values["layers_a"], values["cka"], values["error"], strict=True):
        cells = [
            "-" if v is None else f"{v:.2f}" + (f" ±{1.96 * e:.2f}" if e is not None else "")
            for v, e in zip(row, errors, strict=True)
        ]
        lines.append([name, *cells])
    return ["", *values["layers_b"]], lines


def figure(finding: Finding) -> Figure:
    """The map of two models' layers, the first layers at the bottom left."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    from eval.results.model_names import called

    values = finding.values
    rows = [[math.nan if v is None else v for v in row] for row in values["cka"]]
    names_a, names_b = values["layers_a"], values["layers_b"]
    size = (2.2 + 0.62 * len(names_b), 1.6 + 0.55 * len(names_a))
    drawn = Figure(figsize=size, dpi=130, layout="tight")
    axis = drawn.subplots()
    image = axis.imshow(rows, origin="lower", cmap="magma", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if math.isfinite(value):
                colour = "black" if value > 0.6 else "white"
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(names_b)), names_b, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(names_a)), names_a, fontsize=8)
    models = called([m.id for m in finding.models])
    axis.set_xlabel(models[-1], fontsize=9)
    axis.set_ylabel(models[0], fontsize=9)
    kernel = finding.config["kernel"] + (", by place" if finding.config.get("spatial") else "")
    axis.set_title(
        f"{kernel} CKA, {finding.tasks[0].name}, {values['images']:,} images", fontsize=10
    )
    drawn.colorbar(image, ax=axis, fraction=0.05)
    return drawn
