"""The pages' figures, from the tables of `space.tables.objectives` and `space.tables.comparison`.

Every figure is as wide as its page, says what to do where there is nothing to show, and names
models and tasks by foreign text that `space.figures.style.text` has made harmless.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from eval.common.text import p_value
from eval.study.figure import aside
from space.figures.style import (
    AXIS,
    CSS,
    LETTERS,
    LINE,
    STRONG_LINE,
    UNDECIDED,
    Look,
    bare_figure,
    by_model,
    empty,
    faint,
    look,
    short_names,
    text,
    told,
)
from space.labels import chance
from space.tables.objectives import mean_difference

__all__ = ["CSS", "budgets", "domains", "empty", "forest", "shots", "standing", "steps"]


def forest(
    frame: pd.DataFrame, a: str, b: str, *, a_objective: str = "", b_objective: str = ""
) -> go.Figure:
    """`differences` as points with their intervals, largest on top, the mean below."""
    if not len(frame):
        return empty(
            f"{a[:60]} and {b[:60]} share no data set with the same images and settings. "
            "Score both with the same command, or choose two others."
        )
    rows = frame.sort_values(["difference", "task"], ignore_index=True)
    figure = bare_figure(160 + 27 * (len(rows) + 1 + (len(rows) > 1)))
    sides = (
        ("better", f"{text(a, 24)} better", look(a_objective)),
        ("worse", f"{text(b, 24)} better", look(b_objective)),
        ("undecided", "undecided", Look(UNDECIDED, "circle-open", "")),
    )
    for verdict, name, style in sides:
        mine = rows[rows["verdict"] == verdict]
        hollow = verdict == "undecided"
        symbol = style.symbol
        if verdict == "worse" and symbol == look(a_objective).symbol:
            symbol = "square" if symbol != "square" else "circle"
        figure.add_trace(go.Scatter(
            x=100 * mine["difference"], y=mine.index.to_numpy() + 1.0, name=name, mode="markers",
            marker={"symbol": symbol, "size": 10, "color": style.colour,
                    "line": {"color": style.colour, "width": 2 if hollow else 0}},
            error_x=_bars(mine, style.colour), hoverinfo="text",
            hovertext=[_pair(row, a, b) for row in mine.itertuples()], showlegend=True,
        ))  # fmt: skip
        if not len(mine):  # in the legend all the same: what filled and hollow mean
            figure.data[-1].update(x=[None], y=[None])
    if len(rows) > 1:
        _add_mean(figure, rows)
    ticks = [*([0.0] if len(rows) > 1 else []), *(rows.index + 1.0)]
    names = [*(["mean"] if len(rows) > 1 else []), *(text(task, 18) for task in rows["task"])]
    figure.update_yaxes(
        tickvals=ticks, ticktext=names, range=[ticks[0] - 0.7, len(rows) + 0.7], showgrid=False
    )
    low = min(100 * float(rows[["low", "difference"]].min(axis=None)), 0.0)
    high = max(100 * float(rows[["high", "difference"]].max(axis=None)), 0.0)
    room = 0.12 * (high - low) or 1.0
    figure.update_xaxes(
        title_text=_axis("difference, points", rows["kind"]), range=[low - room, high + room],
        zeroline=True, zerolinecolor=STRONG_LINE, zerolinewidth=2,
    )  # fmt: skip
    short = len(b) <= 16  # a long name runs from the right edge over the names of the data sets
    one_line = len(a) + len(b) <= 22  # what a phone's drawing has room for
    for label, x, up in (
        (f"◀ {text(b, 30)} better", 0 if short else 1, 4),
        (f"{text(a, 30)} better ▶", 1, 4 if one_line else 20),
    ):
        figure.add_annotation(
            text=label, x=x, y=1, xref="paper", yref="paper", yanchor="bottom", yshift=up,
            xanchor="right" if x else "left", showarrow=False, font={"size": 12},
        )  # fmt: skip
    figure.update_layout(margin_t=52)
    return figure


def steps(frame: pd.DataFrame, what: str = "accuracy") -> go.Figure:
    """`space.tables.series.steps` as a line with its 95 % band for each training."""
    if not len(frame):
        return empty(
            "No training has two steps that were scored alike here. Score its checkpoints: "
            "transfer-eval run 'local-dir:RUN/step-*'"
        )
    figure = bare_figure(380 + 20 * frame["series"].nunique())
    frame = frame.assign(model=frame["series"])
    for (_, mine), name, style in by_model(frame, ["series"]):
        _banded(figure, mine, mine["step"], name, style, [
            told(r.series, f"step {r.step:,}: {_percent(r.value, r.half)}, mean of {r.tasks}",
                 f"95 % over {chance([r.kind])}")
            for r in mine.itertuples()
        ])  # fmt: skip
    figure.update_xaxes(title_text="step of the training", rangemode="tozero")
    figure.update_yaxes(title_text=_axis(f"mean {what}, %", frame["kind"]))
    return figure


def budgets(frame: pd.DataFrame, score: str) -> go.Figure:
    """`space.tables.budgets.curves` as a line with its 95 % band for each way of training."""
    if not len(frame):
        return empty(
            "No checkpoint of a study is scored here. `transfer-zoo study run` makes them."
        )
    count = frame["arm"].nunique()
    figure = bare_figure(400 + 20 * count)
    named = frame.assign(model=frame["arm"])
    for i, ((_, mine), _, style) in enumerate(by_model(named, ["arm"])):
        name = text(mine["arm"].iloc[0], 34)  # as the plan and its contrasts have it
        _banded(figure, mine, aside(i, count) * mine["epochs"], name, style, [
            told(r.arm, f"{r.epochs} epochs: {_percent(r.value, r.half)}, mean of {r.tasks}",
                 f"{r.trainings} trainings; 95 % over other {r.over}")
            for r in mine.itertuples()
        ])  # fmt: skip
        if len(mine) == 1:  # a band of one point is not seen
            half = 100 * mine["half"]
            figure.data[-1].update(error_y={"array": half, "color": style.colour, "thickness": 1})
    _log_axis(figure, frame["epochs"], "epochs of pretraining")
    over = " or ".join(dict.fromkeys(frame["over"]))
    title = told(f"{score}, %", f"intervals: 95 % over other {over}", wide=AXIS)
    figure.update_yaxes(title_text=title)
    return figure


def _log_axis(figure: go.Figure, values: pd.Series, title: str) -> None:
    """The horizontal axis, with a tick at each value that there is."""
    ticks = sorted(set(values))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[str(t) for t in ticks], minor={"ticks": ""},
        title_text=f"{title} (log scale)", range=[low - 0.08, high + 0.08],
    )  # fmt: skip


def _banded(
    figure: go.Figure, mine: pd.DataFrame, x: pd.Series, name: str, style: Look, hover: list[str]
) -> None:
    """A model's line with its 95 % band; ``mine`` has value and half, in the order of ``x``."""
    y, half, group = 100 * mine["value"], 100 * mine["half"], str(len(figure.data))
    figure.add_trace(go.Scatter(
        x=[*x, *x[::-1]], y=[*(y + half), *(y - half)[::-1]], fill="toself", mode="lines",
        fillcolor=faint(style.colour), line={"width": 0}, hoverinfo="skip", showlegend=False,
        legendgroup=group,
    ))  # fmt: skip
    figure.add_trace(go.Scatter(
        x=x, y=y, name=name, mode="lines+markers", legendgroup=group,
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.symbol, "size": 9, "color": style.colour},
        hoverinfo="text", hovertext=hover,
    ))  # fmt: skip


