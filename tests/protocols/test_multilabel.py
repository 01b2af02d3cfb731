"""Several labels an image as protocols: scikit-learn's regressions and neighbours give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from eval.common.distributed import Workers
from eval.data.labels.label_data import labels_of
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import multilabel, multilabel_knn
from eval.results.evidence import against_numbers
from eval.results.store import read_result
from eval.settings.protocols import Multilabel, MultilabelKnn
from eval.training.context import Context
from tests.factories import Cli


@pytest.fixture
def context(real_data: Path, cache: Path) -> Context[TaskData]:
    """VOC 2007 by which classes are in an image, at 32 px."""
    task = load_task(f"parquet:{real_data / 'voc2007'}?labels=objects.category", cache)
    backbone, workers = load(resolve("random:test_resnet", cache, 32)), Workers("cpu")
    bank = encode(backbone, task, cache, workers, Precision()).bank
    return Context(backbone, task, bank, workers, Precision(), cache, 0)


def test_sklearn_s_regressions_give_the_same(context: Context[TaskData]) -> None:
    settings = Multilabel(cs=(1e-3, 1e-2, 0.1))
    out = multilabel.score(context, settings)
    x, x_test = (
        part[0].double().numpy() for part in (context.features.train, context.features.test)
    )
    train, test = labels_of(context.task)
    held = multilabel.part_held_out(context.task, settings.validation, 0)

    def answers(rows: np.ndarray, asked: np.ndarray, c: float) -> np.ndarray:
        scale = StandardScaler().fit(x[rows])
        columns = []
        for label in range(train.shape[1]):
            model = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
            model.fit(scale.transform(x[rows]), train[rows, label])
            columns.append(model.decision_function(scale.transform(asked)))
        return np.stack(columns, 1)

    known = []
    for c in settings.cs:
        scores = answers(~held, x[held], c)
        known.append(np.mean([
            average_precision_score(train[held, label], scores[:, label])
            for label in range(20) if train[held, label].any()
        ]))  # fmt: skip
    assert [value for _, value in out.details["validation_map"]] == pytest.approx(known, abs=5e-3)
    assert (
        out.details["c"]
        == settings.cs[int(np.argmax([v for _, v in out.details["validation_map"]]))]
    )
    scores = answers(np.ones(len(x), bool), x_test, out.details["c"])
    found = {s.name: s.value for s in out.scores}
    assert found["map"] == pytest.approx(
        average_precision_score(test, scores, average="macro"), abs=3e-3
    )
    assert found["map_micro"] == pytest.approx(
        average_precision_score(test, scores, average="micro"), abs=3e-3
    )
    assert found["auroc"] == pytest.approx(roc_auc_score(test, scores, average="macro"), abs=3e-3)
    rows = {row["name"]: row for row in out.details["per_label"]}
    assert rows["person"]["test"] == 41
    assert rows["person"]["auroc"] == pytest.approx(
        roc_auc_score(test[:, 14], scores[:, 14]), abs=3e-3
    )


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_sklearn_s_neighbours_give_the_same(temperature: float, context: Context[TaskData]) -> None:
    out = multilabel_knn.score(context, MultilabelKnn(ks=(7,), temperature=temperature))
    x, x_test = (part[0].numpy() for part in (context.features.train, context.features.test))
    train, test = labels_of(context.task)
    distance, index = NearestNeighbors(n_neighbors=7, metric="cosine").fit(x).kneighbors(x_test)
    weight = np.ones_like(distance)
    if out.details["chosen"].endswith("weighted"):
        weight = np.exp(-distance.astype(np.float64) / temperature)
    scores = (weight[..., None] * train[index]).sum(1) / weight.sum(1, keepdims=True)
    found = {s.name: s.value for s in out.scores}
    known = average_precision_score(test, scores, average="macro")
    assert found["map"] == pytest.approx(known, abs=5e-3)


def test_findings_one_an_image_are_scored_each_against_the_rest(
    real_data: Path, cache: Path
) -> None:
    task = load_task("chestx", cache, real_data)
    backbone, workers = load(resolve("random:test_resnet", cache, 32)), Workers("cpu")
    bank = encode(backbone, task, cache, workers, Precision()).bank
    out = multilabel.score(
        Context(backbone, task, bank, workers, Precision(), cache, 0), Multilabel()
    )
    assert [row["name"] for row in out.details["per_label"]] == list(task.classes)
    assert sum(row["test"] for row in out.details["per_label"]) == 90
    value = {s.name: s.value for s in out.scores}["auroc"]
    assert value == pytest.approx(
        np.mean([row["auroc"] for row in out.details["per_label"]]), abs=2e-6
    )


@pytest.mark.slow
def test_from_the_command_line(cli: Cli, real_data: Path, tmp_path: Path) -> None:
    line = (
        "run", "random:test_resnet", "random:test_vit", "--task",
        f"parquet:{real_data / 'voc2007'}?labels=objects.category", "chestx", "--data", real_data,
        "--img-size", "32", "--cache", tmp_path / "cache", "--results", tmp_path / "results",
    )  # fmt: skip
    done = cli(*line, "--protocol", "multilabel", "multilabel-knn", "--json").json
    assert (done["scored"], done["failures"]) == (8, [])
    for path in done["files"]:
        assert list(against_numbers(read_result(Path(path)))) == []
    assert cli("verify", done["files"][0], "--data", real_data).out.startswith("equal")
    names = [f"random:{name} @32px" for name in ("test_resnet", "test_vit")]
    ran = cli("compare", *names, "--results", tmp_path / "results")
    assert "multilabel map" in ran.out
    assert "multilabel-knn auroc" in ran.out
    ran = cli(*line[:5], *line[6:], "--protocol", "fewshot")
    assert ran.code == 2
    assert "has several labels an image; protocol fewshot cannot score it, multilabel, " in ran.err


def test_too_few_to_choose_on(cli: Cli, tmp_path: Path, task_dir: Path) -> None:
    """One image is held out, and it is of one label: nothing ranks it."""
    ran = cli(
        "run", "random:test_resnet", "--task", f"parquet:{task_dir}", "--img-size", "32",
        "--protocol", "multilabel", "--cache", tmp_path / "c", "--results", tmp_path / "r",
        "--set", "multilabel.validation=0.01", "--limit", "6",
    )  # fmt: skip
    assert ran.code == 2
    assert "can be held out to choose settings on" in ran.err
