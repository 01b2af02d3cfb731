"""Two models on every leaderboard that both are on."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from eval.common.errors import BadInput, NotFound, did_you_mean
from space.tables.matrix import Key, grid, keys
from space.tables.objectives import differences, pair_tasks, summary


@dataclass(frozen=True, eq=False)
class Match:
    """``frame`` is `differences` of a and b on one leaderboard, over all tasks of transfer that
    both have there; ``apart`` of those on images that one of them was pretrained on."""

    key: Key
    frame: pd.DataFrame
    apart: pd.DataFrame
    sentence: str

    @property
    def better(self) -> int:
        """Data sets on which a is better, as the paired tests say."""
        return int((self.frame["verdict"] == "better").sum())

    @property
    def worse(self) -> int:
        return int((self.frame["verdict"] == "worse").sum())

    @property
    def undecided(self) -> int:
        return len(self.frame) - self.better - self.worse


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models by name, and how they did. Names are foreign text, not escaped."""

    a: str
    b: str
    matches: tuple[Match, ...]

    @property
    def totals(self) -> tuple[int, int, int]:
        """Data sets on which a is better, worse, undecided, summed over the leaderboards."""
        counts = [(m.better, m.worse, m.undecided) for m in self.matches]
        better, worse, undecided = (sum(c) for c in zip(*counts, strict=True))
        return better, worse, undecided

    @property
    def sentence(self) -> str:
        better, worse, undecided = self.totals
        boards = f"{len(self.matches)} leaderboard{'s' if len(self.matches) > 1 else ''}"
        return (
            f"Over {boards} {self.a} is better than {self.b} {better} times, worse {worse} times, "
            f"and {undecided} times undecided; a data set counts once on each."
        )


def models(scores: pd.DataFrame) -> pd.DataFrame:
    """name, model, revision, objective, architecture, making: every model there is, by name.
    ``name`` has the revision where the model's own name is not enough."""
    found = scores.sort_values("created", kind="stable").drop_duplicates(
        ["model", "revision"], keep="last"
    )[["model", "revision", "objective", "architecture", "making"]]
    short = found["model"] + "@" + found["revision"].str[:7]
    found.insert(0, "name", found["model"].where(~found["model"].duplicated(keep=False), short))
    return found.sort_values("name", kind="stable", ignore_index=True)


def find(scores: pd.DataFrame, name: str) -> tuple[str, str]:
    """(model, revision) of a name as in ``models``, a model's own name (then its newest revision),
    or that with @ and the start of a revision. Raises UserError where there is none."""
    order = scores.sort_values("created", kind="stable", ascending=False)
    for text in (name, name.rpartition("@")[0]):
        mine = order[order["model"] == text] if text else order[:0]
        if text != name:
            mine = mine[mine["revision"].str.startswith(name.rpartition("@")[2])]
        if len(mine):
            return str(mine["model"].iloc[0]), str(mine["revision"].iloc[0])
    known = list(models(scores)["name"])
    raise NotFound(
        f"no result of model {name!r} here" + did_you_mean(name, known, "choose one from the list")
    )


def compare(scores: pd.DataFrame, a: str, b: str) -> Comparison:
    """Every leaderboard on which both have a task with the same questions, in their usual order.

    Raises UserError for an unknown model, twice the same, or two that share nothing.
    """
    first, second = find(scores, a), find(scores, b)
    if first == second:
        raise BadInput(f"{a!r} and {b!r} are the same model; choose two")
    label_a, label_b = first[0], second[0]
    if label_a == label_b:
        label_a, label_b = (f"{label}@{revision[:7]}" for label, revision in (first, second))
    pairs = pd.MultiIndex.from_frame(scores[["model", "revision"]])
    part = scores[pairs.isin([first, second])]
    matches = []
    for key in keys(part):
        one = grid(part, key)
        rows = pd.MultiIndex.from_frame(one.models[["label", "revision"]])
        row_a, row_b = rows.get_indexer(pd.MultiIndex.from_tuples([first, second]))
        if row_a < 0 or row_b < 0:
            continue
        kept, others = pair_tasks(one, int(row_a), int(row_b))
        frame, apart = (differences(one, int(row_a), int(row_b), t) for t in (kept, others))
        if len(frame):
            said = summary(frame, label_a, label_b, trainings=None, apart=apart)
            matches.append(Match(key, frame, apart, f"{key.title}: {said}"))
    if not matches:
        raise BadInput(
            f"{label_a} and {label_b} share no data set with the same images, protocol, settings "
            "and seed; score both with the same command"
        )
    return Comparison(label_a, label_b, tuple(matches))