def _add_mean(figure: go.Figure, rows: pd.DataFrame) -> None:
    mean, low, high = (100 * value for value in mean_difference(rows))
    figure.add_trace(go.Scatter(
        x=[mean], y=[0.0], name="mean", mode="markers", showlegend=False,
        marker={"symbol": "diamond-tall", "size": 13, "color": LETTERS},
        error_x={"type": "data", "array": [high - mean], "color": LETTERS, "thickness": 2,
                 "width": 5},
        hoverinfo="text",
        hovertext=told(
            f"mean over {len(rows)} data sets: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]",
            f"95 % over {chance(rows['kind'])}",
        ),
    ))  # fmt: skip
    figure.add_hline(y=0.5, line={"color": LINE, "width": 1})


def _bars(frame: pd.DataFrame, colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 4,
        "array": 100 * (frame["high"] - frame["difference"]),
        "arrayminus": 100 * (frame["difference"] - frame["low"]),
    }  # fmt: skip


def _pair(row: Any, a: str, b: str) -> str:
    p = p_value(row.p_holm)
    p = p.replace("<", "< ") if p.startswith("<") else f"= {p}"
    return told(
        f"{row.title} ({row.domain})" + (", a subset" if row.subset else ""),
        f"{a}: {100 * row.a:.1f} %",
        f"{b}: {100 * row.b:.1f} %",
        f"difference {100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
        f"95 % over {chance([row.kind])}",
        f"better on {row.wins}, worse on {row.losses} of {row.n} {row.unit}s",
        f"{row.verdict}: p {p} (Holm)",
    )


def _percent(value: float, half: float) -> str:
    return f"{100 * value:.1f} % ±{100 * half:.1f}"


def _axis(title: str, kinds: Iterable[str]) -> str:
    """The title of an axis along which intervals lie."""
    return told(title, f"intervals: 95 % over {chance(kinds)}", wide=AXIS)


