"""``transfer-eval recommend``: which model to try first on my data, and how good such advice is.

A predictor orders the models by their features of the training images alone. What that order has
been worth is measured on other tasks, where the linear top-1 of the same models is known: how often
the first choice was the best model, and how many points it fell short. Beside it stands advice that
looks at no image: the model that was best on the mean of all the other tasks.

Evidence are findings of ``analyze predictors``: those that ship (the zoo's), and the user's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from eval.analysis.finding import Finding, read_findings
from eval.analysis.measures.ranking import MODELS, agreement
from eval.analysis.predictors import PREDICTORS, TITLES, identity, measured_scores, ranked
from eval.common.errors import NotFound, did_you_mean
from eval.metrics.intervals import wilson
from eval.results.schema import Result

SHIPPED = "evidence.json"  # of eval.analysis: what `analyze predictors` found for the zoo


class _Values(BaseModel):
    """The form of the findings that count."""

    models: dict[str, dict[str, dict[str, float]]]
    measured: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Evidence:
    """One task: each model's predictors and measured linear top-1, by ``forecast.identity``."""

    task: str
    split_hash: str
    predicted: dict[str, dict[str, float]]
    measured: dict[str, float]

    @property
    def models(self) -> list[str]:
        """Those that have both."""
        return [m for m in self.predicted if m in self.measured]


@dataclass(frozen=True)
class Worth:
    """What a predictor's advice was worth on ``tasks`` tasks; points are fractions of one."""

    predictor: str
    tasks: tuple[str, ...]
    models: tuple[int, int]  # fewest and most that were ordered on a task
    tau: float  # weighted Kendall, mean over tasks, with its 95 % interval
    tau_low: float
    tau_high: float
    hit1: float  # share of tasks whose best model was the first choice
    hit1_low: float
    hit1_high: float
    hit3: float  # ... was among the first three
    regret: float  # of the first choice against the best model, mean
    hit1_random: float  # a model drawn at random
    hit1_always: float  # the model that was best on the mean of the other tasks
    regret_always: float

    @property
    def sentence(self) -> str:
        """In plain words."""
        fewest, most = self.models
        models = f"{most}" if fewest == most else f"{fewest} to {most}"
        return (
            f"On {len(self.tasks)} other tasks with {models} measured models the first choice by "
            f"{TITLES[self.predictor]} was the best in {100 * self.hit1:.0f} % "
            f"[{100 * self.hit1_low:.0f}, {100 * self.hit1_high:.0f}] and among the first three in "
            f"{100 * self.hit3:.0f} %, and fell {100 * self.regret:.1f} points short on the mean "
            f"(weighted Kendall tau {self.tau:.2f} [{self.tau_low:.2f}, {self.tau_high:.2f}]); a "
            f"random choice is best in {100 * self.hit1_random:.0f} %, and always taking the model "
            f"that is best on the other tasks in {100 * self.hit1_always:.0f} %, "
            f"{100 * self.regret_always:.1f} points short."
        )


def shipped() -> Finding:
    """What ships with the package: six checkpoints of the zoo and an untrained network."""
    text = files("eval.analysis").joinpath(SHIPPED).read_text("utf-8")
    return Finding.model_validate_json(text)


def evidence(findings: Iterable[Finding], results: Sequence[Result] = ()) -> list[Evidence]:
    """A task each, findings of one task joined, later ones first in doubt. ``results`` add what
    was measured after a finding was made. Findings of other forms are passed over."""
    found: dict[str, Evidence] = {}
    for finding in findings:
        try:
            values = _Values.model_validate(finding.values)
        except ValidationError:
            continue
        for task, (key, measured) in zip(finding.tasks, values.measured.items(), strict=True):
            held = found.setdefault(task.split_hash, Evidence(key, task.split_hash, {}, {}))
            fresh = measured_scores(results, task.split_hash, finding.models)
            for model, now, (name, numbers) in zip(
                finding.models, fresh, values.models.items(), strict=True
            ):
                held.predicted[identity(model)] = numbers[key]
                top1 = measured[name] if now is None else now
                if top1 is not None:
                    held.measured[identity(model)] = top1
    return list(found.values())


