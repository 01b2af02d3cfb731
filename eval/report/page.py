"""Results and findings -> one HTML page, written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from eval.common.errors import BadInput, UserError
from eval.common.extras import require
from eval.common.files import atomic_file
from eval.report import boards, findings, forest, prose, receipts
from eval.report.blocks import Block, Section
from eval.report.gather import Gathered, gather
from eval.report.pairs import Pair, Row, compared, names
from eval.report.short_names import renamed, renaming, short_names
from eval.report.svg import inline
from eval.results.facts import facts_of
from eval.results.leaderboard import tables

TITLE = "How well do these features transfer?"
_JOINT = re.compile(r"(?<=[._:/@+])(?=[A-Za-z])")  # of a name, but not inside of a number
_LONG = re.compile(r"(?<=\S{24})(?=\S)")
OVERVIEW = (
    "The mean difference of each pair over the tasks that both have, with its 95 % interval: right "
    "of the line the first is better."
)
Say = Callable[[str], None]
DIFFERENCES = (
    "Two models on the same episodes and test images: a point is the difference of a task, a line "
    "its 95 % bootstrap interval, and a filled point is a difference that holds (paired test, "
    "p < 0.05 after Holm's correction over the tasks of a score). Differences are in points of "
    "accuracy or AP. Each model is one training, so the intervals are over images and episodes: "
    "training again could move a difference further than they say."
)


def report(places: Sequence[str], out: Path, say: Say, *, title: str = TITLE) -> int:
    """Write the page and give its size in bytes; ``say`` is told what was left out.

    Raises UserError for places without results and findings, or a file that cannot be written.
    """
    if out.suffix not in (".html", ".htm"):
        raise BadInput(f"--out {str(out)!r} must end in .html")
    if out.is_dir():
        raise BadInput(f"--out {str(out)!r} is a directory; name a file")
    require("plots", "a report")
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render(gather(places, say), say, made=made, title=title).encode("utf-8", "replace")
    try:
        with atomic_file(out) as file:
            file.write(page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    return len(page)


def render(gathered: Gathered, say: Say, *, made: str, title: str = TITLE) -> str:
    """The page; the same input gives the same text."""
    results = [r for _, r in gathered.results]
    shown = tables(results, gathered.signed)
    pairs = compared(results, say)
    called = names(pairs)
    analyses = [
        *findings.calibration(results, say),
        *findings.analyses(gathered.findings, say),
    ]
    sections = [boards.section(shown)] if shown else []
    sections += [_differences(pairs, called)] if pairs else []
    sections += [*findings.learning(results, say), *analyses]
    models = {m.id: facts_of(m).objective for m in receipts.models_of(gathered)}
    short = short_names(models)
    rename = renaming(short)
    return _template().render(
        title=title,
        made=made,
        facts=_facts(gathered),
        sources=gathered.sources,
        in_short=[rename(text) for text in prose.in_short(shown, pairs, called, analyses)],
        glossary=[*prose.glossary(results, models), *_meanings(short)],
        sections=[*(renamed(s, rename) for s in sections), receipts.section(gathered)],
    )


def _meanings(short: dict[str, str]) -> list[str]:
    """Which models the short names stand for."""
    if not short:
        return []
    return ["Models are called by their objective: " + "; ".join(
        f"{name} is {model}" for model, name in short.items()
    )]  # fmt: skip


def _facts(gathered: Gathered) -> str:
    counts = (
        (len(gathered.results), "result"),
        (len(gathered.findings), "finding"),
        (len({(m.id, m.revision) for m in receipts.models_of(gathered)}), "model"),
        (len({t.name for t in receipts.tasks_of(gathered)}), "task"),
    )
    return ", ".join(f"{n:,} {what}{'s' * (n != 1)}" for n, what in counts if n)


def _differences(pairs: Sequence[Pair], called: dict[Row, str]) -> Section:
    """A setting is a picture of its own: it seldom has the same tasks."""
    settings = dict.fromkeys(c.setting for pair in pairs for c in pair.comparisons)
    blocks = []
    for setting in sorted(settings):
        some = [part for pair in pairs if (part := pair.of(setting)).comparisons]
        title = f" ({setting})" if setting else ""
        if len(some) > 1:
            blocks.append(
                Block(
                    title=f"At a glance{title}",
                    sentence=OVERVIEW,
                    picture=inline(
                        f"overview {setting}",
                        partial(forest.overview, some, called),
                    ),
                )
            )
        blocks += [_forest(pair, called, title) for pair in some]
    return Section("differences", "What the objective changes", DIFFERENCES, tuple(blocks))


def _forest(pair: Pair, called: dict[Row, str], setting: str) -> Block:
    a, b = called[pair.a], called[pair.b]
    key = f"forest {pair.a} {pair.b} {setting}"
    return Block(
        title=f"{a} against {b}{setting}",
        sentence=prose.verdict(pair, called),
        picture=inline(key, partial(forest.figure, pair, a, b)),
        sheets=forest.numbers(pair),
    )


def _breakable(text: str) -> Markup:
    """The text, escaped, with places where a long name may go on in the next line."""
    parts = [part for word in _JOINT.split(text) for part in _LONG.split(word)]
    return Markup("<wbr>").join(map(escape, parts))


def _number(text: str) -> str:
    """A number and its interval, neither of which is broken over two lines."""
    return re.sub(r" (?=±)|(?<=\d,) (?=[-+\d.]+\])", "\u00a0", text)


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,  # names are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["number"] = _number
    return environment.get_template("page.html.jinja")
