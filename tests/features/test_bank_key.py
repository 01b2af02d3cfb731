"""What a bank is called by: nothing that changes a feature may be missing from it."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features import encode as module
from eval.features.encode import bank_key, encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.in_memory import backbone as in_memory
from eval.models.resolve import resolve
from tests.hub import LoopbackHub

FP32 = Precision()
INPUT = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}


@pytest.fixture
def task(task_dir: Path, cache: Path) -> TaskData:
    return load_task(f"parquet:{task_dir}", cache)


def saved(folder: Path, **args: Any) -> Path:
    """A small ViT whose config has these ``model_args``; its tensors are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("test_vit", num_classes=0, img_size=32)
    folder.mkdir(parents=True)
    save_file(net.state_dict(), folder / "model.safetensors")
    tree = {
        "architecture": "test_vit", "num_classes": 0, "model_args": {"img_size": 32, **args},
        "pretrained_cfg": INPUT,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(tree))
    return folder


def local(folder: Path) -> Backbone:
    return load(resolve(f"local-dir:{folder}", folder.parent / "cache"))


@pytest.mark.parametrize(
    "args", [{"act_layer": "relu"}, {"global_pool": "avg", "fc_norm": False}], ids=str
)
def test_another_network_of_the_same_tensors_is_encoded_anew(
    args: dict[str, Any], task: TaskData, cache: Path, tmp_path: Path
) -> None:
    """The bank of one would be a stale number under the revision of the other."""
    workers = Workers("cpu")
    plain, changed = local(saved(tmp_path / "plain")), local(saved(tmp_path / "changed", **args))
    assert plain.weights_sha256 == changed.weights_sha256
    first = encode(plain, task, cache, workers, FP32).bank.features.clone()
    found = encode(changed, task, cache, workers, FP32)
    assert found.images == len(task.train) + len(task.test)
    alone = encode(changed, task, tmp_path / "alone", workers, FP32)
    assert torch.equal(found.bank.features, alone.bank.features)
    assert not torch.allclose(first, found.bank.features, atol=1e-3)
    assert torch.equal(encode(plain, task, cache, workers, FP32).bank.features, first)


def test_the_same_network_in_another_place_is_encoded_once(
    task: TaskData, cache: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    """A copy of the folder, and a commit that changes the card alone."""
    folder = saved(tmp_path / "one")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add_model("lab/vit", files)
    keys = {
        bank_key(net, task, FP32).digest
        for net in (local(folder), local(saved(tmp_path / "two")), on_hub(cache))
    }
    hub.add_model("lab/vit", files | {"README.md": b"scored"})
    keys.add(bank_key(on_hub(cache), task, FP32).digest)
    assert len(keys) == 1


def on_hub(cache: Path) -> Backbone:
    return load(resolve("hf-hub:lab/vit", cache))


def test_untrained_networks_of_two_names(task: TaskData, cache: Path) -> None:
    """timm has pairs whose tensors, drawn alike, are the same, and whose padding is not."""
    names = "random:efficientnet_b0", "random:tf_efficientnet_b0"
    one, other = (load(resolve(name, cache, img_size=32)) for name in names)
    assert one.weights_sha256 == other.weights_sha256
    assert bank_key(one, task, FP32) != bank_key(other, task, FP32)


def test_one_file_read_as_two_architectures(task: TaskData, tmp_path: Path, cache: Path) -> None:
    net = timm.create_model("vit_base_patch32_clip_224", num_classes=0)
    file = tmp_path / "clip.pth"
    torch.save(net.state_dict(), file)
    one, other = (
        load(resolve(f"file:{file}?arch=vit_base_patch32_clip_{which}224", cache))
        for which in ("", "quickgelu_")
    )
    assert one.weights_sha256 == other.weights_sha256
    assert bank_key(one, task, FP32) != bank_key(other, task, FP32)


class Doubled(nn.Sequential):
    """The same tensors, another forward."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images).clamp(-1, 1)


def test_networks_in_memory(task: TaskData) -> None:
    config = INPUT | {"interpolation": "bilinear"}

    def made(kind: type[nn.Sequential], pool: Any) -> Backbone:
        torch.manual_seed(0)
        return in_memory(kind(nn.Conv2d(3, 8, 3)), config, "mine", pool=pool)

    nets = [made(nn.Sequential, "avg"), made(nn.Sequential, "max"), made(Doubled, "avg")]
    assert len({net.weights_sha256 for net in nets}) == 1
    for layer in (None, "view0:seed0"):  # of views of train as well
        assert len({bank_key(net, task, FP32, layer).digest for net in nets}) == 3


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """{package: the version that it has from now on}."""
    changed: dict[str, str] = {}
    monkeypatch.setattr(
        "eval.common.versions.version", lambda name: changed.get(name) or version(name)
    )
    monkeypatch.setattr(module, "_versions", module._versions.__wrapped__)  # asks each time
    return changed


def test_libraries_that_compute_are_part_of_it(
    task: TaskData, tmp_path: Path, others: dict[str, str]
) -> None:
    """A receipt states the versions that are here: features of others are none of its."""
    net = local(saved(tmp_path / "one"))
    mine = bank_key(net, task, FP32)
    others["torch"] = version("torch") + "+cu999"  # the same release
    others["transformers"] = "99.1"  # which did not build this network
    assert bank_key(net, task, FP32) == mine
    for name in ("torch", "torchvision", "timm", "pillow"):
        others |= {name: "99.1"}
        assert bank_key(net, task, FP32) != mine
        others.pop(name)
    theirs = dataclasses.replace(
        net, resolved=dataclasses.replace(net.resolved, format="transformers")
    )
    assert json.loads(bank_key(theirs, task, FP32).versions)["transformers"] == "99.1"