def worth(found: Sequence[Evidence], predictor: str, models: Sequence[str] = ()) -> Worth | None:
    """Judge a predictor on every task where three or more models (of ``models``, by identity; all
    if there are none) have both numbers. None with fewer than two such tasks."""
    tasks, rows = [], []
    for one in found:
        here = [m for m in one.models if not models or m in models]
        if len(here) >= MODELS:
            tasks.append(one)
            rows.append(here)
    if len(tasks) < 2:
        return None
    names = list(dict.fromkeys(m for here in rows for m in here))
    predicted, measured = (np.full((len(names), len(tasks)), np.nan) for _ in range(2))
    for t, (one, here) in enumerate(zip(tasks, rows, strict=True)):
        for model in here:
            predicted[names.index(model), t] = one.predicted[model][predictor]
            measured[names.index(model), t] = one.measured[model]
    held = agreement(predicted, measured)
    always = agreement(_best_elsewhere(measured), measured)
    low, high = wilson(held.hit1 * len(tasks), len(tasks))
    assert held.low is not None  # of several tasks
    assert held.high is not None
    return Worth(
        predictor, tuple(one.task for one in tasks), (min(held.models), max(held.models)),
        held.tau, held.low, held.high, held.hit1, low, high, held.hit3, held.regret,
        float(np.mean([1 / n for n in held.models])), always.hit1, always.regret,
    )  # fmt: skip


def _best_elsewhere(measured: np.ndarray) -> np.ndarray:
    """[M, T]: each model's mean over the other tasks, each task centred on its own mean."""
    centred = measured - np.nanmean(measured, axis=0)
    known = ~np.isnan(centred)
    others = np.nansum(centred, 1, keepdims=True) - np.where(known, centred, 0)
    count = known.sum(1, keepdims=True) - known
    return np.where(known, others / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Advice:
    """Models in the order in which to try them, and what such orders were worth elsewhere."""

    order: tuple[str, ...]
    predictor: str
    finding: Finding
    worth: Worth | None  # of these models; of all that there is evidence of if those are too few
    same_models: bool

    @property
    def sentence(self) -> str:
        """What to try first, and why to believe it or not."""
        text = f"Try {self.order[0]} first, by {TITLES[self.predictor]}."
        if self.worth is None:
            return (
                f"{text} How good this advice is is not known here: no two other tasks have "
                "measured results of three models."
            )
        told = f"{text} {self.worth.sentence}"
        if not self.same_models:
            told += (
                " That was measured with other models than these: fewer than three of yours "
                "have results on two tasks here."
            )
        return told


def check_predictor(name: str) -> None:
    """Raises UserError for an unknown one."""
    if name not in PREDICTORS:
        names = "predictors are " + ", ".join(PREDICTORS)
        raise NotFound(f"unknown predictor {name!r}" + did_you_mean(name, PREDICTORS, names))


def advise(
    finding: Finding, known: Iterable[Finding], results: Sequence[Result], predictor: str
) -> Advice:
    """Order the models of a finding on one task."""
    (task,) = finding.tasks
    elsewhere = [e for e in evidence(known, results) if e.split_hash != task.split_hash]
    mine = [identity(m) for m in finding.models]
    found = worth(elsewhere, predictor, mine)
    (key,) = finding.values["measured"]
    return Advice(
        tuple(ranked(finding, key, predictor)), predictor, finding,
        found or worth(elsewhere, predictor), found is not None,
    )  # fmt: skip


def findings_at_hand(results: Path) -> list[Finding]:
    """The shipped finding, then those of a results directory."""
    return [shipped(), *(f for _, f in read_findings(results, "predictors"))]


def table(advice: Advice) -> tuple[list[str], list[list[str]]]:
    """(header, lines): all predictors, in the order of the advice."""
    values, (key,) = advice.finding.values, advice.finding.values["measured"]
    known = any(v is not None for v in values["measured"][key].values())
    lines = []
    for place, name in enumerate(advice.order, 1):
        cells = [f"{values['models'][name][key][p]:.4g}" for p in PREDICTORS]
        top1 = values["measured"][key][name]
        cells += ["-" if top1 is None else f"{100 * top1:.1f}"] if known else []
        lines.append([str(place), name, *cells])
    header = ["try", "model", *TITLES.values()]
    return header + ["measured linear top-1 %"] * known, lines
