"""linear-sgd: the study's grid of 12 in one pass, against its runs one by one.

    python tests/bench/bench_linear_sgd.py [--images 300] [--rounds 5]

The whole job, with a zoo checkpoint on EuroSAT: views are encoded, the grid is tuned on 70 % of
train, the best point trains on all of it and answers test; 4 and 10 epochs stand for the study's
20 and 50. Against

- twelve separate runs of the same code, each a grid of one: what a script over the grid does;
- the study's own plan: twelve tunings one by one, each encoding its views, then one training.

The heads alone, with the features of all views given: 12 heads for some epochs, against twelve
grids of one and against what a user would write, nn.BatchNorm1d + nn.Linear + torch.optim.SGD on a
DataLoader; and that loop without the DataLoader. All see the same views in the same order, and must
give the same answers. Rivals run in turns inside one process.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.validation import held_out
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols.linear_sgd import _Grid, fit
from eval.settings.protocols import LinearSgd
from eval.solvers.heads import Heads, initial
from eval.training import setup
from eval.training.context import Context
from eval.training.setup import Point
from eval.training.views import Views
from tests.bench.common import arguments, in_turn, machine

MODEL = "zoo:resnet18_narrow.ce_tin100"
STUDY = LinearSgd(tune_epochs=4, epochs=10)
POINTS = setup.points(STUDY)


def grid_of_one(point: Point) -> LinearSgd:
    return dataclasses.replace(
        STUDY,
        lrs=(point.lr,),
        batch_sizes=(point.batch_size,),
        weight_decays=(point.weight_decay,),
    )


# ---- the whole job


class Whole:
    """Jobs that encode; each returns the validation accuracies and [N, C] probabilities."""

    def __init__(self, setup: Context) -> None:
        self.setup, self.rows = setup, np.arange(len(setup.task.train))
        self.encoded: dict[str, int] = {}

    def one_pass(self) -> tuple[list[float], np.ndarray]:
        answer = fit(self.setup, STUDY, self.rows)
        self.encoded["one pass"] = answer.details["encoded"]
        return [p["top1"] for p in answer.details["points"]], answer.probability

    def separate(self) -> tuple[list[float], np.ndarray]:
        answers = [fit(self.setup, grid_of_one(p), self.rows) for p in POINTS]
        self.encoded["separate"] = sum(a.details["encoded"] for a in answers)
        accuracy = [a.details["points"][0]["top1"] for a in answers]
        return accuracy, answers[accuracy.index(max(accuracy))].probability

    def study(self) -> tuple[list[float], np.ndarray]:
        held = held_out(self.setup.task, STUDY.validation, self.setup.seed)
        part = self.rows[~held]
        accuracy, encoded = [], 0
        for point in POINTS:
            views = Views(self.setup, STUDY.scale)
            grid = _Grid(self.setup, grid_of_one(point), self.rows, held)
            for epoch in range(STUDY.tune_epochs):
                grid.tune(epoch, views.epoch(epoch, part), False)
            grid.choose()
            accuracy.append(grid.accuracy[0])
            encoded += views.encoded
        views = Views(self.setup, STUDY.scale)
        best = POINTS[accuracy.index(max(accuracy))]
        grid = _Grid(self.setup, grid_of_one(best), self.rows, held)
        grid.accuracy = [0.0]
        for epoch in range(STUDY.epochs):
            grid.train(epoch, views.epoch(epoch, self.rows))
        self.encoded["study"] = encoded + views.encoded
        return accuracy, grid.answer().probability


# ---- heads alone


class Alone:
    """Jobs on given features [E, N, D]; each returns [12, N, C] logits of the first view."""

    def __init__(self, epochs: int, n: int, d: int, classes: int) -> None:
        g = torch.Generator().manual_seed(0)
        self.y = torch.randint(classes, (n,), generator=g)
        centres = torch.randn(classes, d, generator=g) * 0.3
        self.x = torch.relu(centres[self.y] + torch.randn(epochs, n, d, generator=g))
        self.orders = [torch.randperm(n, generator=g) for _ in range(epochs)]
        self.start = initial(d, classes, g)

    def heads(self, points: list[Point]) -> Tensor:
        heads = Heads(*self.start, [p.batch_size for p in points], [p.weight_decay for p in points])
        for epoch, order in enumerate(self.orders):
            rates = [setup.rate(p, epoch, len(self.orders)) for p in points]
            heads.train_epoch(self.x[epoch], self.y, order, rates)
        return torch.stack([heads.logits(self.x[0], i) for i in range(len(points))])

    def one_pass(self) -> Tensor:
        return self.heads(POINTS)

    def separate(self) -> Tensor:
        return torch.cat([self.heads([p]) for p in POINTS])

    def torch_loop(self, loader: bool) -> Tensor:
        return torch.stack([self._torch_run(p, loader) for p in POINTS])

    def _torch_run(self, point: Point, loader: bool) -> Tensor:
        d, classes = self.x.shape[2], len(self.start[1])
        net = nn.Sequential(nn.BatchNorm1d(d, affine=False), nn.Linear(d, classes))
        net[1].weight.data.copy_(self.start[0])
        net[1].bias.data.copy_(self.start[1])
        optimiser = torch.optim.SGD(
            net.parameters(), point.lr, STUDY.momentum, weight_decay=point.weight_decay
        )
        for epoch, order in enumerate(self.orders):
            optimiser.param_groups[0]["lr"] = setup.rate(point, epoch, len(self.orders))
            if loader:
                data = TensorDataset(self.x[epoch], self.y)
                batches = DataLoader(data, point.batch_size, sampler=order.tolist())
            else:
                batches = ((self.x[epoch][i], self.y[i]) for i in order.split(point.batch_size))
            for x, y in batches:
                if len(x) > 1:
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    optimiser.step()
        with torch.no_grad():
            return net.eval()(self.x[0])


def compare(title: str, jobs: dict[str, Callable[[], object]], rounds: int, notes: dict) -> None:
    """A table of medians, the first job being ours."""
    seconds = in_turn(jobs, rounds)
    ours = next(iter(seconds.values()))
    print(f"\n{title}, median of {rounds}\n\n| job | s | x ours | |\n|---|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.3f} | {taken / ours:.1f} | {notes.get(name, '')} |", flush=True)


def whole(args: argparse.Namespace, cache: Path) -> None:
    task = load_task(f"parquet:{args.data / 'eurosat'}", cache, limit=args.images)
    backbone = load(resolve(MODEL, cache))
    workers = Workers("cpu")
    encoded = encode(backbone, task, cache, workers)
    precision = Precision.parse(encoded.bank.precision)
    job = Whole(Context(backbone, task, encoded.bank, workers, precision, cache, 0))
    job.one_pass()
    found: dict[str, tuple[list[float], np.ndarray]] = {}
    jobs: dict[str, Callable[[], object]] = {
        name: lambda name=name, run=run: found.update({name: run()})
        for name, run in (
            ("one pass", job.one_pass), ("separate", job.separate), ("study", job.study)
        )
    }  # fmt: skip
    title = (
        f"Whole job: {MODEL} ({precision}), {len(task.train)} train and {len(task.test)} test "
        f"images of EuroSAT, {STUDY.tune_epochs} + {STUDY.epochs} epochs"
    )
    seconds = in_turn(jobs, args.rounds)
    accuracy, probability = found["one pass"]
    print(f"\n{title}, median of {args.rounds}\n")
    print("| job | s | x one pass | images encoded | answers off by |\n|---|---|---|---|---|")
    for name, (other, rival) in found.items():
        off = float(np.abs(rival - probability).max())
        assert np.abs(np.subtract(other, accuracy)).max() < 2.5 / len(task.train), (other, accuracy)
        assert off < 0.02, off  # in bf16, batches of other images round differently
        ratio = seconds[name] / seconds["one pass"]
        row = f"| {name} | {seconds[name]:.2f} | {ratio:.1f} | {job.encoded[name]:,} | {off:.1g} |"
        print(row, flush=True)


def alone(args: argparse.Namespace, n: int, d: int, classes: int, epochs: int) -> None:
    job = Alone(epochs, n, d, classes)
    jobs: dict[str, Callable[[], Tensor]] = {
        "one pass": job.one_pass,
        "separate": job.separate,
        "torch, DataLoader": lambda: job.torch_loop(True),
        "torch, indexed": lambda: job.torch_loop(False),
    }
    expected = job.one_pass()
    off = {name: float((run() - expected).abs().max()) for name, run in jobs.items()}
    assert max(off.values()) < 2e-3, off
    title = f"Heads alone: {n} x {d}, {classes} classes, {epochs} epochs"
    compare(title, dict(jobs), args.rounds, {k: f"logits off by {v:.1g}" for k, v in off.items()})


def main() -> None:
    parser = arguments(__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=300)
    args = parser.parse_args()
    alone(args, 1000, 256, 10, 3)
    alone(args, 1000, 2048, 10, 3)
    alone(args, 1000, 512, 200, 3)
    with tempfile.TemporaryDirectory() as cache:
        whole(args, Path(cache))
    print(f"\n{machine('torch', 'numpy')}, {torch.get_num_threads()} threads, "
          f"load {os.getloadavg()[0]:.1f} at the end")  # fmt: skip


if __name__ == "__main__":
    main()
