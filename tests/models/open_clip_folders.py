"""Small folders as open_clip saves them, of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

_TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "vit, averaged": {
        "image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2,
        "pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1,
        "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    },
    "resnet": {"image_size": 32, "width": 16, "head_width": 16, "layers": [1, 1, 1, 1]},
    "timm": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear",
             "image_size": 160, "timm_model_pretrained": False},
}  # fmt: skip


def folder(path: Path, kind: str = "vit", squash: bool = False) -> Path:
    path.mkdir()
    model: dict[str, Any] = {"embed_dim": 24, "vision_cfg": TOWERS[kind], "text_cfg": _TEXT}
    model |= {"custom_text": True} if kind == "timm" else {}
    preprocess: dict[str, Any] = {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
        "interpolation": "bicubic",
    }
    preprocess["resize_mode"] = "squash" if squash else "shortest"
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = (open_clip.CustomTextCLIP if kind == "timm" else open_clip.CLIP)(
            embed_dim=24, vision_cfg=TOWERS[kind], text_cfg=_TEXT
        )
        state = {n: t + 0.05 * torch.rand_like(t) for n, t in net.state_dict().items()
                 if t.is_floating_point()}  # fmt: skip
    save_file(net.state_dict() | state, path / "open_clip_model.safetensors")
    return path
