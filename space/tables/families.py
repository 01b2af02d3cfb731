"""Models that differ in their pretraining objective alone: what the study compares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from eval.models.objectives import STUDY
from space.tables.matrix import Grid


@dataclass(frozen=True)
class Family:
    """``members`` are rows of ``grid.models`` by objective, in the order of the study's tables."""

    architecture: str
    data: str  # what they were pretrained on
    making: str  # the recipe, where one is declared
    px: int
    maker: str  # '' for the zoo's own, else where they come from: hf-hub:org
    members: dict[str, int]
    trainings: dict[str, int]  # by objective: how many there are, of which the newest is a member
    alone: bool = True  # whether the label tells it from the others without its making

    @property
    def label(self) -> str:
        """``resnet18_narrow, tiny_imagenet, 64 px``; foreign text, not escaped."""
        parts = [self.architecture, self.data, f"{self.px} px" if self.px else "", self.maker,
                 "" if self.alone else self.making]  # fmt: skip
        return ", ".join(part for part in parts if part)

    def pairs(self, wanted: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Those of ``wanted`` that have both models here."""
        return [(a, b) for a, b in wanted if a in self.members and b in self.members]


def families(grid: Grid) -> list[Family]:
    """Those with most objectives first; of several models of one objective the newest counts.

    A model is in none whose author does not declare objective and making (recipe, or architecture
    and data). Models of another maker are another family, so that nobody's upload takes the place
    of the zoo's own.
    """
    models = grid.models
    created = [_newest(grid, row) for row in range(len(models))]
    found: dict[tuple[str, str, str, int, str], dict[str, int]] = {}
    counts: dict[tuple[str, str, str, int, str], Counter[str]] = {}
    for row in sorted(range(len(models)), key=lambda r: (created[r], r)):
        about = models.iloc[row]
        objective = str(about["objective"])
        if not objective or not about["making"]:
            continue
        architecture, data, making = (str(about[n]) for n in ("architecture", "data", "making"))
        key = (architecture, data, making, int(about["px"]), _maker(str(about["id"])))
        found.setdefault(key, {})[objective] = row  # a newer one takes its place
        counts.setdefault(key, Counter())[objective] += 1
    out = [
        Family(*key, {name: members[name] for name in sorted(members, key=study_place)},
               dict(counts[key]))
        for key, members in found.items()
    ]  # fmt: skip
    labels = Counter(family.label for family in out)
    out = [replace(family, alone=labels[family.label] == 1) for family in out]
    return sorted(out, key=lambda f: (-len(f.members), bool(f.maker), f.label))


def study_place(objective: str) -> tuple[int, str]:
    """Sorts objectives as the study's tables do, others behind."""
    return (STUDY.index(objective) if objective in STUDY else len(STUDY)), objective


def _newest(grid: Grid, row: int) -> str:
    """When the model's newest result was made."""
    places = grid.row[row]
    return str(max(grid.scores["created"].to_numpy()[places[places >= 0]], default=""))


def _maker(name: str) -> str:
    kind, _, rest = name.partition(":")
    owner = rest.rpartition("/")[0]
    if kind in ("zoo", "random") or owner == "transferzoo":
        return ""
    return f"{kind}:{owner}" if owner else kind if rest else ""
