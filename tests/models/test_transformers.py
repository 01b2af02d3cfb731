"""Folders of transformers: the library's own pooled output, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval.hub import client
from eval.models.backbone import Backbone, load
from eval.models.formats.transformers_config import ARCHITECTURES
from eval.models.resolve import resolve
from tests.factories import refusal
from tests.hub import LoopbackHub
from tests.models.checkpoints import Files
from tests.models.pictures import PICTURES, pixels
from tests.models.transformers_folders import SAVED, folder, network


def loaded(path: Path, img_size: int | None = None) -> Backbone:
    return load(resolve(f"local-dir:{path}", path.parent / "cache", img_size))


def edit(path: Path, name: str = "config.json", **changes: Any) -> Path:
    config = json.loads((path / name).read_text()) | changes
    (path / name).write_text(json.dumps(config))
    return path


def pooled_by_the_library(path: Path, kind: str, images: Tensor) -> Tensor:
    """What transformers itself gives for a folder, read by its own loader."""
    if kind in ("clip", "siglip"):
        net = transformers.AutoModel.from_pretrained(path).vision_model
    elif kind in ("vit", "deit", "ijepa"):
        net = transformers.AutoModel.from_pretrained(path, add_pooling_layer=False)
    elif kind == "vit_mae":
        net = transformers.AutoModel.from_pretrained(path, mask_ratio=0.0)
    else:
        net = transformers.AutoModel.from_pretrained(path)
    with torch.inference_mode():
        out = net.eval()(pixel_values=images)
    if kind == "ijepa":  # as IJepaForImageClassification
        return out.last_hidden_state.mean(1)
    if kind in ("vit", "deit", "vit_mae", "vit_msn"):
        return out.last_hidden_state[:, 0]
    return out.pooler_output.flatten(1)


def test_every_architecture_that_is_read_is_tried() -> None:
    assert {kind.removesuffix(" with a pooler") for kind in SAVED} == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", SAVED)
def test_features_are_the_librarys_own(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path / "model", kind)
    backbone = loaded(path)
    images = pixels(backbone)
    with torch.inference_mode():
        found = backbone.net(images)
    wanted = pooled_by_the_library(path, kind, images)
    assert found.shape == wanted.shape == (3, backbone.dim)
    assert float(wanted.std(0).max()) > 1e-4  # images differ, so equal is no accident
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)
    assert any("are transformers'" in note for note in backbone.notes)


# --------------------------------------------------------------------------- preparation


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 2}),
        ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
        (
            "CLIPImageProcessor",
            {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
        ),
        ("BitImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": 32}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        (
            "ViTImageProcessor",
            {
                "size": {"height": 32, "width": 32},
                "rescale_factor": 1 / 127.5,
                "image_mean": [1.0, 1.0, 1.0],
                "image_std": [1.0, 1.0, 1.0],
            },
        ),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
        ("DINOv3ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ],
)
def test_images_are_prepared_as_the_processor_does(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    path = folder(tmp_path / "model", "convnext")
    getattr(transformers, name)(**settings).save_pretrained(path)
    backbone = loaded(path)
    pil = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    ours = pixels(backbone)
    wanted = torch.stack([torch.as_tensor(np.asarray(pil(p)["pixel_values"])[0]) for p in PICTURES])
    assert ours.shape == wanted.shape
    std = torch.tensor(backbone.input_config["std"]).view(-1, 1, 1)
    levels = (ours - wanted).abs() * std * 255
    # DINOv3's works on tensors alone, which it does not round to whole levels.
    assert float(levels.max()) < (1.01 if "DINOv3" in name else 0.01)


def test_another_size_scales_crop_and_resize_of_networks_of_any_size(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "convnext")
    crop = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**crop).save_pretrained(path)
    config = loaded(path, 64).input_config
    assert config["input_size"] == [3, 64, 64]
    assert int(64 / config["crop_pct"]) == 72
    fixed = folder(tmp_path / "fixed", "vit")
    assert "takes images of 32 px alone" in refusal(loaded, fixed, 64)


# --------------------------------------------------------------------------- files


def test_several_files_with_an_index(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "dinov2")
    whole = loaded(path)
    state = load_file(path / "model.safetensors")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:5]}
    parts["model-00002-of-00002.safetensors"] = names[5:]
    for name, inside in parts.items():
        save_file({n: state[n] for n in inside}, path / name)
    index = {n: name for name, inside in parts.items() for n in inside}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (path / "model.safetensors").unlink()
    images = pixels(whole)
    with torch.inference_mode():
        assert torch.equal(loaded(path).net(images), whole.net(images))


def test_the_processor_is_part_of_what_a_folder_is(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "convnext")
    before = resolve(f"local-dir:{path}", tmp_path / "cache")
    edit(path, "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    after = resolve(f"local-dir:{path}", tmp_path / "cache")
    assert before.revision != after.revision
    assert load(after).input_config["mean"] == [0.1, 0.2, 0.3]


def test_a_processor_within_a_processor_config(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "convnext")
    own = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").unlink()
    (path / "processor_config.json").write_text(json.dumps({"image_processor": own}))
    assert loaded(path).input_config["interpolation"] == "bicubic"


def test_a_grey_network_sees_the_luma(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "vit", num_channels=1)
    edit(path, "preprocessor_config.json", image_mean=[0.5], image_std=[0.25])
    backbone = loaded(path)
    images = pixels(backbone)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            backbone.net(images), pooled_by_the_library(path, "vit", grey), rtol=0, atol=1e-4
        )


def test_half_precision_weights_are_read_as_they_are(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "vit")
    state = {n: t.to(torch.bfloat16) for n, t in load_file(path / "model.safetensors").items()}
    save_file(state, path / "model.safetensors")
    edit(path, dtype="bfloat16")
    net = loaded(path).net
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_a_repository_of_the_hub(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "model", "dinov2")
    files: Files = {p.name: p.read_bytes() for p in path.iterdir()}
    sha = hub.add_model(repo, files | {"pytorch_model.bin": b"never read"})
    model = resolve(f"hf-hub:{repo}", tmp_path / "cache")
    assert (model.revision, model.format) == (sha, "transformers")
    backbone, local = load(model), loaded(path)
    images = pixels(local)
    with torch.inference_mode():
        assert torch.equal(backbone.net(images), local.net(images))
    assert backbone.weights_sha256 == local.weights_sha256
    fetched = {p.name for p in Path(client.cached_folder(repo, sha)).iterdir()}
    assert fetched == {"config.json", "model.safetensors", "preprocessor_config.json"}


# --------------------------------------------------------------------------- refusals


def _without(path: Path, *names: str) -> None:
    state = load_file(path / "model.safetensors")
    for name in names:
        del state[next(n for n in state if n.endswith(name))]
    save_file(state, path / "model.safetensors")


def _spoil(path: Path, value: float = float("nan")) -> None:
    state = load_file(path / "model.safetensors")
    next(iter(t for n, t in state.items() if "layernorm" in n)).fill_(value)
    save_file(state, path / "model.safetensors")


def _pickle(path: Path) -> None:
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: edit(p, auto_map={"AutoModel": "modeling_x.X"}), "'auto_map'"),
        (
            lambda p: edit(p, "preprocessor_config.json", auto_map={"AutoImageProcessor": "x.X"}),
            "'auto_map'",
        ),
        (_pickle, "offers only pickled weights (pytorch_model.bin)"),
        (lambda p: edit(p, model_type="bert"), "model_type 'bert'"),
        (lambda p: edit(p, model_type="vitt"), "did you mean 'vit'"),
        (lambda p: edit(p, hidden_size=10**6), "hidden_size"),
        (lambda p: edit(p, num_hidden_layers=10**6), "num_hidden_layers"),
        (lambda p: edit(p, hidden_size=16384, intermediate_size=16384), "describes a network of"),
        (lambda p: edit(p, num_channels=4), "takes 4 channels"),
        (lambda p: edit(p, patch_size=1, image_size=1024), "patches"),
        (lambda p: edit(p, hidden_act="exec"), "transformers cannot build"),
        (lambda p: edit(p, image_size=[32]), "image_size"),
        (lambda p: edit(p, num_hidden_layers=1), "belong to a larger or another network"),
        (lambda p: edit(p, num_hidden_layers=3), "tensors are missing"),
        (lambda p: edit(p, intermediate_size=32), "do not load into its architecture"),
        (lambda p: _without(p, "cls_token"), "1 of its"),
        (_spoil, "NaN or infinite"),
        (
            lambda p: edit(p, "preprocessor_config.json", size={"height": 48, "width": 48}),
            "makes images of 48 x 48 px, its network takes 32 x 32",
        ),
        (
            lambda p: edit(p, "preprocessor_config.json", size={"shortest_edge": 32}),
            "does not crop",
        ),
        (lambda p: edit(p, "preprocessor_config.json", do_resize=False), "does not resize"),
        (lambda p: edit(p, "preprocessor_config.json", do_pad=True), "do_pad"),
        (lambda p: edit(p, "preprocessor_config.json", image_std=[0, 0, 0]), "fit no pixels"),
        (lambda p: edit(p, "preprocessor_config.json", image_mean=[120, 120, 120]), "fit no pix"),
        (lambda p: edit(p, "preprocessor_config.json", size={"height": -1, "width": 1}), "size"),
        (lambda p: (p / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
        (
            lambda p: (p / "model.safetensors").write_bytes(b"x" * 99),
            "begin with a list of tensors",
        ),
    ],
)
def test_what_no_score_can_rest_on_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    path = folder(tmp_path / "model", "vit")
    spoil(path)
    sentence = refusal(loaded, path)
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize("kind", ["clip", "dinov2_with_registers", "swin", "convnext", "resnet"])
def test_weights_of_a_deeper_network_are_refused(tmp_path: Path, kind: str) -> None:
    class_name, settings = SAVED[kind]
    path = folder(tmp_path / "model", kind)
    deeper = json.loads(json.dumps(settings))
    tower = deeper.get("vision_config", deeper)
    if "depths" in tower:
        tower["depths"][0] += 1
    else:
        tower["num_hidden_layers"] += 1
    config = (path / "config.json").read_bytes()
    network(class_name, deeper).save_pretrained(path)
    (path / "config.json").write_bytes(config)
    assert "belong to a larger or another network" in refusal(loaded, path)


def test_a_setting_of_the_class_that_is_not_known_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.models.formats import transformers_config

    path = folder(tmp_path / "model", "vit", qkv_bias=False)
    monkeypatch.delitem(transformers_config._KIND, "qkv_bias")
    assert "sets 'qkv_bias', which changes a vit network" in refusal(loaded, path)


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    path = folder(tmp_path / "model", "vit")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'transferzoo[transformers]'" in refusal(loaded, path)
