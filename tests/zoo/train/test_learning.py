"""Seconds on real images: every objective learns what it asks for, and features get better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eval.models.objectives import STUDY, parse_objective
from zoo.train.feed import Feed
from zoo.train.learner import build_learner
from zoo.train.pixels import PretrainingData, open_data
from zoo.train.pretrain import Trainer, augmentation, pretrain
from zoo.train.probe import knn_top1
from zoo.train.recipe import load_recipe

QUEUE, BATCH = 512, 32
STEPS = QUEUE // BATCH  # that fill the queue
RECIPE = load_recipe(
    "tiny",
    [
        "backbone.model_args={channels=[8,16,32,64]}",
        "image.px=32",
        "image.store_px=32",
        "train.epochs=3",
        "train.warmup_epochs=1",
        f"train.batch_size={BATCH}",
        "train.precision=fp32",
        f"contrastive.queue={QUEUE}",
        "rate.contrastive=0.9",
        "probe.every_epochs=3",
    ],
)


@pytest.fixture(scope="module")
def data(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainingData:
    """EuroSAT: 2,250 satellite images of ten classes to train on, 250 held out to probe."""
    return open_data(
        str(real_data / "eurosat"), 32, tmp_path_factory.mktemp("cache"), need_labels=True
    )


@pytest.fixture(scope="module")
def untrained(data: PretrainingData) -> float:
    assert data.validation is not None
    backbone = build_learner(RECIPE, parse_objective("ce"), len(data.train.classes)).backbone
    return knn_top1(
        backbone, data.train, data.validation, augmentation(RECIPE.image), torch.device("cpu"),
        False, RECIPE.probe.k, RECIPE.probe.bank,
    )  # fmt: skip


def untrained_terms(objective: str, data: PretrainingData, out: Path) -> dict[str, float]:
    """The objective's terms before any learning, against a queue full of real keys.

    Random vectors fill a new queue: against those the contrastive task is another one.
    """
    run = Trainer(RECIPE, parse_objective(objective), data, out, "cpu")
    run.peak = 0.0
    feed = Feed(data.train, run.schedule, 0, STEPS + 5)
    for _ in range(STEPS):
        run.take_step(feed)
        run.step += 1
    last = [run.take_step(feed) for _ in range(5)]
    feed.close()
    return {name: float(sum(terms[name] for terms in last)) / 5 for name in last[0]}


# Trainings that end somewhere: when all is run.
@pytest.mark.slow
@pytest.mark.parametrize("objective", STUDY)
def test_loss_falls_and_features_beat_the_untrained(
    objective: str, data: PretrainingData, untrained: float, tmp_path: Path
) -> None:
    before = untrained_terms(objective, data, tmp_path / "before")
    done = pretrain(RECIPE, parse_objective(objective), data, tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    after = [line for line in lines if "total" in line][-1]
    for term in objective.split("+"):
        name = "ce" if term == "ce-strong" else term
        assert after[name] < before[name] - 0.1, (name, before[name], after[name])
    assert done.knn_top1 is not None
    assert done.knn_top1 > untrained + 1, (objective, done.knn_top1, untrained)
    assert lines[-1]["knn_top1"] == pytest.approx(done.knn_top1, abs=1e-3)
