"""What a board says of models that answered the same test images, as plain loops over scipy's
distributions: what the fast one is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Answers = list[NDArray[np.bool_]]  # a task each: [models, images]


@dataclass(frozen=True)
class Naive:
    half: list[float]  # of each model's mean
    group: list[int]
    places: list[str]
    margin: float  # how far the closest pair is from being decided otherwise, in standard errors


@cache
def _threshold(models: int) -> float:
    return float(stats.studentized_range.ppf(0.95, models, np.inf)) / math.sqrt(2)


def naive_standing(tasks: Answers) -> Naive:
    """``tasks`` are of at least two models, in the order of their means, the best first."""
    models = len(tasks[0])
    better, margin = set(), math.inf
    for i in range(models):
        for j in range(i + 1, models):
            z = _normal(tasks, i, j)
            margin = min(margin, abs(z - _threshold(models)))
            if z > _threshold(models):
                better.add((i, j))
    group: list[int] = []
    while len(group) < models:
        leader, number = len(group), max(group, default=0) + 1
        group.append(number)
        while len(group) < models and (leader, len(group)) not in better:
            group.append(number)
    places = []
    for i in range(models):
        first = 1 + sum((j, i) in better for j in range(models))
        last = models - sum((i, j) in better for j in range(models))
        places.append(str(first) if first == last else f"{first}-{last}")
    return Naive([_half(tasks, i) for i in range(models)], group, places, margin)


def _half(tasks: Answers, i: int) -> float:
    """By Student's t, one right and one wrong answer added to each task's."""
    parts = []
    for answers in tasks:
        n = answers.shape[1]
        share = (sum(answers[i].tolist()) + 1) / (n + 2)
        parts.append((share * (1 - share) / n, n - 1))
    error, free = _sum(parts)
    return float(stats.t.ppf(0.975, free)) * error


def _normal(tasks: Answers, i: int, j: int) -> float:
    """How far apart two models are, as a standard normal variable of the same p would show it. One
    image more is answered by one of them alone."""
    parts, gaps = [], []
    for answers in tasks:
        n = answers.shape[1]
        delta = [float(a) - float(b) for a, b in zip(answers[i], answers[j], strict=True)]
        gaps.append(sum(delta) / n)
        parts.append((sum((d - gaps[-1]) ** 2 for d in delta) / n**2 + 1 / n**2, n - 1))
    error, free = _sum(parts)
    gap = sum(gaps) / len(gaps)
    return float(stats.norm.isf(stats.t.sf(abs(gap) / error, free)))


def _sum(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """(standard error of a mean of these variances with their degrees of freedom, its own)."""
    total = sum(variance for variance, _ in parts)
    noise = sum(variance**2 / free for variance, free in parts)
    return math.sqrt(total) / len(parts), total**2 / noise
