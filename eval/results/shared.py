"""Results of a store, brought into the folder before it."""

from __future__ import annotations

from pathlib import Path

from eval.results.index import Index
from eval.results.schema import ANALYSES
from eval.results.signoff import FOLDER as SIGN_OFFS
from eval.results.store import result_files
from eval.stores.front import address_of, fetch, mirror, store_of


def pull_results(folder: Path) -> None:
    """Bring all results of the store behind a folder here, by its index, with the findings and
    sign-offs; nothing for a plain folder. What was removed there is removed here.

    A store without an index is listed once. Raises UserError where it does not answer.
    """
    if not address_of(folder):
        return
    store, index = store_of(folder), Index()
    index.refresh(store)
    names = set(index.results) or {
        name
        for name in store.sizes()
        if name.endswith(".json") and not any(part.startswith(".") for part in name.split("/"))
    }
    fetch(folder, names)
    here = {path.relative_to(folder).as_posix() for path in result_files(folder)}
    # Few: their rows are on the way, or they were taken back.
    for shelf in {name.rpartition("/")[0] for name in here - names}:
        mirror(folder, shelf)
    for other in (ANALYSES, SIGN_OFFS):
        mirror(folder, other)
