"""The choices of the pages in an address, and what an address may not do to them."""

from __future__ import annotations

import gradio as gr
import pytest

from space.address import Address, query_of
from space.pages.leaderboard import picker


@pytest.fixture
def address() -> Address:
    with gr.Blocks():
        return Address({
            "compare": {"a": picker(label="A"), "b": picker(label="B")},
            "objectives": {"by": gr.Radio(["pairs", "domains"], value="pairs")},
            "fewshot": {
                "example": gr.Dropdown([("Digits", "digits")], value=None),
                "models": gr.Dropdown(["a", "x"], value=["x"], multiselect=True, max_choices=3,
                                      allow_custom_value=True),
            },
        })  # fmt: skip


def values(address: Address, query: dict[str, str]) -> list[object]:
    return [update["value"] for update in address.restore(query)]


START = [None, None, "pairs", None, ["x"]]


def test_what_an_address_says_is_chosen_and_the_rest_is_as_at_the_start(address: Address) -> None:
    query = {"compare.b": "zoo:x", "objectives.by": "domains", "tab": "compare", "other": "1"}
    assert values(address, query) == [None, "zoo:x", "domains", None, ["x"]]
    assert values(address, {}) == START


def test_what_a_component_cannot_take_is_left_out(address: Address) -> None:
    query = {"objectives.by": "nonsense", "fewshot.example": "../../etc/passwd"}
    assert values(address, query) == START
    # names of models are looked at where they are used: any text may stand in the field
    assert values(address, {"compare.a": "x" * 9000})[0] == "x" * 2000
    assert values(address, {"fewshot.models": "a,b,,c,d"})[4] == ["a", "b", "c"]


def test_parameters_are_called_by_page_and_name(address: Address) -> None:
    names = [name for choices in address.pages.values() for name in choices]
    assert names == ["compare.a", "compare.b", "objectives.by", "fewshot.example", "fewshot.models"]
    assert len(address.components) == len(names)


def test_the_query_of_an_address_bar() -> None:
    assert query_of("?a=1&b=%2Fx&c=") == {"a": "1", "b": "/x", "c": ""}
    assert query_of("?a=1&a=2") == {"a": "2"}
    assert query_of("") == {}
