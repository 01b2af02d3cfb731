"""Results as an object for Python: a list that shows itself as boards and becomes a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eval.results.board_html import boards_html
from eval.results.board_text import render
from eval.results.leaderboard import Table, tables
from eval.results.parquet_table import score_rows
from eval.results.schema import Result

if TYPE_CHECKING:
    import pandas


class Results(list[Result]):
    """A list of results, one a cell.

    At a prompt it shows its boards as text, in a notebook as tables. A slice is a plain list.

    >>> results = Results()
    >>> len(results), results
    (0, no results)
    """

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a score, in the order of the results: ``model``, ``task``, ``protocol``,
        ``setting``, ``score``, ``value`` with ``ci_low`` and ``ci_high`` (fractions of one) ..."""
        return [
            {k: v for k, v in row.items() if k != "path"} | {"step": result.model.step}
            for result in self
            for row in score_rows("", result)
        ]

    def to_frame(self) -> pandas.DataFrame:
        """`rows` as a pandas data frame.

        >>> Results().to_frame().empty
        True
        """
        import pandas

        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        return repr(Boards(tables(self)))

    def _repr_html_(self) -> str:
        return Boards(tables(self))._repr_html_()


class Boards(list[Table]):
    """A list of boards that shows them: at a prompt as text, in a notebook as tables.

    >>> Boards()
    no results
    """

    def __repr__(self) -> str:
        return render(self).rstrip() if self else "no results"

    def _repr_html_(self) -> str:
        return boards_html(self) if self else "<p>no results</p>"
