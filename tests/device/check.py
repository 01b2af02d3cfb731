"""A GPU held against the CPU of the same machine, and how fast it is: one markdown table.

    python -m tests.device.check [--device cuda] [--dry-run]

Scores of every protocol on features and trainings of the device against the CPU's (0.5 points, or
one test image where that is more), the solvers' numbers (1e-4 of the largest), and images a second
of encoding, of a pretraining step and of a detection step. Eight minutes at most on one GPU.
``TRANSFERZOO_DATA`` names a folder with real image data; without it images are drawn. Offline, and
with the project's dependencies alone. Ends with 1 where a row is outside its bound.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from eval.common.distributed import Workers
from eval.data.boxes.box_data import DetectionData
from eval.data.load import load_task
from eval.detection.inference import Sight, find
from eval.detection.metrics import measure
from eval.detection.network import build_detector
from eval.detection.store import EncodedImages
from eval.detection.train import Training
from eval.features.encode import encode, normalised
from eval.features.precision import Precision, forward, prepared
from eval.models.backbone import load
from eval.models.objectives import parse_objective
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS
from eval.results.store import read_result
from eval.run.execute import execute
from eval.run.plan import Request, plan
from eval.settings.protocols import (
    Attentive,
    Fewshot,
    Finetune,
    Knn,
    Linear,
    LinearSgd,
    LowLevel,
    Multilabel,
    MultilabelKnn,
    Retrieval,
    Segment,
    SegmentKnn,
    Settings,
)
from eval.settings.schedules import schedule_named
from eval.solvers.episodes import fit_logreg
from eval.solvers.heads import Heads, initial
from eval.solvers.knn import nearest, vote
from eval.solvers.logistic import fit
from eval.tasks.registry import SUITES
from eval.training.context import Context
from zoo.train.feed import Feed
from zoo.train.pixels import PixelStore, PretrainingData
from zoo.train.pretrain import Trainer
from zoo.train.recipe import load_recipe

POINTS = 0.005  # of a score between 0 and 1
SOLVERS = 1e-4  # of the largest number that a solver gives
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """How much is done; ``--dry-run`` takes the smaller one."""

    model: str
    px: int
    limit: int  # images of each part of a task
    epochs: int
    steps: int  # of trainings that are timed
    rows: int  # that a solver gets
    batch: int  # of encoding and pretraining, where they are timed
    detector: str
    side: int


FULL = Size("random:resnet18", 64, 600, 3, 20, 4000, 256, "random:resnet18", 400)
DRY = Size("random:test_resnet", 24, 60, 1, 1, 200, 8, "random:test_resnet", 64)


@dataclass(frozen=True)
class Row:
    """A line of the table. ``bound`` is what the two may differ by; None for a speed."""

    subject: str
    here: float  # on the CPU; NaN where only the device is timed
    there: float
    bound: float | None = None

    @property
    def fine(self) -> bool:
        if self.bound is None:
            return self.there > 0
        return abs(self.here - self.there) <= self.bound

    def line(self) -> str:
        if self.bound is None:
            return f"| {self.subject} | | {self.there:,.0f} images/s | |"
        verdict = "yes" if self.fine else "NO"
        numbers = f"{self.here:.5g} | {self.there:.5g}"
        return f"| {self.subject} | {numbers} | {verdict} ({self.bound:.2g}) |"


def seconds_of(job: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Of one call, the mean of ``rounds`` after one that warms up."""
    job()
    wait(device)
    start = time.perf_counter()
    for _ in range(rounds):
        job()
    wait(device)
    return (time.perf_counter() - start) / rounds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- what agrees


def protocols(size: Size, device: str, data: Path | None, work: Path) -> list[Row]:
    """Every protocol but detection, from images to scores, on the CPU and on the device."""
    task = "eurosat" if data is not None and (data / "eurosat").is_dir() else SUITES["mini"][0]
    short = {
        "lrs": (0.01,), "batch_sizes": (32,), "weight_decays": (0.0,),
        "tune_epochs": 1, "epochs": size.epochs,
    }  # fmt: skip
    of_classes: dict[str, Settings] = {
        "fewshot": Fewshot(shots=(1, 5), n_way=2, queries=5, episodes=100),
        "knn": Knn(), "linear": Linear(), "attentive": Attentive(epochs=size.epochs),
        "linear-sgd": LinearSgd(**short),  # type: ignore[arg-type]  # a dict of several types
        "finetune": Finetune(**short),  # type: ignore[arg-type]
        "retrieval": Retrieval(), "multilabel": Multilabel(), "multilabel-knn": MultilabelKnn(),
        "low-level": LowLevel(),
    }  # fmt: skip
    of_pixels: dict[str, Settings] = {
        "segment": Segment(epochs=size.epochs), "segment-knn": SegmentKnn(),
    }  # fmt: skip
    masks = f"masks:{drawn_masks(work / 'squares', size.limit // 6, size.px)}"
    return [
        row
        for tasks, settings in (([task], of_classes), ([masks], of_pixels))
        for row in scored(size, device, data, work / next(iter(settings)), tasks, settings)
    ]


