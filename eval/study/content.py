"""Does content go with transfer? Over the arms of a budget, whose means are what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eval.study.verdict import ArmAt, Verdict

FEWEST = 3  # arms: two always lie on a line


@dataclass(frozen=True)
class Association:
    """The correlation over arms of a content with a transfer score, at one budget.

    It is not tested, and there is no interval: arms share their terms, so they are far fewer than
    they look. A permutation test of eight such arms rejects in 19 % of worlds where what a term
    adds to content is independent of what it adds to transfer (`bench_certainty --part arms`).
    """

    content: str
    score: str
    epochs: int
    arms: tuple[str, ...]
    correlation: float


def associations(found: Verdict) -> Iterator[Association]:
    """Of every content with every transfer score at every budget that has arms enough, and where
    neither is the same for all arms."""
    plan = found.table.plan
    means: dict[tuple[str, int], dict[str, ArmAt]] = {}
    for one in found.arms:
        if one.found is not None:
            means.setdefault((one.score, one.epochs), {})[one.arm] = one
    for content in plan.content:
        for transfer in plan.transfer:
            for budget in plan.budgets:
                x = means.get((content.title, budget.epochs), {})
                y = means.get((transfer.title, budget.epochs), {})
                arms = tuple(arm for arm in x if arm in y)
                pairs = np.array([[_mean(side[arm]) for arm in arms] for side in (x, y)])
                if len(arms) < FEWEST or not np.ptp(pairs, axis=1).all():
                    continue
                r = float(np.corrcoef(pairs)[0, 1])
                yield Association(content.title, transfer.title, budget.epochs, arms, r)


def _mean(one: ArmAt) -> float:
    assert one.found is not None
    return one.found.value
