"""A fine-tuned network that is kept: timm loads it, and it answers as its result says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from torch import nn

from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import normalised, pixels_of
from eval.finetune import saved_model as finetune_kept
from eval.finetune.grid import fit
from eval.finetune.saved_model import ALONE, FOLDED, Keeper, folded
from eval.finetune.train import Classifier, Training
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.results.store import read_result
from tests.factories import Cli, make_task, refusal
from tests.finetune.setups import SHORT, everything, make_setup

EPOCHS = ["finetune.lrs=[0.05]", "finetune.weight_decays=[0.0]", "finetune.epochs=4"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_task(tmp_path / "photos", classes=4, train=12, test=8)


def command(
    home: Path, data: Path, *more: str, model: str = "random:test_resnet", px: int = 24
) -> list[Any]:
    return [
        "run", model, "--task", f"parquet:{data}", "--protocol", "finetune", "--grid", "small",
        "--set", *EPOCHS, "--img-size", str(px), "--precision", "fp32", "--device", "cpu",
        "--cache", home / "c", "--results", home / "r", *more,
    ]  # fmt: skip


def the_result(home: Path) -> Path:
    (file,) = (p for p in (home / "r").rglob("*.json") if p.name != "config.json")
    return file


def the_model(home: Path) -> Path:
    (folder,) = (home / "r").rglob("*.model")
    return folder


def images_of_test(backbone: Backbone, task: TaskData) -> torch.Tensor:
    """[N, 3, H, W]: all test images as the model is to see them."""
    pixels = []
    for row in task.test.rows:
        ((_, image),) = task.test.source.images(np.array([row]))
        pixels.append(pixels_of(backbone, task, task.test, row, image))
    return normalised(np.stack(pixels), backbone)


@pytest.mark.parametrize(("model", "px"), [("random:test_resnet@3", 24), ("random:test_vit", 32)])
def test_timm_loads_what_answered(
    model: str, px: int, cli: Cli, data: Path, tmp_path: Path
) -> None:
    asked = command(tmp_path, data, "--keep-model", model=model, px=px)
    ran = cli(*asked)
    assert ran.code == 0, ran.err
    folder, result = the_model(tmp_path), read_result(the_result(tmp_path))
    assert folder.name == the_result(tmp_path).name.removesuffix(".json") + ".model"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == [f"kind {i}" for i in range(4)]
    assert config["finetuned"]["head"] == FOLDED
    assert config["finetuned"]["task"]["split_hash"] == result.task.split_hash

    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    task = load_task(f"parquet:{data}", tmp_path / "c")
    backbone = load(resolve(f"local-dir:{folder}", tmp_path / "c"))
    assert backbone.input_config == load(resolve(model, tmp_path / "c", px)).input_config
    with torch.no_grad():
        logits = net(images_of_test(backbone, task))
    top1 = float((logits.argmax(1).numpy() == task.test.labels).mean())
    (score,) = (s.value for s in result.scores if s.name == "top1")
    assert top1 == score > 0.3
    nll = float(nn.functional.cross_entropy(logits, torch.from_numpy(task.test.labels)))
    assert nll == pytest.approx(next(s.value for s in result.scores if s.name == "nll"), abs=1e-4)


@pytest.mark.slow
def test_kept_once_and_used(cli: Cli, data: Path, tmp_path: Path) -> None:
    """A result without its model is found again, with the same numbers; then nothing is left to
    do, and the model is one like others."""
    assert cli(*command(tmp_path, data)).code == 0
    before = read_result(the_result(tmp_path))
    assert not list(tmp_path.rglob("*.model"))
    ran = cli(*command(tmp_path, data, "--keep-model"))
    assert "1 scored, 0 already there" in ran.out, ran.err
    after = read_result(the_result(tmp_path))
    assert after.scores == before.scores
    assert after.details["chosen"] == before.details["chosen"]
    folder = the_model(tmp_path)
    stamps = [p.stat().st_mtime_ns for p in sorted(folder.iterdir())]
    assert "0 scored, 1 already there" in cli(*command(tmp_path, data, "--keep-model")).out
    assert stamps == [p.stat().st_mtime_ns for p in sorted(folder.iterdir())]

    common = ["--cache", tmp_path / "c", "--device", "cpu"]
    ran = cli(
        "run", f"local-dir:{folder}", "--task", f"parquet:{data}", "--protocol", "knn",
        "--keep-model", "--results", tmp_path / "knn", *common,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert not list((tmp_path / "knn").rglob("*.model"))  # nothing was trained
    ran = cli(
        "cka", "random:test_resnet", f"local-dir:{folder}", "--task", f"parquet:{data}",
        "--img-size", "24", "--results", tmp_path / "knn", *common,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    # A kept model is fine-tuned again, and its config is that of a checkpoint.
    assert (
        cli(*command(tmp_path / "2", data, "--keep-model", model=f"local-dir:{folder}")).code == 0
    )
    config = json.loads((the_model(tmp_path / "2") / "config.json").read_text())
    assert config["finetuned"]["model"]["weights_sha256"]
    assert len(config["label_names"]) == config["num_classes"] == 4


def test_arguments_of_the_checkpoint_are_kept(cli: Cli, data: Path, tmp_path: Path) -> None:
    """A narrow network whose config.json says so, with a classifier of its own that goes."""
    net = timm.create_model("resnet18", num_classes=7, channels=(8, 8, 16, 24))
    folder = tmp_path / "narrow"
    config = {
        "architecture": "resnet18",
        "num_classes": 7,
        "model_args": {"channels": [8, 8, 16, 24], "num_classes": 7},
        "pretrained_cfg": {"input_size": [3, 24, 24], "mean": [0.4] * 3, "crop_pct": 0.9,
                           "first_conv": "conv1", "classifier": "fc"},
    }  # fmt: skip
    finetune_kept._write(folder, config, net)
    ran = cli(*command(tmp_path, data, "--keep-model", model=f"local-dir:{folder}"))
    assert ran.code == 0, ran.err
    found = json.loads((the_model(tmp_path) / "config.json").read_text())
    assert found["model_args"] == {"channels": [8, 8, 16, 24]}
    assert (found["num_classes"], found["num_features"]) == (4, 24)
    assert found["pretrained_cfg"]["mean"] == [0.4] * 3
    kept = timm.create_model(f"local-dir:{the_model(tmp_path)}", pretrained=True)
    assert cast(Any, kept).fc.out_features == 4


def test_folded_head() -> None:
    torch.manual_seed(0)
    norm, linear = nn.BatchNorm1d(6), nn.Linear(6, 3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm(torch.randn(50, 6) * 3 + 1)
    x = torch.randn(9, 6)
    weight, bias = folded(norm, linear)
    torch.testing.assert_close(x @ weight.T + bias, linear(norm.eval()(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("why", ["other features", "no linear layer"])
def test_a_head_that_timm_cannot_hold(
    why: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone is kept alone, and the config says so."""
    large = load(resolve("random:test_resnet", tmp_path / "c", 64))  # maps with something to pool
    setup = dataclasses.replace(make_setup(data, tmp_path / "c"), backbone=large)
    net = Classifier(large, 4, 0)
    plain = finetune_kept._empty

    def empty(config: dict[str, Any]) -> Any:
        found: Any = plain(config)
        if config["num_classes"] and why == "no linear layer":
            found.fc = nn.Sequential(found.fc)
        elif config["num_classes"]:
            found.global_pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        return found

    monkeypatch.setattr(finetune_kept, "_empty", empty)
    keeper = Keeper(setup, SHORT, tmp_path / "kept")
    assert keeper.wants("a digest")
    keeper.keep(net)
    assert not keeper.wants("a digest")
    assert keeper.wants("another")
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["num_classes"] == 0
    assert config["finetuned"]["head"] == ALONE
    assert "label_names" not in config
    loaded = load(resolve(f"local-dir:{tmp_path / 'kept'}", tmp_path / "c"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.net(images), net.eval().backbone(images))


def test_kept_after_its_answer_was_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished fine-tuning the last training alone is repeated; of a kept one nothing."""
    setup = make_setup(data, tmp_path / "c")
    rows = everything(setup)
    first = fit(setup, SHORT, rows)
    started: list[int] = []
    plain = Training.run

    def run(self: Training, until: int, *args: Any) -> None:
        started.append(until)
        plain(self, until, *args)

    monkeypatch.setattr(Training, "run", run)
    folder = tmp_path / "kept"
    again = fit(setup, SHORT, rows, Keeper(setup, SHORT, folder))
    assert started == [SHORT.epochs]
    assert np.array_equal(first.probability, again.probability)
    assert (folder / "config.json").is_file()
    fit(setup, SHORT, rows, Keeper(setup, SHORT, folder))
    assert started == [SHORT.epochs]
    (folder / "config.json").write_text("{}")  # of something else
    fit(setup, SHORT, rows, Keeper(setup, SHORT, folder))
    assert started == [SHORT.epochs] * 2


def test_what_cannot_be_kept_is_not_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup(data, tmp_path / "c")
    cast(Any, setup.backbone.net.net).extra = nn.Linear(2, 2)  # timm builds no such layer
    keeper = Keeper(setup, SHORT, tmp_path / "kept")
    text = refusal(fit, setup, SHORT, everything(setup), keeper)
    assert "random:test_resnet cannot be kept" in text
    assert "run without --keep-model" in text
    del cast(Any, setup.backbone.net.net).extra

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finetune_kept, "write_json", full)
    text = refusal(fit, setup, SHORT, everything(setup), keeper)
    assert "No space left on device" in text
    assert not (tmp_path / "kept" / "config.json").exists()
