"""A view on a grid: the rows and columns that are shown, in order, with means, ranks and ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.intervals import runs_interval
from eval.metrics.ranks import ranks
from eval.metrics.ties import LEVEL, ties
from eval.results.leaderboard import MIN_TASKS
from eval.results.signoff import SELF_REPORTED, VERIFIED
from space.labels import chance, shown_objective
from space.tables.kept import Standing
from space.tables.matrix import Grid
from space.tables.means import means
from space.tables.view import View

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Board:
    """``models`` and ``tasks`` are rows of the grid's tables, the matrices [rows, tasks]. The last
    six are of each row; one that lacks a task has nan, 0 or an empty text there, and stands below.
    """

    grid: Grid
    models: pd.DataFrame
    tasks: pd.DataFrame
    value: Floats
    low: Floats
    high: Floats
    kind: NDArray[np.str_]  # of the chance that each interval speaks of; empty without a number
    row: NDArray[np.int64]
    mean: Floats
    half: Floats  # half the width of the mean's 95 % interval
    mean_kind: NDArray[np.str_]  # as `space.tables.means.Means` has it
    rank: Floats
    group: NDArray[np.int64]
    places: NDArray[np.str_]  # that a model could hold: 1, or 2-5; empty where it cannot be told
    computed: NDArray[np.str_]  # verified, 2 of 3 verified or self-reported; empty: nobody asks


def build(grid: Grid, view: View) -> Board:
    """The rows that pass the filters on the tasks that are chosen, best first or as ``sort`` says.

    Means, ranks and ties are over the chosen tasks, for the rows that have them all. All rows in
    view are compared with each other, and with no others.
    """
    columns = _columns(grid, view)
    kept = _rows(grid, view)
    kept = kept[grid.complete[np.ix_(kept, columns)].any(1)] if len(columns) else kept[:0]
    value = grid.value[np.ix_(kept, columns)]
    told = grid.standing(columns.tolist(), kept)
    found = means(grid, kept, columns, told)
    whole = ~np.isnan(found.value)
    rank = np.full(len(kept), np.nan)
    if whole.any():
        rank[whole] = np.mean([ranks(column) for column in value[whole].T], axis=0)
    group, places = _ties(kept, told)
    computed = np.array([_computed(row) for row in grid.computed[np.ix_(kept, columns)]], "<U40")
    order = _order(grid, view, kept, columns, value, found.value, rank, computed)
    place = np.ix_(kept[order], columns)
    return Board(
        grid, grid.models.iloc[kept[order]].reset_index(drop=True),
        grid.tasks.iloc[columns].reset_index(drop=True),
        value[order], grid.low[place], grid.high[place], grid.kind[place], grid.row[place],
        found.value[order], found.half[order], found.kind[order], rank[order], group[order],
        places[order], computed[order],
    )  # fmt: skip


def _computed(cells: NDArray[np.str_]) -> str:
    """Of a row: how many of its numbers were computed again."""
    asked = cells[cells != ""]
    count = int((asked != SELF_REPORTED).sum())
    if not count:
        return SELF_REPORTED if len(asked) else ""
    return VERIFIED if count == len(asked) else f"{count} of {len(asked)} verified"


def _columns(grid: Grid, view: View) -> NDArray[np.int64]:
    tasks = grid.tasks
    shown = np.ones(len(tasks), bool)
    if view.domains:
        shown &= tasks["domain"].isin(view.domains).to_numpy()
    if view.tasks:
        shown &= tasks["task"].isin(view.tasks).to_numpy()
    if view.whole:
        shown &= ~tasks["subset"].to_numpy(bool)
    if not view.tasks and not view.domains and not tasks["own"].all():
        shown &= ~tasks["own"].to_numpy(bool)
    if not view.pretraining and not view.tasks and not tasks["pretrains"].all():
        shown &= ~tasks["pretrains"].to_numpy(bool)
    return np.flatnonzero(shown)


def _rows(grid: Grid, view: View) -> NDArray[np.int64]:
    models = grid.models
    shown = np.ones(len(models), bool)
    for word in view.search.lower().split():
        text = models["model"] + " " + models["architecture"] + " " + models["objective"]
        shown &= text.str.lower().str.contains(word, regex=False).to_numpy()
    if view.objectives:
        shown &= models["objective"].isin(view.objectives).to_numpy()
    if view.most_params:
        shown &= (models["params"] <= view.most_params * 1e6).to_numpy()
    return np.flatnonzero(shown)


def _ties(
    kept: NDArray[np.int64], told: Standing | None
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """[rows] tie group, 0 where it cannot be told, and places."""
    group, places = np.zeros(len(kept), np.int64), np.full(len(kept), "", "<U16")
    if told is not None:
        asked, known = told
        rows, found = np.searchsorted(kept, asked), ties(known)
        group[rows] = found.group
        places[rows] = [found.places(i) for i in range(len(rows))]
    return group, places


def _order(
    grid: Grid, view: View, kept: NDArray[np.int64], columns: NDArray[np.int64], value: Floats,
    mean: Floats, rank: Floats, computed: NDArray[np.str_],
) -> NDArray[np.int64]:  # fmt: skip
    """Rows by the column to sort by; what has no number there comes last either way. Where some
    are verified, those stand first."""
    names = list(grid.tasks["task"].iloc[columns])
    if view.sort in names:
        by: Floats = value[:, names.index(view.sort)]
    elif view.sort == "mean rank":
        by = -rank
    elif view.sort == "params":
        by = grid.models["params"].to_numpy()[kept].astype(np.float64)
    elif view.sort in ("model", "objective", "architecture", "data", "revision"):
        texts = grid.models[view.sort].iloc[kept]
        by = -texts.rank(method="dense").to_numpy(np.float64)
    else:
        by = mean
    by = by if not view.rising else -by
    alike = grid.models["model"].to_numpy()[kept]
    return np.lexsort((alike, np.nan_to_num(-by, nan=np.inf), computed != VERIFIED))


def headline(board: Board) -> str:
    """Which objective or model has the highest mean on these data sets, what the tests make of
    that, and of which chance they speak, in words."""
    ranked = np.flatnonzero(~np.isnan(board.mean))
    if not len(ranked):
        return "No model has a number on every data set that is chosen; choose fewer."
    ranked = ranked[np.argsort(-board.mean[ranked], kind="stable")]
    aside = ""
    verified = ranked[board.computed[ranked] == VERIFIED]
    if 0 < len(verified) < len(ranked):
        aside = f" Verified rows alone; {len(ranked) - len(verified)} more are not, or not wholly."
        ranked = verified
    count, first = len(board.tasks), int(ranked[0])
    what = f"mean on these {count} data sets" if count > 1 else "score on this data set"
    mean, half = 100 * board.mean[first], 100 * board.half[first]
    start = f"{_name(board, first)} has the highest {what}: {mean:.1f} % ±{half:.1f}"
    over = f"over {chance([str(board.mean_kind[first])])}"
    if len(ranked) == 1:
        only = "the only verified model" if aside else "the only model"
        return f"{start} (95 % {over}). It is {only} in view.{aside}"
    second = int(ranked[1])
    behind = f"{mean - 100 * board.mean[second]:.1f} points before {_name(board, second)}"
    if not board.group[first] or not board.group[second]:
        return f"{start} (95 % {over}), {behind} (not tested).{aside}"
    tied = [int(i) for i in ranked[1:] if board.group[i] == board.group[first]]
    if tied:
        others = ", ".join(_name(board, i) for i in tied[:3])
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        text = (
            f"{start}, but paired tests cannot tell it from {others}{more} (interval and tests "
            f"{over}, all pairs at once, p >= {LEVEL})."
        )
    else:
        text = (
            f"{start}, {behind} (interval and paired tests {over}, all pairs at once, p < {LEVEL})."
        )
    if count >= MIN_TASKS:
        sample = runs_interval(board.value[first] - board.value[second])
        text += (
            f" With the data sets as a sample of data sets it is {100 * sample.value:.1f} "
            f"±{50 * (sample.high - sample.low):.1f} points before {_name(board, second)}."
        )
    return text + aside


def _name(board: Board, row: int) -> str:
    """The objective as the paper writes it where it tells the models apart, else the model."""
    objectives = board.models["objective"]
    mine = objectives.iloc[row]
    alone = bool(mine) and mine != "untrained" and (objectives == mine).sum() == 1
    return shown_objective(mine) if alone else str(board.models["model"].iloc[row])
