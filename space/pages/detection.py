"""Page: detectors made of the backbones, their classes, and their boxes beside the true ones."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pandas as pd

from eval.common.errors import BadInput, UserError
from eval.common.text import escaped, p_value
from eval.results.leaderboard import score_title
from eval.results.schema import Result
from space.examples_detection import Album
from space.figures import plots
from space.figures.style import short_names
from space.labels import chance
from space.pages.leaderboard import picker
from space.receipts import read
from space.state import Desk
from space.tables.detection import (
    NOTHING,
    Place,
    class_table,
    headline,
    kinds,
    places,
    score_names,
    standing,
)

_NO_DATA = "Start with `--data DIR` to see example images: a visitor's click downloads nothing."
_LEGEND = (
    "Average precision (AP) in percent: how many of the boxes found are right, over every share of "
    "the true boxes; AP is its mean over ten overlaps from 50 to 95 %, AP50 takes half an overlap "
    "for a find. Beside the score that orders them, each model is tested against "
    "the first, by their difference in the same resamples of the test images, all pairs at once. "
    "`*` a subset of the data set: not comparable to published numbers. In the plot, hollow is "
    "behind the first."
)


class Detection:
    """The page's components, and the functions behind its events."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.album = desk, Album(desk.data, desk.cache)
        self.said = gr.Markdown(elem_id="detection-said")
        with gr.Column(visible=False, elem_id="detection-body") as self.body:  # only with results
            with gr.Row():
                self.place = picker(
                    label="Data set and setting", elem_id="detection-place", scale=3
                )
                self.score = picker(label="Order by", elem_id="detection-score")
            self.table = gr.Dataframe(
                interactive=False, wrap=True, show_label=False, elem_id="detectors",
                pinned_columns=1, buttons=[],
            )  # fmt: skip
            gr.Markdown(_LEGEND)
            self.plot = gr.Plot(show_label=False, elem_id="detection-plot")
            gr.Markdown("### Two of them")
            with gr.Row():
                self.a = picker(label="Detector A", elem_id="detector-a")
                self.b = picker(label="Detector B", elem_id="detector-b")
            self.classes = gr.Dataframe(
                interactive=False, wrap=True, show_label=False, elem_id="detection-classes",
                max_height=420, buttons=[],
            )  # fmt: skip
            gr.Markdown(
                "### What they find\nTest images of the data set. Dashed in white and black: the "
                "true boxes (dotted: those that are not counted). In colours: what the model finds."
            )
            with gr.Row():
                self.least = gr.Slider(
                    0.05, 0.95, value=0.5, step=0.05, label="Least score of a box", scale=3
                )
                self.show = gr.Button("Show images", elem_id="show-boxes", elem_classes="beside")
            self.told = gr.Markdown(elem_id="boxes-told")
            self.boxes = gr.Gallery(
                show_label=False, columns=2, format="png", object_fit="contain", elem_id="boxes",
                height="auto", visible=False,
            )  # fmt: skip

    def wire(self, tab: gr.Tab) -> None:
        """Connect the events: nothing is computed before the tab is opened."""
        choices = [self.place, self.score, self.a, self.b]
        gr.on([tab.select, self.place.input, self.score.input], self.open, choices,
              [self.body, *choices, self.said, self.table, self.plot, self.classes, self.told,
               self.boxes],
              api_visibility="private")  # fmt: skip
        gr.on([self.a.input, self.b.input], self.by_class, [self.place, self.a, self.b],
              [self.classes, self.told, self.boxes], api_visibility="private")  # fmt: skip
        gr.on([self.show.click, self.least.release], self.look,
              [self.place, self.a, self.b, self.least], [self.told, self.boxes],
              concurrency_limit=1, concurrency_id="boxes", api_visibility="private")  # fmt: skip

    # ------------------------------------------------------------------ behind the events

    def open(self, place: str, score: str, a: str, b: str) -> list[Any]:
        """Today's choices, who is best, the table and the plot, and the classes of two models."""
        scores = self.desk.snapshot.scores
        found = places(scores)
        closed = ["", gr.update(visible=False)]
        if not found:
            return [gr.update(visible=False), *[gr.skip()] * 4, NOTHING, None, None, None, *closed]
        here = next((p for p in found if p.text == place), next(iter(found)))
        known = score_names(scores, here)
        score = score if score in known else known[0]
        table = standing(scores, here, score)
        names = short_names(table)
        keys = _keys(table)
        a = a if a in keys else keys[0]
        b = b if b in keys else keys[min(1, len(keys) - 1)]
        picks = list(zip(names, keys, strict=True))
        shown = [score, *(s for s in known if s != score)]
        return [
            gr.update(visible=True),
            gr.update(choices=[(title, p.text) for p, title in found.items()], value=here.text),
            gr.update(choices=[(score_title(s), s) for s in known], value=score),
            gr.update(choices=picks, value=a), gr.update(choices=picks, value=b),
            f"{escaped(headline(table, score, names))}\n\nIntervals are 95 % over "
            f"{chance(kinds(scores, here))}.",
            _table(table, names, shown),
            plots.standing(table, score_title(score)), self._classes(here, a, b), *closed,
        ]  # fmt: skip

    def by_class(self, place: str, a: str, b: str) -> list[Any]:
        """AP50 of each class; pictures of other models are closed."""
        here = self._place(place)
        classes = self._classes(here, a, b) if here else None
        return [classes, "", gr.update(visible=False)]

    def look(self, place: str, a: str, b: str, least: float) -> list[Any]:
        """Example images with the boxes of both models, or a sentence why there are none."""
        try:
            here = self._place(place)
            if here is None:
                raise BadInput("choose a data set and two models first")
            names, results = self._two(here, a, b)
            bound = min(max(float(least or 0), 0.0), 1.0)
            shown = self.album.pictures(results, bound)
        except UserError as why:
            hint = "" if self.desk.data else f" {_NO_DATA}"
            return [f"**{escaped(str(why))}**{hint}", gr.update(visible=False)]
        pictures = [
            (s.image, f"{names[s.model]}: {s.count} box{'es' if s.count != 1 else ''}")
            for s in shown
        ]
        count = len({s.row for s in shown})
        told = f"{count} test images, boxes of at least {100 * bound:.0f} %."
        return [told, gr.update(value=pictures, visible=True)]

    def _place(self, text: str) -> Place | None:
        return next((p for p in places(self.desk.snapshot.scores) if p.text == text), None)

    def _two(self, place: Place, a: str, b: str) -> tuple[list[str], list[Result]]:
        """The names and files of the two models; of one where both are the same."""
        scores = self.desk.snapshot.scores
        table = standing(scores, place, score_names(scores, place)[0])
        keys, names = _keys(table), short_names(table)
        chosen = list(dict.fromkeys(keys.index(key) for key in (a, b) if key in keys))
        if not chosen:
            raise BadInput("choose a data set and two models first")
        root = self.desk.source.root()
        return [names[i] for i in chosen], [read(root, str(table["path"].iloc[i])) for i in chosen]

    def _classes(self, place: Place, a: str, b: str) -> Any:
        try:
            names, results = self._two(place, a, b)
        except UserError:
            return None
        table = class_table(*results)
        two = len(results) == 2
        header = ["class", "test boxes", *(f"{'AB'[i]}: {n}" for i, n in enumerate(names))]
        rows = [
            [row.name, row.boxes, _points(row.a), *([_points(row.b)] if two else []),
             *([_points(row.a - row.b, "+")] if two else [])]
            for row in table.itertuples(index=False)
        ]  # fmt: skip
        widths = ["140px", "100px", *["200px"] * len(names), "80px"]
        return gr.update(
            value={"headers": [*header, *(["A - B"] if two else [])], "data": rows},
            column_widths=widths[: len(header) + two],
        )


