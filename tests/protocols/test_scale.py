"""Features times a power of two are the same features: every score of every bank protocol to the
bit, every measure of an analysis to 1e-6."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eval.analysis.measures import cka, geometry, predictors
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Fewshot, Knn, Linear, Settings
from eval.training.context import Context
from tests.factories import make_task

ASKED: dict[str, Settings] = {
    "fewshot": Fewshot(shots=(1, 3), queries=4, episodes=30, n_way=3),
    "knn": Knn(ks=(1, 5)),
    "linear": Linear(fractions=(0.5,), subsets=2),
}
POWERS = st.integers(-60, 60)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    folder = tmp_path_factory.mktemp("scale")
    data = make_task(folder / "photos", classes=4, train=12, test=8)
    return load_task(f"parquet:{data}", folder / "cache")


@pytest.fixture(scope="module")
def features(task: TaskData) -> Tensor:
    """[N, 16] of overlapping classes, with a row of zeros and a column that never varies."""
    labels = torch.from_numpy(task.train.labels), torch.from_numpy(task.test.labels)
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(4, 16, generator=draw)
    y = torch.cat(labels)
    x = means[y] + 1.5 * torch.randn(len(y), 16, generator=draw)
    x[:, 3] = 0.7
    x[5] = 0.0
    return x


def scored(task: TaskData, features: Tensor, protocol: str) -> Outcome:
    labels = [torch.from_numpy(part.labels.copy()) for part in (task.train, task.test)]
    bank = FeatureBank(features, torch.cat(labels), len(task.train), "fp32")
    no_network = cast(Backbone, None)
    context = Context(no_network, task, bank, Workers("cpu"), Precision(), Path("/nowhere"), 0)
    return PROTOCOLS[protocol].load()(context, ASKED[protocol])


@pytest.fixture(scope="module")
def exact(task: TaskData, features: Tensor) -> dict[str, Outcome]:
    return {protocol: scored(task, features, protocol) for protocol in ASKED}


@pytest.mark.parametrize("protocol", ASKED)
@settings(max_examples=12)
@given(power=POWERS)
@pytest.mark.slow
def test_scores_are_the_same_at_any_length(
    protocol: str, power: int, task: TaskData, features: Tensor, exact: dict[str, Outcome]
) -> None:
    found = scored(task, features * 2.0**power, protocol)
    assert found.scores == exact[protocol].scores
    assert found.samples == exact[protocol].samples
    assert max(s.value for s in found.scores if s.name.startswith("top1")) > 0.5


MEASURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "separation": lambda x, y: list(vars(geometry.separation(x, y)).values()),
    "effective_rank": lambda x, y: geometry.effective_rank(x),
    "alignment": lambda x, y: geometry.alignment(x[:-1], x[1:]),
    "uniformity": lambda x, y: geometry.uniformity(x),
    "nc1": geometry.nc1,
    "nc2": lambda x, y: list(vars(geometry.nc2(x, y)).values()),
    "linear_cka": lambda x, y: cka.linear_cka(x, x.square() / x.abs().amax()),
    "rbf_cka": lambda x, y: cka.rbf_cka(x, x.square() / x.abs().amax()),
    "minibatch linear": lambda x, y: minibatch(x, "linear"),
    "minibatch rbf": lambda x, y: minibatch(x, "rbf"),
    "h_score": lambda x, y: predictors.h_score(x.numpy(), y.numpy()),
    "shrunk_h_score": lambda x, y: predictors.shrunk_h_score(x.numpy(), y.numpy()),
    "log_me": lambda x, y: predictors.log_me(x.numpy(), y.numpy()),
    "trans_rate": lambda x, y: predictors.trans_rate(x.numpy(), y.numpy()),
    "centroid": lambda x, y: predictors.centroid_separation(x.numpy(), y.numpy()),
}


def minibatch(x: Tensor, kernel: Any) -> list[float]:
    sums = cka.CkaSums(2, 1, kernel)
    for rows in (slice(0, 40), slice(40, 80)):
        sums.add([x[rows], x[rows, :8]], [x[rows, 8:]])
    return cast(list[float], sums.result().values.flatten().tolist())


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=12)
@given(power=POWERS)
def test_measures_are_the_same_at_any_length(
    measure: str, power: int, task: TaskData, features: Tensor
) -> None:
    y = torch.cat([torch.from_numpy(part.labels.copy()) for part in (task.train, task.test)])
    rule = MEASURES[measure]
    assert rule(features * 2.0**power, y) == pytest.approx(rule(features, y), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("protocol", ASKED)
def test_features_that_tell_nothing_apart_are_noted(protocol: str, task: TaskData) -> None:
    """One class for all: exactly chance, and no spread over episodes."""
    n = len(task.train) + len(task.test)
    found = scored(task, torch.zeros(n, 16), protocol)
    said = "exactly chance in every episode" if protocol == "fewshot" else "are one class"
    assert any(said in note for note in found.notes)
    assert not any(said in n for n in scored(task, ordinary(n), protocol).notes)


def ordinary(n: int) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(1))


# What untrained networks make of images: very short features, and ones that hardly differ.
SHORT = ("cspnext_tiny", "lcnetv2_small")
ALIKE = ("cait_xxs24_224", "efficientvit_b0", "convmixer_768_32")


@pytest.mark.parametrize("architecture", [*SHORT, *ALIKE])
@pytest.mark.slow
def test_features_of_untrained_networks_are_scored(
    architecture: str, task: TaskData, tmp_path: Path
) -> None:
    """Short features are scored like long ones. Of those that hardly differ, few-shot's logistic
    regression of unit vectors makes exact chance, and says so."""
    backbone = load(resolve(f"random:{architecture}", tmp_path, 64))
    x = encode(backbone, task, tmp_path, Workers("cpu"), Precision()).bank.features
    length, spread = x.norm(dim=1).mean(), (x - x.mean(0)).norm(dim=1).mean()
    assert length < 1e-8 if architecture in SHORT else spread < 1e-3 * length
    for protocol in ASKED:
        found = scored(task, x, protocol)
        said = any("exactly chance" in note for note in found.notes)
        assert said == (architecture in ALIKE and protocol == "fewshot")
        if architecture in SHORT:
            assert all(s.value > 0.5 for s in found.scores if s.name.startswith("top1"))
        for power in (-40, 30):
            other = scored(task, x * 2.0**power, protocol)
            assert (other.scores, other.samples) == (found.scores, found.samples)
