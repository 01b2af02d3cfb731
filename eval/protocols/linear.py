"""Linear evaluation on cached features: L2-regularised logistic regression."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import torch

from eval import stats
from eval.bank import FeatureBank
from eval.data import TaskData
from eval.protocols import Linear
from eval.protocols.outcome import Outcome
from eval.protocols.validation import held_out
from eval.solvers.logistic import fit, search_c, standardise

# The search stops early by design; the one fit that is reported gets the time it needs.
MAX_ITERATIONS = 1000
# Threads add in another order, which changes the last digits of the weights and with them the
# ECE. Below this many feature values one thread is fast enough, and a score is the same on any
# number of cores; a million images of 2048 features take all there are.
ONE_THREAD_BELOW = 1 << 26


@contextlib.contextmanager
def _steady_sums(values: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if values < ONE_THREAD_BELOW else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def score(bank: FeatureBank, task: TaskData, settings: Linear, seed: int) -> Outcome:
    """Choose C on a stratified part of train, refit on all of train, score once on test."""
    with _steady_sums(bank.features.numel()):
        return _score(bank, task, settings, seed)


def _score(bank: FeatureBank, task: TaskData, settings: Linear, seed: int) -> Outcome:
    start = time.perf_counter()
    x, y = bank.train
    classes = len(task.classes)
    held = torch.from_numpy(held_out(task, settings.validation, seed))
    mean, scale = standardise(x[~held])
    search = search_c(
        (x[~held] - mean) / scale, y[~held], (x[held] - mean) / scale, y[held], classes
    )
    mean, scale = standardise(x)
    x_all = (x - mean) / scale
    model = fit(x_all, y, classes, search.best_c, init=search.model, max_iter=MAX_ITERATIONS)
    x_test, y_test = bank.test
    probability = model.logits((x_test - mean) / scale).double().softmax(1)
    confidence, answer = probability.max(1)
    seconds = time.perf_counter() - start

    correct = (answer == y_test).numpy()
    labels = y_test.numpy().astype(np.int64)
    out = Outcome(fit_seconds=seconds, predictions=answer.numpy().astype(np.int64))
    out.add("top1", stats.accuracy(correct, seed), len(labels))
    out.add_image_samples("top1", correct)
    out.add("mean_per_class", stats.mean_per_class(correct, labels, seed), len(labels))
    out.add("ece", stats.expected_calibration_error(confidence.numpy(), correct, seed), len(labels))
    out.details = {
        "c": search.best_c,
        "validation_top1": [[c, round(v, 6)] for c, v in search.tried],
        "converged": model.converged,
        "iterations": model.iterations,
    }
    if not model.converged:
        out.notes.append(f"the final fit stopped after {model.iterations} iterations, unconverged")
    return out
