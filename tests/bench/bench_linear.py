"""Linear probe with a search for C: ours against a 45-value scikit-learn sweep.

    python tests/bench/bench_linear.py [--quick] [--runs 5] [--default-runs 1]

The job, on the same features and the same split: validation accuracy for C in the grid on an 80/20
split, the best C, a refit on all rows, test accuracy. Rivals run in turns inside one process; each
figure is the median over its own number of runs, printed. scikit-learn gets float32 features (its
faster choice), warm_start over ascending C and its default tolerance and max_iter.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.solvers.c_path import C_GRID, search_c
from eval.solvers.logistic import fit, standardise

N_CLASSES = 10


class Result(NamedTuple):
    c: float
    val: float  # validation top-1 of the chosen C, by the rival's own fits
    test: float
    values: int  # values of C fitted


class Data(NamedTuple):
    x: Tensor  # [N, D] standardised
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    cut: int  # rows before it fit, rows after it validate


def features(n: int, d: int, spread: float, seed: int = 0, n_test: int = 4000) -> Data:
    """ReLU-shaped features with a decaying spectrum, as real backbones give, of hard classes."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1) ** -0.75
    y = torch.randint(N_CLASSES, (n + n_test,), generator=generator)
    centres = spread * torch.randn(N_CLASSES, d, generator=generator) * scale
    latent = centres[y] + torch.randn(n + n_test, d, generator=generator) * scale
    mixed = latent @ (torch.randn(d, d, generator=generator) / scale.norm())
    x = torch.relu(mixed - 0.3 + 0.3 * torch.randn(n + n_test, d, generator=generator))
    mean, deviation = standardise(x[:n])
    x = (x - mean) / deviation
    return Data(x[:n], y[:n], x[n:], y[n:], n * 4 // 5)


def ours(data: Data) -> Result:
    cut = data.cut
    found = search_c(data.x[:cut], data.y[:cut], data.x[cut:], data.y[cut:], N_CLASSES)
    model = fit(data.x, data.y, N_CLASSES, found.best_c, init=found.model)
    test = float((model.logits(data.x_test).argmax(1) == data.y_test).float().mean())
    return Result(found.best_c, dict(found.tried)[found.best_c], test, len(found.tried))


def sweep(data: Data, accuracies: dict[float, float]) -> Result:
    cut, x, y = data.cut, data.x.numpy(), data.y.numpy()
    solver = LogisticRegression(warm_start=True)
    for c in C_GRID:
        solver.set_params(C=c).fit(x[:cut], y[:cut])
        accuracies[c] = float((solver.predict(x[cut:]) == y[cut:]).mean())
    best = max(C_GRID, key=lambda c: (accuracies[c], -c))
    final = LogisticRegression(C=best).fit(x, y)
    test = float((final.predict(data.x_test.numpy()) == data.y_test.numpy()).mean())
    return Result(best, accuracies[best], test, len(C_GRID))


def steps_apart(a: float, b: float) -> int:
    return abs(C_GRID.index(a) - C_GRID.index(b))


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
    parser.add_argument("--quick", action="store_true", help="2 000 rows instead of 16 000")
    parser.add_argument("--runs", type=int, default=5, help="runs of ours and of pinned sklearn")
    parser.add_argument("--default-runs", type=int, default=1, help="runs of default sklearn")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    n, d = (2000 if args.quick else 16_000), 2048
    data = features(n, d, spread=0.25 if args.quick else 0.13)
    accuracies: dict[float, float] = {}

    def pinned() -> Result:
        with threadpool_limits(1):
            return sweep(data, accuracies)

    def ours_pinned() -> Result:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return ours(data)
        finally:
            torch.set_num_threads(threads)

    rivals: dict[str, tuple[Callable[[], Result], int]] = {
        "TransferZoo search_c + fit": (lambda: ours(data), args.runs),
        "TransferZoo search_c + fit, 1 thread": (ours_pinned, args.runs),
        "scikit-learn sweep, 1 thread (threadpoolctl)": (pinned, args.runs),
        "scikit-learn sweep, default threads": (lambda: sweep(data, {}), args.default_runs),
    }
    small = data._replace(x=data.x[:400], y=data.y[:400], cut=320)
    ours(small)  # first calls into the libraries
    LogisticRegression(max_iter=3).fit(small.x.numpy(), small.y.numpy())
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    results: dict[str, Result] = {}
    for turn in range(max(runs for _, runs in rivals.values())):
        for name, (job, runs) in rivals.items():
            if turn < runs:
                start = time.perf_counter()
                results[name] = job()
                seconds[name].append(time.perf_counter() - start)
                line = f"turn {turn + 1}: {name}: {seconds[name][-1]:.2f} s"
                print(f"{line}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)

    first, mine = results["TransferZoo search_c + fit"], seconds["TransferZoo search_c + fit"]
    print(f"\nLinear probe, {n} x {d}, {N_CLASSES} classes, 20 % validation, 4000 test rows\n")
    print(
        "| solver | median s | range s | runs | x ours | values of C | best C | grid steps "
        "from ours | val top-1 | test top-1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        times = seconds[name]
        print(
            f"| {name} | {statistics.median(times):.2f} | {min(times):.2f}-{max(times):.2f} "
            f"| {len(times)} | {statistics.median(times) / statistics.median(mine):.1f} "
            f"| {result.values} | {result.c:.3g} | {steps_apart(result.c, first.c)} "
            f"| {100 * result.val:.2f} % | {100 * result.test:.2f} % |"
        )
    if accuracies:
        print(
            f"\nThe sweep's own validation top-1: {100 * accuracies[first.c]:.2f} % at our C, "
            f"{100 * max(accuracies.values()):.2f} % at its best."
        )
    if args.default_runs < args.runs:
        print(f"Default threads: {args.default_runs} run(s) only, the sweep takes minutes.")
    print(f"Machine: {machine()}")


if __name__ == "__main__":
    main()
