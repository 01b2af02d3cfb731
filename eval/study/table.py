"""The results of a study as one Parquet file: a row a score of a checkpoint, and the plan beside.

The samples that paired tests need are in it, and the plan (as JSON, in the file's metadata), so
that everything the study says can be computed from the file alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.files import atomic_file
from eval.protocols.episodes import Draw
from eval.results.estimates import Measured, measured
from eval.results.leaderboard import score_title
from eval.results.schema import Result

if TYPE_CHECKING:
    import pyarrow

COLUMNS = {
    "arm": "string",
    "objective": "string",
    "seed": "int64",
    "epochs": "int64",
    "rate": "float64",  # for 256 images, as tuned
    "weights_sha256": "string",
    "task": "string",
    "split_hash": "string",
    "protocol": "string",
    "score": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "int64",
    "unit": "string",  # what a sample is: an image or an episode
    "of": "int64",  # answers a sample
    # a bit an answer, as numpy packs them; a byte of right answers an episode, n bytes in all, of
    # scores made before single answers were kept
    "samples": "binary",
    "without": "list",  # of the linear scores: with each group of the training images left out
    "draw": "string",  # of the few-shot scores: which images stand in which episode, as JSON
}
FILES = "*.results.parquet"
_PLAN = b"plan"  # key of the file's metadata


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Budget(_Part):
    """A length of training, and the seeds that are trained for so long."""

    epochs: int
    seeds: tuple[int, ...] = Field(min_length=1)


class Arm(_Part):
    """A way of pretraining."""

    name: str
    objective: str
    epochs: tuple[int, ...] = ()  # of which budgets; none: of all

    def has(self, budget: Budget) -> bool:
        return not self.epochs or budget.epochs in self.epochs


class PlannedContrast(_Part):
    """A difference of arms, by factors that add up to 0, and what was expected of it."""

    name: str
    arms: dict[str, float]
    prediction: str

    @field_validator("arms")
    @classmethod
    def _is_a_difference(cls, arms: dict[str, float]) -> dict[str, float]:
        if abs(sum(arms.values())) > 1e-9 or not any(arms.values()):
            raise ValueError("its factors must add up to 0")
        return arms


class Evaluation(_Part):
    """What each checkpoint is scored on."""

    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    content: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A score, and the data sets that its mean is over."""

    title: str
    score: str
    tasks: tuple[str, ...]


class StudyPlan(_Part):
    """What a verdict needs of the plan that was written before the first run."""

    name: str
    question: str
    statistics: str
    notes: tuple[str, ...] = ()  # what was changed after the first run, when and why
    evaluation: Evaluation
    budgets: tuple[Budget, ...] = Field(min_length=1)
    arms: tuple[Arm, ...] = Field(min_length=1)
    contrasts: tuple[PlannedContrast, ...]

    @model_validator(mode="after")
    def _belongs_together(self) -> StudyPlan:
        names = {arm.name for arm in self.arms}
        unknown = sorted({a for c in self.contrasts for a in c.arms} - names)
        if unknown:
            raise ValueError(f"a contrast names {unknown[0]!r}, which is not an arm")
        if len({budget.epochs for budget in self.budgets}) < len(self.budgets):
            raise ValueError("a budget is there twice")
        return self

    @property
    def transfer(self) -> tuple[Question, ...]:
        """What the study is about."""
        asked = self.evaluation
        few = [f"top1_{k}shot" for k in asked.shots]
        return (
            Question("linear top-1", "top1", asked.tasks),
            *(Question(score_title(name), name, asked.tasks) for name in few),
        )

    @property
    def content(self) -> tuple[Question, ...]:
        """What may go with it, by level."""
        levels = self.evaluation.content
        return tuple(Question(f"{k}-level content", "top1", tasks) for k, tasks in levels.items())

    @property
    def questions(self) -> tuple[Question, ...]:
        """All that is asked of every checkpoint."""
        return self.transfer + self.content

    @cached_property
    def checkpoints(self) -> frozenset[Checkpoint]:
        """Those that there are to be."""
        return frozenset(
            Checkpoint(arm.name, seed, budget.epochs)
            for budget in self.budgets for arm in self.arms if arm.has(budget)
            for seed in budget.seeds
        )  # fmt: skip

    def budgets_of(self, contrast: PlannedContrast) -> tuple[Budget, ...]:
        """Those that all of its arms are trained for."""
        arms = [arm for arm in self.arms if arm.name in contrast.arms]
        return tuple(b for b in self.budgets if all(arm.has(b) for arm in arms))


