"""What a run would cost: images to encode, how much is cached, megabytes, minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.bank import Key, bank_path, read_header
from eval.models import load
from eval.run import Cell, Request
from eval.text import text_table


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
    seconds: float


def estimate(request: Request, cells: Sequence[Cell]) -> list[Cost]:
    """Load each model that has something to do, time it for about a second, and count."""
    from eval.encode import auto_precision, normalised, pixels_of
    from eval.precision import Precision, forward, prepared
    from eval.workers import Workers

    workers = Workers(request.device)
    out = []
    for model in dict.fromkeys(c.model for c in cells):
        mine = [c for c in cells if c.model == model]
        backbone = load(model) if any(not c.done for c in mine) else None
        speed = 0.0
        for task in {c.task.split_hash: c.task for c in mine}.values():
            group = [c for c in mine if c.task.split_hash == task.split_hash]
            done = sum(c.done for c in group)
            rows = len(task.train) + len(task.test)
            if backbone is None or done == len(group):
                out.append(Cost(model.id, task.name, len(group), done, 0, True, 0.0, 0.0))
                continue
            precision = (
                Precision.parse(request.precision)
                if request.precision
                else auto_precision(backbone, task, request.cache, workers)
            )
            if not speed:
                read = task.train.source.images(task.train.rows[:1])
                pixels = pixels_of(backbone, task, task.train, *next(iter(read)))
                images = normalised(pixels[None].repeat(16, 0), backbone, str(workers.device))
                with prepared(backbone.net, workers.device, precision) as net:
                    forward(net, images, precision)
                    start, rounds = time.perf_counter(), 0
                    while time.perf_counter() - start < 1.0:
                        forward(net, images, precision).cpu()
                        rounds += 1
                speed = 16 * rounds / (time.perf_counter() - start)
            key = Key(
                backbone.weights_sha256,
                json.dumps(backbone.input_config, sort_keys=True),
                task.split_hash,
                str(precision),
            )
            cached = read_header(bank_path(request.cache, key)) is not None
            todo = 0 if cached else rows
            out.append(
                Cost(
                    model.id,
                    task.name,
                    len(group),
                    done,
                    todo,
                    cached,
                    rows * (backbone.dim * 4 + 8) / 1e6,
                    todo / speed / workers.count,
                )
            )
    workers.close()
    return out


def render(costs: Sequence[Cost], *, markdown: bool = False) -> str:
    """A table and one sentence."""
    header = ["model", "task", "cells done", "images to encode", "features MB", "minutes"]
    lines = [
        [
            c.model,
            c.task,
            f"{c.done}/{c.cells}",
            f"{c.images:,}" if c.images else ("done" if c.done == c.cells else "cached"),
            f"{c.megabytes:.1f}",
            f"{c.seconds / 60:.1f}",
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
        f"{sum(c.seconds for c in costs) / 60:.1f} minutes of encoding on this machine."
    )
    return text_table(header, lines, markdown) + "\n" + total


def as_json(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    return [asdict(c) for c in costs]
