"""Every view is a link: what stands in the address of a page, and back again.

The board's choices have plain names (``board``, ``search``, ...), those of another page its tab's
name before them (``compare.a``), and ``tab`` is the one that is open. Parameters that nobody here
knows stay as they are. `space/theme/page.js` writes the address, and moves when the visitor goes
back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

_MOST = 2000  # characters of a value


class Address:
    """The choices of the pages other than the board, by tab and name."""

    def __init__(self, pages: Mapping[str, Mapping[str, Any]]) -> None:
        self.pages = {
            tab: {f"{tab}.{name}": choice for name, choice in choices.items()}
            for tab, choices in pages.items()
        }

    @property
    def components(self) -> list[Any]:
        return [choice for choices in self.pages.values() for choice in choices.values()]

    def wire(self) -> None:
        """What a visitor chooses is written into the address, without asking the server."""
        for choices in self.pages.values():
            script = f"(...values) => transferzoo.choose({json.dumps(list(choices))}, values)"
            gr.on(
                [choice.input for choice in choices.values()], None, list(choices.values()), None,
                js=script, api_visibility="private",
            )  # fmt: skip

    def restore(self, query: Mapping[str, str]) -> list[Any]:
        """The components as an address has them; what it does not say is as at the start. Pages
        look at what they are given: a name that is not there becomes their default."""
        return [
            _value(choice, str(query[name])[:_MOST]) if name in query else _start(choice)
            for choices in self.pages.values()
            for name, choice in choices.items()
        ]


def query_of(address: str) -> dict[str, str]:
    """The parameters of an address bar's query; of one named twice the last counts."""
    return dict(parse_qsl(str(address)[:100_000].lstrip("?"), keep_blank_values=True))


def _start(choice: Any) -> Any:
    return gr.update(value=choice.value)


def _value(choice: Any, text: str) -> Any:
    """An update of one component; what it could not take leaves it as at the start."""
    if getattr(choice, "multiselect", False):
        return gr.update(value=[part for part in text.split(",") if part][: choice.max_choices])
    known = [value for _, value in choice.choices]
    if text in known or getattr(choice, "allow_custom_value", False):
        return gr.update(value=text)
    return _start(choice)
