"""Unbiased CKA of all layers of two models, batch by batch: ours and the loops a user would write.

    python tests/bench/bench_cka.py [--batches 3] [--rounds 5] [--threads 1] [--full]

The loops are the estimator of Nguyen et al. 2021 as packages write it (after torch-cka, re-written
here): a loop over layer pairs, the three HSIC_1 of each from its two kernels. The first makes the
kernels where it needs them, the second keeps them per batch. All run in turn inside one process, on
float32 features, and must agree with the loop in float64: ours to 1e-6, the loops, whose kernels
are not centred, to 1e-4. ``--full`` times ours alone on 20,000 images. No time is asserted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.analysis.measures.cka import CkaSums
from tests.bench.common import in_turn, machine

WIDTHS = (64,) * 3 + (128,) * 3 + (256,) * 3 + (512,) * 3  # twelve blocks, as a ResNet's stages
IMAGES, BATCH = 20_000, 256

Batch = tuple[list[Tensor], list[Tensor]]


def model(n: int, causes: Tensor, seed: int) -> list[Tensor]:
    """ReLU features [n, P_l] of twelve layers that see the causes [n, 32] through more noise."""
    g = torch.Generator().manual_seed(seed)
    return [
        torch.relu(causes @ torch.randn(32, p, generator=g) + i * torch.randn(n, p, generator=g))
        for i, p in enumerate(WIDTHS)
    ]


def draw(batches: int) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    causes = [torch.randn(BATCH, 32, generator=g) for _ in range(batches)]
    return [(model(BATCH, c, 1), model(BATCH, c, 2)) for c in causes]


def ours(data: Sequence[Batch]) -> np.ndarray:
    sums = CkaSums(len(WIDTHS), len(WIDTHS))
    for a, b in data:
        sums.add(a, b)
    return sums.result().values


def hsic_1(k: Tensor, other: Tensor) -> float:
    n = len(k)
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    total = (k * other).sum() + k.sum() * other.sum() / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (k.sum(0) @ other.sum(0))) / (n * (n - 3))


def loop(data: Sequence[Batch], keep: bool) -> np.ndarray:
    found = np.zeros((3, len(WIDTHS), len(WIDTHS)))
    for a, b in data:
        kernels = [[x @ x.t() for x in model] for model in (a, b)] if keep else None
        for i, j in itertools.product(range(len(a)), range(len(b))):
            if kernels is None:
                k, other = a[i] @ a[i].t(), b[j] @ b[j].t()
            else:
                k, other = kernels[0][i], kernels[1][j]
            found[:, i, j] += hsic_1(k, other), hsic_1(k, k), hsic_1(other, other)
    return found[0] / np.sqrt(found[1] * found[2])


def full(data: Sequence[Batch]) -> float:
    """Seconds for 20,000 images x 12 layers x 2 models; the drawn batches come round again."""
    sums = CkaSums(len(WIDTHS), len(WIDTHS))
    left, start = IMAGES, time.perf_counter()
    for a, b in itertools.cycle(data):
        take = min(left, BATCH)
        sums.add([x[:take] for x in a], [x[:take] for x in b])
        left -= take
        if not left:
            break
    sums.result()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="time ours on 20,000 images too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = draw(args.batches)

    rivals: dict[str, Callable[[], np.ndarray]] = {
        "TransferZoo": lambda: ours(data),
        "loop over layer pairs (re-written here)": lambda: loop(data, keep=False),
        "the same, kernels kept": lambda: loop(data, keep=True),
    }
    exact = loop([([x.double() for x in a], [x.double() for x in b]) for a, b in data], keep=True)
    off = {name: float(np.abs(job() - exact).max()) for name, job in rivals.items()}
    if off["TransferZoo"] > 1e-6 or max(off.values()) > 1e-4:
        sys.exit(f"the answers differ: {off}")
    seconds = in_turn({**rivals}, args.rounds)
    print(f"\nUnbiased linear CKA, {args.batches} batches of {BATCH}, 12 x 12 layers, P {WIDTHS}\n")
    print("| who | median s | x ours | largest difference to float64 |")
    print("|---|---|---|---|")
    for name, taken in seconds.items():
        ratio = taken / seconds["TransferZoo"]
        print(f"| {name} | {taken:.3f} | {ratio:.1f} | {off[name]:.0e} |")
    if args.full:
        print(f"\n{IMAGES} images x 12 layers x 2 models: {full(data):.1f} s")
    print(
        f"\nMedian of {args.rounds}. Machine: {machine('torch', 'numpy')}, {args.threads} threads"
    )


if __name__ == "__main__":
    main()
