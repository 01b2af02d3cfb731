"""The board as HTML: the numbers of the download, in groups, on pages, under any names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest

from space.pages.board_html import ROWS, board_html, card_url, pages, shades, short
from space.tables import display
from space.tables.board import build
from space.tables.matrix import Grid
from space.tables.view import View
from tests.space.shelves import HOSTILE_NAMES, gaps, linear, make_result, shipped_grid, world


@dataclass
class Seen(HTMLParser):
    """What stands in the table, as a browser would read it."""

    tags: set[str] = field(default_factory=set)
    rows: list[list[str]] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        found = {k: v or "" for k, v in attrs}
        if tag == "a":
            self.links.append(found["href"])
        if found:
            self.attributes.append({"tag": tag} | found)

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def seen(grid: Grid, view: View | None = None, page: int = 1) -> Seen:
    view = view or View()
    out = Seen()
    out.feed(board_html(build(grid, view), view, page))
    return out


def test_the_numbers_are_those_of_the_download() -> None:
    view = View()
    board = build(shipped_grid(), view)
    table = display.plain(board, view)
    found = seen(shipped_grid())
    body = found.rows[2:]
    assert len(body) == len(table) == 6
    for row, (_, plain) in zip(body, table.iterrows(), strict=True):
        place, name, objective, params, mean, *cells = row
        assert place == plain["places"]
        assert name == short(plain["model"])
        assert float(params) == pytest.approx(plain["params"] / 1e6, abs=0.05)
        assert objective
        assert mean == f"{plain['mean']:.1f} ±{plain['mean_half']:.1f}"
        for cell, task in zip(cells, board.tasks["task"], strict=True):
            half = (plain[f"{task}_high"] - plain[f"{task}_low"]) / 2
            value, told = cell.split(" ±")
            assert float(value) == pytest.approx(plain[task], abs=0.051)
            assert float(told) == pytest.approx(half, abs=0.051)


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
    dashes = sum(cell == "-" for row in found.rows[2:] for cell in row[5:])
    assert dashes == board.value.size - len(there) > 0


def test_every_model_stands_on_one_page() -> None:
    grid = linear(world(3, 2 * ROWS + 7, 2, n=20))
    view = View()
    board = build(grid, view)
    assert pages(board) == 3
    names: list[str] = []
    for page in (1, 2, 3):
        rows = seen(grid, view, page).rows[2:]
        assert len(rows) == (ROWS if page < 3 else 7)
        names += [row[1] for row in rows]
    assert names == list(board.models["model"])
    html = board_html(board, view, 2)
    assert f"models {ROWS + 1} to {2 * ROWS} of {2 * ROWS + 7}" in html
    assert 'data-page="1"' in html
    assert 'data-page="3"' in html
    # a page that is not there is the nearest that is
    assert board_html(board, view, 99) == board_html(board, view, 3)
    assert board_html(board, view, -1) == board_html(board, view, 1)
    # one number alone is in the way of the tab key
    for page in (1, 2, 3):
        ways = [a for a in seen(grid, view, page).attributes if a.get("tabindex") == "0"]
        assert len(ways) == 1


def test_lines_part_groups_that_are_told_apart() -> None:
    board = build(shipped_grid(), View())
    html = board_html(board, View())
    marked = [m == "apart" for m in re.findall(r'<tr class="(\w*)" data-created', html)]
    assert marked == [False, *(np.diff(board.group) != 0).tolist()]
    by_name = View(sort="model")
    assert '<tr class="apart"' not in board_html(build(shipped_grid(), by_name), by_name)


def test_strangers_names_are_text() -> None:
    grid = linear(make_result(name, f"t {name}", top1=0.4) for name in HOSTILE_NAMES)
    found = seen(grid, View(extras=("objective", "architecture", "params", "data", "revision")))
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
