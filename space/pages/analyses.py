"""Page: why some models transfer better. Stored findings as figures, and CKA of two models now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from eval.analysis import ANALYSES, LayerCka, analysis_named
from eval.analysis.finding import Finding, read_findings
from eval.analysis.module import module_of
from eval.common.errors import BadInput, UserError
from eval.common.text import escaped
from eval.data.locations import missing
from eval.models.names import zoo_names
from eval.report.findings import LEADS
from eval.tasks.registry import TASKS, suite_tasks
from space.demo.backbones import Shelf
from space.figures import plots
from space.figures.findings import ODD, cka_map, model_names, pictures, short_sentence, title, views
from space.figures.style import text
from space.labels import facts_label
from space.pages.leaderboard import picker
from space.state import Desk
from space.tables import series

NAMED = 3  # files that are no findings are named, of more the first
MOST_IMAGES = 300  # of each part that a visitor's comparison looks at
HOW = (
    "More come of `transfer-eval analyze profile zoo:all`, `transfer-eval cka A B --task T` and "
    "others with the same `--results`."
)


SERIES = (
    "### On the way: checkpoints of one training\nThe mean over the data sets at each step that "
    "was scored (`transfer-eval run 'local-dir:RUN/step-*'`, or a probe during training), with its "
    "95 % interval. One line is one training."
)


class Analyses:
    """The page's components, and the functions behind its events."""

    def __init__(self, desk: Desk, shelf: Shelf) -> None:
        self.desk, self.shelf = desk, shelf
        with gr.Row():
            self.finding = picker(label="Finding", elem_id="finding", scale=3)
            self.view = picker(label="Show", elem_id="finding-view")
        self.said = gr.Markdown(elem_id="finding-said")
        self.plot = gr.Plot(show_label=False, elem_id="finding-plot")
        self.rebuilt = gr.Gallery(
            show_label=False, columns=8, format="png", object_fit="contain", visible=False,
            height="auto", elem_id="rebuilt",
        )  # fmt: skip
        self.table = gr.Dataframe(
            interactive=False, wrap=True, show_label=False, elem_id="finding-table", buttons=[],
            max_height=420,
        )  # fmt: skip
        self.left_out = gr.Markdown(elem_id="findings-left-out")
        gr.Markdown(HOW)
        with gr.Column(visible=False, elem_id="series") as self.series:
            gr.Markdown(SERIES)
            self.steps_board = picker(label="Protocol", elem_id="steps-protocol")
            self.steps = gr.Plot(show_label=False, elem_id="steps")
        gr.Markdown(
            "### Compare the layers of two models now\nCentred kernel alignment (CKA) of every "
            f"layer of A with every layer of B, on up to {2 * MOST_IMAGES} images of a data set."
        )
        names = [f"zoo:{name}" for name in zoo_names()]
        called = [(facts_label(name), name) for name in names]
        with gr.Row():
            self.a = gr.Dropdown(called, value=_named(names, ".ce_tin100"), label="Model A",
                                 allow_custom_value=True, elem_id="cka-a")  # fmt: skip
            self.b = gr.Dropdown(called, value=_named(names, ".ce_selfsupcon_"), label="Model B",
                                 allow_custom_value=True, elem_id="cka-b")  # fmt: skip
            tasks = self._tasks()
            self.task = gr.Dropdown(tasks, value=tasks[0], label="Images of", elem_id="cka-task")
        self.go = gr.Button("Compare layers", elem_id="cka-go")
        self.likeness = gr.Markdown(elem_id="cka-said")
        self.map = gr.Plot(show_label=False, elem_id="cka-map", visible=False)

    def wire(self, tab: gr.Tab) -> None:
        """Connect the events: nothing is read before the tab is opened."""
        gr.on([tab.select, self.steps_board.input], self.trainings, self.steps_board,
              [self.series, self.steps_board, self.steps], api_visibility="private")  # fmt: skip
        shown = [self.finding, self.view, self.said, self.plot, self.rebuilt, self.table,
                 self.left_out]  # fmt: skip
        gr.on([tab.select, self.finding.input, self.view.input], self.open,
              [self.finding, self.view], shown, api_visibility="private")  # fmt: skip
        self.go.click(
            self.compare, [self.a, self.b, self.task], [self.likeness, self.map],
            concurrency_limit=1, concurrency_id="cka", api_visibility="private",
        )  # fmt: skip

    def findings(self) -> dict[str, Finding]:
        """By path below the results, the newest of each analysis first; at least what ships."""
        from eval.analysis.recommend import SHIPPED, shipped

        root = self.desk.source.root()
        found = [(p, f) for p, f in read_findings(root) if f.analysis in ANALYSES]
        found.sort(key=lambda item: item[1].created, reverse=True)
        found.sort(key=lambda item: list(ANALYSES).index(item[1].analysis))
        own = {str(p.relative_to(root)): f for p, f in found}
        forecast = any(f.analysis == "predictors" for f in own.values())
        return own if forecast else own | {SHIPPED: shipped()}

    # ------------------------------------------------------------------ behind the events

    def open(self, name: str, view: str) -> list[Any]:
        """Today's findings, one of them in words, as a figure and as a table."""
        found = self.findings()
        name = name if name in found else next(iter(found))
        finding = found[name]
        choices = [(text(title(f), 90), path) for path, f in found.items()]
        picks = gr.update(choices=choices, value=name)
        try:
            known = views(finding)
            view = view if view in known else next(iter(known))
            figure, images, table = known[view](), pictures(finding), _table(finding)
        except UserError as why:
            said = escaped(str(why))
            closed = gr.update(visible=False)
            return [picks, gr.skip(), said, plots.empty(str(why)), closed, None, self._left_out()]
        return [
            picks, gr.update(choices=[(text(v, 60), v) for v in known], value=view),
            _said(finding), figure, gr.update(value=images, visible=bool(images)), table,
            self._left_out(),
        ]  # fmt: skip

    def trainings(self, board: str) -> list[Any]:
        """Trainings that were scored on their way; closed where there are none."""
        scores = self.desk.snapshot.scores
        known = series.boards(scores)
        if not known:
            return [gr.update(visible=False), gr.skip(), None]
        key = next((k for k in known if k.text == board), known[0])
        return [
            gr.update(visible=True),
            gr.update(choices=[(k.title, k.text) for k in known], value=key.text),
            plots.steps(series.steps(scores, key), key.what),
        ]

    def _left_out(self) -> str:
        """Files among the findings that are none, by name."""
        told: list[str] = []
        root = self.desk.source.root()
        read_findings(root, say=lambda line: told.append(line.replace(f"{root}/", "")))
        more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
        return escaped("; ".join([*told[:NAMED], *more]))

    def compare(self, a: str, b: str, task: str) -> tuple[str, Any]:
        """CKA of two models that a visitor may name, computed now or from the cache."""
        from eval.analysis.analyze import analyze
        from eval.data.load import load_task

        hidden = gr.update(visible=False)
        try:
            if task not in self._tasks():
                raise BadInput("choose a data set from the list")
            for model in (a, b):
                self.shelf.get(model or "")  # refuses what may not be named, or is too large
            data = load_task(task, self.desk.cache, self.desk.data, MOST_IMAGES)
            finding = self.shelf.run(lambda: analyze(
                "cka", [a, b], [data], self.desk.cache, settings=LayerCka(), device="cpu"
            ))  # fmt: skip
        except UserError as why:
            return f"**{escaped(str(why))}**", hidden
        return escaped(short_sentence(finding)), gr.update(value=cka_map(finding), visible=True)

    def _tasks(self) -> list[str]:
        """Data sets whose images are here: a visitor's click downloads nothing."""
        data = self.desk.data if isinstance(self.desk.data, Path) else None
        here = [
            name for name, task in TASKS.items()
            if data and task.kind == "classification" and not task.embedded
            and not missing(name, data)
        ]  # fmt: skip
        return [*suite_tasks("mini"), *here]


def _named(names: list[str], part: str) -> str | None:
    return next((n for n in names if part in n), names[0] if names else None)


def _said(finding: Finding) -> str:
    lines = [f"**{escaped(short_sentence(finding))}**", LEADS[finding.analysis]]
    lines += [f"- {escaped(note)}" for note in finding.notes[:8]]
    return "\n\n".join(lines[:2]) + ("\n\n" + "\n".join(lines[2:]) if lines[2:] else "")


def _table(finding: Finding) -> dict[str, Any]:
    try:
        header, lines = module_of(analysis_named(finding.analysis)).table(finding)
    except ODD:
        raise BadInput("this finding is not of this version's form") from None
    called = model_names(finding)
    return {"headers": header, "data": [[called.get(c, c) for c in line] for line in lines[:400]]}
