"""``analyze predictors``: which model would transfer best, from features and labels alone.

Numbers of the training images, in seconds and without any training. Where results of the same
models on the same images are at hand, how well the numbers rank them is said beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.analysis import Predictors
from eval.analysis.finding import Finding
from eval.analysis.measures.predictors import (
    centroid_separation,
    log_me,
    shrunk_h_score,
    trans_rate,
)
from eval.analysis.measures.ranking import MODELS, agreement
from eval.analysis.plots import legend_below, style
from eval.analysis.study import Study, task_key
from eval.features.bank import FeatureBank
from eval.results.names import REFERENCE, number_format
from eval.results.schema import ModelInfo, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTORS: dict[str, Callable[[Any, Any], float]] = {
    "log_me": log_me,
    "shrunk_h_score": shrunk_h_score,
    "trans_rate": trans_rate,
    "centroid": centroid_separation,
}
TITLES = {
    "log_me": "LogME",
    "shrunk_h_score": "shrunk H-score",
    "trans_rate": "TransRate",
    "centroid": "nearest centroid",
}
MEASURED = ("linear", "top1")  # the protocol and score that predictions are held against


def run(study: Study, settings: Predictors) -> dict[str, Any]:
    """{"models": {model: {task: {predictor: value}}}, "measured": {task: {model: top-1 or None}},
    "agreement": {task: {predictor: {tau, p_value, regret, hit1, hit3, models}}}}."""
    found = {
        name: {task_key(task): measure(study.bank(backbone, task)) for task in study.tasks}
        for name, backbone in study.backbones()
    }
    measured: dict[str, dict[str, float | None]] = {}
    held: dict[str, dict[str, dict[str, Any]]] = {}
    for task in study.tasks:
        key = task_key(task)
        scores = measured_scores(study.results, task.split_hash, study.infos)
        measured[key] = dict(zip(found, scores, strict=True))
        held[key] = held_against([v[key] for v in found.values()], scores)
    return {"models": found, "measured": measured, "agreement": held}


def measure(bank: FeatureBank) -> dict[str, float]:
    """Each predictor on the training images."""
    features, labels = bank.train
    x, y = features.numpy(), labels.numpy()
    return {name: round(float(rule(x, y)), 6) for name, rule in PREDICTORS.items()}


def measured_scores(
    results: Iterable[Result], split_hash: str, models: Sequence[ModelInfo]
) -> list[float | None]:
    """Linear top-1 of each model on the same images, at the same input size; None without one.

    All are of one precision: that in which most of the models were measured, of equals fp32.
    """
    protocol, name = MEASURED
    found: dict[str, dict[str, float]] = {REFERENCE: {}}
    for result in results:
        score = result.score(name)
        asked = result.protocol.name == protocol and result.task.split_hash == split_hash
        if asked and score and not (result.limit or result.seed):
            one = found.setdefault(number_format(result), {})
            one[identity(result.model)] = score.value
    ids = [identity(model) for model in models]
    most = max(found.values(), key=lambda scores: sum(i in scores for i in ids))
    return [most.get(i) for i in ids]


def identity(model: ModelInfo) -> str:
    """What makes the same features: the weights, what makes a network of them, which the revision
    tells, and how an image comes in."""
    return model.weights_sha256 + model.revision + json.dumps(model.input, sort_keys=True)


def held_against(
    values: Sequence[Mapping[str, float]], scores: Sequence[float | None]
) -> dict[str, dict[str, Any]]:
    """{predictor: weighted Kendall tau, its permutation p-value, hits and regret}; empty where
    fewer than three of the models were measured."""
    known = [math.nan if s is None else s for s in scores]
    if sum(not math.isnan(s) for s in known) < MODELS:
        return {}
    out = {}
    for name in PREDICTORS:
        found = agreement([v[name] for v in values], known)
        out[name] = {
            "tau": round(found.tau, 6), "p_value": found.p_value, "regret": round(found.regret, 6),
            "hit1": found.hit1, "hit3": found.hit3, "models": found.models[0],
        }  # fmt: skip
    return out


def ranked(finding: Finding, task: str, predictor: str = "log_me") -> list[str]:
    """The models, best first."""
    values = finding.values["models"]
    return sorted(values, key=lambda name: -values[name][task][predictor])


def sentence(finding: Finding) -> str:
    """What to try first, and what that advice has been worth here."""
    held = {t: a["log_me"] for t, a in finding.values["agreement"].items() if a}
    tasks = list(finding.values["measured"])
    if len(tasks) == 1:
        text = f"By LogME {ranked(finding, tasks[0])[0]} is the one to try first"
        if not held:
            return f"{text}; no three of the models have measured results on these images here."
        (facts,) = held.values()
        return (
            f"{text}; against the measured linear top-1 of {facts['models']} models its order has "
            f"a weighted Kendall tau of {facts['tau']:.2f} (p {facts['p_value']:.2g}) and its "
            f"first choice is {100 * facts['regret']:.1f} points below the best."
        )
    if not held:
        return "On none of the tasks are there measured results of three of the models."
    taus = [f["tau"] for f in held.values()]
    return (
        f"On {len(held)} tasks with measured results the order by LogME has a weighted Kendall tau "
        f"of {sum(taus) / len(taus):.2f} on the mean, and its first choice is the best model on "
        f"{sum(f['hit1'] for f in held.values()):.3g} of them."
    )


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines), best LogME first."""
    values, lines = finding.values, []
    for task, measured in values["measured"].items():
        for name in ranked(finding, task):
            numbers = values["models"][name][task]
            top1 = measured[name]
            lines.append(
                [name, task, *(f"{numbers[p]:.4g}" for p in PREDICTORS),
                 "-" if top1 is None else f"{100 * top1:.1f}"]
            )  # fmt: skip
    return ["model", "task", *TITLES.values(), "measured linear top-1 %"], lines


def figure(finding: Finding) -> Figure:
    """A panel a predictor: predicted against measured, each task's mean taken off both, or the
    predictions alone where nothing was measured."""
    from matplotlib.figure import Figure  # no pyplot: no window, no state

    values = finding.values
    names = list(values["models"])
    drawn = Figure(figsize=(8.4, 6.4 + 0.1 * len(names)), dpi=130)
    axes = drawn.subplots(2, 2).flat
    measured = any(v is not None for task in values["measured"].values() for v in task.values())
    for axis, predictor in zip(axes, PREDICTORS, strict=True):
        for task, scores in values["measured"].items():
            _points(axis, values, task, scores if measured else None, predictor)
        axis.set_title(TITLES[predictor], fontsize=10)
        axis.set_xlabel("predicted, less the mean of the task", fontsize=9)
        label = "linear top-1 less the task's mean, points" if measured else "model"
        axis.set_ylabel(label, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if not measured:
            axis.set_yticks([])
    legend_below(drawn, drawn.axes[0], names)
    return drawn


def _points(
    axis: Any,
    values: Mapping[str, Any],
    task: str,
    scores: Mapping[str, float | None] | None,
    predictor: str,
) -> None:
    names = list(values["models"])
    x = {n: values["models"][n][task][predictor] for n in names}
    here = [n for n in names if scores is None or scores[n] is not None]
    if not here:
        return
    middle = sum(x[n] for n in here) / len(here)
    known = {n: 0.0 if scores is None else 100 * (scores[n] or 0.0) for n in here}
    level = sum(known.values()) / len(here)
    for name in here:
        i = names.index(name)
        y = -float(i) if scores is None else known[name] - level
        axis.plot(x[name] - middle, y, ms=5, ls="", alpha=0.8, **style(i))
