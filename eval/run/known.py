"""What is done already: by a store's index where there is one, else by the files."""

from __future__ import annotations

from pathlib import Path

from eval.results.index import Index, add_part
from eval.run.execute import Report
from eval.run.group import rows_of
from eval.run.plan import Cell, Held, Known, Request, held_at, plan
from eval.stores.front import address_of, fetch, store_of
from eval.stores.store import Disk


def known_to(index: Index, folder: Path) -> Known:
    """What is there by an index, without a look into files; by the files where it does not say.

    A file of a plain folder that is gone, or has another size than the index says, is no longer
    the one that it speaks of.
    """
    plain = isinstance(store_of(folder), Disk)

    def known(path: Path) -> Held | None:
        row = index.results.get(path.relative_to(folder).as_posix())
        if row is None:
            return held_at(path)
        if plain and not (path.is_file() and path.stat().st_size == row.bytes):
            return held_at(path)
        return Held(row.split_hash, row.info, row.computed)

    return known


def planned_from(request: Request) -> tuple[list[Cell], Index]:
    """The cells of a run, and the index of its store that says what is done."""
    index = Index()
    index.refresh(store_of(request.results))
    return plan(request, known_to(index, request.results)), index


def fetch_results(request: Request, cells: list[Cell]) -> None:
    """Bring the results of these cells here, where they lie in a store."""
    fetch(request.results, (c.path.relative_to(request.results).as_posix() for c in cells))


def note_results(request: Request, report: Report) -> None:
    """Tell the index of a store what a run wrote; a plain folder needs none."""
    if address_of(request.results):
        add_part(store_of(request.results), rows_of(report, request.results))
