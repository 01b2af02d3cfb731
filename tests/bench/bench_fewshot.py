"""600 few-shot episodes on given features: ours and what a user would pick instead.

    python tests/bench/bench_fewshot.py [--episodes 600] [--repeats 5] [--shots 1 5 20]
        [--skip-slow]

Prints a Markdown table. All rivals run in turn inside one process, round after round, so that a
busy machine hurts all of them alike; the figure is the median over rounds. Rivals get features that
are L2-normalised already, ours normalises inside its time. scikit-learn with default threads is so
slow that it runs on fewer episodes and rounds, scaled up, and is labelled so. No time is asserted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import easyfsl
import numpy as np
import sklearn
import torch
from easyfsl.methods import FewShotClassifier, Finetune, PrototypicalNetworks, SimpleShot
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from eval.solvers.episodes import Classifier, episode_predictions

WAYS, QUERIES, DIM = 5, 15, 2048
# DTD's size: 47 classes of 120 images.
CLASSES, PER_CLASS = 47, 120
# Distance between class means against unit noise, per shot count: accuracy stays in 35..75 %.
SIGNAL = {1: 0.14, 5: 0.13, 20: 0.10}


class Episodes(NamedTuple):
    raw: Tensor  # [N, D]
    unit: Tensor  # [N, D] normalised, for the rivals
    support: Tensor  # [E, W, k]
    query: Tensor  # [E, W, Q]

    def head(self, n: int) -> Episodes:
        return self._replace(support=self.support[:n], query=self.query[:n])


class Rival(NamedTuple):
    name: str
    classifier: Classifier  # ours to compare with
    solve: Callable[[Episodes], Tensor]  # -> [E, W * Q]
    episodes: int  # how many it runs; its time is scaled up to all
    repeats: int


def draw(episodes: int, shots: int, signal: float, seed: int = 0) -> Episodes:
    """Class means plus noise through a ReLU, and random episodes on it."""
    g = torch.Generator().manual_seed(seed)
    means = signal * torch.randn(CLASSES, 1, DIM, generator=g)
    raw = (means + torch.randn(CLASSES, PER_CLASS, DIM, generator=g)).relu_().view(-1, DIM)
    rows = torch.stack(
        [
            torch.stack(
                [
                    way * PER_CLASS + torch.randperm(PER_CLASS, generator=g)[: shots + QUERIES]
                    for way in torch.randperm(CLASSES, generator=g)[:WAYS]
                ]
            )
            for _ in range(episodes)
        ]
    )  # [E, W, shots + Q]
    unit = raw / (raw.norm(dim=1, keepdim=True) + 1e-6)
    return Episodes(raw, unit, rows[:, :, :shots].contiguous(), rows[:, :, shots:].contiguous())


def ours(classifier: Classifier) -> Callable[[Episodes], Tensor]:
    def solve(data: Episodes) -> Tensor:
        shots = data.support.shape[2]
        out = episode_predictions(data.raw, data.support, data.query, [shots], [classifier])
        return out[shots, classifier]

    return solve


def ours_pinned(data: Episodes) -> Tensor:
    """One thread against one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return ours("logreg")(data)
    finally:
        torch.set_num_threads(before)


def sklearn_loop(data: Episodes, tol: float = 1e-4) -> Tensor:
    """The paper's loop: one LogisticRegression per episode, library threads as they are."""
    x, (episodes, ways, shots) = data.unit.numpy(), data.support.shape
    y = np.repeat(np.arange(ways), shots)
    support = data.support.view(episodes, -1).numpy()
    query = data.query.view(episodes, -1).numpy()
    out = np.empty_like(query)
    for i in range(episodes):
        model = LogisticRegression(C=1.0, max_iter=1000, tol=tol).fit(x[support[i]], y)
        out[i] = model.predict(x[query[i]])
    return torch.from_numpy(out)


def sklearn_pinned(data: Episodes) -> Tensor:
    with threadpool_limits(1):
        return sklearn_loop(data)


def easyfsl_loop(method: FewShotClassifier) -> Callable[[Episodes], Tensor]:
    """Tensors straight in: easyfsl's TaskSampler does not start on torch 2.15."""

    def solve(data: Episodes) -> Tensor:
        episodes, ways, shots = data.support.shape
        y = torch.arange(ways).repeat_interleave(shots)
        support, query = data.support.view(episodes, -1), data.query.view(episodes, -1)
        out = torch.empty_like(query)
        for i in range(episodes):
            method.process_support_set(data.unit[support[i]], y)
            out[i] = method(data.unit[query[i]]).argmax(1)
        return out

    return solve