def drawn_masks(folder: Path, images: int, px: int) -> Path:
    """Bright squares on noise, with a mask that says where they are."""
    draws = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(images):
        pixels = draws.integers(0, 128, (px, px, 3), dtype=np.uint8)
        mask = np.zeros((px, px), np.uint8)
        top, left = draws.integers(0, px // 2, 2)
        square = np.s_[top : top + px // 2, left : left + px // 2]
        pixels[square], mask[square] = 220, 1
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def scored(
    size: Size, device: str, data: Path | None, work: Path, tasks: list[str],
    settings: dict[str, Settings],
) -> list[Row]:  # fmt: skip
    """The scores that boards show, here and there."""
    scores: dict[str, dict[str, tuple[float, int]]] = {}
    for place in ("cpu", device):
        folder = work / f"on-{place.replace(':', '-')}-{len(scores)}"
        request = Request(
            models=[size.model], tasks=list(tasks), protocols=dict(settings),
            cache=folder / "cache", results=folder / "results", data=data, limit=size.limit,
            img_size=size.px, device=place, precision="fp32",
        )  # fmt: skip
        cells = plan(request)
        report = execute(request, cells, debug=True)
        if report.failures:
            raise SystemExit(f"{place}: {report.failures[0].title}: {report.failures[0].error}")
        scores[str(folder)] = {
            f"{cell.protocol} {score.name}": (score.value, score.n)
            for cell in cells
            for score in read_result(cell.path).scores
            if score.name.startswith("top1") or score.name in PROTOCOLS[cell.protocol].main
        }
    here, there = scores.values()
    return [
        # A score of few test images cannot move by less than one of them; episodes have thousands.
        Row(
            f"{tasks[0].partition(':')[0]}: {name}",
            value,
            there[name][0],
            POINTS if name.startswith("fewshot") else max(POINTS, 1.001 / n),
        )
        for name, (value, n) in here.items()
    ]


def solvers(size: Size, device: torch.device) -> list[Row]:
    """The largest difference of each solver's numbers, by the largest of them."""
    draws = torch.Generator().manual_seed(0)
    n, dim, classes = size.rows, 64, 10
    y = torch.arange(n) % classes
    x = torch.randn(classes, dim, generator=draws)[y] + 2 * torch.randn(n, dim, generator=draws)
    start = initial(dim, classes, draws)
    order = torch.randperm(n, generator=draws)

    def knn(place: torch.device) -> Tensor:
        there, labels = x.to(place), y.to(place)
        similarity, index = nearest(there, there[:100], 20)
        return vote(similarity, labels[index], (1, 20), classes, 0.07)

    def logistic(place: torch.device) -> Tensor:
        return fit(x.double().to(place), y.to(place), classes, 0.1, tol=1e-7).weight

    def episodes(place: torch.device) -> Tensor:
        some = x[:200].double().view(4, 50, dim), y[:200].view(4, 50)
        return fit_logreg(some[0].to(place), some[1].to(place), classes, tolerance=1e-7)[0]

    def heads(place: torch.device) -> Tensor:
        weight, bias = (part.double().to(place) for part in start)
        grid = Heads(weight, bias, [32, 128], [0.0, 1e-4])
        grid.train_epoch(x.double().to(place), y.to(place), order.to(place), [0.05, 0.01])
        return grid.parameters(0)[0]

    rows = []
    for solve in (knn, logistic, episodes, heads):
        here, there = solve(CPU), solve(device).cpu()
        apart = float((here - there).abs().max() / here.abs().max())
        rows.append(Row(f"solver {solve.__name__}: largest difference", 0.0, apart, SOLVERS))
    return rows


# ---- what is timed


def encoding(size: Size, device: str, data: Path | None, work: Path) -> list[Row]:
    task_name = "eurosat" if data is not None and (data / "eurosat").is_dir() else SUITES["mini"][0]
    cache, workers = work / "encode", Workers(device)
    task = load_task(task_name, cache, data, limit=size.limit)
    backbone = load(resolve(size.model, cache, size.px))
    precision = Precision("fp32" if workers.device.type == "cpu" else "bf16", channels_last=True)
    encoded = encode(backbone, task, cache, workers, precision)
    pixels = np.zeros((size.batch, 3, size.px, size.px), np.uint8)
    images = normalised(pixels, backbone, str(workers.device))
    with prepared(backbone.net, workers.device, precision) as net:
        bare = seconds_of(lambda: forward(net, images, precision), workers.device, size.steps)
    backbone.net.to("cpu")
    return [
        Row("encode, decoding included", np.nan, encoded.images / encoded.seconds),
        Row(f"bare forward passes, {precision}", np.nan, size.batch / bare),
    ]


def pretraining(size: Size, device: str, work: Path) -> list[Row]:
    draws = np.random.default_rng(0)
    count = 4 * size.batch
    labels = draws.integers(0, 10, count)
    store = PixelStore(
        draws.integers(0, 256, (count, size.px, size.px, 3), np.uint8),
        np.ones(count, np.float32), labels, tuple(map(str, range(10))), "drawn", "drawn",
    )  # fmt: skip
    recipe = load_recipe(
        "tiny",
        [f"image.px={size.px}", f"image.store_px={size.px}", f"train.batch_size={size.batch}",
         f"train.epochs={2 + size.steps}"],
    )  # fmt: skip
    objective = parse_objective("supcon+selfsupcon")
    trainer = Trainer(recipe, objective, PretrainingData(store, None), work, device)
    feed = Feed(store, trainer.schedule, 0, trainer.steps, trainer.device.type == "cuda")
    try:
        seconds = seconds_of(lambda: trainer.take_step(feed), trainer.device, size.steps)
    finally:
        feed.close()
    return [Row(f"pretraining step, {objective.shown}", np.nan, size.batch / seconds)]


def draw_boxes(folder: Path, count: int) -> Path:
    """Images with one or two filled rectangles on noise, in YOLO's layout."""
    for part in ("train", "val"):
        random = np.random.RandomState(len(part))
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(random.randint(0, 256, (96, 128, 3), np.uint8))
            lines = []
            for label in range(random.randint(1, 3)):
                left, top = random.randint(0, 70), random.randint(0, 50)
                width, height = random.randint(24, 50), random.randint(24, 44)
                place = (left, top, left + width - 1, top + height - 1)
                ImageDraw.Draw(image).rectangle(place, fill=(220, 30, 30 + 190 * label))
                middle = (left + width / 2) / 128, (top + height / 2) / 96
                lines.append(f"{label} {middle[0]} {middle[1]} {width / 128} {height / 96}\n")
            image.save(folder / "images" / part / f"{i}.png")
            (folder / "labels" / part / f"{i}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: red\n  1: pink\n"
    )
    return folder


def detection(size: Size, device: str, work: Path) -> list[Row]:
    """Steps of a detector on the device, timed; then its AP50 by the device and by the CPU.

    Which boxes a step learns from is drawn by the device, so two trainings cannot be compared:
    the answers of one network are.
    """
    cache, workers = work / "detection", Workers(device)
    task = load_task(f"yolo:{draw_boxes(work / 'boxes', 16)}", cache)
    assert isinstance(task, DetectionData)
    precision = Precision("fp32", channels_last=True)
    backbone = load(resolve(size.detector, cache))
    setup = Context(backbone, task, None, workers, precision, cache, 0)
    schedule = replace(
        schedule_named("short:1000000"), sides=(size.side,), test_side=size.side,
        max_side=2 * size.side, batch_size=4, warmup=0,
    )  # fmt: skip
    detector = build_detector(backbone, len(task.classes), channels=64, head=128)
    training = Training(setup, detector, schedule, None)
    stream = training.batches.since(0)
    pictures = list(islice(stream, 2))
    stream.close()
    steps = iter(range(10**6))
    seconds = seconds_of(
        lambda: training.step(pictures[next(steps) % 2]), workers.device, 3 * size.steps
    )
    config, images = backbone.input_config, EncodedImages.of(task.test, cache)
    sight = Sight(size.side, 2 * size.side, tuple(config["mean"]), tuple(config["std"]))
    points = []
    for place in (workers.device, CPU):
        net = training.net.to(place)
        found = dict(find(net, sight, images.image, range(len(images)), channels_last=True))
        answers = [found[i] for i in range(len(images))]
        points.append(
            measure(answers, task.test.objects, len(task.classes), 0).scores["ap50"].value
        )
    return [
        Row("detection ap50", points[1], points[0], POINTS),
        Row(f"detection step, {size.detector}", np.nan, 4 / seconds),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="a tiny version, under a minute")
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device} is not there; use --device cpu --dry-run")
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Products of float32 in float32: what is compared is our code, not TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size = DRY if args.dry_run else FULL
    named = os.environ.get("TRANSFERZOO_DATA")
    data = Path(named) if named and not args.dry_run else None
    device = torch.device(args.device)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="transferzoo-device-") as folder:
        work = Path(folder)
        rows = [
            *solvers(size, device),
            *protocols(size, args.device, data, work),
            *encoding(size, args.device, data, work),
            *detection(size, args.device, work),
            *pretraining(size, args.device, work),
        ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else args.device
    print(f"| {name}, torch {torch.__version__} | CPU | {args.device} | alike (bound) |")
    print("| --- | ---: | ---: | --- |")
    for row in rows:
        print(row.line())
    print(f"\n{time.perf_counter() - start:.0f} seconds")
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
