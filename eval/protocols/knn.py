"""Cosine k nearest neighbours on a feature bank."""

from __future__ import annotations

import time

import numpy as np
import torch

from eval.data.task_data import TaskData
from eval.data.validation import held_out
from eval.metrics import intervals
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Knn
from eval.solvers.knn import nearest, predict, vote
from eval.training.context import Context


def score(context: Context[TaskData], settings: Knn) -> Outcome:
    """Top-1 at the (k, weighting) that does best on held-out train, and at every other."""
    bank, task, seed = context.features, context.task, context.seed
    out = Outcome()
    start = time.perf_counter()
    x, y = bank.train
    x_test, y_test = bank.test
    classes = len(task.classes)
    held = torch.from_numpy(held_out(task, settings.validation, seed))
    fit, val = (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)
    ks = [k for k in settings.ks if k <= len(fit)] or [len(fit)]
    if dropped := sorted(set(settings.ks) - set(ks)):
        out.notes.append(f"k {dropped} left out: only {len(fit)} images to choose among")

    def all_votes(
        bank_x: torch.Tensor, bank_y: torch.Tensor, queries: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """{k and weighting: predicted labels [M]}, simplest first."""
        similarity, index = nearest(bank_x, queries, max(ks))
        votes: dict[str, torch.Tensor] = {}
        for suffix, temperature in (("", None), ("_weighted", settings.temperature)):
            answers = predict(vote(similarity, bank_y[index], ks, classes, temperature))
            votes |= {f"k{k}{suffix}": a for k, a in zip(ks, answers, strict=True)}
        return votes

    on_val = {
        name: float((a == y[val]).double().mean())
        for name, a in all_votes(x[fit], y[fit], x[val]).items()
    }
    best = max(on_val, key=lambda name: on_val[name])  # the first of equals: small k, unweighted
    answers = all_votes(x, y, x_test)
    out.fit_seconds = time.perf_counter() - start
    correct = {name: (a == y_test).numpy() for name, a in answers.items()}
    labels = y_test.numpy().astype(np.int64)
    out.predictions = answers[best].numpy().astype(np.int64)
    out.add("top1", intervals.accuracy(correct[best], seed), len(labels))
    out.add_image_samples("top1", correct[best])
    out.add("mean_per_class", intervals.mean_per_class(correct[best], labels, seed), len(labels))
    for name, hits in correct.items():
        out.add(f"top1_{name}", intervals.accuracy(hits, seed), len(labels))
    out.details = {"chosen": best, "validation_top1": {k: round(v, 6) for k, v in on_val.items()}}
    return out
