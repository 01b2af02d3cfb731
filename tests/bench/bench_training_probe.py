"""What share of a training's time a TrainingProbe takes at its default cadence.

    python -m tests.bench.bench_training_probe [--arch resnet18] [--size 64] [--batch 128]

Steps of a plain loop (timm network, SGD, images on the device already, so that no loading hides
the probe) and readings take turns in one process: ``--steps`` steps, one reading, ``--rounds``
times. The share is that of one reading in 1,000 steps and itself, from the medians. Readings are
those of the default: kNN and 5-shot on 500 and 500 images a task.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from torch import nn

from eval.probe.training_probe import TrainingProbe
from tests.bench.common import arguments, machine


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="between two readings here")
    parser.add_argument("--task", nargs="+", default=["eurosat"])
    parser.add_argument("--linear", action="store_true", help="linear evaluation too")
    args = parser.parse_args()
    os.environ["TRANSFERZOO_CACHE"] = tempfile.mkdtemp(prefix="transferzoo-bench-")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = {"input_size": (3, args.size, args.size), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    protocols = {"knn": {}, "fewshot": {"shots": (5,)}} | ({"linear": {}} if args.linear else {})
    start = time.perf_counter()
    probe = TrainingProbe(
        args.task, transform, protocols=protocols, data=args.data,
        results=Path(os.environ["TRANSFERZOO_CACHE"]) / "probe",
    )  # fmt: skip
    made = time.perf_counter() - start
    torch.manual_seed(0)
    net = timm.create_model(args.arch, num_classes=100).to(device).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    labels = torch.randint(100, (args.batch,), device=device)

    def step() -> float:
        begin = time.perf_counter()
        loss = nn.functional.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        return time.perf_counter() - begin

    step()
    probe.read(0, net)  # the first draws the episodes, which are kept
    steps: list[float] = []
    readings: list[float] = []
    for number in range(1, args.rounds + 1):
        steps += [step() for _ in range(args.steps)]
        before = probe.seconds
        probe.read(number, net)
        readings.append(probe.seconds - before)
    a_step, a_reading = statistics.median(steps), statistics.median(readings)
    share = a_reading / (probe.every * a_step + a_reading)
    print(f"{machine('torch', 'timm')}, {torch.get_num_threads()} threads, {device}")
    print(f"{args.arch}, {args.size} px, batch {args.batch}, {', '.join(args.task)}")
    print(f"made in {made:.1f} s; a step {1000 * a_step:.0f} ms, a reading {a_reading:.2f} s")
    print(f"share of the training at every={probe.every}: {100 * share:.2f} %")


if __name__ == "__main__":
    main()
