"""``python:package.module:function``: a network that the user's own code makes.

The string runs that code, with all that a program of theirs may do: it is for one's own machine,
and neither the queue nor the Space takes it. The function has no arguments and returns what
``eval.backbone`` does, so its network is held to the same checks.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError, one_line
from eval.models.backbone import Backbone
from eval.models.resolve import ResolvedModel

FORM = "python:package.module:function"
_NAME = re.compile(r"python:([\w.]+):(\w+)")
_MADE: dict[str, Backbone] = {}  # the identity is only known once the network is there


def resolve(text: str, cache: Path, img_size: int | None) -> ResolvedModel:
    """Run the function and name what it made by a hash of it (`eval.models.in_memory`).

    Raises UserError for another form, code that cannot be imported or fails, and where it returns
    no backbone.
    """
    if img_size is not None:
        raise BadInput(f"{text} has a transform of its own; leave --img-size out")
    made = _make(text)
    model = replace(made.resolved, kind="source", spec=text, id=text, format="your own code")
    _MADE[text] = replace(made, resolved=model)
    return model


def load(model: ResolvedModel) -> Backbone:
    """What `resolve` made in this process, else made again."""
    if model.spec not in _MADE:
        resolve(model.spec, Path(), model.img_size)
    return _MADE[model.spec]


def _make(text: str) -> Backbone:
    match = _NAME.fullmatch(text)
    if match is None:
        raise BadInput(
            f"model {text!r} is no {FORM}; a network in memory is scored from Python, by "
            "eval.evaluate"
        )
    try:
        with _here_last():
            module = importlib.import_module(match[1])
    except Exception as error:  # the user's code: whatever it raises
        raise NotFound(f"{text}: {match[1]} cannot be imported: {one_line(error)}") from None
    make = getattr(module, match[2], None)
    if not callable(make):
        raise NotFound(f"{text}: {match[1]} has no function {match[2]!r}")
    try:
        made = make()
    except UserError:
        raise
    except Exception as error:
        raise BadInput(f"{text} fails: {type(error).__name__}: {one_line(error)}") from None
    if not isinstance(made, Backbone):
        raise BadInput(
            f"{text} returns a {type(made).__name__}; it must return "
            "eval.backbone(net, transform, name=...)"
        )
    return made


@contextlib.contextmanager
def _here_last() -> Iterator[None]:
    """The working directory as the last place of imports: a file of the user's that is called as a
    library replaces none."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
