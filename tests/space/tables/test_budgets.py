"""A study beside the results: what `transfer-eval study` says, as the page shows it."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from eval.results.store import write_result
from eval.study.table import read
from eval.study.verdict import verdict
from space.figures import plots
from space.pages.objectives import Objectives
from space.source import Source
from space.state import Desk
from space.tables import budgets
from tests.factories import make_result
from tests.space.figures.checks import check
from tests.study.made import study_file

SCORE = "linear top-1"


def page_of(folder: Path, cache: Path) -> Objectives:
    write_result(folder / "one.json", make_result("zoo:x", "dtd"))
    source = Source(str(folder), cache)
    source.refresh()
    with gr.Blocks():
        return Objectives(Desk(source, cache))


def test_curves_are_the_command_s_levels(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "toy.results.parquet", better=0.8)))
    frame = budgets.curves(found, SCORE)
    assert list(frame["arm"]) == ["a", "b"]
    known = [one.found for one in found.arms if one.score == SCORE and one.found]
    for row, one in zip(frame.itertuples(), known, strict=True):
        both = one.over_both()
        assert both is not None
        assert (row.value, row.half) == pytest.approx((both.value, both.high - both.value))
        assert (row.trainings, row.tasks, row.over) == (3, 2, budgets.BOTH)
    figure = plots.budgets(frame, SCORE)
    check(figure)
    assert [trace.name for trace in figure.data if trace.name] == ["a", "b"]
    assert np.isclose(figure.data[1].y[0], 100 * frame["value"][0])
    assert figure.data[1].error_y.array is not None  # one budget: no band to be seen
    x = [trace.x[0] for trace in figure.data if trace.name]
    assert x == pytest.approx([12, 12], rel=0.01)
    assert x[0] < x[1]  # beside each other


def test_one_training_says_that_it_speaks_of_images_alone(tmp_path: Path) -> None:
    file = study_file(tmp_path / "toy.results.parquet", better=0.8, trainings=1)
    found = verdict(read(file))
    assert set(budgets.curves(found, SCORE)["over"]) == {budgets.IMAGES}
    (line,) = budgets.contrasts(found, SCORE).itertuples(index=False)
    assert line.trainings == "1 of 3"
    assert line.difference.endswith(f"({budgets.IMAGES})")
    assert line.verdict == "not tested yet"
    assert "Decided by linear top-1" in budgets.said(found, SCORE)
    assert "nothing yet" in budgets.said(found, SCORE)


def test_the_page_shows_the_study_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    page = page_of(folder, tmp_path / "cache")
    assert page.studied(None)[0]["visible"] is False
    study_file(folder / "toy.results.parquet", better=0.8)
    shown, scores, said, figure, table = page.studied("no such score")
    assert shown["visible"] is True
    assert (scores["choices"], scores["value"]) == ([SCORE, "5-shot top-1"], SCORE)
    assert "toy: 6 of 12 checkpoints are trained and scored." in said
    assert "b - a helps at 12 epochs" in said
    check(figure)
    assert list(table["contrast"]) == ["b - a"]
    study_file(folder / "toy.results.parquet", better=0.8, arms="ba")  # it is read again
    assert "b - a hurts at 12 epochs" in page.studied(SCORE)[2]
    empty = page.studied("5-shot top-1")
    check(empty[3])
    assert len(empty[4]) == 0


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    page = page_of(folder, tmp_path / "cache")
    (folder / "x.results.parquet").write_text("<b>no</b>")
    shown, _, said, *_ = page.studied(None)
    assert shown["visible"] is True
    assert "x.results.parquet is not a Parquet file" in said
