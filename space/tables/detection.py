"""Detectors on one data set under one setting: their standing, their classes, their boxes.

Scores are fractions of one. What a result file says beside its scores (``details``) is foreign: it
is read with care, and nothing in it is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from eval.data.boxes.objects import BoxPrediction
from eval.metrics.ties import LEVEL, pair_p, ties
from eval.results.estimates import comparable
from eval.results.leaderboard import score_size, score_title
from eval.results.schema import Result
from space.labels import chance
from space.tables.matrix import told_apart
from space.tables.scores import held

PROTOCOL = "detection"
NOTHING = (
    "No detection results here. Make some: `transfer-eval run zoo:all --suite detection --data DIR`"
)
MOST_BOXES = 500  # read of one image of a foreign file


@dataclass(frozen=True, order=True)
class Place:
    """What never shares a table: the data set with its images, and the setting."""

    task: str
    split: str
    setting: str

    @property
    def text(self) -> str:
        """As a choice on the page sends it back."""
        return "/".join((self.task, self.split, self.setting))


def places(scores: pd.DataFrame) -> dict[Place, str]:
    """What there is to choose, with its title: ``bccd (schedule=short:600)``. Fullest first."""
    mine = _detectors(scores)
    if not len(mine):
        return {}
    counts = mine.groupby(["task", "split", "setting"])["path"].nunique()
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = pd.DataFrame([key for key, _ in order], columns=["task", "split", "setting"])
    one = found.drop_duplicates(["task", "split"])
    told = told_apart(one["task"], one["split"], "~", 8)
    by_split = dict(zip(zip(one["task"], one["split"], strict=True), told, strict=True))
    names = [by_split[key] for key in zip(found["task"], found["split"], strict=True)]
    return {
        Place(*row): f"{name} ({row[2]})" if row[2] else name
        for name, row in zip(names, found.itertuples(index=False, name=None), strict=True)
    }


def score_names(scores: pd.DataFrame, place: Place) -> list[str]:
    """The main scores there are, COCO's first."""
    return sorted(set(_at(scores, place)["score"]), key=score_size)


def kinds(scores: pd.DataFrame, place: Place) -> list[str]:
    """Of which chances the intervals of all scores there speak."""
    return list(dict.fromkeys(_at(scores, place)["kind"]))


def standing(scores: pd.DataFrame, place: Place, score: str = "ap") -> pd.DataFrame:
    """One row a model, best by ``score`` first; of two results of one model the newer counts.

    model (told apart), revision, objective, path, subset; ``value``, ``low``, ``high`` of the
    score and ``kind``, the chance that its interval speaks of; of every score S there is ``S``,
    ``S_low``, ``S_high``, nan where a model lacks it. Against the first: ``difference`` (first -
    this), its ``d_low``, ``d_high`` and ``d_kind``, ``p`` corrected over all pairs of rows, and
    ``verdict``: 'first', 'tied', 'worse', or '' where the two were not asked alike.
    """
    mine = _at(scores, place).sort_values("created", kind="stable")
    mine = mine.drop_duplicates(["model", "revision", "score"], keep="last")
    ranked = mine[mine["score"] == score].sort_values(
        ["value", "model", "revision"], ascending=[False, True, True], ignore_index=True
    )
    out = ranked[["model", "revision", "objective", "path", "subset"]].copy()
    out["model"] = told_apart(ranked["model"], ranked["revision"], "@", 7)
    for column in ("value", "low", "high", "kind"):
        out[column] = ranked[column]
    for name in sorted(set(mine["score"]), key=score_size):
        part = mine[mine["score"] == name].set_index(["model", "revision"])
        part = part.reindex(pd.MultiIndex.from_frame(ranked[["model", "revision"]]))
        for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            out[name + end] = part[column].to_numpy(np.float64)
    return out.assign(**_against_first(ranked))


def _against_first(ranked: pd.DataFrame) -> dict[str, Any]:
    count = len(ranked)
    difference, low, high, p = (np.full(count, np.nan) for _ in range(4))
    values = ranked["value"].to_numpy(np.float64)
    difference[1:] = values[:1] - values[1:]
    verdict = ["first" if i == 0 else "" for i in range(count)]
    kind = [""] * count
    told = comparable(dict(enumerate(held(ranked, range(count)))))
    if told is not None and told[0][0] == 0:
        rows, found = told
        better = ties(found).better
        for place, i in enumerate(rows.tolist()[1:], 1):
            gap, _ = found.difference(0, place)
            low[i], high[i], p[i] = gap.low, gap.high, pair_p(found, 0, place)
            kind[i] = found.kind
            verdict[i] = "worse" if better[0, place] else "tied"
    return {"difference": difference, "d_low": low, "d_high": high, "d_kind": kind, "p": p,
            "verdict": verdict}  # fmt: skip


