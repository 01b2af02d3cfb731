"""`transfer-eval analyze`: geometry and predictors of models on a task."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import main
from eval.analysis import Geometry, geometry, predictors, profile
from eval.analysis.analyze import analyze
from eval.analysis.finding import Finding
from eval.analysis.layers import layered
from eval.analysis.measures.geometry import separation
from eval.analysis.measures.predictors import log_me
from eval.analysis.plots import saved
from eval.analysis.study import Layered, labels
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols.linear import score_bank
from eval.results.store import read_shelf
from eval.settings.protocols import Linear
from tests.factories import make_task, refusal

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


def test_geometry(task: TaskData, cache: Path, tmp_path: Path) -> None:
    finding = analyze("geometry", MODELS[:2], [task], cache, device="cpu")
    values = finding.values["models"]
    assert list(values) == MODELS[:2]
    layers = values[MODELS[0]][task.name]
    assert list(layers) == ["act1", "layer1", "layer2", "layer3", "layer4", "features"]
    bank = encode(load(resolve(MODELS[0], cache, None)), task, cache, Workers("cpu")).bank
    features, labels = bank.test
    wanted = separation(features, labels)
    assert layers["features"]["test"]["index"] == pytest.approx(wanted.index, abs=1e-4)
    assert layers["features"]["train"]["within"] > 0
    assert set(geometry.SHOWN) <= set(layers["act1"]["train"])
    header, lines = geometry.table(finding)
    assert len(lines) == 2
    assert len(lines[0]) == len(header)
    best = max(MODELS[:2], key=lambda m: values[m][task.name]["features"]["test"]["index"])
    assert finding.sentence.startswith(f"At the end of the network {best} separates")
    assert (
        "effective rank" in saved(partial(geometry.figure, finding), tmp_path / "g.svg").read_text()
    )


def test_geometry_of_several_tasks(
    task: TaskData, cache: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Classes that a model was trained on beside unseen ones: a line and a panel a task."""
    folder = make_task(tmp_path_factory.mktemp("more") / "birds", classes=2, train=6, test=4)
    tasks = [task, load_task(f"parquet:{folder}", cache)]
    asked = Geometry(layers=("layer4", "features"), images=10)
    finding = analyze("geometry", MODELS[:1], tasks, cache, settings=asked, device="cpu")
    assert [line[1] for line in geometry.table(finding)[1]] == [t.name for t in tasks]
    assert list(finding.values["models"][MODELS[0]][tasks[1].name]) == ["layer4", "features"]
    assert "on the mean of 2 tasks" in finding.sentence
    assert "birds" in saved(partial(geometry.figure, finding), tmp_path / "g.svg").read_text()


