"""The app for scripts: named functions of plain values, what the pages show as data.

from gradio_client import Client
Client(URL).predict(board="linear/top1", api_name="/leaderboard")
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from eval.analysis.finding import portable, read_findings
from eval.common.errors import BadInput, UserError, did_you_mean
from eval.models.objectives import COMPARED
from space.figures.findings import title
from space.figures.style import short_names
from space.labels import shown_objective
from space.pages.leaderboard import view_of
from space.pages.submit import Submit
from space.state import Desk
from space.tables import detection, display
from space.tables.board import headline
from space.tables.comparison import compare as compared
from space.tables.comparison import models
from space.tables.families import families
from space.tables.objectives import differences, summary, transfer_tasks
from space.tables.view import View


class Api:
    """The functions; a user's mistake is ``{"error": sentence}``."""

    def __init__(self, desk: Desk, submissions: Submit) -> None:
        self.desk, self.submissions = desk, submissions

    def register(self) -> None:
        """Make them endpoints of the app that is being built."""
        for function in (self.leaderboard, self.leaderboard_csv, self.objectives, self.compare,
                         self.detection, self.findings, self.requests, self.submit):  # fmt: skip
            gr.api(function, api_name=function.__name__, api_description=function.__doc__)

    def leaderboard(
        self, board: str = "", search: str = "", objectives: list[str] | None = None,
        domains: list[str] | None = None, tasks: list[str] | None = None, most_params: float = 0.0,
        whole: bool = False, pretraining: bool = False, sort: str = "mean", rising: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """A board: its headline, its URL query, and one row a model in percent. ``board`` is
        protocol/score[/setting] as in the page's address, by default 5-shot."""
        view = view_of(board, search, objectives, domains, tasks, most_params, whole, pretraining,
                       View().extras, sort, rising, True)  # fmt: skip
        try:
            found = self.desk.board(view)
        except UserError as why:
            return {"error": str(why)}
        return {"headline": headline(found), **json.loads(display.as_json(found, view))}

    def leaderboard_csv(self, board: str = "") -> str:
        """A whole board as CSV text; a mistake is one line that says so."""
        view = View(board=board[:200])
        try:
            return display.as_csv(self.desk.board(view), view)
        except UserError as why:
            return f"error: {why}\n"

    def objectives(self, board: str = "", joint: str = "", plain: str = "") -> dict[str, Any]:
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
            return {"error": str(why)}
        frame = differences(grid, family.members[a], family.members[b], transfer_tasks(grid))
        said = summary(frame, shown_objective(a), shown_objective(b))
        return {"models": family.label, "a": a, "b": b, "sentence": said, "tasks": _rows(frame)}

    def compare(self, a: str = "", b: str = "") -> dict[str, Any]:
        """Two models by name on every leaderboard they share; without names, those there are."""
        scores = self.desk.snapshot.scores
        try:
            if not a or not b:
                raise BadInput("name two models")
            found = compared(scores, a[:300], b[:300])
        except UserError as why:
            return {"error": str(why), "models": list(models(scores)["name"])}
        return {
            "a": found.a,
            "b": found.b,
            "boards": [
                {"board": m.key.text, "sentence": m.sentence, "tasks": _rows(m.frame)}
                for m in found.matches
            ],
        }

    def detection(self, data_set: str = "", score: str = "ap") -> dict[str, Any]:
        """Detectors on one data set under one setting, best first, with paired tests against the
        first; fractions of one. Without a name the fullest; ``data_sets`` are those there are."""
        scores = self.desk.snapshot.scores
        found = {title: place for place, title in detection.places(scores).items()}
        if not found:
            return {"error": detection.NOTHING, "data_sets": []}
        title = data_set or next(iter(found))
        place = found.get(title)
        known = detection.score_names(scores, place) if place else []
        if place is None or score not in known:
            near = did_you_mean(*((title, list(found)) if place is None else (score, known)), "")
            what = f"data set {title[:200]!r}" if place is None else f"score {score[:200]!r}"
            return {"error": f"no {what} here{near}", "data_sets": list(found)}
        table = detection.standing(scores, place, score)
        return {"data_set": title, "setting": place.setting, "score": score,
                "headline": detection.headline(table, score, short_names(table)),
                "rows": _rows(table.drop(columns="path")), "data_sets": list(found)}  # fmt: skip

    def findings(self, name: str = "") -> dict[str, Any]:
        """What the analyses found: each one's name, title and sentence; with ``name`` that one
        whole, with its values and receipts."""
        root = self.desk.source.root()
        # "path" would be a file to download, for gradio's client
        found = {str(p.relative_to(root)): f for p, f in read_findings(root)}
        if not name:
            rows = [{"name": n, "analysis": f.analysis, "title": title(f), "sentence": f.sentence}
                    for n, f in found.items()]  # fmt: skip
            return {"findings": rows}
        if name not in found:
            return {"error": f"no finding {name[:200]!r} here" + did_you_mean(name[:200], found)}
        return portable(found[name]).model_dump(mode="json")

    def requests(self) -> list[dict[str, Any]]:
        """The submitted models and what became of them, the latest first."""
        table = self.submissions.requests()
        return [dict(zip(table["headers"], row, strict=True)) for row in table["data"]]

    def submit(self, model: str, request: gr.Request) -> str:
        """Ask for a model of the Hub (org/name[@revision]) to be scored; the answer is a
        sentence."""
        return self.submissions.ask_by_script(model, request)


def _rows(frame: Any) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records"))
