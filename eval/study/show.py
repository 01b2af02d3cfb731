"""A verdict as text and as JSON."""

from __future__ import annotations

from typing import Any

from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted, visible
from eval.metrics.contrasts import Repeated
from eval.metrics.intervals import Interval
from eval.study.verdict import OPEN, ContrastAt, Level, Verdict

NOT_YET = "-"
LEGEND = (
    "Every ± is a 95 % interval. Images: over other samples of the test images, these trainings. "
    "Seeds: over other trainings, these images (Student's t). Both: over both, as are the ± of "
    "arms. p: over both, with Holm's correction over all contrasts and budgets of the plan. Helps "
    "or hurts: p below 0.05; equal: the corrected interval lies within half a point of 0; else "
    "undecided, and about how many trainings would find a difference of this size in 80 % of "
    "cases (>1000: images alone leave it open). Nothing is said of other data sets."
)


def render(found: Verdict, width: int | None) -> str:
    """Tables that fit ``width`` characters, or Markdown where there is none."""
    plan = found.table.plan
    parts = [
        _text(f"{plan.name}: {_progress(found)}", width),
        _text(" ".join(plan.question.split()), width),
    ]
    for asked in plan.questions:
        levels = [one for one in found.levels if one.score == asked.title]
        tested = [one for one in found.tested if one.score == asked.title]
        over = counted(len(asked.tasks), "data set")
        parts += [f"{asked.title}, mean over {over}, %", _levels(levels, width)]
        parts += [f"{asked.title}, differences in points", _tested(tested, width)]
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


def _levels(levels: list[Level], width: int | None) -> str:
    epochs = sorted({one.epochs for one in levels})
    cells = {(one.arm, one.epochs): _level(one) for one in levels}
    arms = list(dict.fromkeys(one.arm for one in levels))
    lines = [[arm, *(cells[arm, e] for e in epochs)] for arm in arms]
    return shown_table(["arm", *(f"{e} epochs" for e in epochs)], lines, width, "epochs")


def _level(one: Level) -> str:
    found = one.found
    if found is None:
        return NOT_YET
    both = found.over_both()
    if both is None:
        return f"{100 * found.value:.1f} (1 training)"
    return f"{100 * found.value:.1f} ±{100 * (both.high - both.value):.1f}"


def _tested(tested: list[ContrastAt], width: int | None) -> str:
    header = [
        "contrast", "epochs", "trainings", "sets", "difference", "images", "seeds", "both", "p",
        "verdict", "decided by",
    ]  # fmt: skip
    lines = [_line(one, one.found) for one in tested if one.found]
    waiting: dict[str, list[str]] = {}
    for one in tested:
        if one.found is None:
            waiting.setdefault(one.contrast, []).append(str(one.epochs))
    parts = [shown_table(header, lines, width, "contrast")] if lines else []
    if waiting:
        each = "; ".join(f"{name} at {', '.join(epochs)}" for name, epochs in waiting.items())
        parts.append(_text(f"Not trained yet, by epochs: {each}.", width))
    return "\n\n".join(parts)


def _line(one: ContrastAt, found: Repeated) -> list[str]:
    ranges = found.over_images(), found.over_trainings(), found.over_both()
    return [
        one.contrast, str(one.epochs), f"{one.trainings} of {one.planned}", str(len(one.tasks)),
        f"{100 * found.value:+.1f}", *map(_half, ranges),
        f"{one.p:.2g}" if one.trainings > 1 else NOT_YET, one.word, _needed(one),
    ]  # fmt: skip


def _half(found: Interval | None) -> str:
    return f"±{100 * (found.high - found.value):.1f}" if found else NOT_YET


def _needed(one: ContrastAt) -> str:
    if one.word != OPEN or one.trainings < 2:
        return NOT_YET
    return f"{one.needed} trainings" if one.needed else ">1000"


def _predictions(found: Verdict) -> str:
    return "Predicted before the first run. " + " ".join(
        f"{c.name}: {c.prediction.rstrip('.')}." for c in found.table.plan.contrasts
    )


def _text(text: str, width: int | None) -> str:
    shown = visible(text)
    return shown if width is None else wrapped(shown, width)
