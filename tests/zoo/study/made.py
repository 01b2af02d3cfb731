"""A small plan, the images that it trains on, and the weights that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image

TREE: dict[str, Any] = {
    "name": "toy",
    "question": "which?",
    "statistics": "paired",
    "recipe": "tiny",
    "settings": [
        "backbone.architecture=resnet10t",
        "backbone.model_args={channels=[8,8,16,16],stem_width=8}",
        "image.px=16",
        "image.store_px=16",
        "train.batch_size=16",
        "train.warmup_epochs=0.3",
        "train.cooldown=0.4",
        "train.precision=fp32",
        "contrastive.queue=40",
        "projector.hidden_dim=8",
        "probe.every_epochs=1",
    ],
    "tuning": {"rates": [0.1, 0.3], "epochs": 1, "seed": 99},
    "evaluation": {"tasks": ["digits"], "shots": [1], "content": {"low": ["hue"]}},
    "budgets": [{"epochs": 1, "seeds": [0, 1]}, {"epochs": 2, "seeds": [0]}],
    "arms": [
        {"name": "a", "objective": "ce-mlp"},
        {"name": "late", "objective": "selfsupcon", "wave": 2},
    ],
    "contrasts": [{"name": "late - a", "arms": {"late": 1, "a": -1}, "prediction": "none"}],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "plan.toml"
    path.write_text(tomli_w.dumps({**TREE, **changes}))
    return path


def pictures(folder: Path) -> Path:
    """A data folder whose tiny_imagenet is three tints of noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("validation", 5)):
        for label in range(3):
            place = folder / "tiny_imagenet" / part / f"class{label}"
            place.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 120, (16, 16, 3)) + 40 * label
                Image.fromarray(noise.astype(np.uint8)).save(place / f"{i}.png")
    return folder


def weights(out: Path) -> dict[str, bytes]:
    return {
        str(path.parent.relative_to(out)): path.read_bytes()
        for path in out.glob("*/*/**/model.safetensors")
    }
