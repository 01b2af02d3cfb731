"""Detection transfer (paper.md 3.5): Faster R-CNN on the backbone, trained by a named schedule.

The study's recipe is not published. The MoCo recipe stands in where its schedules are named
(voc-24k, coco-1x, coco-2x, neck c4); a short schedule says how short it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from eval.common.errors import BadInput, UserError
from eval.data.boxes.box_data import DetectionData
from eval.data.boxes.objects import BoxPrediction
from eval.detection.inference import Sight, find
from eval.detection.metrics import Measured, measure
from eval.detection.network import Detector, build_detector
from eval.detection.saved_model import keep
from eval.detection.store import EncodedImages
from eval.detection.train import Training, told
from eval.metrics.scores import Samples
from eval.protocols.outcome import Outcome
from eval.protocols.task_schedule import resolved
from eval.settings.protocols import Detection
from eval.settings.schedules import Schedule
from eval.training.checkpoint import locked
from eval.training.context import Context
from eval.training.images import share_of
from eval.training.step import OutOfMemory, own_random

if TYPE_CHECKING:
    from eval.training.speed import Speed

VERSION = 1  # raise it when the training changes
EXAMPLES = 16  # test images whose boxes the result keeps
EXAMPLE_SCORE = 0.2  # and how sure a box must be
EXAMPLE_BOXES = 25


def score(context: Context[DetectionData], settings: Detection) -> Outcome:
    """Train a detector, or go on where a killed run was, and score it on the test images.

    Called on every process; the outcome of the main one counts. Raises UserError where memory runs
    out twice, the loss diverges or an image cannot be read.
    """
    schedule = resolved(settings)
    _check_shares(context, schedule)
    digest = _key(context, settings)
    folder = context.cache / "detection" / digest
    start = time.perf_counter()
    with locked(context.cache, digest, context.workers), own_random(context.workers.device):
        # None looks for a state before the main process has the lock, or they find unlike ones.
        context.workers.together(lambda: None)
        training, seen = _trained(context, settings, schedule, folder / "training.safetensors")
        seconds = time.perf_counter() - start
        found = _answers(context, training.net, schedule)
        out = Outcome(fit_seconds=seconds)
        if context.workers.main:
            _describe(out, context, found, training, schedule, seen)
            if context.keep is not None:
                _keep(context, training.net, schedule, out)
            shutil.rmtree(folder, ignore_errors=True)
    return out


def cost(context: Context[DetectionData], settings: Detection, speed: Speed) -> float:
    """Seconds of training and testing a detector: from two steps (the first warms up) and the test
    images at a third of a step's time, as a forward pass is about that."""
    schedule = resolved(settings)
    training = Training(context, _built(context, settings, schedule), schedule, None)
    stream = training.batches.since(0)
    try:
        training.step(next(stream))
        start = time.perf_counter()
        training.step(next(stream))
        seconds = time.perf_counter() - start
    finally:
        stream.close()
    tested = len(context.task.test) / schedule.batch_size + _precise(settings, schedule)
    return seconds * (schedule.iterations + tested / 3)


def _built(context: Context[DetectionData], settings: Detection, schedule: Schedule) -> Detector:
    return build_detector(
        context.backbone, len(context.task.classes), neck=settings.neck, norm=settings.norm,
        channels=schedule.channels, head=schedule.head, seed=context.seed,
    )  # fmt: skip


