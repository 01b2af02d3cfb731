"""A verdict as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted, p_value, visible
from eval.metrics.contrasts import MOST_TRAININGS, Repeated
from eval.metrics.intervals import Interval
from eval.study.content import Association, associations
from eval.study.verdict import LEVEL, OPEN, ArmAt, ContrastAt, Verdict

NOT_YET = "-"
FEWER = "†"
_HEADER = (
    "contrast at epochs", "trainings", "sets", "difference", "images", "seeds", "both", "p",
    "p own", "verdict",
)  # fmt: skip
LEGEND = (
    "Every ± is a 95 % interval. Images: over other samples of the data sets (their test images, "
    "and of linear scores their training images), these trainings. Seeds: over other trainings, "
    "these images (Student's t; of contrasts, how much trainings differ is taken from all arms of "
    "a budget, as if they varied alike; of arms, from their own). Both: over both, as are the ± of "
    "arms. p: over both, with Holm's correction over all contrasts and budgets that the plan has "
    "for the score; p own: the same by the contrast's own trainings. Helps or hurts: p below 0.05 "
    "(pooled only: p own is not); equal: the corrected interval is within half a point of 0; else "
    "undecided, and in brackets about how many trainings would decide 4 times in 5 if the true "
    "difference is the one found, a rough guess (>1000: more, or no number would). A contrast is "
    "tested once all its planned trainings are there. Budgets are branches of the same runs, so "
    "one is no repeat of another. Nothing is said of other data sets."
)
_GLANCE = (
    "Every contrast at a glance, points ±95 % over other samples of the data sets and other "
    "trainings. *: told from 0 (p below 0.05) after the correction over the {tests} tests of a "
    "score, by how much the trainings of all arms differ; **: also by how much its own do. One "
    "training (no ±) says nothing of others."
)
_FEWER = "†: over fewer data sets than others, since not all its checkpoints have a score on all."
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
        tests = len(found.tested) // len(plan.questions)  # as many of each score
        fewer = f" {_FEWER}" if FEWER in glance else ""
        parts += [_text(_GLANCE.format(tests=tests) + fewer, width), glance]
    if beside := _content(found, width):
        parts += [_text(_CONTENT, width), beside]
    waiting: dict[str, list[str]] = {}  # {what is not trained yet: for which questions}
    for asked in plan.questions:
        arms = [one for one in found.arms if one.score == asked.title and one.found]
        tested = [one for one in found.tested if one.score == asked.title]
        waiting.setdefault(_waiting(tested), []).append(asked.title)
        if arms:
            over = f"{_sets(arms)} of {counted(len(asked.tasks), 'data set')}"
            parts += [
                _text(f"{asked.title}, mean over {over}, %", width),
                _arms(arms, found.table.rates, width),
            ]
        if lines := [_line(one, one.found) for one in tested if one.found]:
            shown = shown_table(_HEADER, lines, width, "contrast")
            said = f"{asked.title}, differences in points{_vary(found, asked.title)}"
            parts += [_text(said, width), shown]
    for text, titles in waiting.items():
        where = "" if len(waiting) == 1 else f" ({', '.join(titles)})"
        if text:
            said = f"No training yet that all arms have, by epochs{where}: {text}."
            parts.append(_text(said, width))
    parts += [_text(LEGEND, width), _text(_predictions(found), width)]
    planned = " ".join(plan.statistics.split())
    parts.append(_text(f"The statistics as planned. {planned}", width))
    if plan.notes:
        notes = " ".join(" ".join(note.split()) for note in plan.notes)
        parts.append(_text(f"Changed after the first run. {notes}", width))
    return "\n\n".join(parts)


def as_json(found: Verdict) -> dict[str, Any]:
    """All numbers, as shares of 1."""
    plan = found.table.plan
    return {
        "study": plan.name,
        "checkpoints": {"scored": found.table.scored, "planned": len(plan.checkpoints)},
        "scores_without_answers": found.table.without_answers,
        "arms": [
            {
                "score": one.score, "arm": one.arm, "epochs": one.epochs, "tasks": one.tasks,
                "rate": found.table.rates.get(one.arm),
                **_numbers(one.found),
            }
            for one in found.arms
        ],
        "contrasts": [
            {
                "score": one.score, "contrast": one.contrast, "epochs": one.epochs,
                "prediction": one.prediction, "tasks": one.tasks, "planned": one.planned,
                **_numbers(one.found), "p": one.found.p() if one.found else None,
                "p_holm": one.p, "p_holm_own": one.p_alone, "verdict": one.word,
                "pooled_only": one.by_pooling_alone,
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


def _numbers(found: Repeated | None) -> dict[str, Any]:
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
        "degrees_of_freedom": found.spread.free if found.spread else None,
        "intervals": {k: [i.low, i.high] if i else None for k, i in named.items()},
    }


def _progress(found: Verdict) -> str:
    table = found.table
    said = (
        f"{table.scored} of {counted(len(table.plan.checkpoints), 'checkpoint')} trained and scored"
    )
    if table.without_answers:
        said += (
            f"; {counted(table.without_answers, 'score')} left out, whose files have no single "
            "answers (`transfer-zoo study rescore` makes them anew)"
        )
    return said


def _sets(arms: list[ArmAt]) -> str:
    """``11``; ``9 to 11`` where not all checkpoints were scored on the same."""
    return _range([len(one.tasks) for one in arms])


def _range(counts: list[int]) -> str:
    few, many = min(counts), max(counts)
    return str(many) if few == many else f"{few} to {many}"


def _vary(found: Verdict, title: str) -> str:
    """How much one training of an arm differs from another, pooled and by arm."""
    said = []
    for (score, epochs), spread in found.spreads.items():
        if score != title:
            continue
        own = [
            100 * one.found.spread.variance**0.5 for one in found.arms
            if (one.score, one.epochs) == (title, epochs) and one.found and one.found.spread
        ]  # fmt: skip
        arms = f" (arms {min(own):.1f} to {max(own):.1f})" if own else ""
        said.append(f"{100 * spread.variance**0.5:.1f} at {epochs} epochs{arms}")
    return f"; standard deviation of one training {', '.join(said)}" if said else ""


def _glance(found: Verdict, width: int | None) -> str:
    """A row a contrast and budget, a column a score; empty where nothing is trained."""
    titles = [asked.title for asked in found.table.plan.questions]
    rows: dict[tuple[str, int], dict[str, ContrastAt]] = {}
    most: dict[str, int] = {}  # data sets of a score
    for one in found.tested:
        most[one.score] = max(most.get(one.score, 0), len(one.tasks))
        if one.found is not None:
            rows.setdefault((one.contrast, one.epochs), {})[one.score] = one
    if not rows:
        return ""
    lines = []
    for (contrast, epochs), by_score in rows.items():
        counts = [one.trainings for one in by_score.values()]
        cells = [_brief(by_score.get(title), most.get(title, 0)) for title in titles]
        lines.append([_at(contrast, epochs), _range(counts), *cells])
    header = [
        "contrast at epochs",
        "trainings",
        *(title.removesuffix(" content") for title in titles),
    ]
    return shown_table(header, lines, width, "contrast")


def _brief(one: ContrastAt | None, most: int) -> str:
    if one is None or one.found is None:
        return NOT_YET
    fewer = f" {FEWER}" if len(one.tasks) < most else ""
    both = one.found.over_both()
    if both is None:
        return _points(one.found.value) + fewer
    mark = "" if one.p >= LEVEL else " *" if one.by_pooling_alone else " **"
    return f"{_points(one.found.value)} ±{100 * (both.high - both.value):.1f}{mark}{fewer}"


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
        lines.append([_at(content, epochs), _range(counts), *shown])
    return shown_table(["content at epochs", "arms", *titles], lines, width, "content")


def _at(name: str, epochs: int) -> str:
    """The first cell of a row: a table that is cut repeats it alone."""
    return f"{name} at {epochs}"


def _points(share: float) -> str:
    """``+1.4``, and ``+0.0`` of whatever rounds to nothing."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _arms(found: list[ArmAt], rates: Mapping[str, float], width: int | None) -> str:
    epochs = sorted({one.epochs for one in found})
    cells = {(one.arm, one.epochs): one for one in found}
    arms = list(dict.fromkeys(one.arm for one in found))
    lines = [
        [arm, f"{rates[arm]:g}", *(_mean(cells.get((arm, e))) for e in epochs)] for arm in arms
    ]
    header = ["arm", "rate", *(f"{e} epochs" for e in epochs)]
    return shown_table(header, lines, width, "epochs")


