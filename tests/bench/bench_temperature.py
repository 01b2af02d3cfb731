"""How sure may a head of a few pictures be? The prior of the few-shot demo's temperature.

    python -m tests.bench.bench_temperature --data DATA [--cache DIR] [--episodes 4]

On each data set and for each shipped model, small supports are drawn (2, 5 and 10 classes of 1, 2,
3, 5 and 10 pictures) and a head is fitted, as the demo does it. The best temperature of a cell is
the one at which fresh pictures of those classes have the least cross-entropy. Printed: the prior
that the demo uses (a line through the logarithms of all cells), how far single cells are from it,
and the cross-entropy and calibration error on fresh pictures of each way to choose a temperature,
the prior fitted each time without the data set that it is tried on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.distributed import Workers
from eval.common.files import default_cache
from eval.data.load import load_task
from eval.features.encode import encode
from eval.models import backbone as backbones
from eval.models.names import zoo_names
from eval.models.resolve import resolve
from eval.solvers.episodes import fit_logreg
from eval.tasks.registry import SUITES
from space.demo.classifier import leave_one_out, normalised
from tests.bench.common import DATA

WAYS, SHOTS, QUERIES = (2, 5, 10), (1, 2, 3, 5, 10), 40
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Episode:
    """Logits of one head: of its support by heads without each (None at one shot), and of fresh
    pictures; with their labels."""

    task: str
    ways: int
    shots: int
    left_out: Tensor | None
    support: Tensor
    fresh: Tensor
    truth: Tensor


def episodes(data: Path, cache: Path, count: int) -> Iterator[Episode]:
    workers = Workers("cpu")
    random = np.random.RandomState(0)
    for name in SUITES["subsets"]:
        task = load_task(name, cache, data)
        for model in zoo_names():
            bank = encode(backbones.load(resolve(f"zoo:{model}", cache)), task, cache, workers).bank
            x, y = bank.features, bank.labels.numpy()
            for ways in WAYS:
                for shots in SHOTS:
                    large = [c for c in np.unique(y) if (y == c).sum() >= shots + QUERIES // ways]
                    if len(large) < ways:
                        continue
                    for _ in range(count):
                        yield _episode(name, x, y, ways, shots, large, random)


def _episode(
    task: str, x: Tensor, y: NDArray[np.int64], ways: int, shots: int, large: list[int],
    random: np.random.RandomState,
) -> Episode:  # fmt: skip
    chosen = random.choice(large, ways, replace=False)
    drawn = [random.permutation(np.flatnonzero(y == c))[: shots + QUERIES // ways] for c in chosen]
    support = np.concatenate([rows[:shots] for rows in drawn])
    fresh = np.concatenate([rows[shots:] for rows in drawn])
    labels = torch.arange(ways).repeat_interleave(shots)
    a, b = normalised(x[support].double()), normalised(x[fresh].double())
    weight, bias = fit_logreg(a[None], labels[None], ways, 1.0, tolerance=1e-7)
    return Episode(
        task, ways, shots, leave_one_out(a, labels, ways), labels,
        b @ weight[0].t() + bias[0], torch.arange(ways).repeat_interleave(QUERIES // ways),
    )  # fmt: skip


def best_temperature(cell: list[Episode]) -> float:
    """At which the fresh pictures of all its episodes have the least cross-entropy."""
    logits, truth = torch.cat([e.fresh for e in cell]), torch.cat([e.truth for e in cell])
    grid = np.geomspace(0.005, 5, 241)
    losses = [float(torch.nn.functional.cross_entropy(logits / t, truth)) for t in grid]
    return float(grid[int(np.argmin(losses))])


def cells(found: list[Episode]) -> dict[tuple[str, int, int], list[Episode]]:
    out: dict[tuple[str, int, int], list[Episode]] = {}
    for e in found:
        out.setdefault((e.task, e.ways, e.shots), []).append(e)
    return out


def prior(found: list[Episode]) -> tuple[Floats, float]:
    """(a, b, c) of log T = a + b log shots + c log ways, and the cells' deviation from it."""
    keys, logs = [], []
    for key, cell in cells(found).items():
        keys.append([1.0, np.log(key[2]), np.log(key[1])])
        logs.append(np.log(best_temperature(cell)))
    x, t = np.array(keys), np.array(logs)
    line = np.linalg.lstsq(x, t, rcond=None)[0]
    return line, float(np.sqrt(np.mean((x @ line - t) ** 2)))


