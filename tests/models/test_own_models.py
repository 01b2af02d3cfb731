"""Folders as people bring them (rows of cases/own-models): scored rightly, or one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file, save_model
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from eval.common.files import sha256_file
from eval.models.backbone import Backbone, load
from eval.models.resolve import folder_revision, resolve
from tests.factories import refusal
from tests.models.checkpoints import checkpoint

PICTURE = Image.fromarray(np.random.RandomState(1).randint(0, 256, (40, 40, 3), np.uint8))


def loaded(folder: Path) -> Backbone:
    return load(resolve(f"local-dir:{folder}", folder.parent / "cache"))


def refused(folder: Path) -> str:
    """The sentence, from whichever step says it; one sentence of one line."""
    said = refusal(loaded, folder)
    assert "\n" not in said
    assert len(said) < 500
    return said


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def keep(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    return folder


def configure(folder: Path, inner: dict[str, Any] | None = None, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | changes
    if inner is not None:
        config["pretrained_cfg"] |= inner
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "m")


@pytest.fixture
def wanted(tmp_path: Path) -> Tensor:
    """Features of the untouched checkpoint, by timm."""
    return timms(checkpoint(tmp_path / "untouched"))


def timms(folder: Path) -> Tensor:
    net = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        return net(images())


def images(size: int = 32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def features(backbone: Backbone) -> Tensor:
    with torch.inference_mode():
        return backbone.net(images(backbone.input_config["input_size"][1]))


# --------------------------------------------------------------------------- rows 2 and 3


def test_a_number_of_classes_that_differs_in_model_args_drops_nothing_else(
    folder: Path, wanted: Tensor
) -> None:
    backbone = loaded(configure(folder, model_args={"num_classes": 9}))
    assert torch.equal(features(backbone), wanted)
    (note,) = backbone.notes
    assert "fc.weight has the shape (5, 96), not (9, 96)" in note


def two_layers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in ("conv1.0.weight", "fc.weight")}


def padding(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"padding": torch.zeros(100_000)}


def wrong_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"my_net.{k}": v for k, v in state.items()}


@pytest.mark.parametrize("args", [{}, {"num_classes": 9}], ids=["", "num_classes"])
@pytest.mark.parametrize(
    ("change", "missing"), [(two_layers, 74), (padding, 75), (wrong_prefix, 75)]
)
def test_weights_that_leave_tensors_as_they_were_drawn(
    change: Callable[..., dict[str, Tensor]], missing: int, args: dict[str, Any], folder: Path
) -> None:
    keep(folder, change(weights(folder)))
    said = refused(configure(folder, model_args=args))
    assert f"{missing} of its 75 tensors are missing (" in said


def test_whatever_is_loaded_gives_the_same_features_twice(folder: Path) -> None:
    """Nothing of a network may come from the stream of random numbers."""
    torch.manual_seed(1)
    one = features(loaded(folder))
    torch.manual_seed(2)
    assert torch.equal(features(loaded(folder)), one)


# --------------------------------------------------------------------------- row 4


def test_a_head_of_another_width(folder: Path, wanted: Tensor) -> None:
    backbone = loaded(keep(folder, weights(folder) | {
        "fc.weight": torch.zeros(11, 96), "fc.bias": torch.zeros(11),
    }))  # fmt: skip
    assert torch.equal(features(backbone), wanted)
    assert "classifier of local-dir:m is another than config.json says" in backbone.notes[0]


def test_no_head(folder: Path, wanted: Tensor) -> None:
    state = {k: v for k, v in weights(folder).items() if not k.startswith("fc.")}
    backbone = loaded(keep(folder, state))
    assert torch.equal(features(backbone), wanted)
    assert backbone.notes == (
        "the weights of local-dir:m have no classifier; only the backbone is scored",
    )


def test_a_head_where_there_are_no_classes(folder: Path, wanted: Tensor) -> None:
    backbone = loaded(configure(folder, {"num_classes": 0}, num_classes=0))
    assert torch.equal(features(backbone), wanted)
    assert backbone.notes == (
        "2 tensors are not part of the backbone of local-dir:m and dropped (fc.bias, fc.weight)",
    )


def test_an_extra_projector(folder: Path, wanted: Tensor) -> None:
    state = weights(folder) | {"projector.0.weight": torch.ones(8, 96)}
    backbone = loaded(keep(folder, state))
    assert torch.equal(features(backbone), wanted)
    assert "1 tensor is not part" in backbone.notes[0]
    assert "(projector.0.weight)" in backbone.notes[0]


def test_nothing_is_said_of_what_is_as_it_should_be(folder: Path) -> None:
    assert loaded(folder).notes == ()


@pytest.mark.parametrize("extra", ["layer4.7.conv1.weight", "layer1.0.se.fc1.weight"])
def test_layers_that_config_json_does_not_tell_of(extra: str, folder: Path) -> None:
    """Dropping them would score half of what was trained."""
    said = refused(keep(folder, weights(folder) | {extra: torch.zeros(3)}))
    assert f"1 tensors belong to a larger or another network ({extra})" in said


def test_a_vit_of_fewer_blocks_than_its_weights(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "test_vit")
    said = refused(configure(folder, model_args={"depth": 3}))
    assert "larger or another network (blocks.3." in said


# --------------------------------------------------------------------------- rows 5 and 6


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_go_without_a_word(prefix: str, folder: Path, wanted: Tensor) -> None:
    backbone = loaded(keep(folder, {prefix + k: v for k, v in weights(folder).items()}))
    assert torch.equal(features(backbone), wanted)
    assert backbone.notes == ()


@pytest.mark.parametrize(
    "prefix", ["model.", "backbone.", "encoder.", "model.backbone.", "model._orig_mod."]
)
def test_prefixes_of_ones_own_class_are_said(prefix: str, folder: Path, wanted: Tensor) -> None:
    state = {prefix + k: v for k, v in weights(folder).items() if not k.startswith("fc.")}
    backbone = loaded(keep(folder, state | {"classifier.weight": torch.zeros(4, 96)}))
    assert torch.equal(features(backbone), wanted)
    assert f"the weights lie under {prefix!r}, which was taken off" in backbone.notes[0]
    assert "(classifier.weight)" in backbone.notes[2]


def test_two_networks_in_one_file(folder: Path) -> None:
    state = weights(folder)
    both = {f"{p}.{k}": v.clone() for p in ("model", "encoder") for k, v in state.items()}
    assert "under 'model.' as under 'encoder.'; keep one" in refused(keep(folder, both))


# --------------------------------------------------------------------------- row 7


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float, folder: Path) -> None:
    state = weights(folder)
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    said = refused(keep(folder, state))
    assert "NaN or infinite numbers in 1 tensor (layer2.0.conv1.weight)" in said


def test_a_classifier_of_nan_harms_nobody(folder: Path, wanted: Tensor) -> None:
    state = weights(folder)
    state["fc.weight"][:] = torch.nan
    assert torch.equal(features(loaded(keep(folder, state))), wanted)


def test_quantised_weights(folder: Path) -> None:
    state = weights(folder)
    state["conv1.0.weight"] = state["conv1.0.weight"].to(torch.int8)
    assert "conv1.0.weight is of int8, no floating-point type" in refused(keep(folder, state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions(dtype: torch.dtype, folder: Path) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights(folder).items()}
    backbone = loaded(keep(folder, state))
    held = backbone.net.net.state_dict()
    assert all(torch.equal(held[k], v.to(held[k].dtype)) for k, v in state.items() if k in held)
    assert features(backbone).dtype == torch.float32


# --------------------------------------------------------------------------- row 8


def test_a_config_with_a_byte_order_mark(folder: Path, wanted: Tensor) -> None:
    raw = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + raw)
    assert torch.equal(features(loaded(folder)), wanted)


@pytest.mark.parametrize(
    "size", ["3, 32, 32", [32, 32], [3, 32, "32"], [3, 32, True], 32, [3, 0, 9]]
)
def test_input_sizes_that_are_none(size: Any, folder: Path) -> None:
    said = refused(configure(folder, {"input_size": size}))
    assert "input_size" in said


@pytest.mark.parametrize("form", ["null", "absent", "flat"])
def test_a_config_without_pretrained_cfg(form: str, folder: Path, wanted: Tensor) -> None:
    config = json.loads((folder / "config.json").read_text())
    inner = config.pop("pretrained_cfg")
    config |= {"null": {"pretrained_cfg": None}, "absent": {}, "flat": inner}[form]
    config["global_pool"] = "avg"  # as timm before 0.9 wrote it
    (folder / "config.json").write_text(json.dumps(config))
    backbone = loaded(folder)
    assert backbone.input_config["mean"] == (
        [0.4, 0.5, 0.6] if form == "flat" else [0.485, 0.456, 0.406]
    )
    assert backbone.input_config["input_size"] == ([3, 32, 32] if form == "flat" else [3, 224, 224])
    with torch.inference_mode():
        assert torch.equal(backbone.net(images()), wanted)


def test_the_pooling_of_an_older_file_is_heeded(tmp_path: Path) -> None:
    """A ViT that averages its tokens has other features than one that reads the first."""
    found = []
    for pool in ("token", "avg"):
        folder = checkpoint(tmp_path / pool, "test_vit")
        state = weights(folder)
        if pool == "avg":  # timm names the last norm by the pooling
            state = {k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v
                     for k, v in state.items()}  # fmt: skip
        config = json.loads((folder / "config.json").read_text())
        config |= config.pop("pretrained_cfg") | {"global_pool": pool}
        (keep(folder, state) / "config.json").write_text(json.dumps(config))
        found.append(features(loaded(folder)))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    "inner",
    [
        {"url": "https://example.org/x.pth"}, {"file": "/etc/passwd"}, {"hf_hub_id": "org/other"},
        {"hf_hub_filename": "other.bin"}, {"custom_load": True}, {"custom_load": "hf"},
        {"state_dict": {"fc.weight": 1}}, {"source": "url", "url": "file:///etc/passwd"},
        {"label_offset": 3}, {"no_such_key": 1}, {"architecture": "resnet18"},
    ],
)  # fmt: skip
def test_places_that_a_config_names_have_no_effect(
    inner: dict[str, Any], folder: Path, wanted: Tensor
) -> None:
    assert torch.equal(features(loaded(configure(folder, inner))), wanted)


# --------------------------------------------------------------------------- row 9


CONVERTED = [
    ({"mean": [0.5], "std": [0.25]}, [0.5] * 3, [0.25] * 3, 2),
    ({"mean": 0.5, "std": 0.25}, [0.5] * 3, [0.25] * 3, 2),
    ({"mean": [0, 0, 0], "std": [1, 1, 1]}, [0, 0, 0], [1, 1, 1], 0),
    ({"mean": [127.5, 127.5, 127.5], "std": [51.0, 51.0, 51.0]}, [0.5] * 3, [0.2] * 3, 1),
    ({"mean": 0, "std": 255}, [0.0] * 3, [1.0] * 3, 3),
    ({"mean": [102.0, 51.0, 25.5], "std": 1}, [0.4, 0.2, 0.1], [1 / 255] * 3, 2),
]


@pytest.mark.parametrize(("inner", "mean", "std", "notes"), CONVERTED)
def test_means_that_are_converted_and_said(
    inner: dict[str, Any], mean: list[float], std: list[float], notes: int, folder: Path
) -> None:
    backbone = loaded(configure(folder, inner))
    assert backbone.input_config["mean"] == pytest.approx(mean)
    assert backbone.input_config["std"] == pytest.approx(std)
    assert len(backbone.notes) == notes


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ({"std": [0.2, 0, 0.2]}, "std must be above 0"),
        ({"std": 0}, "std must be above 0"),
        ({"std": [-0.2, 0.2, 0.2]}, "std must be above 0"),
        ({"mean": [-0.5, 0.2, 0.2]}, "mean not below it"),
        ({"mean": [0.5, 0.5]}, "three numbers, one for each channel, or one for all"),
        ({"mean": "0.5"}, "three numbers, one for each channel"),
        ({"mean": [0.5, None, 0.5]}, "three numbers, one for each channel"),
        ({"mean": [0.5, float("nan"), 0.5]}, "three numbers, one for each channel"),
        ({"mean": [123.7, 116.3, 103.5]}, "neither pixels in 0 to 1 nor in 0 to 255"),
        ({"mean": [900, 900, 900], "std": [60, 60, 60]}, "neither pixels in 0 to 1"),
        ({"mean": [1.2, 1.2, 1.2], "std": [1, 1, 1]}, "neither pixels in 0 to 1"),
        ({"crop_pct": 0}, "crop_pct 0; it must be a number of 0.05 to 2"),
        ({"crop_pct": float("nan")}, "crop_pct nan"),
        ({"interpolation": "cubic"}, "one of nearest, bilinear"),
        ({"crop_mode": "random"}, "one of center, squash, border"),
    ],
)
def test_preparations_that_no_network_has(inner: dict[str, Any], why: str, folder: Path) -> None:
    assert why in refused(configure(folder, inner))


# --------------------------------------------------------------------------- row 10


def grey_folder(folder: Path, **inner: Any) -> tuple[Path, nn.Module]:
    folder.mkdir()
    torch.manual_seed(4)
    net = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    save_file(net.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [1, 32, 32], "first_conv": "conv1.0", "mean": [0.4], "std": [0.3]} | inner
    config = {"architecture": "test_resnet", "num_classes": 5, "model_args": {"in_chans": 1},
              "pretrained_cfg": cfg}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder, net


def test_a_network_for_grey_images_sees_images_turned_grey(tmp_path: Path) -> None:
    folder, net = grey_folder(tmp_path / "m")
    backbone = loaded(folder)
    assert backbone.input_config["input_size"] == [3, 32, 32]
    assert backbone.input_config["mean"] == [0.4] * 3
    (note,) = backbone.notes
    assert "takes one channel: images are turned grey" in note

    net.reset_classifier(0)
    config = resolve_data_config({}, model=net) | {
        "input_size": (1, 32, 32), "mean": (0.4,), "std": (0.3,),
        "crop_pct": backbone.input_config["crop_pct"],
        "interpolation": backbone.input_config["interpolation"],
    }  # fmt: skip
    theirs = create_transform(**config, is_training=False)(PICTURE.convert("L"))
    pixels = torch.as_tensor(backbone.transform(PICTURE)).float()[None] / 255
    ours = (pixels - 0.4) / 0.3
    with torch.inference_mode():
        reference, seen = net.eval()(theirs[None]), backbone.net(ours)
    # Both round to eight bits, PIL before it scales the picture and ours after.
    apart = (seen - reference).norm() / reference.norm()
    assert apart < 0.02
    assert not torch.allclose(backbone.net(ours[:, [2, 1, 0]]), seen)  # colours count by their luma


def test_a_grey_network_with_three_means_averages_them(tmp_path: Path) -> None:
    folder, _ = grey_folder(tmp_path / "m", mean=[0.3, 0.4, 0.5])
    backbone = loaded(folder)
    assert backbone.input_config["mean"] == pytest.approx([0.4] * 3)
    assert "mean [0.3, 0.4, 0.5] is averaged for the grey channel" in backbone.notes[0]


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_a_network_for_other_channels(channels: int, folder: Path) -> None:
    said = refused(configure(folder, model_args={"in_chans": channels}))
    assert f"takes {channels} channels; networks for RGB (3) or grey images (1)" in said


# --------------------------------------------------------------------------- row 13


def shard(folder: Path, parts: int = 3) -> dict[str, str]:
    """Spread the weights over several files, with an index as transformers and timm write it."""
    state = weights(folder)
    names = [f"model-{i + 1:05}-of-{parts:05}.safetensors" for i in range(parts)]
    index = {key: names[i % parts] for i, key in enumerate(state)}
    for name in names:
        save_file({k: v for k, v in state.items() if index[k] == name}, folder / name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    )
    return index


def test_weights_in_several_files(folder: Path, wanted: Tensor) -> None:
    names = sorted(set(shard(folder).values()))
    backbone = loaded(folder)
    assert torch.equal(features(backbone), wanted)
    printed = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)  # sha256sum's
    assert backbone.weights_sha256 == hashlib.sha256(printed.encode()).hexdigest()
    assert backbone.resolved.revision == folder_revision(folder)
    before = backbone.resolved.revision
    state = load_file(folder / names[1])
    save_file(
        {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}, folder / names[1]
    )
    assert resolve(f"local-dir:{folder}", folder.parent / "cache").revision != before


INDEXES = [
    (lambda i: {}, "is no index: it has no 'weight_map'"),
    (lambda i: [1], "is no index"),
    (lambda i: {"weight_map": {}}, "does not name safetensors files beside it"),
    (lambda i: {"weight_map": dict.fromkeys(i, "../other.safetensors")}, "does not name"),
    (lambda i: {"weight_map": dict.fromkeys(i, "/etc/passwd")}, "does not name"),
    (lambda i: {"weight_map": dict.fromkeys(i, "pytorch_model.bin")}, "does not name"),
    (lambda i: {"weight_map": dict.fromkeys(i, 3)}, "does not name"),
    (lambda i: {"weight_map": i | {"x": "gone.safetensors"}}, "lacks 'gone.safetensors'"),
]


@pytest.mark.parametrize(("change", "why"), INDEXES)
def test_an_index_that_leads_nowhere(change: Any, why: str, folder: Path) -> None:
    index = shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(change(index)))
    assert why in refused(folder)


def test_one_name_in_two_files(folder: Path) -> None:
    index = shard(folder)
    for name in set(index.values()):
        state = load_file(folder / name)
        save_file(state | {"fc.bias": torch.zeros(5)}, folder / name)
    assert "hold 'fc.bias' in two files" in refused(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "best/model.safetensors"])
def test_weights_of_another_name_or_place(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "model.safetensors").rename(folder / name)
    said = refused(folder)
    assert f"has no model.safetensors; it holds {name!r}" in said


def test_a_config_in_a_sub_folder(folder: Path) -> None:
    (folder / "files").mkdir()
    (folder / "config.json").rename(folder / "files" / "config.json")
    assert "has no config.json, so its architecture is unknown; it holds 'files/config.json'" in (
        refused(folder)
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_no_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"has no {name}" in refused(folder)


# --------------------------------------------------------------------------- row 14


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    """CoaT's blocks share their position encodings, which safetensors saves once."""
    folder = tmp_path / "m"
    folder.mkdir()
    torch.manual_seed(5)
    net = timm.create_model("coat_lite_tiny", num_classes=3).eval()
    save_model(net, str(folder / "model.safetensors"))
    saved = weights(folder)
    assert len(saved) < len(net.state_dict())
    cfg = {"input_size": [3, 224, 224], "classifier": "head", "num_classes": 3}
    config = {"architecture": "coat_lite_tiny", "num_classes": 3, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    net.reset_classifier(0)
    shared = net.state_dict()
    for with_metadata in (True, False):
        if not with_metadata:  # as save_file of a state dict without the second names
            keep(folder, saved)
        backbone = loaded(folder)
        held = backbone.net.net.state_dict()
        assert held.keys() == shared.keys()
        assert all(torch.equal(held[k], v) for k, v in shared.items())
        assert backbone.notes == ()


# --------------------------------------------------------------------------- rows 15 and 17


@pytest.mark.usefixtures("hub")  # its address is read when the Hub's client is imported
@pytest.mark.parametrize("config", [{"hidden": 64, "depth": 2}, {}, None])
def test_a_folder_of_ones_own_class(config: dict[str, Any] | None, tmp_path: Path) -> None:
    """As PyTorchModelHubMixin saves it: weights, and the arguments of __init__ if there are any."""
    from huggingface_hub import PyTorchModelHubMixin

    class Mine(nn.Module, PyTorchModelHubMixin):
        def __init__(self, hidden: int = 4, depth: int = 1) -> None:
            super().__init__()
            self.layer = nn.Linear(hidden, depth)

    folder = tmp_path / "m"
    Mine(**(config or {})).save_pretrained(folder)
    if config is None:
        (folder / "config.json").unlink()
    said = refused(folder)
    assert (
        "eval.evaluate(eval.backbone(net, transform, name=...), tasks=..., protocols=...)" in said
    )


def test_a_whole_pickled_module(folder: Path) -> None:
    torch.save(nn.Linear(2, 2), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    said = refused(folder)
    assert "only pickled weights (pytorch_model.bin), which can run code when loaded" in said


def test_a_copy_of_a_folder_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    one = loaded(folder)
    two = loaded(Path(shutil.copytree(folder, tmp_path / "copy")))
    assert (one.weights_sha256, one.input_config) == (two.weights_sha256, two.input_config)
    assert torch.equal(features(one), features(two))
