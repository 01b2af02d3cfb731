"""Page 2: the study's question, live: what does joining another objective change?"""

from __future__ import annotations

from typing import Any

import gradio as gr

from eval.common.errors import UserError
from eval.common.text import escaped
from eval.models.objectives import COMPARED
from space.figures import plots
from space.labels import shown_objective
from space.pages.leaderboard import picker
from space.state import Desk
from space.tables import budgets
from space.tables.families import Family, families
from space.tables.matrix import Grid, Key
from space.tables.objectives import by_domain, differences, pair_tasks, shots, summary

_NONE = (
    "No two models differ in their objective alone here. Score the zoo: transfer-eval run zoo:all"
)


class Objectives:
    """The page's components, and the functions behind its events."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Row():
            self.board = picker(label="Protocol", elem_id="objectives-protocol")
            self.family = picker(label="Alike but for the objective")
            self.pair = picker(label="Compare", elem_id="pair")
        self.said = gr.Markdown(elem_id="objectives-said")
        with gr.Column(elem_id="objectives-body") as self.body:  # only where there is a pair
            self.forest = gr.Plot(show_label=False, elem_id="forest")
            with gr.Accordion("All pairs at once", open=True):
                self.pairs = gr.Dataframe(
                    headers=["comparison", "mean difference", "better", "worse", "undecided"],
                    interactive=False, wrap=True, show_label=False, elem_id="pairs",
                    column_widths=["240px", "130px", "80px", "80px", "100px"], buttons=[],
                )  # fmt: skip
            gr.Markdown("### Mean of each domain")
            self.domains = gr.Plot(show_label=False)
            gr.Markdown("### Shots against accuracy")
            self.shots = gr.Plot(show_label=False)
        with gr.Column(visible=False, elem_id="budgets") as self.study:
            gr.Markdown("### Transfer against budget, over several trainings")
            self.score = picker(label="Score", elem_id="budget-score")
            self.decided = gr.Markdown()
            self.budgets = gr.Plot(show_label=False)
            self.contrasts = gr.Dataframe(
                interactive=False, wrap=True, show_label=False, elem_id="contrasts", buttons=[]
            )

    @property
    def choices(self) -> list[Any]:
        return [self.board, self.family, self.pair]

    def wire(self, tab: gr.Tab) -> None:
        """Connect the events: nothing is drawn before the tab is opened."""
        shown = [self.body, self.said, self.forest, self.pairs, self.domains, self.shots]
        gr.on([tab.select, self.board.input, self.family.input], self.open, self.choices,
              [*self.choices, *shown], api_visibility="private")  # fmt: skip
        gr.on([tab.select, self.score.input], self.studied, [self.score],
              [self.study, self.score, self.decided, self.budgets, self.contrasts],
              api_visibility="private")  # fmt: skip
        self.pair.input(self.compare, self.choices, [self.said, self.forest],
                        api_visibility="private")  # fmt: skip

    # ------------------------------------------------------------------ behind the events

    def open(self, board: str, family: str, pair: str) -> list[Any]:
        """Today's choices, and everything that is drawn for them."""
        boards = [(k.title, k.text) for k in self.desk.boards()]
        try:
            key, grid, found, chosen = self._chosen(board, family)
        except UserError as why:
            closed = gr.update(visible=False)
            known = [text for _, text in boards]
            here = board if board in known or not known else self.desk.key("").text
            picks = gr.update(choices=boards, value=here, visible=bool(boards))
            return [picks, closed, closed, closed, escaped(str(why)), *[gr.skip()] * 4]
        pairs = chosen.pairs(COMPARED)
        names = [_pair_name(p) for p in pairs]
        pair = pair if pair in names else (names[0] if names else "")
        rows = list(chosen.members.values())
        labels = grid.models[["label", "revision"]].iloc[rows].itertuples(index=False, name=None)
        curves = shots(grid.scores, list(labels), setting=key.setting)
        return [
            gr.update(choices=boards, value=key.text, visible=True),
            gr.update(choices=[f.label for f in found], value=chosen.label, visible=True),
            gr.update(choices=names, value=pair, visible=True), gr.update(visible=True),
            *self._compared(grid, chosen, pair),
            self._all(grid, chosen), plots.domains(by_domain(grid, rows), key.what),
            plots.shots(curves),
        ]  # fmt: skip

    def compare(self, board: str, family: str, pair: str) -> tuple[str, Any]:
        """One pair of objectives: the outcome in words, and the forest plot."""
        try:
            _, grid, _, chosen = self._chosen(board, family)
        except UserError as why:
            return escaped(str(why)), plots.empty(str(why))
        return self._compared(grid, chosen, pair)

    def studied(self, score: str | None) -> list[Any]:
        """What the study beside the results says so far; nothing is shown where there is none."""
        found, problems = budgets.studies(self.desk.source.root())
        if not found and not problems:
            return [gr.update(visible=False), *[gr.skip()] * 4]
        left_out = escaped(" ".join(f"Left out: {problem}" for problem in problems))
        if not found:
            return [gr.update(visible=True), gr.skip(), left_out, *[gr.skip()] * 2]
        one = found[0]
        titles = [asked.title for asked in one.table.plan.questions]
        score = score if score in titles else titles[0]
        said = f"{escaped(budgets.said(one, score))}\n\n{left_out}"
        return [
            gr.update(visible=True), gr.update(choices=titles, value=score), said,
            plots.budgets(budgets.curves(one, score), score), budgets.contrasts(one, score),
        ]  # fmt: skip

    def _chosen(self, board: str, family: str) -> tuple[Key, Grid, list[Family], Family]:
        key = self.desk.key(board or "")
        grid = self.desk.grid(key)
        found = [f for f in families(grid) if f.pairs(COMPARED)]
        if not found:
            raise UserError(_NONE)
        return key, grid, found, next((f for f in found if f.label == family), found[0])

    def _compared(self, grid: Grid, family: Family, pair: str) -> tuple[str, Any]:
        known = {_pair_name(p): p for p in family.pairs(COMPARED)}
        if pair not in known:
            return escaped(_NONE), plots.empty(_NONE)
        a, b = known[pair]
        names = shown_objective(a), shown_objective(b)
        frame, apart = _frames(grid, family, (a, b))
        figure = plots.forest(frame, *names, a_objective=a, b_objective=b)
        count = family.trainings[a], family.trainings[b]
        return escaped(summary(frame, *names, trainings=count, apart=apart)), figure

    def _all(self, grid: Grid, family: Family) -> Any:
        rows = []
        for a, b in family.pairs(COMPARED):
            frame, _ = _frames(grid, family, (a, b))
            counts = frame["verdict"].value_counts()
            rows.append([
                _pair_name((a, b)), f"{100 * frame['difference'].mean():+.1f} points",
                *(int(counts.get(v, 0)) for v in ("better", "worse", "undecided")),
            ])  # fmt: skip
        return gr.update(value=rows)


def _frames(grid: Grid, family: Family, pair: tuple[str, str]) -> tuple[Any, Any]:
    """The differences of two objectives, and those that stand apart."""
    a, b = (family.members[name] for name in pair)
    kept, others = pair_tasks(grid, a, b)
    return differences(grid, a, b, kept), differences(grid, a, b, others)


def _pair_name(pair: tuple[str, str]) -> str:
    return f"{shown_objective(pair[0])} against {shown_objective(pair[1])}"
