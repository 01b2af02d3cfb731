"""A view on a grid: the rows and columns that are shown, in order, with means, ranks and ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.paired import ranks
from space.tables.matrix import Grid
from space.tables.ties import SIGNIFICANT, groups
from space.tables.view import View

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Board:
    """``models`` and ``tasks`` are rows of the grid's tables, the matrices [rows, tasks]. The last
    four are of each row, nan or 0 where it lacks one of the tasks: such rows stand below."""

    grid: Grid
    models: pd.DataFrame
    tasks: pd.DataFrame
    value: Floats
    low: Floats
    high: Floats
    row: NDArray[np.int64]
    mean: Floats
    half: Floats  # half the width of the mean's 95 % interval
    rank: Floats
    group: NDArray[np.int64]


def build(grid: Grid, view: View) -> Board:
    """The rows that pass the filters on the tasks that are chosen, best first or as ``sort`` says.

    Means, ranks and ties are over the chosen tasks, for the rows that have them all.
    """
    columns = _columns(grid, view)
    kept = _rows(grid, view)
    kept = kept[grid.complete[np.ix_(kept, columns)].any(1)] if len(columns) else kept[:0]
    value = grid.value[np.ix_(kept, columns)]
    low, high = grid.low[np.ix_(kept, columns)], grid.high[np.ix_(kept, columns)]
    whole = ~np.isnan(value).any(1) if len(columns) else np.zeros(len(kept), bool)
    count = max(len(columns), 1)
    mean = np.where(whole, value.sum(1) / count, np.nan)
    half = np.sqrt((((high - low) / 2) ** 2).sum(1)) / count
    half = np.where(whole, half, np.nan)
    rank = np.full(len(kept), np.nan)
    if whole.any():
        rank[whole] = np.mean([ranks(column) for column in value[whole].T], axis=0)
    group = _groups(grid, columns, kept, mean)
    order = _order(grid, view, kept, columns, value, mean, rank)
    kept = kept[order]
    return Board(
        grid, grid.models.iloc[kept].reset_index(drop=True),
        grid.tasks.iloc[columns].reset_index(drop=True),
        value[order], low[order], high[order], grid.row[np.ix_(kept, columns)],
        mean[order], half[order], rank[order], group[order],
    )  # fmt: skip


def _columns(grid: Grid, view: View) -> NDArray[np.int64]:
    tasks = grid.tasks
    shown = np.ones(len(tasks), bool)
    if view.domains:
        shown &= tasks["domain"].isin(view.domains).to_numpy()
    if view.tasks:
        shown &= tasks["task"].isin(view.tasks).to_numpy()
    if view.whole:
        shown &= ~tasks["subset"].to_numpy(bool)
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


def _groups(
    grid: Grid, columns: NDArray[np.int64], kept: NDArray[np.int64], mean: Floats
) -> NDArray[np.int64]:
    """[rows] tie group, 0 where it cannot be told."""
    out = np.zeros(len(kept), np.int64)
    found = grid.pairs(tuple(int(c) for c in columns))
    if found is None:
        return out
    place = {int(model): i for i, model in enumerate(found[0])}
    rows = [i for i, model in enumerate(kept) if int(model) in place and not np.isnan(mean[i])]
    rows.sort(key=lambda i: -mean[i])
    order = np.array([place[int(kept[i])] for i in rows], np.int64)
    out[rows] = groups(found[1], order)
    return out


def _order(
    grid: Grid, view: View, kept: NDArray[np.int64], columns: NDArray[np.int64], value: Floats,
    mean: Floats, rank: Floats,
) -> NDArray[np.int64]:  # fmt: skip
    """Rows by the column to sort by; what has no number there comes last either way."""
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
    return np.lexsort((grid.models["model"].to_numpy()[kept], np.nan_to_num(-by, nan=np.inf)))


def headline(board: Board) -> str:
    """Which objective or model is ahead here, and how sure that is, in one sentence."""
    ranked = np.flatnonzero(~np.isnan(board.mean))
    if not len(ranked):
        return "No model has a number on every data set that is chosen; choose fewer."
    ranked = ranked[np.argsort(-board.mean[ranked], kind="stable")]
    count = len(board.tasks)
    where = f"over {count} data set{'s' if count > 1 else ''}"
    first = int(ranked[0])
    name, mean, half = _name(board, first), 100 * board.mean[first], 100 * board.half[first]
    start = f"{name} transfers best here: mean {mean:.1f} % ±{half:.1f} {where}"
    if len(ranked) == 1:
        return f"{start}. It is the only model in view."
    second = int(ranked[1])
    ahead = mean - 100 * board.mean[second]
    found = board.grid.pairs(tuple(_columns_of(board)))
    if found is None or not board.group[first] or not board.group[second]:
        return f"{start}, {ahead:.1f} points ahead of {_name(board, second)} (not tested)."
    tied = [i for i in ranked[1:] if board.group[i] == board.group[first]]
    if tied:
        others = ", ".join(_name(board, int(i)) for i in tied[:3])
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        return (
            f"{start}, but that is not sure: paired tests cannot tell it from {others}{more} "
            f"(p >= {SIGNIFICANT})."
        )
    return (
        f"{start}, {ahead:.1f} points ahead of {_name(board, second)} "
        f"(paired test, p < {SIGNIFICANT})."
    )


def _columns_of(board: Board) -> list[int]:
    names = list(board.grid.tasks["task"])
    return [names.index(task) for task in board.tasks["task"]]


def _name(board: Board, row: int) -> str:
    """The objective as the paper writes it where it tells the models apart, else the model."""
    from space.labels import shown_objective

    objectives = board.models["objective"]
    mine = objectives.iloc[row]
    alone = bool(mine) and mine != "untrained" and (objectives == mine).sum() == 1
    return shown_objective(mine) if alone else str(board.models["model"].iloc[row])
