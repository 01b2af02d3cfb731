"""Checkpoints' folders as training and conversion leave them, a few bytes of weights each."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from eval.metrics.scores import Samples, Score
from eval.models.objectives import parse_objective
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.store import dump_result
from zoo.train.recipe import load_recipe

KNN = 17.5


def write_weights(path: Path, fill: int, classes: int) -> None:
    """A safetensors file of one convolution, a batch norm and, with classes, a classifier."""
    shapes = {"conv1.weight": [2, 3, 1, 1], "bn1.weight": [2], "bn1.running_mean": [2]}
    if classes:
        shapes |= {"fc.weight": [classes, 2], "fc.bias": [classes]}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes([fill]) * end)


def config_of(classes: int) -> dict[str, Any]:
    named = {"label_names": [f"kind {i}" for i in range(classes)]} if classes else {}
    return {
        "architecture": "test_resnet",
        "num_classes": classes,
        "num_features": 96,
        "model_args": {"channels": [4, 8]},
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        **named,
    }


def recipe_of(objective: str, classes: int = 100, **run: Any) -> dict[str, Any]:
    """What pretrain writes to recipe.toml: the whole shipped recipe, and what happened."""
    recipe = load_recipe("tiny")
    happened = {
        "objective": objective,
        "learning_rate": recipe.learning_rate(parse_objective(objective)),
        "data": "tiny_imagenet",
        "data_fingerprint": "f1" * 32,
        "images": 30000,
        "classes": classes,
        "images_seen": 359424,
        "seconds": 1290,
        "validation_knn_top1": KNN,
        "processes": 1,
        "precision": "bf16",
        "device": "cpu (x86_64, 1 threads)",
        "versions": {"transferzoo": "0.1.0", "torch": "2.15.0"},
    }
    return json.loads(recipe.model_dump_json()) | {"run": happened | run}


def log_of(objective: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in (20, 40, 60):
        terms = {t: 5.0 / step for t, _ in parse_objective(objective).terms}
        rows.append({"step": step, "epoch": step / 5, **terms, "total": sum(terms.values())})
    rows.insert(1, {"step": 20, "epoch": 4, "knn_top1": 9.5})
    rows.append({"step": 60, "epoch": 12, "knn_top1": KNN})
    return rows


def write_log(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_toml(path: Path, tree: dict[str, Any]) -> None:
    path.write_bytes(tomli_w.dumps(tree).encode())


def make_trained(folder: Path, objective: str = "ce", fill: int = 1, **run: Any) -> Path:
    """A folder as `transfer-zoo pretrain` leaves it, without results."""
    classes = 3 if objective.startswith("ce") else 0
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors", fill, classes)
    (folder / "config.json").write_text(json.dumps(config_of(classes), indent=1))
    write_toml(folder / "recipe.toml", recipe_of(objective, **run))
    write_log(folder, log_of(objective))
    return folder


def make_converted(folder: Path, **source: Any) -> Path:
    """A folder as `transfer-zoo convert` leaves it, without results."""
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors", 9, 0)
    (folder / "config.json").write_text(json.dumps(config_of(0), indent=1))
    known = {
        "kind": "moco", "file": "moco_v2_800ep_pretrain.pth.tar", "sha256": "ab" * 32,
        "objective": "selfsupcon", "keys_used": 3, "keys_dropped": 2,
    }  # fmt: skip
    write_toml(folder / "source.toml", {"source": known | source})
    return folder


def revision_of(folder: Path) -> str:
    """As transfer-eval names a folder: config.json and the weights, hashed."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    digest.update(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest().encode())
    return digest.hexdigest()[:40]


def make_result(
    folder: Path, task: str, protocol: str, value: float, *, n: int = 40, **changed: Any
) -> Result:
    """A result of the folder's weights. ``changed`` are fields by dotted name (``__`` for dots)."""
    if protocol == "fewshot":
        names = {"top1_1shot": value - 0.11, "top1_5shot": value, "top1_20shot": value + 0.07}
        config: dict[str, Any] = {
            "shots": [1, 5, 20], "n_way": 5, "queries": 15, "episodes": 600, "c": 1.0
        }  # fmt: skip
    elif protocol == "linear":
        names, config = {"top1": value, "mean_per_class": value - 0.013}, {"validation": 0.2}
    else:
        names, config = {"top1": value}, {}
        config = {"ks": [1, 5, 10, 20, 50, 100, 200], "temperature": 0.07, "validation": 0.2}
    scores, samples = [], {}
    for i, (name, mean) in enumerate(names.items()):
        half = 0.021 + 0.003 * i
        scores.append(
            Score(name=name, value=round(mean, 6), ci_low=round(mean - half, 6),
                  ci_high=round(mean + half, 6), n=600 if protocol == "fewshot" else n,
                  kind="sample" if protocol == "fewshot" else "test")
        )  # fmt: skip
        draw = np.random.RandomState([len(task), i])
        if protocol == "fewshot":
            samples[name] = Samples.of_episodes(draw.uniform(size=(600, 75)) < mean)
        else:
            samples[name] = Samples.of_images(draw.uniform(size=n) < mean)
    tree = {
        "schema_version": 1,
        "model": {
            "spec": f"local-dir:{folder.resolve()}", "id": f"local-dir:{folder.name}",
            "revision": revision_of(folder),
            "weights_sha256": hashlib.sha256(
                (folder / "model.safetensors").read_bytes()).hexdigest(),
            "params": 8, "input": {}, "img_size": None,
        },
        "task": {
            "name": task, "source": f"local:{task}", "revision": "",
            "split_hash": hashlib.sha256(task.encode()).hexdigest(),
            "counts": {"classes": 5, "train": 50, "test": n}, "subset": task != "photos",
        },
        "protocol": {"name": protocol, "config": config},
        "scores": [s.model_dump() for s in scores],
        "samples": {k: s.model_dump() for k, s in samples.items()},
        "environment": {"versions": {"torch": "2.15.0"}, "device": "cpu", "dtype": "fp32",
                        "threads": 1},
        "seed": 0, "seconds": {"fit": 1.0}, "created": "2026-11-22T12:06:11+00:00",
        "details": {"class_images": [40] * 6} if protocol == "fewshot" else {},
    }  # fmt: skip
    for key, new in changed.items():
        *sections, last = key.split("__")
        place: Any = tree
        for section in sections:
            place = place[section]
        place[last] = new
    return Result.model_validate(tree)


def add_result(
    folder: Path, task: str, protocol: str, value: float, *, name: str = "", **changed: Any
) -> Path:
    """``make_result`` as a file in the folder's results/."""
    result = make_result(folder, task, protocol, value, **changed)
    path = folder / "results" / (name or Path(shelf_path(result)).name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(dump_result(result))
    return path
