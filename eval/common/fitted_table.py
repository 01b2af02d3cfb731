"""Tables as wide as the screen and no wider."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from eval.common.text import text_table

Lines = Sequence[Sequence[str]]


def fitted_table(header: Sequence[str], lines: Lines, width: int, turned: str) -> str:
    """The table in at most ``width`` characters a line, with every cell whole.

    As it is where that fits, else with rows and columns exchanged (``turned`` is then the name of
    the first column), else in blocks of columns that each repeat the first, in whichever of the
    two ways there are fewer. A line is longer only where the first column and one other do not
    fit together.
    """
    exchanged = [list(column) for column in zip(header, *lines, strict=True)]
    exchanged[0][0] = turned
    as_it_is = _blocks(header, lines, width)
    other = _blocks(exchanged[0], exchanged[1:], width)
    return "\n\n".join(other if len(other) < len(as_it_is) else as_it_is)


def shown_table(header: Sequence[str], lines: Lines, width: int | None, turned: str = "") -> str:
    """A table for a screen of ``width`` characters, or Markdown where there is none (None)."""
    if width is None:
        return text_table(header, lines, markdown=True)
    return fitted_table(header, lines, width, turned)


def fits(text: str, width: int) -> bool:
    return all(len(line) <= width for line in text.splitlines())


def wrapped(text: str, width: int, indent: str = "") -> str:
    """One paragraph in lines of at most ``width``, broken at blanks alone: a path stays whole."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def legend(names: dict[str, str], width: int) -> str:
    """{what it stands for: the short name}, a line each; two where one is too long."""
    longest = max(map(len, names.values()))
    beside = "\n".join(f"{short:<{longest}}  {whole}" for whole, short in names.items())
    if fits(beside, width):
        return beside
    return "\n".join(f"{short}\n  {whole}" for whole, short in names.items())


def _blocks(header: Sequence[str], lines: Lines, width: int) -> list[str]:
    """The table in as few blocks as hold its columns in order."""
    columns = list(zip(header, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    blocks: list[list[int]] = []
    room = 0
    for i, needed in enumerate(widths[1:], 1):
        if not blocks or room < 2 + needed:  # two blanks between columns
            blocks.append([0])
            room = width - widths[0]
        blocks[-1].append(i)
        room -= 2 + needed
    return [
        text_table([header[i] for i in block], [[line[i] for i in block] for line in lines])
        for block in blocks
    ]
