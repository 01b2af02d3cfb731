"""The board as HTML: the numbers of the download, in groups, on pages, under any names."""

from __future__ import annotations

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from space.labels import shown_objective
from space.pages.board_html import ROWS, board_html, card_url, pages, shades, short
from space.tables import display
from space.tables.board import build
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
from tests.space.table_html import seen, seen_board


def test_the_numbers_are_those_of_the_download() -> None:
    view = View()
    board = build(shipped_grid(), view)
    table = display.plain(board, view)
    found = seen(shipped_grid())
    body = found.body
    assert len(body) == len(table) == 6
    for row, (_, plain) in zip(body, table.iterrows(), strict=True):
        place, name, objective, params, mean, *cells = row
        assert place == plain["places"]
        assert name == short(plain["model"]) + display.sign(plain["training_data"])
        assert float(params) == pytest.approx(plain["params"] / 1e6, abs=0.05)
        assert objective
        assert mean == f"{plain['mean']:.1f} ±{plain['mean_half']:.1f}"
        for cell, task in zip(cells, board.tasks["task"], strict=True):
            half = (plain[f"{task}_high"] - plain[f"{task}_low"]) / 2
            value, told = cell.split(" ±")
            assert float(value) == pytest.approx(plain[task], abs=0.051)
            assert float(told) == pytest.approx(half, abs=0.051)


def test_what_models_were_trained_on_is_marked() -> None:
    facts = {"a": ["dtd"], "b": [], "d": ["eurosat"], "e": ["cropdisease"]}
    made = linear(make_result(m, t, facts={"data": data}) for m, data in facts.items()
                  for t in ("dtd", "svhn", "tiny_imagenet"))  # fmt: skip
    found = seen(made, View(pretraining=True, sort="model"))
    names = [row[1] for row in found.rows[2:]]
    assert names == ["a ‡", "b ?", "d", "e"]
    assert [row[-1] for row in found.rows[1:2]] == ["tiny_imagenet‡"]
    assert [row[-3].endswith("‡") for row in found.rows[2:]] == [True, False, False, False]
    told = [each["title"] for each in found.attributes if each.get("class") == "trained"]
    assert told == ["‡ trained on dtd", "training data not declared"]


def test_domains_are_groups_of_columns() -> None:
    board = build(shipped_grid(), View())
    html = board_html(board, View())
    groups = re.findall(r'scope="colgroup" colspan="(\d+)">([^<]+)<', html)
    spread = [domain for count, domain in groups for _ in range(int(count))]
    assert spread == list(board.tasks["domain"])
    assert len(groups) == len(set(spread))
    blank = re.search(r'<td colspan="(\d+)"></td>', html)
    assert blank
    assert int(blank[1]) + len(spread) == len(seen(shipped_grid()).rows[1])


def test_a_missing_number_is_a_dash_without_a_receipt() -> None:
    board = build(gaps(), View())
    found = seen(gaps())
    asked = {(a["data-model"], a["data-task"]) for a in found.attributes if "data-task" in a}
    there = {
        (model, task)
        for r, model in enumerate(board.models["model"])
        for t, task in enumerate(board.tasks["task"])
        if board.row[r, t] >= 0
    }
    assert asked == there
    dashes = sum(cell == "-" for row in found.body for cell in row[5:])
    assert dashes == board.value.size - len(there) > 0


def test_every_model_stands_on_one_page() -> None:
    many = linear(world(3, 2 * ROWS + 7, 2, n=20))
    view = View()
    board = build(many, view)
    assert pages(board) == 3
    names: list[str] = []
    for page in (1, 2, 3):
        rows = seen(many, view, page).body
        assert len(rows) == (ROWS if page < 3 else 7)
        names += [row[1] for row in rows]
    assert names == [f"{name} ?" for name in board.models["model"]]
    html = board_html(board, view, 2)
    assert f"models {ROWS + 1} to {2 * ROWS} of {2 * ROWS + 7}" in html
    assert 'data-page="1"' in html
    assert 'data-page="3"' in html
    # a page that is not there is the nearest that is
    assert board_html(board, view, 99) == board_html(board, view, 3)
    assert board_html(board, view, -1) == board_html(board, view, 1)
    # one number alone is in the way of the tab key
    for page in (1, 2, 3):
        ways = [a for a in seen(many, view, page).attributes if a.get("tabindex") == "0"]
        assert len(ways) == 1