def headline(table: pd.DataFrame, score: str, names: Sequence[str]) -> str:
    """Who is first here, what the tests make of that, and of which chance they speak; ``names`` of
    the rows, not escaped here."""
    if not len(table):
        return "No model has this score here."
    said = score_title(score)
    first = table.iloc[0]
    start = f"{names[0]} has the highest {said} here, {100 * first.value:.1f} %"
    if len(table) == 1:
        return f"{start}. It is the only model here."
    tied = [name for name, v in zip(names, table["verdict"], strict=True) if v == "tied"]
    worse, untested = ((table["verdict"] == v).sum() for v in ("worse", ""))
    if not tied and not worse:
        return f"{start} (not tested: the others were asked otherwise)."
    over = f"paired tests over {chance(filter(None, table['d_kind']))}, all pairs at once"
    rest = f"; {untested} more could not be tested" if untested else ""
    if tied:
        others = ", ".join(tied[:3]) + (f" and {len(tied) - 3} more" if len(tied) > 3 else "")
        return f"{start}, but cannot be told from {others} ({over}, p >= {LEVEL}){rest}."
    return (
        f"{start}, and is ahead of {worse} other{'s' if worse > 1 else ''} ({over}, "
        f"p < {LEVEL}){rest}."
    )


def _detectors(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["protocol"] == PROTOCOL).to_numpy()]


def _at(scores: pd.DataFrame, place: Place) -> pd.DataFrame:
    mine = _detectors(scores)
    return mine[
        ((mine["task"] == place.task) & (mine["split"] == place.split)).to_numpy()
        & (mine["setting"] == place.setting).to_numpy()
    ]


# ------------------------------------------------------------------------- of the result files


def class_table(a: Result, b: Result | None = None) -> pd.DataFrame:
    """name, boxes, a, b: AP50 of each class, nan where it is undefined, most boxes first. Of ``b``
    by the class's name."""
    mine = _classes(a)
    theirs = _classes(b) if b else {}
    rows = [
        (name, boxes, value, theirs.get(name, (0, np.nan))[1])
        for name, (boxes, value) in mine.items()
    ]
    out = pd.DataFrame(rows, columns=["name", "boxes", "a", "b"])
    return out.astype({"boxes": "int64", "a": "float64", "b": "float64"}).sort_values(
        ["boxes", "name"], ascending=[False, True], kind="stable", ignore_index=True
    )


def _classes(result: Result) -> dict[str, tuple[int, float]]:
    """Class -> (test boxes, AP50)."""
    found = {}
    for each in _dicts(result.details.get("per_class")):
        name, boxes = each.get("name"), each.get("boxes")
        if isinstance(name, str) and type(boxes) is int and 0 <= boxes < 2**53:
            found[name] = boxes, _fraction(each.get("ap50"))
    return found


def _fraction(value: Any) -> float:
    good = isinstance(value, int | float) and 0 <= value <= 1
    return float(value) if good else math.nan


@dataclass(frozen=True, eq=False)
class Example:
    """What a model finds in one test image. ``row`` counts the test part in canonical order."""

    row: int
    hash: str  # hex of the image's hash
    found: BoxPrediction


def examples(result: Result) -> dict[int, Example]:
    """By row, in the file's order; those that are not well formed are left out."""
    out = {}
    for each in _dicts(result.details.get("examples")):
        row, text = each.get("row"), each.get("hash", "")
        found = _found(each)
        if type(row) is int and 0 <= row < 2**53 and isinstance(text, str) and found is not None:
            out[row] = Example(row, text, found)
    return out


def _found(each: Mapping[str, Any]) -> BoxPrediction | None:
    try:
        parts = [list(each[name])[:MOST_BOXES] for name in ("boxes", "scores", "labels")]
        boxes = np.array(parts[0], np.float32).reshape(-1, 4)
        scores = np.array(parts[1], np.float32).reshape(-1)
        labels = np.array([int(label) for label in parts[2]], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not len(boxes) == len(scores) == len(labels) or (labels < 0).any():
        return None
    if not (np.isfinite(boxes).all() and ((scores >= 0) & (scores <= 1)).all()):
        return None
    return BoxPrediction(boxes, scores, labels)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
