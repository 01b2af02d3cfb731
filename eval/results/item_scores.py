"""Ranks with ties for anybody's board: scores of any models, item by item or seed by seed.

`read_items` takes a CSV or Parquet file with the columns model, item (or seed), score and, where
there are several, task; `eval.results.every_eval_ever_rows` reads that format. `ties_of` compares
all pairs of models at once on the items that all of them answered. What is left out is named.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.common.fitted_table import shown_table, wrapped
from eval.common.text import counted
from eval.metrics.estimates import KINDS, Estimates, mean, of_items
from eval.metrics.ties import Ties, ties

ITEM_COLUMNS = ("item", "seed")
MIN_ITEMS = 2


@dataclass(frozen=True)
class ItemScore:
    """One number: what a model got for one item of a task, or with one seed. Higher is better."""

    model: str
    task: str
    item: str
    score: float


@dataclass(frozen=True)
class TiedBoard:
    """Models from best to worst on one task, or on the mean over ``tasks``."""

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    items: int  # that all of them answered, in all
    estimates: Estimates
    ties: Ties
    left_out: tuple[str, ...]  # sentences


def read_items(path: Path) -> list[ItemScore]:
    """The rows of a CSV or Parquet file. Raises UserError for what is missing or is no number."""
    if not path.is_file():
        raise NotFound(f"{path} does not exist; name a CSV or Parquet file")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows: Iterable[Mapping[str, Any]] = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as why:
            raise BadInput(f"{path} is not a readable Parquet file: {why}") from None
        return item_scores(rows, str(path))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return item_scores(csv.DictReader(file), str(path))
    except (UnicodeDecodeError, csv.Error) as why:
        raise BadInput(f"{path} is not a readable CSV file: {why}") from None


def item_scores(rows: Iterable[Mapping[str, Any]], where: str = "scores") -> list[ItemScore]:
    """Mappings with the columns model, item or seed, score and perhaps task, as scores.

    Raises UserError for a column that is missing and a score that is not a finite number.
    """
    found = []
    for number, row in enumerate(rows, 1):
        if number == 1:
            _check_columns(row, where)
        item = next((row[c] for c in ITEM_COLUMNS if row.get(c) not in (None, "")), None)
        if item is None or row.get("model") in (None, ""):
            raise BadInput(f"{where}: row {number} has no model or no item")
        try:
            score = float(row["score"])
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise BadInput(
                f"{where}: row {number} has score {str(row['score'])[:40]!r}, which is not a "
                "finite number"
            )
        task = row.get("task")
        found.append(
            ItemScore(str(row["model"]), "" if task is None else str(task), str(item), score)
        )
    if not found:
        raise BadInput(f"{where} has no rows")
    return found


def _check_columns(row: Mapping[str, Any], where: str) -> None:
    names = [str(name) for name in row]
    missing = [name for name in ("model", "score") if name not in row]
    if not any(name in row for name in ITEM_COLUMNS):
        missing.append("item")
    if missing:
        raise BadInput(
            f"{where} has no column {missing[0]!r}"
            + did_you_mean(missing[0], names, "columns are " + ", ".join(names))
        )


def ties_of(scores: Sequence[ItemScore]) -> tuple[TiedBoard | None, list[TiedBoard]]:
    """(the board of the mean over tasks, None for one task alone; the boards of the tasks).

    Raises UserError where no task has two models with two items in common, and for a score that is
    there twice.
    """
    by_task: dict[str, dict[str, dict[str, float]]] = {}
    for s in scores:
        held = by_task.setdefault(s.task, {}).setdefault(s.model, {})
        if s.item in held:
            raise BadInput(f"model {s.model!r} has item {s.item!r} of task {s.task!r} twice")
        held[s.item] = s.score
    found = [_on_task(task, held) for task, held in by_task.items()]
    boards = [board for board, _ in found if board is not None]
    if not boards:
        raise BadInput("no task has two models with two items in common; pairs need the same items")
    skipped = [why for board, why in found if board is None]
    return (_over_tasks(boards, skipped) if len(by_task) > 1 else None), boards


def _on_task(task: str, held: Mapping[str, Mapping[str, float]]) -> tuple[TiedBoard | None, str]:
    """The board of one task, or why there is none."""
    common = set.intersection(*(set(items) for items in held.values()))
    everything = set().union(*held.values())
    if len(common) < MIN_ITEMS or len(held) < 2:
        return None, (
            f"task {task!r} is left out: {counted(len(held), 'model')} with "
            f"{counted(len(common), 'item')} in common"
        )
    items = sorted(common)
    values = np.array([[scores[i] for i in items] for scores in held.values()])
    lost = len(everything) - len(common)
    note = f"task {task!r}: {counted(lost, 'item')} that some model lacks" if lost else ""
    return _board((task,), list(held), of_items(values), len(items), [note] if note else []), ""


def _over_tasks(boards: Sequence[TiedBoard], skipped: Sequence[str]) -> TiedBoard | None:
    common = [m for m in boards[0].models if all(m in b.models for b in boards)]
    everyone = dict.fromkeys(m for b in boards for m in b.models)
    if len(common) < 2:
        return None
    parts = [
        b.estimates.of(np.array([b.models.index(m) for m in common], np.int64)) for b in boards
    ]
    notes = [*skipped, *(note for b in boards for note in b.left_out)]
    notes += [f"model {m!r} is left out: it lacks a task" for m in everyone if m not in common]
    tasks = tuple(b.tasks[0] for b in boards)
    return _board(tasks, common, mean(parts), sum(b.items for b in boards), notes)


def _board(
    tasks: tuple[str, ...], models: Sequence[str], found: Estimates, items: int, notes: list[str]
) -> TiedBoard:
    order: NDArray[np.int64] = np.argsort(-found.values, kind="stable")
    found = found.of(order)
    names = tuple(models[i] for i in order)
    return TiedBoard(tasks, names, items, found, ties(found), tuple(notes))


_HEADER = ("place", "model", "score", "±", "tie group")


def render(boards: Iterable[TiedBoard], width: int | None = None) -> str:
    """Tables: place, model, score, interval and group; below each what was left out.

    For a screen of ``width`` characters, or as Markdown (None).
    """
    out = []
    for board in boards:
        half = board.estimates.half_widths()
        lines = [
            [board.ties.places(i), model, f"{board.estimates.values[i]:.4g}", f"{half[i]:.2g}",
             str(board.ties.group[i])]
            for i, model in enumerate(board.models)
        ]  # fmt: skip
        out += [_title(board), shown_table(_HEADER, lines, width)]
        out += [f"left out: {note}" for note in board.left_out] + [""]
    key = (
        f"± is 95 % over {KINDS['items']}. Place: where a model could stand. Tie group: its models "
        "cannot be told from the best of them. All pairs of a board are compared at once; all that "
        "is said of it holds together with 95 %."
    )
    out.append(key if width is None else wrapped(key, width))
    return "\n".join(out)


def _title(board: TiedBoard) -> str:
    if len(board.tasks) > 1:
        return f"mean over {len(board.tasks)} tasks, {counted(board.items, 'item')}"
    name = board.tasks[0]
    return f"{name + ', ' if name else ''}{counted(board.items, 'item')}"


def as_json(board: TiedBoard) -> dict[str, Any]:
    half = board.estimates.half_widths()
    return {
        "tasks": list(board.tasks),
        "items": board.items,
        "kind": board.estimates.kind,
        "models": [
            {
                "model": model,
                "score": float(board.estimates.values[i]),
                "half_width": float(half[i]),
                "group": int(board.ties.group[i]),
                "places": [int(board.ties.first[i]), int(board.ties.last[i])],
                "better_than": [
                    board.models[j] for j in np.flatnonzero(board.ties.better[i]).tolist()
                ],
            }
            for i, model in enumerate(board.models)
        ],
        "left_out": list(board.left_out),
    }


def every_eval_ever_items(path: Path) -> Iterator[ItemScore]:
    """The single answers in files of that format; a score that is better when lower is turned.

    Raises UserError for what is not of the format, and for scores of a whole benchmark alone, of
    which nothing can be paired.
    """
    from eval.results.every_eval_ever_rows import read_every_eval_ever

    found = read_every_eval_ever(path)
    single = [row for row in found if row.item]
    if not single:
        raise BadInput(
            f"{path} has scores of whole benchmarks alone; ties need those of single items"
        )
    asked: dict[tuple[str, str, str], int] = {}
    for row in single:
        task = " / ".join(part for part in (row.benchmark, row.task, row.metric) if part)
        key = row.model, task, row.item
        times = asked[key] = asked.get(key, 0) + 1
        item = row.item if times == 1 else f"{row.item} ({times})"  # a sample asked more than once
        yield ItemScore(row.model, task, item, -row.score if row.lower_is_better else row.score)
