"""The study's full-network transfer (paper.md 3.2), scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.data.task_data import TaskData
from eval.finetune.grid import fit as finetuned
from eval.finetune.saved_model import Keeper
from eval.protocols import train_fractions, trained
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Finetune
from eval.training.checkpoint import forget_answer, key
from eval.training.context import Context
from eval.training.setup import Answer, points

if TYPE_CHECKING:
    from eval.training.speed import Speed


def score(context: Context[TaskData], settings: Finetune) -> Outcome:
    """Answers are kept on disk until all parts of train that were asked for are there: a run
    killed in the last of them repeats none of the others."""
    digests: list[str] = []

    def fit(setup: Context[TaskData], settings: Finetune, rows: NDArray[np.int64]) -> Answer:
        whole = not digests  # all of train comes first; no network of its parts is kept
        digests.append(key(setup, settings, rows))
        keeper = Keeper(setup, settings, setup.keep) if setup.keep and whole else None
        return finetuned(setup, settings, rows, keeper)

    out = trained.score(context, settings, fit)
    if context.workers.main:
        for digest in digests:
            forget_answer(context.cache, digest)
    return out


def cost(context: Context[TaskData], settings: Finetune, speed: Speed) -> float:
    """Seconds of looking at validation and test images, and of training."""
    task = context.task
    evaluated, taught = images_to_see(settings, len(task.train), len(task.test))
    return (evaluated / speed.encoding + taught / speed.training) / context.workers.count


def images_to_see(settings: Finetune, train: int, test: int) -> tuple[float, float]:
    """(images that pass forward alone, images to train on), parts of train included."""
    shares = train_fractions.shares(settings, train)
    grid = len(points(settings))
    tuning = settings.tune_epochs * (1 - settings.validation) * grid if grid > 1 else 0
    if settings.halving:
        tuning *= 7 / 12  # thirds of the epochs with all, half and a quarter of the points
    evaluated = sum(shares) * grid * settings.validation * train + len(shares) * test
    return evaluated, sum(shares) * (tuning + settings.epochs) * train
