"""The analyses' findings as interactive figures. Findings may be foreign: names are made harmless
by `style.text`, and one of another form than its analysis gives is refused in a sentence.

What an analysis itself says of its findings is imported where it is asked for: it takes torch."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from eval.analysis import ANALYSES
from eval.analysis.finding import Finding
from eval.common.errors import BadInput
from eval.results.facts import facts_of
from eval.results.names import task_label
from space.figures.style import AXIS, LINE, Look, bare_figure, by_model, short_names, text, told

MAX_PICTURES = 60  # of a finding, on the page
MAX_PICTURE = 2**18  # characters of one
GEOMETRY = {
    "index": "1 - within / total distance",
    "effective_rank": "effective rank",
    "uniformity": "uniformity",
    "nc1": "NC1: spread within classes against between",
}
_CALLED = {"index": "separation", "nc1": "NC1"}
SCALE = [[0.0, "#1b1044"], [0.5, "#b63679"], [1.0, "#fcfdbf"]]

# what reading plain data of another form may raise
ODD = (LookupError, TypeError, ValueError, AttributeError, StopIteration, ZeroDivisionError)

# model -> (place on the x axis, value, half of its 95 % interval: nan where none is known)
Series = Mapping[str, Sequence[tuple[str, float, float]]]
TEST_IMAGES = "95 % over other test images"
THESE_ALONE = "of these images alone, no interval"


def title(finding: Finding) -> str:
    """``cka: eurosat, CE and CE+SelfSupCon``; foreign text, not escaped."""
    tasks = [task_label(t.name, t.split) for t in finding.tasks]
    names = short_names(_models(finding))
    of = ", ".join(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks"
    who = " and ".join(names) if len(names) <= 2 else f"{len(names)} models"
    return f"{finding.analysis}: {of}; {who}"


def short_sentence(finding: Finding) -> str:
    """What it says, with the names of models as figures have them; foreign text, not escaped."""
    said = finding.sentence
    for key, name in sorted(model_names(finding).items(), key=lambda pair: -len(pair[0])):
        said = said.replace(key, name)  # the longest first: one may begin another
    return said


def model_names(finding: Finding) -> dict[str, str]:
    """{model of the finding: its name in figures}; foreign text, not escaped."""
    frame = _models(finding)
    return dict(zip(frame["key"], short_names(frame), strict=True))


def views(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    """What can be shown of a finding, by the name of each view. Raises UserError for a finding
    whose form is not that of its analysis."""
    if finding.analysis not in ANALYSES:
        raise BadInput(f"no analysis {finding.analysis[:60]!r} is known here")
    try:
        return {name: _guarded(draw) for name, draw in _VIEWS[finding.analysis](finding).items()}
    except ODD:
        raise BadInput(f"this finding is no {finding.analysis} of this version") from None


def _guarded(draw: Callable[[], go.Figure]) -> Callable[[], go.Figure]:
    def work() -> go.Figure:
        try:
            return draw()
        except ODD:
            raise BadInput("this finding is not of this version's form") from None

    return work


def pictures(finding: Finding) -> list[tuple[Image.Image, str]]:
    """(image, caption) of what a reconstruction rebuilt; none for other findings, or where they
    are no small PNGs."""
    if finding.analysis != "reconstruction":
        return []
    names = dict(zip(finding.values["models"], short_names(_models(finding)), strict=True))
    held = [(uri, f"original {i}") for i, uri in enumerate(finding.values["originals"], 1)]
    for model, tasks in finding.values["models"].items():
        for found in tasks.values():
            for how in ("decoded", "inverted"):
                for layer, uris in found.get(how, {}).items():
                    held += [(uri, f"{names[model]}: {layer}, {how} {i}")
                             for i, uri in enumerate(uris, 1)]  # fmt: skip
    return [(image, caption) for uri, caption in held[:MAX_PICTURES] if (image := _picture(uri))]


def _picture(uri: object) -> Image.Image | None:
    head = "data:image/png;base64,"
    if not isinstance(uri, str) or not uri.startswith(head) or len(uri) > MAX_PICTURE:
        return None
    try:
        data = base64.b64decode(uri[len(head) :], validate=True)
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if max(image.size) > 512:
            return None
        return image.convert("RGB").resize((192, 192), Image.Resampling.NEAREST)
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError):
        return None


# ------------------------------------------------------------------ what each analysis shows


def _cka(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    return {"map": lambda: cka_map(finding)}


def cka_map(finding: Finding) -> go.Figure:
    """Layers of one model against those of another, from the first at the bottom left."""
    values = finding.values
    rows = [[math.nan if v is None else float(v) for v in row] for row in values["cka"]]
    names = [text(n, 40) for n in short_names(_models(finding))]
    x, y = ([text(n, 24) for n in values[k]] for k in ("layers_b", "layers_a"))
    figure = bare_figure(140 + 46 * len(y))
    figure.add_trace(go.Heatmap(
        z=rows, x=list(range(len(x))), y=list(range(len(y))), zmin=0, zmax=1, colorscale=SCALE,
        text=[["" if math.isnan(v) else f"{v:.2f}" for v in row] for row in rows],
        texttemplate="%{text}", hoverinfo="text",
        hovertext=[
            [told(f"{values['layers_a'][i]} and {values['layers_b'][j]}: CKA {v:.3f}",
                  _standard_error(values, i, j)) for j, v in enumerate(row)]
            for i, row in enumerate(rows)
        ],
        colorbar={"title": "CKA", "thickness": 14, "outlinewidth": 0},
    ))  # fmt: skip
    figure.update_xaxes(title_text=names[-1], tickvals=list(range(len(x))), ticktext=x)
    figure.update_yaxes(title_text=names[0], tickvals=list(range(len(y))), ticktext=y)
    figure.update_layout(margin_b=20, showlegend=False)
    return figure


def _standard_error(values: Mapping[str, Any], i: int, j: int) -> str:
    error = values["error"][i][j] if "error" in values else None
    batches = int(values.get("batches", 1))
    if error is None:
        return f"of {batches} batch{'es' if batches > 1 else ''}: no standard error"
    return f"standard error over {batches} batches of images: {float(error):.3f}"


def _profile(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    from eval.analysis.profile import by_level

    models = finding.values["models"]
    levels = {model: by_level(tasks) for model, tasks in models.items()}
    return {
        level: _drawn(
            finding,
            {
                m: [(k, 100 * v, 100 * _half_of_level(models[m], level, k))
                    for k, v in found[level].items()]
                for m, found in levels.items()
            },
            f"{level}: top-1 of a probe, %",
            TEST_IMAGES,
        )
        for level in next(iter(levels.values()))
    }  # fmt: skip


def _half_of_level(tasks: Mapping[str, Any], level: str, layer: str) -> float:
    """Of the mean over a level's tasks, which are taken as given and independent."""
    from eval.analysis.profile import level_of

    ends = [layers[layer][1:] for task, layers in tasks.items() if level_of(task) == level]
    return _half_of_mean([(float(high) - float(low)) / 2 for low, high in ends])


