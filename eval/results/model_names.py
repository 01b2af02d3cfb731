"""Short names of models: by their objective where it tells them apart, as the paper writes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from eval.models.facts import UNTRAINED
from eval.results.facts import objective_named, shown_objective

_SIZE = re.compile(r" @\d+px$")


def short(name: str, most: int = 44) -> str:
    """A long name's end, where models differ."""
    return name if len(name) <= most else "..." + name[3 - most :]


def called(
    names: Sequence[str], most: int = 44, objectives: Sequence[str] | None = None
) -> list[str]:
    """Models in pictures and on boards: by their objective where it tells them apart, as the
    paper writes it; else by their names without the prefix. ``objectives`` are those of the models
    (`eval.results.facts.facts_of`); None: those of checkpoints that ship are known by name."""
    if objectives is None:
        objectives = [objective_named(name) for name in names]
    return [
        shown_objective(objective)
        if objective and objective != UNTRAINED and objectives.count(objective) == 1
        else ("untrained " if name.startswith("random:") else "")
        + short(re.sub(r"^[\w-]+:", "", name), most)
        for name, objective in zip(names, objectives, strict=True)
    ]


def distinct_names(
    labels: Sequence[str], most: int, objectives: Sequence[str] | None = None
) -> dict[str, str]:
    """{a board's label: its short name}, of at most ``most`` characters and no two alike: those
    that end alike are numbered. An input size that all labels share is left out. ``objectives`` as
    for `called`.
    """
    sizes = {found[0] if (found := _SIZE.search(label)) else "" for label in labels}
    plain = [_SIZE.sub("", label) if len(sizes) == 1 else label for label in labels]
    names = [short(name, most) for name in called(plain, most, objectives)]
    times, seen = Counter(names), Counter[str]()
    out = {}
    for label, name in zip(labels, names, strict=True):
        if times[name] > 1:
            stem = short(name, most - len(" (99)"))
            seen[stem] += 1
            name = f"{stem} ({seen[stem]})"
        out[label] = name
    return out
