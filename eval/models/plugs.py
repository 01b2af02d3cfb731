"""Sources of models beside folders and the Hub: a prefix, and the module that knows it.

A module has three things, and is imported when a string with its prefix is met::

    FORM: str  # how its strings look, for sentences
    def resolve(text: str, cache: Path, img_size: int | None) -> ResolvedModel  # pinned
    def load(model: ResolvedModel) -> Backbone

Other packages add sources by entry points of the group ``transferzoo.models``, whose name is the
prefix and whose value is such a module. Importing this imports none of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from eval.common.errors import BadInput, one_line

GROUP = "transferzoo.models"
_OWN = {
    "file": "eval.models.sources.file",
    "python": "eval.models.sources.python",
    "torchvision": "eval.models.sources.torchvision",
}


class Source(Protocol):
    """A source's module; what it takes and returns is named above."""

    FORM: str

    def resolve(self, text: str, cache: Path, img_size: int | None) -> Any: ...

    def load(self, model: Any) -> Any: ...


@cache
def prefixes() -> dict[str, str]:
    """Modules by prefix, those of other packages too; none replaces one of ours."""
    found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}
    return found | _OWN


def source(text: str) -> Source:
    """The source of a model string whose prefix is one of `prefixes`.

    Raises UserError where another package's module cannot be imported or is none.
    """
    prefix = text.partition(":")[0].lower()
    name = prefixes()[prefix]
    try:
        module = importlib.import_module(name)
    except Exception as error:  # somebody else's code
        raise BadInput(
            f"the source {prefix!r} of models ({name}) fails: {one_line(error)}"
        ) from None
    if not all(hasattr(module, part) for part in ("FORM", "resolve", "load")):
        raise BadInput(f"the source {prefix!r} of models ({name}) lacks FORM, resolve or load")
    return cast(Source, module)
