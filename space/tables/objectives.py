"""The study's question on live results: what another pretraining objective changes.

Differences are in fractions of one, paired: on the same episodes or test images.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.estimates import degrees
from eval.metrics.intervals import runs_interval, t_quantile
from eval.metrics.ranks import holm
from eval.results.compare import SIGNIFICANT, outcome
from eval.results.estimates import Measured, alike, estimates
from eval.results.leaderboard import MIN_TASKS
from eval.results.transfer import pair_counts
from space.labels import chance
from space.tables.matrix import Grid, grid, keys
from space.tables.means import Means, means
from space.tables.scores import held

ONE_TRAINING = (
    "One training each: no interval is over other trainings of the backbones, so training again "
    "could move the difference further than they say."
)
_DIFFERENCES = {
    "task": "str", "title": "str", "domain": "str", "subset": "bool", "a": "float64",
    "b": "float64", "difference": "float64", "low": "float64", "high": "float64",
    "variance": "float64", "noise": "float64", "kind": "str", "wins": "int64", "losses": "int64",
    "unit": "str", "n": "int64", "p": "float64", "p_holm": "float64", "verdict": "str",
}  # fmt: skip


def transfer_tasks(grid: Grid, rows: Sequence[int] | None = None) -> list[int]:
    """The columns that count: those that are transfer for all of ``rows``, or on the board as a
    whole (None); all where there are none."""
    if rows is None:
        return [int(t) for t in np.flatnonzero(grid.counted.columns)]
    return _away(grid, rows, np.flatnonzero(grid.complete[list(rows)].any(0)))


def pair_tasks(grid: Grid, a_row: int, b_row: int) -> tuple[list[int], list[int]]:
    """(columns that count in a comparison of the two, those that stand apart), of what both have;
    as `eval.results.compare` has them."""
    both = np.flatnonzero(grid.complete[[a_row, b_row]].all(0))
    kept = _away(grid, (a_row, b_row), both)
    return kept, [int(t) for t in both if t not in kept]


def _away(grid: Grid, rows: Sequence[int], columns: NDArray[np.int64]) -> list[int]:
    """Those of the columns of which none of the rows has seen images; all where there are none."""
    here = np.ix_(np.asarray(rows, np.int64), columns)
    own = np.asarray((grid.own[here] & grid.complete[here]).any(0), bool)
    kept = pair_counts(own, own, grid.tasks["pretrains"].to_numpy(bool)[columns])
    return [int(t) for t in columns[kept]]


def differences(
    grid: Grid, a_row: int, b_row: int, tasks: Sequence[int] | None = None
) -> pd.DataFrame:
    """One row a task on which both were asked the same questions, in the grid's order.

    ``difference`` is a - b with its 95 % interval, ``variance`` and that one's own variance
    ``noise``, over the chance that ``kind`` names (`eval.metrics.estimates.KINDS`); ``wins`` are
    units on which a is better; ``p_holm`` is corrected over the rows; ``verdict`` is 'better' (a),
    'worse' or 'undecided'. ``tasks`` are columns of the grid, None for all.
    """
    found = []
    for t in range(len(grid.tasks)) if tasks is None else tasks:
        rows = [int(grid.row[a_row, t]), int(grid.row[b_row, t])]
        if min(rows) < 0:
            continue
        a, b = held(grid.scores, rows)
        if a is None or b is None:
            continue
        test = _tested(a, b)
        if test is None:
            continue
        about = grid.tasks.iloc[t]
        found.append({
            **{name: about[name] for name in ("task", "title", "domain", "subset")},
            "a": a.value, "b": b.value, **dataclasses.asdict(test), "unit": a.unit, "n": a.n,
        })  # fmt: skip
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        sure = "better" if row["difference"] > 0 else "worse"
        row |= {"p_holm": p, "verdict": sure if p < SIGNIFICANT else "undecided"}
    return pd.DataFrame(found, columns=list(_DIFFERENCES)).astype(_DIFFERENCES)


@dataclass(frozen=True)
class _Test:
    difference: float
    low: float
    high: float
    variance: float  # of the difference
    noise: float  # the variance of that
    p: float
    kind: str
    wins: int
    losses: int


@lru_cache(maxsize=4096)
def _tested(a: Measured, b: Measured) -> _Test | None:
    """None where the two were asked otherwise, or nothing can be claimed."""
    told = estimates(alike(a, b))
    if told is None:
        return None
    gap, p = told.difference()
    x, y = (units(one) for one in (a, b))
    return _Test(
        gap.value, gap.low, gap.high, float(told.pair_variance[0, 1]),
        float(told.pair_noise[0, 1]), p, told.kind, int((x > y).sum()), int((x < y).sum()),
    )  # fmt: skip


def units(one: Measured) -> NDArray[np.float64]:
    """[n] the score in each episode, image or resample."""
    if one.unit == "resample":
        return np.frombuffer(one.packed, "<f4").astype(np.float64)
    bits = np.unpackbits(np.frombuffer(one.packed, np.uint8), count=one.n * one.of)
    return bits.reshape(one.n, one.of).mean(1, dtype=np.float64)


def mean_difference(frame: pd.DataFrame) -> tuple[float, float, float]:
    """(mean over the tasks, low, high) with 95 % by Student's t, where the tasks count alike, are
    taken as given, and their paired differences as independent."""
    count = len(frame)
    if not count:
        return np.nan, np.nan, np.nan
    mean = float(frame["difference"].mean())
    variance = float(frame["variance"].sum()) / count**2
    noise = float(frame["noise"].sum()) / count**4
    half = float(t_quantile(degrees(variance, noise))) * variance**0.5
    return mean, mean - half, mean + half


def summary(
    frame: pd.DataFrame, a: str, b: str, *, trainings: tuple[int, int] | None = (1, 1),
    apart: pd.DataFrame | None = None,
) -> str:  # fmt: skip
    """The outcome of ``differences`` in plain words; the names in it are not escaped.

    ``trainings`` are how many there are of each side, of which one each is compared; None where
    that does not matter because two models are compared and not two ways to train. ``apart`` are
    the differences on sets that one of them was pretrained on.
    """
    return _outcome(frame, a, b, trainings) + _aside(apart)


def _aside(apart: pd.DataFrame | None) -> str:
    if apart is None or not len(apart):
        return ""
    gaps = [f"{row.task} ({100 * row.difference:+.1f} points)" for row in apart.itertuples()]
    return f" Apart, as no transfer for them: {', '.join(gaps)}."


def _outcome(frame: pd.DataFrame, a: str, b: str, trainings: tuple[int, int] | None) -> str:
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
        f"{head} (paired tests and intervals over {chance(frame['kind'])}; Holm-corrected "
        f"p < {SIGNIFICANT}). Mean difference {mean:+.1f} points on these data sets, 95 % interval "
        f"{low:+.1f} to {high:+.1f}"
    )
    if len(frame) >= MIN_TASKS:
        sample = runs_interval(frame["difference"].to_numpy())
        text += (
            f"; with them as a sample of data sets {100 * sample.low:+.1f} to "
            f"{100 * sample.high:+.1f}"
        )
    return f"{text}. {_trainings(a, b, trainings)}".rstrip()


def _trainings(a: str, b: str, count: tuple[int, int] | None) -> str:
    """How many there are of each, in a sentence."""
    if count is None:
        return ""
    if max(count) == 1:
        return ONE_TRAINING
    sides = zip(count, (a, b), strict=True)
    many = [f"{n} training{'s' if n > 1 else ''} of {name}" for n, name in sides]
    return (
        f"There are {many[0]} and {many[1]}; the newest of each are compared, and no interval is "
        "over trainings."
    )


def by_domain(grid: Grid, rows: Sequence[int], tasks: Sequence[int] | None = None) -> pd.DataFrame:
    """model, objective, domain, tasks, value, half, kind: each model's mean over a domain's tasks
    with half of its 95 % interval and the chance that this speaks of, as `means` has them.

    Tasks that none of ``rows`` has do not count; a domain of which one lacks a task is left out.
    ``tasks`` are columns of the grid, None for the `transfer_tasks` of these rows.
    """
    chosen = list(rows)
    columns = transfer_tasks(grid, chosen) if tasks is None else list(tasks)
    columns = [t for t in columns if grid.complete[chosen, t].any()]
    domains: dict[str, list[int]] = {}
    for t in columns:
        domains.setdefault(str(grid.tasks["domain"].iloc[t]), []).append(t)
    part, found = grid.only(chosen), []
    for domain, mine in domains.items():
        if not grid.complete[np.ix_(chosen, mine)].all():
            continue
        made = _means(part, mine)
        for i, about in enumerate(part.models.itertuples(index=False)):
            found.append((about.model, about.objective, domain, len(mine), made.value[i],
                          made.half[i], str(made.kind[i])))  # fmt: skip
    return pd.DataFrame(
        found, columns=["model", "objective", "domain", "tasks", "value", "half", "kind"]
    ).astype({"tasks": "int64", "value": "float64", "half": "float64", "kind": "str"})


def _means(grid: Grid, tasks: Sequence[int]) -> Means:
    """Of all models of the grid."""
    return means(grid, range(len(grid.models)), tasks, grid.standing(tasks))


def shots(
    scores: pd.DataFrame,
    models: Sequence[tuple[str, str]],
    *,
    setting: str = "",
    pretraining: bool = False,
) -> pd.DataFrame:
    """model, revision, objective, shot, tasks, value, half, kind: few-shot accuracy by shot count.

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
                t for t in transfer_tasks(one, range(len(one.models))) if one.complete[:, t].all()
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
        made = _means(one, columns)
        for i, about in enumerate(one.models.itertuples(index=False)):
            found.append((about.model, about.revision, about.objective, shot, len(columns),
                          made.value[i], made.half[i], str(made.kind[i])))  # fmt: skip
    names = ["model", "revision", "objective", "shot", "tasks", "value", "half", "kind"]
    return pd.DataFrame(found, columns=names).astype(
        {"shot": "int64", "tasks": "int64", "value": "float64", "half": "float64", "kind": "str"}
    )
