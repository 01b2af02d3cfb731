"""What models need, imported once the first page is there.

torch and what stands on it take two seconds of a processor and half a gigabyte. No page waits for
them: they are imported where a visitor asks for a model or a finding, and here in the background,
so that they are mostly there by then. What pages and these share, and whose modules import each
other in circles (narwhals, by plotly and sklearn), must be there before: two threads in one circle
end in a deadlock, which Python answers with an error in either.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module

MODULES = (
    "space.demo.head_file",  # torch, and the head
    "space.demo.encoding",
    "timm",
    "eval.models.formats.timm",
    "eval.analysis.recommend",
    "sklearn.datasets",  # of the example set with digits
)


def warm_up() -> None:
    """Begin, if nobody has; returns at once."""
    importing()


@cache
def importing() -> threading.Thread:
    """The one thread that does it."""
    thread = threading.Thread(target=_work, daemon=True, name="warm-up")
    thread.start()
    return thread


def _work() -> None:
    for name in MODULES:
        import_module(name)
