"""Cosine k nearest neighbours on a feature bank."""

from __future__ import annotations

import time

import numpy as np
import torch

from eval.data.groups import GROUPS, training_groups
from eval.data.task_data import TaskData
from eval.data.validation import held_out
from eval.metrics import intervals
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Knn
from eval.solvers.knn import nearest, predict, predict_without, vote
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
        similarity: torch.Tensor, labels: torch.Tensor
    ) -> dict[tuple[int, float | None], torch.Tensor]:
        """{(k, temperature): predicted labels [M]}, simplest first."""
        votes: dict[tuple[int, float | None], torch.Tensor] = {}
        for temperature in (None, settings.temperature):
            answers = predict(vote(similarity, labels, ks, classes, temperature))
            votes |= {(k, temperature): a for k, a in zip(ks, answers, strict=True)}
        return votes

    similarity, index = nearest(x[fit], x[val], max(ks))
    on_val = {
        way: float((a == y[val]).double().mean())
        for way, a in all_votes(similarity, y[fit][index]).items()
    }
    best = max(on_val, key=lambda way: on_val[way])  # the first of equals: small k, unweighted
    # Ten more and a quarter: a group of a tenth rarely takes away more of them.
    length = min(len(x), max(*ks, best[0] + best[0] // 4 + 10))
    similarity, index = nearest(x, x_test, length)
    answers = all_votes(similarity[:, : max(ks)], y[index[:, : max(ks)]])
    groups = torch.from_numpy(training_groups(task, seed))
    others = predict_without(
        x, x_test, similarity, index, y, groups, GROUPS, best[0], classes, best[1]
    )  # [G, M]
    without = (others == y_test).double().mean(1).tolist()
    out.fit_seconds = time.perf_counter() - start
    correct = {way: (a == y_test).numpy() for way, a in answers.items()}
    labels = y_test.numpy().astype(np.int64)
    out.predictions = answers[best].numpy().astype(np.int64)
    out.note_one_class(classes)
    hits = correct[best]
    out.add_top1(hits, without)
    out.add("mean_per_class", intervals.mean_per_class(hits, labels), len(labels))
    for way, right in correct.items():
        out.add(f"top1_{_name(*way)}", intervals.accuracy(right), len(labels))
    validation = {_name(*way): round(top1, 6) for way, top1 in on_val.items()}
    out.details = {"chosen": _name(*best), "validation_top1": validation}
    return out


def _name(k: int, temperature: float | None) -> str:
    return f"k{k}" if temperature is None else f"k{k}_weighted"
