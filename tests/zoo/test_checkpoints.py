"""The checkpoints that ship: six objectives, one recipe, and what their folders promise."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from eval.models.names import ZOO_FOLDER, expand, zoo_names
from eval.models.objectives import STUDY, parse_objective
from eval.training.augment import evaluation
from zoo.train.pixels import open_data
from zoo.train.pretrain import augmentation
from zoo.train.probe import knn_top1
from zoo.train.recipe import load_recipe

NAMES = [f"resnet18_narrow.{parse_objective(o).slug}_tin100" for o in STUDY]


def receipt(name: str) -> dict[str, Any]:
    return tomllib.loads((ZOO_FOLDER / name / "recipe.toml").read_text())


def log_of(name: str) -> list[dict[str, Any]]:
    lines = (ZOO_FOLDER / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_there_is_one_for_each_objective_in_the_order_of_the_study() -> None:
    assert zoo_names() == NAMES
    assert expand("zoo:all") == [f"zoo:{name}" for name in NAMES]
    assert expand("zoo:one") == ["zoo:one"]
    assert [receipt(name)["run"]["objective"] for name in NAMES] == list(STUDY)


def test_only_the_objective_and_its_familys_rate_differ() -> None:
    runs = [receipt(name)["run"] for name in NAMES]
    for key in ("data", "data_fingerprint", "images", "images_seen", "precision", "processes"):
        assert len({run[key] for run in runs}) == 1, key
    recipes = [load_recipe(str(ZOO_FOLDER / name / "recipe.toml")) for name in NAMES]
    assert set(map(repr, recipes)) == {repr(load_recipe("tiny"))}


@pytest.mark.parametrize("name", NAMES)
def test_folder_is_small_whole_and_loads_through_timm(name: str) -> None:
    folder = ZOO_FOLDER / name
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    assert {"README.md", "config.json", "log.jsonl", "model.safetensors", "recipe.toml"} <= {
        p.name for p in folder.iterdir()
    }
    assert not [p for p in folder.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        out = net(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert out.isfinite().all()
    assert out.shape == (2, 100 if "ce" in name.split(".")[1].split("_") else net.num_features) or (
        "ce-strong" in name and out.shape == (2, 100)
    )


@pytest.mark.parametrize("name", NAMES)
def test_log_ends_at_the_last_step_with_finite_terms(name: str) -> None:
    run, lines = receipt(name)["run"], log_of(name)
    losses = [line for line in lines if "total" in line]
    assert losses[-1]["images"] == run["images_seen"]
    steps = [line["step"] for line in losses]
    assert steps == sorted(set(steps))
    for line in losses:
        assert all(np.isfinite(v) for v in line.values())
    assert lines[-1]["knn_top1"] == run["validation_knn_top1"]


@pytest.mark.parametrize("name", NAMES[::5])  # the first and the last: half a minute each
@pytest.mark.slow
def test_the_probe_of_the_receipt_can_be_measured_again(
    name: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The shipped half-precision weights against what training logged; 0.5 points for rounding."""
    recipe = load_recipe(str(ZOO_FOLDER / name / "recipe.toml"))
    cache = tmp_path_factory.getbasetemp() / "tin100"  # shared: the store is built once
    data = open_data(str(real_data / "tiny_imagenet"), 64, cache, need_labels=True)
    assert data.validation is not None
    assert data.train.fingerprint == receipt(name)["run"]["data_fingerprint"]
    net = timm.create_model(f"local-dir:{ZOO_FOLDER / name}", pretrained=True, num_classes=0)
    found = knn_top1(
        net, data.train, data.validation, augmentation(recipe.image), torch.device("cpu"), False,
        recipe.probe.k, recipe.probe.bank,
    )  # fmt: skip
    assert found == pytest.approx(receipt(name)["run"]["validation_knn_top1"], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, o in zip(NAMES, STUDY, strict=True) if "ce" in o[:2]])
def test_cross_entropy_models_classify_out_of_the_box(
    name: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "tin100"
    data = open_data(str(real_data / "tiny_imagenet"), 64, cache, need_labels=True)
    assert data.validation is not None
    assert data.validation.labels is not None
    folder = ZOO_FOLDER / name
    names = json.loads((folder / "config.json").read_text())["label_names"]
    assert tuple(names) == data.train.classes
    rows = np.arange(0, len(data.validation), 5)
    images = torch.from_numpy(data.validation.pixels[rows]).permute(0, 3, 1, 2)
    view = augmentation(load_recipe(str(folder / "recipe.toml")).image)
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        right = net(evaluation(images, view)).argmax(1).numpy() == data.validation.labels[rows]
    assert right.mean() > 0.2  # 100 classes: chance is 0.01
