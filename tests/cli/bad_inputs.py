"""Runs that cannot work, and words of the sentences that say so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from eval.tasks.registry import TASKS
from tests.factories import blobs, freeze, make_task, write_parquet
from tests.hub import LoopbackHub

QUICK = ["--episodes", "20", "--precision", "fp32", "--img-size", "32"]


def spoiled(folder: Path, row: int = 30) -> Path:
    """A task one of whose training images is cut off."""
    make_task(folder)
    path = folder / "train-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    images = [r["image"]["bytes"] for r in rows]
    images[row] = images[row][:100]
    write_parquet(path, images, [r["label"] for r in rows], [f"kind {i}" for i in range(6)])
    if folder.name in TASKS:
        freeze(folder)
    return folder


def broken_model(
    folder: Path, model_dir: Path, change: Callable[[dict[str, torch.Tensor]], Any]
) -> Path:
    """The tiny checkpoint with its tensors changed."""
    shutil.copytree(model_dir, folder)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder


@dataclass(frozen=True)
class Place:
    """What a bad command line can be made of."""

    tmp: Path
    data: Path  # holds eurosat and dtd
    model_dir: Path
    hub: LoopbackHub
    results: Path
    shop_results: Path  # good ones, to be copied

    def model(self, files: dict[str, bytes | None]) -> str:
        """A local copy of the tiny checkpoint with some files replaced, or left out (None)."""
        folder = self.tmp / "model"
        shutil.copytree(self.model_dir, folder)
        for name, content in files.items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content)
        return f"local-dir:{folder}"

    def repo(self, files: dict[str, bytes | None], **access: Any) -> str:
        """The same as a Hub repository."""
        have: dict[str, bytes | None] = {p.name: p.read_bytes() for p in self.model_dir.iterdir()}
        kept = {name: data for name, data in (have | files).items() if data is not None}
        name = f"org/{self.tmp.name.replace('__', '_')}"
        self.hub.add_model(name, kept, **access)
        return f"hf-hub:{name}"

    def state(self, change: Callable[[dict[str, torch.Tensor]], Any]) -> str:
        return f"local-dir:{broken_model(self.tmp / 'state', self.model_dir, change)}"

    def task(
        self,
        labels: tuple[list[Any], list[Any]] = ([0, 1] * 10, [0, 1] * 10),
        names: list[str] | None = None,
        columns: dict[str, str] | None = None,
    ) -> str:
        """A task with these labels in train and test."""
        folder = self.tmp / "task"
        for part, values in zip(("train", "test"), labels, strict=True):
            path = folder / f"{part}.parquet"
            images = blobs(0, len(values), seed=len(part))
            write_parquet(path, images, values, names)
            if columns:
                table = pq.read_table(path)
                renamed = table.rename_columns([columns.get(c, c) for c in table.column_names])
                pq.write_table(renamed, path)
        return f"parquet:{folder}"

    def result(self, content: str) -> list[str]:
        """A file where the result of the default model on dtd under knn would go, among good
        ones."""
        shutil.copytree(self.shop_results, self.results)
        (path,) = self.results.glob("random--test_resnet@32px/seed0/dtd.knn*.json")
        path.write_text(content)
        return []


def unlike(state: dict[str, torch.Tensor]) -> None:
    state["conv1.0.weight"] = torch.zeros(9, 9, 9, 9)


# Each row: what makes the arguments, and what the one line on stderr must hold. A list replaces
# or adds options; a dictionary {"model": ..., "task": ...} replaces the good model or task.
Arguments = list[str] | dict[str, Any]


BAD: dict[str, tuple[Callable[[Place], Arguments], tuple[str, ...]]] = {
    # models
    "model: unknown": (lambda p: {"model": "random:resnt18"}, ("'resnt18'", "'resnet18'")),
    "model: unknown tag": (lambda p: {"model": "resnet18.a1_in1"}, ("resnet18.a1_in1k",)),
    "model: no weights": (lambda p: {"model": "resnetv2_18x"}, ("unknown model",)),
    "model: unknown prefix": (lambda p: {"model": "hfhub:org/name"}, ("'hfhub'", "'hf-hub'")),
    "model: no prefix": (lambda p: {"model": "org/name"}, ("hf-hub:org/name",)),
    "model: empty": (lambda p: {"model": ""}, ("empty",)),
    "model: unknown zoo": (lambda p: {"model": "zoo:none"}, ("zoo model 'none'",)),
    "model: seed": (lambda p: {"model": "random:test_vit@x"}, ("seed", "'x'")),
    "hub: missing": (lambda p: {"model": "hf-hub:org/absent"}, ("no model 'org/absent'",)),
    "hub: private": (lambda p: {"model": p.repo({}, private=True)}, ("private",)),
    "hub: gated": (lambda p: {"model": p.repo({}, gated=True)}, ("gated", "accept its terms")),
    "hub: revision": (lambda p: {"model": p.repo({}) + "@v9"}, ("no revision 'v9'",)),
    "hub: pickle": (
        lambda p: {"model": p.repo({"model.safetensors": None, "pytorch_model.bin": b"x"})},
        ("only pickled weights (pytorch_model.bin)", "model.safetensors is needed"),
    ),
    "hub: no config": (lambda p: {"model": p.repo({"config.json": None})}, ("no config.json",)),
    "hub: foreign config": (
        lambda p: {"model": p.repo({"config.json": b'{"model_type": "bert"}'})},
        ("of model_type", "'bert'"),
    ),
    "hub: no repository": (lambda p: {"model": "hf-hub:name"}, ("names no Hub repository",)),
    "folder: missing": (lambda p: {"model": f"local-dir:{p.tmp}/absent"}, ("absent",)),
    "folder: pickle": (
        lambda p: {"model": p.model({"model.safetensors": None, "net.pth": b"x"})},
        ("only pickled weights (net.pth)",),
    ),
    "folder: no weights": (
        lambda p: {"model": p.model({"model.safetensors": None})},
        ("has no model.safetensors",),
    ),
    "folder: no config": (lambda p: {"model": p.model({"config.json": None})}, ("config.json",)),
    "folder: config no JSON": (
        lambda p: {"model": p.model({"config.json": b"{"})},
        ("not valid JSON",),
    ),
    "folder: foreign config": (
        lambda p: {"model": p.model({"config.json": b'{"model_type": "vit"}'})},
        ("no preprocessor_config.json", "prepared"),
    ),
    "folder: unknown architecture": (
        lambda p: {"model": p.model({"config.json": b'{"architecture": "resnt18"}'})},
        ("resnt18",),
    ),
    "weights: other shape": (lambda p: {"model": p.state(unlike)}, ("do not load", "conv1")),
    "weights: tensor missing": (
        lambda p: {"model": p.state(lambda s: s.pop("layer1.0.conv1.weight"))},
        ("do not load", "layer1.0.conv1.weight"),
    ),
    "weights: tensor too many": (
        lambda p: {"model": p.state(lambda s: s.update({"layer1.7.x": torch.zeros(1)}))},
        ("larger or another network", "layer1.7.x"),
    ),
    "weights: no safetensors": (
        lambda p: {"model": p.model({"model.safetensors": b"not safetensors at all"})},
        ("begin with a list of tensors of 7,306,634,592,548,843,374 bytes",),
    ),
    # tasks
    "task: unknown": (lambda p: {"task": "eurosatt"}, ("'eurosatt'", "'eurosat'")),
    "task: a suite": (lambda p: {"task": "mini"}, ("--suite mini",)),
    "task: unknown prefix": (lambda p: {"task": "parket:x"}, ("'parket'", "'parquet'")),
    "task: unknown option": (lambda p: {"task": "parquet:x?img=y"}, ("'img'", "'image'")),
    "task: no directory": (lambda p: {"task": f"parquet:{p.tmp}/absent"}, ("absent",)),
    "task: no Parquet": (lambda p: {"task": f"parquet:{p.model_dir}"}, ("no Parquet file",)),
    "task: no image column": (
        lambda p: {"task": p.task(columns={"image": "picture"})},
        ("no image column 'image'", "picture, label"),
    ),
    "task: no label column": (
        lambda p: {"task": p.task() + "?label=kind"},
        ("no label column 'kind'", "image, label"),
    ),
    "task: images are no images": (
        lambda p: {"task": p.task() + "?image=label"},
        ("not encoded images",),
    ),
    "task: label too large": (
        lambda p: {"task": p.task(([0, 1] * 10, [0, 1] * 9 + [0, 7]))},
        ("label 7 in row 19 of test is outside 0..1",),
    ),
    "task: label negative": (
        lambda p: {"task": p.task(([0, 1, -1] * 10, [0, 1]))},
        ("unlabelled: 10 of 30 images of train (label -1)", "row 2 of"),
    ),
    "task: label beyond its names": (
        lambda p: {"task": p.task(([0, 1, 2] * 10, [0, 1]), names=["a", "b"])},
        ("label 2 in row 2 of train is outside 0..1",),
    ),
    "task: label unknown": (
        lambda p: {"task": p.task((["cat", "dog"] * 9, ["cat", "cow"]))},
        ("label 'cow' in row 1 of test",),
    ),
    "task: label missing": (
        lambda p: {"task": p.task(([0, 1, None] * 9, [0, 1]))},
        ("unlabelled: 9 of 27 images of train (no label)", "row 2 of"),
    ),
    "task: one class": (lambda p: {"task": p.task(([0] * 9, [0] * 5))}, ("two classes",)),
    "task: one class in test": (lambda p: {"task": p.task(([0, 1], [1, 1]))}, ("two classes",)),
    "task: no rows": (lambda p: {"task": p.task(([0, 1] * 9, []))}, ("test split is empty",)),
    "task: unreadable image": (
        lambda p: {"task": f"parquet:{spoiled(p.tmp / 'spoiled', 30)}"},
        ("row 30 of spoiled/train-00000-of-00001.parquet", "cannot be read as an image"),
    ),
    "task: detection, not here": (
        lambda p: {"task": "voc2007"},
        ("no folder 'voc2007'", "voc:FOLDER"),
    ),
    "task: Hub data set missing": (
        lambda p: {"task": "hub:org/none?image=image&label=label"},
        ("no dataset 'org/none'",),
    ),
    "suite: unknown": (lambda p: ["--suite", "minni"], ("'minni'", "'mini'")),
    "data: not given": (
        lambda p: {"data": None},
        ("'dtd' is not at hand: data set 'tanganke/dtd': the H", "--data DIR"),
    ),
    "data: missing": (lambda p: {"data": f"{p.tmp}/absent"}, ("absent", "does not exist")),
    "data: without the task": (lambda p: {"task": "svhn"}, ("no folder 'svhn'", "dtd, eurosat")),
    # protocols and numbers
    "protocol: unknown": (lambda p: ["--protocol", "knnn"], ("'knnn'", "'knn'")),
    "shots: 0": (lambda p: ["--protocol", "fewshot", "--shots", "0"], ("at least 1, got 0",)),
    "shots: negative": (lambda p: ["--protocol", "fewshot", "--shots=-1"], ("at least 1",)),
    "shots: no number": (lambda p: ["--shots", "one"], ("--shots", "'one'")),
    "shots: none given": (lambda p: ["--shots"], ("--shots",)),
    "shots: more than any class has": (
        lambda p: ["--protocol", "fewshot", "--shots", "14"],
        ("14-shot", "largest holds 28"),
    ),
    "shots: one of several too large": (
        lambda p: ["--protocol", "fewshot", "--shots", "1", "99"],
        ("99-shot", "largest holds 28"),
    ),
    "n-way: 1": (lambda p: ["--protocol", "fewshot", "--n-way", "1"], ("at least 2, got 1",)),
    "n-way: more than classes": (
        lambda p: ["--protocol", "fewshot", "--n-way", "7"],
        ("needs 7 classes", "only 6"),
    ),
    "queries: 0": (lambda p: ["--protocol", "fewshot", "--queries", "0"], ("at least 1",)),
    "episodes: 1": (lambda p: ["--protocol", "fewshot", "--episodes", "1"], ("at least 2",)),
    "limit: 0": (lambda p: ["--limit", "0"], ("--limit", "got 0")),
    "limit: one class": (lambda p: ["--limit", "1"], ("two classes", "--limit 1")),
    "img-size: 3": (lambda p: ["--img-size", "3"], ("--img-size", "got 3")),
    "img-size: no number": (lambda p: ["--img-size", "big"], ("--img-size", "'big'")),
    "batch-size: 0": (lambda p: ["--batch-size", "0"], ("--batch-size", "got 0")),
    "seed: negative": (lambda p: ["--seed=-1"], ("--seed", "got -1")),
    "seed: too large": (lambda p: ["--seed", str(2**32)], ("--seed", "2**32")),
    "device: unknown": (lambda p: ["--device", "abacus"], ("'abacus'", "cpu")),
    "precision: unknown": (lambda p: ["--precision", "fp8"], ("fp8", "bf16")),
    "option: unknown": (lambda p: ["--shot", "5", "--shoots", "1"], ("--shoots",)),
    # the results directory
    "results: a file": (
        lambda p: (p.results.write_text("x"), [])[1],
        ("is a file",),
    ),
    "results: under a file": (
        lambda p: (
            (p.tmp / "file").write_text("x"),
            {"results": str(p.tmp / "file" / "results")},
        )[1],
        ("lies under the file",),
    ),
    "results: foreign JSON": (
        lambda p: (
            p.results.mkdir(),
            [(p.results / f"{i}.json").write_text("{}") for i in range(3)],
            [],
        )[2],
        ("3 JSON files and none is a result",),
    ),
    "results: JSON in the place": (
        lambda p: p.result('{"a": 1}'),
        ("is not a result file", "no schema_version", "move it away"),
    ),
    "results: half a file in the place": (
        lambda p: p.result('{"schema_version": 1, "mod'),
        ("is not a result file", "no readable JSON"),
    ),
    "results: incomplete in the place": (
        lambda p: p.result('{"schema_version": 1}'),
        ("is not a result file", "model"),
    ),
    "results: a later version in the place": (
        lambda p: p.result('{"schema_version": 2}'),
        ("is not a result file", "schema_version is 2"),
    ),
}


def command_line(made: Arguments, place: Place, cache: Path) -> list[str]:
    changed = made if isinstance(made, dict) else {}
    data = changed.get("data", str(place.data))
    line = ["run", changed.get("model", "random:test_resnet")]
    line += ["--task", changed.get("task", "dtd")]
    line += ["--data", data] if data else []
    line += ["--cache", str(cache), "--results", changed.get("results", str(place.results))]
    line += [*QUICK, "--protocol", "knn"]
    return line + (made if isinstance(made, list) else [])
