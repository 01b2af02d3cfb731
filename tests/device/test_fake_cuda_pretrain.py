"""A pretraining step on an accelerator: the terms and the weights of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from eval.models.objectives import parse_objective
from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda
from tests.zoo.train.runs import data_of, recipe_of
from zoo.train.feed import Batch, read
from zoo.train.pretrain import Trainer


@pytest.mark.parametrize("objective", ["ce", "supcon+selfsupcon"])
def test_step(objective: str, tmp_path: Path, cuda: Cuda) -> None:
    def trainer() -> Trainer:
        recipe = recipe_of("train.batch_size=4", "train.accumulate=2")
        return Trainer(recipe, parse_objective(objective), data_of(), tmp_path, "cpu")

    def stepped(trainer: Trainer) -> tuple[dict[str, Tensor], list[Tensor]]:
        store, rows = trainer.data.train, trainer.schedule.rows(0, trainer.schedule.order(0))
        feed: list[Batch] = [read(store, part) for part in rows]
        terms = trainer.take_step(iter(feed))  # type: ignore[arg-type]  # all it asks is the next
        return terms, [p.detach() for p in trainer.learner.parameters()]

    terms, parameters = stepped(trainer())
    there = trainer()
    with cuda():
        there.device = CUDA
        there.learner.to(CUDA)
        trained = [p for p in there.learner.parameters() if p.requires_grad]
        there.optimiser = torch.optim.SGD(trained, there.peak, momentum=0.9)
        found, moved = stepped(there)
    assert found.keys() == terms.keys()
    for name, value in terms.items():
        assert_on_cuda(found[name], value, 1e-3)
    for mine, theirs in zip(moved, parameters, strict=True):
        assert_on_cuda(mine, theirs, 1e-2)