def test_predictors_beside_what_was_measured(
    task: TaskData, photos: Path, cache: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    run = ["run", *MODELS, "--task", f"parquet:{photos}", "--protocol", "linear", "--results",
           str(results), "--cache", str(cache), "--device", "cpu"]  # fmt: skip
    assert main(run) == 0
    held = [r for _, r in read_shelf(results).results]
    finding = analyze("predictors", MODELS, [task], cache, results=held, device="cpu")
    values, name = finding.values, task.name
    top1 = {r.model.id: r.scores[0].value for r in held}
    assert values["measured"] == {name: top1}
    assert set(values["agreement"][name]) == set(predictors.PREDICTORS)
    assert values["agreement"][name]["log_me"]["models"] == 3
    best = max(MODELS, key=lambda m: values["models"][m][name]["log_me"])
    assert predictors.table(finding)[1][0][0] == best
    assert finding.sentence.startswith(f"By LogME {best} is the one to try first; against")
    bank = encode(load(resolve(MODELS[2], cache, None)), task, cache, Workers("cpu")).bank
    wanted = log_me(*(t.numpy() for t in bank.train))
    assert values["models"][MODELS[2]][name]["log_me"] == pytest.approx(wanted, abs=1e-6)
    drawn = saved(partial(predictors.figure, finding), tmp_path / "p.svg").read_text()
    assert "linear top-1 less the task" in drawn


def test_without_measured_results_nothing_is_claimed(
    task: TaskData, cache: Path, tmp_path: Path
) -> None:
    finding = analyze("predictors", MODELS, [task], cache, device="cpu")
    assert finding.values["agreement"] == {task.name: {}}
    assert "no three of the models have measured results" in finding.sentence
    assert [line[-1] for line in predictors.table(finding)[1]] == ["-"] * 3
    assert "LogME" in saved(partial(predictors.figure, finding), tmp_path / "p.svg").read_text()


def test_results_on_other_questions_do_not_count() -> None:
    class Fake:
        def __init__(self, **facts: Any) -> None:
            self.__dict__ |= facts

        def score(self, name: str) -> Any:
            return Fake(value=0.5)

    def model(weights: str, px: int = 64, revision: str = "r") -> Any:
        size = {"input_size": [3, px, px]}
        return Fake(weights_sha256=weights, input=size, revision=revision)

    def result(**changed: Any) -> Any:
        facts = {"protocol": "linear", "split_hash": "a", "limit": None, "seed": 0} | changed
        return Fake(
            protocol=Fake(name=facts["protocol"]), task=Fake(split_hash=facts["split_hash"]),
            model=model("w", facts.pop("px", 64), facts.pop("revision", "r")),
            limit=facts["limit"], seed=facts["seed"], environment=Fake(dtype="fp32"),
        )  # fmt: skip

    models = [model("w"), model("v")]
    assert predictors.measured_scores([result()], "a", models) == [0.5, None]
    for other in (
        {"protocol": "knn"}, {"split_hash": "b"}, {"limit": 4}, {"seed": 1}, {"px": 32},
        {"revision": "of another network of these weights"},
    ):  # fmt: skip
        assert predictors.measured_scores([result(**other)], "a", models) == [None, None]


def test_profile(task: TaskData, cache: Path, tmp_path: Path) -> None:
    """A layer's number is that of the protocol linear on that layer's features."""
    finding = analyze("profile", MODELS[:1], [task], cache, device="cpu")
    layers = finding.values["models"][MODELS[0]][task.name]
    assert next(iter(layers)) == "act1"
    bank = encode(load(resolve(MODELS[0], cache, None)), task, cache, Workers("cpu")).bank
    (wanted,) = (s for s in score_bank(bank, task, Linear(), 0).scores if s.name == "top1")
    assert layers["features"] == [wanted.value, wanted.ci_low, wanted.ci_high]
    assert f"best from {max(layers, key=lambda n: layers[n][0])} in 1 of 1" in finding.sentence
    assert "<svg" in saved(partial(profile.figure, finding), tmp_path / "profile.svg").read_text()


def test_levels_are_those_of_the_drawn_tasks() -> None:
    values = {
        "hue": {"a": [0.2, 0, 1], "b": [0.4, 0, 1]}, "glyph": {"a": [0.1, 0, 1], "b": [0.3, 0, 1]},
        "orientation": {"a": [0.6, 0, 1], "b": [0.0, 0, 1]},
    }  # fmt: skip
    found = profile.by_level(values)
    assert list(found) == ["low", "high"]
    assert found["low"] == {"a": pytest.approx(0.4), "b": pytest.approx(0.2)}
    stored = Finding.model_construct(values={"models": {"m": values}})
    header, (line,) = profile.table(stored)
    assert line == ["m", "a", "40.0", "20.0", "b", "30.0", "30.0"]
    assert len(header) == len(line)


def test_command(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--task", f"parquet:{photos}", "--results", str(tmp_path), "--cache", str(cache),
            "--device", "cpu"]  # fmt: skip
    picture = tmp_path / "geometry.png"
    settings = ["--set", 'layers=["layer4", "features"]', "images=12"]
    assert main(["analyze", "geometry", MODELS[0], *rest, *settings, "--out", str(picture)]) == 0
    assert "most separating layer" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["analyze", "predictors", MODELS[0], *rest, "--json"]) == 0
    assert "models" in json.loads(capsys.readouterr().out)
    assert len(list((tmp_path / "analyses").rglob("*.json"))) == 2
    assert main(["analyze", "geometry", MODELS[0], *rest, "--limit", "6"]) == 0
    assert "limited to 6 images a split" in capsys.readouterr().out
    # settings that differ are findings of their own; the same again replaces
    assert main(["analyze", "geometry", MODELS[0], *rest]) == 0
    assert main(["analyze", "geometry", MODELS[0], *rest, "--limit", "6"]) == 0
    names = sorted(p.name for p in (tmp_path / "analyses" / "geometry").iterdir())
    assert [n.partition(".random")[2].partition("@seed0")[2] for n in names] == [
        ".json", "@layers=layer4+features,images=12.json", "@limit=6.json"
    ]  # fmt: skip
    assert main(["analyze", "geometry", MODELS[0], "--results", str(tmp_path)]) == 2
    assert "name one with --task" in capsys.readouterr().err
    for mistake, why in (
        (["geometri", MODELS[0]], "did you mean 'geometry'"),
        (["cka", *MODELS], "takes 2 models at most, got 3"),
        (["geometry", MODELS[0], "--set", "image=3"], "did you mean 'images'"),
        (["geometry", MODELS[0], "--set", "images"], "write --set name=value"),
        (["geometry", MODELS[0], "--set", 'layers=["nose"]'], "its layers are act1"),
        (["cka", MODELS[0], "--set", "kernel=poly"], "kernel must be one of linear, rbf"),
        (["geometry", MODELS[0], "--out", "x.gif"], "must end in .png or .svg"),
    ):
        assert main(["analyze", *mistake, *rest]) == 2
        assert why in capsys.readouterr().err


