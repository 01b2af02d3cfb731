"""The board of robustness: top-1 under corruptions beside clean top-1, of stored findings.

What is measured says `eval.analysis.robustness`. Findings of one setting share a board, whether
their models were measured together or one by one: what is drawn for an image follows from the image
alone, and both numbers are of the same test images under the same linear head. So the board has
tie groups, over other test images: each image counts by its share of right answers.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eval.analysis import Robustness
from eval.analysis.finding import Finding
from eval.common.text import counted
from eval.metrics.scores import Score
from eval.results.estimates import Measured
from eval.results.leaderboard import Cell, Table, row_label, table_of
from eval.results.names import REFERENCE, differences, format_of, shown, task_label

NAME = "robustness"
_ROUNDED = 1e-6  # values in findings have six digits
# what reading plain data of another form may raise
_ODD = (LookupError, TypeError, ValueError, AttributeError)


def boards(
    findings: Iterable[tuple[Path, Finding]], say: Callable[[str], None], *, marked: bool = False
) -> list[Table]:
    """A board a setting, that of the defaults first; of one model on one task the newest counts.

    ``say`` is told of findings of another form than `robustness` leaves. ``marked``: rows say who
    computed them, as those of the other boards do; nobody signs findings, so that is their author.
    """
    groups: dict[str, dict[object, Cell]] = {}
    about: dict[str, str] = {}
    for path, finding in sorted(findings, key=lambda found: found[1].created):
        try:
            cells = list(_cells(finding))
            setting, text = _setting(finding), _about(finding)
        except _ODD as why:
            say(f"skipped {path}: it is no robustness of this version ({why})")
            continue
        about[setting] = text
        held = groups.setdefault(setting, {})
        for cell in cells:
            task = task_label(cell.task.name, cell.task.split), cell.task.split_hash
            held[row_label(cell.model), cell.model.revision, *task] = cell
    return [
        table_of(
            NAME, setting, "corrupted", list(groups[setting].values()), marked=marked,
            about=about[setting],
        )
        for setting in sorted(groups)
    ]  # fmt: skip


def _setting(finding: Finding) -> str:
    """What differs from the analysis's defaults. The image size stands in the row's name."""
    config = {k: v for k, v in finding.config.items() if k not in ("img_size", "limit")}
    computed = format_of(finding.environment.dtype)
    changed = differences(
        config, Robustness, limit=finding.config.get("limit"), seed=finding.seed,
        precision=computed if computed != REFERENCE else None,
    )  # fmt: skip
    return ", ".join(f"{k}={shown(v)}" for k, v in changed.items())


def _about(finding: Finding) -> str:
    kinds, steps = len(finding.values["corruptions"]), len(finding.values["severities"])
    over = f"{counted(kinds, 'corruption')} at {counted(steps, 'severity', 'severities')}"
    return (
        f"Robustness: corrupted is top-1 on the mean of {over} of the test images, clean that on "
        "the images as they are, both by the linear head that was fitted on clean train images; "
        "mean, rank and tie groups are of corrupted."
    )


def _cells(finding: Finding) -> Iterator[Cell]:
    """Raises one of `_ODD` for values of another form, out of range, or that contradict each
    other."""
    values = finding.values
    of = len(values["corruptions"]) * len(values["severities"])
    for model, found in zip(finding.models, values["models"].values(), strict=True):
        for task, one in zip(finding.tasks, found.values(), strict=True):
            packed = base64.b64decode(one["hits"], validate=True)
            images = len(packed)
            right = np.frombuffer(packed, np.uint8)
            top1 = _score("corrupted", one["corrupted"], images)
            if not of or not images or images != task.counts["test"] or right.max() > of:
                raise ValueError("its hits are not those of its test images")
            if not math.isclose(right.mean() / of, top1.value, abs_tol=_ROUNDED):
                raise ValueError("its hits are not those of its top-1")
            evidence = Measured(top1.value, "share", images, of, packed)
            yield Cell(model, task, top1, evidence, clean=_score("clean", one["clean"], images))


def _score(name: str, found: dict[str, Any], images: int) -> Score:
    top1, low, high = (found[k] for k in ("top1", "low", "high"))
    if not (0 <= low <= high <= 1 and 0 <= top1 <= 1):
        raise ValueError(f"{name} top-1 is {top1!r}, {low!r} to {high!r}: no share of images")
    return Score(name=name, value=top1, ci_low=low, ci_high=high, n=images, kind="test")
