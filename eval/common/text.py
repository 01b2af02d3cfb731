"""Tables as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
# An underscore inside a word is not a mark of emphasis; bare addresses would become links.
_MARKS = re.compile(
    r"[\\`*~\[\]<>|#&!$]|(?<![^\W_])_|_(?![^\W_])|(?<=http):|(?<=https):|(?<=www)\."
)
# Letters by their category, of which nothing is seen; and blanks that are no control characters.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]")
_SPACES = "\u00a0\u2002\u2003\u2009\u202f\u3000"
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*( .*)?|-|")


def slug(text: str) -> str:
    """The text as one part of a path, on any system and however hostile: ``org/name`` is
    ``org--name``. Never empty, never ``.`` or ``..``."""
    return _UNSAFE.sub("--", text).strip("-").lstrip(".") or "-"


def visible(text: str, *, lines: bool = False) -> str:
    """The text with an escape in the place of each character that steers a terminal, turns the
    direction of what follows or cannot be seen. ``lines``: line ends and tabs may stay."""
    if text.isprintable():
        return _BLANK.sub(_code, text)
    kept = "\n\t" if lines else ""
    return "".join(
        c if c in kept or (c.isprintable() and not _BLANK.match(c)) or c in _SPACES else _code(c)
        for c in text
    )


def _code(found: re.Match[str] | str) -> str:
    """As Python writes it in a string."""
    char = found if isinstance(found, str) else found[0]
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(char)
    if char in named:
        return named[char]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def escaped(text: object) -> str:
    """Foreign text on one line, which Markdown and HTML then show as it is."""
    line = visible(" ".join(str(text).split()))
    return _MARKS.sub(lambda m: f"&#{ord(m[0])};", line)


def p_value(p: float, level: float = 0.05) -> str:
    """Two digits of a p-value, and ``<0.0001`` of smaller ones; as many more as it takes to show on
    which side of ``level`` it lies, so that it never speaks against the verdict beside it.
    """
    if p < 1e-4:
        return "<0.0001"
    shown = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in shown if float(text) != level or p == level)


def percent(value: float, half: float) -> str:
    """``71.8 ±0.7`` of fractions: half the width of an interval behind the value; - for none."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} ±{100 * half:.1f}"


def text_table(
    header: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool = False
) -> str:
    """Aligned columns, numbers to the right and words to the left; Markdown if asked for.

    Foreign text stays in its cell: line ends and other characters that are not seen are escapes,
    in Markdown a pipe is one, too.
    """
    header, *lines = ([_cell(text, markdown) for text in row] for row in (header, *lines))
    columns = list(zip(header, *lines, strict=True))
    least = 2 if markdown else 1  # a dash and a colon
    widths = [max(least, *map(len, column)) for column in columns]
    # bold numbers are numbers
    numeric = [all(_NUMBER.fullmatch(c.strip("*")) for c in column[1:]) for column in columns]

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


def _cell(text: str, markdown: bool) -> str:
    shown = visible(text)
    return shown.replace("|", "&#124;") if markdown else shown


def counted(count: int, one: str, many: str = "") -> str:
    """``1 model``, ``2,000 models``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def quoted(name: str) -> str:
    """A foreign name within a sentence, cut where it is long."""
    return repr(name if len(name) <= 60 else name[:57] + "...")


def some(names: Sequence[str], most: int = 5) -> str:
    """``'a', 'b' and 3 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(quoted, names[:most])) + more


def duration(seconds: float) -> str:
    """``0.4 s``, ``40 s``, ``12 min``, ``2.5 h``: as exact as one reads it."""
    if seconds < 90:
        whole = seconds >= 9.95 or seconds == round(seconds)
        return f"{seconds:.0f} s" if whole else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
