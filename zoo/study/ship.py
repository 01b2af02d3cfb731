"""Of a study's checkpoints those that ship: of each objective the one whose budget was best.

The best by validation kNN, so that no score on a data set of the study chose what is scored on it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import BadInput, Conflict, NotFound
from eval.common.files import atomic_file, sha256_file
from zoo.checkpoint import read_checkpoint
from zoo.study.cells import Training, cells
from zoo.study.plan import Plan
from zoo.train.export import RECIPE
from zoo.train.recipe import validate

WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "config.json", RECIPE, "log.jsonl")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint with weights, and how good it is by the images it was chosen on."""

    name: str  # BACKBONE.OBJECTIVE_DATA, as folders of checkpoints are called
    cell: Training
    folder: Path
    validation_knn: float  # %
    bytes: int  # of its weights


def ship(plan: Plan, out: Path, to: Path) -> tuple[list[Candidate], list[str]]:
    """Copy the best checkpoint of each objective, of the plan's first seed, into ``to/NAME``: what
    its Hub repository holds, but for card and results. Returns these, and the arms that have no
    weights.

    Of two equally good budgets the shorter ships. Raises NotFound where no arm has weights,
    BadInput where one was not probed, and Conflict where ``to/NAME`` holds other weights; nothing
    is written then.
    """
    seed = plan.seeds[0]
    asked = [c for c in cells(plan) if isinstance(c, Training) and c.seed == seed]
    found = [_candidate(cell, out) for cell in asked if cell.trained(out)]
    if not found:
        raise NotFound(
            f"{out} has no weights of seed {seed}; `transfer-zoo study run` trains them (restored "
            "tables hold none)"
        )
    best = _best(found)
    for one in best:
        there = to / one.name / WEIGHTS
        if there.is_file() and sha256_file(there) != sha256_file(one.folder / WEIGHTS):
            raise Conflict(
                f"{there.parent} holds other weights; move it away, or give another --to"
            )
    for one in best:
        _copy(one.folder, to / one.name)
    with_weights = {one.cell.arm.name for one in found}
    return best, [arm.name for arm in plan.arms if arm.name not in with_weights]


def _candidate(cell: Training, out: Path) -> Candidate:
    folder = cell.folder(out)
    tree = tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))
    run = tree.pop("run")
    if "validation_knn_top1" not in run:
        raise BadInput(
            f"{folder / RECIPE} has no validation kNN, by which budgets are chosen; set "
            "probe.every_epochs in the plan"
        )
    recipe = validate(tree, str(folder / RECIPE))
    name = f"{recipe.backbone.name}.{cell.arm.parsed.slug}_{recipe.tag}"
    size = (folder / WEIGHTS).stat().st_size
    return Candidate(name, cell, folder, run["validation_knn_top1"], size)


def _best(found: Iterable[Candidate]) -> list[Candidate]:
    """One a name, in the order of the plan."""
    best: dict[str, Candidate] = {}
    for one in sorted(found, key=lambda c: c.cell.epochs):
        if one.name not in best or one.validation_knn > best[one.name].validation_knn:
            best[one.name] = one
    return list(best.values())


def _copy(source: Path, target: Path) -> None:
    """The weights last: a folder without them counts as none."""
    target.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        with atomic_file(target / name) as file:
            file.write((source / name).read_bytes())
    read_checkpoint(target)  # its parts belong together
