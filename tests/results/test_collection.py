"""Results as an object: boards at a prompt and in a notebook, and a data frame."""

from __future__ import annotations

from html.parser import HTMLParser

import pandas

from eval.results.board_text import render
from eval.results.collection import Results
from eval.results.leaderboard import grid, tables
from tests.factories import make_fewshot_result, make_result

HOSTILE = '<script>alert("1")</script>&'


class Cells(HTMLParser):
    """The text of each cell of a page, as a browser would show it, and the names of all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_a_notebook_shows_the_boards_that_the_terminal_shows() -> None:
    found = Results(
        [make_result("zoo:a", top1=0.5), make_result("zoo:b", top1=0.75), make_fewshot_result()]
    )
    assert repr(found) == render(tables(found)).rstrip()
    wanted = [cell for t in tables(found) for line in (grid(t)[0], *grid(t)[1]) for cell in line]
    shown = Cells(found._repr_html_()).cells
    assert [text.split("\n")[0] for text in shown[:-1]] == wanted[:-1]
    assert shown[-1].startswith(wanted[-1])


def test_foreign_names_are_shown_as_they_are() -> None:
    page = Cells(Results([make_result(HOSTILE, task=HOSTILE)])._repr_html_())
    assert HOSTILE in page.cells
    assert "script" not in page.tags


def test_the_frame_has_a_row_for_each_score() -> None:
    found = Results([make_result("zoo:a", top1=0.25), make_fewshot_result(seed=3)])
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns[:2]) == ["model", "revision"]
    assert len(frame) == sum(len(result.scores) for result in found)
    assert frame.value.tolist() == [s.value for r in found for s in r.scores]
    assert frame.score.tolist() == ["top1", "top1_5shot"]
    assert frame.step.isna().all()


def test_nothing_is_no_mistake() -> None:
    assert repr(Results()) == "no results"
    assert "no results" in Results()._repr_html_()
    assert Results().to_frame().empty
