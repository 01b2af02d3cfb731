"""The app for scripts: named functions of plain values, what the pages show as data.

Names and types of the answers stand in `space.answers`; ``/gradio_api/openapi.json`` has them as
OpenAPI.

    from gradio_client import Client
    Client(URL).predict(board="linear/top1", api_name="/leaderboard")
"""

from __future__ import annotations

import json
import os
from typing import Any, get_type_hints

import gradio as gr

from eval.analysis.finding import portable, read_findings
from eval.common.errors import BadInput, UserError, did_you_mean
from eval.models.objectives import COMPARED
from eval.queue.candidate import check
from eval.queue.open import open_queue
from space.answers import (
    BoardAnswer,
    CompareAnswer,
    DetectionAnswer,
    FindingsAnswer,
    ObjectivesAnswer,
    RequestRow,
    RequestsAnswer,
    SubmitAnswer,
    schema,
)
from space.figures.findings import title
from space.figures.style import short_names
from space.labels import shown_objective
from space.pages.leaderboard import view_of
from space.state import Desk
from space.tables import detection, display
from space.tables.board import headline
from space.tables.comparison import compare as compared
from space.tables.comparison import models
from space.tables.families import families
from space.tables.objectives import differences, pair_tasks, summary
from space.tables.view import View

NO_QUEUE = "this app has no queue for requests; start it with --queue DIR or hub:ORG/NAME"
_LOG_IN = "log in on the page to submit: requests are counted by user"


