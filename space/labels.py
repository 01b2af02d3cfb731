"""How things are called on the pages."""

from __future__ import annotations

from collections.abc import Iterable

from eval.metrics.estimates import KINDS
from eval.models.facts import UNTRAINED
from eval.results.facts import facts_named, shown_objective

__all__ = ["chance", "facts_label", "shown_objective"]


def facts_label(model: str) -> str:
    """A checkpoint that ships by its objective, as its recipe says: ``CE+SelfSupCon
    (resnet18_narrow)``; any other model by its name."""
    about = facts_named(model)
    if about.objective in ("", UNTRAINED):
        return model
    return f"{shown_objective(about.objective)} ({about.architecture})"


def chance(kinds: Iterable[str]) -> str:
    """Of which chance intervals of these kinds speak, in words, each once: ``another sample of the
    data set``. ``mixed`` is the kind of a mean over unlike ones; others are not known."""
    known = {**KINDS, "mixed": "unlike chances on unlike data sets"}
    return " or ".join(dict.fromkeys(known.get(kind, "a chance not stated") for kind in kinds))
