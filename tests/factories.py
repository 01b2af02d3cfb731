"""What tests are made of: data sets, checkpoints and results that are made up, and refusals.

Fixtures stand in conftest.py. A folder with more of its own has a module of that kind beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.data.load import load_task
from eval.data.manifest import FileFacts, Manifest, PartFacts, SplitFacts, write_manifest
from eval.metrics.intervals import mean_interval
from eval.metrics.scores import Samples, Score
from eval.models.objectives import TERMS, parse_objective
from eval.protocols import PROTOCOLS
from eval.results.schema import Result
from eval.run.plan import Request, plan
from eval.settings.protocols import Fewshot
from eval.tasks.registry import TASKS
from tests.hub import LoopbackHub


def let_write(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, people: Mapping[str, str], **settings: object
) -> None:
    """A Hub that is strict about namespaces, with ``people`` by token; the first is logged in here,
    and may write to lab. ``settings`` are more of the hub's own."""
    first, *_ = people
    known = {
        "tokens": set(people),
        "users": dict(people),
        "orgs": {people[first]: {"lab"}},
        "read_only": set(),
        "strict_namespaces": True,
    }
    for name, value in (known | settings).items():
        monkeypatch.setattr(hub, name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", first)


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ran]


def refusal(call: Callable[..., object], *args: object) -> str:
    """The one sentence a call fails with."""
    with pytest.raises(UserError) as error:
        call(*args)
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def png(pixels: np.ndarray) -> bytes:
    """[H, W] or [H, W, 3] uint8 as PNG bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def blobs(label: int, count: int, seed: int, size: int = 24) -> list[bytes]:
    """``count`` different noisy pictures whose brightness and stripes tell their label."""
    random = np.random.RandomState([seed, label])
    stripes = np.sin(np.arange(size) * (label + 1) * 0.5)[:, None, None]
    pictures = []
    for _ in range(count):
        noise = random.normal(0, 40, (size, size, 3))
        pixels = 128 + 40 * stripes + 12 * (label - 2) + noise
        pictures.append(png(np.clip(pixels, 0, 255).astype(np.uint8)))
    return pictures


def write_parquet(
    path: Path, images: list[bytes], labels: list[int], names: list[str] | None = None
) -> None:
    """A Parquet file in the Hugging Face layout; ``names`` declare a ClassLabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": b, "path": None} for b in images],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array(labels),
        }
    )
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            "label": {"names": names, "_type": "ClassLabel"},
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)


def make_task(
    folder: Path, classes: int = 6, train: int = 16, test: int = 12, seed: int = 0
) -> Path:
    """A small learnable data set: folder/train-*.parquet and test-*.parquet.

    Under a declared name it says that it is a part of that set, as `prepare --partial` does.
    """
    names = [f"kind {i}" for i in range(classes)]
    for part, count, offset in (("train", train, 0), ("test", test, 1000)):
        images = [b for c in range(classes) for b in blobs(c, count, seed + offset)]
        labels = [c for c in range(classes) for _ in range(count)]
        order = np.random.RandomState(seed).permutation(len(labels))
        write_parquet(
            folder / f"{part}-00000-of-00001.parquet",
            [images[i] for i in order],
            [labels[i] for i in order],
            names,
        )
    if folder.name in TASKS:
        freeze(folder)
    return folder


def freeze(folder: Path) -> None:
    """Write the manifest of a made-up part of a declared data set."""
    with tempfile.TemporaryDirectory() as cache:
        data = load_task(f"parquet:{folder}", Path(cache))
    parts = {
        part.name: PartFacts(
            images=len(part),
            per_class=np.bincount(part.labels, minlength=len(data.classes)).tolist(),
        )
        for part in (data.train, data.test)
    }
    name = TASKS[folder.name].splits[0].name
    split = SplitFacts(parts=parts, members="0" * 64, split_hash=data.split_hash)
    manifest = Manifest(
        manifest_version=1, task=folder.name, classes=list(data.classes), default=name,
        splits={name: split}, partial=True,
        files={f.name: FileFacts(rows=0, sha256=sha256_file(f)) for f in folder.glob("*.parquet")},
    )  # fmt: skip
    write_manifest(folder, manifest)


def make_fewshot_result(
    model: str = "random:resnet18", task: str = "dtd", p: float = 0.5, seed: int = 0, **changes: Any
) -> Result:
    """A valid 5-shot result of 60 episodes, whose answers are right with probability ``p``."""
    correct = np.random.default_rng(seed).random((60, 75)) < p
    value = float(correct.mean())
    config = dataclasses.asdict(Fewshot(shots=(5,), episodes=60))
    made = make_result(
        model, task, "fewshot", config=config, details={"class_images": [40] * 8}, **changes
    )
    score = {"name": "top1_5shot", "value": round(value, 6), "ci_low": round(value - 0.05, 6),
             "ci_high": round(value + 0.05, 6), "n": 60, "kind": "sample",
             "these": _these(correct)}  # fmt: skip
    return made.model_copy(
        update={
            "scores": [Score.model_validate(score)],
            "samples": {"top1_5shot": Samples.of_episodes(correct)},
        }
    )


