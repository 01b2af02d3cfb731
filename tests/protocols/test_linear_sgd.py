"""linear-sgd on a small made-up task: against torch.nn on the same views, and its edges."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData, take
from eval.data.validation import held_out
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.protocols.linear_sgd import _Grid, fit, score
from eval.settings.protocols import LinearSgd
from eval.solvers.heads import initial
from eval.training.context import Context
from eval.training.setup import Point, milestones, points
from eval.training.views import Views
from tests.factories import make_task, refusal

ROOT = Path(__file__).resolve().parents[2]
QUICK = LinearSgd(batch_sizes=(32, 8), weight_decays=(0.0, 1e-4), tune_epochs=4, epochs=5)


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a cache that fills once."""
    folder = tmp_path_factory.mktemp("linear_sgd")
    make_task(folder / "photos", 4, 12, 8)
    return folder


@pytest.fixture(scope="module")
def backbone(home: Path) -> Backbone:
    return load(resolve("random:test_resnet", home / "cache", img_size=24))


@pytest.fixture(scope="module")
def setup(home: Path, backbone: Backbone, workers: Workers) -> Context:
    """48 train and 32 test images."""
    task = load_task(f"parquet:{home / 'photos'}", home / "cache")
    bank = encode(backbone, task, home / "cache", workers, Precision()).bank
    return Context(backbone, task, bank, workers, Precision(), home / "cache", 0)


def everything(setup: Context) -> np.ndarray:
    return np.arange(len(setup.task.train))


def part_of(setup: Context, rows: np.ndarray) -> TaskData:
    return dataclasses.replace(setup.task, train=take(setup.task.train, rows))


def plain(details: dict[str, Any]) -> dict[str, Any]:
    """What a run must give again: not its times, and not how much of it was cached."""
    return {k: v for k, v in details.items() if k not in ("seconds", "encoded")}


def naive(
    setup: Context, settings: LinearSgd, rows: np.ndarray
) -> tuple[list[float], int, np.ndarray]:
    """Validation accuracies, the chosen point and probabilities, in separate torch.nn runs."""
    task, dim = setup.task, setup.backbone.dim
    views = Views(setup, settings.scale)
    grid = _Grid(setup, settings, rows, held_out(part_of(setup, rows), settings.validation, 0))
    weight, bias = initial(
        dim, len(task.classes), torch.Generator().manual_seed(grid._words("start")[0])
    )

    def run(point: Point, where: np.ndarray, epochs: int) -> nn.Module:
        net = nn.Sequential(nn.BatchNorm1d(dim, affine=False), nn.Linear(dim, len(task.classes)))
        net[1].weight.data.copy_(weight)
        net[1].bias.data.copy_(bias)
        optimiser = torch.optim.SGD(
            net.parameters(), point.lr, settings.momentum, weight_decay=point.weight_decay
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones(epochs), 0.1)
        labels = torch.from_numpy(task.train.labels[where])
        for epoch in range(epochs):
            x = views.epoch(epoch, where)
            for batch in grid._order(epoch, len(where)).split(point.batch_size):
                if len(batch) > 1:
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(net(x[batch]), labels[batch]).backward()
                    optimiser.step()
            schedule.step()
        return net.eval().requires_grad_(False)

    held = rows[grid.held]
    x, y = setup.bank.train
    accuracy = []
    for point in points(settings):
        net = run(point, rows[~grid.held], settings.tune_epochs)
        accuracy.append(float((net(x[held]).argmax(1) == y[held]).float().mean()))
    best = accuracy.index(max(accuracy))
    net = run(points(settings)[best], rows, settings.epochs)
    return accuracy, best, net(setup.bank.test[0]).double().softmax(1).numpy()