def rivals(episodes: int, repeats: int, skip_slow: bool) -> list[Rival]:
    few, once = min(episodes, 10), min(repeats, 3)
    field = [
        Rival("ours, 1 thread", "logreg", ours_pinned, episodes, repeats),
        Rival("scikit-learn, 1 thread", "logreg", sklearn_pinned, episodes, repeats),
        Rival("scikit-learn, default threads", "logreg", sklearn_loop, min(episodes, 100), repeats),
        # Logistic loss too, on cosines, 200 Adam steps: the nearest in kind, not the same problem.
        Rival("easyfsl Finetune", "logreg", easyfsl_loop(Finetune()), few, once),
        Rival(
            "easyfsl PrototypicalNetworks",
            "centroid",
            easyfsl_loop(PrototypicalNetworks()),
            episodes,
            repeats,
        ),
        Rival("easyfsl SimpleShot", "cosine", easyfsl_loop(SimpleShot()), episodes, repeats),
    ]
    return [rival for rival in field if rival.episodes == episodes or not skip_slow]


def timed(solve: Callable[[Episodes], Tensor], data: Episodes) -> tuple[float, Tensor]:
    start = time.perf_counter()
    out = solve(data)
    return time.perf_counter() - start, out


def rows(shots: int, episodes: int, repeats: int, skip_slow: bool) -> list[str]:
    """The table's lines for one shot count."""
    data = draw(episodes, shots, SIGNAL.get(shots, 0.1))
    truth = torch.arange(WAYS).repeat_interleave(QUERIES)
    field = rivals(episodes, repeats, skip_slow)
    names: list[Classifier] = ["logreg", "centroid", "cosine"]
    for name in names:
        ours(name)(data.head(20))  # first calls set up libraries
    own_seconds: dict[Classifier, list[float]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {rival.name: [] for rival in field}
    own: dict[Classifier, Tensor] = {}
    theirs: dict[str, Tensor] = {}
    for turn in range(repeats):
        for name in names:
            spent, own[name] = timed(ours(name), data)
            own_seconds[name].append(spent)
        for rival in field:
            if turn < rival.repeats:
                spent, theirs[rival.name] = timed(rival.solve, data.head(rival.episodes))
                seconds[rival.name].append(spent * episodes / rival.episodes)
    lines = []
    for rival in field:
        mine, got = own[rival.classifier], theirs[rival.name]
        fast, slow = (
            statistics.median(own_seconds[rival.classifier]),
            statistics.median(seconds[rival.name]),
        )
        same = (got == mine[: len(got)]).double().mean()
        note = "" if rival.episodes == episodes else f" ({rival.episodes} episodes, scaled)"
        lines.append(
            f"| {shots} | {rival.classifier} | {fast:.3f} | {rival.name}{note} | {slow:.2f} | "
            f"{slow / fast:.1f}x | {100 * same:.2f} | "
            f"{100 * (mine[: len(got)] == truth).double().mean():.2f} | "
            f"{100 * (got == truth).double().mean():.2f} |"
        )
    # Where predictions differ, who is nearer the optimum? Untimed: scikit-learn run to the end.
    part = data.head(min(episodes, 100))
    with threadpool_limits(1):
        tight = sklearn_loop(part, tol=1e-8)
    lines += [
        f"| {shots} | logreg | | {who} against scikit-learn tol=1e-8 ({len(tight)} episodes) | | | "
        f"{100 * (got[: len(tight)] == tight).double().mean():.2f} | | |"
        for who, got in (("ours", own["logreg"]), ("default tol", theirs["scikit-learn, 1 thread"]))
    ]
    return lines


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--skip-slow", action="store_true", help="leave out the scaled rivals")
    args = parser.parse_args()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, load before {load}, Python "
        f"{platform.python_version()}, torch {torch.__version__} ({torch.get_num_threads()} "
        f"threads), scikit-learn {sklearn.__version__}, numpy {np.__version__}, easyfsl "
        f"{getattr(easyfsl, '__version__', '1.5')}\n\n{args.episodes} episodes, {WAYS}-way, "
        f"{QUERIES} queries, D={DIM}, C=1, rounds: {args.repeats}, medians\n"
    )
    print("| shots | ours | s | rival | s | ratio | % same | our acc | its acc |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shots in args.shots:
        for line in rows(shots, args.episodes, args.repeats, args.skip_slow):
            print(line, flush=True)


if __name__ == "__main__":
    main()
