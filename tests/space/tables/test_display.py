"""What the table component, CSV and JSON show of a board."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pandas as pd
import pytest

from space.tables.board import Board, build
from space.tables.display import (
    as_csv,
    as_json,
    chances,
    legend,
    plain,
    sign,
)
from space.tables.view import EXTRAS, View
from tests.factories import make_result
from tests.space.shelves import (
    HOSTILE_NAMES,
    gaps,
    linear,
    mixed,
    shipped_grid,
    without_samples,
)

ALL = View(pretraining=True, extras=EXTRAS)


def test_places_are_in_the_downloads() -> None:
    results = [make_result(m, correct=np.arange(40) < n) for m, n in
               (("a", 38), ("b", 21), ("c", 20), ("d", 1))]  # fmt: skip
    board = build(linear([*results, without_samples(make_result("e", top1=0.6))]), View())
    found = pd.read_csv(io.StringIO(as_csv(board, View())), dtype=str, keep_default_na=False)
    assert list(found["places"]) == ["1", "", "2-3", "2-3", "4"]
    assert [row["places"] for row in json.loads(as_json(board, View()))["rows"]] == [
        "1", "", "2-3", "2-3", "4",
    ]  # fmt: skip


def test_chances_are_told_once_each() -> None:
    assert chances(build(linear(mixed()), View())) == (
        "± 95 % over other test images, the same training."
    )
    assert chances(build(linear([]), View())) == ""


def test_the_legend_tells_of_signs_that_stand_in_the_table() -> None:
    facts = {"a": ["dtd"], "b": [], "c": ["laion-2b"], "d": ["eurosat"]}
    board = build(
        linear(make_result(m, t, facts={"data": data}) for m, data in facts.items()
               for t in ("dtd", "svhn")),
        View(sort="model"),
    )  # fmt: skip
    assert [sign(mark) for mark in board.mark] == [" ‡", " ?", " ?", ""]
    said = legend(board)
    assert "`‡` behind a model" in said
    assert "`?` behind a model" in said
    assert "behind a model" not in legend(build(board.grid, View(search="d")))
    assert "a subset" in legend(build(shipped_grid(), View()))
    assert "a subset" not in said
    shipped_board = build(shipped_grid(), View())
    hidden = "Not shown, as models here were pretrained on it: tiny_imagenet."
    assert hidden in legend(shipped_board)
    assert "Not shown" not in legend(build(shipped_board.grid, View(pretraining=True)))


# --------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("board", [build(shipped_grid(), ALL), build(gaps(), ALL)],
                         ids=["shipped", "gaps"])  # fmt: skip
def test_csv_has_the_numbers_of_the_board(board: Board) -> None:
    found = pd.read_csv(io.StringIO(as_csv(board, ALL)), keep_default_na=False, na_values=[""])
    assert list(found["model"]) == list(board.models["model"])
    assert list(found["tie_group"]) == board.group.tolist()
    columns = {"mean": 100 * board.mean, "mean_half": 100 * board.half,
               "mean_rank": board.rank, "params": board.models["params"]}  # fmt: skip
    for name, values in columns.items():
        assert found[name].to_numpy(float) == pytest.approx(
            np.asarray(values, float), abs=6e-5, nan_ok=True
        )
    for t, task in enumerate(board.tasks["task"]):
        for suffix, matrix in (("", board.value), ("_low", board.low), ("_high", board.high)):
            assert found[task + suffix].to_numpy(float) == pytest.approx(
                100 * matrix[:, t], abs=6e-5, nan_ok=True
            )


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "@x", "-1", "=1+1", "\t=1", "\r=1"])
def test_a_formula_in_a_name_is_defused(name: str) -> None:
    board = build(linear([make_result(name, revision=name)]), ALL)
    found = pd.read_csv(io.StringIO(as_csv(board, ALL)), dtype=str, keep_default_na=False,
                        lineterminator="\n")  # fmt: skip
    for column in ("model", "revision"):
        assert found[column][0].strip("\r") == "'" + name
    assert found["mean"][0] == "50.0"


def test_a_formula_in_a_tasks_name_is_defused() -> None:
    board = build(linear([make_result("a", "=HYPERLINK(1)")]), ALL)
    cells = as_csv(board, ALL).splitlines()[0].split(",")
    assert not any(cell.lstrip('"').startswith("=") for cell in cells)


def test_negative_bounds_stay_numbers() -> None:
    made = without_samples(make_result("a", top1=0.0))
    score = made.scores[0].model_copy(update={"ci_low": -0.1})
    board = build(linear([made.model_copy(update={"scores": [score]})]), ALL)
    assert pd.read_csv(io.StringIO(as_csv(board, ALL)))["dtd_low"].tolist() == [-10.0]


@pytest.mark.parametrize("task", ["mean", "model", "params"])
def test_a_task_that_is_called_like_a_column(task: str) -> None:
    board = build(linear([make_result("a", task), make_result("a", "x", top1=0.75)]), ALL)
    found = plain(board, ALL)
    assert found["mean"].tolist() == [62.5]
    assert found["model"].tolist() == ["a"]
    assert found["params"].tolist() == [10]


def test_json_has_the_numbers_of_the_board() -> None:
    for board in (build(shipped_grid(), ALL), build(gaps(), ALL)):
        found = json.loads(as_json(board, ALL))
        key = board.grid.key
        assert (found["protocol"], found["score"]) == (key.protocol, key.score)
        assert found["view"] == ALL.query()
        assert [row["model"] for row in found["rows"]] == list(board.models["model"])
        for r, row in enumerate(found["rows"]):
            for t, task in enumerate(board.tasks["task"]):
                value = board.value[r, t]
                cell = row["scores"][task]
                assert cell["value"] == (None if math.isnan(value) else round(100 * value, 4))
                assert cell["kind"] == board.kind[r, t]
            mean = board.mean[r]
            assert row["mean"] == (
                None if math.isnan(mean) else pytest.approx(100 * mean, abs=1e-4)
            )


def test_empty_boards_can_be_downloaded() -> None:
    board = build(shipped_grid(), View(search="?"))
    assert len(as_csv(board, View()).splitlines()) == 1
    assert json.loads(as_json(board, View()))["rows"] == []


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, 'a,"b"\n;c', "äß中"])
def test_hostile_names_never_change_the_shape(name: str) -> None:
    results = [make_result(name, "x", top1=0.9), make_result("b", "x"), make_result("b", name)]
    view = View(extras=EXTRAS)
    board = build(linear(results), view)
    assert len(json.loads(as_json(board, view))["rows"]) == 2
    found = pd.read_csv(io.StringIO(as_csv(board, view)))
    assert found.shape == (2, 15 + 4 * 2)
    shown = "'" + name if name[0] in "=+-@" else name
    assert set(found["model"]) == {shown, "b"}
