"""Models of torchvision, of the user's own code, and of other packages' sources."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from eval.models import plugs
from eval.models.backbone import Backbone, load
from eval.models.names import parse_model
from eval.models.resolve import resolve
from eval.models.weights import load_backbone
from tests.factories import refusal
from tests.models.pictures import pixels

PICTURES = [
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (h, w, 3), np.uint8))
    for seed, (h, w) in enumerate([(300, 300), (257, 343)])
]


def saved(folder: Path, name: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = models.get_model(name, weights=None, init_weights=True) if "vgg" in name else (
            models.get_model(name, weights=None)
        )  # fmt: skip
    torch.save(net.state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("convnext_tiny", "classifier.2"),
        pytest.param("vit_b_32", "heads.head", marks=pytest.mark.slow),
    ],
)
def test_features_are_what_the_classifier_of_torchvision_reads(
    tmp_path: Path, name: str, last: str
) -> None:
    file = saved(tmp_path, name)
    backbone = load(resolve(f"torchvision:{name}?file={file}", tmp_path / "cache"))
    net = models.get_model(name, weights=None).eval()
    net.load_state_dict(torch.load(file, weights_only=True))
    preset = models.get_model_weights(name).DEFAULT.transforms()
    images = torch.stack([preset(p) for p in PICTURES])
    torch.testing.assert_close(
        pixels(backbone, PICTURES), images, rtol=0, atol=0.03
    )  # a level, half rounded
    with torch.inference_mode():
        logits = net.get_submodule(last)(backbone.net(images))
        torch.testing.assert_close(logits, net(images), rtol=1e-5, atol=1e-5)


def test_published_weights_from_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    text = "torchvision:resnet18"
    model = resolve(text, tmp_path / "cache")
    assert model.spec == model.id == "torchvision:resnet18@IMAGENET1K_V1"
    assert resolve(f"{text}@IMAGENET1K_V1", tmp_path / "cache") == model
    file = models.get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    saved(tmp_path, "resnet18").rename(tmp_path / "hub/checkpoints" / file)
    assert load(model).dim == 512


def published(folder: Path, name: str, weights: str, state: dict[str, Any]) -> None:
    """Puts the tensors where torch keeps that file of torchvision's once it is downloaded."""
    file = models.get_model_weights(name)[weights].url.rpartition("/")[2]
    (folder / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, folder / "hub/checkpoints" / file)


def check_against_torchvision(folder: Path, name: str, weights: str, last: str) -> list[str]:
    """Holds our features, through the last layer, against what torchvision's own builder makes of
    the same file; the notes of ours."""
    ours = load(resolve(f"torchvision:{name}@{weights}", folder / "cache"))
    theirs = models.get_model(name, weights=weights).eval()
    preset = models.get_model_weights(name)[weights].transforms()
    with torch.inference_mode():
        logits = theirs(torch.stack([preset(p) for p in PICTURES]))
        features = ours.net(exact_pixels(ours, preset))
        torch.testing.assert_close(
            theirs.get_submodule(last)(features), logits, rtol=1e-4, atol=1e-4
        )
    return list(ours.notes)


