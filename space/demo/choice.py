"""Which of the models suits these pictures, and what so few pictures can say of that.

Each model is asked for every picture by a head that has not seen it (leave-one-out). Models are
compared picture by picture, all pairs at once, by `eval.metrics.ties` as everywhere else: what they
could not be told apart by on other pictures of the kind, they are not told apart by here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates, of_items
from eval.metrics.ties import LEVEL, ties
from space.demo.bounds import SHOTS
from space.demo.uploads import Picture

if TYPE_CHECKING:
    from space.demo.classify import ModelAnswer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """A model's standing. ``right`` of ``n`` pictures were told by a head that had not seen them,
    ``low`` and ``high`` bound that share with 95 %; all four are None, ``places`` and ``group``
    empty and 0, where leave-one-out is impossible."""

    model: str
    params: int
    right: int | None
    n: int
    low: float | None
    high: float | None
    places: str
    group: int
    log_me: float


@dataclass(frozen=True)
class Choice:
    """The models, best first; the one to take; and in one sentence why."""

    rows: tuple[Ranked, ...]
    taken: str
    sentence: str


def choose(
    answers: Sequence[ModelAnswer],
    supports: Sequence[tuple[str, Sequence[Picture]]],
    names: Sequence[str],
) -> Choice:
    """Rank the models of an answer; ``names`` [M] are what the sentence calls them.

    Best first by the pictures that each tells, equals by LogME. Of the models that cannot be told
    from the best the smallest is taken, of several such the first.
    """
    pictures = [p for _, shots in supports for p in shots]
    called = {a.model: name for a, name in zip(answers, names, strict=True)}
    scores = _scores(answers, pictures)
    if scores is None:
        rows = sorted((_row(a, len(pictures)) for a in answers), key=lambda r: -r.log_me)
        taken = rows[0].model
        return Choice(tuple(rows), taken, _unmeasured(called[taken], len(rows)))
    known = of_items(scores)
    told = ties(known)
    rows = sorted(
        (_row(a, len(pictures), told.places(i), int(told.group[i])) for i, a in enumerate(answers)),
        key=lambda r: (-(r.right or 0), -r.log_me),
    )
    best = [row for row in rows if row.group == 1]
    taken = min(best, key=lambda r: r.params).model  # of equals the first
    more = _more(scores, known, len(supports))
    return Choice(tuple(rows), taken, _sentence(rows, best, taken, called, more))


def _row(answer: ModelAnswer, n: int, places: str = "", group: int = 0) -> Ranked:
    head = answer.head
    low, high = head.loo_interval or (None, None)
    right = sum(head.loo_right) if head.loo_right else None
    params = answer.backbone.params
    return Ranked(answer.model, params, right, n, low, high, places, group, answer.log_me)


def _scores(answers: Sequence[ModelAnswer], pictures: Sequence[Picture]) -> Floats | None:
    """[M, n] whether each model told each picture; copies are one, with the share of right ones.
    None where leave-one-out is impossible."""
    if not all(a.head.loo_right for a in answers):
        return None
    right = np.array([a.head.loo_right for a in answers], np.float64)  # [M, N]
    item = np.unique([p.digest for p in pictures], return_inverse=True)[1]
    count = np.bincount(item)
    return np.stack([np.bincount(item, row) / count for row in right])


def _unmeasured(name: str, models: int) -> str:
    start = "With one picture in a class nothing can be left out, so nothing is measured"
    if models == 1:
        return f"{start}: give at least two of each class."
    return f"{start}: {name} is first by LogME alone. Give at least two of each class."


def _sentence(
    rows: Sequence[Ranked], best: Sequence[Ranked], taken: str, called: dict[str, str], more: str
) -> str:
    first, n = rows[0], rows[0].n
    score = f"right on {first.right} of {n}"
    if len(rows) == 1:
        return f"{called[taken]} is {score} of your pictures, each asked of a head without it."
    if len(best) == 1:
        return (
            f"{called[taken]} is the best here: {score}, each asked of a head without it, and "
            f"better than each of the others (all pairs at once, p < {LEVEL})."
        )
    small = min(row.params for row in best) < max(row.params for row in best)
    name = called[taken]
    take = f"the smallest, {name}" if small else f"any (they are of one size), say {name}"
    if len(best) == len(rows):
        said = f"{n} pictures cannot tell these {len(rows)} models apart: take {take}"
    else:
        said = (
            f"{n} pictures cannot tell {len(best)} of these {len(rows)} models apart, the others "
            f"are worse: of the {len(best)} take {take}"
        )
    return f"{said}{more}."


def _more(scores: Floats, known: Estimates, ways: int) -> str:
    """How many pictures a class would tell the best from the last, were they answered alike: the
    same answers are taken twice, three times ... and tested anew."""
    best, last = int(np.argmax(known.values)), int(np.argmin(known.values))
    if ties(known).better[best, last]:
        return ""
    for times in range(2, SHOTS[1] * ways // scores.shape[1] + 1):
        if ties(of_items(np.tile(scores, times))).better[best, last]:
            return f", or give {math.ceil(times * scores.shape[1] / ways)} a class"
    return f"; even {SHOTS[1]} a class would hardly tell them apart"
