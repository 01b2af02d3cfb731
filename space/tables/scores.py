"""Results -> one table of scores, which every page reads: one row a main score of a result.

Columns: path; model (as on the board), revision, id; objective, architecture, data (what it was
pretrained on), making (equal for models that were trained alike but for objective and seed) and
said (the files that declare these; empty: nothing does); doubt (why its training data may hold any
set: not declared, never listed); params,
multiply_adds (of an image; 0: not counted), px; series and step (of a training that went on, -1 for
none); seen (why the score is none of transfer, empty for one of transfer); task, title, domain,
split, subset; protocol, setting, score, value, low, high, kind (of the chance that the interval
speaks of, empty for an unknown one), n, unit, of, samples, without, draw (what the score rests on:
`held` reads them), created, seed; content (of the result, by which a sign-off knows it)
and computed (`self-reported`, or who computed it again and when; empty where nobody asks). Scores
are fractions of one.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from eval.metrics.estimates import KINDS
from eval.protocols.episodes import Draw
from eval.results.estimates import Measured, measured
from eval.results.facts import facts_of, making
from eval.results.leaderboard import main_scores, model_label, setting_label
from eval.results.names import task_label
from eval.results.schema import ModelInfo, Result
from eval.results.signoff import SELF_REPORTED, SignOffs, content_of
from eval.results.transfer import mark, seen
from eval.tasks.registry import TASKS

RESAMPLED = np.dtype("<f4")
# Episodes are drawn anew from what a file says of its images: of no more than these.
MOST_OF_A_CLASS, MOST_IMAGES = 200_000, 2_000_000
COLUMNS = {
    "path": "str", "model": "str", "revision": "str", "id": "str", "objective": "str",
    "architecture": "str", "data": "str", "making": "str", "said": "str", "doubt": "str",
    "params": "int64", "multiply_adds": "int64", "px": "int64", "series": "str",
    "step": "int64", "seen": "str",
    "task": "str", "title": "str", "domain": "str", "split": "str", "subset": "bool",
    "protocol": "str", "setting": "str", "score": "str", "value": "float64", "low": "float64",
    "high": "float64", "n": "int64", "kind": "str", "unit": "str", "of": "int64",
    "samples": "object", "without": "object", "draw": "str",
    "created": "str", "seed": "int64", "content": "str", "computed": "str",
}  # fmt: skip


def rows(path: str, result: Result) -> list[dict[str, Any]]:
    """The result's main scores; those out of range or without samples' length are left out."""
    about = facts_of(result.model)
    task = TASKS.get(result.task.name)
    shared = {
        "path": path,
        "model": model_label(result),
        "revision": result.model.revision,
        "id": result.model.id,
        "objective": about.objective,
        "architecture": about.architecture,
        "data": ", ".join(about.data),
        "making": making(result.model),
        "said": ", ".join(about.said_in),
        "doubt": mark(about.data, about.objective, ()),
        "params": result.model.params,
        "multiply_adds": result.model.multiply_adds or 0,
        "px": _px(result),
        "series": _series(result.model),
        "step": -1 if result.model.step is None else result.model.step,
        "seen": seen(result.model, result.task.name),
        "task": task_label(result.task.name, result.task.split),
        "title": task.title if task else result.task.name,
        "domain": task.domain if task else "your own",
        "split": result.task.split_hash,
        "subset": result.task.subset,
        "protocol": result.protocol.name,
        "setting": setting_label(result),
        "created": result.created,
        "seed": result.seed,
        "content": content_of(result),
        "computed": "",
    }
    return [
        shared
        | {
            "score": score.name,
            "value": score.value,
            "low": score.ci_low,
            "high": score.ci_high,
            "n": score.n,
            "kind": score.kind if score.kind in KINDS else "",
            **_samples(result, score.name),
        }
        for score in main_scores(result)
        if 0 <= score.value <= 1 and math.isfinite(score.ci_low) and math.isfinite(score.ci_high)
    ]


def _series(model: ModelInfo) -> str:
    """The training that the model is a step of: its name without the step."""
    return "" if model.step is None else model.id.removesuffix(f"@{model.step}")


def _px(result: Result) -> int:
    size = result.model.img_size or result.model.input.get("input_size")
    side = size[1] if isinstance(size, list | tuple) and len(size) > 1 else size
    return side if type(side) is int and 0 < side < 2**31 else 0


def _samples(result: Result, name: str) -> dict[str, Any]:
    """What the score rests on. Of a foreign file that holds it in no form of ours, nothing."""
    found = measured(result, name)
    if found is None or not _sound(found):
        return {"unit": "", "of": 0, "samples": b"", "without": b"", "draw": ""}
    return {
        "unit": found.unit, "n": found.n, "of": found.of, "samples": found.packed,
        "without": np.array(found.without, "<f8").tobytes(),
        "draw": json.dumps(dataclasses.asdict(found.draw)) if found.draw else "",
    }  # fmt: skip


def _sound(found: Measured) -> bool:
    """Whether estimates can be made of it, with the memory and the time that a page has."""
    if found.unit == "resample":
        values = np.frombuffer(found.packed, RESAMPLED)
        return bool(((values >= 0) & (values <= 1) | np.isnan(values)).all())
    shares = np.array(found.without)
    sizes = found.draw.class_images if found.draw else ()
    return (
        found.n > 0 and found.of > 0 and len(found.packed) == (found.n * found.of + 7) // 8
        and len(shares) != 1 and bool(((shares >= 0) & (shares <= 1)).all())
        and max(sizes, default=0) <= MOST_OF_A_CLASS and sum(sizes) <= MOST_IMAGES
    )  # fmt: skip


def held(scores: pd.DataFrame, places: Iterable[int]) -> list[Measured | None]:
    """What the scores in these rows rest on; None where that is not known."""
    columns = [
        scores[name].to_numpy()
        for name in ("value", "unit", "n", "of", "samples", "without", "draw")
    ]
    found: list[Measured | None] = []
    for place in places:
        value, unit, n, of, samples, without, draw = (column[place] for column in columns)
        found.append(
            Measured(float(value), str(unit), int(n), int(of), bytes(samples), _numbers(without),
                     _draw(str(draw)))
            if unit else None
        )  # fmt: skip
    return found


@lru_cache(maxsize=256)
def _draw(text: str) -> Draw | None:
    if not text:
        return None
    facts = json.loads(text)
    return Draw(**facts | {"class_images": tuple(facts["class_images"])})


def _numbers(values: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(values, "<f8").tolist())


def computed(scores: pd.DataFrame, signed: SignOffs | None) -> pd.DataFrame:
    """The scores with who computed each; ``signed`` None: nobody asks."""
    if signed is None:
        said = pd.Series("", scores.index, dtype="str")
    else:
        texts = {content: off.text for content, off in signed.items()}
        said = scores["content"].map(lambda content: texts.get(content, SELF_REPORTED))
    return scores.assign(computed=said.astype("str"))


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
