"""A study of many trainings beside the results: transfer against budget, and its contrasts.

A study is a file ``NAME.results.parquet`` in the results' folder, as `transfer-zoo study collect`
writes it; `eval.study` says what it says, here as frames. It is read when the page asks for it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd

from eval.common.errors import UserError
from eval.metrics.contrasts import Repeated
from eval.study.table import FILES, read
from eval.study.verdict import HELPS, HURTS, SAME, Verdict, verdict

IMAGES, BOTH = "samples of the data sets, this training", "samples and trainings"
_CURVES = {
    "arm": "str", "objective": "str", "epochs": "int64", "trainings": "int64", "tasks": "int64",
    "value": "float64", "half": "float64", "over": "str",
}  # fmt: skip
_CONTRASTS = ["contrast", "epochs", "trainings", "difference", "verdict"]
_seen: dict[Path, tuple[tuple[int, int], Verdict]] = {}
_lock = threading.Lock()


def studies(root: Path) -> tuple[list[Verdict], list[str]]:
    """(the studies of a folder, by name; what files were left out for). A file is read again when
    it has changed."""
    found, problems = [], []
    for path in sorted(root.glob(FILES)):
        try:
            found.append(_read(path))
        except (UserError, OSError) as error:
            problems.append(str(error))
    return found, problems


def _read(path: Path) -> Verdict:
    about = path.stat()
    stamp = about.st_size, about.st_mtime_ns
    with _lock:
        if path not in _seen or _seen[path][0] != stamp:
            _seen[path] = stamp, verdict(read(path))
        return _seen[path][1]


def curves(found: Verdict, score: str) -> pd.DataFrame:
    """A row an arm and budget: value and half its 95 % interval, fractions of one; ``over`` says of
    which chance that speaks."""
    objectives = {arm.name: arm.objective for arm in found.table.plan.arms}
    lines = []
    for one in found.arms:
        if one.score != score or one.found is None:
            continue
        interval = one.found.interval
        lines.append((
            one.arm, objectives[one.arm], one.epochs, len(one.found.by_training), len(one.tasks),
            interval.value, interval.high - interval.value, _over(one.found),
        ))  # fmt: skip
    return pd.DataFrame(lines, columns=list(_CURVES)).astype(_CURVES)


def _over(found: Repeated) -> str:
    """Of which chance its interval speaks."""
    return IMAGES if found.spread is None else BOTH


def contrasts(found: Verdict, score: str) -> pd.DataFrame:
    """A row a contrast and budget that has a training: the difference in points, what it is
    uncertain by, and what is decided."""
    lines = []
    for one in found.tested:
        if one.score != score or one.found is None:
            continue
        interval = one.found.interval
        gap = f"{100 * interval.value:+.1f} ±{100 * (interval.high - interval.value):.1f}"
        lines.append((
            one.contrast, one.epochs, f"{one.trainings} of {one.planned}",
            f"{gap} ({_over(one.found)})", one.told,
        ))  # fmt: skip
    return pd.DataFrame(lines, columns=_CONTRASTS)


def said(found: Verdict, score: str) -> str:
    """How far the study is and what it decides, in one paragraph. Foreign text, not escaped."""
    table = found.table
    decided = [
        f"{one.contrast} {one.told} at {one.epochs} epochs"
        for one in found.tested
        if one.score == score and one.word in (HELPS, HURTS, SAME)
    ]
    return (
        f"{table.plan.name}: {table.scored} of {len(table.plan.checkpoints)} checkpoints are "
        f"trained and scored. Decided by {score}, after the correction for all contrasts and "
        f"budgets of its plan: {'; '.join(decided) or 'nothing yet'}. Each is tested once all its "
        "trainings are there. Pooled only: "
        "by how much the trainings of all arms differ, not by those of the contrast alone."
    )