def _half_of_mean(halves: Sequence[float]) -> float:
    return math.sqrt(sum(half**2 for half in halves)) / len(halves)


def _geometry(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    values = finding.values["models"]
    found = {}
    for task in next(iter(values.values())):
        for name, label in GEOMETRY.items():
            series = {
                model: [(k, _number(v["test"][name]), math.nan) for k, v in tasks[task].items()]
                for model, tasks in values.items()
            }
            view = f"{task}: {_CALLED.get(name, name.replace('_', ' '))}"
            found[view] = _drawn(finding, series, label, THESE_ALONE)
    return found


def _robustness(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    values = finding.values
    severities = ["clean", *(f"severity {s}" for s in values["severities"])]
    told_apart = {
        model: [
            (part, 100 * sum(float(t[part]["top1"]) for t in tasks.values()) / len(tasks),
             100 * _half_of_mean([(float(t[part]["high"]) - float(t[part]["low"])) / 2
                                  for t in tasks.values()]))
            for part in ("clean", "corrupted")
        ]
        for model, tasks in values["models"].items()
    }  # fmt: skip
    out: dict[str, Callable[[], go.Figure]] = {
        "clean and corrupted": _drawn(
            finding, told_apart, f"top-1, %{_mean_over(finding)}", TEST_IMAGES
        )
    }
    for score, label in (("top1", "top-1, %"), ("ece", "calibration error, points")):
        series = {}
        for model, tasks in values["models"].items():
            rows = [
                [float(t["clean"][score]), *(float(v) for v in t["by_severity"][score])]
                for t in tasks.values()
            ]
            mean = [100 * sum(column) / len(rows) for column in zip(*rows, strict=True)]
            series[model] = [(s, m, math.nan) for s, m in zip(severities, mean, strict=True)]
        name = "accuracy by severity" if score == "top1" else "calibration by severity"
        out[name] = _drawn(finding, series, label + _mean_over(finding), THESE_ALONE)
    out["by corruption"] = lambda: _corruptions(finding)
    return out


def _mean_over(finding: Finding) -> str:
    return ", mean over tasks" if len(finding.tasks) > 1 else ""


def _corruptions(finding: Finding) -> go.Figure:
    values = finding.values
    names = [text(n, 34) for n in short_names(_models(finding))]
    kinds = list(values["corruptions"])
    rows = []
    for tasks in values["models"].values():
        row = []
        for kind in kinds:
            held = [float(v) for t in tasks.values() for v in t["conditions"][kind]["top1"]]
            row.append(100 * sum(held) / len(held))
        rows.append(row)
    figure = bare_figure(170 + 40 * len(rows))
    figure.add_trace(go.Heatmap(
        z=rows, x=list(range(len(kinds))), y=list(range(len(rows))), colorscale=SCALE,
        text=[[f"{v:.0f}" for v in row] for row in rows], texttemplate="%{text}", hoverinfo="text",
        hovertext=[[told(f"{kinds[j]}: {v:.1f} %") for j, v in enumerate(row)] for row in rows],
        colorbar={"title": "top-1, %", "thickness": 14, "outlinewidth": 0},
    ))  # fmt: skip
    shown = [text(k.replace("_", " "), 24) for k in kinds]
    figure.update_xaxes(tickvals=list(range(len(kinds))), ticktext=shown, tickangle=-40)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, autorange="reversed")
    return figure


def _reconstruction(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    values, out = finding.values, {}
    for score, label in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
        series = {}
        for model, tasks in values["models"].items():
            (found,) = tasks.values()
            series[model] = [
                (k, float(v[score][0]), (float(v[score][2]) - float(v[score][1])) / 2)
                for k, v in found["layers"].items()
            ]
        floor = float(values["floor"][score])
        out[label] = _drawn(finding, series, f"{label} of the rebuilt", TEST_IMAGES, floor)
    return out


def _predictors(finding: Finding) -> dict[str, Callable[[], go.Figure]]:
    from eval.analysis.predictors import TITLES

    return {label: partial(_forecast, finding, name, label) for name, label in TITLES.items()}


def _forecast(finding: Finding, predictor: str, label: str) -> go.Figure:
    """Predicted against measured, each less its mean on the task; a point a task and model."""
    values = finding.values
    names = list(values["models"])
    points: dict[str, list[tuple[float, float, str]]] = {n: [] for n in names}
    for task, scores in values["measured"].items():
        here = [n for n in names if scores[n] is not None]
        if len(here) < 2:
            continue
        x = {n: float(values["models"][n][task][predictor]) for n in here}
        middle, level = (sum(v) / len(here) for v in (x.values(), [scores[n] for n in here]))
        for n in here:
            shown = f"{task}: {label} {x[n]:.3g}, top-1 {100 * scores[n]:.1f} %"
            points[n].append((x[n] - middle, 100 * (scores[n] - level), shown))
    figure = bare_figure(420)
    for (_, rows), name, style in by_model(_models(finding), ["key"]):
        mine = points[rows["key"].iloc[0]]
        figure.add_trace(go.Scatter(
            x=[p[0] for p in mine], y=[p[1] for p in mine], name=name, mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            hoverinfo="text", hovertext=[told(name, p[2]) for p in mine],
        ))  # fmt: skip
    figure.update_xaxes(title_text=told(f"{label}, less the mean of the task", wide=AXIS))
    figure.update_yaxes(
        title_text=told("linear top-1 less the mean of the task, points", wide=AXIS)
    )
    figure.update_layout(margin_b=90)
    return figure


_VIEWS: dict[str, Callable[[Finding], dict[str, Callable[[], go.Figure]]]] = {
    "cka": _cka,
    "profile": _profile,
    "geometry": _geometry,
    "robustness": _robustness,
    "reconstruction": _reconstruction,
    "predictors": _predictors,
}


# ------------------------------------------------------------------ lines against depth


def _drawn(
    finding: Finding, series: Series, label: str, chance: str, floor: float | None = None
) -> Callable[[], go.Figure]:
    return lambda: _lines(finding, series, label, chance, floor)


def _lines(
    finding: Finding, series: Series, label: str, chance: str, floor: float | None
) -> go.Figure:
    """A line a model; networks of unlike depth stand on one axis, from first to last. ``chance``
    is what the intervals are over."""
    figure = bare_figure(400 + 12 * len(series))
    places = {tuple(k for k, *_ in line) for line in series.values()}
    for (_, rows), name, style in by_model(_models(finding), ["key"]):
        line = series[rows["key"].iloc[0]]
        figure.add_trace(_line(line, name, style))
    if floor is not None:
        figure.add_hline(y=floor, line={"color": LINE, "dash": "dash", "width": 2})
    if len(places) == 1:
        (shared,) = places
        figure.update_xaxes(
            tickvals=[_at(i, len(shared)) for i in range(len(shared))],
            ticktext=[text(p, 18) for p in shared],
        )
    else:
        figure.update_xaxes(title_text=told("depth, from the first layer to the last", wide=AXIS))
    figure.update_yaxes(title_text=told(label, chance, wide=AXIS))
    figure.update_layout(margin_b=100)
    return figure


def _at(i: int, count: int) -> float:
    return i / max(count - 1, 1)


def _line(line: Sequence[tuple[str, float, float]], name: str, style: Look) -> go.Scatter:
    known = not all(math.isnan(half) for *_, half in line)
    bars = {"type": "data", "array": [half for *_, half in line], "color": style.colour,
            "thickness": 1, "width": 3, "visible": known}  # fmt: skip
    return go.Scatter(
        x=[_at(i, len(line)) for i in range(len(line))], y=[v for _, v, _ in line], name=name,
        error_y=bars,
        mode="lines+markers", line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"color": style.colour, "symbol": style.symbol, "size": 8}, hoverinfo="text",
        hovertext=[
            told(name, f"{place}: {value:.3g}" + (f" ±{half:.2g}" if half == half else ""))
            for place, value, half in line
        ],
    )  # fmt: skip


def _models(finding: Finding) -> pd.DataFrame:
    """model, objective and ``key``, the name in the finding's values, a row each."""
    ids = [m.id for m in finding.models]
    held = finding.values.get("models")
    keys = list(held) if isinstance(held, dict) and len(held) == len(ids) else ids
    return pd.DataFrame({
        "key": keys, "model": keys, "objective": [facts_of(m).objective for m in finding.models],
    })  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
