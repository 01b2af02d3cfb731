"""One leaderboard's numbers as matrices: models x tasks, for one protocol, setting and score."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.protocols import PROTOCOLS
from eval.results.leaderboard import score_size, score_title, split_views
from eval.tasks.registry import TASKS
from space.tables.scores import RESAMPLED
from space.tables.ties import Paired, Resampled, paired

Floats = NDArray[np.float64]
DOMAINS = ("natural images", "agriculture", "satellite", "medical", "texture", "symbols",
           "drawing", "art", "fine-grained")  # fmt: skip


@dataclass(frozen=True, order=True)
class Key:
    """What never shares a table: protocol, what differs from its defaults, and the score."""

    protocol: str
    setting: str
    score: str

    @property
    def text(self) -> str:
        """As in a URL."""
        return "/".join(part for part in (self.protocol, self.score, self.setting) if part)

    @property
    def title(self) -> str:
        """As in the list to choose from."""
        shots = re.fullmatch(r"top1_(\d+)shot", self.score)
        name = {
            "fewshot": "Few-shot",
            "knn": "k nearest neighbours",
            "linear": "Linear",
            "linear-sgd": "Linear (SGD, augmented)",
            "finetune": "Full transfer",
            "detection": "Detection, ",
        }.get(self.protocol, self.protocol)
        views, rest = split_views(self.setting)
        name, setting = name + views, f" ({rest})" if rest else ""
        if shots:
            return f"{name}, {shots[1]}-shot{setting}"
        part = score_title(self.score).removeprefix("top-1")
        return f"{name}{part}{setting}"

    @property
    def what(self) -> str:
        """What is scored: accuracy, or AP50."""
        title = score_title(self.score)
        return "accuracy" if "top-1" in title else title


def keys(scores: pd.DataFrame) -> list[Key]:
    """The leaderboards there are: default settings first, in the protocols' order, shots rising."""
    order = list(PROTOCOLS)
    found = scores[["protocol", "setting", "score"]].drop_duplicates()

    def place(key: Key) -> tuple[bool, int, str, float]:
        at = order.index(key.protocol) if key.protocol in order else len(order)
        return bool(key.setting), at, key.setting, score_size(key.score)

    return sorted((Key(*row) for row in found.itertuples(index=False, name=None)), key=place)


@dataclass(frozen=True, eq=False)
class Grid:
    """``value``, ``low``, ``high`` are [M, T] fractions, nan where nothing was measured; ``row``
    [M, T] are places in ``scores``, -1 there."""

    key: Key
    scores: pd.DataFrame
    models: pd.DataFrame  # [M]: model (unique), id, revision, objective, architecture, params, ...
    tasks: pd.DataFrame  # [T]: task (unique), title, domain, subset
    value: Floats
    low: Floats
    high: Floats
    row: NDArray[np.int64]
    _pairs: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """[M, T] whether a number is there."""
        return self.row >= 0

    def pairs(self, tasks: tuple[int, ...]) -> tuple[NDArray[np.int64], Paired] | None:
        """(models with samples on all of ``tasks``, their paired statistics); None without any.

        Samples of one task are of the same questions: its split hash is part of the column.
        """
        if tasks not in self._pairs:
            while len(self._pairs) >= 16:
                self._pairs.pop(next(iter(self._pairs)), None)
            self._pairs[tasks] = self._paired(list(tasks))
        return self._pairs[tasks]

    def _paired(self, columns: list[int]) -> tuple[NDArray[np.int64], Paired] | None:
        rows = np.flatnonzero(self.complete[:, columns].all(1)) if columns else np.array([], int)
        held = self.scores["samples"].to_numpy()
        kinds = list(zip(self.scores["of"], self.scores["unit"], strict=True))
        usable, texts, common_kinds = np.ones(len(rows), bool), [], []
        for t in columns:
            places = self.row[rows, t]
            # most models' number of units, answers a unit, and kind of unit: others asked otherwise
            asked = [(len(held[p]), *kinds[p], _undefined(held[p], kinds[p][1])) for p in places]
            common = Counter(kind for kind in asked if kind[0]).most_common(1)
            if not common:
                return None
            usable &= np.array([kind == common[0][0] for kind in asked])
            texts.append([held[p] for p in places])
            common_kinds.append((int(common[0][0][1]), str(common[0][0][2])))
        if not usable.any():
            return None
        rows = rows[usable]
        stacks: list[NDArray[np.uint8] | Resampled] = []
        for t, column, (of, unit) in zip(columns, texts, common_kinds, strict=True):
            text = b"".join(compress(column, usable))
            if unit == "resample":
                values = np.frombuffer(text, RESAMPLED).reshape(len(rows), -1)
                stacks.append(Resampled(self.value[rows, t], values, of))
            else:
                stacks.append(np.frombuffer(text, np.uint8).reshape(len(rows), -1))
        return rows, paired(stacks, [of for of, _ in common_kinds])


