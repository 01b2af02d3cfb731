"""Images a second of detection, training and inference: ours beside torchvision's reference loop.

    python -m tests.bench.bench_detection [--threads 1] [--steps 3] [--images 16]

The same detector on the same cores, in turn in one process: Faster R-CNN with a feature pyramid on
a ResNet-18 (256 channels, box head 1024) from the same weights, on the same real images (bccd) at
the same short side. torchvision's references/detection are no part of its package, so here is what
they do on a CPU: `engine.train_one_epoch` and `evaluate` over a DataLoader of decoded images with
flips, its own `FasterRCNN` with its own `GeneralizedRCNNTransform`, fp32, SGD with momentum and
weight decay, tests one image at a time. Ours is `Training.step` and `inference.find` as the
protocol calls them, in --precision, by default bf16 and channels_last.

Before anything is timed both take a step from the same weights on a batch of their own and must
have like losses; afterwards torchvision's network gets the weights that ours learned, and both must
reach the same AP50 on the test images to two points (torchvision resizes without antialiasing).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.transforms.v2.functional import pil_to_tensor

from eval.common.distributed import Workers
from eval.data.boxes.box_data import DetectionData
from eval.data.boxes.objects import BoxPrediction
from eval.data.load import load_task
from eval.detection.inference import Sight, find
from eval.detection.metrics import measure
from eval.detection.network import Detector, build_detector
from eval.detection.store import EncodedImages
from eval.detection.train import Training
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.settings.schedules import schedule_named
from eval.training.context import Context
from tests.bench.bench_pretrain import cores
from tests.bench.common import arguments, in_turn, machine

SIDE, MAX_SIDE, BATCH, LR = 240, 400, 4, 0.005


class Images(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """As the references' CocoDetection with their `hflip` preset: float images, boxes, labels."""

    def __init__(self, task: DetectionData, cache: Path) -> None:
        self.images, self.objects = EncodedImages.of(task.train, cache), task.train.objects

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = pil_to_tensor(self.images.image(index))
        boxes = torch.from_numpy(self.objects[index].boxes)
        if torch.rand(1) < 0.5:
            pixels = pixels.flip(-1)
            boxes = boxes.clone()
            boxes[:, [0, 2]] = pixels.shape[-1] - boxes[:, [2, 0]]
        labels = torch.from_numpy(self.objects[index].labels) + 1
        return pixels.float() / 255, {"boxes": boxes, "labels": labels}


class Torchvision:
    """The loops of references/detection/engine.py, the parts that do something on a CPU."""

    def __init__(self, setup: Context, ours: Detector) -> None:
        config = setup.backbone.input_config
        resnet = torchvision.models.resnet18(weights=None)
        self.net = FasterRCNN(
            _resnet_fpn_extractor(resnet, trainable_layers=5), len(setup.task.classes) + 1,
            min_size=SIDE, max_size=MAX_SIDE, image_mean=config["mean"], image_std=config["std"],
            rpn_post_nms_top_n_train=1000,
        )  # fmt: skip
        self.take(ours)
        self.loader = DataLoader(
            Images(setup.task, setup.cache), BATCH, shuffle=True, drop_last=True,
            collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        )  # fmt: skip
        self.optimiser = torch.optim.SGD(self.net.parameters(), LR, momentum=0.9, weight_decay=1e-4)
        self.test = EncodedImages.of(setup.task.test, setup.cache)
        self.stream = self._endless()

    def take(self, ours: Detector) -> None:
        renamed = {
            name.replace("body.net.", "backbone.body.").replace("neck.", "backbone.fpn."): tensor
            for name, tensor in ours.state_dict().items()
        }
        self.net.load_state_dict(renamed, strict=True)

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def train(self, steps: int) -> float:
        """The last step's loss."""
        self.net.train()
        loss = 0.0
        for images, targets in islice(self.stream, steps):
            losses = sum(self.net(list(images), list(targets)).values())
            loss = losses.item()
            self.optimiser.zero_grad()
            losses.backward()
            self.optimiser.step()
        return loss

    def detect(self, count: int) -> list[BoxPrediction]:
        self.net.eval()
        out = []
        with torch.inference_mode():
            for index in range(count):
                (found,) = self.net([pil_to_tensor(self.test.image(index)).float() / 255])
                out.append(BoxPrediction(
                    found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy() - 1
                ))  # fmt: skip
        return out


