"""A board as CSV and JSON, and what its signs mean; `space.pages.board_html` is the table."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.common.text import escaped
from eval.results.transfer import SIGN
from space.labels import chance
from space.tables.board import Board
from space.tables.view import View

DASH = "-"  # nothing was measured, as on the command line
OLD = "episodes"  # a kind of intervals, of files of before they spoke of other images


def _asked(board: Board) -> bool:
    """Whether it matters who computed the numbers."""
    return bool((board.computed != "").any())


def mean_marks(board: Board) -> NDArray[np.str_]:
    """[rows] † beside a mean whose interval rests on other episodes of the same images."""
    rests = (board.kind == OLD).any(1) & np.isin(board.mean_kind, (OLD, "mixed"))
    return np.where(rests, "†", "")


def legend(board: Board) -> str:
    """What the signs in the table mean: of those alone that stand in it."""
    what = board.grid.key.what
    found = [f"{'Top-1' if what == 'accuracy' else what} in percent."]
    if board.tasks["subset"].any():
        found.append("`*` a subset of the data set: not comparable to published numbers.")
    found.append(
        "Place: those that a model could hold, all pairs compared at once on the same episodes or "
        "images; a line parts groups of models that cannot be told from their first."
    )
    if (board.kind == OLD).any():
        found.append("† only over other episodes of the same images (an earlier version).")
    if not board.counts.all():
        found.append(
            f"`{SIGN}` no transfer: models here were pretrained on it; in no mean or rank."
        )
    elif hidden := _hidden(board):
        names = escaped(", ".join(hidden))
        found.append(f"Not shown, as models here were pretrained on it: {names}.")
    if (board.seen & board.counts).any():
        found.append(f"`{SIGN}` the model was pretrained on this set: it has no mean over it.")
    signs = {sign(str(mark)) for mark in board.mark}
    if f" {SIGN}" in signs:
        found.append(f"`{SIGN}` behind a model: it was pretrained on a set of this board.")
    if " ?" in signs:
        found.append("`?` behind a model: its training data were not declared, or never listed.")
    found.append(
        "Objective, architecture and training data are as the model's author declares them in its "
        f"config, recipe or card; {DASH}: unknown."
    )
    found.append(
        "Verified rows were computed again by the board's keepers and stand first; self-reported "
        "ones are as their author computed them."
    )
    return " ".join([*found, "Click a number for its receipt."])


def _hidden(board: Board) -> list[str]:
    """Sets that stand apart and are not in view."""
    tasks = board.grid.tasks["task"][~board.grid.counted.columns]
    shown = set(board.tasks["task"])
    return [task for task in tasks if task not in shown]


def chances(board: Board) -> str:
    """Of which chances the intervals on the board speak."""
    kinds = _kinds(board)
    return f"± 95 % over {chance(kinds)}." if kinds else ""


def sign(mark: str) -> str:
    """Behind a row's name: that the model was pretrained on a set of this board, or that nobody can
    tell; '' for a clean row."""
    return f" {SIGN if mark.startswith(SIGN) else '?'}" if mark else ""


def _numbers(values: np.ndarray) -> list[Any]:
    """As plain numbers, None where there is none: what JSON takes."""
    rounded = np.round(values, 4).astype(object)
    rounded[np.isnan(values)] = None
    return rounded.tolist()


def plain(board: Board, view: View) -> pd.DataFrame:
    """The board as it stands, in percent, with its intervals and of which chance each speaks (a
    key of `eval.metrics.estimates.KINDS`): what is downloaded."""
    out = _about(board)
    if not _asked(board):
        out = out.drop(columns="computed")
    for t, task in enumerate(board.tasks["task"]):
        while any(f"{task}{end}" in out for end in ("", "_low", "_high", "_kind")):
            task += "_task"  # a data set may be called like one of our columns
        out[task] = 100 * board.value[:, t]
        out[f"{task}_low"], out[f"{task}_high"] = 100 * board.low[:, t], 100 * board.high[:, t]
        out[f"{task}_kind"] = board.kind[:, t]
    return out.round(4)


_ABOUT = ("model", "revision", "objective", "architecture", "params", "multiply_adds", "data")


def _about(board: Board) -> pd.DataFrame:
    """What there is of each row beside its scores."""
    out = board.models[list(_ABOUT)].copy()
    out["facts_from"], out["training_data"] = board.models["said"], board.mark
    out["tie_group"], out["places"] = board.group, board.places
    out["mean"], out["mean_half"] = 100 * board.mean, 100 * board.half
    out["mean_kind"], out["mean_rank"] = board.mean_kind, board.rank
    out["computed"] = board.computed
    return out


def as_csv(board: Board, view: View) -> str:
    """One row a model. A cell that a spreadsheet would take for a formula is quoted."""
    out = plain(board, view)
    for name in out.select_dtypes(include=["object", "str"]):
        out[name] = out[name].astype(str).map(_defused)
    return out.rename(columns=_defused).to_csv(index=False)


def _defused(text: str) -> str:
    return f"'{text}" if re.match(r"[=+\-@\t\r]", text) else text


def _kinds(board: Board) -> dict[str, str]:
    """Those on the board, in words."""
    found = dict.fromkeys([*board.kind.ravel().tolist(), *board.mean_kind.tolist()])
    return {kind: chance([kind]) for kind in found if kind}


def as_json(board: Board, view: View) -> str:
    """`space.answers.BoardAnswer` without headline and error."""
    rows = json.loads(_about(board).round(4).to_json(orient="records"))
    numbers = [_numbers(100 * part) for part in (board.value, board.low, board.high)]
    names = board.tasks["task"].tolist()
    for r, row in enumerate(rows):
        row["scores"] = {
            name: {"value": v, "low": low, "high": high, "kind": str(kind)}
            for name, v, low, high, kind in zip(
                names, *(part[r] for part in numbers), board.kind[r], strict=True
            )
        }
    key = board.grid.key
    head = {"protocol": key.protocol, "setting": key.setting, "score": key.score,
            "unit": "percent", "level": 0.95, "kinds": _kinds(board),
            "apart": board.tasks["task"][~board.counts].tolist(),
            "view": view.query()}  # fmt: skip
    return json.dumps(head | {"rows": rows}, indent=1, ensure_ascii=False)