@pytest.mark.parametrize("tune_epochs", [4, 7])  # fewer and more than the final training
@pytest.mark.parametrize("rows", [slice(None), slice(3, 40)])
def test_equals_separate_runs_of_torch(setup: Context, tune_epochs: int, rows: slice) -> None:
    settings = dataclasses.replace(QUICK, tune_epochs=tune_epochs)
    some = everything(setup)[rows]
    accuracy, best, probability = naive(setup, settings, some)
    answer = fit(setup, settings, some)
    found = answer.details["points"]
    assert [p["top1"] for p in found] == pytest.approx(accuracy, abs=1e-5)
    grid = points(settings)
    assert [{k: v for k, v in p.items() if k != "top1"} for p in found] == [
        dataclasses.asdict(p) for p in grid
    ]
    assert answer.details["chosen"] == dataclasses.asdict(grid[best])
    assert np.abs(answer.probability - probability).max() < 1e-4
    assert answer.probability.dtype == np.float64
    assert answer.notes == []


def test_score(setup: Context) -> None:
    settings = dataclasses.replace(QUICK, fractions=(0.5,), per_class=(4,), subsets=2)
    out = score(setup, settings)
    scores = {s.name: s for s in out.scores}
    assert {"top1", "mean_per_class", "ece", "nll", "top1_50pct", "top1_4each"} <= scores.keys()
    assert scores["top1"].value > 0.5  # of four classes
    assert out.predictions is not None
    assert len(out.predictions) == len(setup.task.test)
    details = out.details
    assert details["encoded"] == QUICK.epochs * len(setup.task.train)  # tuning costs nothing more
    assert details["epochs"] == QUICK.epochs
    assert details["validation"] == int(held_out(setup.task, 0.3, 0).sum())
    assert details["seconds"].keys() == {"views", "heads"}
    curve = details["curve"]
    assert [(c["part"], c["train"]) for c in curve] == [("50pct", 24)] * 2 + [("4each", 16)] * 2
    again = score(setup, settings)
    assert again.scores == out.scores
    assert plain(again.details).keys() == plain(details).keys()
    json.dumps(details)


def test_twice_and_from_cached_views(setup: Context, home: Path) -> None:
    rows = everything(setup)
    one, two = (fit(setup, QUICK, rows) for _ in range(2))
    assert np.array_equal(one.probability, two.probability)
    assert plain(one.details) == plain(two.details)
    # as many views as epochs are the same views; only the grid is trained in another order
    settings = dataclasses.replace(QUICK, views=QUICK.epochs)
    cached = [fit(setup, settings, rows) for _ in range(2)]
    assert [a.details["encoded"] for a in cached] == [QUICK.epochs * len(rows), 0]
    assert np.array_equal(cached[0].probability, cached[1].probability)
    assert np.abs(cached[0].probability - one.probability).max() < 1e-4
    assert plain(cached[0].details) == plain(cached[1].details) == plain(one.details)
    fewer = fit(setup, dataclasses.replace(QUICK, views=2), rows)
    assert fewer.details["encoded"] == 0  # the first two of those
    assert not np.array_equal(fewer.probability, one.probability)


def test_the_seed_and_the_points_order(setup: Context) -> None:
    rows = everything(setup)
    one = fit(setup, QUICK, rows)
    other = fit(dataclasses.replace(setup, seed=1), QUICK, rows)
    assert not np.array_equal(one.probability, other.probability)
    same = dataclasses.replace(QUICK, lrs=(0.01, 0.01), batch_sizes=(8,), weight_decays=(0.0, 0.0))
    tie = fit(setup, same, rows)  # all points equal: the first is chosen
    assert len({p["top1"] for p in tie.details["points"]}) == 1
    alone = fit(setup, dataclasses.replace(same, lrs=(0.01,), weight_decays=(0.0,)), rows)
    assert np.abs(tie.probability - alone.probability).max() < 1e-5


def test_the_batch_size_of_encoding_changes_rounding_alone(setup: Context) -> None:
    rows = everything(setup)
    found = [
        fit(setup, QUICK, rows, Views(setup, QUICK.scale, batch_size=size)) for size in (5, 48)
    ]
    assert np.abs(found[0].probability - found[1].probability).max() < 1e-4


