"""Boards as text: Markdown for a file, columns that fit the screen for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from eval.common.fitted_table import fits, fitted_table, legend, wrapped
from eval.common.text import text_table
from eval.metrics.estimates import KINDS
from eval.metrics.ties import ties
from eval.results.leaderboard import Table, grid, score_title
from eval.results.model_names import distinct_names, short
from eval.results.transfer import NOT_DECLARED, NOT_LISTED, SIGN

TIES = (
    "Tie group: paired tests cannot tell its models from the best of them. Place: where a model "
    "could stand. All such statements of a board hold together with 95 %."
)
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
    told = notes(found, names)
    return "\n".join([*out, *(wrapped(n, width, "  ") if width else n for n in told)])


def _short_names(found: Sequence[Table], width: int) -> tuple[dict[str, str], dict[str, str]]:
    """Of models, and of the tasks that leave a model no room: each takes half of the width."""
    half = (width - 2) // 2
    models: dict[str, str] = {}  # with their objectives
    for table in found:
        for r, model in enumerate(table.models):
            models.setdefault(model, table.facts[r].objective if table.facts else "")
    tasks = list(dict.fromkeys(name for t in found for name in t.tasks))
    return (
        distinct_names(list(models), min(half, _LONGEST), list(models.values())),
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


def chances(found: Sequence[Table]) -> list[str]:
    """Of which chance each board's intervals speak."""
    protocols: dict[str, dict[str, None]] = {}
    for table in found:
        for kind in table.kinds:
            protocols.setdefault(kind, {})[table.protocol] = None
    return [
        f"± of {', '.join(names)}: 95 % over {KINDS[kind]}."
        + (" † from an earlier version, which says nothing of other images." * (kind == "episodes"))
        for kind, names in protocols.items()
        if kind in KINDS
    ]


def ahead(table: Table, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Whether the first of a board is better than the second, on these tasks and, from five on,
    on others like them; '' where nothing can be told or there is one task alone. ``names`` are
    those by which the models are called."""
    if table.standing is None or len(table.models) < 2 or len(table.common) < 2:
        return ""
    rows, found = table.standing
    if len(rows) < 2:
        return ""
    leading = set(table.leading)
    order = [i for i in np.argsort(-found.values, kind="stable") if int(rows[i]) in leading][:2]
    if len(order) < 2:
        return ""
    a, b = (int(rows[i]) for i in order)
    first, second = (names.get(table.models[row], table.models[row]) for row in (a, b))
    gap, _ = found.difference(int(order[0]), int(order[1]))
    told = ties(found).better[order[0], order[1]]
    text = (
        f"{table.protocol}, {score_title(table.score)}: {first} is "
        f"{100 * gap.value:.1f} ±{50 * (gap.high - gap.low):.1f} points before {second} "
        f"on these {len(table.common)} tasks, {'decided' if told else 'not decided'}"
    )
    sample = table.over_tasks(a, b)
    if sample is not None:
        text += (
            f"; with the tasks as a sample of tasks {100 * sample.value:.1f} "
            f"±{50 * (sample.high - sample.low):.1f}"
        )
    return text + "."


def marks(found: Sequence[Table]) -> list[str]:
    """What the rows' marks mean, and by whom and when the verified were computed again."""
    if not any(table.marked for table in found):
        return []
    offs = [off for table in found for off in table.signed.values()]
    names = sorted({off.by for off in offs})
    text = "Self-reported: as its author computed it."
    if offs:
        first, last = min(off.when for off in offs), max(off.when for off in offs)
        days = dict.fromkeys(f"{day:%Y-%m-%d}" for day in (first, last))
        text += (
            f" Verified: computed again by {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            + f" ({' to '.join(days)}); these rows stand first."
        )
    return [text]


def apart(found: Sequence[Table], names: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What is no transfer on the boards, and of which models nobody can tell."""
    whole: dict[str, None] = {}
    single: dict[str, dict[str, None]] = {}
    open_rows: dict[str, dict[str, None]] = {NOT_DECLARED: {}, NOT_LISTED: {}}
    for table in found:
        whole |= dict.fromkeys(table.tasks[c] for c in table.apart)
        for (r, c), why in table.seen.items():
            if c not in table.apart:
                name = names.get(table.models[r], table.models[r])
                single.setdefault(f"{name} ({why})", {})[table.tasks[c]] = None
        for r in range(len(table.models)) if table.facts else ():
            if (said := table.trained_on(r)) in open_rows:
                open_rows[said][names.get(table.models[r], table.models[r])] = None
    told = []
    if whole:
        told.append(
            f"{SIGN} no transfer: {_few(whole)} {'holds' if len(whole) == 1 else 'hold'} images "
            "that models here were pretrained on; shown apart, in no mean, rank or tie group."
        )
    told += [
        f"{SIGN} no transfer: {model}; its score on {_few(tasks)} counts nowhere."
        for model, tasks in list(single.items())[:5]
    ]
    if models := open_rows[NOT_DECLARED]:
        told.append(
            f"Training data not declared: {_few(models)}. Nothing says that these sets were new to "
            f"{'it' if len(models) == 1 else 'them'}."
        )
    if models := open_rows[NOT_LISTED]:
        told.append(
            f"Trained on images that were never listed: {_few(models)}. Any of these sets may be "
            "among them."
        )
    return told


def _few(names: Mapping[str, None], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def notes(found: Sequence[Table], names: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What readers of the boards must know, a line each. ``names`` as for `ahead`."""
    told = [*chances(found), *(line for table in found if (line := ahead(table, names)))]
    if any(table.ties for table in found if len(table.models) > 1):
        told.append(TIES)
    told += dict.fromkeys(table.about for table in found if table.about)
    told += marks(found)
    told += apart(found, names)
    if any(any(t.subsets) for t in found):
        told.append("* a subset of the data set: not comparable to published numbers.")
    return told