def _mean(one: ArmAt | None) -> str:
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
        _at(one.contrast, one.epochs), f"{one.trainings} of {one.planned}", str(len(one.tasks)),
        _points(found.value), *map(_half, ranges),
        *(p_value(p) if _has_p(one) else NOT_YET for p in (one.p, one.p_alone)), _word(one),
    ]  # fmt: skip


def _has_p(one: ContrastAt) -> bool:
    return one.is_tested and one.trainings > 1


def _half(found: Interval | None) -> str:
    return f"±{100 * (found.high - found.value):.1f}" if found else NOT_YET


def _word(one: ContrastAt) -> str:
    if one.word != OPEN or one.trainings < 2:
        return one.told
    return f"{OPEN} ({_about(one.needed)})"


def _about(needed: int | None) -> str:
    """A number of trainings, as exact as it can be meant."""
    if needed is None:
        return f">{MOST_TRAININGS}"
    return f"~{needed}" if needed < 10 else f"~{float(f'{needed:.1g}'):.0f}"


def _predictions(found: Verdict) -> str:
    return "Predicted before the first run. " + " ".join(
        f"{c.name}: {c.prediction.rstrip('.')}." for c in found.table.plan.contrasts
    )


def _text(text: str, width: int | None) -> str:
    shown = visible(text)
    return shown if width is None else wrapped(shown, width)
