"""Crops of originals: ours beside crops of reduced images, as before, and torchvision's.

    python -m tests.bench.bench_views [--images 256] [--threads 1]

A round is one epoch of training views (RandomResizedCrop of 0.2 to 1 of the area, flip, normalise)
in batches of 128, without a model: isic2018 at 128 px for a model of 64, and the photographs of
voc2007, of up to 320 px, for one of 224. Sides, in turn in one process on the CPU:

- ours from originals, as ``linear-sgd`` and ``finetune`` read and cut them;
- ours from reduced images (``crops_from=reduced``);
- torchvision's v2 transforms, image by image, on originals that lie decoded in memory;
- the same with each image decoded first, as a data loader's worker does.

Besides, what both stores take on the disk and how long it takes to make them. With --encode the
seconds of an epoch through a zoo checkpoint at 64 px stand beside: what views are a part of.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from eval.common.images import decode
from eval.data.sources import ParquetSource
from eval.features.precision import Precision, forward, prepared
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.training.augment import Augmentation, draw_crops
from eval.training.crop_images import reduced_side
from eval.training.crop_store import Bound, CropStore, open_crop_store, squares
from eval.training.pixel_store import open_pixels
from eval.training.windows import Drawn, cut_windows
from tests.bench.bench_pretrain import cores
from tests.bench.common import arguments, in_turn, machine

BATCH = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = "zoo:resnet18_narrow.ce_tin100"
CPU = torch.device("cpu")


class Ours:
    """What TrainCrops does in an epoch, of all images of a store."""

    def __init__(self, store: CropStore, settings: Augmentation) -> None:
        self.store, self.settings, self.epochs = store, settings, 0
        self.sides = np.stack([store.height, store.width], 1)

    def epoch(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.epochs)
        self.epochs += 1
        aspect = torch.from_numpy(self.store.aspect)
        crops = draw_crops(len(aspect), aspect, self.settings, generator)
        drawn = Drawn.of(crops, self.sides, self.settings.px)
        out = []
        for rows in torch.randperm(len(aspect), generator=generator).split(BATCH):
            pixels = self.store.read(rows.numpy(), drawn.place[rows].numpy())
            windows = drawn.windows(rows, torch.from_numpy(pixels))
            out.append(cut_windows(windows, self.settings, CPU))
        return out


class Torchvision:
    """Its transforms on images in memory, decoded or not."""

    def __init__(self, data: list[bytes], settings: Augmentation, *, ahead: bool) -> None:
        self.images = [decode(d) for d in data] if ahead else []
        self.data, self.ahead = data, ahead
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(settings.px, settings.scale, settings.ratio),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def epoch(self) -> list[Tensor]:
        out = []
        for rows in torch.randperm(len(self.data)).split(BATCH):
            images = [self.images[i] if self.ahead else decode(self.data[i]) for i in rows.tolist()]
            out.append(torch.stack([self.transform(image) for image in images]))
        return out


def encoded(views: Callable[[], list[Tensor]], cache: Path) -> Callable[[], None]:
    """An epoch of views, and each through a frozen backbone."""
    backbone, precision = load(resolve(MODEL, cache)), Precision.parse("bf16-channels_last")

    def work() -> None:
        with prepared(backbone.net, CPU, precision) as net:
            for x in views():
                forward(net, x.contiguous(memory_format=torch.channels_last), precision)

    return work


def compare(folder: Path, px: int, images: int, rounds: int, encode: bool, work: Path) -> None:
    """Print one set's table."""
    source = ParquetSource(tuple(sorted(folder.glob("train-*.parquet"))))
    (count,) = np.cumsum([len(source.column("image"))])[-1:]
    rows = np.unique(np.linspace(0, count - 1, min(images, count)).astype(np.int64))
    settings = Augmentation(px, MEAN, STD)
    start = time.perf_counter()
    bound = Bound(px, settings.scale[0] * 3 / 4)
    originals = open_crop_store(source, folder.name, rows, bound, work, False)
    made = time.perf_counter()
    reduced = squares(open_pixels(source, folder.name, rows, reduced_side(px), work, False))
    seconds = {"originals": made - start, "reduced": time.perf_counter() - made}
    data = [d for _, d in source.images(rows)]
    ours, before = Ours(originals, settings), Ours(reduced, settings)
    jobs: dict[str, Callable[[], object]] = {
        "ours, originals": ours.epoch,
        "ours, reduced": before.epoch,
        "torchvision, decoded": Torchvision(data, settings, ahead=True).epoch,
        "torchvision, decoding": Torchvision(data, settings, ahead=False).epoch,
    }
    if encode:
        jobs["ours, originals, encoded"] = encoded(ours.epoch, work)
        jobs["ours, reduced, encoded"] = encoded(before.epoch, work)
    for job in jobs.values():  # warms up
        job()
    found = in_turn(jobs, rounds)
    n, first = len(rows), found["ours, originals"]
    print(f"\n{folder.name}, {n} images, model of {px} px; medians of {rounds} epochs")
    print("| | views/s | seconds by ours from originals |")
    print("| --- | ---: | ---: |")
    for name, s in found.items():
        print(f"| {name} | {n / s:.0f} | {s / first:.2f} |")
    for name, store in (("originals", originals), ("reduced", reduced)):
        size = len(store.flat) / n / 1e3
        print(f"{name}: {size:.0f} kB an image, made at {n / seconds[name]:.0f} images/s")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--encode", action="store_true", help="of the 64 px set also with a model")
    args = parser.parse_args()
    torch.set_num_threads(cores(args.threads))
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    print(machine("torch", "torchvision", "pillow"))
    compare(args.data / "isic2018", 64, args.images, args.rounds, args.encode, work)
    compare(args.data / "voc2007", 224, args.images, args.rounds, False, work)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
