"""Retrieval by instances: against plain loops and scikit-learn, on files; and what a run says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval.common.distributed import Workers
from eval.data.instances.instance_data import InstanceData
from eval.data.load import load_task
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import retrieval
from eval.results.evidence import against_numbers
from eval.results.store import read_result
from eval.settings.protocols import Retrieval
from eval.training.context import Context
from tests.factories import Cli, blobs

THINGS, EACH = 6, 5


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Six things with three images each in the gallery and two queries; the last one is asked for
    alone, and one image of the gallery shows what nobody asks for. Every second looks alike."""
    folder = tmp_path / "things"
    folder.mkdir()
    lines = ["file,thing,side"]
    for thing in range(THINGS):
        for i, image in enumerate(blobs(thing % 2, EACH, seed=11 + thing)):
            side = "query" if i < 2 else "gallery"
            if thing == THINGS - 1 and side == "gallery":
                continue
            (folder / f"{thing}-{i}.png").write_bytes(image)
            lines.append(f"{thing}-{i}.png,thing {thing},{side}")
    (folder / "other.png").write_bytes(blobs(9, 1, seed=2)[0])
    lines.append("other.png,other,gallery")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder / 'list.csv'}?image=file&instance=thing&role=side"


@pytest.fixture
def context(text: str, cache: Path) -> Context[InstanceData]:
    task = load_task(text, cache)
    assert isinstance(task, InstanceData)
    backbone, workers = load(resolve("random:test_resnet", cache, 32)), Workers("cpu")
    bank = encode(backbone, task, cache, workers, Precision()).bank
    return Context(backbone, task, bank, workers, Precision(), cache, 0)


def test_scikit_learn_and_plain_loops_agree(context: Context[InstanceData]) -> None:
    (x, y), (queries, asked) = context.features.train, context.features.test
    assert (len(x), len(queries)) == (3 * (THINGS - 1) + 1, 2 * (THINGS - 1))
    unit = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    asking = (queries / queries.norm(dim=1, keepdim=True)).double().numpy()
    hits, precisions = [], []
    for query, thing in zip(asking, asked.tolist(), strict=True):
        score = [float(query @ v) for v in unit]
        right = [int(other == thing) for other in y.tolist()]
        order = np.argsort([-s for s in score], kind="stable").tolist()
        hits.append([any(right[j] for j in order[:k]) for k in (1, 5, 10)])
        precisions.append(average_precision_score(right, score))
    out = retrieval.score(context, Retrieval())
    found = {s.name: s.value for s in out.scores}
    expected = [*np.mean(hits, 0).tolist(), float(np.mean(precisions))]
    assert list(found) == ["recall_at_1", "recall_at_5", "recall_at_10", "map"]
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)
    assert {s.kind for s in out.scores} == {"test"}
    assert 0.2 < found["recall_at_1"] < 1


def test_what_is_left_out_is_said(context: Context[InstanceData]) -> None:
    out = retrieval.score(context, Retrieval())
    assert out.details == {
        "gallery": 16, "queries_without_match": 0, "instances": 6, "queries_left_out": 2,
        "instances_left_out": ["thing 5"],
    }  # fmt: skip


def test_from_the_command_line(cli: Cli, text: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    line = (
        "run", "random:test_resnet", "random:test_vit", "--task", text, "--img-size", "32",
        "--cache", str(tmp_path / "cache"), "--results", str(results), "--protocol",
    )  # fmt: skip
    done = cli(*line, "retrieval", "--json").json
    assert done["scored"] == 2
    for path in done["files"]:
        result = read_result(Path(path))
        assert list(against_numbers(result)) == []
        assert result.notes[0] == (
            "2 of 12 queries have no image of their instance in the gallery and are left out: "
            "'thing 5'"
        )
    assert cli("verify", done["files"][0]).out.startswith("equal")
    assert cli(*line, "retrieval", "--json").json["reused"] == 2
    assert "retrieval, mAP" in cli("leaderboard", "--results", str(results)).out
    refused = cli(*line, "knn")
    assert refused.code == 2
    assert "has queries and a gallery; protocol knn cannot score it, retrieval can" in refused.err
    refused = cli(*line, "retrieval", "--set", "retrieval.gallery=test")
    assert refused.code == 2
    assert "its queries have a gallery of their own; leave the setting out" in refused.err