def test_lines_part_groups_that_are_told_apart() -> None:
    board = build(shipped_grid(), View())
    html = board_html(board, View())
    marked = [m == "apart" for m in re.findall(r'<tr class="(\w*)" data-created', html)]
    assert marked == [False, *(np.diff(board.group) != 0).tolist()]
    by_name = View(sort="model")
    assert '<tr class="apart"' not in board_html(build(shipped_grid(), by_name), by_name)


def test_strangers_names_are_text() -> None:
    many = linear(make_result(name, f"t {name}", top1=0.4) for name in HOSTILE_NAMES)
    found = seen(many, View(extras=("objective", "architecture", "params", "data", "revision")))
    assert found.tags <= {
        "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "button", "span", "small",
        "svg", "path", "circle", "abbr", "wbr", "a",
    }  # fmt: skip
    assert not [a for a in found.attributes if any(name.startswith("on") for name in a)]
    assert found.links == []
    models = {a["data-model"] for a in found.attributes if "data-model" in a}
    assert models == set(HOSTILE_NAMES)


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("zoo:resnet18_narrow.ce_tin100", "transferzoo/resnet18_narrow.ce_tin100"),
        ("hf-hub:org/name", "org/name"),
        ("hf-hub:org/name@0123abc", "org/name"),
        ("resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
        ("random:resnet18", ""),
        ("python:mine", ""),
        ("local-dir:/home/me/net", ""),
        ("zoo:a/b", ""),
        ("hf-hub:name", ""),
        ("hf-hub:../etc", ""),
        ("hf-hub:a/b/c", ""),
        ("hf-hub:javascript:alert(1)/x", ""),
        ('hf-hub:a/b"onclick=x', ""),
        ("", ""),
    ],
)
def test_a_name_leads_to_its_card(model: str, url: str) -> None:
    assert card_url(model) == (f"https://huggingface.co/{url}" if url else "")


def test_shades_go_from_a_column_s_worst_to_its_best() -> None:
    value = np.array([[0.2, 0.5, np.nan], [0.4, 0.5, 0.1], [0.3, np.nan, 0.9]])
    expected = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0, 1]])
    assert shades(value) == pytest.approx(expected)
    assert shades(np.zeros((0, 3))).shape == (0, 3)
    assert "--shade:1.00" in board_html(build(shipped_grid(), View()), View())
    plain = View(colour=False)
    assert "--shade:1.00" not in board_html(build(shipped_grid(), plain), plain)


@given(
    st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 0.5]),
    st.lists(st.sampled_from(EXTRAS), unique=True).map(tuple), st.booleans(),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_every_row_has_every_column(
    seed: int, models: int, tasks: int, missing: float, extras: tuple[str, ...], colour: bool
) -> None:
    view = View(extras=extras, colour=colour)
    board = build(linear(world(seed, models, tasks, missing)), view)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = seen_board(board, view)
    width = 3 + len(extras) + len(board.tasks)
    assert len(found.heads) == width
    assert len(found.body) == len(board.models)
    assert {len(row) for row in found.body} <= {width}


@pytest.mark.slow
def test_the_shipped_leaderboards_have_every_column() -> None:
    for key in keys(shipped_scores()):
        made = grid(shipped_scores(), key)
        for view in (View(), View(pretraining=True, extras=EXTRAS), View(search="?")):
            found = seen_board(build(made, view), view)
            assert {len(row) for row in found.body} <= {len(found.heads)}


