"""Two models on the same episodes and images: where they differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.common.text import text_table
from eval.metrics.paired import Paired, holm, paired, paired_resamples
from eval.results.leaderboard import main_scores, model_label, setting_label
from eval.results.schema import Result

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TaskDifference:
    """A minus B on one task, in fractions of one."""

    task: str
    a: float
    b: float
    unit: str
    n: int
    paired: Paired
    p_holm: float  # corrected over the tasks of the same protocol and score

    @property
    def verdict(self) -> str:
        """'A', 'B' or 'tie'."""
        if self.p_holm >= SIGNIFICANT:
            return "tie"
        return "A" if self.paired.difference.value > 0 else "B"


@dataclass(frozen=True)
class Comparison:
    """One protocol, setting and score over all tasks both models have."""

    a: str
    b: str
    protocol: str
    setting: str
    score: str
    tasks: tuple[TaskDifference, ...]

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        won = [t.task for t in self.tasks if t.verdict == "A"]
        lost = [t.task for t in self.tasks if t.verdict == "B"]
        n = len(self.tasks)
        mean = 100 * float(np.mean([t.paired.difference.value for t in self.tasks]))
        what = f"{self.protocol} {self.score}" + (f" ({self.setting})" if self.setting else "")
        head = outcome(self.a, self.b, won, lost, n)
        return (
            f"{what}: {head}; mean difference {mean:+.1f} points "
            "(paired tests, Holm-corrected p < 0.05)."
        )


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

    Raises UserError when a model has no results or they share none.
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
        Comparison(label_a, label_b, *key, tasks=_differences(key[2], pairs))
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


def _differences(score: str, pairs: Sequence[tuple[Result, Result]]) -> tuple[TaskDifference, ...]:
    found = []
    for mine, other in pairs:
        a, b = mine.samples[score], other.samples[score]
        values = a.values(), b.values()
        if a.unit == "resample":
            mean_a, mean_b = (_value(result, score) for result in (mine, other))
            test = paired_resamples(mean_a - mean_b, *values)
        else:
            mean_a, mean_b = (float(v.mean()) for v in values)
            test = paired(*values, unit=a.unit)
        found.append((mine.task.name, a, (mean_a, mean_b), test))
    corrected = holm([p.p_value for *_, p in found])
    return tuple(
        TaskDifference(task, *means, samples.unit, samples.n, test, p_holm)
        for (task, samples, means, test), p_holm in zip(found, corrected, strict=True)
    )


def _value(result: Result, name: str) -> float:
    return next(s.value for s in result.scores if s.name == name)


def render(comparisons: Sequence[Comparison], *, markdown: bool = False) -> str:
    """Tables and sentences."""
    out = []
    for c in comparisons:
        header = ["task", "A %", "B %", "A - B [95 % CI]", "A better / worse", "p (Holm)"]
        lines = [
            [
                t.task,
                f"{100 * t.a:.1f}",
                f"{100 * t.b:.1f}",
                f"{100 * t.paired.difference.value:+.1f} "
                f"[{100 * t.paired.difference.low:+.1f}, {100 * t.paired.difference.high:+.1f}]",
                f"{t.paired.wins} / {t.paired.losses} {t.unit}s",
                f"{t.p_holm:.2g}" if t.p_holm >= 1e-4 else "<0.0001",
            ]
            for t in c.tasks
        ]
        setting = f" ({c.setting})" if c.setting else ""
        out += [f"{c.protocol} {c.score}{setting}: A = {c.a}, B = {c.b}"]
        out += [text_table(header, lines, markdown), c.sentence, ""]
    return "\n".join(out).rstrip()


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        **{k: v for k, v in asdict(comparison).items() if k != "tasks"},
        "tasks": [{**asdict(t), "verdict": t.verdict} for t in comparison.tasks],
        "sentence": comparison.sentence,
    }