class Ours:
    """What the protocol calls."""

    def __init__(self, setup: Context, detector: Detector) -> None:
        schedule = dataclasses.replace(
            schedule_named("short:1000000"), sides=(SIDE,), test_side=SIDE, max_side=MAX_SIDE,
            batch_size=BATCH, lr=LR, warmup=0, rois=512,
        )  # fmt: skip
        self.setup, self.training = setup, Training(setup, detector, schedule, None)
        self.stream = self.training.batches.since(0)
        self.test = EncodedImages.of(setup.task.test, setup.cache)

    def train(self, steps: int) -> float:
        for pictures in islice(self.stream, steps):
            self.training.step(pictures)
            self.training.where.iteration += 1
        return sum(self.training.where.sums) / max(self.training.where.steps, 1)

    def detect(self, count: int) -> list[BoxPrediction]:
        config = self.setup.backbone.input_config
        sight = Sight(SIDE, MAX_SIDE, tuple(config["mean"]), tuple(config["std"]))
        found = dict(find(
            self.training.net, sight, self.test.image, range(count),
            channels_last=self.setup.precision.channels_last,
        ))  # fmt: skip
        return [found[i] for i in range(count)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="of training, in a round")
    parser.add_argument("--images", type=int, default=16, help="tested in a round")
    parser.add_argument("--precision", default="bf16-channels_last")
    args = parser.parse_args()
    cores(args.threads)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        task = load_task("bccd", cache, args.data)
        assert isinstance(task, DetectionData)
        setup = Context(
            load(resolve("random:resnet18", cache, None)), task, None, Workers("cpu"),
            Precision.parse(args.precision), cache, 0,
        )  # fmt: skip
        detector = build_detector(setup.backbone, len(task.classes), channels=256, head=1024)
        theirs = Torchvision(setup, detector)
        ours = Ours(setup, detector)
        torch.manual_seed(0)
        losses = ours.train(1), theirs.train(1)
        assert np.isclose(*losses, rtol=0.25), f"other losses on the first batch: {losses}"

        rows = []
        jobs = {
            "ours": lambda: ours.train(args.steps),
            "torchvision": lambda: theirs.train(args.steps),
        }
        seconds = in_turn(jobs, args.rounds)
        rows.append(("training", BATCH * args.steps, seconds))

        theirs.take(ours.training.net)
        truth = task.test.objects[: args.images]
        points = [
            measure(found, truth, len(task.classes), 0).scores["ap50"].value
            for found in (ours.detect(args.images), theirs.detect(args.images))
        ]
        assert abs(points[0] - points[1]) < 0.02, f"other detections: AP50 {points}"
        jobs = {
            "ours": lambda: ours.detect(args.images),
            "torchvision": lambda: theirs.detect(args.images),
        }
        rows.append(("inference", args.images, in_turn(jobs, args.rounds)))

        print(
            f"Faster R-CNN, ResNet-18 FPN, short side {SIDE}, {args.precision}, threads: "
            f"{args.threads}; losses of a first batch {losses[0]:.3f} and {losses[1]:.3f}; "
            f"AP50 with the same weights {100 * points[0]:.1f} and {100 * points[1]:.1f}"
        )
        for what, count, taken in rows:
            speeds = {name: count / s for name, s in taken.items()}
            print(
                f"{what}: ours {speeds['ours']:.2f} images/s, torchvision "
                f"{speeds['torchvision']:.2f}, ratio {speeds['ours'] / speeds['torchvision']:.2f}"
            )
        ours.stream.close()
    print(machine("torch", "torchvision", "timm"))


if __name__ == "__main__":
    main()
