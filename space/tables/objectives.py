"""The study's question on live results: what another pretraining objective changes.

Differences are in fractions of one, paired: on the same episodes or test images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.paired import Paired, holm, paired, paired_resamples
from eval.results.compare import outcome
from space.tables.matrix import Grid, grid, keys
from space.tables.scores import RESAMPLED
from space.tables.ties import SIGNIFICANT

ONE_TRAINING = (
    "One training each: the intervals are over test images and episodes, not over trainings, so "
    "training again could move the difference further than they say."
)
_DIFFERENCES = {
    "task": "str", "title": "str", "domain": "str", "subset": "bool", "a": "float64",
    "b": "float64", "difference": "float64", "low": "float64", "high": "float64",
    "error": "float64", "wins": "int64", "losses": "int64", "unit": "str", "n": "int64",
    "p": "float64", "p_holm": "float64", "verdict": "str",
}  # fmt: skip


def transfer_tasks(grid: Grid) -> list[int]:
    """The columns that are no pretraining data; all where there are no others."""
    away = ~grid.tasks["pretrains"].to_numpy(bool)
    return [int(t) for t in np.flatnonzero(away if away.any() else ~away)]


def differences(
    grid: Grid, a_row: int, b_row: int, tasks: Sequence[int] | None = None
) -> pd.DataFrame:
    """One row a task on which both were asked the same questions, in the grid's order.

    ``difference`` is a - b with its 95 % bootstrap interval and ``error``, its standard error;
    ``wins`` are units on which a is better; ``p_holm`` is corrected over the rows; ``verdict`` is
    'better' (a), 'worse' or 'undecided'. ``tasks`` are columns of the grid, None for all.
    """
    scores, found = grid.scores, []
    for t in range(len(grid.tasks)) if tasks is None else tasks:
        rows = [int(grid.row[a_row, t]), int(grid.row[b_row, t])]
        if min(rows) < 0:
            continue
        held, of, unit = (scores[c].to_numpy()[rows] for c in ("samples", "of", "unit"))
        if not len(held[0]) or len(held[0]) != len(held[1]) or of[0] != of[1] or unit[0] != unit[1]:
            continue
        texts = bytes(held[0]), bytes(held[1])
        if unit[0] == "resample":
            a, b = (float(value) for value in scores["value"].to_numpy()[rows])
            test, error = _resampled(*texts, a - b)
            if not np.isfinite(error):
                continue
        else:
            test, a, b, error = _tested(*texts, int(of[0]) or 1, str(unit[0]))
        about = grid.tasks.iloc[t]
        found.append({
            **{name: about[name] for name in ("task", "title", "domain", "subset")},
            "a": a, "b": b, "difference": test.difference.value, "low": test.difference.low,
            "high": test.difference.high, "error": error, "wins": test.wins,
            "losses": test.losses, "unit": str(unit[0]), "n": _count(held[0], str(unit[0])),
            "p": test.p_value,
        })  # fmt: skip
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        sure = "better" if row["difference"] > 0 else "worse"
        row |= {"p_holm": p, "verdict": sure if p < SIGNIFICANT else "undecided"}
    return pd.DataFrame(found, columns=list(_DIFFERENCES)).astype(_DIFFERENCES)


@lru_cache(maxsize=2048)
def _tested(a: bytes, b: bytes, of: int, unit: str) -> tuple[Paired, float, float, float]:
    """(the paired test, both means, the difference's standard error); a bootstrap takes its time
    and always gives the same."""
    x, y = (np.frombuffer(text, np.uint8).astype(np.float64) / of for text in (a, b))
    error = float(np.std(x - y)) / len(x) ** 0.5
    return paired(x, y, unit), float(x.mean()), float(y.mean()), error


@lru_cache(maxsize=2048)
def _resampled(a: bytes, b: bytes, difference: float) -> tuple[Paired, float]:
    """(the paired test of a score that is not a mean over units, the difference's standard error:
    its
    spread over the resamples); nan where no resample has both."""
    x, y = (resampled(text) for text in (a, b))
    delta = (x - y)[np.isfinite(x - y)]
    error = float(np.std(delta)) if len(delta) else np.nan
    return paired_resamples(difference, x, y), error


def resampled(text: bytes) -> NDArray[np.float64]:
    """[n] the score in each resample, as a table of scores holds them."""
    return np.frombuffer(text, RESAMPLED).astype(np.float64)


def _count(text: bytes, unit: str) -> int:
    return len(text) // RESAMPLED.itemsize if unit == "resample" else len(text)


def mean_difference(frame: pd.DataFrame) -> tuple[float, float, float]:
    """(mean over the tasks, low, high): 1.96 standard errors, where the tasks count alike, are
    taken as given, and their paired differences as independent."""
    if not len(frame):
        return np.nan, np.nan, np.nan
    mean = float(frame["difference"].mean())
    half = 1.96 * float(np.sqrt((frame["error"] ** 2).sum())) / len(frame)
    return mean, mean - half, mean + half


def summary(frame: pd.DataFrame, a: str, b: str, *, trainings: int = 1) -> str:
    """The outcome of ``differences`` in plain words; the names in it are not escaped.

    ``trainings`` are how many of each side stand behind the numbers, 0 where that does not matter
    because two models are compared and not two ways to train.
    """
    if not len(frame):
        return (
            f"{a} and {b} share no data set with the same images, settings and seed; "
            "score both with the same command."
        )
    won = list(frame["task"][frame["verdict"] == "better"])
    lost = list(frame["task"][frame["verdict"] == "worse"])
    head = outcome(a, b, won, lost, len(frame), "data sets")
    head = (
        "N" + head[1:] if head.startswith("no difference") else head
    )  # else it begins with a name
    mean, low, high = (100 * value for value in mean_difference(frame))
    text = (
        f"{head} (paired tests, Holm-corrected p < {SIGNIFICANT}). Mean difference {mean:+.1f} "
        f"points, 95 % interval {low:+.1f} to {high:+.1f} (from the paired differences of each "
        f"data set's {_units(frame)}; data sets count alike)."
    )
    return f"{text} {ONE_TRAINING}" if trainings == 1 else text


def _units(frame: pd.DataFrame) -> str:
    names = {"image": "test images", "episode": "episodes",
             "resample": "resamples of the test images"}  # fmt: skip
    return " and ".join(names.get(unit, "units") for unit in sorted(set(frame["unit"])))


def by_domain(grid: Grid, rows: Sequence[int], tasks: Sequence[int] | None = None) -> pd.DataFrame:
    """model, objective, domain, tasks, value, half: each model's mean over a domain's tasks with
    half of its 95 % interval. Tasks that none of ``rows`` has do not count; a domain of which one
    lacks a task is left out. ``tasks`` are columns of the grid, None for ``transfer_tasks``."""
    chosen = list(rows)
    columns = transfer_tasks(grid) if tasks is None else list(tasks)
    columns = [t for t in columns if grid.complete[chosen, t].any()]
    domains: dict[str, list[int]] = {}
    for t in columns:
        domains.setdefault(str(grid.tasks["domain"].iloc[t]), []).append(t)
    found = []
    for domain, mine in domains.items():
        if not grid.complete[np.ix_(chosen, mine)].all():
            continue
        mean, half = _means(grid, chosen, mine)
        for i, row in enumerate(chosen):
            about = grid.models.iloc[row]
            found.append((about["model"], about["objective"], domain, len(mine), mean[i], half[i]))
    return pd.DataFrame(
        found, columns=["model", "objective", "domain", "tasks", "value", "half"]
    ).astype({"tasks": "int64", "value": "float64", "half": "float64"})


def _means(
    grid: Grid, rows: Sequence[int], columns: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's mean over columns and half of its interval, as the board says them."""
    place = np.ix_(list(rows), list(columns))
    half = np.sqrt((((grid.high[place] - grid.low[place]) / 2) ** 2).sum(1)) / len(columns)
    return grid.value[place].mean(1), half


def shots(
    scores: pd.DataFrame,
    models: Sequence[tuple[str, str]],
    *,
    setting: str = "",
    pretraining: bool = False,
) -> pd.DataFrame:
    """model, revision, objective, shot, tasks, value, half: few-shot accuracy by shot count.

    ``models`` are (model, revision). Every point is the mean over the same tasks: those that all
    models have at all shot counts. A shot count with less than half of the tasks of the fullest is
    left out: it would thin out the whole curve.
    """
    wanted = pd.MultiIndex.from_tuples(models, names=["model", "revision"])
    mine = pd.MultiIndex.from_frame(scores[["model", "revision"]]).isin(wanted)
    part = scores[mine & (scores["protocol"] == "fewshot").to_numpy()]
    grids: dict[int, tuple[Grid, set[tuple[str, str]]]] = {}
    for key in keys(part):
        count = re.fullmatch(r"top1_(\d+)shot", key.score)
        if not count or key.setting != setting:
            continue
        one = grid(part, key)
        if len(one.models) == len(set(models)):
            columns = np.flatnonzero(one.complete.all(0)) if pretraining else [
                t for t in transfer_tasks(one) if one.complete[:, t].all()
            ]  # fmt: skip
            names = one.tasks[["name", "split"]].iloc[columns]
            grids[int(count[1])] = one, set(names.itertuples(index=False, name=None))
    most = max((len(names) for _, names in grids.values()), default=0)
    grids = {shot: held for shot, held in grids.items() if held[1] and 2 * len(held[1]) >= most}
    common = set.intersection(*(names for _, names in grids.values())) if grids else set()
    found = []
    for shot, (one, _) in sorted(grids.items()) if common else []:
        tasks = zip(one.tasks["name"], one.tasks["split"], strict=True)
        columns = [t for t, name in enumerate(tasks) if name in common]
        mean, half = _means(one, range(len(one.models)), columns)
        for i, about in enumerate(one.models.itertuples(index=False)):
            found.append((about.model, about.revision, about.objective, shot, len(columns),
                          mean[i], half[i]))  # fmt: skip
    return pd.DataFrame(
        found, columns=["model", "revision", "objective", "shot", "tasks", "value", "half"]
    ).astype({"shot": "int64", "tasks": "int64", "value": "float64", "half": "float64"})


def scatter(
    grid: Grid, rows: Sequence[int] | None = None, tasks: Sequence[int] | None = None
) -> pd.DataFrame:
    """model, objective, params, seconds, tasks, mean, half: each model that has all ``tasks``
    (columns; None for ``transfer_tasks``), best first. ``seconds`` is the median over its results:
    features that came from a cache cost nothing there."""
    columns = transfer_tasks(grid) if tasks is None else list(tasks)
    chosen = range(len(grid.models)) if rows is None else rows
    chosen = [row for row in chosen if columns and grid.complete[row, columns].all()]
    mean, half = _means(grid, chosen, columns) if chosen else (np.zeros(0), np.zeros(0))
    seconds = grid.scores["seconds"].to_numpy()[grid.row[np.ix_(chosen, columns)]]
    out = grid.models.iloc[chosen][["model", "objective", "params"]].reset_index(drop=True)
    out["seconds"] = np.median(seconds, axis=1) if chosen else np.zeros(0)
    out["tasks"] = len(columns)
    out["mean"], out["half"] = mean, half
    return out.sort_values(["mean", "model"], ascending=[False, True], ignore_index=True)
