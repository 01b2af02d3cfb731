"""Columns -> the labels of each row.

One column holds lists, or text with a separator between (``cat|dog``); a path such as
``objects.category`` reads what a struct holds, the labels of boxes for instance. Several columns
are one label each, 1 or 0. -1 is no where it stands beside 1 alone, as PASCAL VOC writes it; beside
0 it may as well be "uncertain", as CheXpert writes that, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from eval.common.errors import BadInput
from eval.common.text import some

_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_MINUS = ("-1", "-1.0")


@dataclass(frozen=True)
class Columns:
    """How rows say their labels."""

    names: tuple[str, ...]  # one, or one a label
    separator: str = "|"
    none: str = ""  # a label that stands for none, such as NIH's "No Finding"
    paths: bool = True  # a dot goes into a struct; in a CSV file it is part of a name

    @property
    def top(self) -> tuple[str, ...]:
        """The columns themselves, where a path goes into one."""
        return tuple(dict.fromkeys(self._path(name)[0] for name in self.names))

    def _path(self, name: str) -> list[str]:
        return name.split(".") if self.paths else [name]

    def _values(self, rows: Mapping[str, Sequence[Any]], name: str) -> list[Any]:
        column, *inner = self._path(name)
        return [_inside(value, inner) for value in rows[column]]

    def facts(self) -> list[Any]:
        return [self.names, self.separator, self.none]

    def read(
        self, rows: Mapping[str, Sequence[Any]], describe: Callable[[int], str]
    ) -> list[tuple[Any, ...]]:
        """The labels of each row of columns, each once, in their order. ``describe`` names a row.

        Raises UserError for a value that says no labels, and for -1 beside 0; to see both, ``rows``
        are all that a source has.
        """
        if len(self.names) > 1:
            return self._one_each(rows, describe)
        name = self.names[0]
        found = []
        for row, value in enumerate(self._values(rows, name)):
            labels = self._of(value, partial(describe, row))
            found.append(tuple(dict.fromkeys(labels)))
        return found

    def said(self, rows: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
        """What was decided about the values of rows that were read."""
        several = self.names if len(self.names) > 1 else ()
        minus = [n for n in several if any(_word(v) in _MINUS for v in self._values(rows, n))]
        return (f"-1 is taken as no, and 1 as yes, in {some(minus)}",) if minus else ()

    def _of(self, value: Any, where: Callable[[], str]) -> list[Any]:
        if value is None:
            raise BadInput(
                f"{where()} has no labels in column {self.names[0]!r}; an empty list is none"
            )
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(self.separator)]
            if parts == [""]:
                return []
            if "" in parts:
                raise BadInput(
                    f"{where()}: labels {value[:80]!r} have an empty one; put {self.separator!r} "
                    "between labels alone"
                )
            value = parts
        elif isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(one, str) or type(one) is int for one in value
        ):
            raise BadInput(
                f"{where()}: labels {repr(value)[:80]} are no list of names or numbers, nor text "
                f"with {self.separator!r} between"
            )
        return [one for one in value if str(one) != self.none or not self.none]

    def _one_each(
        self, rows: Mapping[str, Sequence[Any]], describe: Callable[[int], str]
    ) -> list[tuple[Any, ...]]:
        found: list[list[str]] = [[] for _ in self._values(rows, self.names[0])]
        for name in self.names:
            values = self._values(rows, name)
            words = [_word(value) for value in values]
            minus = next((row for row, word in enumerate(words) if word in _MINUS), None)
            if minus is not None and any(word in _NO for word in words):
                raise BadInput(
                    f"{describe(minus)}: column {name!r} holds -1 beside 0, which may be no or "
                    "'uncertain'; write 1 or 0 in its place, or take such rows out"
                )
            for row, (word, value) in enumerate(zip(words, values, strict=True)):
                if word not in (*_YES, *_NO, *_MINUS):
                    raise BadInput(
                        f"{describe(row)}: column {name!r} holds {str(value)[:80]!r}; of several "
                        "columns each is one label, 1 or 0"
                    )
                if word in _YES:
                    found[row].append(name)
        return [tuple(labels) for labels in found]


def _word(value: Any) -> str:
    return str(value).strip().lower()


def _inside(value: Any, path: Sequence[str]) -> Any:
    """What a struct, or each of a list of structs, holds at a path."""
    for name in path:
        if isinstance(value, list):
            value = [one.get(name) if isinstance(one, dict) else None for one in value]
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def declared_labels(metadata: Mapping[bytes, bytes] | None, path: str) -> tuple[str, ...] | None:
    """The names that Hugging Face's metadata declare for the numbers of a list column."""
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        for name in path.split("."):
            found = (found.get("feature", found) if isinstance(found, dict) else found[0])[name]
        while isinstance(found, list) or (isinstance(found, dict) and "feature" in found):
            found = found[0] if isinstance(found, list) else found["feature"]
        return tuple(found["names"]) if found.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        return None
