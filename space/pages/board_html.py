"""A board as HTML: one row a model, one cell a number, data sets in groups of their domain.

Foreign names pass through `space.markup.safe`. Cells are buttons, for a number's receipt; on a
narrow screen the style sheet makes a card of each row.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.results.signoff import SELF_REPORTED
from eval.results.transfer import SIGN
from space.labels import shown_objective
from space.markup import breakable, mark, safe
from space.tables.board import Board
from space.tables.display import DASH, OLD, mean_marks, sign
from space.tables.view import View

ROWS = 50  # of a page
_INFO = {"objective": "objective", "architecture": "architecture", "params": "params, M",
         "multiply_adds": "multiply-adds, M", "data": "pretrained on",
         "revision": "revision"}  # fmt: skip
_DECIMALS = {"params": 1, "multiply_adds": 0}  # of columns in millions
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pages(board: Board) -> int:
    """How many pages a board has, at least one."""
    return max(1, -(-len(board.models) // ROWS))


def board_html(board: Board, view: View, page: int = 1) -> str:
    """One page of the board, with the buttons that turn it where there is more than one."""
    page = min(max(page, 1), pages(board))
    start = (page - 1) * ROWS
    rows = range(start, min(start + ROWS, len(board.models)))
    shade = shades(board.value) if view.colour else np.zeros(board.value.shape)
    best = board.value >= np.nanmax(board.value, axis=0, initial=-1.0) - 1e-12
    by_mean = not view.sort and not view.rising
    models = board.models.iloc[start : start + ROWS].to_dict("records")
    there = np.argwhere(board.row[start : start + ROWS] >= 0)
    stop = tuple(there[0] + [start, 0]) if len(there) else (-1, -1)  # the tab key's, on the board
    marks, created = mean_marks(board), _created(board, rows)
    columns = _Columns(board.tasks["task"].tolist(), _first(board))
    body = "".join(
        _row(board, view, models[r - start], r, columns, shade[r], best[r], by_mean and r > start,
             stop, str(marks[r]), created[r - start])
        for r in rows
    )  # fmt: skip
    return (
        f'<div class="board-wrap"><table class="board">'
        f'<caption class="unseen">Leaderboard: models by data sets, in percent</caption>'
        f"{_head(board, view)}<tbody>{body}</tbody></table></div>{_turn(board, page)}"
    )


@dataclass(frozen=True)
class _Columns:
    """The data sets' names, and whether each is the first of its domain."""

    tasks: list[str]
    first: list[bool]


def shades(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """[rows, tasks] 0 (a column's worst) to 1 (its best); 0 where there is no number."""
    if not value.size:
        return value
    with np.errstate(invalid="ignore"):
        low, high = np.nanmin(value, axis=0, initial=1), np.nanmax(value, axis=0, initial=0)
        return np.asarray(np.nan_to_num((value - low) / np.maximum(high - low, 1e-9)))


def card_url(model: str) -> str:
    """The address of a model's card on the Hub; '' for a model that has none there."""
    kind, colon, rest = model.partition(":")
    name = rest if colon else model
    owner, slash, last = name.partition("@")[0].rpartition("/")
    if kind == "zoo" and colon and not slash:
        owner = "transferzoo"
    elif not colon and not slash:
        owner = "timm"
    elif kind != "hf-hub" or not slash:
        return ""
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(last)):
        return ""
    return f"https://huggingface.co/{owner}/{last}"


def short(model: str) -> str:
    """Without the prefix that most rows share."""
    return re.sub(r"^(zoo|hf-hub):", "", model)


def _head(board: Board, view: View) -> str:
    groups = "".join(
        f'<th class="domain" scope="colgroup" colspan="{len(list(those))}">{safe(domain)}</th>'
        for domain, those in groupby(board.tasks["domain"])
    )
    info = "".join(
        _sortable(view, name, safe(_INFO[name]), "number" * (name in _DECIMALS))
        for name in view.extras
        if name in _INFO
    )
    first = _first(board)
    tasks = "".join(
        _sortable(view, str(task), f"{breakable(task)}{'*' if subset else ''}"
                  f"{'' if board.counts[t] else SIGN}", _css("task", first[t]))
        for t, (task, subset) in enumerate(zip(board.tasks["task"], board.tasks["subset"],
                                               strict=True))
    )  # fmt: skip
    blank = f'<td colspan="{3 + sum(name in _INFO for name in view.extras)}"></td>'
    return (
        f"<thead><tr>{blank}{groups}</tr><tr>"
        f'<th class="place" scope="col"><abbr title="the places that it could hold">place</abbr>'
        f"</th>{_sortable(view, 'model', 'model', 'name')}{info}"
        f"{_sortable(view, '', 'mean', 'number')}{tasks}</tr></thead>"
    )


def _sortable(view: View, sort: str, label: str, css: str) -> str:
    """A column's head: a button that sorts by it, and says how it is sorted."""
    order = ("ascending" if view.rising else "descending") if view.sort == sort else "none"
    return (
        f'<th class="{css}" scope="col" aria-sort="{order}">'
        f'<button type="button" data-sort="{escape(sort, quote=True)}">{label}'
        f"{_ARROWS[order]}</button></th>"
    )


def _css(kind: str, first: bool, *more: str) -> str:
    return " ".join([kind, *(["first"] if first else []), *more])


