"""What a user did wrong, in one sentence."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable

_TOKEN = re.compile(r"(?<![A-Za-z0-9/])hf_[A-Za-z0-9._-]{4,}|(?i:bearer)(?:\s|%20)+\S+")

TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# As torch, its threads, the C++ library and the loader of libraries say it.
_NO_MEMORY = re.compile(
    r"(?i:can't allocate memory|cannot allocate memory|out of memory|not enough memory|bad_alloc"
    r"|failed to map segment|can't start new thread)"
)


class UserError(Exception):
    """What a user can mend: printed as one sentence on stderr, exit code 2, no traceback.

    Its kinds let a Python user tell one from another; one raised as itself is about the machine: a
    full disk, memory that ran out.
    """


class NotFound(UserError):
    """What was named is not there: a model, a task, a file, a column, a name of ours."""


class BadInput(UserError):
    """What was given cannot be used: a value out of bounds, a malformed file, data that do not
    fit what was asked."""


class Refused(UserError):
    """It could be done and is not: unsafe, private, without permission, or over a limit."""


class Unreachable(UserError):
    """The Hub, or a file of it, could not be reached; later it may be."""


class Conflict(UserError):
    """Something else is already there, or changed meanwhile; nothing was overwritten."""


class TooFew(BadInput):
    """There are too few images for what was asked; with more it would do."""


class Unreadable(BadInput):
    """An image that is there and cannot be decoded."""


def did_you_mean(name: str, known: Iterable[str], fallback: str = "") -> str:
    """``; did you mean 'x' or 'y'?`` for near names, else ``; `` + fallback (may be empty)."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"; {fallback}" if fallback else ""


def without_token(text: str) -> str:
    """The text with Hub tokens blotted out: a server may echo what it was sent."""
    return _TOKEN.sub("[token]", without_known_tokens(text))


def without_known_tokens(text: str) -> str:
    """The text with the tokens blotted out that this machine has; a name like hf_model may stay."""
    known = {os.environ.get(name, "") for name in TOKEN_NAMES}
    hub = sys.modules.get("huggingface_hub")  # where it was not imported, no token was sent
    known.add((hub.get_token() if hub else None) or "")
    for token in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(token, "[token]")
    return text


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the error is that memory, of this machine or its device, was not to be had."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return (
        isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(str(error)) is not None
    )


OUT_OF_MEMORY = "memory ran out; use a smaller --batch-size, fewer processes or more of it"


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text on one line, without Hub tokens, cut to ``limit`` characters; its type where
    it has no text."""
    text = " ".join(without_token(str(error)).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