def _precise(settings: Detection, schedule: Schedule) -> int:
    """Batches for BatchNorm's statistics. A short schedule spends no third of its time on them."""
    return min(settings.precise_bn, schedule.iterations // 10)


def _check_shares(setup: Context[DetectionData], schedule: Schedule) -> None:
    """Raises UserError where a process would have no image, or, on accelerators, fewer than
    another: BatchNorm that is synchronised waits for as many passes of each."""
    images, count = schedule.batch_size, setup.workers.count
    alike = setup.workers.device.type != "cpu"
    if images < count or (alike and images % count):
        raise BadInput(
            f"schedule {schedule.name} has {images} images a batch for {count} processes; give "
            f"--set detection.batch_size={-(-images // count) * count}"
            + (", which all share alike" if alike else " or more")
        )


def _trained(
    setup: Context[DetectionData], settings: Detection, schedule: Schedule, file: Path
) -> tuple[Training, int]:
    """(the finished training, batches behind its BatchNorm statistics); with a smaller micro-batch
    if memory runs out once."""
    micro_batch: int | None = None
    while True:
        detector = _built(setup, settings, schedule)
        training = Training(setup, detector, schedule, micro_batch)
        try:
            training.resume(file)
            training.run(file)
            seen = training.settle_statistics(_precise(settings, schedule))
        except OutOfMemory:
            tried = training.micro_batch
            if micro_batch is not None or tried < 2:
                raise UserError(
                    f"memory ran out while {setup.backbone.resolved.id} learned detection on "
                    f"{tried} images at once; give smaller images (--set detection.sides=[...] "
                    "detection.max_side=..) or a smaller backbone"
                ) from None
            micro_batch = tried // 2
        else:
            return training, seen
        del training, detector  # the network, before the next one is built
        if setup.workers.device.type == "cuda":
            torch.cuda.empty_cache()


def _answers(
    setup: Context[DetectionData], detector: Detector, schedule: Schedule
) -> list[BoxPrediction]:
    """What is found in each test image, in canonical order, on every process."""
    split, workers = setup.task.test, setup.workers
    assert split.sizes is not None  # of detection data that were loaded
    images = workers.together(lambda: EncodedImages.of(split, setup.cache))
    # Images of like shape stand together, for batches with little padding.
    order = np.lexsort((split.sizes[:, 0], split.sizes[:, 1] / split.sizes[:, 0]))
    mine = order[share_of(slice(0, len(order)), workers.rank, workers.count)].tolist()
    bar = tqdm(
        total=len(mine), unit="img", leave=False, desc=f"detection {setup.task.name}, test",
        disable=None if workers.main else True,  # None: off when stderr is no terminal
    )  # fmt: skip

    def answer() -> list[tuple[int, BoxPrediction]]:
        sight = sight_of(setup, schedule)
        with bar:
            return list(find(
                detector, sight, images.image, mine,
                channels_last=setup.precision.channels_last, done=bar.update,
            ))  # fmt: skip

    pairs = workers.together(answer)
    if workers.count > 1:
        from accelerate.utils import gather_object

        pairs = gather_object(pairs)
    return [found for _, found in sorted(pairs, key=lambda pair: pair[0])]


def sight_of(setup: Context[DetectionData], schedule: Schedule) -> Sight:
    """How the detector is shown a test image."""
    config = setup.backbone.input_config
    return Sight(schedule.test_side, schedule.max_side, tuple(config["mean"]), tuple(config["std"]))


def _describe(
    out: Outcome, setup: Context[DetectionData], found: list[BoxPrediction], training: Training,
    schedule: Schedule, seen: int,
) -> None:  # fmt: skip
    task, where = setup.task, training.where
    measured = measure(found, task.test.objects, len(task.classes), setup.seed, voc=task.voc)
    n = len(task.test)
    for name, interval in measured.scores.items():
        out.add(name, interval, n)
    for name, values in measured.resampled.items():
        out.samples[name] = Samples.of_resamples(values, n)
    out.details = {
        "schedule": dataclasses.asdict(schedule),
        "classes": list(task.classes),
        "per_class": _named(measured, task.classes),
        "losses": told(where.curve),
        "images_seen": where.images,
        "images_per_s": round(where.images / max(where.seconds, 1e-9), 1),
        "precise_bn": seen,
        "micro_batch": training.micro_batch,
        "examples": _examples(setup, found),
    }
    if training.micro_batch < training.share:
        out.notes.append(
            f"memory ran out: at most {training.micro_batch} images were taken at once and their "
            "gradients added up, so that BatchNorm saw that many"
        )


def _named(measured: Measured, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    def rounded(value: Any) -> Any:
        return round(value, 6) if isinstance(value, float) else value

    return [
        {"name": classes[row["class"]], **{k: rounded(v) for k, v in row.items()}}
        for row in measured.per_class
    ]


def _examples(setup: Context[DetectionData], found: list[BoxPrediction]) -> list[dict[str, Any]]:
    """The first test images, which canonical order makes as good as drawn, with their sure boxes:
    the same images for every model."""
    out = []
    for row, answer in enumerate(found[:EXAMPLES]):
        sure = np.flatnonzero(answer.scores >= EXAMPLE_SCORE)[:EXAMPLE_BOXES]
        out.append({
            "row": row,
            "hash": setup.task.test.hashes[row].tobytes().hex(),
            "boxes": [[round(float(v), 1) for v in box] for box in answer.boxes[sure]],
            "scores": [round(float(v), 3) for v in answer.scores[sure]],
            "labels": answer.labels[sure].tolist(),
        })  # fmt: skip
    return out


def _keep(
    setup: Context[DetectionData], detector: Detector, schedule: Schedule, out: Outcome
) -> None:
    assert setup.keep is not None
    sight, model = sight_of(setup, schedule), setup.backbone.resolved
    keep(
        setup.keep, detector, setup.task.classes, test_side=sight.side, max_side=sight.max_side,
        mean=sight.mean, std=sight.std,
        facts={
            "model": {"id": model.id, "revision": model.revision,
                      "weights_sha256": setup.backbone.weights_sha256},
            "task": {"name": setup.task.name, "split_hash": setup.task.split_hash},
            "schedule": schedule.name,
            "scores": {s.name: s.value for s in out.scores},
        },
    )  # fmt: skip


def _key(setup: Context[DetectionData], settings: Detection) -> str:
    """A digest of everything that the trained weights depend on."""
    model = setup.backbone.resolved
    facts = {
        "version": VERSION,
        "weights": setup.backbone.weights_sha256,
        "model": [model.kind, model.name, model.revision],
        "input": setup.backbone.input_config,
        "split": setup.task.train.hash,
        "settings": dataclasses.asdict(settings),
        "seed": setup.seed,
        "precision": str(setup.precision),
        "device": setup.workers.device.type,
        "processes": setup.workers.count,
        **{name: version(name) for name in ("torch", "torchvision", "timm")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