def _undefined(text: bytes, unit: str) -> bytes:
    """Which resamples leave a score undefined: the same ones for all models on the same images."""
    return np.isnan(np.frombuffer(text, RESAMPLED)).tobytes() if unit == "resample" else b""


def grid(scores: pd.DataFrame, key: Key) -> Grid:
    """The matrices of one leaderboard; of two results of one cell the newer counts."""
    mine = scores[
        (scores["protocol"] == key.protocol)
        & (scores["setting"] == key.setting)
        & (scores["score"] == key.score)
    ]
    mine = mine.sort_values("created", kind="stable").drop_duplicates(
        ["model", "revision", "task", "split"], keep="last"
    )
    models = _models(mine)
    tasks = _tasks(mine)
    m = pd.MultiIndex.from_frame(models[["label", "revision"]]).get_indexer(
        pd.MultiIndex.from_frame(mine[["model", "revision"]])
    )
    t = pd.MultiIndex.from_frame(tasks[["name", "split"]]).get_indexer(
        pd.MultiIndex.from_frame(mine[["task", "split"]])
    )
    shape = len(models), len(tasks)
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    row = np.full(shape, -1, np.int64)
    for matrix, column in ((value, "value"), (low, "low"), (high, "high")):
        matrix[m, t] = mine[column].to_numpy()
    row[m, t] = scores.index.get_indexer(mine.index)
    return Grid(key, scores, models, tasks, value, low, high, row)


def _models(mine: pd.DataFrame) -> pd.DataFrame:
    """One row a (model, revision); ``model`` has the revision where the name is not enough."""
    facts = ["id", "objective", "architecture", "params", "data", "px"]
    found = mine.drop_duplicates(["model", "revision"], keep="last")
    found = found[["model", "revision", *facts]].reset_index(drop=True)
    found = found.rename(columns={"model": "label"})
    found["model"] = told_apart(found["label"], found["revision"], "@", 7)
    return found


def _tasks(mine: pd.DataFrame) -> pd.DataFrame:
    """One row a (task, split), by domain; ``task`` says the split where the name is not enough."""
    found = mine.drop_duplicates(["task", "split"])[["task", "split", "title", "domain", "subset"]]
    found = found.rename(columns={"task": "name"}).reset_index(drop=True)
    found["task"] = told_apart(found["name"], found["split"], "~", 8)
    place = found["domain"].map(lambda d: DOMAINS.index(d) if d in DOMAINS else len(DOMAINS))
    order = pd.DataFrame({"place": place, "domain": found["domain"], "name": found["name"]})
    found["pretrains"] = [name in TASKS and TASKS[name].pretrains for name in found["name"]]
    return found.loc[order.sort_values(["place", "domain", "name"]).index].reset_index(drop=True)


def told_apart(names: pd.Series, more: pd.Series, mark: str, length: int) -> pd.Series:
    """The names; where one occurs twice, with as much of ``more`` as tells it from the others."""
    twice = names.duplicated(keep=False)
    out = names.where(~twice, names + mark + more.str[:length])
    while out.duplicated().any() and length < int(more.str.len().max()):
        length *= 2
        out = names.where(~twice, names + mark + more.str[:length])
    return out
