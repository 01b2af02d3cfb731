"""The attentive probe as a protocol: a plain loop over timm's tokens gives the same answers."""

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
from eval.data.validation import held_out
from eval.features.precision import Precision
from eval.features.read import Read, read
from eval.features.readout import tokens_of
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS, attentive
from eval.results.store import read_result
from eval.settings.protocols import Attentive
from eval.settings.readout import TOKENS, Readout
from eval.solvers.attentive import initial
from eval.training.context import Context
from tests.factories import Cli
from tests.solvers.naive_attention import NaiveProbe

SMALL = Attentive(lrs=(1e-3, 1e-2), weight_decays=(0.05,), epochs=4, batch_size=32)


@pytest.fixture
def task(task_dir: Path, cache: Path) -> TaskData:
    """96 train and 72 test images."""
    return load_task(f"parquet:{task_dir}", cache)


def context_of(model: str, task: TaskData, cache: Path, seed: int = 0) -> Context[TaskData]:
    backbone, workers = load(resolve(model, cache, 64)), Workers("cpu")
    wanted = Readout(pool=TOKENS)
    found: Read = read(backbone, [wanted], task, cache, workers, Precision())[wanted]
    return Context(found.backbone, task, found.encoded.bank, workers, Precision(), cache, seed)


def naive(context: Context[TaskData], settings: Attentive) -> tuple[list[float], np.ndarray]:
    """(top-1 of each rate on the held-out part, probabilities of the best one on test)."""
    x, y = context.features.train
    x, test = (tokens_of(context.backbone, t).double() for t in (x, context.features.test[0]))
    held = torch.from_numpy(held_out(context.task, settings.validation, context.seed))
    fit = attentive._Fit(context, settings, np.arange(len(y)))  # for its draws

    def trained(rows: torch.Tensor, lr: float) -> tuple[NaiveProbe, torch.Tensor, torch.Tensor]:
        mean, scale = x[rows].mean((0, 1)), x[rows].std((0, 1), correction=0)
        generator = torch.Generator().manual_seed(fit._words("start")[0])
        start = initial(x.shape[2], len(context.task.classes), generator)
        batches = [
            ((x[some] - mean) / scale, y[some])
            for epoch in range(settings.epochs)
            for some in fit._order(epoch, rows).split(settings.batch_size)
        ]
        probe = NaiveProbe(start, 8)
        return probe.fit(batches, lr, settings.weight_decays[0]), mean, scale

    every = torch.arange(len(y))
    accuracy = []
    for lr in settings.lrs:
        probe, mean, scale = trained(every[~held], lr)
        answers = probe((x[held] - mean) / scale).argmax(1)
        accuracy.append(float((answers == y[held]).double().mean()))
    probe, mean, scale = trained(every, settings.lrs[int(np.argmax(accuracy))])
    return accuracy, probe((test - mean) / scale).softmax(1).detach().numpy()


def test_a_plain_loop_gives_the_same(task: TaskData, cache: Path) -> None:
    context = context_of("random:test_vit", task, cache)
    outcome = attentive.score(context, SMALL)
    accuracy, probability = naive(context, SMALL)
    told = [point["top1"] for point in outcome.details["points"]]
    assert told == pytest.approx(accuracy, abs=1e-6)
    assert outcome.predictions is not None
    assert outcome.confidence is not None
    assert (outcome.predictions == probability.argmax(1)).mean() > 0.98
    np.testing.assert_allclose(outcome.confidence, probability.max(1), atol=1e-3)
    assert (outcome.details["tokens"], outcome.details["heads"]) == (16, 8)


def test_the_places_of_a_map_are_tokens(task: TaskData, cache: Path) -> None:
    context = context_of("random:test_resnet", task, cache)
    outcome = attentive.score(context, SMALL)
    assert outcome.details["tokens"] == 4  # 2 x 2 places at 64 px
    other = attentive.score(dataclasses.replace(context, seed=1), SMALL)
    assert other.details["points"] != outcome.details["points"]
    again = attentive.score(context, SMALL)
    assert again.scores == outcome.scores


def test_from_the_command_line(cli: Cli, task_dir: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    line = (
        "run", "random:test_vit", "--task", f"parquet:{task_dir}", "--img-size", "64",
        "--cache", str(tmp_path / "cache"), "--results", str(results), "--protocol", "attentive",
        "knn", "--set", "attentive.epochs=2", "--train-per-class", "8", "--layer", "blocks.3",
        "--json",
    )  # fmt: skip
    done = json.loads(cli(*line).out)
    assert done["scored"] == 2
    [path] = results.rglob("*.attentive@*.json")
    assert path.name.endswith("attentive@epochs=2,per_class=8,layer=blocks.3.json")
    result = read_result(path)
    assert {"top1", "mean_per_class", "ece", "nll", "top1_8each"} <= {s.name for s in result.scores}
    assert len(list((tmp_path / "cache" / "banks").iterdir())) == 2  # vectors, and tokens apart
    assert json.loads(cli(*line).out)["reused"] == 2
    assert cli("verify", str(path)).out.startswith("equal")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--pool", "cls"), "protocol 'attentive' learns how to pool; leave --pool cls out"),
        (("--layer", "last-2"), "takes the tokens of one layer, not of 'last-2'"),
        (("--layer", "auto"), "takes the tokens of one layer, not of 'auto'"),
        (
            ("--set", "attentive.lrs=[1e6]", "attentive.weight_decays=[1e6]"),
            "all 1 points of the grid diverged; use smaller rates",
        ),
    ],
)
def test_mistakes(
    more: tuple[str, ...], words: str, cli: Cli, task_dir: Path, tmp_path: Path
) -> None:
    ran = cli(
        "run", "random:test_vit", "--task", f"parquet:{task_dir}", "--img-size", "64",
        "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results"),
        "--protocol", "attentive", *more,
    )  # fmt: skip
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert PROTOCOLS["attentive"].default is False
