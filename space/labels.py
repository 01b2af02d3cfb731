"""How things are called on the pages."""

from __future__ import annotations

from collections.abc import Iterable

from eval.common.errors import UserError
from eval.metrics.estimates import KINDS
from eval.models.objectives import parse_objective
from space.tables.scores import facts


def shown_objective(name: str) -> str:
    """``ce+selfsupcon`` as the paper writes it: CE+SelfSupCon; anything else as it is."""
    try:
        return parse_objective(name).shown if name else ""
    except UserError:
        return name


def facts_label(model: str) -> str:
    """A model by its objective where its name tells it: ``CE+SelfSupCon (resnet18_narrow)``."""
    about = facts(model)
    if not about.objective or about.objective == "untrained":
        return model
    return f"{shown_objective(about.objective)} ({about.architecture})"


def chance(kinds: Iterable[str]) -> str:
    """Of which chance intervals of these kinds speak, in words, each once: ``another sample of the
    data set``. ``mixed`` is the kind of a mean over unlike ones; others are not known."""
    known = {**KINDS, "mixed": "unlike chances on unlike data sets"}
    return " or ".join(dict.fromkeys(known.get(kind, "a chance not stated") for kind in kinds))