class Api:
    """The functions; a user's mistake is a sentence under ``error``."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def register(self) -> None:
        """Make them endpoints of the app that is being built."""
        for function in (self.leaderboard, self.leaderboard_csv, self.objectives, self.compare,
                         self.detection, self.findings, self.requests, self.submit):  # fmt: skip
            gr.api(function, api_name=function.__name__, api_description=function.__doc__)
            # gradio knows no typed mappings
            latest_output()._api_info = schema(get_type_hints(function)["return"])

    def leaderboard(
        self, board: str = "", search: str = "", objectives: list[str] | None = None,
        domains: list[str] | None = None, tasks: list[str] | None = None, most_params: float = 0.0,
        whole: bool = False, pretraining: bool = False, sort: str = "mean", rising: bool = False,
    ) -> BoardAnswer:  # fmt: skip
        """A board: its headline, its URL query, and one row a model in percent. ``board`` is
        protocol/score[/setting] as in the page's address, by default 5-shot."""
        view = view_of(board, search, objectives, domains, tasks, most_params, whole, pretraining,
                       View().extras, sort, rising, True)  # fmt: skip
        try:
            found = self.desk.board(view)
        except UserError as why:
            return {
                "error": str(why), "headline": "", "protocol": "", "setting": "", "score": "",
                "unit": "percent", "level": 0.95, "kinds": {}, "apart": [], "view": view.query(),
                "rows": [],
            }  # fmt: skip
        shown = json.loads(display.as_json(found, view))
        return {"error": "", "headline": headline(found), **shown}  # type: ignore[typeddict-item]

    def leaderboard_csv(self, board: str = "") -> str:
        """A whole board as CSV text; a mistake is one line that says so."""
        view = View(board=board[:200])
        try:
            return display.as_csv(self.desk.board(view), view)
        except UserError as why:
            return f"error: {why}\n"

    def objectives(self, board: str = "", joint: str = "", plain: str = "") -> ObjectivesAnswer:
        """Paired differences between two objectives (``ce+selfsupcon``, ``ce``) of the zoo's
        models, by data set, with the outcome in words; without names, the first pair there is."""
        try:
            grid = self.desk.grid(self.desk.key(board[:200]))
            found = families(grid)
            pairs = [(joint, plain)] if joint or plain else list(COMPARED)
            some = ((f, p) for f in found for p in f.pairs(tuple(pairs)))
            family, (a, b) = next(some, (None, ("", "")))
            if family is None:
                raise BadInput(f"no two models here differ in {joint or 'their objective'} alone")
        except UserError as why:
            return {"error": str(why), "models": "", "a": "", "b": "", "sentence": "", "tasks": [],
                    "apart": []}  # fmt: skip
        rows = family.members[a], family.members[b]
        frame, apart = (differences(grid, *rows, t) for t in pair_tasks(grid, *rows))
        names, counts = map(shown_objective, (a, b)), (family.trainings[a], family.trainings[b])
        said = summary(frame, *names, trainings=counts, apart=apart)
        return {"error": "", "models": family.label, "a": a, "b": b, "sentence": said,
                "tasks": _rows(frame), "apart": _rows(apart)}  # fmt: skip

    def compare(self, a: str = "", b: str = "") -> CompareAnswer:
        """Two models by name on every leaderboard that they share; ``models`` are those there
        are."""
        scores = self.desk.snapshot.scores
        known = list(models(scores)["name"])
        try:
            if not a or not b:
                raise BadInput("name two models")
            found = compared(scores, a[:300], b[:300])
        except UserError as why:
            return {"error": str(why), "a": "", "b": "", "boards": [], "models": known}
        return {
            "error": "", "a": found.a, "b": found.b, "models": known,
            "boards": [
                {"board": m.key.text, "sentence": m.sentence, "tasks": _rows(m.frame),
                 "apart": _rows(m.apart)}
                for m in found.matches
            ],
        }  # fmt: skip

    def detection(self, data_set: str = "", score: str = "ap") -> DetectionAnswer:
        """Detectors on one data set under one setting, best first, with paired tests against the
        first; fractions of one. Without a name the fullest; ``data_sets`` are those there are."""
        scores = self.desk.snapshot.scores
        found = {title: place for place, title in detection.places(scores).items()}
        name = data_set or next(iter(found), "")
        place = found.get(name)
        known = detection.score_names(scores, place) if place else []
        if place is None or score not in known:
            near = did_you_mean(*((name, list(found)) if place is None else (score, known)), "")
            what = f"data set {name[:200]!r}" if place is None else f"score {score[:200]!r}"
            why = f"no {what} here{near}" if found else detection.NOTHING
            return {"error": why, "data_set": "", "setting": "", "score": score[:200],
                    "headline": "", "rows": [], "data_sets": list(found)}  # fmt: skip
        table = detection.standing(scores, place, score)
        columns = ["model", "revision", "objective", "subset", "value", "low", "high", "kind",
                   "difference", "d_low", "d_high", "d_kind", "p", "verdict"]  # fmt: skip
        return {"error": "", "data_set": name, "setting": place.setting, "score": score,
                "headline": detection.headline(table, score, short_names(table)),
                "rows": _rows(table[columns]), "data_sets": list(found)}  # fmt: skip

    def findings(self, name: str = "") -> FindingsAnswer:
        """What the analyses found: each one's name, title and sentence; with ``name`` that one
        whole under ``finding``, with its values and receipts."""
        root = self.desk.source.root()
        # "path" would be a file to download, for gradio's client
        found = {str(p.relative_to(root)): f for p, f in read_findings(root)}
        if not name:
            return {"error": "", "finding": {}, "findings": [
                {"name": n, "analysis": f.analysis, "title": title(f), "sentence": f.sentence}
                for n, f in found.items()
            ]}  # fmt: skip
        if name not in found:
            why = f"no finding {name[:200]!r} here" + did_you_mean(name[:200], found)
            return {"error": why, "finding": {}, "findings": []}
        whole = portable(found[name]).model_dump(mode="json")
        return {"error": "", "finding": whole, "findings": []}

    def requests(self) -> RequestsAnswer:
        """The submitted models and what became of them, the latest first."""
        try:
            tickets = open_queue(self.desk.queue).tickets() if self.desk.queue else []
        except UserError as why:
            return {"error": str(why), "requests": []}
        rows: list[RequestRow] = []
        for ticket in reversed(tickets):
            model, _, commit = ticket.ask.spec.removeprefix("hf-hub:").partition("@")
            rows.append({
                "model": model, "commit": commit, "state": ticket.state, "note": ticket.note,
                "asked_by": ticket.ask.user, "since": ticket.since,
            })  # fmt: skip
        return {"error": "", "requests": rows}

    def submit(self, model: str, request: gr.Request) -> SubmitAnswer:
        """Ask for a model of the Hub (org/name[@revision]) to be scored; the answer is what was
        found of it, and the state of its request."""
        host = request.client.host if request and request.client else "unknown"
        try:
            if os.environ.get("SPACE_ID"):  # on the Hub, where a script cannot log in
                raise UserError(_LOG_IN)
            if not self.desk.queue:
                raise UserError(NO_QUEUE)
            found = check(model or "", self.desk.cache)
            ticket = open_queue(self.desk.queue).add(found, f"visitor {host}")
        except UserError as why:
            return {"error": str(why), "model": "", "commit": "", "architecture": "", "params": 0,
                    "bytes": 0, "licence": "", "state": "", "note": ""}  # fmt: skip
        return {
            "error": "", "model": found.repo, "commit": found.sha,
            "architecture": found.architecture, "params": found.params or 0, "bytes": found.bytes,
            "licence": found.licence or "", "state": ticket.state, "note": ticket.note,
        }  # fmt: skip


def latest_output() -> Any:
    """The component that stands for what the endpoint registered last gives back."""
    root = gr.context.Context.root_block
    assert root is not None
    return root.fns[max(root.fns)].outputs[0]


def _rows(frame: Any) -> Any:
    return json.loads(frame.to_json(orient="records"))
