"""Cosine kNN for seven k: one search against one search per k.

    python tests/bench/bench_knn.py [--quick] [--runs 5]

Rivals run in turns inside one process. The lightly rival is not lightly itself but its algorithm
(`lightly/utils/benchmarking/knn.py`, after Wu et al. 2018), written here: normalised features, one
product and one top-k per k and batch of 256 queries, one-hot votes.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.solvers.knn import nearest, predict, vote

KS = (1, 5, 10, 20, 50, 100, 200)
N_CLASSES = 10
TEMPERATURE = 0.07


def features(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """ReLU-shaped features [n, d] of overlapping classes, and their labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(N_CLASSES, (n,), generator=generator)
    centres = 0.12 * torch.randn(N_CLASSES, d, generator=generator)
    return torch.relu(centres[y] + torch.randn(n, d, generator=generator)), y


def lightly_style(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """The rival's algorithm for one k: predictions [M]."""
    bank_t = torch.nn.functional.normalize(bank, dim=1).t().contiguous()  # [D, N]
    predictions = []
    for batch in queries.split(256):
        similarity = torch.nn.functional.normalize(batch, dim=1) @ bank_t  # [B, N]
        weight, index = similarity.topk(k, dim=-1)
        weight = (weight / TEMPERATURE).exp()
        label = labels.expand(len(batch), -1).gather(-1, index)  # [B, k]
        one_hot = torch.zeros(len(batch) * k, N_CLASSES)
        one_hot = one_hot.scatter(1, label.reshape(-1, 1), 1.0).view(len(batch), k, N_CLASSES)
        predictions.append((one_hot * weight[:, :, None]).sum(1).argmax(-1))
    return torch.cat(predictions)


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return (
        f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__} ({torch.get_num_threads()} threads), "
        f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, "
        f"load {os.getloadavg()[0]:.1f} at the end"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 000 x 512 bank, 1 000 queries")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    n, m, d = (4000, 1000, 512) if args.quick else (16_000, 4000, 2048)
    x, y = features(n + m, d)
    bank, labels, queries, truth = x[:n], y[:n], x[n:], y[n:]

    def ours(temperature: float | None) -> Tensor:
        similarity, index = nearest(bank, queries, max(KS))
        return predict(vote(similarity, labels[index], KS, N_CLASSES, temperature))

    def brute() -> Tensor:
        found = []
        for k in KS:
            rival = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
            found.append(torch.from_numpy(rival.fit(bank.numpy(), labels.numpy()).predict(queries)))
        return torch.stack(found)

    def brute_pinned() -> Tensor:
        with threadpool_limits(1):
            return brute()

    def per_k() -> Tensor:
        return torch.stack([lightly_style(bank, labels, queries, k) for k in KS])

    weighted, majority = f"weighted, T = {TEMPERATURE}", "majority"
    rivals: dict[tuple[str, str], Callable[[], Tensor]] = {
        ("TransferZoo", weighted): lambda: ours(TEMPERATURE),
        ("lightly-style knn_predict per k (re-written here)", weighted): per_k,
        ("TransferZoo", majority): lambda: ours(None),
        ("scikit-learn brute cosine per k, default threads", majority): brute,
        ("scikit-learn brute cosine per k, 1 thread", majority): brute_pinned,
    }
    nearest(bank[:500], queries[:50], 200)  # first calls into the libraries
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in rivals}
    results: dict[tuple[str, str], Tensor] = {}
    for turn in range(args.runs):
        for name, job in rivals.items():
            start = time.perf_counter()
            results[name] = job()
            seconds[name].append(time.perf_counter() - start)
            print(f"turn {turn + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)

    # Majorities often tie; compare with scikit-learn under its own rule, the lowest class.
    similarity, index = nearest(bank, queries, max(KS))
    lowest_ties = predict(vote(similarity, labels[index], KS, N_CLASSES, None).floor())
    print(f"\nCosine kNN, bank {n} x {d}, {m} queries, k in {KS}\n")
    print("| solver | vote | median s | range s | x ours | same predictions | best top-1 |")
    print("|---|---|---|---|---|---|---|")
    for name, result in results.items():
        own = ("TransferZoo", name[1])
        reference = lowest_ties if name[1] == majority and name != own else results[own]
        ratio = statistics.median(seconds[name]) / statistics.median(seconds[own])
        same = float((result == reference).float().mean())
        top = float((result == truth).float().mean(1).max())
        print(
            f"| {name[0]} | {name[1]} | {statistics.median(seconds[name]):.2f} "
            f"| {min(seconds[name]):.2f}-{max(seconds[name]):.2f} | {ratio:.1f} "
            f"| {100 * same:.2f} % | {100 * top:.2f} % |"
        )
    print(
        f"\nMedian of {args.runs}. Tied majorities: scikit-learn takes the lowest class, we the "
        "nearest neighbour's; agreement with it is of our counts under its rule."
    )
    print(f"Machine: {machine()}")


if __name__ == "__main__":
    main()