def test_a_constant_layer_says_nothing(task: TaskData, cache: Path) -> None:
    """A layer that is the same for all images: a probe guesses, geometry has no numbers."""
    backbone = load(resolve(MODELS[0], cache, None))
    many, layers = layered(backbone, ["layer4", "features"])
    bank = encode(many, task, cache, Workers("cpu")).bank
    features = bank.features.clone()
    features[:, layers[0].start : layers[0].stop] = 0.25
    held = Layered(backbone, layers, dataclasses.replace(bank, features=features))
    found = profile.measure(held, task)
    largest = np.bincount(task.test.labels).max() / len(task.test)
    assert found["layer4"][0] <= largest + 1e-6
    one = geometry.measure(held, task, 100)["layer4"]["test"]
    assert one["nc1"] is None
    assert one["within"] == pytest.approx(0, abs=1e-6)
    assert geometry.measure(held, task, 100)["features"]["test"]["nc1"] is not None


def test_one_class_is_no_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_task(tmp_path / "one", classes=1, train=6, test=4)
    for command in (["analyze", "geometry", MODELS[0]], ["recommend", MODELS[0]]):
        rest = ["--task", f"parquet:{folder}", "--results", str(tmp_path / "r"), "--cache",
                str(tmp_path / "c")]  # fmt: skip
        assert main([*command, *rest]) == 2
        assert "at least two classes are needed" in capsys.readouterr().err


def test_two_revisions_of_one_model_have_two_names(cache: Path) -> None:
    first, other = (resolve(m, cache, None) for m in MODELS[:2])
    twin = dataclasses.replace(other, id=first.id)
    assert labels([first, twin]) == [f"{m.id}@{m.revision[:7]}" for m in (first, twin)]
    assert labels([first, other]) == MODELS[:2]


def test_boxes_have_no_classes(tmp_path: Path, cache: Path) -> None:
    from tests.data.boxes.make import write_set

    boxes = load_task(f"parquet:{write_set(tmp_path / 'shapes')}", cache)
    assert "has boxes" in refusal(analyze, "geometry", MODELS, [boxes], cache)