def test_points_that_diverge(setup: Context) -> None:
    rows = everything(setup)
    # lr x weight decay of 1e6: weights grow a million times a step
    settings = dataclasses.replace(
        QUICK, lrs=(1e3, 0.01), batch_sizes=(4,), weight_decays=(1e3, 0.0), tune_epochs=6
    )
    answer = fit(setup, settings, rows)
    assert answer.details["diverged"] == 1
    assert [p["top1"] is None for p in answer.details["points"]] == [True, *[False] * 3]
    assert answer.notes == [
        "diverged and left out of the grid: lr 1000, batch 4, weight decay 1000"
    ]
    assert np.isfinite(answer.probability).all()
    wild = dataclasses.replace(settings, lrs=(1e3, 1e4), weight_decays=(1e3,))
    text = refusal(fit, setup, wild, rows)
    assert "all 2 points of the grid diverged (lrs 1000, 10000; batch_sizes 4" in text


def test_a_chosen_point_that_diverges_on_all_of_train(setup: Context) -> None:
    """Too few tuning steps to notice."""
    settings = dataclasses.replace(
        QUICK, lrs=(1e3,), batch_sizes=(48,), weight_decays=(1e3,), tune_epochs=1, epochs=40
    )
    text = refusal(fit, setup, settings, everything(setup))
    assert "lr 1000, batch 48, weight decay 1000) diverged on all of it" in text


def test_a_last_batch_of_one_image(setup: Context) -> None:
    rows = everything(setup)[:33]
    left = int((~held_out(part_of(setup, rows), 0.3, 0)).sum())
    settings = dataclasses.replace(QUICK, batch_sizes=(32, left - 1))
    _, _, probability = naive(setup, settings, rows)
    assert np.abs(fit(setup, settings, rows).probability - probability).max() < 1e-4


def test_too_few_images(setup: Context) -> None:
    labels = setup.task.train.labels
    one_each = np.sort([np.flatnonzero(labels == c)[0] for c in range(4)])
    assert "can be held out" in refusal(fit, setup, QUICK, one_each)
    pair = np.sort(np.flatnonzero(labels == 0)[:2])
    assert "BatchNorm needs two" in refusal(fit, setup, QUICK, pair)
    single = dataclasses.replace(QUICK, batch_sizes=(8, 1))
    assert "batch_sizes must be at least 2" in refusal(fit, setup, single, everything(setup))


# ---- several processes

PROCESS = """
import sys
from pathlib import Path
import numpy as np
from eval.data.load import load_task
from eval.features.encode import encode
from eval.common.errors import UserError
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.features.precision import Precision
from eval.protocols import LinearSgd
from eval.protocols.linear_sgd import fit
from eval.training.context import Context
from eval.common.distributed import Workers

home, out = map(Path, sys.argv[1:])
workers = Workers("cpu")
cache = out / "cache"
task = load_task(f"parquet:{home / 'photos'}", cache)
backbone = load(resolve("random:test_resnet", cache, img_size=24))
bank = encode(backbone, task, cache, workers, Precision()).bank
setup = Context(backbone, task, bank, workers, Precision(), cache, 0)
grid = dict(batch_sizes=(32, 8), weight_decays=(0.0, 1e-4), tune_epochs=4, epochs=5)
rows = np.arange(len(task.train))
for views in (0, 5):
    answer = fit(setup, LinearSgd(**grid, views=views), rows)
    assert answer.details["encoded"] == 5 * len(rows), answer.details
    np.save(out / f"{views}-{workers.rank}.npy", answer.probability)
one = fit(setup, LinearSgd(**grid), rows[:7])  # fewer batches than processes
wild = LinearSgd(lrs=(1e6,), batch_sizes=(8,), weight_decays=(1e6,), tune_epochs=9)
try:  # only the main process knows
    fit(setup, wild, rows)
except UserError as error:
    assert "diverged" in str(error)
else:
    raise AssertionError("did not diverge")
workers.close()
"""


@pytest.mark.slow
def test_two_processes_share_the_encoding(setup: Context, home: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(home), str(tmp_path)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [p.communicate(timeout=100)[1] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], said
    alone = fit(setup, QUICK, everything(setup)).probability
    for views in (0, 5):
        for rank in range(2):
            found = np.load(tmp_path / f"{views}-{rank}.npy")
            assert np.abs(found - alone).max() < 1e-4
