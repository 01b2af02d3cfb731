"""The authors' lists: text files and tables, read strictly, so that a mistake has a place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, UserError, did_you_mean
from eval.prepare.listing import Entry

if TYPE_CHECKING:
    from eval.prepare.archives import Download

LIMIT = 64 << 20  # bytes; the longest list of the suite (ChestX) has 8 MB


def sole(download: Download, pattern: str, what: str) -> Entry:
    """The one file of this name; an archive and its unpacked tree side by side count as one."""
    entries = [entry for _, entry in download.find(pattern)]
    if len(entries) > 1 and len({entry.size for entry in entries}) == 1:
        return min(entries, key=lambda entry: (entry.container, entry.name))
    return download.one(pattern, what)


def texts(
    download: Download, entries: Iterable[Entry], limit: int = 0
) -> Iterator[tuple[Entry, str]]:
    """Each file as text, in the archives' order. A byte order mark goes: editors add it."""
    wanted, limit = list(entries), limit or LIMIT
    for entry in wanted:
        if entry.size > limit:
            raise BadInput(
                f"{download.where(entry)!r} has {entry.size:,} bytes; a list of this set has less "
                f"than {limit:,}"
            )
    for entry, data in download.stream(wanted):
        if not isinstance(data, bytes):
            raise BadInput(f"{download.where(entry)!r} cannot be read: {data.why}")
        # A NUL is UTF-8, but means UTF-16: the XML parser would take it for that, and declarations
        # looked for in the text would be hidden from us.
        wrong = data.find(0)
        try:
            content = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            wrong = error.start
        if wrong >= 0:
            raise BadInput(
                f"{download.where(entry)!r} is not UTF-8 text (byte {wrong:,}); take the official "
                "file"
            )
        yield entry, content


def text(download: Download, entry: Entry) -> str:
    """The file as text."""
    ((_, content),) = texts(download, [entry])
    return content


def lines(download: Download, entry: Entry) -> list[str]:
    """The lines that are not blank, stripped."""
    stripped = (line.strip() for line in text(download, entry).splitlines())
    return [line for line in stripped if line]


def rows(download: Download, entry: Entry) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a csv file's rows that are not blank, the header first.

    Fields are separated by tabs where the header has one (Dataverse's .tab files).
    """
    content = text(download, entry)
    head = content.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(content, newline=""), delimiter="\t" if "\t" in head else ",", strict=True
    )
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(
                f"{download.where(entry)!r}, line {reader.line_num}: not a csv row ({error})"
            ) from None
        if any(field.strip() for field in fields):
            yield reader.line_num, [field.strip() for field in fields]


def table(
    download: Download, entry: Entry, columns: Sequence[str]
) -> list[tuple[int, tuple[str, ...]]]:
    """(line number, the named columns' values) of every row.

    A column may have several names, 'image|image_id'; the first that is there counts.
    """
    where, every = repr(download.where(entry)), rows(download, entry)
    _, header = next(every, (0, []))
    places = []
    for column in columns:
        known = [name for name in column.split("|") if name in header]
        if not known:
            raise BadInput(
                f"{where} has no column {column.replace('|', ' or ')!r}: its header is "
                f"{','.join(header)[:200]!r}"
            )
        places.append(header.index(known[0]))
    found_rows = []
    for number, fields in every:
        if len(fields) != len(header):
            raise BadInput(
                f"{where}, line {number}: {len(fields)} fields, the header has {len(header)}"
            )
        found_rows.append((number, tuple(fields[place] for place in places)))
    return found_rows


def once(names: Iterable[str], where: str) -> None:
    """Refuse a name that is listed twice, or that cannot be the name of a file."""
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")
        if "" in parts or ".." in parts or "\\" in name or not name.isprintable():
            raise BadInput(f"{where} lists {name[:80]!r}, which is not a file name")
        if name in seen:
            raise BadInput(f"{where} lists {name!r} twice; take the official file")
        seen.add(name)


def positions(classes: Sequence[str]) -> dict[str, int]:
    """Class -> label: its position among the declared classes."""
    return {name: label for label, name in enumerate(classes)}


def unknown_class(name: str, where: str, task: str, classes: Iterable[str]) -> UserError:
    """The words for a class that is not of the task."""
    known = list(classes)
    hint = did_you_mean(name, known, "this is another version of the set")
    return UserError(f"{where} is of {name!r}, none of the {len(known)} classes of {task}{hint}")


def whole(value: str, highest: int, where: str, what: str) -> int:
    """A number of 0..highest, written plainly."""
    if value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= highest:
        return int(value)
    raise BadInput(f"{where}: {what} is {value[:40]!r}, not one of 0 to {highest}")


def enough_classes(task: str, classes: Sequence[str], number: int) -> None:
    """Refuse class names that cannot be those of labels 0..number-1."""
    if len(classes) != number:
        raise BadInput(f"{task} has {number} classes; {len(classes)} names are declared")
