"""One rule for all sources: which of some names stand for train, validation and test.

A name counts where one of its words, in any case, is a split word and the rest is the same on both
sides: ``Train`` and ``Test``, ``training_set`` and ``test_set``, ``seg_train`` and ``seg_test``.
Test is scored where it is there, else validation is, and that is said; beside a test, validation is
what settings are chosen on. A name that is given by the user is taken without a word. Two names for
one role cannot be told apart and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.common.errors import BadInput, NotFound, did_you_mean

Role = Literal["train", "validation", "test"]
_WORDS: dict[str, Role] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+")
HOW = "?train=NAME&test=NAME"


@dataclass(frozen=True)
class Chosen:
    """Which names are trained on and scored."""

    train: str
    test: str
    validation: tuple[str, ...] = ()  # beside a test
    said: tuple[str, ...] = ()  # what the user could have meant otherwise


def chosen_on(validation: Sequence[str]) -> str:
    """What is said of validation parts beside a test."""
    return (
        f"{' and '.join(validation)} is what settings are chosen on, and trained on with train in "
        "the end"
    )


def not_used(validation: Sequence[str], test: str) -> str:
    """What is said of validation parts of boxes: no protocol chooses on them."""
    return f"{' and '.join(validation)} is not used: {test} is scored"


def role_of(name: str) -> tuple[Role, tuple[str, ...]] | None:
    """(the role, the other words in lower case); None where no word, or more than one, is a split
    word."""
    words = [word.lower() for word in _TOKEN.findall(name)]
    found = [word for word in words if word in _WORDS]
    if len(found) != 1:
        return None
    return _WORDS[found[0]], tuple(word for word in words if word not in _WORDS)


def choose(
    names: Iterable[str],
    place: str,
    train: str = "",
    test: str = "",
    labelled: Callable[[str], bool] = lambda name: True,
) -> Chosen | None:
    """The parts among ``names``; None where they are no parts: no train, or nothing to score.

    ``place`` begins error messages: what holds the names. ``train`` and ``test`` are the user's own
    choice. ``labelled`` says whether a test has labels; one that has none is not scored where there
    is a validation. Raises UserError for names that are not there and for two of one role.
    """
    names = sorted(set(names))
    if train and test:
        return Chosen(_given(train, names, place), _given(test, names, place))
    groups: dict[tuple[str, ...], dict[Role, list[str]]] = {}
    for name in names:
        if found := role_of(name):
            groups.setdefault(found[1], {}).setdefault(found[0], []).append(name)
    if train or test:
        own = _given(train or test, names, place)
        rest = role_of(own)
        group = groups.get(rest[1] if rest else (), {})
        if train:
            return _of({**group, "train": [own]}, place, labelled)
        ours = [n for n in group.get("train", []) if n != own]
        return Chosen(_one(ours, place), own) if ours else None
    whole = [g for g in groups.values() if "train" in g and len(g) > 1]
    if not whole:
        return None
    if len(whole) > 1:
        ambiguous = [g["train"][0] for g in whole]
        raise BadInput(f"{place} has {ambiguous[0]} and {ambiguous[1]}; say which with {HOW}")
    return _of(whole[0], place, labelled)


def _of(group: dict[Role, list[str]], place: str, labelled: Callable[[str], bool]) -> Chosen | None:
    train = _one(group["train"], place)
    tests, others = group.get("test", []), group.get("validation", [])
    said = []
    if tests and others and not any(map(labelled, tests)):
        said.append(f"{tests[0]} has no labels: {others[0]} is scored in its place")
        tests = []
    elif others and not tests:
        said.append(f"there is no test: {others[0]} is scored in its place")
    if tests:
        return Chosen(train, _one(tests, place), tuple(others), tuple(said))
    return Chosen(train, _one(others, place), (), tuple(said)) if others else None


def _one(names: Sequence[str], place: str) -> str:
    if len(names) > 1:
        raise BadInput(f"{place} has {names[0]} and {names[1]}; say which with {HOW}")
    return names[0]


def _given(name: str, names: Sequence[str], place: str) -> str:
    if name not in names:
        known = f"there are {', '.join(names[:8]) or 'none'}"
        raise NotFound(f"{place} has no {name!r}{did_you_mean(name, names, known)}")
    return name
