"""The board's table as a browser would read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from space.pages.board_html import board_html
from space.tables.board import Board, build
from space.tables.matrix import Grid
from space.tables.view import View


@dataclass
class Seen(HTMLParser):
    """What stands in the table, as a browser would read it."""

    tags: set[str] = field(default_factory=set)
    rows: list[list[str]] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        found = {k: v or "" for k, v in attrs}
        if tag == "a":
            self.links.append(found["href"])
        if found:
            self.attributes.append({"tag": tag} | found)

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    @property
    def heads(self) -> list[str]:
        return list(self.rows[1])

    @property
    def body(self) -> list[list[str]]:
        return self.rows[2:]


def seen_board(board: Board, view: View | None = None, page: int = 1) -> Seen:
    out = Seen()
    out.feed(board_html(board, view or View(), page))
    return out


def seen(grid: Grid, view: View | None = None, page: int = 1) -> Seen:
    view = view or View()
    return seen_board(build(grid, view), view, page)
