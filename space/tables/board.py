"""A view on a grid: the rows and columns that are shown, in order, with means, ranks and ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.intervals import runs_interval
from eval.metrics.ranks import holm, ranks
from eval.metrics.ties import LEVEL, ties
from eval.models.facts import UNTRAINED
from eval.results.leaderboard import MIN_TASKS
from eval.results.signoff import SELF_REPORTED, VERIFIED
from eval.results.transfer import mark
from space.labels import chance, shown_objective
from space.tables.kept import Standing
from space.tables.matrix import Grid
from space.tables.means import means
from space.tables.view import View

Floats = NDArray[np.float64]
ONE_TRAINING = "One training of each: another could move a difference further than the tests say."


@dataclass(frozen=True, eq=False)
class Board:
    """``models`` and ``tasks`` are rows of the grid's tables, the matrices [rows, tasks]. Sets that
    stand apart come last. From ``mean`` on all is of each row; one that lacks a task, or was
    pretrained on one that counts, has nan, 0 or an empty text there, and stands below.
    """

    grid: Grid
    models: pd.DataFrame
    tasks: pd.DataFrame
    value: Floats
    low: Floats
    high: Floats
    kind: NDArray[np.str_]  # of the chance that each interval speaks of; empty without a number
    row: NDArray[np.int64]
    seen: NDArray[np.bool_]  # scores on images that the model was pretrained on
    counts: NDArray[np.bool_]  # [tasks] of which the means are made
    place: NDArray[np.int64]  # rows of the grid
    mean: Floats
    half: Floats  # half the width of the mean's 95 % interval
    mean_kind: NDArray[np.str_]  # as `space.tables.means.Means` has it
    rank: Floats
    group: NDArray[np.int64]
    places: NDArray[np.str_]  # that a model could hold: 1, or 2-5; empty where it cannot be told
    computed: NDArray[np.str_]  # verified, 2 of 3 verified or self-reported; empty: nobody asks
    mark: NDArray[np.str_]  # what its training data mean for the row: `eval.results.transfer.mark`


def build(grid: Grid, view: View) -> Board:
    """The rows that pass the filters on the tasks that are chosen, best first or as ``sort`` says.

    Means, ranks and ties are over the chosen tasks, for the rows that have them all. All rows in
    view are compared with each other, and with no others.
    """
    columns, away = _columns(grid, view)
    kept = _rows(grid, view)
    kept = kept[grid.complete[np.ix_(kept, columns)].any(1)] if len(columns) else kept[:0]
    value = grid.value[np.ix_(kept, columns)]
    mine = columns[away]  # those that count
    here = np.ix_(kept, mine)
    # all alike where every set is the models' own: then each counts as it stands
    cells = grid.counted.cells[here] if grid.counted.columns[mine].any() else grid.complete[here]
    told = grid.standing(mine.tolist(), kept[cells.all(1)])
    found = means(grid, kept, mine, told, cells)
    whole = ~np.isnan(found.value)
    rank = np.full(len(kept), np.nan)
    if whole.any():
        rank[whole] = np.mean([ranks(column) for column in value[whole][:, away].T], axis=0)
    group, places = _ties(kept, told)
    computed = np.array([_computed(row) for row in grid.computed[np.ix_(kept, columns)]], "<U40")
    order = _order(grid, view, kept, columns, value, found.value, rank, computed)
    place = np.ix_(kept[order], columns)
    return Board(
        grid, grid.models.iloc[kept[order]].reset_index(drop=True),
        grid.tasks.iloc[columns].reset_index(drop=True),
        value[order], grid.low[place], grid.high[place], grid.kind[place], grid.row[place],
        grid.own[place], away, kept[order], found.value[order], found.half[order],
        found.kind[order], rank[order], group[order], places[order], computed[order],
        _marks(grid, kept[order]),
    )  # fmt: skip


def _computed(cells: NDArray[np.str_]) -> str:
    """Of a row: how many of its numbers were computed again."""
    asked = cells[cells != ""]
    count = int((asked != SELF_REPORTED).sum())
    if not count:
        return SELF_REPORTED if len(asked) else ""
    return VERIFIED if count == len(asked) else f"{count} of {len(asked)} verified"


def _marks(grid: Grid, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """Of each row, over all tasks that it has: those that are not in view tell of it, too."""
    names = grid.tasks["task"].to_numpy(object)
    own = grid.own & grid.complete
    said = [
        mark((), "", names[own[row]].tolist()) if own[row].any() else doubt
        for row, doubt in zip(rows, grid.models["doubt"].iloc[rows], strict=True)
    ]
    return np.array(said, np.str_)


def _columns(grid: Grid, view: View) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(columns in view, those that stand apart last; which of them count)."""
    tasks, transfer = grid.tasks, grid.counted.columns
    shown = np.ones(len(tasks), bool)
    if view.domains:
        shown &= tasks["domain"].isin(view.domains).to_numpy()
    if view.tasks:
        shown &= tasks["task"].isin(view.tasks).to_numpy()
    if view.whole:
        shown &= ~tasks["subset"].to_numpy(bool)
    if not view.tasks and not view.domains and not tasks["own"].all():
        shown &= ~tasks["own"].to_numpy(bool)
    if not view.pretraining and not view.tasks and transfer[shown].any():
        shown &= transfer
    columns = np.flatnonzero(shown)
    columns = columns[np.argsort(~transfer[columns], kind="stable")]
    away = transfer[columns]
    return columns, away if away.any() else np.ones_like(away)


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
    elif view.sort == "multiply_adds":
        counts = grid.models["multiply_adds"].to_numpy()[kept].astype(np.float64)
        by = np.where(counts > 0, counts, np.nan)
    elif view.sort in ("model", "objective", "architecture", "data", "revision"):
        texts = grid.models[view.sort].iloc[kept]
        by = -texts.rank(method="dense").to_numpy(np.float64)
    else:
        by = mean
    by = by if not view.rising else -by
    alike = grid.models["model"].to_numpy()[kept]
    return np.lexsort((alike, np.nan_to_num(-by, nan=np.inf), computed != VERIFIED))


