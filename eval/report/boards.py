"""Boards as tables of a page: the best of each column is bold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.common.text import percent
from eval.report.blocks import Block, Section, sheet
from eval.results.board_text import TIES, apart, chances, marks
from eval.results.leaderboard import Table, grid, score_text

LEAD = (
    "Each number is a score in percent with half the width of its 95 % interval, of whose chance "
    "the notes below speak. The best of each task is bold; whether it is better than the next say "
    "the tie groups, and the paired differences below. The mean is over the tasks that all models "
    "have and none was pretrained on, and so is the mean rank (1 is best)."
)
SUBSET = "* a subset of the data set: not comparable to published numbers."


def section(tables: Sequence[Table]) -> Section:
    notes = [SUBSET] if any(any(t.subsets) for t in tables) else []
    notes += chances(tables)
    notes += marks(tables)
    notes += apart(tables)
    notes += [TIES] if any(t.ties for t in tables if len(t.models) > 1) else []
    return Section("boards", "Boards", LEAD, tuple(map(block, tables)), tuple(notes))


def block(table: Table) -> Block:
    """One board, as ``transfer-eval leaderboard`` prints it."""
    header, lines = grid(table)
    best = _best(table)
    if header[0] == "task":  # models run across the page
        marked = frozenset((c, r + 1) for r, c in best)
    else:
        marked = frozenset((r, c + 1) for r, c in best)
    shown = sheet(header, lines, bold=marked)
    return Block(title=table.title, sentence=leader(table), sheets=shown, folded=False)


def _best(table: Table) -> set[tuple[int, int]]:
    """(model, column) of what is best, as the numbers are printed: equals are both; the columns of
    the mean and the mean rank stand behind the tasks'."""
    rows = range(len(table.models))
    if len(rows) < 2:
        return set()
    columns = [
        [round(1000 * s.value) if (s := table.cells.get((r, c))) and np.isfinite(s.value) else None
         for r in rows]
        for c in table.shown_columns
    ]  # fmt: skip
    means, places = table.means(), table.mean_ranks()
    if means and places and len(table.tasks) > 1:
        columns.append([round(1000 * m.value) if np.isfinite(m.value) else None for m in means])
        columns.append([-round(100 * p) for p in places])
    best = set()
    for c, column in enumerate(columns):
        known = [v for v in column if v is not None]
        if len(known) > 1:
            best |= {(r, c) for r in rows if column[r] == max(known)}
    return best


def leader(table: Table) -> str:
    """Who is best on the mean, in words; empty for a single model."""
    means, common = table.means(), table.common
    if not means or len(table.models) < 2 or not all(np.isfinite(m.value) for m in means):
        return ""
    order = sorted(table.leading, key=lambda r: -means[r].value)
    if len(order) < 2:
        return ""
    first, second = order[:2]
    over = f"the mean of {len(common)} tasks" if len(common) > 1 else table.tasks[common[0]]
    return (
        f"Best on {over}: {table.models[first]} with {score_text(means[first])} %, before "
        f"{table.models[second]} with {score_text(means[second])} %."
    )


def short_leader(table: Table) -> str:
    """``linear, top-1: NAME 60.1 ±0.4 %``; empty where there is no best."""
    means = table.means()
    if not means or not leader(table):
        return ""
    best = max(table.leading, key=lambda r: means[r].value)
    mean = means[best]
    what = table.title.removesuffix(", %").replace(", %", "")
    count = len(table.common)
    tasks = f"{count} task{'s' * (count != 1)}"
    number = percent(mean.value, (mean.ci_high - mean.ci_low) / 2)
    return f"{what} ({tasks}): {table.models[best]} {number} %"
