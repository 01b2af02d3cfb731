"""Ranks and groups of ties as plain loops: what the fast ones are held against."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from space.tables.ties import SIGNIFICANT

Hits = list[NDArray[np.uint8]]


def naive_holm(p_values: list[float]) -> list[float]:
    out = [0.0] * len(p_values)
    worst = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, p_values[i] * (len(p_values) - place)))
        out[i] = worst
    return out


def naive_ranks(values: list[float]) -> list[float]:
    return [sum(w > v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def naive_p(samples: Hits, scale: list[int], i: int, j: int) -> float:
    total, variance = 0.0, 0.0
    for hits, of in zip(samples, scale, strict=True):
        delta = [float(a) / of - float(b) / of for a, b in zip(hits[i], hits[j], strict=True)]
        mean = sum(delta) / len(delta)
        total += mean
        variance += sum((d - mean) ** 2 for d in delta) / (len(delta) - 1) / len(delta)
    z = abs(total / len(samples)) / math.sqrt(variance / len(samples) ** 2)
    return 2 * float(ndtr(-z))


def naive_groups(samples: Hits, scale: list[int], order: list[int]) -> list[int]:
    out: list[int] = []
    group = 0
    while len(out) < len(order):
        group += 1
        leader, *behind = order[len(out) :]
        corrected = naive_holm([naive_p(samples, scale, leader, other) for other in behind])
        out.append(group)
        for p in corrected:
            if p < SIGNIFICANT:
                break
            out.append(group)
    return out