def exact_pixels(ours: Backbone, preset: Any) -> torch.Tensor:
    """The preset's images, which are not rounded to levels, with our mean and std."""
    images = torch.stack([preset(p) for p in PICTURES])
    unit = images * torch.tensor(preset.std).view(3, 1, 1) + torch.tensor(preset.mean).view(3, 1, 1)
    mean, std = (torch.tensor(ours.input_config[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (unit - mean) / std


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_whose_published_weights_want_other_inputs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = models.get_model(name, weights=None, init_weights=False)
    published(tmp_path, name, "IMAGENET1K_V1", net.state_dict())
    notes = check_against_torchvision(tmp_path, name, "IMAGENET1K_V1", "fc")
    assert any("not part of the backbone" in note and "ux" in note for note in notes)

    file = tmp_path / "mine.pth"  # trained without auxiliary classifiers
    torch.save({k: v for k, v in net.state_dict().items() if "ux" not in k.partition(".")[0]}, file)
    mine = load(resolve(f"torchvision:{name}?file={file}", tmp_path / "cache"))
    assert mine.input_config["mean"] == mine.input_config["std"] == [0.5] * 3
    assert [note for note in mine.notes if "transform_input=False" in note]


def as_published(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Under the names of torchvision's published files, which its loaders rename."""
    if name.startswith("mnasnet"):
        return state  # the names of today, and a version among what torch keeps beside them
    if name == "densenet121":  # its files are older than batch norm's counters, too
        old_names = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v
                     for k, v in state.items()}  # fmt: skip
        return {k: v for k, v in old_names.items() if not k.endswith("num_batches_tracked")}
    old = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    return {re.sub(r"\.mlp\.[03]\.", lambda m: old[m[0]], k): v for k, v in state.items()}


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("densenet121", "classifier"),
        ("mnasnet0_5", "classifier.1"),
        pytest.param("vit_b_32", "heads.head", marks=pytest.mark.slow),
    ],
)
def test_published_files_with_names_of_older_versions(
    name: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = models.get_model(name, weights=None)
        torch.nn.init.normal_(net.get_submodule(last).weight)  # ViT begins with zeros
    published(tmp_path, name, "IMAGENET1K_V1", as_published(name, net.state_dict()))
    assert check_against_torchvision(tmp_path, name, "IMAGENET1K_V1", last) == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_mnasnet_of_the_first_version(wrapped: bool, tmp_path: Path) -> None:
    net = models.mnasnet0_5(weights=None)
    with pytest.warns(UserWarning, match="previous version"):  # torchvision's own way to the stem
        net._load_from_state_dict({}, "", {"version": 1}, False, [], [], [])
    state = net.eval().state_dict()
    assert state["layers.0.weight"].shape[0] == 32  # 16 in the second version
    file = tmp_path / "old.pth"
    torch.save({f"module.{k}": v for k, v in state.items()} if wrapped else state, file)
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    ours = load(resolve(f"torchvision:mnasnet0_5?file={file}", tmp_path / "cache"))
    assert torch.equal(torch.random.get_rng_state(), before)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net.classifier[1](ours.net(images)), net(images))


def test_a_layer_that_refuses_its_tensors_is_a_sentence(tmp_path: Path) -> None:
    class Strict(torch.nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            raise ValueError("this layer takes\nnothing")

    net = torch.nn.Sequential(OrderedDict(layer=Strict(2, 2), fc=torch.nn.Linear(2, 2)))
    state = {k: torch.zeros_like(v) for k, v in net.state_dict().items()}
    said = refusal(lambda: load_backbone(net, state, dict, lambda: None, "model 'x'"))
    assert said == (
        "the weights of model 'x' do not load into its architecture: this layer takes nothing"
    )


@pytest.mark.slow
def test_weights_of_a_larger_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = "IMAGENET1K_SWAG_E2E_V1"
    net = models.vit_b_16(weights=None, image_size=384)
    torch.nn.init.normal_(net.heads.head.weight)  # torchvision begins with zeros
    published(tmp_path, "vit_b_16", weights, net.state_dict())
    assert check_against_torchvision(tmp_path, "vit_b_16", weights, "heads.head") == []


def test_another_size_keeps_the_share_of_the_crop(tmp_path: Path) -> None:
    file = saved(tmp_path, "resnet18")
    found = load(resolve(f"torchvision:resnet18?file={file}", tmp_path / "cache", 112))
    assert found.input_config["input_size"] == [3, 112, 112]
    assert int(112 / found.input_config["crop_pct"]) == 128


def test_weights_of_another_training_are_another_model(tmp_path: Path) -> None:
    file = saved(tmp_path, "resnet18")
    text = f"torchvision:resnet18?file={file}"
    before = resolve(text, tmp_path / "cache").revision
    state = torch.load(file, weights_only=True)
    torch.save(state | {"fc.bias": state["fc.bias"] + 1}, file)
    assert resolve(text, tmp_path / "cache").revision != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torchvision:resnet51", "did you mean"),
        ("torchvision:resnet18@V9", "has no weights 'V9'"),
        ("torchvision:resnet18?file=none.pth", "there is no file 'none.pth'"),
        ("torchvision:../x", "is no torchvision:NAME"),
        ("torchvison:resnet18", "did you mean 'torchvision'"),
        ("python:mine", "a network in memory is scored from Python"),
        ("python:no_such_module:make", "cannot be imported"),
        ("python:json:no_such", "has no function 'no_such'"),
        ("python:json:loads", "python:json:loads fails: TypeError"),
        ("python:time:time", "returns a float; it must return"),
    ],
)
def test_strings_that_mean_nothing(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(resolve, text, tmp_path)


def test_a_file_that_holds_code_is_not_run(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None), tmp_path / "whole.pth")
    text = f"torchvision:resnet18?file={tmp_path / 'whole.pth'}"
    assert "which is code and not a tensor" in refusal(lambda: load(resolve(text, tmp_path)))


