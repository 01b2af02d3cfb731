"""How figures look: colours, symbols, letters and places of labels.

Colours and symbols belong to objectives and never change between figures. Backgrounds are
transparent and lines half so, for light and dark pages alike; `CSS` gives letters the page's own
colour. Foreign names pass through `text`: plotly reads HTML and LaTeX in whatever it writes.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from space.labels import shown_objective

# Gradio hands figures to plotly as they are, on a light page and on a dark one.
CSS = """
.js-plotly-plot :is(.xtick, .ytick, .xtitle, .ytitle, .legendtext, .annotation-text) {
  fill: var(--body-text-color) !important; }
.js-plotly-plot :is(.xaxislayer-above, .yaxislayer-above, .textpoint) text {
  fill: var(--body-text-color) !important; }
.js-plotly-plot .modebar-container { display: none; }
"""
LETTERS = "#7b818a"  # readable on white and on black, where CSS is not at hand
LINE, STRONG_LINE = "rgba(128,128,128,0.25)", "rgba(128,128,128,0.9)"


@dataclass(frozen=True)
class Look:
    """Okabe and Ito's colours, and a second cue beside them."""

    colour: str
    symbol: str
    dash: str


LOOKS = {
    "ce": Look("#0072B2", "circle", "solid"),
    "ce-strong": Look("#56B4E9", "square", "dash"),
    "selfsupcon": Look("#E69F00", "triangle-up", "dot"),
    "supcon": Look("#009E73", "diamond", "dashdot"),
    "ce+selfsupcon": Look("#D55E00", "star", "solid"),
    "supcon+selfsupcon": Look("#CC79A7", "cross", "longdash"),
    "ce-mlp": Look("#8A63B8", "triangle-down", "dash"),
    "ce-mlp+selfsupcon": Look("#A0623C", "pentagon", "dashdot"),
    "untrained": Look("#8c8c8c", "x", "dot"),
}
OTHER = Look("#8c8c8c", "hexagon", "longdashdot")
UNDECIDED = "#8c8c8c"


def look(objective: str) -> Look:
    """That of the same terms, however they are weighted."""
    return LOOKS.get(re.sub(r"[\d.]+\*", "", objective), OTHER)


def text(name: object, most: int = 0) -> str:
    """A foreign name that plotly writes as it is, cut in the middle to ``most`` characters (0: not
    at all): long names often differ at their end."""
    plain = "".join(c if c.isprintable() else " " for c in str(name))
    plain = shortened(" ".join(plain.split()), most)
    return html.escape(plain, quote=False).replace("$", "&#36;")


AXIS = 30  # letters of a line of an axis's title: what a phone's drawing has room for


def shortened(plain: str, most: int) -> str:
    """Cut in the middle to ``most`` characters (0: not at all)."""
    if not most or len(plain) <= most:
        return plain
    return plain[: (most - 1) // 2] + "…" + plain[len(plain) - most // 2 :]


def told(*lines: str, wide: int = 40) -> str:
    """A text of foreign lines, broken where a phone's screen ends: behind ``wide`` letters."""
    wrap = textwrap.TextWrapper(wide, break_on_hyphens=False).wrap
    short = (piece for line in lines for piece in wrap(line) or [""])
    return "<br>".join(text(piece) for piece in short)


def empty(sentence: str) -> go.Figure:
    """What to do, in the middle of nothing."""
    lines = told(sentence).count("<br>") + 1
    figure = bare_figure(max(160, 60 + 22 * lines))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=told(sentence), x=0.5, y=0.5, xref="paper", yref="paper",
        showarrow=False, font={"size": 15}, align="center",
    )  # fmt: skip
    return figure


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """(values, letters) for a log axis between two powers of ten: few enough for a phone."""
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        values = [step * 10.0**power for power in range(-4, 13) for step in steps]
        found = [value for value in values if low <= math.log10(value) <= high]
        if len(found) >= 3:
            break
    return found, [count(value) for value in found]


def count(value: float) -> str:
    """A large number in few letters: ``2.8M``."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def by_model(
    frame: pd.DataFrame, by: list[str]
) -> Iterable[tuple[tuple[Any, pd.DataFrame], str, Look]]:
    """Each model's rows with its name in the legend and its look; the second model of one objective
    gets another symbol and dash."""
    seen: dict[str, int] = {}
    groups = list(frame.groupby(by, sort=False))
    heads = pd.DataFrame([rows.iloc[0] for _, rows in groups])
    for group, name in zip(groups, short_names(heads), strict=True):
        objective = str(group[1]["objective"].iloc[0])
        style, again = look(objective), seen.get(objective, 0)
        seen[objective] = again + 1
        if again:
            symbols, dashes = [k.symbol for k in LOOKS.values()], ["dash", "dot", "dashdot"]
            place = symbols.index(style.symbol) if style.symbol in symbols else 0
            other = symbols[(place + again) % len(symbols)]
            style = Look(style.colour, other, dashes[again % len(dashes)])
        yield group, text(name, 34), style


def short_names(frame: pd.DataFrame) -> list[str]:
    """The objective where it tells the models apart, else the model's name without its kind; that
    of a network that was never trained says so."""
    objectives = frame["objective"]
    alone = (objectives != "") & (objectives != "untrained") & ~objectives.duplicated(keep=False)
    return [
        shown_objective(str(objective))
        if single
        else ("untrained " if objective == "untrained" else "")
        + re.sub(r"^[\w-]+:", "", str(model))
        for objective, model, single in zip(objectives, frame["model"], alone, strict=True)
    ]


def faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def bare_figure(height: int) -> go.Figure:
    """Nothing but the manner: transparent, as wide as the page, no buttons, scrolls under a
    finger."""
    figure = go.Figure()
    axis = {
        "gridcolor": LINE, "linecolor": LINE, "zeroline": False, "fixedrange": True,
        "automargin": True, "tickfont": {"size": 12}, "title_font": {"size": 13},
    }  # fmt: skip
    figure.update_layout(
        template="none", autosize=True, height=height, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", dragmode=False, hovermode="closest",
        font={"color": LETTERS, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": 8, "r": 12, "t": 16, "b": 8}, xaxis=axis, yaxis=axis,
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0,
                "xref": "container", "xanchor": "left", "itemsizing": "constant",
                "tracegroupgap": 0,
                "font": {"size": 12}},
        hoverlabel={"align": "left", "bgcolor": "#1f2937", "bordercolor": "#9ca3af",
                    "font": {"color": "#ffffff", "size": 13}},
        modebar={"remove": ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale",
                            "resetscale", "toimage"]},
    )  # fmt: skip
    return figure
