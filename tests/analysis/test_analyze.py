"""`transfer-eval analyze`: geometry and predictors of models on a task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import main
from eval.analysis import forecast, profile, shape
from eval.analysis.analyze import analyze
from eval.analysis.geometry import separation
from eval.analysis.predictors import log_me
from eval.data import TaskData, load_task
from eval.encode import encode
from eval.models import load, resolve
from eval.protocols import Linear
from eval.protocols.linear import score
from eval.results import read_shelf
from eval.workers import Workers
from tests.conftest import make_task, refusal

MODELS = ["random:test_resnet", "random:test_resnet@1", "random:test_vit"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("analyze") / "photos", classes=3, train=12, test=8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def task(photos: Path, cache: Path) -> TaskData:
    return load_task(f"parquet:{photos}", cache)


def test_geometry(task: TaskData, cache: Path) -> None:
    done = analyze("geometry", MODELS[:2], [task], cache, device="cpu")
    values = done.finding.values["models"]
    assert list(values) == MODELS[:2]
    layers = values[MODELS[0]]
    assert list(layers) == ["act1", "layer1", "layer2", "layer3", "layer4", "features"]
    bank = encode(load(resolve(MODELS[0], cache, None)), task, cache, Workers("cpu")).bank
    features, labels = bank.test
    wanted = separation(features, labels)
    assert layers["features"]["test"]["index"] == pytest.approx(wanted.index, abs=1e-4)
    assert layers["features"]["train"]["within"] > 0
    assert set(shape.SHOWN) <= set(layers["act1"]["train"])
    assert len(done.lines) == 2
    assert len(done.lines[0]) == len(done.header)
    assert "separates the test classes most" in done.finding.sentence


def test_predictors_beside_what_was_measured(
    task: TaskData, photos: Path, cache: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    run = ["run", *MODELS, "--task", f"parquet:{photos}", "--protocol", "linear", "--results",
           str(results), "--cache", str(cache), "--device", "cpu"]  # fmt: skip
    assert main(run) == 0
    held = [r for _, r in read_shelf(results).results]
    done = analyze("predictors", MODELS, [task], cache, results=held, device="cpu")
    values = done.finding.values
    top1 = {r.model.id: r.scores[0].value for r in held}
    assert values["measured"] == [top1[m] for m in MODELS]
    assert set(values["agreement"]) == set(forecast.PREDICTORS)
    assert values["agreement"]["log_me"]["models"] == 3
    best = max(MODELS, key=lambda m: values["models"][m]["log_me"])
    assert done.lines[0][0] == best
    assert done.finding.sentence.startswith(f"By LogME {best} is the one to try first; against")
    bank = encode(load(resolve(MODELS[2], cache, None)), task, cache, Workers("cpu")).bank
    wanted = log_me(*(t.numpy() for t in bank.train))
    assert values["models"][MODELS[2]]["log_me"] == pytest.approx(wanted, abs=1e-6)


def test_without_measured_results_nothing_is_claimed(task: TaskData, cache: Path) -> None:
    done = analyze("predictors", MODELS, [task], cache, device="cpu")
    assert done.finding.values["agreement"] == {}
    assert "no three of the models have measured results" in done.finding.sentence
    assert [line[-1] for line in done.lines] == ["-"] * 3


def test_results_on_other_questions_do_not_count(task: TaskData) -> None:
    class Fake:
        def __init__(self, **facts: Any) -> None:
            self.__dict__ |= facts

        def score(self, name: str) -> Any:
            return Fake(value=0.5)

    def result(**changed: Any) -> Any:
        facts = {"protocol": "linear", "split_hash": "a", "limit": None, "seed": 0} | changed
        return Fake(
            protocol=Fake(name=facts["protocol"]), task=Fake(split_hash=facts["split_hash"]),
            model=Fake(weights_sha256="w"), limit=facts["limit"], seed=facts["seed"],
        )  # fmt: skip

    assert forecast.measured([result()], "a", ["w"]) == [0.5]
    for other in ({"protocol": "knn"}, {"split_hash": "b"}, {"limit": 4}, {"seed": 1}):
        assert math.isnan(forecast.measured([result(**other)], "a", ["w"])[0])
    assert np.isnan(forecast.measured([result()], "a", ["v"])).all()


def test_profile(task: TaskData, cache: Path, tmp_path: Path) -> None:
    """A layer's number is that of the protocol linear on that layer's features."""
    done = analyze("profile", MODELS[:1], [task], cache, device="cpu")
    layers = done.finding.values["models"][MODELS[0]][task.name]
    assert next(iter(layers)) == "act1"
    bank = encode(load(resolve(MODELS[0], cache, None)), task, cache, Workers("cpu")).bank
    (wanted,) = (s for s in score(bank, task, Linear(), 0).scores if s.name == "top1")
    assert layers["features"] == [wanted.value, wanted.ci_low, wanted.ci_high]
    assert f"best from {max(layers, key=lambda n: layers[n][0])} in 1 of 1" in done.finding.sentence
    file = profile.draw(MODELS[:1], [{task.name: layers}], tmp_path / "profile.svg")
    assert "<svg" in file.read_text()


def test_levels_are_those_of_the_drawn_tasks() -> None:
    values = {
        "hue": {"a": [0.2, 0, 1], "b": [0.4, 0, 1]}, "glyph": {"a": [0.1, 0, 1], "b": [0.3, 0, 1]},
        "orientation": {"a": [0.6, 0, 1], "b": [0.0, 0, 1]},
    }  # fmt: skip
    found = profile.by_level(values)
    assert list(found) == ["low", "high"]
    assert found["low"] == {"a": pytest.approx(0.4), "b": pytest.approx(0.2)}
    header, (line,) = profile.table(["m"], [values])
    assert line == ["m", "a", "40.0", "20.0", "b", "30.0", "30.0"]
    assert len(header) == len(line)


def test_command(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--task", f"parquet:{photos}", "--results", str(tmp_path), "--cache", str(cache),
            "--device", "cpu"]  # fmt: skip
    assert main(["analyze", "geometry", MODELS[0], *rest]) == 0
    assert "most separating layer" in capsys.readouterr().out
    assert main(["analyze", "predictors", MODELS[0], *rest, "--json"]) == 0
    assert "models" in json.loads(capsys.readouterr().out)
    assert len(list((tmp_path / "analyses").rglob("*.json"))) == 2
    assert main(["analyze", "geometry", MODELS[0], "--results", str(tmp_path)]) == 2
    assert "takes one task, got 0" in capsys.readouterr().err
    assert main(["analyze", "geometri", MODELS[0], *rest]) == 2
    assert "did you mean 'geometry'" in capsys.readouterr().err


def test_boxes_have_no_classes(tmp_path: Path, cache: Path) -> None:
    from tests.detection.make import write_set

    boxes = load_task(f"parquet:{write_set(tmp_path / 'shapes')}", cache)
    assert "has boxes" in refusal(analyze, "geometry", MODELS, [boxes], cache)
