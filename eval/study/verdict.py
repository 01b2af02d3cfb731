"""What a study's results say of each contrast of its plan, and how sure that is.

Two chances count: other samples of the test images and other trainings (`eval.metrics.contrasts`).
How much trainings differ is pooled over the arms of a budget; what the few trainings of a contrast
say of it alone is tested beside it. A contrast is tested at a budget once all trainings that the
plan has for it are there, and not before: a look after every training would find something sooner
or later. Holm's correction runs over all contrasts and budgets that the plan has for a score, those
that are not trained yet among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.metrics.contrasts import Repeated, Spread, combined, pooled_spread
from eval.metrics.estimates import Estimates, Floats
from eval.metrics.ranks import holm
from eval.results.estimates import Measured, comparable
from eval.study.table import Budget, Checkpoint, PlannedContrast, Question, StudyTable

LEVEL = 0.05
EQUAL = 0.005  # within half a point of 0, as plans have it
HELPS, HURTS, SAME, OPEN = "helps", "hurts", "equal", "undecided"
APART = "not trained yet"  # no seed and data set that all arms have
EARLY = "not tested yet"  # some of its trainings are not there


@dataclass(frozen=True)
class ContrastAt:
    """A contrast at one budget by one score."""

    score: str  # the question's title
    contrast: str
    prediction: str
    epochs: int
    planned: int  # trainings
    tasks: tuple[str, ...]  # on which all its checkpoints were scored
    found: Repeated | None  # None before all arms have a training in common
    p: float = 1.0  # after Holm's correction
    p_alone: float = 1.0  # the same by the spread of its own trainings alone
    level: float = LEVEL  # of one test among all: the strictest step of that correction

    @property
    def trainings(self) -> int:
        """Seeds with which all its arms were trained."""
        return len(self.found.by_training) if self.found else 0

    @property
    def is_tested(self) -> bool:
        """Whether all trainings that the plan has for it are there."""
        return self.trainings == self.planned

    @property
    def word(self) -> str:
        """'helps' or 'hurts' where 0 is excluded after the correction; 'equal' where the interval
        over both chances at the corrected level lies within half a point of 0."""
        if self.found is None:
            return APART
        if not self.is_tested:
            return EARLY
        if self.p < LEVEL:
            return HELPS if self.found.value > 0 else HURTS
        wide = self.found.over_both(self.level)
        if wide is not None and wide.low >= -EQUAL and wide.high <= EQUAL:
            return SAME
        return OPEN

    @property
    def by_pooling_alone(self) -> bool:
        """Whether it is decided by the pooled spread, and not by its own trainings."""
        return self.p < LEVEL <= self.p_alone

    @property
    def told(self) -> str:
        """The word, with what it rests on."""
        return f"{self.word} (pooled only)" if self.by_pooling_alone else self.word

    @property
    def needed(self) -> int | None:
        """About how many trainings would decide it; None where that is unknown or none would."""
        if self.word != OPEN or self.found is None:
            return None
        return self.found.trainings_needed(self.level)


@dataclass(frozen=True)
class ArmAt:
    """An arm at one budget by one score: the mean over data sets and trainings."""

    score: str
    arm: str
    epochs: int
    tasks: tuple[str, ...]
    found: Repeated | None


@dataclass(frozen=True)
class Verdict:
    """All that the plan asks for, in its order: score by score, contrast by contrast, by budget."""

    table: StudyTable
    tested: tuple[ContrastAt, ...]
    arms: tuple[ArmAt, ...]
    # {(score, epochs): how much one training of an arm differs from another}, where that is known
    spreads: Mapping[tuple[str, int], Spread]


def verdict(table: StudyTable) -> Verdict:
    """Test every contrast of the plan at every budget by every score."""
    plan = table.plan
    tested: list[ContrastAt] = []
    arms: list[ArmAt] = []
    spreads: dict[tuple[str, int], Spread] = {}
    for asked in plan.questions:
        boards = {b: _boards(asked, b, table.scores.get(asked.score, {})) for b in plan.budgets}
        some = [_tested(asked, c, b, boards[b]) for c in plan.contrasts for b in plan.budgets_of(c)]
        whole = [one.found if one.is_tested else None for one in some]
        corrected = holm([found.p() if found else 1.0 for found in whole])
        alone = holm([found.alone.p() if found else 1.0 for found in whole])
        level = LEVEL / max(1, len(some))
        tested += [
            replace(one, p=p, p_alone=own, level=level)
            for one, p, own in zip(some, corrected, alone, strict=True)
        ]
        for budget, board in boards.items():
            if spread := _spread(budget, board, _common(board)):
                spreads[asked.title, budget.epochs] = spread
        common = {budget: _common(board) for budget, board in boards.items()}
        for arm in plan.arms:
            for budget in plan.budgets:
                tasks, repeated = _repeated([arm.name], np.ones(1), budget, common[budget])
                arms.append(ArmAt(asked.title, arm.name, budget.epochs, tasks, repeated))
    return Verdict(table, tuple(tested), tuple(arms), spreads)


# {task: (row of each checkpoint, the estimates of all that were asked the same)}
_Boards = Mapping[str, tuple[Mapping[Checkpoint, int], Estimates]]


def _boards(
    asked: Question, budget: Budget, found: Mapping[Checkpoint, Mapping[str, Measured]]
) -> _Boards:
    """Each data set's estimates, once for all checkpoints of a budget."""
    mine = [c for c in found if c.epochs == budget.epochs and c.seed in budget.seeds]
    boards: dict[str, tuple[Mapping[Checkpoint, int], Estimates]] = {}
    for task in asked.tasks:
        told = comparable({i: found[c].get(task) for i, c in enumerate(mine)})
        if told is not None:
            rows, known = told
            boards[task] = {mine[row]: at for at, row in enumerate(rows)}, known
    return boards