_ARROWS = {"ascending": " ▲", "descending": " ▼", "none": ""}


def _first(board: Board) -> list[bool]:
    """[tasks] whether a column is the first of its domain."""
    domains = list(board.tasks["domain"])
    return [not t or domains[t] != domains[t - 1] for t in range(len(domains))]


def _row(
    board: Board, view: View, model: dict[Hashable, Any], r: int, columns: _Columns,
    shade: NDArray[np.float64], best: NDArray[np.bool_], divided: bool, stop: tuple[int, int],
    marks: str, created: str,
) -> str:  # fmt: skip
    apart = divided and board.group[r] and board.group[r] != board.group[r - 1]
    said = str(board.mark[r])
    info = "".join(_about(model, name, said) for name in view.extras if name in _INFO)
    mean = _number(board.mean[r], board.half[r], marks)
    cells = "".join(
        _cell(board, model, r, t, columns, shade[t], bool(best[t]), (r, t) == stop)
        for t in range(len(columns.tasks))
    )
    place = str(board.places[r]) or DASH
    return (
        f'<tr class="{"apart" if apart else ""}" data-created="{safe(created)}">'
        f'<td class="place" data-label="place">{place}</td>{_name(board, model, r)}{info}'
        f'<td class="mean number" data-label="mean">{mean}</td>{cells}</tr>'
    )


def _created(board: Board, rows: range) -> list[str]:
    """Of each of these rows the day and time of its first result."""
    places = board.row[rows.start : rows.stop]
    there = places >= 0
    texts = board.grid.scores["created"].iloc[places[there]].to_numpy(object)
    when = np.full(places.shape, None, object)
    when[there] = texts
    return [min((one for one in row if one is not None), default="") for row in when]


def _name(board: Board, model: dict[Hashable, Any], r: int) -> str:
    name, url = str(model["model"]), card_url(str(model["id"]))
    shown = breakable(short(name), "/.")
    link = f'<a href="{url}" target="_blank" rel="noopener">{shown}</a>' if url else shown
    said = str(board.computed[r])
    badge = ""
    if said:
        kind = "verified" if said != SELF_REPORTED else ""
        badge = f'<span class="badge {kind}">{"✓ " if kind else ""}{safe(said)}</span>'
    return (
        f'<td class="name" title="{safe(name)}"><span>{mark(str(model["objective"]))}'
        f'<span><span class="id">{link}</span>{_trained_on(str(board.mark[r]))}</span>{badge}'
        "</span></td>"
    )


def _trained_on(said: str) -> str:
    """What the model's training data mean for the row, behind its name; '' for nothing."""
    if not said:
        return ""
    words = said if said.startswith(SIGN) else f"training data {said}"
    return f'<abbr class="trained" title="{safe(words)}">{sign(said)}</abbr>'


def _about(model: dict[Hashable, Any], name: str, said: str) -> str:
    """A cell about the model; ``said`` is what its training data mean for its scores."""
    value = model[name]
    if name == "data":
        value = f"{value} ({said})" if value and said else value or said
    if name in _DECIMALS:
        told = f"{value / 1e6:,.{_DECIMALS[name]}f}" if value or name == "params" else DASH
        return f'<td class="number" data-label="{_INFO[name]}">{told}</td>'
    if name == "objective":
        shown = breakable(shown_objective(str(value)), "+")
        return f'<td data-label="{_INFO[name]}">{shown or DASH}</td>'
    if name == "revision":
        value = str(value)[:7]
    return f'<td data-label="{_INFO[name]}">{safe(value) or DASH}</td>'


def _cell(
    board: Board, model: dict[Hashable, Any], r: int, t: int, columns: _Columns, shade: float,
    best: bool, stop: bool,
) -> str:  # fmt: skip
    task = columns.tasks[t]
    css = "cell" + " best" * best + " first" * columns.first[t]
    if board.row[r, t] < 0:
        return f'<td class="{css} none" data-label="{safe(task)}">{DASH}</td>'
    half = (board.high[r, t] - board.low[r, t]) / 2
    marks = "†" * (board.kind[r, t] == OLD) + SIGN * bool(board.seen[r, t] and board.counts[t])
    number = _number(board.value[r, t], half, marks)
    return (
        f'<td class="{css}" data-label="{safe(task)}">'
        f'<button type="button" tabindex="{0 if stop else -1}" style="--shade:{shade:.2f}" '
        f'data-model="{escape(str(model["model"]), quote=True)}" '
        f'data-task="{escape(task, quote=True)}">{number}</button></td>'
    )


def _number(value: float, half: float, marks: str) -> str:
    if np.isnan(value):
        return DASH
    return f"<span>{100 * value:.1f}</span> <small>±{100 * half:.1f}{marks}</small>"


def _turn(board: Board, page: int) -> str:
    count, last = len(board.models), pages(board)
    if last == 1:
        return ""
    start = (page - 1) * ROWS
    buttons = [
        f'<button type="button" class="tool" data-page="{to}"'
        f"{'' if 1 <= to <= last else ' disabled'}>{label}</button>"
        for label, to in (("Previous", page - 1), ("Next", page + 1))
    ]
    told = f"models {start + 1:,} to {min(start + ROWS, count):,} of {count:,}"
    return f'<nav class="pages" aria-label="Pages of the board">{"".join(buttons)}{told}</nav>'
