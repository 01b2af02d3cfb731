"""Page 3: two models on the same questions, and the pictures on which they disagree."""

from __future__ import annotations

from typing import Any

import gradio as gr

from eval.common.errors import BadInput, UserError
from eval.common.text import escaped
from eval.protocols import PROTOCOLS
from eval.tasks.registry import TASKS
from space.examples_disagreement import disagreements
from space.figures import plots
from space.labels import chance, facts_label, shown_objective
from space.pages.leaderboard import picker
from space.state import Desk
from space.tables.comparison import Comparison, Match, compare, models
from space.tables.scores import facts

_NO_DATA = "Start with `--data DIR` to see pictures of data sets that do not come with the package."


_BOXES = "a detector has no one answer an image; the page Detection shows its boxes"


class Compare:
    """The page's components, and the functions behind its events."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Row():
            self.a = picker(label="Model A", elem_id="model-a")
            self.b = picker(label="Model B", elem_id="model-b")
            self.board = picker(label="Protocol")
        self.said = gr.Markdown(elem_id="compare-said")
        self.forest = gr.Plot(show_label=False)
        self.table = gr.Dataframe(interactive=False, wrap=True, show_label=False)
        gr.Markdown(
            "### Where they disagree\nTest pictures that exactly one of the two gets right."
        )
        with gr.Row():
            self.task = gr.Dropdown([], label="Data set", scale=3, allow_custom_value=True)
            self.show = gr.Button("Show pictures", scale=1)
        self.pictures = gr.Gallery(
            show_label=False, columns=6, format="png", object_fit="contain",
            elem_classes="pictures", height=260,
        )  # fmt: skip
        self.told = gr.Markdown(elem_id="told")
        self.cases = gr.Dataframe(
            headers=["picture", "truth", "A says", "B says", "right"], interactive=False,
            wrap=True, show_label=False, visible=False, elem_id="cases", buttons=[],
        )  # fmt: skip

    @property
    def choices(self) -> list[Any]:
        return [self.a, self.b, self.board]

    def wire(self, tab: gr.Tab) -> None:
        """Connect the events: nothing is computed before the tab is opened."""
        shown = [*self.choices, self.said, self.forest, self.table, self.task]
        gr.on([tab.select, self.a.input, self.b.input, self.board.input], self.open, self.choices,
              shown, api_visibility="private")  # fmt: skip
        self.show.click(
            self.look, [self.a, self.b, self.board, self.task],
            [self.pictures, self.told, self.cases],
            concurrency_limit=1, concurrency_id="disagreements", api_visibility="private",
        )  # fmt: skip

    # ------------------------------------------------------------------ behind the events

    def open(self, a: str, b: str, board: str) -> list[Any]:
        """Today's choices, the outcome in words, a forest plot and the numbers behind it."""
        scores = self.desk.snapshot.scores
        known = models(scores)
        names = [(_label(n), n) for n in known["name"]]
        values = [n for _, n in names]
        a = a if a in values else _first(known, "ce+selfsupcon", values, 0)
        b = b if b in values else _first(known, "ce", values, 1)
        picks = [
            gr.update(choices=names, value=a or None),
            gr.update(choices=names, value=b or None),
        ]
        try:
            found = compare(scores, a, b)
        except UserError as why:
            said = escaped(str(why)) if len(values) > 1 else "Two models are needed to compare."
            return [*picks, gr.skip(), said, plots.empty(said), None, gr.skip()]
        keys = {m.key.text: m for m in found.matches}
        match = keys.get(board) or keys.get("fewshot/top1_5shot") or found.matches[0]
        boards = [(m.key.title, m.key.text) for m in found.matches]
        # what the zoo was pretrained on is not a transfer, and large: last
        tasks = sorted(match.frame["task"], key=lambda t: t in TASKS and TASKS[t].pretrains)
        short = _short(found.a, found.b)
        figure = plots.forest(
            match.frame, *short,
            a_objective=facts(found.a).objective, b_objective=facts(found.b).objective,
        )  # fmt: skip
        return [
            *picks, gr.update(choices=boards, value=match.key.text), _sentences(found, match),
            figure, _table(match), gr.update(choices=tasks, value=tasks[0] if tasks else None),
        ]  # fmt: skip

    def look(self, a: str, b: str, board: str, task: str) -> tuple[Any, str, Any]:
        """Pictures that exactly one of the two models gets right, with both answers."""
        protocol = (board or "linear").partition("/")[0]
        try:
            if protocol in PROTOCOLS and PROTOCOLS[protocol].kind == "detection":
                raise UserError(_BOXES)
            known = set(models(self.desk.snapshot.scores)["name"])
            if a not in known or b not in known or not task:
                raise BadInput("choose two models and a data set first")
            cases = disagreements(
                a, b, task, self.desk.data, self.desk.cache,
                protocol="knn" if protocol == "knn" else "linear",
            )  # fmt: skip
        except UserError as why:
            hint = "" if self.desk.data or str(why) == _BOXES else f" {_NO_DATA}"
            return [], f"**{escaped(str(why))}**{hint}", gr.update(visible=False)
        rows = [
            [i, c.truth, c.predicted_a, c.predicted_b, "A" if c.a_right else "B"]
            for i, c in enumerate(cases, 1)
        ]
        right = sum(c.a_right for c in cases)
        told = f"{len(cases)} pictures: A is right on {right}, B on {len(cases) - right}."
        pictures = [(c.image, str(i)) for i, c in enumerate(cases, 1)]
        return pictures, told, gr.update(value=rows, visible=bool(rows))


def _label(name: str) -> str:
    label = facts_label(name.partition("@")[0])
    return label if label != name.partition("@")[0] else name


def _first(known: Any, objective: str, values: list[str], fallback: int) -> str:
    mine = list(known["name"][known["objective"] == objective])
    return mine[0] if mine else values[fallback] if len(values) > fallback else ""


def _short(a: str, b: str) -> tuple[str, str]:
    """The objectives alone where they tell the two apart and nothing else differs in the names."""
    one, two = facts(a), facts(b)
    alike = (one.architecture, one.data) == (two.architecture, two.data)
    if alike and one.objective and two.objective and one.objective != two.objective:
        return shown_objective(one.objective), shown_objective(two.objective)
    return _label(a), _label(b)


def _sentences(found: Comparison, match: Match) -> str:
    better, worse, undecided = found.totals
    a, b = _short(found.a, found.b)
    over = (
        f"Over all protocols {a} is better in {better} of {better + worse + undecided} "
        f"comparisons, worse in {worse}, undecided in {undecided}."
    )
    # one name may be the beginning of the other: the longer goes first
    said = match.sentence
    for name, label in sorted(((found.a, a), (found.b, b)), key=lambda pair: -len(pair[0])):
        said = said.replace(name, label)
    return f"{escaped(said)}\n\n{escaped(over)}"


def _table(match: Match) -> Any:
    headers = [
        "data set",
        "A, %",
        "B, %",
        f"A - B [95 % over {chance(match.frame['kind'])}]",
        "A better / worse",
        "p (Holm)",
        "verdict",
    ]
    rows = [
        [
            row.task, f"{100 * row.a:.1f}", f"{100 * row.b:.1f}",
            f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
            f"{row.wins} / {row.losses} of {row.n} {row.unit}s",
            f"{row.p_holm:.2g}" if row.p_holm >= 1e-4 else "<0.0001", row.verdict,
        ]
        for row in match.frame.itertuples()
    ]  # fmt: skip
    return {"headers": headers, "data": rows}
