"""`transfer-eval cka`: two models on a task's images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.__main__ import main
from eval.analysis import LayerCka
from eval.analysis.analyze import analyze
from eval.analysis.cka import BATCH
from eval.analysis.finding import Finding
from eval.analysis.layers import layered
from eval.analysis.measures.cka import CkaSums
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.results.store import read_shelf
from tests.factories import make_task, refusal

A, B = "random:test_resnet", "random:test_vit"


def cka(a: str, b: str, task: TaskData, cache: Path, **settings: Any) -> Finding:
    return analyze("cka", [a, b], [task], cache, settings=LayerCka(**settings), device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("cka") / "photos", classes=3, train=12, test=8)


@pytest.fixture
def task(photos: Path, tmp_path: Path) -> TaskData:
    return load_task(f"parquet:{photos}", tmp_path / "cache")


def test_two_models(task: TaskData, tmp_path: Path) -> None:
    """The map is that of the estimator over the bank's rows in the order of their hashes."""
    cache = tmp_path / "cache"
    found = cka(A, B, task, cache)
    values = found.values
    assert values["images"] == len(task.train) + len(task.test) < BATCH
    assert values["layers_a"][0] == "act1"
    assert values["layers_b"][-1] == "features"
    sides = []
    for model in (A, B):
        many, layers = layered(load(resolve(model, cache, None)))
        bank = encode(many, task, cache, Workers("cpu")).bank
        order = np.argsort(np.concatenate([task.train.keys, task.test.keys]), kind="stable")
        sides.append([x.of(bank.features[torch.from_numpy(order)]) for x in layers])
    sums = CkaSums(len(sides[0]), len(sides[1]))
    sums.add(*sides)
    np.testing.assert_allclose(values["cka"], sums.result().values, atol=1e-6)
    assert [m.id for m in found.models] == [A, B]
    assert found.models[0].weights_sha256
    assert "at different sizes" in " ".join(found.notes) or (
        found.models[0].input["input_size"] == found.models[1].input["input_size"]
    )


def test_a_model_with_itself(task: TaskData, tmp_path: Path) -> None:
    found = cka(A, A, task, tmp_path / "cache")
    values = np.array(found.values["cka"])
    np.testing.assert_allclose(np.diag(values), 1)
    np.testing.assert_allclose(values, values.T, atol=1e-6)
    assert len(found.models) == 1
    assert found.sentence.startswith(f"Within {A} the least alike layers are")


def test_fewer_images_and_layers(task: TaskData, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = cka(A, B, task, cache, images=10, layers=("features",), kernel="rbf")
    assert found.values["images"] == 10
    assert found.values["layers_a"] == ["features"]
    assert found.values["error"] == [[None]]  # one batch says nothing of its spread
    few, unknown = (partial(cka, A, B, task, cache, **x) for x in ({"images": 3}, {"kernel": "p"}))
    assert "needs at least 4 images, got 3" in refusal(few)
    assert "unknown kernel 'p'" in refusal(unknown)


def test_place_by_place(task: TaskData, tmp_path: Path) -> None:
    """Spatial maps say something else than their averages; the last layer has no places."""
    cache = tmp_path / "cache"
    pooled, placed = (cka(A, A, task, cache, spatial=x).values for x in (False, True))
    assert pooled["layers_a"] == placed["layers_a"]
    assert abs(pooled["cka"][0][1] - placed["cka"][0][1]) > 1e-3
    assert placed["cka"][-1][-1] == pytest.approx(1)


def test_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, out = tmp_path / "results", tmp_path / "map.svg"
    command = [
        "cka", A, B, "--task", f"parquet:{photos}", "--results", str(results), "--cache",
        str(tmp_path / "cache"), "--out", str(out), "--device", "cpu",
    ]  # fmt: skip
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "most alike" in text or "most like" in text
    assert "<svg" in out.read_text()
    (file,) = (results / "analyses" / "cka").glob("*.json")
    assert json.loads(file.read_text())["analysis"] == "cka"
    assert read_shelf(results).results == read_shelf(results).foreign == ()  # no score, no stranger
    assert main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"layers_a", "layers_b", "cka"}
    assert main([*command, "--layers", "nose"]) == 2
    assert "its layers are" in capsys.readouterr().err
    assert main([*command, "--images", "3"]) == 2
    assert main([*command[:-4], "--out", "map.jpg"]) == 2
