"""Encoding through transformers: ours against bare forward passes of the library's own model.

    python -m tests.bench.bench_encode_transformers [--images 256] [--rounds 5] [--px 224]

A folder of DINOv2-small's shape with random weights, as `save_pretrained` leaves it. The two take
turns in one process on one thread, in fp32. Ours reads, decodes and prepares the images and writes
the bank; bare passes get one prepared batch. Seconds are the processor's own, so that other work on
the machine counts less. Features must agree.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.features.encode import default_batch_size, encode, normalised, pixels_of
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from tests.bench.common import arguments, machine, processor_seconds


def dinov2_small(folder: Path, px: int) -> None:
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518
    )
    torch.manual_seed(0)
    transformers.Dinov2Model(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": px, "width": px}, resample=3).save_pretrained(
        folder
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--px", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    cache, precision = work / "cache", Precision.parse("fp32")
    dinov2_small(work / "net", args.px)
    task = load_task("eurosat", cache, args.data, limit=args.images // 2)
    backbone = load(resolve(f"local-dir:{work / 'net'}", cache))
    theirs = transformers.AutoModel.from_pretrained(work / "net").eval()
    size = default_batch_size(torch.device("cpu"), args.px * args.px)
    source = task.train.source.images(np.sort(task.train.rows)[:size])
    pixels = np.stack([pixels_of(backbone, task, task.train, *item) for item in source])
    batch = normalised(pixels, backbone)
    n = len(task.train) + len(task.test)

    def ours() -> torch.Tensor:
        shutil.rmtree(cache / "banks", ignore_errors=True)
        return encode(backbone, task, cache, Workers("cpu"), precision).bank.features

    def bare() -> torch.Tensor:
        with torch.inference_mode():
            for _ in range(n // size):
                out = theirs(pixel_values=batch).pooler_output
        return out

    seconds = processor_seconds({"ours": ours, "bare": bare}, args.rounds)
    first = np.argsort(task.train.rows)[: len(batch)]
    gap = (ours()[torch.from_numpy(first)] - bare()).abs().max()
    print(f"DINOv2-small's shape at {args.px} px, {n} images of EuroSAT, batches of {size}, fp32")
    print(machine("torch", "transformers"))
    print(f"ours {seconds['ours']:.2f} s, bare forward passes {seconds['bare']:.2f} s of processor")
    print(f"ours / bare: {seconds['ours'] / seconds['bare']:.3f}")
    print(f"largest difference of a feature: {float(gap):.2e}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