def standing(frame: pd.DataFrame, title: str) -> go.Figure:
    """`detection.standing` as points with their intervals, the first on top; hollow where the test
    finds it behind the first. ``title`` is the score's."""
    if not len(frame):
        return empty("No model has this score here. Choose another score or data set.")
    count = len(frame)
    figure = bare_figure(90 + 30 * count)
    for i, (row, name) in enumerate(zip(frame.itertuples(), short_names(frame), strict=True)):
        style, behind = look(row.objective), row.verdict == "worse"
        figure.add_trace(go.Scatter(
            x=[100 * row.value], y=[count - i], name=text(name, 34), mode="markers",
            showlegend=False,
            marker={"symbol": style.symbol + ("-open" if behind else ""), "size": 11,
                    "color": style.colour, "line": {"color": style.colour, "width": 2}},
            error_x={"type": "data", "symmetric": False, "color": style.colour, "thickness": 2,
                     "width": 4, "array": [100 * (row.high - row.value)],
                     "arrayminus": [100 * (row.value - row.low)]},
            hoverinfo="text", hovertext=[
                told(row.model, f"{title} {100 * row.value:.1f} % [{100 * row.low:.1f}, "
                     f"{100 * row.high:.1f}]", f"95 % over {chance([row.kind])}",
                     {"worse": "behind the first", "tied": "not told apart from the first",
                      "": "not tested"}.get(row.verdict, row.verdict))],
        ))  # fmt: skip
    figure.add_vline(x=100 * float(frame["value"].iloc[0]), line={"color": LINE, "dash": "dot"})
    figure.update_yaxes(
        tickvals=[count - i for i in range(count)], range=[0.4, count + 0.6], showgrid=False,
        ticktext=[text(name, 22) for name in short_names(frame)],
    )  # fmt: skip
    figure.update_xaxes(title_text=_axis(f"{title}, %", frame["kind"]))
    return figure


def domains(frame: pd.DataFrame, what: str = "accuracy") -> go.Figure:
    """`by_domain` as one line a model, a domain a row: it reads on a phone, too."""
    if not len(frame):
        return empty(
            "No domain in which all chosen models have all data sets. Choose fewer models or "
            "another leaderboard."
        )
    order = list(dict.fromkeys(frame["domain"]))[::-1]
    names = list(dict.fromkeys(frame["model"]))
    figure = bare_figure(110 + 46 * len(order) + 20 * len(names))
    counts = frame.drop_duplicates("domain").set_index("domain")["tasks"]
    for (_, mine), name, style in by_model(frame, ["model"]):
        figure.add_trace(go.Scatter(
            x=100 * mine["value"], y=[order.index(d) for d in mine["domain"]], name=name,
            mode="lines+markers", line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={"symbol": style.symbol, "size": 10, "color": style.colour},
            error_x={"type": "data", "array": 100 * mine["half"], "color": style.colour,
                     "thickness": 1, "width": 0},
            hoverinfo="text", hovertext=[
                told(r.domain, r.model, f"{_percent(r.value, r.half)}, mean of {r.tasks}",
                     f"95 % over {chance([r.kind])}")
                for r in mine.itertuples()],
        ))  # fmt: skip
    ticks = [f"{text(d, 18)}<br>({counts[d]} set{'s' if counts[d] > 1 else ''})" for d in order]
    figure.update_yaxes(
        tickvals=list(range(len(order))), ticktext=ticks, range=[-0.5, len(order) - 0.5]
    )
    figure.update_xaxes(title_text=_axis(f"mean {what}, %", frame["kind"]))
    return figure


def shots(frame: pd.DataFrame) -> go.Figure:
    """`objectives.shots` as lines with 95 % bands."""
    if not len(frame):
        return empty(
            "The chosen models share no data set at any shot count. Score them with the protocol "
            "fewshot, or choose others."
        )
    frame = frame.sort_values(["shot", "value"], ascending=False)  # the legend from top to bottom
    figure = bare_figure(380 + 20 * len(frame[["model", "revision"]].drop_duplicates()))
    for (_, mine), name, style in by_model(frame, ["model", "revision"]):
        mine = mine.sort_values("shot")
        _banded(figure, mine, mine["shot"], name, style, [
            told(r.model, f"{r.shot}-shot: {_percent(r.value, r.half)}, mean of {r.tasks}",
                 f"95 % over {chance([r.kind])}")
            for r in mine.itertuples()
        ])  # fmt: skip
    _log_axis(figure, frame["shot"], "images a class")
    count = int(frame["tasks"].iloc[0])
    title = f"mean over {count} data set{'s'[: count > 1]}, %"
    figure.update_yaxes(title_text=_axis(title, frame["kind"]))
    return figure
