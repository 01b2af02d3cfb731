"""Folders of open_clip: what its own ``encode_image`` gives, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from tests.factories import refusal
from tests.models.checkpoints import checkpoint
from tests.models.open_clip_folders import TOWERS, folder

PICTURES = [
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (h, w, 3), np.uint8))
    for seed, (h, w) in enumerate([(200, 200), (257, 243), (31, 64)])
]


def loaded(path: Path, img_size: int | None = None) -> Backbone:
    return load(resolve(f"local-dir:{path}", path.parent / "cache", img_size))


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("squash", [False, True])
def test_features_are_those_of_encode_image(tmp_path: Path, kind: str, squash: bool) -> None:
    path = folder(tmp_path / "model", kind, squash)
    backbone = loaded(path)
    theirs, prepare = open_clip.create_model_from_pretrained(f"local-dir:{path}")
    mean, std = (torch.tensor(backbone.input_config[k]).view(3, 1, 1) for k in ("mean", "std"))
    ours = [(torch.as_tensor(backbone.transform(p)) / 255 - mean) / std for p in PICTURES]
    images = torch.stack([prepare(p) for p in PICTURES])
    torch.testing.assert_close(torch.stack(ours), images, rtol=0, atol=1e-5)
    with torch.inference_mode():
        found, wanted = backbone.net(images), theirs.eval().encode_image(images)
    assert found.shape == (3, 24)
    assert float(wanted.std(0).max()) > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert any("not of its visual tower and dropped" in note for note in backbone.notes)


def test_a_folder_in_the_common_form_too_is_read_in_that(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    checkpoint(tmp_path / "timm")
    for file in (tmp_path / "timm").iterdir():
        file.rename(path / file.name)
    assert type(loaded(path).net.net).__name__ == "ResNet"  # type: ignore[attr-defined]


def _edit(path: Path, **vision: Any) -> None:
    config = json.loads((path / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] |= vision
    (path / "open_clip_config.json").write_text(json.dumps(config))


def _weights(path: Path, keep: Callable[[str], bool]) -> None:
    state = load_file(path / "open_clip_model.safetensors")
    save_file({n: t for n, t in state.items() if keep(n)}, path / "open_clip_model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: _edit(p, width=10**6), "width"),
        (lambda p: _edit(p, layers=10**6), "layers"),
        (lambda p: _edit(p, layers=[128] * 9), "layers"),
        (lambda p: _edit(p, width=16384), "describes a tower of"),
        (lambda p: _edit(p, hf_model_name="x/y"), "'hf_model_name'"),
        (lambda p: _edit(p, timm_model_name="no_such_net"), "cannot build the visual tower"),
        (lambda p: _edit(p, layers=1), "belong to a larger or another network"),
        (lambda p: _edit(p, layers=3), "tensors are missing"),
        (lambda p: _edit(p, act_kwargs={"approximate": "exec"}), "act_kwargs"),
        (lambda p: _edit(p, patch_size=1, image_size=1024), "patches"),
        (lambda p: _weights(p, lambda n: not n.startswith("visual.")), "no tensors under"),
        (lambda p: _weights(p, lambda n: n != "visual.proj"), "1 of its"),
        (lambda p: (p / "open_clip_config.json").write_text("{}"), "not timm's"),
        (lambda p: (p / "open_clip_model.safetensors").unlink(), "no model.safetensors"),
    ],
)
def test_what_no_score_can_rest_on_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    path = folder(tmp_path / "model")
    spoil(path)
    sentence = refusal(loaded, path)
    assert said in sentence
    assert "\n" not in sentence


def test_another_size_than_the_towers_is_refused(tmp_path: Path) -> None:
    assert "takes images of 32 px alone" in refusal(loaded, folder(tmp_path / "model"), 64)
