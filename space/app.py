"""The app: its pages on one desk. ``python -m space`` serves it; a Hugging Face Space runs this.

There TRANSFERZOO_RESULTS and TRANSFERZOO_QUEUE may name data set repositories (``hub:ORG/NAME``).
"""

# ruff: noqa: E402  (the environment is set before what reads it is imported)

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no request to other hosts
if (HERE / "model_cards").is_dir():  # a Space holds its own: said before eval is imported
    os.environ.setdefault("TRANSFERZOO_ZOO", str(HERE / "model_cards"))

from space.stubs import leave_stubs

leave_stubs()

import gradio as gr

from eval.common.files import default_cache
from eval.data.locations import Data
from eval.models.names import ZOO_FOLDER
from eval.results.store import result_files
from space.address import Address, query_of
from space.api import Api
from space.classify_api import ClassifyApi
from space.demo.backbones import Shelf
from space.pages.about import about
from space.pages.analyses import Analyses
from space.pages.compare import Compare
from space.pages.detection import Detection
from space.pages.fewshot import FewShot
from space.pages.leaderboard import Leaderboard
from space.pages.objectives import Objectives
from space.pages.submit import Submit
from space.source import STEP, Source
from space.state import Desk
from space.theme import CSS, HEAD, THEME
from space.warm_up import after_it, warm_up

TITLE = "TransferZoo"
_TOP = """<header id="top"><h1>TransferZoo</h1>
<p>Which pretraining objective gives features that transfer?</p>
<span id="told-aloud" role="status"></span>
<button type="button" class="tool" onclick="transferzoo.copyLink()">Copy link</button></header>"""


def build(desk: Desk) -> gr.Blocks:
    """All pages as tabs; plots are made when their tab is opened."""
    shelf = Shelf(desk.cache)
    with gr.Blocks(title=TITLE, delete_cache=(3600, 3600)) as app:
        gr.HTML(_TOP, apply_default_css=False)
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Leaderboard", id="leaderboard"):
                board = Leaderboard(desk)
            with gr.Tab("Objectives", id="objectives") as objectives_tab:
                objectives = Objectives(desk)
            with gr.Tab("Compare", id="compare") as compare_tab:
                compare = Compare(desk)
            with gr.Tab("Detection", id="detection") as detection_tab:
                detection = Detection(desk)
            with gr.Tab("Analyses", id="analyses") as analyses_tab:
                analyses = Analyses(desk, shelf)
            with gr.Tab("Which model?", id="fewshot"):
                fewshot = FewShot(shelf)
            with gr.Tab("Submit", id="submit") as submit_tab:
                submit = Submit(desk.queue, desk.cache)
            with gr.Tab("About", id="about"):
                about()
        Api(desk).register()  # first: a page's events would take its names
        ClassifyApi(shelf).register()
        board.wire()
        objectives.wire(objectives_tab)
        compare.wire(compare_tab)
        detection.wire(detection_tab)
        analyses.wire(analyses_tab)
        fewshot.wire()
        submit.wire()
        submit_tab.select(submit.requests, None, submit.table, api_visibility="private")
        address = Address({
            "objectives": {"protocol": objectives.board, "family": objectives.family,
                           "pair": objectives.pair},
            "compare": {"a": compare.a, "b": compare.b, "protocol": compare.board,
                        "data": compare.task},
            "detection": {"data": detection.place, "order": detection.score, "a": detection.a,
                          "b": detection.b},
            "analyses": {"finding": analyses.finding, "view": analyses.view},
            "fewshot": {"example": fewshot.example, "models": fewshot.models},
        })  # fmt: skip
        address.wire()
        for name, table in (("pairs", objectives.pairs), ("compared", compare.table),
                            ("cases", compare.cases), ("detectors", detection.table),
                            ("detection-classes", detection.classes),
                            ("finding-table", analyses.table),
                            ("requests", submit.table)):  # fmt: skip
            table.elem_id = name
            _offer_csv(name, table)

        def restore(query: dict[str, str]) -> list[Any]:
            return [*board.restore(query), *address.restore(query)]

        def opened(request: gr.Request) -> list[Any]:
            return restore(dict(request.query_params))

        outputs = [*board.inputs, *board.outputs, *board.slip, *address.components]
        arrived = app.load(opened, None, outputs, api_visibility="private")
        arrived.then(None, None, None, js="() => transferzoo.arrive()")
        arrived.then(warm_up, None, None, queue=False, show_progress="hidden",
                     api_visibility="private")  # fmt: skip
        # The browser's back button: the script clicks this with the address that it went to.
        back = gr.Button(visible="hidden", elem_id="restore")
        went = back.click(
            lambda text: restore(query_of(text)), board.query, outputs,
            js="() => [location.search]", show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        went.then(None, None, None, js="() => transferzoo.restored()")
        for tab in (objectives_tab, compare_tab, detection_tab, analyses_tab):
            _draw_again(app, tab)
        for event in app.fns.values():
            if event.fn is not None and event.fn not in (opened, warm_up):
                event.fn = after_it(event.fn)
    return app


def _draw_again(app: gr.Blocks, tab: gr.Tab) -> None:
    """A hidden button that does what opening the tab does, for a tab that is open already."""
    button = gr.Button(visible="hidden", elem_id=f"again-{tab.id}")
    for event in list(app.fns.values()):
        if (tab._id, "select") in event.targets:
            button.click(event.fn, event.inputs, event.outputs, api_visibility="private")


def _offer_csv(name: str, table: gr.Dataframe) -> None:
    """A table's file, made in the browser: the script puts a button under the table."""
    button = gr.Button(visible="hidden", elem_id=f"csv-of-{name}")
    button.click(None, table, None, js=f"t => transferzoo.csv(t, {json.dumps(f'{name}.csv')})",
                 api_visibility="private")  # fmt: skip


def launch(app: gr.Blocks, **options: Any) -> Any:
    """Serve it with the project's look and limits."""
    return app.queue(default_concurrency_limit=4, max_size=200).launch(
        theme=THEME, css=CSS, head=HEAD, max_file_size="10mb", footer_links=["api"], **options
    )


def desk_of(results: str, cache: Path, data: Data | None = None, queue: str = "") -> Desk:
    """The desk of a served app: its results are looked for again every minute."""
    source = Source(results, cache)
    if sum(1 for _ in islice(result_files(source.root()), STEP)) < STEP:
        source.refresh()  # few: there from the first page on
    source.watch(60.0, lambda text: print(text, file=sys.stderr))
    return Desk(source, cache, data, queue)


def _settings() -> dict[str, str]:
    """What ``transfer-space --push`` wrote beside this file."""
    path = HERE / "settings.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


if __name__ == "__main__":
    settings = _settings()
    results = os.environ.get("TRANSFERZOO_RESULTS") or settings.get("results") or str(ZOO_FOLDER)
    queue = os.environ.get("TRANSFERZOO_QUEUE") or settings.get("queue", "")
    launch(build(desk_of(results, default_cache(), queue=queue)))
