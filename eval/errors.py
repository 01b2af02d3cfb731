"""What a user did wrong, in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: printed as one sentence on stderr, exit code 2, no traceback."""


class CellError(Exception):
    """One (model, task, protocol) cell cannot be scored; the other cells go on."""


def did_you_mean(name: str, known: Iterable[str], fallback: str = "") -> str:
    """``; did you mean 'x' or 'y'?`` for near names, else ``; `` + fallback (may be empty)."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"; {fallback}" if fallback else ""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text on one line, cut to ``limit`` characters; its type where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
