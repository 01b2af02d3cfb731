"""A verdict as text and as JSON."""

from __future__ import annotations

from typing import Any

from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted, visible
from eval.metrics.contrasts import Repeated
from eval.metrics.intervals import Interval
from eval.study.verdict import OPEN, ContrastAt, Level, Verdict

NOT_YET = "-"
_HEADER = (
    "contrast", "epochs", "trainings", "sets", "difference", "images", "seeds", "both", "p",
    "verdict",
)  # fmt: skip
LEGEND = (
    "Every ± is a 95 % interval. Images: over other samples of the test images, these trainings. "
    "Seeds: over other trainings, these images (Student's t). Both: over both, as are the ± of "
    "arms. p: over both, with Holm's correction over all contrasts and budgets of the plan. Helps "
    "or hurts: p below 0.05; equal: the corrected interval lies within half a point of 0; else "
    "undecided, and in brackets about how many trainings would find a difference of this size in "
    "80 % of cases (>1000: the images alone leave it open). Nothing is said of other data sets."
)


def render(found: Verdict, width: int | None) -> str:
    """Tables that fit ``width`` characters, or Markdown where there is none."""
    plan = found.table.plan
    parts = [
        _text(f"{plan.name}: {_progress(found)}", width),
        _text(" ".join(plan.question.split()), width),
    ]
    waiting: dict[str, list[str]] = {}  # {what is not trained yet: for which questions}
    for asked in plan.questions:
        levels = [one for one in found.levels if one.score == asked.title and one.found]
        tested = [one for one in found.tested if one.score == asked.title]
        waiting.setdefault(_waiting(tested), []).append(asked.title)
        if levels:
            over = f"{_sets(levels)} of {counted(len(asked.tasks), 'data set')}"
            parts += [f"{asked.title}, mean over {over}, %", _levels(levels, width)]
        if lines := [_line(one, one.found) for one in tested if one.found]:
            shown = shown_table(_HEADER, lines, width, "contrast")
            parts += [f"{asked.title}, differences in points", shown]
    for text, titles in waiting.items():
        where = "" if len(waiting) == 1 else f" ({', '.join(titles)})"
        if text:
            parts.append(_text(f"Not trained yet, by epochs{where}: {text}.", width))
    return "\n\n".join([*parts, _text(LEGEND, width), _text(_predictions(found), width)])


def as_json(found: Verdict) -> dict[str, Any]:
    """All numbers, as shares of 1."""
    plan = found.table.plan
    return {
        "study": plan.name,
        "checkpoints": {"scored": found.table.scored, "planned": plan.trainings},
        "scores_without_answers": found.table.without_answers,
        "levels": [
            {
                "score": one.score, "arm": one.arm, "epochs": one.epochs, "tasks": one.tasks,
                **_repeated(one.found),
            }
            for one in found.levels
        ],
        "contrasts": [
            {
                "score": one.score, "contrast": one.contrast, "epochs": one.epochs,
                "prediction": one.prediction, "tasks": one.tasks, **_repeated(one.found),
                "p_holm": one.p, "verdict": one.word, "trainings_needed": one.needed,
            }
            for one in found.tested
        ],
    }  # fmt: skip


def _repeated(found: Repeated | None) -> dict[str, Any]:
    if found is None:
        return {"value": None, "by_training": []}
    named = {
        "images": found.over_images(),
        "trainings": found.over_trainings(),
        "images_and_trainings": found.over_both(),
    }
    return {
        "value": found.value,
        "by_training": list(found.by_training),
        "intervals": {k: [i.low, i.high] if i else None for k, i in named.items()},
    }


def _progress(found: Verdict) -> str:
    table = found.table
    said = f"{table.scored} of {counted(table.plan.trainings, 'checkpoint')} trained and scored"
    if table.without_answers:
        said += (
            f"; {counted(table.without_answers, 'score')} left out, whose files have no single "
            "answers (`transfer-zoo study rescore` makes them anew)"
        )
    return said


def _sets(levels: list[Level]) -> str:
    """``11``; ``9 to 11`` where not all checkpoints were scored on the same."""
    counts = [len(one.tasks) for one in levels]
    few, many = min(counts), max(counts)
    return str(many) if few == many else f"{few} to {many}"


def _levels(levels: list[Level], width: int | None) -> str:
    epochs = sorted({one.epochs for one in levels})
    cells = {(one.arm, one.epochs): one for one in levels}
    arms = list(dict.fromkeys(one.arm for one in levels))
    lines = [[arm, *(_level(cells.get((arm, e))) for e in epochs)] for arm in arms]
    return shown_table(["arm", *(f"{e} epochs" for e in epochs)], lines, width, "epochs")


def _level(one: Level | None) -> str:
    if one is None or one.found is None:
        return NOT_YET
    both = one.found.over_both()
    if both is None:
        return f"{100 * one.found.value:.1f} (1 training)"
    return f"{100 * one.found.value:.1f} ±{100 * (both.high - both.value):.1f}"


def _waiting(tested: list[ContrastAt]) -> str:
    found: dict[str, list[str]] = {}
    for one in tested:
        if one.found is None:
            found.setdefault(one.contrast, []).append(str(one.epochs))
    return "; ".join(f"{name} at {', '.join(epochs)}" for name, epochs in found.items())


def _line(one: ContrastAt, found: Repeated) -> list[str]:
    ranges = found.over_images(), found.over_trainings(), found.over_both()
    return [
        one.contrast, str(one.epochs), f"{one.trainings} of {one.planned}", str(len(one.tasks)),
        f"{100 * found.value:+.1f}", *map(_half, ranges),
        f"{one.p:.2g}" if one.trainings > 1 else NOT_YET, _word(one),
    ]  # fmt: skip


def _half(found: Interval | None) -> str:
    return f"±{100 * (found.high - found.value):.1f}" if found else NOT_YET


def _word(one: ContrastAt) -> str:
    if one.word != OPEN or one.trainings < 2:
        return one.word
    return f"{OPEN} ({one.needed} trainings)" if one.needed else f"{OPEN} (>1000)"


def _predictions(found: Verdict) -> str:
    return "Predicted before the first run. " + " ".join(
        f"{c.name}: {c.prediction.rstrip('.')}." for c in found.table.plan.contrasts
    )


def _text(text: str, width: int | None) -> str:
    shown = visible(text)
    return shown if width is None else wrapped(shown, width)
