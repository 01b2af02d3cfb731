"""Tables as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+<]?\d[\d.,]*( .*)?|-|")


def text_table(
    header: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool = False
) -> str:
    """Aligned columns, numbers to the right and words to the left; Markdown if asked for."""
    columns = list(zip(header, *lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return "| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip()

    dashes = ["-" * width for width in widths]
    if markdown:
        dashes = [d[:-1] + ":" if right else d for d, right in zip(dashes, numeric, strict=True)]
    return "\n".join([row(header), row(dashes), *map(row, lines)])
