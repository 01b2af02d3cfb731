"""A board as the table component, CSV and JSON take it."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.common.text import percent
from eval.results.transfer import SIGN
from space.labels import chance, shown_objective
from space.tables.board import Board
from space.tables.view import View

DASH = "-"  # nothing was measured, as on the command line
_OLD = "episodes"  # a kind of intervals, of files of before they spoke of other images
BLUE = (0, 114, 178)  # of Okabe and Ito; one hue, so lightness alone carries the scale
# column that tells about the model -> (header, width in pixels)
_INFO = {"params": ("params, M", 90), "data": ("pretrained on", 110), "revision": ("revision", 90),
         "architecture": ("architecture", 150), "objective": ("objective", 165)}  # fmt: skip
_MODEL_WIDTH, _TIES, _NARROW, _SCORE_WIDTH, _COMPUTED = 230, 95, 70, 112, 120


def task_header(task: str, domain: str, subset: bool, apart: bool = False) -> str:
    """``dtd* (texture)``; ``tiny_imagenet‡ (natural images)`` of a set that stands apart."""
    return f"{task}{'*' if subset else ''}{SIGN if apart else ''} ({domain})"


def headers(board: Board, view: View) -> list[str]:
    """The table's columns, from left to right."""
    tasks = [
        task_header(task, domain, subset, not counts)
        for (task, domain, subset), counts in zip(
            board.tasks[["task", "domain", "subset"]].itertuples(index=False), board.counts,
            strict=True,
        )
    ]  # fmt: skip
    asked = ["computed"] * _asked(board)
    info = [_INFO[e][0] for e in view.extras]
    return ["model", "mean", "tie group", "mean rank", *asked, *info, *tasks]


def _asked(board: Board) -> bool:
    """Whether it matters who computed the numbers."""
    return bool((board.computed != "").any())


def widths(board: Board, view: View) -> list[str]:
    """Of the columns, in pixels: a number with its interval stays on one line."""
    info = [_INFO[name][1] for name in view.extras]
    scores = [_SCORE_WIDTH] * len(board.tasks)
    asked = [_COMPUTED] * _asked(board)
    found = [_MODEL_WIDTH, _SCORE_WIDTH, _TIES, _NARROW, *asked, *info, *scores]
    return [f"{width}px" for width in found]


def table(board: Board, view: View) -> dict[str, Any]:
    """What gr.Dataframe takes: numbers to sort by, the texts to show for them, their colours."""
    data, shown, style = [], [], []
    shade = _shades(board.value) if view.colour else np.zeros(board.value.shape)
    best = board.value >= np.nanmax(board.value, axis=0, initial=-1.0) - 1e-12
    numbers = _numbers(100 * board.value)
    means, places = _numbers(100 * board.mean), _numbers(board.rank)
    half = (board.high - board.low) / 2
    old = np.where(board.kind == _OLD, "†", "")
    marks = np.char.add(old, np.where(board.seen & board.counts, SIGN, ""))
    mean_marks = _mean_marks(board)
    for r, model in enumerate(board.models.to_dict("records")):
        said = str(board.computed[r])
        info = [(said, said)] * _asked(board)
        info += [_info(model, name, str(board.mark[r])) for name in view.extras]
        group, name = int(board.group[r]), str(model["model"])
        data.append([name, means[r], group or None, places[r], *(i[0] for i in info), *numbers[r]])
        shown.append([
            short(name) + sign(str(board.mark[r])),
            percent(board.mean[r], board.half[r]) + mean_marks[r],
            f"{group} ({board.places[r]})" if group else DASH,
            DASH if places[r] is None else f"{places[r]:.2f}", *(i[1] for i in info),
            *(percent(*pair) + mark for *pair, mark in zip(board.value[r], half[r], marks[r],
                                                          strict=True)),
        ])  # fmt: skip
        style.append(["", "font-weight: 700;", *[""] * (2 + len(info)),
                      *map(_style, shade[r], best[r])])  # fmt: skip
    return {
        "headers": headers(board, view),
        "data": data,
        "metadata": {"display_value": shown, "styling": style},
    }


def _mean_marks(board: Board) -> NDArray[np.str_]:
    """[rows] † beside a mean whose interval rests on other episodes of the same images."""
    rests = (board.kind == _OLD).any(1) & np.isin(board.mean_kind, (_OLD, "mixed"))
    return np.where(rests, "†", "")


def legend(board: Board, view: View) -> str:
    """What the signs in the table mean: of those alone that stand in it."""
    found = ["Top-1, or AP of detection, in percent."]
    if any("*" in head for head in headers(board, view)):
        found.append("`*` a subset of the data set: not comparable to published numbers.")
    found.append(
        "Place: those that a model could hold, all pairs compared at once on the same episodes or "
        "images; a line parts groups of models that cannot be told from their first."
    )
    if (board.kind == _OLD).any():
        found.append("† only over other episodes of the same images (an earlier version).")
    if not board.counts.all():
        found.append(
            f"`{SIGN}` no transfer: models here were pretrained on it; in no mean or rank."
        )
    elif (board.seen & board.counts).any():
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


def chances(board: Board) -> str:
    """Of which chances the intervals on the board speak."""
    kinds = _kinds(board)
    return f"± 95 % over {chance(kinds)}." if kinds else ""


def sign(mark: str) -> str:
    """Behind a row's name: that the model was pretrained on a set of this board, or that nobody can
    tell; '' for a clean row."""
    return f" {SIGN if mark.startswith(SIGN) else '?'}" if mark else ""


def short(model: str) -> str:
    """Without the prefix that most rows share."""
    return model.removeprefix("zoo:")


def _info(model: dict[Hashable, Any], name: str, mark: str) -> tuple[Any, str]:
    """(value to sort by, text to show) of a column that tells about the model."""
    value = model[name]
    if name == "data":
        return value, f"{value} ({mark})" if value and mark else str(value) or mark or DASH
    if name == "params":
        return round(value / 1e6, 2), f"{value / 1e6:.1f}"
    if name == "objective":
        return value, shown_objective(value) or DASH
    if name == "revision":
        return value, str(value)[:7]
    return value, str(value) or DASH


def _numbers(values: np.ndarray) -> list[Any]:
    """As plain numbers, None where there is none: what JSON takes."""
    rounded = np.round(values, 4).astype(object)
    rounded[np.isnan(values)] = None
    return rounded.tolist()


def _shades(value: np.ndarray) -> np.ndarray:
    """[rows, tasks] 0 (a column's worst) to 1 (its best)."""
    if not value.size:
        return value
    with np.errstate(invalid="ignore"):
        low, high = np.nanmin(value, axis=0, initial=1), np.nanmax(value, axis=0, initial=0)
        return np.nan_to_num((value - low) / np.maximum(high - low, 1e-9))


def _style(shade: float, best: bool) -> str:
    """Translucent, so that the text keeps the contrast of the light or the dark theme."""
    red, green, blue = BLUE
    colour = f"background-color: rgba({red},{green},{blue},{0.42 * shade:.2f});" if shade else ""
    return colour + ("font-weight: 700;" if best else "")


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


def _about(board: Board) -> pd.DataFrame:
    """What there is of each row beside its scores."""
    out = board.models[["model", "revision", "objective", "architecture", "params", "data"]].copy()
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
