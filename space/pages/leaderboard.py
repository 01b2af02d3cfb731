"""Page 1: rows models, columns data sets, for one protocol and score."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr

from eval.errors import UserError
from space import display
from space.board import headline
from space.desk import Desk
from space.receipts import receipt
from space.view import EXTRAS, View
from space.words import escaped, shown_objective

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
            self.board = gr.Dropdown([], label="Protocol", elem_id="protocol", scale=2)
            self.search = gr.Textbox(label="Search models", placeholder="name, objective", scale=2)
        with gr.Accordion("Filters, columns and sorting", open=False):
            with gr.Row():
                self.objectives = gr.CheckboxGroup([], label="Objectives (none: all)")
                self.domains = gr.CheckboxGroup([], label="Domains (none: all)")
            with gr.Row():
                self.tasks = gr.Dropdown([], label="Data sets (none: all)", multiselect=True)
                self.extras = gr.CheckboxGroup(list(EXTRAS), label="Columns about the model")
            with gr.Row():
                self.most_params = gr.Number(label="Most parameters, millions (0: any)", minimum=0)
                self.sort = gr.Dropdown(list(SORTS), label="Sort by")
            with gr.Row():
                self.rising = gr.Checkbox(label="Smallest first")
                self.whole = gr.Checkbox(label="Whole data sets only")
                self.pretraining = gr.Checkbox(label="Also what the zoo was pretrained on")
                self.colour = gr.Checkbox(label="Colours")
        self.table = gr.Dataframe(
            interactive=False, elem_id="board", pinned_columns=1, max_height=640, wrap=True,
            show_label=False, buttons=["fullscreen"], datatype="auto",
        )  # fmt: skip
        gr.Markdown(
            "Top-1 in percent with 95 % intervals. `*` a subset of the data set: not comparable "
            "to published numbers. Models of one tie group cannot be told apart by paired tests on "
            "the same episodes or images. Click a number for its receipt.",
            elem_id="legend",
        )
        with gr.Row():
            self.csv = gr.DownloadButton("Download CSV", size="sm")
            self.json = gr.DownloadButton("Download JSON", size="sm")
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
        return [self.headline, self.table, self.query]

    def wire(self) -> None:
        """Connect the events; called once all pages are there."""
        gr.on(
            [component.input for component in self.inputs], self.show, self.inputs, self.outputs,
            show_progress="hidden", api_name="leaderboard", trigger_mode="always_last",
            api_description="The board of a view: headline, table, and the view's URL query.",
        )  # fmt: skip
        self.query.change(None, self.query, None, js=_TO_ADDRESS)
        self.table.select(
            self.open, self.inputs, [self.receipt, self.title, self.command, self.content],
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        self.csv.click(self.save_csv, self.inputs, self.csv, api_name="leaderboard_csv")
        self.json.click(self.save_json, self.inputs, self.json, api_name="leaderboard_json")

    # ------------------------------------------------------------------ behind the events

    def restore(self, query: Mapping[str, str]) -> list[Any]:
        """The inputs as a URL has them, with today's choices; then the outputs."""
        view = View.of(query)
        known = self.desk.boards()
        if not known:
            return [gr.skip() for _ in self.inputs] + list(self.show(*_values(view)))
        key = next((k for k in known if k.text == view.board), self.desk.key(""))
        grid = self.desk.grid(key)
        objectives = sorted(set(grid.models["objective"]))
        choices: dict[str, list[Any]] = {
            "board": [(k.title, k.text) for k in known],
            "objectives": [(shown_objective(o) or "unknown", o) for o in objectives],
            "domains": list(dict.fromkeys(grid.tasks["domain"])),
            "tasks": list(grid.tasks["task"]),
        }
        values = {field.name: getattr(view, field.name) for field in fields(View)}
        values["board"], values["sort"] = key.text, view.sort or "mean"
        for name in ("objectives", "domains", "tasks"):
            there = [c[1] if isinstance(c, tuple) else c for c in choices[name]]
            values[name] = [v for v in values[name] if v in there]
        values["extras"] = [v for v in values["extras"] if v in EXTRAS]
        updates = [
            gr.update(value=values[n], choices=choices[n]) if n in choices else values[n]
            for n in values
        ]
        return updates + list(self.show(*values.values()))

    def show(
        self, board: str = "", search: str = "", objectives: Sequence[str] = (),
        domains: Sequence[str] = (), tasks: Sequence[str] = (), most_params: float = 0,
        whole: bool = False, pretraining: bool = False, extras: Sequence[str] = View().extras,
        sort: str = "mean", rising: bool = False, colour: bool = True,
    ) -> tuple[str, Any, str]:  # fmt: skip
        """The board of these choices. Every choice has a default: a script names what it wants."""
        view = view_of(board, search, objectives, domains, tasks, most_params, whole, pretraining,
                       extras, sort, rising, colour)  # fmt: skip
        try:
            found = self.desk.board(view)
        except UserError as why:
            nothing = gr.update(value={"headers": [], "data": []})
            return f"### {escaped(str(why))}", nothing, view.query()
        waiting = self.desk.snapshot.waiting
        reading = f" *Still reading {waiting:,} results.*" if waiting else ""
        table = gr.update(
            value=display.table(found, view), column_widths=display.widths(found, view)
        )
        return f"### {escaped(headline(found))}{reading}", table, view.query()

    def open(self, event: gr.SelectData, *values: Any) -> tuple[Any, str, str, Any]:
        """The receipt of the cell that was clicked; nothing for a cell without a number."""
        view = view_of(*values)
        closed = gr.update(visible=False), "", "", None
        board = self.desk.board(view)
        names = list(board.models["model"])
        column = event.index[1] - (len(display.headers(board, view)) - len(board.tasks))
        model = str((event.row_value or [""])[0])
        row = names.index(model) if model in names else -1
        if column < 0 or row < 0 or board.row[row, column] < 0:
            return closed
        path = str(board.grid.scores["path"].iloc[board.row[row, column]])
        try:
            found = receipt(self.desk.source.root(), path)
        except UserError as why:
            return gr.update(visible=True), escaped(str(why)), "", None
        return gr.update(visible=True), f"**{escaped(found.title)}**", found.command, found.content

    def save_csv(self, *values: Any) -> str:
        view = view_of(*values)
        return _saved("leaderboard.csv", display.as_csv(self.desk.board(view), view))

    def save_json(self, *values: Any) -> str:
        view = view_of(*values)
        return _saved("leaderboard.json", display.as_json(self.desk.board(view), view))


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


def _saved(name: str, text: str) -> str:
    """A file of that name for the browser to fetch."""
    path = Path(tempfile.mkdtemp(prefix="transferzoo-")) / name
    path.write_text(text, encoding="utf-8")
    return str(path)
