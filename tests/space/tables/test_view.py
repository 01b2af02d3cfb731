"""Views: to a URL and back."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from space.tables.view import EXTRAS, View

TEXT = st.text(max_size=40)
WORD = st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), min_size=1,
               max_size=20)  # fmt: skip
WORDS = st.lists(WORD, max_size=5).map(tuple)
VIEWS = st.builds(
    View, board=TEXT, search=TEXT, objectives=WORDS, domains=WORDS, tasks=WORDS,
    most_params=st.floats(0, 1e6), whole=st.booleans(), pretraining=st.booleans(),
    extras=st.lists(st.sampled_from(EXTRAS), unique=True).map(tuple), sort=TEXT,
    rising=st.booleans(), colour=st.booleans(),
)  # fmt: skip


def again(view: View) -> View:
    """As the page reads the URL: Gradio's request holds starlette's parameters."""
    return View.of(QueryParams(view.query()))


@given(VIEWS)
@example(View(extras=()))
@example(View(board="fewshot/top1_5shot/n_way=10, seed=3", search="a,b & c=d + e%20"))
def test_a_url_restores_the_view(view: View) -> None:
    assert again(view) == view
    assert View.of(dict(parse_qsl(view.query(), keep_blank_values=True))) == view


def test_the_default_view_has_no_query() -> None:
    assert View().query() == ""
    assert View.of({}) == View()


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(View)])
def test_only_what_differs_is_in_the_query(field: str) -> None:
    other: dict[str, Any] = {
        "board": "linear/top1", "search": "x", "objectives": ("ce", "ce+selfsupcon"),
        "domains": ("natural images",), "tasks": ("dtd", "eurosat"), "most_params": 12.5,
        "whole": True, "pretraining": True, "extras": ("data",), "sort": "dtd", "rising": True,
        "colour": False,
    }  # fmt: skip
    view = dataclasses.replace(View(), **{field: other[field]})
    assert [name for name, _ in parse_qsl(view.query())] == [field]
    assert again(view) == view


def test_a_task_with_a_comma_in_its_name() -> None:
    view = View(tasks=("red, green", "blue"))
    assert again(view) == view


@pytest.mark.parametrize("objectives", [("",), ("", "ce")])
def test_models_of_unknown_objective_can_be_linked_to(objectives: tuple[str, ...]) -> None:
    view = View(objectives=objectives)
    assert again(view) == view


def test_a_long_list_of_tasks() -> None:
    view = View(tasks=tuple(f"data_set_number_{i:04}" for i in range(120)))
    assert again(view) == view


def test_not_a_number_is_no_size() -> None:
    assert View.of({"most_params": "nan"}) == View()


def test_a_lone_surrogate_has_a_query() -> None:
    assert View(search="\ud800").query() == "search=%3F"


NAMES = st.sampled_from([field.name for field in dataclasses.fields(View)])


@given(st.dictionaries(NAMES | TEXT, TEXT))
@example({"most_params": "inf"})
@example({"most_params": "-5"})
@example({"most_params": "1e999"})
@example({"colour": "yes", "extras": ",,,", "tasks": "," * 5000})
def test_any_query_makes_a_view(query: dict[str, str]) -> None:
    view = View.of(query)
    for field in dataclasses.fields(View):
        value = getattr(view, field.name)
        assert type(value) is type(getattr(View(), field.name))
    assert view.most_params != view.most_params or 0 <= view.most_params <= 1e6
    assert view.most_params != view.most_params or again(view) == view


@given(TEXT)
def test_any_text_as_a_query(text: str) -> None:
    assert isinstance(View.of(QueryParams(text)), View)
