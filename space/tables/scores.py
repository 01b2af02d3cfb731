"""Results -> one table of scores, which every page reads: one row a main score of a result.

Columns: path; model (as on the board), revision, id, objective, architecture, params, data (what it
was pretrained on), px; task, title, domain, split, subset; protocol, setting, score, value, low,
high, n, unit, of, samples (right answers a unit, a byte each; of resamples the score in each, as
float32), seconds, created, seed. Scores are fractions of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.results.leaderboard import main_scores, model_label, setting_label
from eval.results.names import task_label
from eval.results.parquet_table import objective_of
from eval.results.schema import Result
from eval.tasks.registry import TASKS

RESAMPLED = np.dtype("<f4")
COLUMNS = {
    "path": "str", "model": "str", "revision": "str", "id": "str", "objective": "str",
    "architecture": "str", "params": "int64", "data": "str", "px": "int64", "task": "str",
    "title": "str", "domain": "str", "split": "str", "subset": "bool", "protocol": "str",
    "setting": "str", "score": "str", "value": "float64", "low": "float64", "high": "float64",
    "n": "int64", "unit": "str", "of": "int64", "samples": "object", "seconds": "float64",
    "created": "str", "seed": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What a model's name tells of its making; empty where it does not tell."""

    objective: str
    architecture: str
    data: str


def facts(model: str) -> Facts:
    """``zoo:resnet18_narrow.ce_selfsupcon_tin100`` is CE+SelfSupCon of resnet18_narrow on tin100,
    ``resnet50.a1_in1k`` a resnet50 on in1k, ``random:resnet18`` is untrained."""
    kind, colon, rest = model.partition(":")
    name = (rest if colon else model).rpartition("/")[2]
    architecture, _, tag = name.partition(".")
    if kind == "random":
        return Facts("untrained", rest.partition("@")[0].partition(".")[0], "")
    objective = objective_of(name)
    return Facts(objective, architecture, tag.rpartition("_")[2] if "_" in tag else "")


def rows(path: str, result: Result) -> list[dict[str, Any]]:
    """The result's main scores; those out of range or without samples' length are left out."""
    about = facts(result.model.id)
    task = TASKS.get(result.task.name)
    shared = {
        "path": path,
        "model": model_label(result),
        "revision": result.model.revision,
        "id": result.model.id,
        "objective": about.objective,
        "architecture": about.architecture,
        "params": result.model.params,
        "data": about.data,
        "px": _px(result),
        "task": task_label(result.task.name, result.task.split),
        "title": task.title if task else result.task.name,
        "domain": task.domain if task else "your own",
        "split": result.task.split_hash,
        "subset": result.task.subset,
        "protocol": result.protocol.name,
        "setting": setting_label(result),
        "seconds": sum(v for v in result.seconds.values() if math.isfinite(v)),
        "created": result.created,
        "seed": result.seed,
    }
    return [
        shared
        | {
            "score": score.name,
            "value": score.value,
            "low": score.ci_low,
            "high": score.ci_high,
            "n": score.n,
            **_samples(result, score.name),
        }
        for score in main_scores(result)
        if 0 <= score.value <= 1 and math.isfinite(score.ci_low) and math.isfinite(score.ci_high)
    ]


def _px(result: Result) -> int:
    size = result.model.img_size or result.model.input.get("input_size")
    side = size[1] if isinstance(size, list | tuple) and len(size) > 1 else size
    return side if type(side) is int and 0 < side < 2**31 else 0


def _samples(result: Result, name: str) -> dict[str, Any]:
    held = result.samples.get(name)
    if held is not None and held.unit == "resample":
        values = held.values()
        if held.of > 0 and ((values >= 0) & (values <= 1) | np.isnan(values)).all():
            return {"unit": held.unit, "of": held.of, "samples": as_bytes(values)}
    elif held is not None and 0 < held.of <= 255:
        right = np.rint(held.values() * held.of)
        if ((right >= 0) & (right <= held.of)).all():
            return {"unit": held.unit, "of": held.of, "samples": right.astype(np.uint8).tobytes()}
    return {"unit": "", "of": 0, "samples": b""}


def as_bytes(values: NDArray[np.float64]) -> bytes:
    """[n] a score in n resamples, as a table of scores holds it."""
    return values.astype(RESAMPLED).tobytes()


def oddity(row: dict[str, Any]) -> str:
    """Why a table cannot hold a row of a valid result; empty where it can."""
    for name, value in row.items():
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{name} {value} is out of range"
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"{name} is not text"
    return ""


def frame(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table, with the columns there even where there is no row."""
    return typed(pd.DataFrame(list(found), columns=list(COLUMNS)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each column of its kind."""
    return table.astype({name: kind for name, kind in COLUMNS.items() if kind != "object"})
