"""Boards as HTML for a notebook: plain tables that take the notebook's own style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from eval.results.board_text import notes
from eval.results.leaderboard import Table, grid


def boards_html(found: Sequence[Table]) -> str:
    """All boards and below them what their readers must know. Every name is escaped: task and
    model names may come from anywhere."""
    parts = []
    for table in found:
        header, lines = grid(table)
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
            for line in lines
        )
        parts.append(
            f"<table><caption>{escape(table.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "\n".join([*parts, *(f"<p><small>{escape(n)}</small></p>" for n in notes(found))])
