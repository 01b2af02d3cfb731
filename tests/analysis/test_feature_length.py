"""Every analysis that takes features has the same finding for features of any length.

The networks' features are made longer or shorter where the analyses get them: in every layer, and
of corrupted images too. `tests/protocols/test_scale.py` has the measures one by one and the
protocols; reconstruction, which has maps instead, is in `test_reconstruction.py`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from eval.analysis import ANALYSES, LayerCka, Robustness
from eval.analysis.analyze import analyze
from eval.analysis.corrupted_features import Condition, Corrupted
from eval.analysis.finding import Finding
from eval.analysis.study import Study
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.models.backbone import Backbone
from tests.factories import make_task

ASKED: dict[str, Any] = {
    "cka": LayerCka("rbf"),
    "profile": None,
    "geometry": None,
    "predictors": None,
    "robustness": Robustness(("contrast",), (1, 5)),
}
ELSEWHERE = {
    "reconstruction",  # maps, not features
    "reliability",  # results
    "recommend",  # predictors
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> TaskData:
    photos = make_task(tmp_path_factory.mktemp("length") / "photos", classes=3, train=16, test=12)
    return load_task(f"parquet:{photos}", cache)


def found(name: str, task: TaskData, cache: Path) -> Finding:
    models = ["random:test_resnet", "random:test_resnet@1"]
    return analyze(
        name, models, [task], cache, settings=ASKED[name], img_size=32, device="cpu"
    )  # fmt: skip


def test_none_is_left_out() -> None:
    assert set(ANALYSES) == ASKED.keys() | ELSEWHERE & set(ANALYSES)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("power", [-45, 30])
def test_findings_are_the_same_at_any_length(
    name: str, power: int, task: TaskData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = found(name, task, cache)
    bank, corrupted = Study.bank, Corrupted.features
    seen = []

    def longer(study: Study, backbone: Backbone, task: TaskData) -> FeatureBank:
        one = bank(study, backbone, task)
        seen.append(name)
        return dataclasses.replace(one, features=one.features * 2.0**power)

    def longer_corrupted(images: Corrupted, backbone: Backbone, condition: Condition) -> Tensor:
        return corrupted(images, backbone, condition) * 2.0**power

    monkeypatch.setattr(Study, "bank", longer)
    monkeypatch.setattr(Corrupted, "features", longer_corrupted)
    again = found(name, task, cache)
    assert seen
    alike(again.values, wanted.values)


def alike(a: Any, b: Any) -> None:
    """Numbers to 1e-6, all else exactly."""
    if isinstance(b, dict):
        assert list(a) == list(b)
        for key in b:
            alike(a[key], b[key])
    elif isinstance(b, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            alike(one, other)
    elif isinstance(b, float):
        assert a == pytest.approx(b, rel=1e-6, abs=1.1e-6) or (math.isnan(a) and math.isnan(b))
    else:
        assert a == b
