"""A verdict as text and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted, visible
from eval.metrics.contrasts import Repeated
from eval.metrics.intervals import Interval
from eval.study.content import Association, associations
from eval.study.verdict import LEVEL, OPEN, ContrastAt, Level, Verdict

NOT_YET = "-"
_HEADER = (
    "contrast", "epochs", "trainings", "sets", "difference", "images", "seeds", "both", "p",
    "p alone", "verdict",
)  # fmt: skip
LEGEND = (
    "Every ± is a 95 % interval. Images: over other samples of the test images, these trainings. "
    "Seeds: over other trainings, these images (Student's t; how much trainings differ is taken "
    "from all arms of a budget, as if they varied alike). Both: over both, as are the ± of arms. "
    "p: over both, with Holm's correction over all contrasts and "
    "budgets of the plan; p alone: the same from the contrast's own trainings. Helps or hurts: p "
    "below 0.05; equal: the corrected interval lies within half a point of 0; else undecided, and "
    "in brackets about how many trainings would find a difference of this size in 80 % of cases "
    "(>1000: the images alone leave it open). Nothing is said of other data sets."
)
_GLANCE = (
    "Every contrast at a glance, points ±95 % over other images and other trainings; * where p is "
    "below 0.05 after the correction, ** where p alone is too. One training says nothing of others."
)
_CONTENT = (
    "Correlation over the arms of a budget of content with transfer. It is described, not tested: "
    "arms share their terms, so there are fewer of them than it looks."
)


def render(found: Verdict, width: int | None) -> str:
    """Tables that fit ``width`` characters, or Markdown where there is none."""
    plan = found.table.plan
    parts = [
        _text(f"{plan.name}: {_progress(found)}", width),
        _text(" ".join(plan.question.split()), width),
    ]
    if glance := _glance(found, width):
        parts += [_text(_GLANCE, width), glance]
    if beside := _content(found, width):
        parts += [_text(_CONTENT, width), beside]
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
            vary = [
                f"{100 * spread.variance**0.5:.1f} at {epochs} epochs"
                for (title, epochs), spread in found.spreads.items() if title == asked.title
            ]  # fmt: skip
            said = f"; one training's standard deviation {', '.join(vary)}" if vary else ""
            parts += [f"{asked.title}, differences in points{said}", shown]
    for text, titles in waiting.items():
        where = "" if len(waiting) == 1 else f" ({', '.join(titles)})"
        if text:
            parts.append(_text(f"Not trained yet, by epochs{where}: {text}.", width))
    parts += [_text(LEGEND, width), _text(_predictions(found), width)]
    if plan.notes:
        notes = " ".join(" ".join(note.split()) for note in plan.notes)
        parts.append(_text(f"Changed after the first run. {notes}", width))
    return "\n\n".join(parts)


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
                "p_holm": one.p, "p_holm_alone": one.p_alone, "verdict": one.word,
                "trainings_needed": one.needed,
            }
            for one in found.tested
        ],
        "spreads": [
            {"score": title, "epochs": epochs, "sd": one.variance**0.5, "degrees": one.free}
            for (title, epochs), one in found.spreads.items()
        ],
        "content_beside_transfer": [dataclasses.asdict(one) for one in associations(found)],
        "notes": list(plan.notes),
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
    return _range([len(one.tasks) for one in levels])


def _range(counts: list[int]) -> str:
    few, many = min(counts), max(counts)
    return str(many) if few == many else f"{few} to {many}"


def _glance(found: Verdict, width: int | None) -> str:
    """A row a contrast and budget, a column a score; empty where nothing is trained."""
    titles = [asked.title for asked in found.table.plan.questions]
    rows: dict[tuple[str, int], dict[str, ContrastAt]] = {}
    for one in found.tested:
        if one.found is not None:
            rows.setdefault((one.contrast, one.epochs), {})[one.score] = one
    if not rows:
        return ""
    lines = []
    for (contrast, epochs), by_score in rows.items():
        counts = [one.trainings for one in by_score.values()]
        cells = [_brief(by_score.get(title)) for title in titles]
        lines.append([contrast, str(epochs), _range(counts), *cells])
    return shown_table(["contrast", "epochs", "trainings", *titles], lines, width, "contrast")


def _brief(one: ContrastAt | None) -> str:
    if one is None or one.found is None:
        return NOT_YET
    both = one.found.over_both()
    if both is None:
        return f"{100 * one.found.value:+.1f}"
    mark = "" if one.p >= LEVEL else " *" if one.p_alone >= LEVEL else " **"
    return f"{100 * one.found.value:+.1f} ±{100 * (both.high - both.value):.1f}{mark}"


def _content(found: Verdict, width: int | None) -> str:
    """A row a level of content and budget, a column a transfer score; empty without content."""
    titles = [asked.title for asked in found.table.plan.transfer]
    rows: dict[tuple[str, int], dict[str, Association]] = {}
    for one in associations(found):
        rows.setdefault((one.content, one.epochs), {})[one.score] = one
    if not rows:
        return ""
    lines = []
    for (content, epochs), by_score in rows.items():
        cells = [by_score.get(title) for title in titles]
        counts = [len(one.arms) for one in by_score.values()]
        shown = [f"{one.correlation:+.2f}" if one else NOT_YET for one in cells]
        lines.append([content, str(epochs), _range(counts), *shown])
    return shown_table(["content", "epochs", "arms", *titles], lines, width, "content")


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
        *(f"{p:.2g}" if one.trainings > 1 else NOT_YET for p in (one.p, one.p_alone)), _word(one),
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
