"""``transfer-eval cka A B``: how alike are the layers of two models, on a task's images?

Linear or RBF CKA by the unbiased minibatch estimator (Nguyen, Raghu, Kornblith 2021) over the
images of train and test in the order of their hashes, which is as good as drawn. Each model sees
the images at its own size.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.analysis.cka import Cka, CkaSums
from eval.analysis.finding import Finding
from eval.analysis.layers import Layer, layered
from eval.data import TaskData
from eval.encode import encode
from eval.errors import UserError
from eval.models import load, resolve
from eval.precision import Precision
from eval.run import environment, model_info, task_info
from eval.workers import Workers

if TYPE_CHECKING:
    from torch import Tensor

    from eval.bank import FeatureBank
    from eval.models import Backbone

BATCH = 256  # images behind one term of the estimate


@dataclass(frozen=True)
class Layered:
    """A model's layers on the images of a task, side by side in one bank."""

    backbone: Backbone
    layers: tuple[Layer, ...]
    bank: FeatureBank
    seconds: float  # of encoding, 0 from the cache

    @property
    def features(self) -> Tensor:
        """[N, all], train's rows before test's."""
        return self.bank.features

    @property
    def precision(self) -> Precision:
        return Precision.parse(self.bank.precision)

    def bank_of(self, layer: Layer) -> FeatureBank:
        """One layer's features as a bank of its own."""
        return dataclasses.replace(self.bank, features=layer.of(self.features).contiguous())


def layer_bank(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers, wanted: Sequence[str] = ()
) -> Layered:
    """Encode a task with all layers of a model, or find that in the cache."""
    many, layers = layered(backbone, wanted)
    encoded = encode(many, task, cache, workers)
    return Layered(backbone, layers, encoded.bank, encoded.seconds)


def cka(
    model_a: str,
    model_b: str,
    task: TaskData,
    cache: Path,
    *,
    kernel: str = "linear",
    images: int | None = None,
    layers: Sequence[str] = (),
    img_size: int | None = None,
    device: str | None = None,
) -> Finding:
    """Each layer of one model with each of another; the same string twice compares a model with
    itself. ``images``: at most so many; ``layers``: these alone.

    Raises UserError for a layer that is not there or fewer than 4 images.
    """
    if kernel not in ("linear", "rbf"):
        raise UserError(f"unknown kernel {kernel!r}; use linear or rbf")
    workers = Workers(device)
    a, *rest = (
        layer_bank(load(resolve(model, cache, img_size)), task, cache, workers, layers)
        for model in dict.fromkeys((model_a, model_b))
    )
    b = rest[0] if rest else a
    start = time.perf_counter()
    rows = _rows(task, images)
    found = _sums(a, b, rows, kernel)
    seconds = time.perf_counter() - start
    names_a, names_b = ([x.name for x in side.layers] for side in (a, b))
    models = [model_info(a.backbone)] + ([] if b is a else [model_info(b.backbone)])
    return Finding(
        analysis="cka",
        models=models,
        tasks=[task_info(task)],
        config={"kernel": kernel, "images": len(rows), "batch": BATCH, "layers": list(layers)},
        values={
            "layers_a": names_a,
            "layers_b": names_b,
            "cka": _plain(found.values),
            "error": _plain(found.errors),
            "images": found.images,
            "batches": found.batches,
        },
        sentence=_sentence(found, names_a, names_b, models[0].id, models[-1].id, same=b is a),
        environment=environment(workers, a.precision),
        seed=0,
        seconds={
            "encode": round(a.seconds + (0 if b is a else b.seconds), 3),
            "score": round(seconds, 3),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=_notes(found, a, b, task),
    )


def _rows(task: TaskData, images: int | None) -> NDArray[np.int64]:
    """Rows of the bank in the order of their images' hashes, both parts mixed."""
    keys = np.concatenate([task.train.keys, task.test.keys])
    order = np.argsort(keys, kind="stable")
    chosen = order[: images or None]
    if len(chosen) < 4:
        raise UserError(
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


def _notes(found: Cka, a: Layered, b: Layered, task: TaskData) -> list[str]:
    notes = list(task.notes)
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


def _sentence(
    found: Cka, names_a: list[str], names_b: list[str], a: str, b: str, *, same: bool
) -> str:
    values = found.values
    if not np.isfinite(values).any():
        return f"{a}: every layer is the same for all {found.images:,} images, so none is like any."
    if same:
        apart = np.where(np.eye(len(names_a), dtype=bool), np.inf, np.nan_to_num(values, nan=9.0))
        i, j = (int(v) for v in np.unravel_index(np.argmin(apart), apart.shape))
        return (
            f"Within {a} the least alike layers are {names_a[i]} and {names_a[j]} "
            f"(CKA {values[i, j]:.2f}), on {found.images:,} images."
        )
    likest = [int(v) for v in np.argmax(np.nan_to_num(values, nan=-9.0), axis=1)]
    shared = [i for i, name in enumerate(names_a) if name in names_b]
    paired = {names_a[i]: float(values[i, names_b.index(names_a[i])]) for i in shared}
    paired = {name: value for name, value in paired.items() if np.isfinite(value)}
    if not paired:
        first = likest[0]
        return (
            f"{names_a[0]} of {a} is most like {names_b[first]} of {b} "
            f"(CKA {values[0, first]:.2f}), on {found.images:,} images."
        )
    most, least = max(paired, key=paired.__getitem__), min(paired, key=paired.__getitem__)
    return (
        f"{a} and {b} are most alike in {most} (CKA {paired[most]:.2f}) and least in {least} "
        f"({paired[least]:.2f}), layer by layer, on {found.images:,} images."
    )


def table(values: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of a CKA map in text, with standard errors."""
    lines = []
    for name, row, errors in zip(values["layers_a"], values["cka"], values["error"], strict=True):
        cells = [
            "-" if v is None else f"{v:.2f}" + (f" ±{1.96 * e:.2f}" if e is not None else "")
            for v, e in zip(row, errors, strict=True)
        ]
        lines.append([name, *cells])
    return ["", *values["layers_b"]], lines
