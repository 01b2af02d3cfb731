"""What every figure keeps to, and a name that no figure may take for markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

HOSTILE = "<b>bold</b><a href='javascript:alert(1)'>x</a> $x^2$ %{x} &lt;i&gt;\n<br>\u202e\x00"
ALLOWED = re.compile(r"<br>")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def check(figure: go.Figure) -> dict[str, Any]:
    """What every figure keeps to; its JSON, as Gradio sends it."""
    found = json.loads(figure.to_json())
    layout = found["layout"]
    assert "width" not in layout
    assert layout["autosize"] is True
    assert layout["dragmode"] is False  # a finger scrolls the page
    assert "title" not in layout  # Gradio would make room for it
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    for line in strings(found):
        assert not re.search(r"[<>$]", ALLOWED.sub("", line)), line
        assert line.isprintable(), line
    for trace in found["data"]:
        assert not {"hovertemplate", "texttemplate", "meta"} & trace.keys()  # they read %{...}
        assert trace["hoverinfo"] in ("text", "skip")
    return found
