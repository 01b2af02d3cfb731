"""Trainings that were scored on their way: the mean over data sets at each step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from space.tables.matrix import Key, grid, keys
from space.tables.means import means
from space.tables.objectives import transfer_tasks

_TYPES = {
    "series": "str", "objective": "str", "step": "int64", "tasks": "int64", "value": "float64",
    "half": "float64", "kind": "str",
}  # fmt: skip


def boards(scores: pd.DataFrame) -> list[Key]:
    """The leaderboards on which some training has two steps or more."""
    return [key for key in keys(_steps(scores)) if len(steps(scores, key))]


def steps(scores: pd.DataFrame, key: Key) -> pd.DataFrame:
    """series, objective, step, tasks, value, half, kind: a row a step of each training that has two
    or more on this board, rising.

    ``value`` is the mean over the data sets of transfer that every step of the training has, in
    fractions of one, ``half`` half of its 95 % interval and ``kind`` the chance that this speaks
    of, as on the board. A step that was read twice counts as it was read last.
    """
    found = []
    for name, mine in _steps(scores).groupby("series", sort=True):
        # a training that was begun again under its name has other weights at a step of old
        last = mine.sort_values("created", kind="stable").drop_duplicates("step", keep="last")
        mine = mine[mine["revision"].isin(last["revision"])]
        one = grid(mine, key)
        if one.models["step"].nunique() < 2:
            continue
        rows = range(len(one.models))
        tasks = [t for t in transfer_tasks(one, rows) if one.complete[:, t].all()]
        if not tasks:
            continue
        made = means(one, rows, tasks, one.standing(tasks))
        for i in np.argsort(one.models["step"].to_numpy(), kind="stable"):
            about = one.models.iloc[int(i)]
            found.append((name, about["objective"], about["step"], len(tasks), made.value[i],
                          made.half[i], str(made.kind[i])))  # fmt: skip
    return pd.DataFrame(found, columns=list(_TYPES)).astype(_TYPES)


def _steps(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["step"] >= 0).to_numpy()]
