"""Encoding with ResNet-50 at 224 px: ours, the loop a user would write, bare forward passes.

    python -m tests.bench.bench_encode [--images 1024]

The three take turns in one process on the same images; features must agree. Ours includes
reading, decoding and writing the bank. bf16 is asked for, since the machine of the published
numbers multiplies it fast; a CPU computes in fp32 by itself.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader, Dataset

from eval.common.distributed import Workers
from eval.common.images import decode
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode, normalised, pixels_of
from eval.features.precision import Precision, forward, prepared
from eval.models.backbone import load
from eval.models.resolve import resolve
from tests.bench.common import arguments, in_turn, machine


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What a user has: encoded images in memory and timm's transform."""

    def __init__(self, task: TaskData, transform: object) -> None:
        self.files = [
            data
            for split in (task.train, task.test)
            for _, data in split.source.images(np.sort(split.rows))
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(decode(self.files[index])), index  # type: ignore[operator]  # it is callable


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--precision", default="bf16-channels_last", help="of ours")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    cache = work / "cache"
    task = load_task("eurosat", cache, args.data, limit=args.images // 2)
    backbone = load(resolve("random:resnet50", cache))
    workers = Workers("cpu")
    precision = Precision.parse(args.precision)
    encode(backbone, task, cache, workers, precision)  # the first call warms up

    torch.manual_seed(0)
    plain = timm.create_model("resnet50", num_classes=0).eval()
    transform = create_transform(**resolve_data_config({}, model=plain), is_training=False)
    loader = DataLoader(Images(task, transform), batch_size=32, num_workers=2)
    features: list[torch.Tensor] = []

    def ours() -> None:
        shutil.rmtree(cache / "banks")
        encode(backbone, task, cache, workers, precision)

    def user_loop() -> None:
        features.clear()
        with torch.no_grad():
            features.extend(plain(images) for images, _ in loader)

    source = task.train.source.images(np.sort(task.train.rows)[:32])
    pixels = np.stack([pixels_of(backbone, task, task.train, *item) for item in source])
    batch = normalised(pixels, backbone)

    def bare() -> None:
        with prepared(backbone.net, workers.device, precision) as net:
            for _ in range(len(task.train) // 32 + len(task.test) // 32):
                forward(net, batch, precision)

    # The untrained weights differ by seed handling: give the rival exactly ours.
    plain.load_state_dict({k.removeprefix("net."): v for k, v in backbone.net.state_dict().items()})
    seconds = in_turn({"ours": ours, "loop": user_loop, "bare": bare}, args.rounds)

    bank = encode(backbone, task, cache, workers, precision).bank
    theirs = torch.cat(features)
    order = np.concatenate(
        [np.argsort(task.train.rows), np.argsort(task.test.rows) + len(task.train)]
    )
    cosine = torch.cosine_similarity(bank.features[torch.from_numpy(order)], theirs).min()
    n = len(theirs)
    print(f"ResNet-50 at 224 px, {n} images of EuroSAT, {precision}")
    print(machine("torch", "timm"))
    print("| | seconds | images/s | ratio to ours |")
    print("| --- | ---: | ---: | ---: |")
    for name, label in (
        ("ours", "`encode` (read, decode, forward, write)"),
        ("loop", "plain loop: timm fp32, DataLoader, 2 workers"),
        ("bare", f"bare forward passes, {precision}"),
    ):
        s = seconds[name]
        print(f"| {label} | {s:.1f} | {n / s:.1f} | {s / seconds['ours']:.2f} |")
    print(f"ours / bare: {seconds['ours'] / seconds['bare']:.3f}")
    print(f"smallest cosine of an image's features to the plain loop's: {float(cosine):.6f}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
