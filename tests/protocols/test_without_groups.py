"""Top-1 with a group of training images left out, as `knn` and `linear` record it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from eval.data.groups import GROUPS, training_groups
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.protocols import knn, linear
from eval.settings.protocols import Knn, Linear
from eval.solvers.logistic import fit
from eval.training.context import Context

UNUSED: Any = None


def digits(cache: Path) -> tuple[TaskData, FeatureBank]:
    """Features that tell digits apart somewhat: noise around a random place of each class."""
    task = load_task("digits", cache, limit=200)
    labels = torch.from_numpy(np.concatenate([task.train.labels, task.test.labels]))
    generator = torch.Generator().manual_seed(0)
    centres = 0.5 * torch.randn(len(task.classes), 24, generator=generator)
    x = centres[labels] + torch.randn(len(labels), 24, generator=generator)
    return task, FeatureBank(x, labels, len(task.train), "fp32")


def test_knn_without_a_group_is_sklearn_on_the_others(tmp_path: Path) -> None:
    task, bank = digits(tmp_path)
    context = Context(UNUSED, task, bank, UNUSED, UNUSED, tmp_path, 0)
    out = knn.score(context, Knn(ks=(1,)))
    without = out.samples["top1"].without
    assert without is not None
    groups = training_groups(task, 0)
    (x, y), (x_test, y_test) = bank.train, bank.test
    unit, unit_test = (torch.nn.functional.normalize(p).numpy() for p in (x, x_test))
    for g in range(GROUPS):
        rest = groups != g
        model = KNeighborsClassifier(1).fit(unit[rest], y[rest])
        assert abs(without[g] - model.score(unit_test, y_test)) < 1e-6
    assert len(set(without)) > 1


def test_linear_without_a_group_is_a_fit_of_the_others(tmp_path: Path) -> None:
    task, bank = digits(tmp_path)
    out = linear.score_bank(bank, task, Linear(fractions=(0.5,), subsets=2), 0)
    assert [name for name, s in out.samples.items() if s.without] == ["top1"]
    without = out.samples["top1"].without
    assert without is not None
    groups = training_groups(task, 0)
    mean, scale = linear.fit_head(bank, task).mean, linear.fit_head(bank, task).scale
    x, x_test = ((part - mean) / scale for part in (bank.train[0], bank.test[0]))
    for g in range(GROUPS):
        rest = torch.from_numpy(groups != g)
        model = fit(x[rest], bank.train[1][rest], len(task.classes), out.details["c"], tol=1e-6)
        alone = (model.logits(x_test).argmax(1) == bank.test[1]).double().mean()
        assert abs(without[g] - float(alone)) <= 1.01 / len(x_test)
    assert len(set(without)) > 1