def make_result(
    model: str = "random:resnet18",
    task: str = "dtd",
    protocol: str = "linear",
    top1: float = 0.5,
    split: str = "s",
    revision: str = "seed0",
    correct: np.ndarray | None = None,
    created: str = "2026-01-01T00:00:00+00:00",
    dtype: str = "fp32",
    facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """A valid result with one top-1 score over 40 images; of few-shot one of an older file, which
    has counts, no single answers and no kind of interval (`make_fewshot` makes today's). ``facts``
    are what is declared of the model; None: what `made_up_facts` states for a name like the zoo's.
    """
    if correct is None:
        correct = np.arange(40) < round(40 * top1)
    value = float(correct.mean())
    name, samples = "top1", Samples.of_images(correct)
    low, high = max(value - 0.1, 0.0), min(value + 0.1, 1.0)
    if protocol == "fewshot":
        name = "top1_5shot"
        counts = np.round(75 * correct).astype(int).tolist()
        samples = Samples(unit="episode", n=len(counts), of=75, correct=counts)
        told = mean_interval(samples.values())
        low, high = told.low, told.high
    return Result.model_validate(
        {
            "schema_version": 1,
            "model": {
                "spec": model,
                "id": model,
                "revision": revision,
                "weights_sha256": "ab" * 32,
                "params": 10,
                **({"facts": stated} if (stated := made_up_facts(model, facts)) else {}),
            },
            "task": {
                "name": task,
                "source": "here",
                "revision": "",
                "split_hash": split_hash(task, split),
                "counts": {"classes": 2, "train": 60, "test": len(correct)},
            },
            "protocol": {"name": protocol, "config": changes.pop("config", {})},
            "scores": [
                {
                    "name": name,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(correct),
                    "kind": "" if protocol == "fewshot" else "test",
                }
            ],
            "samples": {name: samples.model_dump()},
            "environment": {"versions": {}, "device": "cpu", "dtype": dtype, "threads": 2},
            "seed": 0,
            "seconds": {"load": 0, "encode": 0, "fit": 0, "score": 0},
            "created": created,
            **changes,
        }
    )


def made_up_facts(model: str, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the author of a made-up model declares: ``zoo:resnet18_narrow.ce_selfsupcon_tin100``
    and the like are said to be of that architecture, objective and data; of others nothing is."""
    if facts is not None:
        return dict(facts)
    name = re.sub(r"@.*$", "", model.partition(":")[2] or model).rpartition("/")[2]
    architecture, _, tag = name.partition(".")
    words = tag.split("_")
    terms = list(itertools.takewhile(lambda word: word in TERMS, words))
    if not terms or len(terms) == len(words):
        return {}
    rest = "_".join(words[len(terms) :])
    data = {"tin100": "tiny_imagenet"}.get(words[-1], words[-1])
    return {"objective": parse_objective("+".join(terms)).name, "architecture": architecture,
            "data": [data], "recipe": rest, "said_in": ["recipe.toml"]}  # fmt: skip


def split_hash(task: str, split: str = "s") -> str:
    """What made-up results say of their data."""
    return hashlib.sha256(f"{split}{task}".encode("utf-8", "surrogatepass")).hexdigest()


def _these(correct: np.ndarray) -> tuple[float, float]:
    """The interval over other episodes of the same images, of [episodes, ...] right answers."""
    told = mean_interval(correct.reshape(len(correct), -1).mean(1))
    return round(told.low, 6), round(told.high, 6)


def make_fewshot(
    correct: np.ndarray,
    model: str = "random:resnet18",
    task: str = "dtd",
    *,
    shot: int = 5,
    class_images: tuple[int, ...] = (60,) * 8,
    **changes: Any,
) -> Result:
    """A valid few-shot result with one score over ``correct`` [episodes, way, queries], bool, and
    with what says which images stood in them. 600 x 5 x 15 is the protocol's default setting."""
    episodes, n_way, queries = correct.shape
    name, value = f"top1_{shot}shot", float(correct.mean())
    base = make_result(
        model, task, "fewshot",
        config={"shots": [shot], "n_way": n_way, "queries": queries, "episodes": episodes},
        details={"class_images": list(class_images)}, **changes,
    )  # fmt: skip
    score = Score(name=name, value=value, ci_low=value - 0.05, ci_high=value + 0.05, n=episodes,
                  kind="sample", these=_these(correct))  # fmt: skip
    samples = Samples.of_episodes(correct.reshape(episodes, -1))
    return base.model_copy(update={"scores": [score], "samples": {name: samples}})


def run_two_tasks(root: Path) -> Request:
    """A real run, carried out, of one untrained model on two tasks of the embedded suite."""
    from eval.run.execute import execute  # brings torch

    request = Request(
        models=["random:test_resnet"], tasks=["hue", "count"],
        protocols={"knn": PROTOCOLS["knn"].settings()}, cache=root / "cache",
        results=root / "results", device="cpu", precision="fp32",
    )  # fmt: skip
    execute(request, plan(request))
    return request
