"""How this checkpoint was made: cross-entropy on Tiny-ImageNet (100 classes, 64 px).

    python train.py --data DIR --out DIR [--epochs 12]

DIR holds tiny_imagenet/train-*.parquet and validation-*.parquet. One file, nothing of the
package: the zoo's own trainer replaces it. Weak augmentation of the study (random resized crop
0.2-1, flip), drawn for a whole batch at once; SGD, linear warm-up, cosine.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

ARCH = "resnet18"
MODEL_ARGS = {"channels": [32, 64, 128, 256]}
CLASSES, PX, BATCH, LR, DECAY, SEED = 100, 64, 128, 0.2, 5e-4, 0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """([N, 3, 64, 64] uint8, [N] labels)."""
    images, labels = [], []
    for file in sorted(folder.glob(f"{part}-*.parquet")):
        table = pq.read_table(file)
        labels += table["label"].to_pylist()
        for cell in table["image"].to_pylist():
            picture = Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
            images.append(np.asarray(picture))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(labels)


def normalise(pixels: Tensor) -> Tensor:
    mean = torch.tensor(MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD).view(1, 3, 1, 1) * 255
    return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor) -> Tensor:
    """Random resized crop (area 0.2-1, aspect 3/4-4/3) and flip, another one for each image."""
    n = len(images)
    area = torch.empty(n).uniform_(0.2, 1.0)
    ratio = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    x = (1 - width) * torch.empty(n).uniform_(-1, 1)
    y = (1 - height) * torch.empty(n).uniform_(-1, 1)
    flip = torch.randint(0, 2, (n,)) * 2 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * flip, x
    theta[:, 1, 1], theta[:, 1, 2] = height, y
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@torch.inference_mode()
def accuracy(net: torch.nn.Module, pixels: Tensor, labels: Tensor) -> float:
    net.eval()
    hits = 0
    for i in range(0, len(labels), 500):
        answer = net(normalise(pixels[i : i + 500])).argmax(1)
        hits += int((answer == labels[i : i + 500]).sum())
    return hits / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    x, y = read(args.data / "tiny_imagenet", "train")
    x_val, y_val = read(args.data / "tiny_imagenet", "validation")
    net = timm.create_model(ARCH, num_classes=CLASSES, **MODEL_ARGS)
    net.to(memory_format=torch.channels_last)
    steps = args.epochs * (len(y) // BATCH)
    optimiser = torch.optim.SGD(
        net.parameters(), LR, momentum=0.9, weight_decay=DECAY, nesterov=True
    )
    warm = steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: (
            (s + 1) / warm
            if s < warm
            else 0.5 * (1 + math.cos(math.pi * (s - warm) / (steps - warm)))
        ),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "log.jsonl").open("w") as log:
        for epoch in range(args.epochs):
            start, losses = time.time(), []
            net.train()
            for rows in torch.randperm(len(y)).split(BATCH)[: len(y) // BATCH]:
                images = augment(normalise(x[rows]))
                with torch.autocast("cpu", torch.bfloat16):
                    logits = net(images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits.float(), y[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            entry = {
                "epoch": epoch + 1,
                "ce": round(float(np.mean(losses)), 4),
                "validation_top1": accuracy(net, x_val, y_val),
                "images_per_second": round(len(losses) * BATCH / (time.time() - start)),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            print(entry, flush=True)
    # Half precision halves the file; the accuracy below says what that costs.
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, args.out / "model.safetensors")
    net.load_state_dict(state)
    print({"validation_top1_as_stored": accuracy(net, x_val, y_val)})
    config = {
        "architecture": ARCH,
        "num_classes": CLASSES,
        "num_features": net.num_features,
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {
            "input_size": [3, PX, PX],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(MEAN),
            "std": list(STD),
            "num_classes": CLASSES,
            "pool_size": [2, 2],
            "first_conv": "conv1",
            "classifier": "fc",
            "license": "other",
        },
    }
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
