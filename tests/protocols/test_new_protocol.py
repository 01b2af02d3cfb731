"""A new protocol is a settings class, a module and a row of the registry; the commands follow."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import torch

from eval.common.errors import UserError
from eval.data.task_data import TaskData
from eval.metrics import intervals
from eval.protocols import PROTOCOLS, Protocol
from eval.protocols.outcome import Outcome
from eval.results.store import read_result
from eval.settings.bounds import Between
from eval.settings.protocols import Settings
from eval.training.context import Context
from eval.training.speed import Speed
from tests.factories import Cli


@dataclass(frozen=True)
class NearestMean(Settings):
    """The class whose mean feature is nearest."""

    shrink: Annotated[float, Between(0, 1)] = 0.0  # of each mean towards that of all images
    most: Annotated[int, Between(0, 10_000)] = 0  # training images; 0: the task's


def score(context: Context[TaskData], settings: NearestMean) -> Outcome:
    (x, y), (x_test, y_test) = context.features.train, context.features.test
    x, y = x[: settings.most], y[: settings.most]
    means = torch.stack([x[y == c].mean(0) for c in range(len(context.task.classes))])
    means += settings.shrink * (x.mean(0) - means)
    out = Outcome()
    correct = (torch.cdist(x_test, means).argmin(1) == y_test).numpy()
    out.add("top1", intervals.accuracy(correct), len(correct))
    out.add_image_samples("top1", correct)
    return out


def complete(settings: NearestMean, task: TaskData) -> NearestMean:
    return settings if settings.most else dataclasses.replace(settings, most=len(task.train))


def refuse(settings: NearestMean, tasks: Sequence[TaskData]) -> None:
    if settings.most and all(settings.most < len(t.classes) for t in tasks):
        raise UserError(f"most must be at least one image a class, got {settings.most}")


def merge(held: Mapping[str, Any], settings: NearestMean) -> NearestMean | None:
    return None if held["most"] >= settings.most else settings


def cost(context: Context[TaskData], settings: NearestMean, speed: Speed) -> float:
    assert context.bank is None
    return settings.most / speed.encoding


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Protocol]:
    module = ModuleType("eval.protocols.nearest_mean")
    vars(module).update(score=score, complete=complete, refuse=refuse, merge=merge, cost=cost)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    hooks = {h: f"{module.__name__}:{h}" for h in ("complete", "refuse", "merge", "cost")}
    row = Protocol("nearest-mean", NearestMean, ("top1",), "the nearest class mean", **hooks)
    monkeypatch.setitem(PROTOCOLS, row.name, row)
    return row


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    return ["random:test_resnet", "--task", "digits", "--img-size", "32", "--precision", "fp32",
            "--protocol", "nearest-mean", "--cache", f"{tmp_path}/c"]  # fmt: skip


def test_run_board_verify_and_run_again(
    registered: Protocol, base: list[str], cli: Cli, tmp_path: Path
) -> None:
    results = ["--results", str(tmp_path / "r")]
    ran = cli("run", *base, *results, "--set", "nearest-mean.shrink=0.25")
    assert ran.code == 0, ran.err
    assert "nearest-mean, top-1, % (" in ran.out
    (file,) = (tmp_path / "r").rglob("*.json")
    result = read_result(file)
    train = result.task.counts["train"]
    assert file.name == f"digits.nearest-mean@shrink=0.25,most={train},precision=fp32.json"
    assert result.protocol.config == {"shrink": 0.25, "most": train}
    (top1,) = result.scores
    assert top1.value > 2 / result.task.counts["classes"]  # twice chance, of an untrained network
    again = cli("run", *base, *results, "--set", "nearest-mean.shrink=0.25")
    assert "0 scored, 1 already there, 0 failed" in again.out
    verified = cli("verify", file, "--cache", tmp_path / "c")
    assert (verified.code, verified.out.splitlines()[0]) == (0, "equal"), verified.out
    board = cli("leaderboard", *results)
    assert (board.code, "nearest-mean" in board.out) == (0, True)


def test_what_it_costs_and_what_it_refuses(registered: Protocol, base: list[str], cli: Cli) -> None:
    (row,) = cli("plan", *base, "--json").json
    assert (row["cells"], row["done"], row["training"] > 0) == (1, 0, True)
    for override, why in (
        ("nearest-mean.shrink=2", "shrink must be at most 1, got 2"),
        ("nearest-mean.shrnk=0", "no setting 'shrnk'; did you mean 'shrink'"),
        ("nearest-mean.most=3", "most must be at least one image a class, got 3"),
    ):
        ran = cli("plan", *base, "--set", override)
        assert (ran.code, ran.out) == (2, "")
        assert why in ran.err
    assert {"setting": "nearest-mean.most", "default": "0"} in cli(
        "list", "protocols", "--verbose", "--json"
    ).json


def test_a_held_result_that_answers_less_is_scored_again(
    registered: Protocol, base: list[str], cli: Cli, tmp_path: Path
) -> None:
    results = ["--results", str(tmp_path / "r")]
    assert cli("run", *base, *results).code == 0
    (file,) = (tmp_path / "r").rglob("*.json")
    held = read_result(file)
    less = held.protocol.model_copy(update={"config": {"shrink": 0.0, "most": 20}})
    file.write_text(held.model_copy(update={"protocol": less}).model_dump_json())
    assert "1 scored, 0 already there" in cli("run", *base, *results).out
    assert read_result(file).protocol.config == held.protocol.config


def test_a_protocol_without_features_is_told_so(
    registered: Protocol, base: list[str], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which line of the registry is wrong, and nothing is encoded."""
    monkeypatch.setitem(PROTOCOLS, registered.name, dataclasses.replace(registered, features=False))
    ran = cli("run", *base, "--results", tmp_path / "r")
    assert ran.code == 1
    assert "the protocol's row in eval.protocols must say features=True" in ran.err
    assert "0 images encoded" in ran.out
