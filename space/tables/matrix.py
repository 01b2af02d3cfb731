"""One leaderboard's numbers as matrices: models x tasks, for one protocol, setting and score."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.metrics.estimates import KINDS, Estimates
from eval.protocols import PROTOCOLS
from eval.results.estimates import comparable
from eval.results.leaderboard import score_size, score_title, split_views
from eval.results.own_data import own_columns
from eval.results.signoff import SELF_REPORTED
from eval.results.transfer import Counted, counted, pretrains
from space.tables.kept import Kept, Standing, standing
from space.tables.scores import held

Floats = NDArray[np.float64]
_KIND = f"<U{max(map(len, KINDS))}"
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
            "attentive": "Attentive probe",
            "retrieval": "Retrieval",
            "multilabel": "Several labels, linear",
            "multilabel-knn": "Several labels, nearest neighbours",
            "segment": "Segmentation, linear",
            "segment-knn": "Segmentation, nearest places",
            "low-level": "Low-level targets",
            "detection": "Detection",
        }.get(self.protocol, self.protocol)
        views, rest = split_views(self.setting)
        name, setting = name + views, f" ({rest})" if rest else ""
        if shots:
            return f"{name}, {shots[1]}-shot{setting}"
        part = score_title(self.score).removeprefix("top-1")
        apart = ", " if part and not part.startswith(" ") else ""
        return f"{name}{apart}{part}{setting}"

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
    """``value``, ``low``, ``high`` are [M, T] fractions, nan where nothing was measured; ``kind``
    [M, T] says of which chance the interval speaks, empty there; ``row`` [M, T] are places in
    ``scores``, -1 there; ``computed`` [M, T] says who computed it, empty there and where nobody
    asks; ``own`` [M, T] are scores on images that the model was pretrained on."""

    key: Key
    scores: pd.DataFrame
    models: pd.DataFrame  # [M]: model (unique), id, revision, objective, architecture, params, ...
    # [T]: task (unique), title, domain, subset, own (data of somebody's own), pretrains (the zoo)
    tasks: pd.DataFrame
    value: Floats
    low: Floats
    high: Floats
    kind: NDArray[np.str_]
    row: NDArray[np.int64]
    computed: NDArray[np.str_]
    own: NDArray[np.bool_]
    _kept: dict[int, Kept | None] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """[M, T] whether a number is there."""
        return self.row >= 0

    @cached_property
    def counted(self) -> Counted:
        """Which sets and scores are of transfer, among all models here."""
        shipped = self.tasks["pretrains"].to_numpy(bool)
        return counted(self.complete, self.own & self.complete, shipped)

    def pair(self, task: int, a: int, b: int) -> Estimates | None:
        """Of two models on one task, in this order; None where they were not asked the same."""
        found = self._on(task)
        return None if found is None else found.pair(a, b)

    def standing(
        self, tasks: Sequence[int], rows: NDArray[np.int64] | None = None
    ) -> Standing | None:
        """(those of ``rows`` that were asked the same on all of ``tasks``, rising, and estimates of
        their means); ``rows`` None: all. None where there are none, or nothing can be told."""
        found = [self._on(int(t)) for t in tasks]
        told = [one for one in found if one is not None]
        if not told or len(told) < len(found):
            return None
        return standing(told, np.arange(len(self.models)) if rows is None else rows)

    def _on(self, task: int) -> Kept | None:
        """Of one task; made once, since it takes all samples of all models."""
        with self._lock:
            if task not in self._kept:
                models = np.flatnonzero(self.complete[:, task])
                known = held(self.scores, self.row[models, task])
                told = comparable(dict(zip(models.tolist(), known, strict=True)))
                self._kept[task] = None if told is None else Kept.of(*told)
            return self._kept[task]

    def only(self, rows: Sequence[int]) -> Grid:
        """Of these models alone, in this order, for estimates that need no others."""
        chosen = np.asarray(rows, np.int64)
        return Grid(
            self.key, self.scores, self.models.iloc[chosen].reset_index(drop=True), self.tasks,
            self.value[chosen], self.low[chosen], self.high[chosen], self.kind[chosen],
            self.row[chosen], self.computed[chosen], self.own[chosen],
        )  # fmt: skip


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
    kind = np.full(shape, "", _KIND)
    for matrix, column in ((value, "value"), (low, "low"), (high, "high"), (kind, "kind")):
        matrix[m, t] = mine[column].to_numpy()
    row[m, t] = scores.index.get_indexer(mine.index)
    said = np.full(shape, "", object)
    said[m, t] = mine["computed"].to_numpy(object)
    own = np.zeros(shape, bool)
    own[m, t] = (mine["seen"] != "").to_numpy()
    return Grid(
        key, scores, models, tasks, value, low, high, kind, row, said.astype(np.str_), own
    )  # fmt: skip


def _models(mine: pd.DataFrame) -> pd.DataFrame:
    """One row a (model, revision); ``model`` has the revision where the name is not enough."""
    facts = ["id", "objective", "architecture", "params", "multiply_adds", "data", "making", "said",
             "doubt", "px", "series", "step"]  # fmt: skip
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
    scored = mine[["task", "split", "model", "revision"]].itertuples(index=False, name=None)
    verified = ~mine["computed"].isin(["", SELF_REPORTED])
    own = own_columns(
        (((task, split), (model, revision)) for task, split, model, revision in scored),
        set(mine.loc[verified, "split"]),
    )
    found["own"] = [column in own for column in zip(found["name"], found["split"], strict=True)]
    found["pretrains"] = [pretrains(name) for name in found["name"]]
    return found.loc[order.sort_values(["place", "domain", "name"]).index].reset_index(drop=True)


def told_apart(names: pd.Series, more: pd.Series, mark: str, length: int) -> pd.Series:
    """The names; where one occurs twice, with as much of ``more`` as tells it from the others."""
    twice = names.duplicated(keep=False)
    out = names.where(~twice, names + mark + more.str[:length])
    while out.duplicated().any() and length < int(more.str.len().max()):
        length *= 2
        out = names.where(~twice, names + mark + more.str[:length])
    return out
