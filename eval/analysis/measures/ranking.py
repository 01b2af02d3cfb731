"""Does a predictor rank models as measured transfer does? Arrays in, numbers out.

M models, T tasks; larger is better in both the predictor and the measured score. NaN marks a model
not predicted or not measured on a task: each task is judged on the models that have both.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.common.errors import BadInput
from eval.metrics.intervals import DRAWS, runs_interval

Floats = NDArray[np.float64]

MODELS = 3  # fewer cannot be ranked to any purpose


@dataclass(frozen=True)
class Agreement:
    """How well predicted scores rank measured ones, mean over tasks."""

    tau: float  # weighted Kendall's tau
    low: float | None  # 95 % interval of tau over tasks, by Student's t; None for one task
    high: float | None
    p_value: float | None  # one task only: chance that a random order of models does as well
    hit1: float  # share of tasks whose measured best model is the predicted best
    hit3: float  # ... is among the three predicted best (certain with three models)
    regret: float  # measured best less the predicted best's measured score, in measured points
    models: tuple[int, ...]  # models judged, per task


def weighted_tau(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Weighted Kendall's tau of [M] predicted and [M] measured scores, in -1..1.

    Vigna's additive hyperbolic weights (``scipy.stats.weightedtau``), as in LogME (You et al.
    2021): exchanges among the best models cost most. 0 where either side is constant, since it
    then orders nothing. Models that lack either score are left out.
    """
    return _tau(*_both(np.asarray(predicted, np.float64), np.asarray(measured, np.float64)))


def agreement(predicted: ArrayLike, measured: ArrayLike, seed: int = 0) -> Agreement:
    """Judge [M, T] predicted against [M, T] measured scores ([M] for one task).

    With several tasks tau carries a 95 % interval over them (Student's t); a single task has no
    spread to draw from, so there a one-sided permutation test of the models takes its place: exact
    up to 6 models, else ``DRAWS`` random orders. Where the predictor ties, hits and regret are
    those expected of a choice at random among the tied.
    """
    p, m = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if p.shape != m.shape or p.ndim not in (1, 2) or p.size == 0:
        raise ValueError(f"need two arrays [M] or [M, T], got {[*p.shape]} and {[*m.shape]}")
    p, m = p.reshape(len(p), -1), m.reshape(len(m), -1)
    n_tasks = p.shape[1]
    tasks = [_both(p[:, t], m[:, t], f" on task {t + 1} of {n_tasks}") for t in range(n_tasks)]
    taus = np.array([_tau(*task) for task in tasks])
    low = high = p_value = None
    if len(tasks) > 1:
        interval = runs_interval(taus)
        low, high = interval.low, interval.high
    else:
        p_value = _permutation_p(*tasks[0], seed)
    return Agreement(
        tau=float(taus.mean()),
        low=low,
        high=high,
        p_value=p_value,
        hit1=float(np.mean([_hit(*task, k=1) for task in tasks])),
        hit3=float(np.mean([_hit(*task, k=3) for task in tasks])),
        regret=float(np.mean([_regret(*task) for task in tasks])),
        models=tuple(len(task[0]) for task in tasks),
    )


def _both(predicted: Floats, measured: Floats, where: str = "") -> tuple[Floats, Floats]:
    """The models with both scores; UserError if they are too few to rank."""
    if predicted.shape != measured.shape or predicted.ndim != 1:
        raise ValueError(f"need two arrays [M], got {[*predicted.shape]} and {[*measured.shape]}")
    known = np.isfinite(predicted) & np.isfinite(measured)
    if known.sum() < MODELS:
        raise BadInput(
            f"ranking needs {MODELS} or more models with both a predicted and a measured score, "
            f"found {known.sum()}{where}."
        )
    return predicted[known], measured[known]


def _tau(predicted: Floats, measured: Floats) -> float:
    from scipy import stats

    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return 0.0  # scipy's answer is NaN
    return float(stats.weightedtau(predicted, measured).statistic)


def _permutation_p(predicted: Floats, measured: Floats, seed: int) -> float:
    """Share of orders of the models whose tau is at least the observed one."""
    observed = _tau(predicted, measured) - 1e-12  # equal taus may differ in their last bit
    n = len(predicted)
    if math.factorial(n) <= DRAWS:
        orders = [list(order) for order in itertools.permutations(range(n))]
        return float(np.mean([_tau(predicted[order], measured) >= observed for order in orders]))
    random = np.random.RandomState(seed)
    reached = sum(_tau(random.permutation(predicted), measured) >= observed for _ in range(DRAWS))
    return (1 + reached) / (1 + DRAWS)  # the observed order is one of the possible ones


def _hit(predicted: Floats, measured: Floats, k: int) -> float:
    """Chance that a measured best model is among the k predicted best, ties drawn at random."""
    k = min(k, len(predicted))
    best = measured == measured.max()
    edge = np.sort(predicted)[-k]
    above, tied = predicted > edge, predicted == edge
    if (best & above).any():
        return 1.0
    places, n = k - int(above.sum()), int(tied.sum())
    return 1 - math.comb(n - int((best & tied).sum()), places) / math.comb(n, places)


def _regret(predicted: Floats, measured: Floats) -> float:
    """Measured best less the measured score of the predicted best (mean over tied ones)."""
    return float(measured.max() - measured[predicted == predicted.max()].mean())
