"""Boards as text: Markdown for a file, columns that fit the screen for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eval.common.fitted_table import fits, fitted_table, legend, wrapped
from eval.common.text import text_table
from eval.results.leaderboard import Table, grid
from eval.results.model_names import distinct_names, short

_LONGEST = 44  # of a short name


def render(found: Sequence[Table], *, markdown: bool = False, width: int | None = None) -> str:
    """All boards, and below them what their readers must know.

    With a ``width`` no line of ruled columns is longer, from 40 on. Where whole names do not fit,
    models (and tasks, if need be) get short ones with a legend, models become rows if tasks were,
    and what is still too wide stands in blocks. Markdown is never fitted.
    """
    width = None if markdown else width
    tables = [text_table(*grid(table), markdown) for table in found]
    names: dict[str, str] = {}
    if width is not None and not all(fits(t, width) for t in tables):
        models, tasks = _short_names(found, width)
        names = {whole: name for whole, name in (models | tasks).items() if whole != name}
        tables = [_fitted(table, models, tasks, width) for table in found]
    out = []
    for table, text in zip(found, tables, strict=True):
        out += [wrapped(table.title, width) if width else table.title, text, ""]
    if names and width:
        out += [legend(names, width), ""]
    return "\n".join([*out, *(wrapped(n, width, "  ") if width else n for n in _notes(found))])


def _short_names(found: Sequence[Table], width: int) -> tuple[dict[str, str], dict[str, str]]:
    """Of models, and of the tasks that leave a model no room: each takes half of the width."""
    half = (width - 2) // 2
    models = list(dict.fromkeys(m for t in found for m in t.models))
    tasks = list(dict.fromkeys(name for t in found for name in t.tasks))
    return (
        distinct_names(models, min(half, _LONGEST)),
        {task: short(task, half - len("*")) for task in tasks},
    )


def _fitted(table: Table, models: dict[str, str], tasks: dict[str, str], width: int) -> str:
    named = replace(
        table,
        models=tuple(models[m] for m in table.models),
        tasks=tuple(tasks[t] for t in table.tasks),
    )
    header, lines = grid(named)
    return fitted_table(header, lines, width, "model" if header[0] == "task" else "task")


def _notes(found: Sequence[Table]) -> list[str]:
    notes = ["Intervals are 95 %: 1.96 standard errors over episodes, bootstrap over test images."]
    if any("seeds=" in t.setting for t in found):
        notes.append("Over seeds: the mean and 1.96 standard errors of it over the seeds.")
    if any(any(t.subsets) for t in found):
        notes.append("* a subset of the data set: not comparable to published numbers.")
    return notes
