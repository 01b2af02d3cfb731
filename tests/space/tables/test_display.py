"""What the table component, CSV and JSON show of a board."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from space.labels import shown_objective
from space.tables.board import Board, build
from space.tables.display import (
    DASH,
    as_csv,
    as_json,
    chances,
    headers,
    legend,
    plain,
    short,
    sign,
    table,
    widths,
)
from space.tables.matrix import grid, keys
from space.tables.view import EXTRAS, View
from tests.factories import make_result
from tests.space.shelves import (
    HOSTILE_NAMES,
    gaps,
    linear,
    mixed,
    shipped_grid,
    shipped_scores,
    without_kinds,
    without_samples,
    world,
)

ALL = View(pretraining=True, extras=EXTRAS)


def parts(found: dict[str, Any]) -> tuple[list[str], list[Any], list[Any], list[Any]]:
    meta = found["metadata"]
    return found["headers"], found["data"], meta["display_value"], meta["styling"]


def check_shape(board: Board, view: View) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = table(board, view)
    head, *matrices = parts(found)
    assert head == headers(board, view)
    assert len(widths(board, view)) == len(head) == 4 + len(view.extras) + len(board.tasks)
    for matrix in matrices:
        assert len(matrix) == len(board.models)
        assert all(len(line) == len(head) for line in matrix)
    json.dumps(found, allow_nan=False)  # what is sent to the browser


@given(
    st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 0.5]),
    st.lists(st.sampled_from(EXTRAS), unique=True).map(tuple), st.booleans(),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_all_parts_have_one_shape(
    seed: int, models: int, tasks: int, missing: float, extras: tuple[str, ...], colour: bool
) -> None:
    view = View(extras=extras, colour=colour)
    check_shape(build(linear(world(seed, models, tasks, missing)), view), view)


def test_the_shipped_leaderboards_have_one_shape() -> None:
    for key in keys(shipped_scores()):
        made = grid(shipped_scores(), key)
        for view in (View(), ALL, View(tasks=("?",)), View(search="?"), View(whole=True)):
            check_shape(build(made, view), view)


def test_a_chosen_column_in_which_no_row_has_a_number() -> None:
    made = linear([make_result("a", "x"), make_result("b", "y")])
    view = View(search="a")
    board = build(made, view)
    assert board.value.shape == (1, 2)
    check_shape(board, view)


def test_what_is_shown_is_the_number_that_sorts() -> None:
    for view in (ALL, View(extras=("params",), sort="model")):
        board = build(linear(mixed()), view)
        head, data, shown, _ = parts(table(board, view))
        for column in range(len(head)):
            if head[column] in ("objective", "pretrained on", "revision", "architecture"):
                continue
            pairs = [(d[column], s[column]) for d, s in zip(data, shown, strict=True)]
            if head[column] == "model":
                assert [s for _, s in pairs] == [
                    short(d) + sign(m) for (d, _), m in zip(pairs, board.mark, strict=True)
                ]
                continue
            assert all(type(d) in (float, int) for d, _ in pairs)
            told = [float(s.split()[0]) for _, s in pairs]
            assert told == pytest.approx([d for d, _ in pairs], abs=0.0501)
            for (a, _), (b, _), x, y in (
                (p, q, told[i], told[j])
                for (i, p), (j, q) in itertools.combinations(enumerate(pairs), 2)
            ):
                assert not (a < b and x > y)


def test_cells_are_percent_with_half_the_interval() -> None:
    """The file's own interval; one of before its kind was said is replaced by Jeffreys' of 40."""
    view = View(extras=())
    result = make_result("zoo:a", top1=0.5)
    for each, half in ((result, "±10.0"), (without_kinds(result), "±15.0")):
        board = build(linear([each]), view)
        head, data, shown, _ = parts(table(board, view))
        assert head == ["model", "mean", "tie group", "mean rank", "dtd (texture)"]
        assert data == [["zoo:a", 50.0, 1, 1.0, 50.0]]
        assert shown == [["a ?", f"50.0 {half}", "1 (1)", "1.00", f"50.0 {half}"]]


def test_group_and_places_stand_together_and_sort_by_the_group() -> None:
    results = [make_result(m, correct=np.arange(40) < n) for m, n in
               (("a", 38), ("b", 21), ("c", 20), ("d", 1))]  # fmt: skip
    board = build(linear([*results, without_samples(make_result("e", top1=0.6))]), View())
    head, data, shown, _ = parts(table(board, View()))
    at = head.index("tie group")
    assert [(line[0], line[at]) for line in shown] == [
        ("a ?", "1 (1)"), ("e ?", DASH), ("b ?", "2 (2-3)"), ("c ?", "2 (2-3)"), ("d ?", "3 (4)"),
    ]  # fmt: skip
    assert [line[at] for line in data] == [1, None, 2, 2, 3]
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


def test_a_subset_is_marked() -> None:
    assert any(h == "dtd* (texture)" for h in headers(build(shipped_grid(), View()), View()))


def test_the_columns_about_the_model() -> None:
    board = build(linear(mixed()), ALL)
    head, data, shown, _ = parts(table(board, ALL))
    at = dict(zip(head, range(len(head)), strict=True))
    for r, model in enumerate(board.models.to_dict("records")):
        assert shown[r][at["params, M"]] == f"{model['params'] / 1e6:.1f}"
        assert shown[r][at["objective"]] == (shown_objective(model["objective"]) or DASH)
        told = shown[r][at["pretrained on"]]
        assert told.startswith(model["data"] or board.mark[r] or DASH)
        assert (board.mark[r] or DASH) in told or model["data"] == told
        assert shown[r][at["architecture"]] == (model["architecture"] or DASH)
        assert data[r][at["revision"]] == model["revision"]
        assert shown[r][at["revision"]] == model["revision"][:7]


def test_a_row_says_what_its_training_data_mean() -> None:
    facts = {"a": ["dtd"], "b": [], "c": ["laion-2b"], "d": ["eurosat"]}
    board = build(
        linear(make_result(m, t, facts={"data": data}) for m, data in facts.items()
               for t in ("dtd", "svhn")),
        View(sort="model"),
    )  # fmt: skip
    _, _, shown, _ = parts(table(board, View()))
    assert [row[0] for row in shown] == ["a ‡", "b ?", "c ?", "d"]
    said = legend(board, View())
    assert "`‡` behind a model" in said
    assert "`?` behind a model" in said
    assert "behind a model" not in legend(build(board.grid, View(search="d")), View())


def test_what_is_missing_is_a_dash_without_a_number() -> None:
    board = build(gaps(), View())
    head, data, shown, style = parts(table(board, View()))
    first = len(head) - len(board.tasks)
    holes = np.argwhere(np.isnan(board.value))
    assert len(holes) == 2
    for r, t in holes:
        assert data[r][first + t] is None
        assert shown[r][first + t] == DASH
        assert style[r][first + t] == ""
        assert data[r][1:4] == [None] * 3
        assert shown[r][1:4] == [DASH] * 3


def test_the_best_of_each_column_is_bold_and_the_darkest() -> None:
    board = build(gaps(), View())
    _, _, _, style = parts(table(board, View()))
    for t in range(len(board.tasks)):
        cells = [line[len(line) - len(board.tasks) + t] for line in style]
        column = board.value[:, t]
        top = np.nanmax(column)
        assert [("bold" in c or "700" in c) for c in cells] == [v == top for v in column]
        shade = [float(m[1]) if (m := re.search(r",([\d.]+)\)", c)) else 0.0 for c in cells]
        assert max(shade) == pytest.approx(0.42)
        known = sorted((v, s) for v, s in zip(column, shade, strict=True) if not math.isnan(v))
        assert all(s <= u for (_, s), (_, u) in itertools.pairwise(known))
        assert known[0][1] == 0


def test_two_that_are_equally_good_are_both_bold() -> None:
    board = build(linear([make_result(m) for m in "ab"]), View())
    style = parts(table(board, View()))[3]
    assert ["700" in line[-1] for line in style] == [True, True]


def test_without_colour_there_is_none() -> None:
    board = build(shipped_grid(), View())
    plain_style = json.dumps(table(board, View(colour=False))["metadata"]["styling"])
    assert "background" not in plain_style
    assert "700" in plain_style
    assert "background" in json.dumps(table(board, View())["metadata"]["styling"])


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
    check_shape(board, view)
    assert len(json.loads(as_json(board, view))["rows"]) == 2
    found = pd.read_csv(io.StringIO(as_csv(board, view)))
    assert found.shape == (2, 14 + 4 * 2)
    shown = "'" + name if name[0] in "=+-@" else name
    assert set(found["model"]) == {shown, "b"}