def scores(found: list[Episode], temperature: Callable[[Episode], float]) -> tuple[float, float]:
    """Cross-entropy, and how far the mean top probability is from the accuracy, by cell."""
    losses, gaps = [], []
    for cell in cells(found).values():
        chances = [(e.fresh / temperature(e)).softmax(1) for e in cell]
        truth = torch.cat([e.truth for e in cell])
        p = torch.cat(chances)
        losses.append(float(-p[torch.arange(len(p)), truth].clamp_min(1e-12).log().mean()))
        right = float((p.argmax(1) == truth).double().mean())
        gaps.append(abs(float(p.max(1).values.mean()) - right))
    return float(np.mean(losses)), float(np.mean(gaps))


def minimised(logits: Tensor, labels: Tensor, at: float, spread: float, right: float) -> float:
    """The T of least cross-entropy to targets of ``right`` for the true class, with log T normal
    about ``at``; on a grid, as a reference for the demo's own search."""
    n, ways = logits.shape
    targets = torch.full_like(logits, (1 - right) / (ways - 1))
    targets[torch.arange(n), labels] = right
    grid = np.geomspace(0.005, 20, 200)
    losses = [
        -float((targets * (logits / t).log_softmax(1)).sum())
        + (0.0 if np.isinf(spread) else (np.log(t) - at) ** 2 / (2 * spread**2))
        for t in grid
    ]
    return float(grid[int(np.argmin(losses))])


def methods(line: Floats, spread: float) -> dict[str, Callable[[Episode], float]]:
    """Ways to choose a temperature, by name."""

    def at(e: Episode) -> float:
        return float(line @ [1.0, np.log(e.shots), np.log(e.ways)])

    def platt(e: Episode) -> float:
        return (len(e.support) + 1) / (len(e.support) + 2)

    def before(e: Episode) -> float:
        if e.left_out is None or len(e.support) < 10:
            return 1.0
        return minimised(e.left_out, e.support, 0, np.inf, platt(e))

    def both(e: Episode, right: float, narrow: float = 1.0) -> float:
        if e.left_out is None:
            return float(np.exp(at(e)))
        return minimised(e.left_out, e.support, at(e), spread * narrow, right)

    return {
        "T = 1": lambda e: 1.0,
        "fitted from 10 pictures on, else 1 (before)": before,
        "the prior alone": lambda e: float(np.exp(at(e))),
        "prior and left-out pictures, bare": lambda e: both(e, 1.0),
        "prior and left-out pictures, Platt": lambda e: both(e, platt(e)),
        "the same, prior half as wide": lambda e: both(e, platt(e), 0.5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--episodes", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = list(episodes(args.data, args.cache, args.episodes))
    line, spread = prior(found)
    print(f"{len(found):,} heads; log T = {line[0]:.3f} {line[1]:+.3f} log shots "
          f"{line[2]:+.3f} log ways; cells deviate by {spread:.3f}")  # fmt: skip
    tasks = list(dict.fromkeys(e.task for e in found))
    names = list(methods(line, spread))
    print("| pictures a class | " + " | ".join(names) + " |")
    for shots in (*SHOTS, 0):
        losses = {name: [] for name in names}  # type: dict[str, list[tuple[float, float]]]
        for task in tasks:  # the prior has never seen the data set that it is tried on
            fitted = methods(*prior([e for e in found if e.task != task]))
            mine = [e for e in found if e.task == task and shots in (0, e.shots)]
            for name in names:
                if mine:
                    losses[name].append(scores(mine, fitted[name]))
        told = (np.mean(losses[name], axis=0) for name in names)
        cells_ = " | ".join(f"{loss:.3f}, {100 * gap:.0f}" for loss, gap in told)
        print(f"| {shots or 'all'} | {cells_} |", flush=True)


if __name__ == "__main__":
    main()
