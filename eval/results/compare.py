"""Two models on the same episodes and images: where they differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted, p_value
from eval.metrics.estimates import KINDS
from eval.metrics.intervals import Interval, runs_interval
from eval.metrics.ranks import holm
from eval.results.estimates import OLD_EPISODES, alike, estimates, measured
from eval.results.leaderboard import MIN_TASKS, main_scores, model_label, setting_label
from eval.results.schema import Result
from eval.results.transfer import IN_ZOO, SIGN, pair_counts, pretrains, seen

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TaskDifference:
    """A minus B on one task, in fractions of one."""

    task: str
    a: float
    b: float
    unit: str
    n: int
    difference: Interval
    kind: str  # of the chance that the interval and p speak of; '' where nothing can be claimed
    p_value: float
    wins: int  # units on which A is better
    losses: int
    p_holm: float  # corrected over the tasks of the same protocol and score
    seen: str = ""  # why it is no transfer for one of the two, in words

    @property
    def verdict(self) -> str:
        """'A', 'B', 'tie', or '' where nothing can be claimed."""
        if not self.kind:
            return ""
        if self.p_holm >= SIGNIFICANT:
            return "tie"
        return "A" if self.difference.value > 0 else "B"


@dataclass(frozen=True)
class Comparison:
    """One protocol, setting and score over all tasks both models have. ``apart`` are those of
    images that one of them was pretrained on: they count in no verdict and no mean."""

    a: str
    b: str
    protocol: str
    setting: str
    score: str
    tasks: tuple[TaskDifference, ...]
    apart: tuple[TaskDifference, ...] = ()

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        told = [t for t in self.tasks if t.kind]
        won = [t.task for t in told if t.verdict == "A"]
        lost = [t.task for t in told if t.verdict == "B"]
        what = f"{self.protocol} {self.score}" + (f" ({self.setting})" if self.setting else "")
        untold = len(self.tasks) - len(told)
        text = f"{what}: "
        if told:
            chances = " or ".join(dict.fromkeys(KINDS[t.kind] for t in told))
            text += outcome(self.a, self.b, won, lost, len(told))
            text += f" (paired tests, Holm-corrected p < {SIGNIFICANT}; over {chances})"
        if untold:
            text += f"{', ' * bool(told)}no claim on {counted(untold, 'task')}"
        gaps = [t.difference.value for t in self.tasks]
        text += f"; mean difference {100 * float(np.mean(gaps)):+.1f} points on these"
        if len(gaps) >= MIN_TASKS:
            sample = runs_interval(np.array(gaps))
            low, high = 100 * sample.low, 100 * sample.high
            text += f", {low:+.1f} to {high:+.1f} (95 %) with them as a sample of tasks"
        return f"{text}.{aside(self.apart)}"


def aside(apart: Sequence[TaskDifference]) -> str:
    """What stands apart, as a sentence behind others; '' for nothing."""
    if not apart:
        return ""
    gaps = [f"{t.task} ({100 * t.difference.value:+.1f} points; {t.seen})" for t in apart]
    return f" Apart, as no transfer: {', '.join(gaps)}."


def outcome(
    a: str, b: str, won: Sequence[str], lost: Sequence[str], n: int, unit: str = "tasks"
) -> str:
    """On how many of ``n`` tasks A is better and worse, by name, in plain words."""
    if not won and not lost:
        where = f"any of {n} {unit}" if n > 1 else f"the one {unit.removesuffix('s')}"
        return f"no difference between {a} and {b} is shown on {where}"
    named = [f" ({', '.join(tasks)})" if tasks else "" for tasks in (won, lost)]
    return (
        f"{a} is better than {b} on {len(won)} of {n} {unit}{named[0]}, worse on "
        f"{len(lost)}{named[1]}, undecided on {n - len(won) - len(lost)}"
    )


def find_model(text: str, results: Sequence[Result]) -> list[Result]:
    """The results of the model a user names: its board name, spec or ``name@revision``.

    Where a name has several revisions the newest result's is taken. Raises UserError.
    """
    name, at, revision = text.partition("@")
    named = [
        r
        for r in results
        if text in (r.model.id, r.model.spec, model_label(r), r.model.id.removeprefix("hf-hub:"))
        or (
            at
            and name in (r.model.id, r.model.id.removeprefix("hf-hub:"))
            and revision
            and r.model.revision.startswith(revision)
        )
    ]
    if not named:
        known = sorted({r.model.id for r in results} | {model_label(r) for r in results})
        raise NotFound(
            f"no result of model {text!r} here" + did_you_mean(text, known, ", ".join(known))
        )
    exact = [r for r in named if model_label(r) == text] or named
    newest = max(exact, key=lambda r: r.created)
    same = (model_label(newest), newest.model.revision)
    return [r for r in exact if (model_label(r), r.model.revision) == same]


def compare(a: str, b: str, results: Sequence[Result]) -> list[Comparison]:
    """Every protocol and score that both models have on the same episodes or images.

    ``a`` and ``b`` are names on the board, perhaps with ``@revision``; ``sentence`` of each
    comparison says its outcome, ``tasks`` the differences (fractions of one) with their intervals.

    Raises UserError when a model has no results or they share none.

    >>> from eval.models.names import ZOO_FOLDER
    >>> from eval.results.store import read_shelf
    >>> results = [result for _, result in read_shelf(ZOO_FOLDER).results]
    >>> name = "zoo:resnet18_narrow.{}_tin100"
    >>> found = compare(name.format("supcon"), name.format("selfsupcon"), results)
    >>> [(c.score, len(c.tasks)) for c in found if c.protocol == "linear"]
    [('top1', 11)]
    """
    rows_a, rows_b = find_model(a, results), find_model(b, results)
    label_a, label_b = model_label(rows_a[0]), model_label(rows_b[0])
    if label_a == label_b:
        label_a += f"@{rows_a[0].model.revision[:7]}"
        label_b += f"@{rows_b[0].model.revision[:7]}"
        if label_a == label_b:
            raise BadInput(f"{a!r} and {b!r} name the same model, {label_a}")
    theirs = {_question(r): r for r in rows_b}
    groups: dict[tuple[str, str, str], list[tuple[Result, Result]]] = {}
    for mine in rows_a:
        other = theirs.get(_question(mine))
        if other is None:
            continue
        for score in main_scores(mine):
            if score.name in other.samples and score.name in mine.samples:
                key = (mine.protocol.name, setting_label(mine), score.name)
                groups.setdefault(key, []).append((mine, other))
    if not groups:
        raise BadInput(
            f"{label_a} and {label_b} share no task with the same images, protocol, settings and "
            "seed; run both with the same arguments"
        )
    return [
        Comparison(label_a, label_b, *key, *_counted(key[2], pairs))
        for key, pairs in sorted(groups.items())
    ]


def _question(result: Result) -> tuple[str, ...]:
    """Equal for results whose samples are answers to the same questions."""
    return (
        result.task.name,
        result.task.split_hash,
        result.protocol.name,
        setting_label(result),
    )


def _counted(
    score: str, pairs: Sequence[tuple[Result, Result]]
) -> tuple[tuple[TaskDifference, ...], tuple[TaskDifference, ...]]:
    """(differences that count, those that stand apart), each corrected among its own."""
    whys = [[seen(r.model, r.task.name) for r in pair] for pair in pairs]
    own = np.array([[bool(why) for why in both] for both in whys], bool)
    counts = pair_counts(
        own[:, 0], own[:, 1], np.array([pretrains(r.task.name) for r, _ in pairs], bool)
    )
    parts = [[p for p, c in zip(pairs, counts, strict=True) if c == kept] for kept in (True, False)]
    mine, apart = (_differences(score, part) for part in parts)
    reasons = [a or b or IN_ZOO for (a, b), c in zip(whys, counts, strict=True) if not c]
    return mine, tuple(replace(t, seen=why) for t, why in zip(apart, reasons, strict=True))


def _differences(score: str, pairs: Sequence[tuple[Result, Result]]) -> tuple[TaskDifference, ...]:
    found = [_difference(score, *pair) for pair in pairs]
    told = [d for d in found if d.kind]
    corrected = iter(holm([d.p_value for d in told]))
    return tuple(replace(d, p_holm=next(corrected)) if d.kind else d for d in found)


def _difference(score: str, mine: Result, other: Result) -> TaskDifference:
    """On one task; ``p_holm`` is not corrected yet."""
    samples = mine.samples[score]
    values = samples.values(), other.samples[score].values()
    # a file of another number of answers is foreign: it names the same images, and has others
    delta = values[0] - values[1] if len(values[0]) == len(values[1]) else np.zeros(0)
    a, b = _value(mine, score), _value(other, score)
    kind, interval, p = "", Interval(a - b, np.nan, np.nan), 1.0
    pair = [measured(result, score) for result in (mine, other)]
    if pair[0] is not None and pair[1] is not None:
        told = estimates(alike(pair[0], pair[1]))
        if told is not None:
            interval, p = told.difference()
            kind = told.kind
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    return TaskDifference(
        mine.task.name, a, b, samples.unit, samples.n, interval, kind, p, wins, losses, p
    )


def _value(result: Result, name: str) -> float:
    return next(s.value for s in result.scores if s.name == name)


def render(comparisons: Sequence[Comparison], width: int | None = None) -> str:
    """Tables and sentences, for a screen of ``width`` characters or as Markdown (None)."""

    def paragraph(text: str) -> str:
        return text if width is None else wrapped(text, width)

    out = []
    for c in comparisons:
        header = ["task", "A %", "B %", "A - B [95 % CI]", "A better / worse", "p (Holm)"]
        lines = [
            [
                t.task + SIGN * bool(t.seen),
                f"{100 * t.a:.1f}",
                f"{100 * t.b:.1f}",
                _shown(t),
                f"{t.wins} / {t.losses} {t.unit}s",
                "-" if not t.kind else p_value(t.p_holm),
            ]
            for t in (*c.tasks, *c.apart)
        ]
        setting = f" ({c.setting})" if c.setting else ""
        out += [paragraph(f"{c.protocol} {c.score}{setting}: A = {c.a}, B = {c.b}")]
        out += [shown_table(header, lines, width), paragraph(c.sentence)]
        if untold := [t.task for t in c.tasks if not t.kind]:
            episodes = any(t.unit == "episode" for t in c.tasks)
            why = OLD_EPISODES if episodes else "the two were not asked the same"
            out.append(paragraph(f"No claim on {', '.join(untold)}: {why}."))
        out.append("")
    return "\n".join(out).rstrip()


def _shown(t: TaskDifference) -> str:
    gap = t.difference
    text = f"{100 * gap.value:+.1f}"
    return f"{text} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]" if t.kind else text


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        **{k: v for k, v in asdict(comparison).items() if k not in ("tasks", "apart")},
        "tasks": [{**asdict(t), "verdict": t.verdict} for t in comparison.tasks],
        "apart": [{**asdict(t), "verdict": t.verdict} for t in comparison.apart],
        "sentence": comparison.sentence,
    }
