"""Page 1: rows models, columns data sets, for one protocol and score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.results.signoff import SELF_REPORTED
from space.figures.cost import WORK, Point, side_by_side
from space.figures.style import short_names
from space.labels import shown_objective
from space.pages.board_html import board_html, pages
from space.receipts import receipt
from space.state import Desk
from space.tables import display
from space.tables.board import Board, headline
from space.tables.view import EXTRAS, View

SORTS = ("mean", "mean rank", "model", "objective", "params", "multiply_adds")
# What of an address is the board's; `page` and `receipt` are no choice of what is shown in it.
_OWN = [*(field.name for field in fields(View)), "page"]
_TO_ADDRESS = f"(query) => transferzoo.put(query, {json.dumps(_OWN)})"
_KEYS = "transferzoo.board(element, trigger)"


class Leaderboard:
    """The page's components, and the functions behind its events."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.headline = gr.Markdown(elem_id="headline")
        with gr.Row():
            self.board = picker(label="Protocol", elem_id="protocol", scale=2)
            self.search = gr.Textbox(
                label="Search models", placeholder="name, objective", scale=2, min_width=220
            )
        with gr.Accordion("Filters, columns and sorting", open=False):
            with gr.Row():
                self.objectives = gr.CheckboxGroup([], label="Objectives (none: all)")
                self.domains = gr.CheckboxGroup([], label="Domains (none: all)")
            with gr.Row():
                self.tasks = picker(label="Data sets (none: all)", multiselect=True)
                self.extras = gr.CheckboxGroup(list(EXTRAS), label="Columns about the model")
            with gr.Row():
                self.most_params = gr.Number(label="Most parameters, millions (0: any)", minimum=0)
                self.sort = gr.Dropdown(list(SORTS), label="Sort by", allow_custom_value=True)
            with gr.Row():
                self.rising = gr.Checkbox(label="Smallest first")
                self.whole = gr.Checkbox(label="Whole data sets only")
                self.pretraining = gr.Checkbox(label="Also what the zoo was pretrained on")
                self.colour = gr.Checkbox(label="Colours")
        self.table = gr.HTML(elem_id="board", js_on_load=_KEYS, apply_default_css=False)
        with gr.Row(elem_id="board-files"):
            self.link = gr.Button("Copy link", size="sm")
            self.csv = gr.Button("Download CSV", size="sm")
            self.json = gr.Button("Download JSON", size="sm")
        self.legend = gr.Markdown(elem_id="legend")
        self.cost = gr.HTML(apply_default_css=False)
        self.file = gr.Textbox(visible="hidden", elem_id="board-file")
        with gr.Column(visible=False, elem_id="receipt") as self.receipt:
            self.close = gr.Button("Close", size="sm", elem_id="close-receipt")
            self.title = gr.Markdown()
            self.command = gr.Code(label="Make this number again", language="shell",
                                   wrap_lines=True, lines=1)  # fmt: skip
            self.content = gr.JSON(label="Receipt", open=True)
        self.page = gr.Number(1, visible="hidden", elem_id="board-page")
        self.query = gr.Textbox(visible="hidden", elem_id="query")

    @property
    def inputs(self) -> list[Any]:
        """In the order of View's fields."""
        return [getattr(self, field.name) for field in fields(View)]

    @property
    def outputs(self) -> list[Any]:
        return [self.headline, self.table, self.legend, self.cost, self.query, self.page]

    @property
    def slip(self) -> list[Any]:
        """Of the receipt."""
        return [self.receipt, self.title, self.command, self.content]

    def wire(self) -> None:
        """Connect the events; called once all pages are there."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # A search must hear of pasted and deleted text too, which are no input events.
        heard = [c.change if c is self.search else c.input for c in self.inputs]
        gr.on(heard, self.show, self.inputs, self.outputs, trigger_mode="always_last", **quiet)
        self.query.change(None, self.query, None, js=_TO_ADDRESS)
        self.table.click(self.order, self.inputs, [self.sort, self.rising, *self.outputs], **quiet)
        self.table.submit(self.turn, self.inputs, self.outputs, **quiet)
        self.table.select(self.open, self.inputs, self.slip, **quiet)
        self.close.click(
            lambda: gr.update(visible=False), None, self.receipt,
            js="() => transferzoo.closeReceipt()", **quiet,
        )  # fmt: skip
        self.link.click(None, None, None, js="() => transferzoo.copyLink()", **quiet)
        # The text is of the view at the click; the browser makes the file, none stays here.
        for button, text, name in ((self.csv, self.csv_text, "leaderboard.csv"),
                                   (self.json, self.json_text, "leaderboard.json")):  # fmt: skip
            made = button.click(text, self.inputs, self.file, **quiet)
            kind = "text/csv" if button is self.csv else "application/json"
            script = f"text => transferzoo.save({json.dumps(name)}, text, {json.dumps(kind)})"
            made.then(None, self.file, None, js=script)

    # ------------------------------------------------------------------ behind the events

    def restore(self, query: Mapping[str, str]) -> list[Any]:
        """The inputs as a URL has them, with today's choices; the outputs; the receipt."""
        view, page = View.of(query), _page(query.get("page"))
        known = self.desk.boards()
        if not known:  # the page says so
            return [gr.skip() for _ in self.inputs] + self.show(*_values(view)) + _closed()
        key = next((k for k in known if k.text == view.board), self.desk.key(""))
        grid = self.desk.grid(key)
        objectives = sorted(set(grid.models["objective"]))
        choices: dict[str, list[Any]] = {
            "board": [(k.title, k.text) for k in known],
            "objectives": [(shown_objective(o) or "unknown", o) for o in objectives],
            "domains": list(dict.fromkeys(grid.tasks["domain"])),
            "tasks": list(grid.tasks["task"]),
            "sort": [*SORTS, *grid.tasks["task"]],
        }
        values = {field.name: getattr(view, field.name) for field in fields(View)}
        values["board"] = key.text
        values["sort"] = view.sort if view.sort in choices["sort"] else "mean"
        for name in ("objectives", "domains", "tasks"):
            there = [c[1] if isinstance(c, tuple) else c for c in choices[name]]
            values[name] = [v for v in values[name] if v in there]
        values["extras"] = [v for v in values["extras"] if v in EXTRAS]
        updates = [
            gr.update(value=values[n], choices=choices[n]) if n in choices else values[n]
            for n in values
        ]
        model, _, task = str(query.get("receipt", "")).rpartition("|")
        slip = self._slip(view_of(*values.values()), model, task)
        return updates + self._shown(view_of(*values.values()), page) + slip

    def show(self, *values: Any) -> list[Any]:
        """The first page of the board of these choices: headline, table, legend, costs, address."""
        return self._shown(view_of(*values), 1)

    def order(self, event: gr.EventData, *values: Any) -> list[Any]:
        """The board sorted by the column whose head was clicked; again, the other way round."""
        view = view_of(*values)
        sort = str(event.sort)[:200]
        rising = not view.rising if sort == view.sort else False
        changed = dict(zip((field.name for field in fields(View)), values, strict=True))
        changed |= {"sort": sort or "mean", "rising": rising}
        return [sort or "mean", rising, *self.show(*changed.values())]

    def turn(self, event: gr.EventData, *values: Any) -> list[Any]:
        """Another page of the board."""
        return self._shown(view_of(*values), _page(event.page))

    def _shown(self, view: View, page: int) -> list[Any]:
        try:
            found = self.desk.board(view)
        except UserError as error:
            reading = "the results are being read; load this page again in a moment"
            why = reading if self.desk.snapshot.waiting else str(error)
            return [
                f"### {escaped(why)}\n\n{escaped(self.desk.left_out())}",
                "", "", "", view.query(), 1,
            ]  # fmt: skip
        waiting = self.desk.snapshot.waiting
        reading = f" *Still reading {waiting:,} results.*" if waiting else ""
        left_out = escaped(self.desk.left_out())
        said, dot, more = headline(found).partition(". ")  # the first sentence is the heading
        head = (
            f"### {escaped(said + dot.strip())}{reading}\n\n{escaped(more)} "
            f"{display.chances(found)} {left_out}"
        )
        page = min(max(page, 1), pages(found))
        query = "&".join(
            filter(None, [view.query(), urlencode({"page": page}) if page > 1 else ""])
        )
        return [head, board_html(found, view, page), display.legend(found), costs(found),
                query, page]  # fmt: skip

    def open(self, event: gr.EventData, *values: Any) -> list[Any]:
        """The receipt of the cell that was clicked."""
        return self._slip(view_of(*values), str(event.model), str(event.task))

    def _slip(self, view: View, model: str, task: str) -> list[Any]:
        """The receipt of a model's number on a data set; closed where there is none in view."""
        if not model:
            return _closed()
        try:
            board = self.desk.board(view)
            names, tasks = list(board.models["model"]), list(board.tasks["task"])
            if model not in names or task not in tasks:
                return _closed()
            place = board.row[names.index(model), tasks.index(task)]
            if place < 0:
                return _closed()
            path = str(board.grid.scores["path"].iloc[place])
            said = str(board.grid.scores["computed"].iloc[place])
            found = receipt(self.desk.source.root(), path)
        except UserError as why:
            return [gr.update(visible=True), escaped(str(why)), "", None]
        if said:
            said = f" ({escaped(said if said == SELF_REPORTED else f'verified by {said}')})"
        title = f"**{escaped(found.title)}**{said}"
        return [gr.update(visible=True), title, found.command, found.content]

    def csv_text(self, *values: Any) -> str:
        view = view_of(*values)
        return display.as_csv(self.desk.board(view), view)

    def json_text(self, *values: Any) -> str:
        view = view_of(*values)
        return display.as_json(self.desk.board(view), view)


