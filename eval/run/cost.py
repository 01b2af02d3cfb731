"""What a run would cost: images to encode, how much is cached, megabytes, minutes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.common.fitted_table import fits, fitted_table, wrapped
from eval.common.text import text_table
from eval.models.backbone import load
from eval.protocols import PROTOCOLS
from eval.run.execute import feature_readout
from eval.run.plan import Cell, Request
from eval.settings.readout import TOKENS, Readout
from eval.training.context import Context


@dataclass(frozen=True)
class Cost:
    """One model on one task. ``seconds`` is estimated from a probe of this machine."""

    model: str
    task: str
    cells: int
    done: int
    images: int  # to encode; 0 when the features are cached or nothing is missing
    cached: bool
    megabytes: float  # the feature bank's size
    seconds: float  # of encoding
    training: float = 0.0  # seconds, of the protocols that train
    decoded: float = 0.0  # megabytes of training images to be kept, but for an earlier row's
    memory: float = 0.0  # megabytes that a protocol on maps holds at once, at most


def estimate(request: Request, cells: Sequence[Cell]) -> list[Cost]:
    """Load each model that has something to do, time it for about a second, and count."""
    from eval.common.distributed import Workers
    from eval.features.encode import auto_precision, is_cached
    from eval.features.precision import Precision
    from eval.features.readout import reading
    from eval.training.speed import Speed

    workers = Workers(request.device)
    out = []
    stores: set[Path] = set()  # decoded by a row before
    for model in dict.fromkeys(c.model for c in cells):
        mine = [c for c in cells if c.model == model]
        backbone = load(model) if any(not c.done for c in mine) else None
        speeds: dict[Precision, Speed] = {}
        for task in {c.task.split_hash: c.task for c in mine}.values():
            group = [c for c in mine if c.task.split_hash == task.split_hash]
            todo = [c for c in group if not c.done]
            known = (model.id, task.name, len(group), len(group) - len(todo))
            if backbone is None or not todo:
                out.append(Cost(*known, 0, True, 0.0, 0.0))
                continue
            precision = (
                Precision.parse(request.precision)
                if request.precision
                else auto_precision(backbone, task, workers)
            )
            context = Context(backbone, task, None, workers, precision, request.cache, request.seed)
            speed = speeds.setdefault(precision, Speed(context))
            training = sum(PROTOCOLS[c.protocol].seconds(context, c.settings, speed) for c in todo)
            kept = [PROTOCOLS[c.protocol].to_store(context, c.settings) for c in todo]
            new = {folder: size for folder, size in filter(None, kept) if folder not in stores}
            stores |= new.keys()
            decoded = sum(new.values()) / 1e6
            rows = len(task.train) + len(task.test)
            images, megabytes = 0, 0.0
            found = [PROTOCOLS[c.protocol].to_map(context, c.settings) for c in todo]
            maps = {m.place: m for m in found if m is not None}  # protocols share a bank
            for one in maps.values():
                megabytes += one.bytes / 1e6
                images += 0 if one.cached else rows
            memory = max((m.memory / 1e6 for m in found if m is not None), default=0.0)
            if not maps and not any(PROTOCOLS[c.protocol].features for c in todo):
                out.append(Cost(*known, 0, True, 0.0, 0.0, training, decoded))
                continue
            for readouts in _banks(todo):
                joint = reading(backbone, readouts)
                megabytes += rows * (joint.dim * 4 + 8) / 1e6
                if not is_cached(joint, task, request.cache, precision):
                    images += rows
            cached = not images
            seconds = images / speed.encoding / workers.count
            out.append(Cost(*known, images, cached, megabytes, seconds, training, decoded, memory))
    workers.close()
    return out


def _banks(cells: Sequence[Cell]) -> list[list[Readout]]:
    """What each bank holds: all vectors together, and tokens apart, as a run has them."""
    wanted = dict.fromkeys(feature_readout(c) for c in cells if PROTOCOLS[c.protocol].features)
    both = [[r for r in wanted if (r.pool == TOKENS) is tokens] for tokens in (False, True)]
    return [readouts for readouts in both if readouts]


def render(costs: Sequence[Cost], width: int | None = None) -> str:
    """A table and one sentence, for a screen of ``width`` characters or as Markdown (None)."""
    trains, decoded = any(c.training for c in costs), sum(c.decoded for c in costs)
    header = ["model", "task", "cells done", "images to encode", "features MB", "minutes"]
    header += ["training minutes"] if trains else []
    header += ["decoded MB"] if decoded else []
    memory = any(c.memory for c in costs)
    header += ["memory MB"] if memory else []
    lines = [
        [
            c.model,
            c.task,
            f"{c.done}/{c.cells}",
            f"{c.images:,}" if c.images else ("done" if c.done == c.cells else "cached"),
            f"{c.megabytes:.1f}",
            f"{c.seconds / 60:.1f}",
            *([f"{c.training / 60:.1f}"] if trains else []),
            *([f"{c.decoded:.1f}"] if decoded else []),
            *([f"{c.memory:.0f}"] if memory else []),
        ]
        for c in costs
    ]
    images = sum(c.images for c in costs)
    open_cells = [c for c in costs if c.done < c.cells]
    cached = sum(c.cached for c in open_cells)
    total = (
        f"{sum(c.cells - c.done for c in costs)} of {sum(c.cells for c in costs)} cells to score; "
        f"{images:,} images to encode ({cached} of {len(open_cells)} feature banks cached), "
        f"{sum(c.megabytes for c in costs if c.images):.0f} MB of features to store, about "
        f"{sum(c.seconds for c in costs) / 60:.1f} minutes of encoding"
        + (f" and {sum(c.training for c in costs) / 60:.1f} of training" if trains else "")
        + " on this machine."
        + (f" Training keeps about {decoded:.1f} MB of decoded images." if decoded else "")
    )
    below = total if width is None else wrapped(total, width)
    return f"{_table(header, lines, width)}\n{below}"


def _table(header: list[str], lines: list[list[str]], width: int | None) -> str:
    """One table; where a screen is too narrow for it, one a model, named above it."""
    if width is None or fits(whole := text_table(header, lines), width):
        return text_table(header, lines, markdown=True) if width is None else whole
    return "\n\n".join(
        f"{model}\n{fitted_table(header[1:], [line[1:] for line in of_model], width, '')}"
        for model, of_model in itertools.groupby(lines, key=lambda line: line[0])
    )


def as_json(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    return [asdict(c) for c in costs]