CODE = """
import torch
import eval
def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return eval.backbone(net, config, name="mine", pool="avg")
"""


def test_code_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(CODE)
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")  # replaces no library
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    model = resolve("python:my_networks:make", tmp_path / "cache")
    assert model.spec == "python:my_networks:make"
    assert len(model.revision) == 40
    found = load(model)
    assert found.dim == 8
    assert found.resolved == model
    assert str(tmp_path) not in sys.path
    assert resolve("python:my_networks:make", tmp_path / "cache") == model


def test_a_source_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_source.py").write_text(
        "FORM = 'runs:NAME'\n"
        "from eval.models.resolve import ResolvedModel\n"
        "def resolve(text, cache, img_size):\n"
        "    return ResolvedModel('source', 'x', text, text, '0' * 40)\n"
        "def load(model): ...\n"
    )
    entry = importlib.metadata.EntryPoint("runs", "their_source", plugs.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    monkeypatch.syspath_prepend(tmp_path)
    plugs.prefixes.cache_clear()
    try:
        assert parse_model("runs:a/b@c").kind == "source"
        assert resolve("runs:a/b@c", tmp_path).spec == "runs:a/b@c"
    finally:
        plugs.prefixes.cache_clear()


# --------------------------------------------------------------------------- file:


def test_a_file_gives_the_features_of_its_network(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("resnet18", num_classes=7).eval()
    state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": state | {"projector.0.weight": torch.ones(3, 3)}, "epoch": 4}, file)
    model = resolve(f"file:{file}", tmp_path / "cache")
    assert (model.id, model.spec) == ("file:last.ckpt", f"file:{file}")
    found = load(model)
    images = pixels(found, PICTURES)
    net.reset_classifier(0)
    with torch.inference_mode():
        assert torch.equal(found.net(images), net(images))
    said = " ".join(found.notes)
    assert "is read as resnet18" in said
    assert "projection head" in said
    assert found.input_config["input_size"] == [3, 224, 224]


def test_a_file_of_a_named_vision_transformer(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=96).eval()
    file = tmp_path / "mae.pth"
    torch.save({"model": net.state_dict() | {"mask_token": torch.ones(1, 1, 3)}}, file)
    text = f"file:{file}?arch=vit_tiny_patch16_224"
    found = load(resolve(text, tmp_path / "cache"))
    assert found.input_config["input_size"] == [3, 96, 96]
    images = pixels(found, PICTURES)
    with torch.inference_mode():
        assert torch.equal(found.net(images), net(images))
    assert "images of 96 px alone" in refusal(lambda: load(resolve(text, tmp_path, 64)))


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("", "name the architecture"),
        ("?arch=resnet18", "is neither of resnet18 nor known"),
        ("?arch=vit_small_patch16_224", "do not load into its architecture"),
        ("?arch=vit_tinny_patch16_224", "did you mean"),
        ("?arch=", "there is no file"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, arch: str, said: str) -> None:
    import timm

    file = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    assert said in refusal(lambda: load(resolve(f"file:{file}{arch}", tmp_path / "cache")))
