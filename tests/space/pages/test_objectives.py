"""The page Objectives: pairs where there are some, and no controls that do nothing elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from space.pages.objectives import Objectives
from space.source import Source
from space.state import Desk
from tests.space.served import CARDS, many_shelf


def page_of(results: Path, cache: Path) -> Objectives:
    source = Source(str(results), cache)
    source.refresh()
    with gr.Blocks():
        return Objectives(Desk(source, cache))


def test_a_pair_opens_the_page(tmp_path: Path) -> None:
    page = page_of(CARDS, tmp_path / "cache")
    board, family, pair, body, said, forest, table, *_ = page.open("", "", "")
    assert [part["visible"] for part in (board, family, pair, body)] == [True] * 4
    assert board["value"] == "fewshot/top1_5shot"
    assert said.startswith("CE+SelfSupCon is better than CE on 2 of 10 data sets")
    assert len(forest.data[0].x) == 2
    assert len(table["value"]) == len(pair["choices"])


def test_models_that_differ_in_more_close_it(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    page = page_of(many_shelf(tmp_path / "shelf", 3), tmp_path / "cache")
    board, family, pair, body, said, *_ = page.open("linear/top1", "", "")
    assert said.startswith("No two models differ in their objective alone here.")
    assert "`" not in said
    assert [part["visible"] for part in (family, pair, body)] == [False] * 3
    assert board["visible"]
    assert board["value"] == "linear/top1"  # another protocol may have pairs


def test_without_results_there_is_nothing_to_choose(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    board, *others, said = page_of(tmp_path / "shelf", tmp_path / "cache").open("", "", "")[:5]
    assert [part["visible"] for part in (board, *others)] == [False] * 4
    assert said.startswith("no results yet")