def costs(board: Board) -> str:
    """Mean score against multiply-adds and against parameters, of the models that have one."""
    rows = [r for r in range(len(board.models)) if board.mean[r] == board.mean[r]]
    if not rows:
        return ""
    names = short_names(board.models)
    objectives = board.models["objective"].tolist()
    means, halves = (100 * board.mean).tolist(), (100 * board.half).tolist()
    count = int(board.counts.sum())
    what = f"Mean over {count} data sets, in percent" if count > 1 else "Score in percent"
    found = {
        name: [Point(names[r], objectives[r], values[r], means[r], halves[r]) for r in rows]
        for name, values in (
            (WORK, board.models["multiply_adds"].tolist()),
            ("parameters", board.models["params"].tolist()),
        )
    }
    return side_by_side(found, what)


def view_of(*values: Any) -> View:
    """From the inputs' values, in the order of View's fields."""
    found = dict(zip((field.name for field in fields(View)), values, strict=True))
    for name in ("objectives", "domains", "tasks", "extras"):
        found[name] = tuple(str(v) for v in found[name] or ())
    found["sort"] = "" if found["sort"] in (None, "mean") else str(found["sort"])
    found["most_params"] = float(found["most_params"] or 0)
    found["board"], found["search"] = str(found["board"] or ""), str(found["search"] or "")[:200]
    return View(**found)


def _values(view: View) -> list[Any]:
    return [getattr(view, field.name) for field in fields(View)]


def _page(value: Any) -> int:
    """A page's number, 1 for what is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _closed() -> list[Any]:
    return [gr.update(visible=False), "", "", None]


def picker(**options: Any) -> gr.Dropdown:
    """A choice among what there is today.

    The choices come with a page's load, for its visitor alone: a page that outlives a restart of
    the server must not be refused what it offers, so any value may come, and is checked behind.
    """
    return gr.Dropdown([], min_width=220, allow_custom_value=True, **options)