def headline(board: Board) -> str:
    """Which objective or model has the highest mean on these data sets, among the models in view;
    what the tests make of that, over all sets and set by set, and of which chance they speak."""
    ranked = np.flatnonzero(~np.isnan(board.mean))
    if not len(ranked):
        return "No model has a number on every data set that is chosen; choose fewer."
    ranked = ranked[np.argsort(-board.mean[ranked], kind="stable")]
    aside = _aside(board)
    verified = ranked[board.computed[ranked] == VERIFIED]
    only_verified = 0 < len(verified) < len(ranked)
    if only_verified:
        more = len(ranked) - len(verified)
        aside = f" Verified rows alone; {more} more are not, or not wholly.{aside}"
        ranked = verified
    count, first = int(board.counts.sum()), int(ranked[0])
    what = f"mean on these {count} data sets" if count > 1 else "score on this data set"
    mean, half = 100 * board.mean[first], 100 * board.half[first]
    over = f"over {chance([str(board.mean_kind[first])])}"
    if len(ranked) == 1:
        only = "the only verified model" if only_verified else "the only model"
        start = f"{_name(board, first)} has the highest {what}: {mean:.1f} % ±{half:.1f}"
        return f"{start} (95 % {over}). It is {only} in view.{aside}"
    second = int(ranked[1])
    start = (
        f"{_name(board, first)} has the highest {what}: {mean:.1f} % ±{half:.1f} among the "
        f"{len(ranked)} models in view"
    )
    behind = f"{mean - 100 * board.mean[second]:.1f} points before {_name(board, second)}"
    if not board.group[first] or not board.group[second]:
        return f"{start} (95 % {over}), {behind} (not tested).{aside}"
    verdicts = _set_by_set(board, first, second) if count > 1 else None
    tied = [int(i) for i in ranked[1:] if board.group[i] == board.group[first]]
    if tied:
        others = ", ".join(_name(board, i) for i in tied[:3])
        more_tied = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        text = (
            f"{start}, but paired tests cannot tell it from {others}{more_tied} (interval and "
            f"tests {over}, all pairs at once, p >= {LEVEL})."
        )
    else:
        split = ", but the data sets disagree" if verdicts and verdicts.split else ""
        text = (
            f"{start}, {behind}{split} (interval and paired tests {over}, all pairs at once, "
            f"p < {LEVEL})."
        )
    if verdicts:
        text += f" Set by set against {_name(board, second)}: {verdicts.text}."
    if count >= MIN_TASKS:
        sample = runs_interval((board.value[first] - board.value[second])[board.counts])
        text += (
            f" With the data sets as a sample of data sets it is {100 * sample.value:.1f} "
            f"±{50 * (sample.high - sample.low):.1f} points before {_name(board, second)}."
        )
    objectives = any(_alone(board, i) for i in (first, second, *tied[:3]))
    return f"{text} {ONE_TRAINING if objectives else ''}".rstrip() + aside


