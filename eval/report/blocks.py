"""What a page is made of: sections of blocks; a block is a picture, a sentence and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

MOST_COLUMNS = 8  # of a table: more are cut off, or too small to be read, on A4
MOST_LINES = 18
# with its interval, range, p or unit behind it
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*(e[-+]?\d+)?( ?[±%\[(].*)?|-|")


@dataclass(frozen=True)
class Sheet:
    """A table of text. ``keys`` leading columns say what a row is."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()  # (line, column)
    keys: int = 1
    title: str = ""
    small: frozenset[int] = frozenset()  # columns of hashes and the like

    @property
    def whole(self) -> bool:
        """Whether it is short enough to stand on one page of print."""
        return len(self.lines) <= MOST_LINES

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers, which stand to the right."""
        columns = zip(*self.lines, strict=True)
        return [all(map(_NUMBER.fullmatch, column)) for column in columns] or [False] * len(
            self.header
        )


def sheet(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    bold: frozenset[tuple[int, int]] = frozenset(),
    title: str = "",
) -> tuple[Sheet, ...]:
    """A table that fits on the page: a wide one goes on below, with its keys repeated."""
    keys = 2 if list(header[:2]) == ["model", "task"] else 1
    whole = Sheet(tuple(header), tuple(map(tuple, lines)), bold, keys, title)
    room = MOST_COLUMNS - keys
    rest = range(keys, len(header))
    if len(rest) <= room:
        return (whole,)
    count = -(-len(rest) // room)
    size = -(-len(rest) // count)  # parts of about equal width
    return tuple(
        _columns(whole, [*range(keys), *rest[begin : begin + size]], f"{part + 1} of {count}")
        for part, begin in enumerate(range(0, len(rest), size))
    )


def _columns(whole: Sheet, chosen: Sequence[int], which: str) -> Sheet:
    place = {old: new for new, old in enumerate(chosen)}
    return replace(
        whole,
        header=tuple(whole.header[c] for c in chosen),
        lines=tuple(tuple(line[c] for c in chosen) for line in whole.lines),
        bold=frozenset((r, place[c]) for r, c in whole.bold if c in place),
        title=f"{whole.title} (part {which})".strip(),
    )


@dataclass(frozen=True)
class Block:
    """One thing that is shown, and what it shows in words."""

    title: str = ""
    sentence: str = ""
    picture: Markup | None = None
    sheets: tuple[Sheet, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = True  # the tables can be folded away
    summary: str = "The numbers"


@dataclass(frozen=True)
class Section:
    """A heading of the table of contents."""

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    summary: str = ""  # what the page's summary says of it; empty: its last block's sentence
