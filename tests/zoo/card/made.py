"""A small checkpoint that is fit to publish."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import timm
import tomli_w
import torch
from safetensors.torch import save_file

from eval.common.files import dump_json, sha256_file
from zoo.card import card

NAME = "resnet_tiny.ce_made"


PX = 32


def write_config(folder: Path, **changes: Any) -> None:
    config = {
        "architecture": "test_resnet",
        "num_classes": 7,
        "num_features": 64,
        "pretrained_cfg": {
            "input_size": [3, PX, PX],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 7,
            "classifier": "fc",
            "first_conv": "conv1.0",
        },
    }
    (folder / "config.json").write_bytes(dump_json(config | changes))


def write_result(folder: Path, protocol: str = "knn", value: float = 0.5, **changes: Any) -> Path:
    """A result file as transfer-eval would have left it for these weights."""
    weights = sha256_file(folder / "model.safetensors")
    content = hashlib.sha256((folder / "config.json").read_bytes() + weights.encode())
    score = {"name": "top1", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 80}
    model = {
        "spec": f"local-dir:{folder}",
        "id": f"local-dir:{folder.name}",
        "revision": content.hexdigest()[:40],
        "weights_sha256": weights,
        "params": 1000,
    }
    result = {
        "schema_version": 1,
        "model": model | changes,
        "task": {
            "name": "photos",
            "source": "/home/somebody/secret place/photos",
            "revision": "",
            "split_hash": "5" * 64,
            "counts": {"classes": 6, "train": 96, "test": 80},
        },
        "protocol": {"name": protocol, "config": {}},
        "scores": [score],
        "samples": {},
        "environment": {"versions": {}, "device": "cpu", "dtype": "fp32", "threads": 1},
        "seed": 0,
        "seconds": {},
        "created": "2026-01-02T03:04:05+00:00",
    }
    path = folder / "results" / f"photos.{protocol}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(dump_json(result))
    return path


def make(folder: Path, seed: int = 1) -> Path:
    """A folder that is fit to publish: weights, config, recipe, log, one result and the card."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    net = timm.create_model("test_resnet", num_classes=7)
    save_file(net.state_dict(), folder / "model.safetensors")
    write_config(folder)
    recipe = {
        "name": "made",
        "tag": "made",
        "backbone": {"architecture": "test_resnet", "name": "resnet_tiny"},
        "image": {"px": PX, "store_px": PX},
        "train": {"epochs": 2, "batch_size": 8},
        "rate": {"classification": 0.1, "contrastive": 0.1, "joint": 0.1},
        "run": {
            "objective": "ce",
            "learning_rate": 0.003,
            "data": "photos",
            "data_fingerprint": "f" * 64,
            "images": 96,
            "classes": 7,
            "images_seen": 192,
            "seconds": 3,
            "validation_knn_top1": 40.5,
            "processes": 1,
            "precision": "fp32",
            "device": "cpu",
            "versions": {"torch": "2"},
        },
    }
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    rows: list[dict[str, float]] = [
        {"step": 1, "epoch": 1, "images": 96, "lr": 0.1, "ce": 2.0, "total": 2.0},
        {"step": 2, "epoch": 2, "images": 192, "lr": 0.0, "ce": 1.5, "total": 1.5},
        {"step": 2, "epoch": 2, "knn_top1": 40.5},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_result(folder)
    card.write(folder)
    return folder
