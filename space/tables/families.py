"""Models that differ in their pretraining objective alone: what the study compares."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import dropwhile

import pandas as pd

from eval.models.objectives import STUDY, TERMS
from space.tables.matrix import Grid


@dataclass(frozen=True)
class Family:
    """``members`` are rows of ``grid.models`` by objective, in the order of the study's tables."""

    architecture: str
    data: str  # what they were pretrained on, with all else that a name says of their making
    px: int
    maker: str  # '' for the zoo's own, else where they come from: hf-hub:org
    members: dict[str, int]

    @property
    def label(self) -> str:
        """``resnet18_narrow, tin100, 64 px``; foreign text, not escaped."""
        parts = [self.architecture, self.data, f"{self.px} px" if self.px else "", self.maker]
        return ", ".join(part for part in parts if part)

    def pairs(self, wanted: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Those of ``wanted`` that have both models here."""
        return [(a, b) for a, b in wanted if a in self.members and b in self.members]


def families(grid: Grid) -> list[Family]:
    """Those with most objectives first; of several models of one objective the newest counts.

    A model whose name tells no objective is in none. Models of another maker are another family,
    so that nobody's upload takes the place of the zoo's own.
    """
    models = grid.models
    created = [_newest(grid, row) for row in range(len(models))]
    found: dict[tuple[str, str, int, str], dict[str, int]] = {}
    for row in sorted(range(len(models)), key=lambda r: (created[r], r)):
        about = models.iloc[row]
        if not about["objective"]:
            continue
        making = _making(about)
        key = (str(about["architecture"]), making, int(about["px"]), _maker(str(about["id"])))
        found.setdefault(key, {})[str(about["objective"])] = row  # a newer one takes its place
    out = [
        Family(*key, {name: members[name] for name in sorted(members, key=study_place)})
        for key, members in found.items()
    ]
    return sorted(out, key=lambda f: (-len(f.members), bool(f.maker), f.label))


def study_place(objective: str) -> tuple[int, str]:
    """Sorts objectives as the study's tables do, others behind."""
    return (STUDY.index(objective) if objective in STUDY else len(STUDY)), objective


def _newest(grid: Grid, row: int) -> str:
    """When the model's newest result was made."""
    places = grid.row[row]
    return str(max(grid.scores["created"].to_numpy()[places[places >= 0]], default=""))


def _making(about: pd.Series) -> str:
    """The name's tag without the objective: ``tin100``, or ``long_tin100`` of another recipe."""
    tag = str(about["id"]).rpartition("/")[2].rpartition(".")[2]
    if not about["data"]:
        return ""
    return "_".join(dropwhile(lambda word: word in TERMS, tag.split("_")))


def _maker(name: str) -> str:
    kind, _, rest = name.partition(":")
    owner = rest.rpartition("/")[0]
    if kind in ("zoo", "random") or owner == "transferzoo":
        return ""
    return f"{kind}:{owner}" if owner else kind if rest else ""