@dataclass(frozen=True)
class _Verdicts:
    """Of the first against the second, one paired test a data set, corrected by Holm's rule."""

    better: int
    worse: int
    higher: int  # whatever the tests say
    of: int

    @property
    def split(self) -> bool:
        """Whether the sets speak for both: by the tests, or by half of the signs and more."""
        return bool(self.worse) or 2 * self.higher <= self.of

    @property
    def text(self) -> str:
        undecided = self.of - self.better - self.worse
        return (
            f"higher on {self.higher} of {self.of}, better on {self.better}, worse on "
            f"{self.worse}, undecided on {undecided} (Holm-corrected p < {LEVEL})"
        )


def _set_by_set(board: Board, first: int, second: int) -> _Verdicts | None:
    """None where the two were not asked the same on every set that counts."""
    columns = np.flatnonzero(board.counts)
    tasks = _grid_columns(board)[columns]
    a, b = int(board.place[first]), int(board.place[second])
    told = [board.grid.pair(int(t), a, b) for t in tasks]
    found = [one.difference() for one in told if one is not None]
    if len(found) < len(told) or not found:
        return None
    corrected = holm([p for _, p in found])
    signs = [gap.value > 0 for (gap, _), p in zip(found, corrected, strict=True) if p < LEVEL]
    gaps = board.value[first, columns] - board.value[second, columns]
    return _Verdicts(sum(signs), len(signs) - sum(signs), int((gaps > 0).sum()), len(found))


def _grid_columns(board: Board) -> NDArray[np.int64]:
    """[tasks] columns of the grid."""
    names = {task: t for t, task in enumerate(board.grid.tasks["task"])}
    return np.array([names[task] for task in board.tasks["task"]], np.int64)


def _aside(board: Board) -> str:
    """What does not count, in words."""
    apart = list(board.tasks["task"][~board.counts])
    lost = int((np.isnan(board.mean) & (board.seen & board.counts).any(1)).sum())
    said = ""
    if apart:
        said += (
            f" Apart, as models in view were pretrained on {'them' if len(apart) > 1 else 'it'}: "
            f"{', '.join(apart)}."
        )
    if lost:
        said += (
            f" {lost} model{'s have' if lost > 1 else ' has'} no mean, having been pretrained on "
            "one of these sets."
        )
    return said


def _alone(board: Board, row: int) -> bool:
    """Whether its objective tells the row apart."""
    objectives = board.models["objective"]
    mine = objectives.iloc[row]
    return bool(mine) and mine != UNTRAINED and int((objectives == mine).sum()) == 1


def _name(board: Board, row: int) -> str:
    """The objective as the paper writes it where it tells the models apart, else the model."""
    about = board.models.iloc[row]
    return shown_objective(about["objective"]) if _alone(board, row) else str(about["model"])