def test_cells_are_percent_with_half_the_interval() -> None:
    """The file's own interval; one of before its kind was said is replaced by Jeffreys' of 40."""
    view = View(extras=())
    result = make_result("zoo:a", top1=0.5)
    for each, half in ((result, "±10.0"), (without_kinds(result), "±15.0")):
        found = seen(linear([each]), view)
        assert found.heads == ["place", "model", "mean ▼", "dtd"]
        assert found.body == [["1", "a ?", f"50.0 {half}", f"50.0 {half}"]]


def test_places_are_those_that_the_tests_leave() -> None:
    results = [make_result(m, correct=np.arange(40) < n) for m, n in
               (("a", 38), ("b", 21), ("c", 20), ("d", 1))]  # fmt: skip
    found = seen(linear([*results, without_samples(make_result("e", top1=0.6))]))
    assert [row[:2] for row in found.body] == [
        ["1", "a ?"], ["-", "e ?"], ["2-3", "b ?"], ["2-3", "c ?"], ["4", "d ?"],
    ]  # fmt: skip


def test_the_columns_about_the_model() -> None:
    view = View(pretraining=True, extras=EXTRAS)
    board = build(linear(mixed()), view)
    found = seen_board(board, view)
    at = {name: i for i, name in enumerate(found.heads)}
    for r, model in enumerate(board.models.to_dict("records")):
        row = found.body[r]
        assert row[at["params, M"]] == f"{model['params'] / 1e6:.1f}"
        assert row[at["objective"]] == (shown_objective(model["objective"]) or "-")
        assert row[at["pretrained on"]].startswith(model["data"] or board.mark[r] or "-")
        assert row[at["architecture"]] == (model["architecture"] or "-")
        assert row[at["revision"]] == model["revision"][:7]


def test_a_row_says_what_its_training_data_mean() -> None:
    facts = {"a": ["dtd"], "b": [], "c": ["laion-2b"], "d": ["eurosat"]}
    made = linear(make_result(m, t, facts={"data": data}) for m, data in facts.items()
                  for t in ("dtd", "svhn"))  # fmt: skip
    view = View(sort="model")
    found = seen(made, view)
    assert [row[1] for row in found.body] == ["a ‡", "b ?", "c ?", "d"]
    titles = [a["title"] for a in found.attributes if a["tag"] == "abbr"][1:]
    assert titles[0] == "‡ trained on dtd"
    assert len(titles) == 3
    marked = [cell.endswith("‡") for cell in found.body[0]]
    assert marked.count(True) == 2  # the name, and its number on dtd


def test_the_best_of_each_column_is_bold_and_the_darkest() -> None:
    board = build(gaps(), View())
    html = board_html(board, View())
    cells = re.findall(r'<td class="(cell[^"]*)"[^>]*>(?:<button[^>]*--shade:([\d.]+))?', html)
    count = len(board.tasks)
    for t in range(count):
        mine = cells[t::count]
        column = board.value[:, t]
        top = np.nanmax(column)
        assert [" best" in css for css, _ in mine] == [value == top for value in column]
        known = sorted((v, float(s)) for v, (_, s) in zip(column, mine, strict=True) if s)
        assert (known[0][1], known[-1][1]) == (0, 1)
        assert all(s <= u for (_, s), (_, u) in pairwise(known))
        assert all((not s) == bool(np.isnan(v)) for v, (_, s) in zip(column, mine, strict=True))


def test_two_that_are_equally_good_are_both_bold() -> None:
    assert board_html(build(linear([make_result(m) for m in "ab"]), View()), View()).count(
        '<td class="cell best first"'
    ) == 2  # fmt: skip


def test_a_chosen_column_in_which_no_row_has_a_number() -> None:
    made = linear([make_result("a", "x"), make_result("b", "y")])
    (row,) = seen(made, View(search="a")).body
    assert row[-2:] == ["50.0 ±10.0", "-"]


def test_an_objective_may_be_broken_behind_its_plus_alone() -> None:
    """A phone's cell is narrower than CE+SelfSupCon."""
    made = linear([make_result("a", facts={"objective": "ce+selfsupcon"})])
    html = board_html(build(made, View()), View())
    assert ">CE+<wbr>SelfSupCon</td>" in html
