"""Which models are held against which, and the paired tests of each pair."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.common.errors import UserError, one_line
from eval.models.facts import UNTRAINED
from eval.models.objectives import COMPARED
from eval.results.compare import Comparison, TaskDifference, compare
from eval.results.estimates import OLD_EPISODES
from eval.results.facts import facts_of, making, shown_objective
from eval.results.leaderboard import model_label, tables
from eval.results.schema import Result

MOST_PAIRS = 24  # of a page; each costs a second of bootstrap, and a picture


@dataclass(frozen=True)
class Row:
    """One training of a model, at one input size."""

    label: str
    revision: str
    id: str
    objective: str  # empty where none is declared
    family: str  # equal for models that differ in their objective alone, empty where unknown


@dataclass(frozen=True)
class Pair:
    """A minus B, on everything that both have."""

    a: Row
    b: Row
    comparisons: tuple[Comparison, ...]

    def of(self, setting: str) -> Pair:
        """What it says of one setting of the protocols."""
        return replace(self, comparisons=tuple(c for c in self.comparisons if c.setting == setting))

    @property
    def objectives(self) -> tuple[str, str]:
        return self.a.objective, self.b.objective


def rows_of(results: Sequence[Result]) -> list[Row]:
    return list(
        dict.fromkeys(
            Row(
                model_label(r),
                r.model.revision,
                r.model.id,
                facts_of(r.model).objective,
                f"{making(r.model)} @{r.model.img_size}px" if making(r.model) else "",
            )
            for r in results
        )
    )


def chosen(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The study's pairs of objectives among models that are otherwise alike; a model that is in
    none is held against the first."""
    found = [
        (a, b)
        for first, second in COMPARED
        for a, b in itertools.product(rows, rows)
        if (a.objective, b.objective) == (first, second) and a.family == b.family != ""
    ]
    paired = {row for pair in found for row in pair}
    return found + [(row, rows[0]) for row in rows[1:] if row not in paired]


def compared(results: Sequence[Result], say: Callable[[str], None]) -> list[Pair]:
    """Every pair that shares questions, its scores in the order of the boards."""
    rows = rows_of(results)
    order = [(t.protocol, t.setting, t.score) for t in tables(results)]
    by_row: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_row.setdefault((model_label(result), result.model.revision), []).append(result)
    pairs = chosen(rows)
    if len(pairs) > MOST_PAIRS:
        say(f"only the first {MOST_PAIRS} of {len(pairs)} pairs of models are compared")
    found = []
    for a, b in pairs[:MOST_PAIRS]:
        names = (a.label, b.label)
        if a.label == b.label:
            names = (f"{a.id}@{a.revision}", f"{b.id}@{b.revision}")
        both = [r for row in (a, b) for r in by_row[row.label, row.revision]]
        try:
            whole = compare(*names, both)
        except (UserError, ValueError, StopIteration) as error:
            say(f"no comparison of {a.label} with {b.label}: {one_line(error)}")
            continue
        comparisons = [c for one in whole if (c := _told(one)).tasks]
        everything, kept = (sum(len(c.tasks) for c in some) for some in (whole, comparisons))
        if kept < everything:
            say(
                f"{a.label} with {b.label}: no claim on {everything - kept} of {everything} "
                f"differences: {OLD_EPISODES}"
            )
        comparisons.sort(key=lambda c: order.index((c.protocol, c.setting, c.score)))
        if comparisons:
            found.append(Pair(a, b, tuple(comparisons)))
    return found


def _told(comparison: Comparison) -> Comparison:
    """Those of its tasks on which something can be claimed."""
    tasks = tuple(t for t in comparison.tasks if np.isfinite(_numbers(t)).all())
    return replace(comparison, tasks=tasks)


def _numbers(task: TaskDifference) -> list[float]:
    found = task.difference
    return [task.a, task.b, found.value, found.low, found.high, task.p_holm]


def mean_difference(comparison: Comparison) -> tuple[float, float]:
    """(mean over the tasks, half of its 95 % interval), the tasks taken as given and as
    independent, as the mean of a board."""
    found = [t.difference for t in comparison.tasks]
    half = np.sqrt(sum(((d.high - d.low) / 2) ** 2 for d in found)) / len(found)
    return float(np.mean([d.value for d in found])), float(half)


def names(pairs: Sequence[Pair]) -> dict[Row, str]:
    """What a picture calls a model: its objective where that is clear, else its whole name."""
    rows = list(dict.fromkeys(row for pair in pairs for row in (pair.a, pair.b)))
    objectives = [row.objective for row in rows]
    labels = [row.label for row in rows]
    found = {}
    for row in rows:
        if row.objective not in ("", UNTRAINED) and objectives.count(row.objective) == 1:
            found[row] = shown_objective(row.objective)
        else:
            again = labels.count(row.label) > 1
            found[row] = row.label + (f"@{row.revision[:7]}" if again else "")
    return found
