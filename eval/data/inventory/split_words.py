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
from eval.common.text import some

Role = Literal["train", "validation", "test"]
_WORDS: dict[str, Role] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+")
HOW = "?train=NAME&test=NAME"  # and &validation=NAME


@dataclass(frozen=True)
class Given:
    """The parts that the user names; '' to find them."""

    train: str = ""
    test: str = ""
    validation: str = ""

    def options(self) -> dict[str, str]:
        """As options of a task string."""
        return {role: name for role, name in vars(self).items() if name}


FREE = Given()


@dataclass(frozen=True)
class Chosen:
    """Which names are trained on and scored."""

    train: str
    test: str
    validation: tuple[str, ...] = ()  # beside a test; at most one
    said: tuple[str, ...] = ()  # what the user could have meant otherwise


def role_of(name: str) -> tuple[Role, tuple[str, ...]] | None:
    """(the role, the other words in lower case); None where no word, or more than one, is a split
    word."""
    words = [word.lower() for word in _TOKEN.findall(name)]
    found = [word for word in words if word in _WORDS]
    if len(found) != 1:
        return None
    return _WORDS[found[0]], tuple(word for word in words if word not in _WORDS)


def is_told(name: str, chosen: Chosen, given: Given = FREE) -> bool:
    """Whether nobody needs a warning that a part is not used: it is validation, of which ``choose``
    says what becomes; the user named the one of its role; or ``choose`` said that it has no
    labels. Part of train or of what is scored is never left out without a word."""
    found = role_of(name)
    if found is None:
        return False
    role, rest = found
    unlabelled = role == "test" and role_of(chosen.test) == ("validation", rest)
    return role == "validation" or bool(getattr(given, role)) or unlabelled


def lost(names: Iterable[str], chosen: Chosen, given: Given = FREE) -> tuple[str, ...]:
    """What to say of parts that are not used, where nothing counts what is left out."""
    taken = {chosen.train, chosen.test, *chosen.validation}
    beside = [n for n in sorted({*names} - taken) if role_of(n) and not is_told(n, chosen, given)]
    if not beside:
        return ()
    return (f"not used beside {chosen.train} and {chosen.test}: {some(beside)}",)


def choose(
    names: Iterable[str],
    place: str,
    given: Given = FREE,
    labelled: Callable[[str], bool] = lambda name: True,
    boxes: bool = False,
) -> Chosen | None:
    """The parts among ``names``; None where they are no parts: no train, or nothing to score.

    ``place`` begins error messages: what holds the names. ``labelled`` says whether a part has
    labels; a test that has none is not scored where there is a validation. With ``boxes`` a
    validation beside a test is not used: no protocol chooses on it. Raises UserError for names that
    are not there and for two of one role.
    """
    names = sorted(set(names))
    for name in filter(None, (given.train, given.test, given.validation)):
        _check(name, names, place)
    if given.train and given.test:
        held = (given.validation,) if given.validation else ()
        return Chosen(given.train, given.test, held)
    groups: dict[tuple[str, ...], dict[Role, list[str]]] = {}
    for name in names:
        if found := role_of(name):
            groups.setdefault(found[1], {}).setdefault(found[0], []).append(name)
    own = given.train or given.test or given.validation
    if own:
        rest = role_of(own)
        group = dict(groups.get(rest[1] if rest else (), {}))
        named: dict[Role, str] = {
            "train": given.train, "test": given.test, "validation": given.validation
        }  # fmt: skip
        for role, name in named.items():
            if name:
                group = {r: [n for n in found if n != name] for r, found in group.items()}
                group[role] = [name]
        whole = [group] if group.get("train") else []
    else:
        whole = [g for g in groups.values() if "train" in g and len(g) > 1]
    if len(whole) > 1:
        ambiguous = [g["train"][0] for g in whole]
        raise BadInput(f"{place} has {ambiguous[0]} and {ambiguous[1]}; say which with {HOW}")
    return _of(whole[0], given, place, labelled, boxes) if whole else None


def _of(
    group: dict[Role, list[str]],
    given: Given,
    place: str,
    labelled: Callable[[str], bool],
    boxes: bool,
) -> Chosen | None:
    train = _one(group["train"], place)
    tests, others = group.get("test", []), group.get("validation", [])
    if others and not given.validation and not any(map(labelled, tests)):
        why = f"{tests[0]} has no labels" if tests else "there is no test"
        scored = _one(others, place)
        return Chosen(train, scored, (), (f"{why}: {scored} is scored in its place",))
    if not tests:
        return None
    test = _one(tests, place)
    held = [name for name in others if labelled(name)]
    if given.test and not given.validation:
        return Chosen(train, test)  # as the user says: the others are left out
    if given.validation:
        return Chosen(train, test, (given.validation,))
    if not held:
        return Chosen(train, test, (), tuple(f"{n} has no labels and is not used" for n in others))
    validation = _one(held, place, "?validation=NAME")
    if boxes:
        return Chosen(train, test, (), (f"{validation} is not used: {test} is scored",))
    said = f"{validation} is what settings are chosen on, and trained on with train in the end"
    return Chosen(train, test, (validation,), (said,))


def _one(names: Sequence[str], place: str, how: str = HOW) -> str:
    if len(names) > 1:
        raise BadInput(f"{place} has {names[0]} and {names[1]}; say which with {how}")
    return names[0]


def _check(name: str, names: Sequence[str], place: str) -> None:
    if name not in names:
        known = f"there are {', '.join(names[:8]) or 'none'}"
        raise NotFound(f"{place} has no {name!r}{did_you_mean(name, names, known)}")