@dataclass(frozen=True)
class Checkpoint:
    """Which of a study's checkpoints."""

    arm: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class StudyTable:
    """A study's plan, and what each checkpoint scored: {score: {checkpoint: {task: measured}}}."""

    plan: StudyPlan
    scores: Mapping[str, Mapping[Checkpoint, Mapping[str, Measured]]]
    rates: Mapping[str, float]  # of each arm with a score, for 256 images
    # scores whose file says nothing of other images, as those of before single answers were kept
    without_answers: int

    @property
    def scored(self) -> int:
        """Checkpoints with any score."""
        return len({c for found in self.scores.values() for c in found})


def row(result: Result, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: a score of a result, with ``facts`` of the checkpoint by column.

    Raises KeyError where the result has no samples of such a score.
    """
    samples = result.samples[name]
    score = next(s for s in result.scores if s.name == name)
    known = measured(result, name)
    draw = known.draw if known else None
    return {
        **facts,
        "weights_sha256": result.model.weights_sha256,
        "task": result.task.name,
        "split_hash": result.task.split_hash,
        "protocol": result.protocol.name,
        "score": name,
        "value": score.value,
        "ci_low": score.ci_low,
        "ci_high": score.ci_high,
        "n": score.n,
        "unit": samples.unit,
        "of": samples.of,
        "samples": samples.packed(),
        "without": list(known.without) if known else [],
        "draw": json.dumps(dataclasses.asdict(draw)) if draw else None,
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]], plan: str) -> None:
    """Write the table atomically; ``plan`` is JSON that `StudyPlan` reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            (name, pa.list_(pa.float64()) if kind == "list" else pa.type_for_alias(kind))
            for name, kind in COLUMNS.items()
        ],
        metadata={_PLAN: plan.encode()},
    )
    table: pyarrow.Table = pa.Table.from_pylist([dict(r) for r in rows], schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def read(path: Path) -> StudyTable:
    """Raises UserError for a file that is not there or is not such a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise NotFound(
            f"{str(path)!r} is not a file; `transfer-zoo study collect` writes "
            "NAME.results.parquet, and model_cards/ has those of the shipped study"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not a Parquet file: {one_line(error)}") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    text = (table.schema.metadata or {}).get(_PLAN)
    if missing or text is None:
        lacks = f"column {missing[0]!r}" if missing else "plan"
        raise BadInput(
            f"{path} has no {lacks}; give a file that `transfer-zoo study collect` of this version "
            "wrote"
        )
    try:
        plan = StudyPlan.model_validate_json(text)
        return _table(plan, table.to_pylist())
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"{path}: its plan does not hold: {'.'.join(map(str, first['loc'])) or 'plan'}: "
            f"{first['msg'].removeprefix('Value error, ')}"
        ) from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path} has a row that does not hold: {one_line(error)}") from None


def _table(plan: StudyPlan, rows: Iterable[Mapping[str, Any]]) -> StudyTable:
    scores: dict[str, dict[Checkpoint, dict[str, Measured]]] = {}
    splits: dict[str, str] = {}
    rates: dict[str, float] = {}
    silent = 0
    for r in rows:
        if splits.setdefault(r["task"], r["split_hash"]) != r["split_hash"]:
            raise ValueError(f"checkpoints were scored on two splits of {r['task']}")
        if rates.setdefault(r["arm"], r["rate"]) != r["rate"]:
            raise ValueError(f"checkpoints of {r['arm']} were trained at two rates")
        checkpoint = Checkpoint(r["arm"], r["seed"], r["epochs"])
        if checkpoint not in plan.checkpoints:
            raise ValueError(f"its plan has no {r['arm']}, seed {r['seed']}, {r['epochs']} epochs")
        by_task = scores.setdefault(r["score"], {}).setdefault(checkpoint, {})
        draw = _draw(r["draw"])
        if r["unit"] == "episode" and draw is None:
            silent += 1
            continue
        if len(r["samples"]) != -(-r["n"] * r["of"] // 8):
            raise ValueError(f"{len(r['samples'])} bytes for {r['n']} x {r['of']} answers")
        if len(r["without"]) == 1:
            raise ValueError("one value of fits that leave a group out, of two at least")
        by_task[r["task"]] = Measured(
            r["value"], r["unit"], r["n"], r["of"], r["samples"], tuple(r["without"]), draw
        )
    return StudyTable(plan, scores, rates, silent)


def _draw(text: str | None) -> Draw | None:
    if text is None:
        return None
    facts = json.loads(text)
    return Draw(**(facts | {"class_images": tuple(facts["class_images"])}))
