"""Page 3: two models on the same questions, and the pictures on which they disagree."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import gradio as gr

from eval.common.errors import BadInput, UserError
from eval.common.text import escaped, p_value
from eval.models.facts import UNTRAINED
from eval.protocols import PROTOCOLS
from eval.results.transfer import SIGN
from space.examples_disagreement import Disagreement, disagreements
from space.figures import plots
from space.labels import chance, shown_objective
from space.pages.leaderboard import picker
from space.state import Desk
from space.tables.comparison import Comparison, Match, compare, models

About = dict[Hashable, Any]  # a row of `models`
_NO_DATA = "Start with `--data DIR` to see pictures of data sets that do not come with the package."
_BOXES = "a detector has no one answer an image; the page Detection shows its boxes"
# What was shown of another question: pictures, what is told of them, their table.
_CLOSED = (gr.update(visible=False), "", gr.update(visible=False))


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
        self.table = gr.Dataframe(interactive=False, wrap=True, show_label=False, buttons=[])
        gr.Markdown(
            "### Where they disagree\nTest pictures that exactly one of the two gets right, with "
            "the answers of a classifier on the features of each."
        )
        with gr.Row():
            self.task = gr.Dropdown([], label="Data set", scale=3, allow_custom_value=True)
            self.show = gr.Button("Show pictures", elem_classes="beside")
        self.pictures = gr.Gallery(
            show_label=False, columns=6, format="png", object_fit="contain",
            elem_classes="pictures", height=260, visible=False, elem_id="disagreements",
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
        answer = [self.pictures, self.told, self.cases]
        shown = [*self.choices, self.said, self.forest, self.table, self.task]
        gr.on([tab.select, self.a.input, self.b.input, self.board.input], self.open, self.choices,
              shown, api_visibility="private")  # fmt: skip
        # At once, not with the comparison: that may come after the pictures of the new choice.
        gr.on([self.a.input, self.b.input, self.board.input, self.task.input], lambda: _CLOSED,
              None, answer, queue=False, show_progress="hidden",
              api_visibility="private")  # fmt: skip
        self.show.click(
            self.look, [self.a, self.b, self.board, self.task], answer,
            concurrency_limit=1, concurrency_id="disagreements", api_visibility="private",
        )  # fmt: skip

    # ------------------------------------------------------------------ behind the events

    def open(self, a: str, b: str, board: str) -> list[Any]:
        """Today's choices, the outcome in words, a forest plot and the numbers behind it."""
        scores = self.desk.snapshot.scores
        known = models(scores)
        about = {str(row["name"]): row for row in known.to_dict("records")}
        names = [(_label(row), name) for name, row in about.items()]
        values = list(about)
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
        tasks = [*match.frame["task"], *match.apart["task"]]
        one, two = about[a], about[b]
        short = _short(one, two)
        figure = plots.forest(
            match.frame, *short,
            a_objective=str(one["objective"]), b_objective=str(two["objective"]),
        )  # fmt: skip
        return [
            *picks, gr.update(choices=boards, value=match.key.text),
            _sentences(found, match, short),
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
            found = disagreements(
                a, b, task, self.desk.data, self.desk.cache,
                protocol="knn" if protocol == "knn" else "linear",
            )  # fmt: skip
        except UserError as why:
            hint = "" if self.desk.data or str(why) == _BOXES else f" {_NO_DATA}"
            return _CLOSED[0], f"**{escaped(str(why))}**{hint}", _CLOSED[2]
        rows = [
            [i, c.truth, c.predicted_a, c.predicted_b, "A" if c.a_right else "B"]
            for i, c in enumerate(found.cases, 1)
        ]
        pictures = [(c.image, str(i)) for i, c in enumerate(found.cases, 1)]
        some = bool(rows)
        return (
            gr.update(value=pictures, visible=some),
            _told(found, protocol),
            gr.update(value=rows, visible=some),
        )


def _label(row: About) -> str:
    """A model by the objective that is declared of it, else by its name."""
    if row["objective"] in ("", UNTRAINED):
        return str(row["name"])
    label = f"{shown_objective(row['objective'])} ({row['architecture'] or row['model']})"
    return label if row["model"] == row["name"] else f"{label} @{row['revision'][:7]}"


def _told(found: Disagreement, protocol: str) -> str:
    """The true counts, and whose answers they are."""
    shown = sum(case.a_right for case in found.cases), len(found.cases)
    whose = "the answers of the k nearest neighbours" if found.protocol == "knn" else (
        "the answers of the linear classifier"
    )  # fmt: skip
    instead = ""
    if protocol not in ("knn", "linear"):
        instead = f" ({protocol} has no one answer for each picture)"
    return (
        f"Of {found.images:,} test pictures A alone is right on {found.a_alone:,}, B alone on "
        f"{found.b_alone:,}, both on {found.both:,}, neither on {found.neither:,}: {whose}"
        f"{instead}. Shown are {shown[0]} of A's and {shown[1] - shown[0]} of B's, as many of each "
        "as there is room for: the pictures are no count."
    )


def _first(known: Any, objective: str, values: list[str], fallback: int) -> str:
    mine = list(known["name"][known["objective"] == objective])
    return mine[0] if mine else values[fallback] if len(values) > fallback else ""


def _short(one: About, two: About) -> tuple[str, str]:
    """The objectives alone where they tell the two apart and nothing else differs in how they were
    made, as far as that is declared."""
    alike = one["making"] == two["making"] != ""
    a, b = one["objective"], two["objective"]
    if alike and a and b and a != b and UNTRAINED not in (a, b):
        return shown_objective(a), shown_objective(b)
    return _label(one), _label(two)


def _sentences(found: Comparison, match: Match, short: tuple[str, str]) -> str:
    better, worse, undecided = found.totals
    a, b = short
    over = (
        f"Over all protocols {a} is better in {better} of {better + worse + undecided} "
        f"comparisons, worse in {worse}, undecided in {undecided}; sets that one of them was "
        "pretrained on do not count."
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
    found = [(row, "") for row in match.frame.itertuples()]
    found += [(row, f" {SIGN}") for row in match.apart.itertuples()]
    rows = [
        [
            row.task + sign, f"{100 * row.a:.1f}", f"{100 * row.b:.1f}",
            f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
            f"{row.wins} / {row.losses} of {row.n} {row.unit}s",
            p_value(row.p_holm),
            "apart" if sign else row.verdict,
        ]
        for row, sign in found
    ]  # fmt: skip
    return {"headers": headers, "data": rows}
