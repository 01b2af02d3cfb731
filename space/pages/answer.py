"""An answer of the few-shot demo as HTML: the models' standing, and one model's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.results.facts import facts_named
from space.demo.choice import Ranked
from space.demo.kept import Kept
from space.markup import breakable, mark, picture, safe

if TYPE_CHECKING:
    from space.demo.classify import QueryAnswer

SHOWN = 5  # classes of a prediction, the most probable ones


# The table's columns with their CSS classes; those of leave-one-out are there where it is possible.
_MEASURED = (("right when left out", ""), ("95 % over other pictures of the kind", "span"))
_ALWAYS = (("LogME", "number"), ("parameters", "number"), ("seconds", "number seconds"))


def ranks(kept: Kept) -> str:
    """The models, best first, each with the pictures it told and what that says of others."""
    measured = kept.choice.rows[0].right is not None
    columns = [("place", "number")] * measured + [("model", "")]
    columns += [*(_MEASURED if measured else ()), *_ALWAYS]
    head = "".join(f'<th scope="col" class="{css}">{name}</th>' for name, css in columns)
    rows = "".join(_rank(kept, row, measured) for row in kept.choice.rows)
    return (
        '<table class="ranks"><caption class="unseen">Models on your pictures, best first'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _rank(kept: Kept, row: Ranked, measured: bool) -> str:
    name = (
        f"{mark(facts_named(row.model).objective)}<span>{breakable(kept.names[row.model])}</span>"
    )
    taken = row.model == kept.choice.taken
    badge = ' <span class="badge">take this</span>' if taken and len(kept.choice.rows) > 1 else ""
    cells = [f'<td><span class="model">{name}{badge}</span></td>']
    if measured:
        cells.insert(0, f'<td class="number">{row.places}</td>')
        cells += [f"<td>{row.right} of {row.n}</td>", f'<td class="span">{_range(row)}</td>']
    cells += [
        f'<td class="number">{row.log_me:.2f}</td>',
        f'<td class="number">{row.params / 1e6:.1f} M</td>',
        f'<td class="number seconds">{kept.seconds[row.model]:.2f}</td>',
    ]
    return f'<tr class="{"taken" if taken else ""}">{"".join(cells)}</tr>'


def _range(row: Ranked) -> str:
    """The interval on a line from nothing to all, in words for a screen reader."""
    if row.right is None or row.low is None or row.high is None:
        return ""
    low, high = 100 * row.low, 100 * row.high
    told = f"{low:.0f} to {high:.0f} %"
    return (
        f'<div class="range" role="img" aria-label="{told}" title="{told}">'
        f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{100 * row.right / row.n:.1f}%"></b></div>'
    )


def predictions(kept: Kept, model: str) -> str:
    """What one model says of each picture to recognise, and the given pictures nearest to it."""
    if not kept.queries:
        return ""
    shown = kept.answers.get(model) or kept.answers[kept.choice.taken]
    items = "".join(_prediction(kept, i, query) for i, query in enumerate(shown))
    return f'<ol class="queries">{items}</ol>'


def _prediction(kept: Kept, place: int, query: QueryAnswer) -> str:
    name, thumb = kept.queries[place]
    lines = "".join(
        f'<dt class="{"best" if not i else ""}">{safe(label)}</dt>'
        f'<dd class="track" aria-hidden="true"><i style="width:{100 * p:.1f}%"></i></dd>'
        f'<dd class="number">{100 * p:.0f} %</dd>'
        for i, (label, p) in enumerate(query.classes[:SHOWN])
    )
    near = "".join(
        f"<figure>{picture(kept.near[n.label, n.index], f'a picture of {n.label}')}"
        f"<figcaption>{safe(n.label)} {n.similarity:.2f}</figcaption></figure>"
        for n in query.neighbours
    )
    return (
        f'<li>{picture(thumb, name)}<dl class="chances">{lines}</dl>'
        f'<div class="near"><span>most alike:</span>{near}</div></li>'
    )