def _keys(table: pd.DataFrame) -> list[str]:
    """What a choice of a model sends back: unlike for each row."""
    return list(table["model"])


def _points(value: float, sign: str = "") -> str:
    """In percent; what rounds to nothing has no sign."""
    shown = round(100 * value, 1) or 0.0
    return "-" if pd.isna(value) else f"{shown:{sign if shown else ''}.1f}"


def _table(table: pd.DataFrame, names: list[str], scores: list[str]) -> Any:
    """The first of ``scores`` is the one that is tested: its test stands beside it."""
    headers = ["model", _short(scores[0]), "against the first", *map(_short, scores[1:])]
    rows = [
        [
            name + ("*" if row["subset"] else ""),
            _interval(row, scores[0]),
            _verdict(row),
            *(_interval(row, s) for s in scores[1:]),
        ]
        for name, (_, row) in zip(names, table.iterrows(), strict=True)
    ]
    widths = ["175px", "145px", "310px", *["145px"] * (len(scores) - 1)]
    return gr.update(value={"headers": headers, "data": rows}, column_widths=widths)


def _short(score: str) -> str:
    """A score's title where there is little room."""
    title = score_title(score).partition(" (")[0]
    return f"{title}, VOC07" if score.startswith("voc07_") else title


def _interval(row: pd.Series, score: str) -> str:
    value, low, high = (row[f"{score}{end}"] for end in ("", "_low", "_high"))
    return "-" if pd.isna(value) else f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _verdict(row: pd.Series) -> str:
    """The paired test against the first row, in words."""
    if row["verdict"] == "first":
        return "first"
    if not row["verdict"]:
        return "not tested"
    points = (-100 * row[name] for name in ("difference", "d_high", "d_low"))
    behind = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*points)
    p = p_value(row["p"])
    return f"{'not told apart' if row['verdict'] == 'tied' else 'behind'}: {behind}, p = {p}"
