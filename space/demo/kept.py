"""What a visitor's session keeps of an answer: all that is shown of it, and nothing that changes.

No backbone is in it, so that the shelf alone decides on memory, and no path: an answer shows the
pictures it was made of, whatever the page holds by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from space.demo.asked import Asked
from space.demo.choice import Choice
from space.demo.uploads import Picture
from space.markup import thumbnail

if TYPE_CHECKING:
    from space.demo.classifier import Head
    from space.demo.classify import Answer, QueryAnswer


@dataclass(frozen=True)
class Kept:
    """One answer. ``names`` are what the models are called; ``queries`` are (name, thumbnail);
    ``near`` holds the thumbnails that ``answers`` refer to, by (class, place in it)."""

    asked: Asked
    choice: Choice
    names: dict[str, str]
    heads: dict[str, Head]
    seconds: dict[str, float]
    answers: dict[str, tuple[QueryAnswer, ...]]
    queries: tuple[tuple[str, bytes], ...]
    near: dict[tuple[str, int], bytes]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, asked: Asked, answer: Answer, choice: Choice, names: Sequence[str],
        supports: Sequence[tuple[str, Sequence[Picture]]], queries: Sequence[Picture],
    ) -> Kept:  # fmt: skip
        pictures = dict(zip(answer.classes, (shots for _, shots in supports), strict=True))
        wanted = {
            (n.label, n.index) for m in answer.models for q in m.queries for n in q.neighbours
        }
        return cls(
            asked, choice,
            {m.model: name for m, name in zip(answer.models, names, strict=True)},
            {m.model: m.head for m in answer.models},
            {m.model: m.seconds for m in answer.models},
            {m.model: m.queries for m in answer.models},
            tuple((p.name, thumbnail(p.image)) for p in queries),
            {place: thumbnail(pictures[place[0]][place[1]].image) for place in wanted},
            answer.notes,
        )  # fmt: skip
