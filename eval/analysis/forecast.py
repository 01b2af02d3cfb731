"""``analyze predictors``: which model would transfer best, from features and labels alone.

Numbers of the training images, in seconds and without any training. Where results of the same
models on the same images are at hand, how well the numbers rank them is said beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from eval.analysis.predictors import centroid_separation, log_me, shrunk_h_score, trans_rate
from eval.analysis.ranking import MODELS, agreement
from eval.bank import FeatureBank
from eval.results import Result

PREDICTORS: dict[str, Callable[[Any, Any], float]] = {
    "log_me": log_me,
    "shrunk_h_score": shrunk_h_score,
    "trans_rate": trans_rate,
    "centroid": centroid_separation,
}
MEASURED = ("linear", "top1")  # the protocol and score that predictions are held against


def measure(bank: FeatureBank) -> dict[str, float]:
    """Each predictor on the training images."""
    features, labels = bank.train
    x, y = features.numpy(), labels.numpy()
    return {name: round(float(rule(x, y)), 6) for name, rule in PREDICTORS.items()}


def measured(results: Iterable[Result], split_hash: str, weights: Sequence[str]) -> list[float]:
    """Linear top-1 of each model (by its weights' sha256) on the same images; NaN without one."""
    protocol, name = MEASURED
    found: dict[str, float] = {}
    for result in results:
        score = result.score(name)
        asked = result.protocol.name == protocol and result.task.split_hash == split_hash
        if asked and score and not (result.limit or result.seed):
            found[result.model.weights_sha256] = score.value
    return [found.get(sha, math.nan) for sha in weights]


def held_against(
    values: Sequence[dict[str, float]], scores: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """{predictor: weighted Kendall tau, its permutation p-value, regret}; empty where fewer than
    three of the models were measured."""
    if sum(not math.isnan(s) for s in scores) < MODELS:
        return {}
    out = {}
    for name in PREDICTORS:
        found = agreement([v[name] for v in values], list(scores))
        out[name] = {
            "tau": round(found.tau, 6), "p_value": found.p_value, "regret": round(found.regret, 6),
            "models": found.models[0],
        }  # fmt: skip
    return out


def sentence(
    names: Sequence[str], values: Sequence[dict[str, float]], held: dict[str, dict[str, Any]]
) -> str:
    """What to try first, and what that advice has been worth here."""
    best = names[int(np.argmax([v["log_me"] for v in values]))]
    text = f"By LogME {best} is the one to try first"
    if not held:
        return f"{text}; no three of the models have measured results on these images here."
    facts = held["log_me"]
    return (
        f"{text}; against the measured linear top-1 of {facts['models']} models its order has a "
        f"weighted Kendall tau of {facts['tau']:.2f} (p {facts['p_value']:.2g}) and its first "
        f"choice is {100 * facts['regret']:.1f} points below the best."
    )


def table(
    names: Sequence[str], values: Sequence[dict[str, float]], scores: Sequence[float]
) -> tuple[list[str], list[list[str]]]:
    """(header, lines), best LogME first."""
    order = sorted(range(len(names)), key=lambda i: -values[i]["log_me"])
    lines = [
        [names[i], *(f"{values[i][p]:.4g}" for p in PREDICTORS),
         "-" if math.isnan(scores[i]) else f"{100 * scores[i]:.1f}"]
        for i in order
    ]  # fmt: skip
    return ["model", *(p.replace("_", " ") for p in PREDICTORS), "measured linear top-1 %"], lines