def _common(boards: _Boards) -> _Boards:
    """The data sets on which every checkpoint that has any was scored; all where there is none."""
    everyone = {checkpoint for rows, _ in boards.values() for checkpoint in rows}
    return {t: board for t, board in boards.items() if everyone <= set(board[0])} or boards


def _tested(
    asked: Question, planned: PlannedContrast, budget: Budget, boards: _Boards
) -> ContrastAt:
    factors = np.array(list(planned.arms.values()), np.float64)
    tasks, repeated = _repeated(list(planned.arms), factors, budget, boards)
    return ContrastAt(
        asked.title, planned.name, planned.prediction, budget.epochs, len(budget.seeds), tasks,
        repeated,
    )  # fmt: skip


def _repeated(
    arms: Sequence[str], factors: Floats, budget: Budget, boards: _Boards
) -> tuple[tuple[str, ...], Repeated | None]:
    """(data sets, the arms' scores summed by factors) of the seeds with which all were trained."""
    wanted = ([Checkpoint(arm, seed, budget.epochs) for arm in arms] for seed in budget.seeds)
    models = [
        c for one in wanted if any(set(one) <= set(rows) for rows, _ in boards.values())
        for c in one
    ]  # fmt: skip
    sets = {
        task: known.of(np.array([rows[c] for c in models], np.int64))
        for task, (rows, known) in boards.items()
        if models and all(c in rows for c in models)
    }
    if not sets:
        return (), None
    return tuple(sets), combined(list(sets.values()), factors, _spread(budget, boards, sets))


def _spread(budget: Budget, boards: _Boards, tasks: Iterable[str]) -> Spread | None:
    """How much the trainings of one arm differ, from all arms of a budget that have these sets."""
    parts = [boards[task] for task in tasks]
    if not parts:
        return None
    trained = set[Checkpoint].intersection(*(set(rows) for rows, _ in parts))
    arms = sorted({c.arm for c in trained})
    scores = np.full((len(arms), len(budget.seeds)), np.nan)
    for c in trained:
        at = arms.index(c.arm), budget.seeds.index(c.seed)
        scores[at] = np.mean([known.values[rows[c]] for rows, known in parts])
    return pooled_spread(scores)
