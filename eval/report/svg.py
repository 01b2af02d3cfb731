"""A figure of matplotlib as SVG inside a page: text stays text, and nothing of one touches another.

Names in a picture may be anybody's: a ``$`` in them is a dollar, no formula.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# groups are named text_1 in every figure and nobody refers to them; the page has this style once
_NAMES = re.compile(r'(<g)(?: id="[\w.]+")')
_STYLE = re.compile(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>\s*")
_SPACES = re.compile(r' xmlns(?::\w+)?="[^"]*"')


def inline(key: str, build: Callable[[], Figure]) -> Markup:
    """Draw what ``build`` makes. The same figure and key give the same bytes; ids of figures with
    other keys differ."""
    import matplotlib

    settings = {"svg.hashsalt": key, "svg.fonttype": "none", "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]  # its stubs know the keys by name
        warnings.simplefilter("ignore", UserWarning)  # a font that lacks a letter of a name
        figure = build()
        _plain_ticks(figure)
        out = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing, bbox_inches="tight", pad_inches=0.05)
    text = out.getvalue().decode()
    head, close, body = text[text.index("<svg") :].partition(">")
    body = _NAMES.sub(r"\1", _STYLE.sub("", body, count=1))
    return Markup(_SPACES.sub("", head) + close + body)  # of matplotlib, which escapes texts


def _plain_ticks(figure: Figure) -> None:
    """Logarithmic axes write powers as formulas, which are not read here."""
    from matplotlib.ticker import LogFormatter, NullFormatter, StrMethodFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            if isinstance(axis.get_minor_formatter(), LogFormatter):
                axis.set_minor_formatter(NullFormatter())
