"""Page 1: rows models, columns data sets, for one protocol and score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gradio as gr

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.results.signoff import SELF_REPORTED
from space.downloads import saved
from space.labels import shown_objective
from space.receipts import receipt
from space.state import Desk
from space.tables import display
from space.tables.board import headline
from space.tables.view import EXTRAS, View

SORTS = ("mean", "mean rank", "model", "objective", "params")
# The address bar always has the view that is on the page: copy it to share it.
_TO_ADDRESS = (
    "(query) => { history.replaceState(null, '', query ? '?' + query : '?'); return query }"
)


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
        self.table = gr.Dataframe(
            interactive=False, elem_id="board", pinned_columns=1, max_height=640, wrap=True,
            show_label=False, buttons=["fullscreen"], datatype="auto",
        )  # fmt: skip
        self.legend = gr.Markdown(elem_id="legend")
        with gr.Row():
            self.csv = gr.Button("Download CSV", size="sm")
            self.json = gr.Button("Download JSON", size="sm")
        self.csv_file = gr.DownloadButton(visible="hidden", elem_id="csv-file")
        self.json_file = gr.DownloadButton(visible="hidden", elem_id="json-file")
        with gr.Column(visible=False, elem_id="receipt") as self.receipt:
            self.title = gr.Markdown()
            self.command = gr.Code(label="Make this number again", language="shell")
            self.content = gr.JSON(label="Receipt", open=True)
        self.query = gr.Textbox(visible="hidden", elem_id="query")

    @property
    def inputs(self) -> list[Any]:
        """In the order of View's fields."""
        return [getattr(self, field.name) for field in fields(View)]

    @property
    def outputs(self) -> list[Any]:
        return [self.headline, self.table, self.legend, self.query]

    def wire(self) -> None:
        """Connect the events; called once all pages are there."""
        # A search must hear of pasted and deleted text too, which are no input events.
        heard = [c.change if c is self.search else c.input for c in self.inputs]
        gr.on(
            heard, self.show, self.inputs, self.outputs, show_progress="hidden",
            trigger_mode="always_last", api_visibility="private",
        )  # fmt: skip
        self.query.change(None, self.query, None, js=_TO_ADDRESS)
        self.table.select(
            self.open, self.inputs, [self.receipt, self.title, self.command, self.content],
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        # The file is of the view at the click: made first, then fetched.
        for button, save, file in ((self.csv, self.save_csv, self.csv_file),
                                   (self.json, self.save_json, self.json_file)):  # fmt: skip
            made = button.click(save, self.inputs, file, api_visibility="private")
            made.then(None, None, None, js=fetch_file(str(file.elem_id)))

    # ------------------------------------------------------------------ behind the events

    def restore(self, query: Mapping[str, str]) -> list[Any]:
        """The inputs as a URL has them, with today's choices; then the outputs."""
        view = View.of(query)
        known = self.desk.boards()
        if not known:  # the page says so
            return [gr.skip() for _ in self.inputs] + list(self.show(*_values(view)))
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
        return updates + list(self.show(*values.values()))

    def show(self, *values: Any) -> tuple[str, Any, str, str]:
        """The board of these choices: headline, table, legend and address."""
        view = view_of(*values)
        try:
            found = self.desk.board(view)
        except UserError as error:
            reading = "the results are being read; load this page again in a moment"
            why = reading if self.desk.snapshot.waiting else str(error)
            nothing = gr.update(value={"headers": [], "data": []})
            why = f"### {escaped(why)}\n\n{escaped(self.desk.left_out())}"
            return why, nothing, "", view.query()
        waiting = self.desk.snapshot.waiting
        reading = f" *Still reading {waiting:,} results.*" if waiting else ""
        table = gr.update(
            value=display.table(found, view), column_widths=display.widths(found, view)
        )
        left_out = escaped(self.desk.left_out())
        head = f"### {escaped(headline(found))}{reading}\n\n{display.chances(found)} {left_out}"
        return head, table, display.legend(found, view), view.query()

    def open(self, event: gr.SelectData, *values: Any) -> tuple[Any, str, str, Any]:
        """The receipt of the cell that was clicked; nothing for a cell without a number."""
        view = view_of(*values)
        closed = gr.update(visible=False), "", "", None
        board = self.desk.board(view)
        names = list(board.models["model"])
        shown = event.row_value or [""]
        # from the right: the table on the page may have other columns about the model by now
        column = event.index[1] - (len(shown) - len(board.tasks))
        model = str(shown[0])
        row = names.index(model) if model in names else -1
        if column < 0 or row < 0 or board.row[row, column] < 0:
            return closed
        place = board.row[row, column]
        path = str(board.grid.scores["path"].iloc[place])
        said = str(board.grid.scores["computed"].iloc[place])
        try:
            found = receipt(self.desk.source.root(), path)
        except UserError as why:
            return gr.update(visible=True), escaped(str(why)), "", None
        if said:
            said = f" ({escaped(said if said == SELF_REPORTED else f'verified by {said}')})"
        title = f"**{escaped(found.title)}**{said}"
        return gr.update(visible=True), title, found.command, found.content

    def save_csv(self, *values: Any) -> str:
        view = view_of(*values)
        return saved("leaderboard.csv", display.as_csv(self.desk.board(view), view))

    def save_json(self, *values: Any) -> str:
        view = view_of(*values)
        return saved("leaderboard.json", display.as_json(self.desk.board(view), view))


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


def fetch_file(button: str) -> str:
    """Script: click a hidden download button, once it has its new file."""
    return f"() => {{ setTimeout(() => document.querySelector('#{button}').click(), 150) }}"


def picker(**options: Any) -> gr.Dropdown:
    """A choice among what there is today.

    The choices come with a page's load, for its visitor alone: a page that outlives a restart of
    the server must not be refused what it offers, so any value may come, and is checked behind.
    """
    return gr.Dropdown([], min_width=220, allow_custom_value=True, **options)
