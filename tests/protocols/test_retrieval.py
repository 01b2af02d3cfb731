"""Retrieval as a protocol: plain loops, what a gallery lacks, files and boards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import knn, retrieval
from eval.results.evidence import against_numbers
from eval.results.store import read_result
from eval.settings.protocols import Knn, Retrieval
from eval.training.context import Context
from tests.factories import Cli, refusal


@pytest.fixture
def context(task_dir: Path, cache: Path) -> Context[TaskData]:
    task = load_task(f"parquet:{task_dir}", cache)
    backbone, workers = load(resolve("random:test_resnet", cache, 32)), Workers("cpu")
    bank = encode(backbone, task, cache, workers, Precision()).bank
    return Context(backbone, task, bank, workers, Precision(), cache, 0)


def plain(context: Context[TaskData], gallery: str) -> tuple[list[float], float]:
    """(R@1, 5, 10; mAP) by loops over a sorted list."""
    bank = context.features
    x, y = bank.train if gallery == "train" else bank.test
    queries, asked = bank.test
    unit = [v / np.linalg.norm(v) for v in x.double().numpy()]
    hits, precisions = [], []
    for i, query in enumerate(queries.double().numpy()):
        score = [float(query @ v) for v in unit]
        order = [j for j in np.argsort(score)[::-1] if gallery == "train" or j != i]
        right = [bool(y[j] == asked[i]) for j in order]
        hits.append([any(right[:k]) for k in (1, 5, 10)])
        at = [sum(right[: r + 1]) / (r + 1) for r, one in enumerate(right) if one]
        precisions.append(float(np.mean(at)) if at else 0.0)
    return np.mean(hits, 0).tolist(), float(np.mean(precisions))


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_plain_loops_agree(gallery: str, context: Context[TaskData]) -> None:
    out = retrieval.score(context, Retrieval(gallery=gallery))
    recalls, precision = plain(context, gallery)
    found = {s.name: s.value for s in out.scores}
    assert list(found) == ["recall_at_1", "recall_at_5", "recall_at_10", "map"]
    assert list(found.values()) == pytest.approx([*recalls, precision], abs=1e-6)
    kinds = {s.name: s.kind for s in out.scores}
    assert kinds["recall_at_1"] == ("sample" if gallery == "train" else "test")
    assert out.details["gallery"] == (96 if gallery == "train" else 71)
    one = next(s for s in out.scores if s.name == "map")
    assert one.ci_low < one.value < one.ci_high


def test_the_first_is_the_nearest_neighbour(context: Context[TaskData]) -> None:
    """R@1 is top-1 of one neighbour, and so is what is left without each tenth of train."""
    ours = retrieval.score(context, Retrieval())
    theirs = knn.score(context, Knn(ks=(1,)))
    assert ours.samples["recall_at_1"] == theirs.samples["top1"]


def relabelled(context: Context[TaskData], train: int) -> Context[TaskData]:
    """All training images are of that class."""
    bank = context.features
    labels = torch.cat([torch.full_like(bank.train[1], train), bank.test[1]])
    other = FeatureBank(bank.features, labels, bank.train_rows, bank.precision)
    split = dataclasses.replace(context.task.train, labels=labels[: bank.train_rows].numpy())
    return dataclasses.replace(
        context, bank=other, task=dataclasses.replace(context.task, train=split)
    )


def test_queries_without_a_match_are_misses(context: Context[TaskData]) -> None:
    out = retrieval.score(relabelled(context, 2), Retrieval())
    assert out.notes == [
        "60 of 72 queries have no image of their class in the gallery: they count as misses"
    ]
    assert {s.name: s.value for s in out.scores}["map"] == pytest.approx(12 / 72, abs=1e-6)


def test_a_gallery_without_any_match(context: Context[TaskData]) -> None:
    bank = context.features
    only = dataclasses.replace(bank, labels=torch.cat([bank.train[1] * 0 + 5, bank.test[1] * 0]))
    sentence = refusal(retrieval.score, dataclasses.replace(context, bank=only), Retrieval())
    assert "none of the 72 queries has an image of its class in the gallery (train)" in sentence


def test_from_the_command_line(cli: Cli, task_dir: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    line = (
        "run", "random:test_resnet", "random:test_vit", "--task", f"parquet:{task_dir}",
        "--img-size", "32", "--cache", str(tmp_path / "cache"), "--results", str(results),
        "--protocol", "retrieval", "--json",
    )  # fmt: skip
    done = cli(*line).json
    assert done["scored"] == 2
    assert {b["score"] for b in done["boards"]} == {"map", "recall_at_1"}
    for path in done["files"]:
        assert list(against_numbers(read_result(Path(path)))) == []
    assert cli("verify", done["files"][0]).out.startswith("equal")
    assert json.loads(cli(*line).out)["reused"] == 2
    board = cli("leaderboard", "--results", str(results)).out
    assert "retrieval, mAP" in board
    assert "retrieval, R@1" in board
    names = [f"random:{name} @32px" for name in ("test_resnet", "test_vit")]
    ran = cli("compare", *names, "--results", str(results))
    assert "retrieval map" in ran.out
    assert "retrieval recall_at_1" in ran.out
