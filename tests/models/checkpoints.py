"""Small checkpoints as timm publishes them, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

Files = dict[str, bytes | str | Path | None]  # of a repository, as the loopback Hub takes them
HEAD = {"test_resnet": ("fc", "conv1.0"), "test_vit": ("head", "patch_embed.proj")}


def checkpoint(folder: Path, arch: str = "test_resnet", classes: int = 5, **config: Any) -> Path:
    """A folder as timm publishes one; ``config`` replaces entries of its config.json."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = timm.create_model(arch, num_classes=classes)
    save_file(net.state_dict(), folder / "model.safetensors")
    classifier, first = HEAD[arch]
    pretrained = {
        "input_size": [3, 160, 160] if arch == "test_vit" else [3, 32, 32],
        "fixed_input_size": arch == "test_vit",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.25, 0.2, 0.3],
        "interpolation": "bicubic",
        "crop_pct": 0.8,
        "num_classes": classes,
        "classifier": classifier,
        "first_conv": first,
    }
    default = {"architecture": arch, "num_classes": classes, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(default | config))
    return folder
