"""What models need, imported once the first page is there.

torch and what stands on it take two seconds of a processor and half a gigabyte. The first page does
not wait for them: one thread imports them once it is there, and whatever a visitor asks for next
waits for that thread. It must be one: timm, narwhals and others import themselves in circles, and
where two threads meet in a circle, Python gives one of them a module that is half there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any

MODULES = (
    "space.demo.head_file",  # torch, and the head
    "space.demo.classify",
    "space.demo.encoding",
    "timm",
    "eval.models.formats.timm",
    "eval.analysis.analyze",
    "eval.analysis.predictors",
    "eval.analysis.profile",
    "eval.analysis.recommend",
    "eval.data.load",
    "eval.features.encode",
    "sklearn.datasets",  # of the example set with digits
)


def warm_up() -> None:
    """Begin, if nobody has; returns at once."""
    importing()


def after_it(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which waits until all is imported, and begins that if nobody has."""

    @wraps(function)
    def waiting(*arguments: Any, **named: Any) -> Any:
        importing().join()
        return function(*arguments, **named)

    return waiting


@cache
def importing() -> threading.Thread:
    """The one thread that does it."""
    thread = threading.Thread(target=_work, daemon=True, name="warm-up")
    thread.start()
    return thread


def _work() -> None:
    for name in MODULES:
        import_module(name)
