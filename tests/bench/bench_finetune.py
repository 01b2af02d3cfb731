"""Images a second of fine-tuning: ours beside the loop of timm's train.py.

    python -m tests.bench.bench_finetune [--threads 1] [--model random:resnet18]

Both train the same backbone with the same weights, batch, rate and number of classes on the same
real images (EuroSAT) at the same size, in turn in one process on the CPU. timm's train.py is no
part of its package, so here is what its loop does, with timm's own dataset, loader, loss meter and
optimiser: an ImageFolder, RandomResizedCrop (of the same scale) and flip on each image as it is
decoded, the loader without its prefetcher (as train.py has it on a CPU), SGD with momentum and
weight decay, fp32. Its colour jitter, label smoothing and random erasing are off, as ours has none.
A further row gives it our precision and memory layout (--amp, --channels-last).

Ours trains in --precision, by default bf16 and channels_last: a CPU would take fp32 by itself.
Each gets the same cores, to which the process is bound: ours as torch threads, timm as torch
threads and as many loader workers. A round is one epoch over all images. Ours decodes once, before
the first epoch; that is timed apart and shown by what it adds to an epoch of a grid's 290 (12 x 20
+ 50).
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter
from torch import Tensor, nn
from tqdm import tqdm

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData, take
from eval.features.precision import Precision
from eval.finetune.train import Training
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.training.checkpoint import State
from eval.training.context import Context
from eval.training.images import TrainImages
from eval.training.setup import Point
from tests.bench.bench_pretrain import cores
from tests.bench.common import arguments, machine

POINT = Point(0.01, 32, 1e-4)
SCALE = (0.2, 1.0)
EPOCHS_OF_A_GRID = 12 * 20 + 50


class Ours:
    """Epochs of `Training.run`, as the protocol calls it."""

    def __init__(self, setup: Context, images: TrainImages, epochs: int) -> None:
        rows = np.arange(len(setup.task.train))
        # a longer schedule: the rate stays what it is, as the rival's
        self.training = Training(setup, images, POINT, rows, 1000 * epochs, 0.9)
        self.state = State(setup.cache, "bench", 1, setup.workers)

    def epoch(self) -> tuple[int, float]:
        """Images trained on, and their mean loss."""
        where = self.training.where
        before = where.images
        self.training.run(where.epoch + 1, self.state, "bench", tqdm(disable=True))
        return where.images - before, where.last


class Timm:
    """`train_one_epoch` of timm's train.py, the parts that do something on a CPU."""

    def __init__(
        self, setup: Context, folder: Path, workers: int, *, half: bool, channels_last: bool
    ) -> None:
        config = setup.backbone.input_config
        dim, classes = setup.backbone.dim, len(setup.task.classes)
        net = copy.deepcopy(setup.backbone.net).requires_grad_(True)
        torch.manual_seed(setup.seed)
        self.net = nn.Sequential(net, nn.BatchNorm1d(dim), nn.Linear(dim, classes)).train()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        self.half = half
        self.loader = create_loader(
            create_dataset("", root=str(folder), split="train", is_training=True),
            input_size=tuple(config["input_size"]),
            batch_size=POINT.batch_size,
            is_training=True,
            use_prefetcher=False,  # as train.py has it where there is no GPU
            scale=SCALE,
            color_jitter=cast(Any, None),
            interpolation="bilinear",
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            num_workers=workers,
            device=torch.device("cpu"),
        )
        # The loader leaves a last partial batch out, ours keeps it: here there is none.
        self.loss = nn.CrossEntropyLoss()
        self.optimiser = create_optimizer_v2(
            self.net, opt="sgd", lr=POINT.lr, momentum=0.9, weight_decay=POINT.weight_decay,
            filter_bias_and_bn=False,
        )  # fmt: skip

    def epoch(self) -> tuple[int, float]:
        losses = AverageMeter()
        for images, labels in self.loader:
            losses.update(self.step(images, labels).item(), len(labels))
        return int(losses.count), losses.avg

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.loss(self.net(images), labels)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()


def write_files(task: TaskData, folder: Path) -> None:
    """The training images as an ImageFolder, their bytes as they are."""
    split = task.train
    label = dict(zip(split.rows.tolist(), split.labels.tolist(), strict=True))
    for row, data in split.source.images(np.sort(split.rows)):
        path = folder / "train" / f"{label[row]:03d}" / f"{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", default="random:resnet18")
    parser.add_argument("--img-size", type=int, default=112)
    parser.add_argument("--images", type=int, default=256, help="of EuroSAT, a multiple of 32")
    parser.add_argument("--threads", type=int, help="cores for each (default: all)")
    parser.add_argument("--precision", default="bf16-channels_last", help="of our training")
    args = parser.parse_args()
    threads = cores(args.threads)
    torch.set_num_threads(threads)

    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    task = load_task(f"parquet:{args.data / 'eurosat'}", work)
    chosen = np.linspace(0, len(task.train) - 1, args.images // 32 * 32).astype(np.int64)
    task = dataclasses.replace(task, train=take(task.train, chosen))
    backbone = load(resolve(args.model, work, img_size=args.img_size))
    precision = Precision.parse(args.precision)
    setup = Context(backbone, task, None, Workers("cpu"), precision, work, 0)
    write_files(task, work / "files")

    start = time.perf_counter()
    images = TrainImages(setup, SCALE)
    decoding = time.perf_counter() - start
    plain = Context(backbone, task, setup.bank, setup.workers, Precision(), work, 0)

    def rival(p: Precision) -> Timm:
        half = p.dtype == "bf16"
        return Timm(setup, work / "files", threads, half=half, channels_last=p.channels_last)

    sides: dict[str, Any] = {f"ours, {precision}": Ours(setup, images, args.rounds)}
    sides["ours, fp32"] = Ours(plain, images, args.rounds)
    sides["timm's loop, fp32"] = rival(Precision())
    if precision != Precision():
        sides[f"timm's loop, {precision}"] = rival(precision)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(args.rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            seen, loss = side.epoch()
            taken = time.perf_counter() - start
            assert seen == len(chosen), f"{name} saw {seen} images of {len(chosen)}"
            losses[name].append(loss)
            if number:  # the first round only warms up
                seconds[name].append(taken)
    for name, found in losses.items():
        assert min(found[1:]) < found[0], f"{name} does not learn: {found}"

    n = len(chosen)
    print(
        f"Fine-tuning {args.model} ({backbone.params / 1e6:.1f} M) on {n} images of EuroSAT at "
        f"{args.img_size} px, batch {POINT.batch_size}, {threads} cores each, medians of "
        f"{args.rounds} epochs"
    )
    print(machine("torch", "torchvision", "timm", "pillow"))
    print("| | images/s | slowest to fastest | ours / this | loss, first to last epoch |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ours = statistics.median(next(iter(seconds.values())))
    for name, s in seconds.items():
        middle = statistics.median(s)
        print(
            f"| {name} | {n / middle:.1f} | {n / max(s):.1f} to {n / min(s):.1f} "
            f"| {middle / ours:.2f} | {losses[name][0]:.3f} to {losses[name][-1]:.3f} |"
        )
    print(
        f"decoding once: {decoding:.2f} s, {decoding / EPOCHS_OF_A_GRID * 1000:.1f} ms an epoch of "
        f"a grid's {EPOCHS_OF_A_GRID} (an epoch here takes {ours * 1000:.0f} ms)"
    )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
