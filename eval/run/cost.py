"""What a run would cost: images to encode, how much is cached, megabytes, minutes."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eval.common.text import text_table
from eval.data.boxes.box_data import DetectionData
from eval.detection.setup import DetectionSetup
from eval.features.bank import Key, bank_path, read_header
from eval.models.backbone import load
from eval.protocols import PROTOCOLS, train_fractions
from eval.run.plan import Cell, Request
from eval.settings.protocols import Detection, Finetune, LinearSgd, Settings
from eval.training.setup import points

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eval.features.precision import Precision
    from eval.models.backbone import Backbone


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


def estimate(request: Request, cells: Sequence[Cell]) -> list[Cost]:
    """Load each model that has something to do, time it for about a second, and count."""
    from eval.common.distributed import Workers
    from eval.features.encode import auto_precision, normalised, pixels_of
    from eval.features.precision import Precision, forward, prepared

    workers = Workers(request.device)
    out = []
    for model in dict.fromkeys(c.model for c in cells):
        mine = [c for c in cells if c.model == model]
        backbone = load(model) if any(not c.done for c in mine) else None
        speed, training_speed = 0.0, 0.0
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
            if isinstance(task, DetectionData):
                setup = DetectionSetup(
                    backbone, task, workers, precision, request.cache, request.seed
                )
                training = sum(_detection_seconds(setup, c.settings) for c in group if not c.done)
                out.append(Cost(model.id, task.name, len(group), done, 0, True, 0.0, 0.0, training))
                continue
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
            training = 0.0
            for cell in (c for c in group if not c.done and PROTOCOLS[c.protocol].trains):
                encoded, trained = work_of(cell.settings, len(task.train), len(task.test))
                if trained and not training_speed:
                    training_speed = _training_speed(backbone, images, workers.device, precision)
                training += encoded / speed + (trained / training_speed if trained else 0.0)
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
                    training / workers.count,
                )
            )
    workers.close()
    return out


def work_of(settings: Settings, train: int, test: int) -> tuple[float, float]:
    """(images to encode, images to train on) of a protocol that trains, parts of train included."""
    if not isinstance(settings, LinearSgd | Finetune):
        return 0.0, 0.0
    shares = [1.0] + [
        p.share or min(1.0, p.each * 10 / train) for p in train_fractions.parts(settings)
        for _ in range(settings.subsets)
    ]  # fmt: skip
    if isinstance(settings, LinearSgd):
        passes = max(settings.epochs, settings.tune_epochs)  # tuning shares the first epochs
        if settings.views:
            return float(settings.views * train), 0.0
        return sum(shares) * passes * train, 0.0
    grid = len(points(settings))
    tuning = settings.tune_epochs * (1 - settings.validation) * grid if grid > 1 else 0
    if settings.halving:
        tuning *= 7 / 12  # thirds of the epochs with all, half and a quarter of the points
    evaluated = sum(shares) * grid * settings.validation * train + len(shares) * test
    return evaluated, sum(shares) * (tuning + settings.epochs) * train


def _detection_seconds(setup: DetectionSetup, settings: Settings) -> float:
    """Of training and testing a detector: from two steps (the first warms up) and the test images
    at a third of a step's time, as a forward pass is about that."""
    from eval.detection.network import build_detector
    from eval.detection.train import Training
    from eval.settings.schedules import resolved

    assert isinstance(settings, Detection)
    schedule = resolved(settings)
    detector = build_detector(
        setup.backbone, len(setup.task.classes), neck=settings.neck, norm=settings.norm,
        channels=schedule.channels, head=schedule.head, seed=setup.seed,
    )  # fmt: skip
    training = Training(setup, detector, schedule, None)
    stream = training.batches.since(0)
    try:
        training.step(next(stream))
        start = time.perf_counter()
        training.step(next(stream))
        seconds = time.perf_counter() - start
    finally:
        stream.close()
    precise = min(settings.precise_bn, schedule.iterations // 10)
    tested = len(setup.task.test) / schedule.batch_size + precise
    return seconds * (schedule.iterations + tested / 3)


def _training_speed(
    backbone: Backbone, images: Tensor, device: torch.device, precision: Precision
) -> float:
    """Images a second of a forward and backward pass with a step, measured for about a second."""
    import torch

    net = copy.deepcopy(backbone.net).to(device).train().requires_grad_(True)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)
    batch = images.repeat(2, 1, 1, 1).to(device)

    def step() -> None:
        optimiser.zero_grad()
        with (
            torch.enable_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision.dtype == "bf16"),
        ):
            net(batch).float().square().mean().backward()
        optimiser.step()

    step()
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        step()
        rounds += 1
    return len(batch) * rounds / (time.perf_counter() - start)


def render(costs: Sequence[Cost], *, markdown: bool = False) -> str:
    """A table and one sentence."""
    trains = any(c.training for c in costs)
    header = ["model", "task", "cells done", "images to encode", "features MB", "minutes"]
    header += ["training minutes"] if trains else []
    lines = [
        [
            c.model,
            c.task,
            f"{c.done}/{c.cells}",
            f"{c.images:,}" if c.images else ("done" if c.done == c.cells else "cached"),
            f"{c.megabytes:.1f}",
            f"{c.seconds / 60:.1f}",
            *([f"{c.training / 60:.1f}"] if trains else []),
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
    )
    return text_table(header, lines, markdown) + "\n" + total


def as_json(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    return [asdict(c) for c in costs]
