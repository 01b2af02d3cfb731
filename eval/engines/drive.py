"""One run on many machines: plan, hand out what is missing, watch the store, say what came of it.

The driver holds nothing that the store does not: it may die at any moment, and the same command
goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

from eval.common.errors import Unreachable
from eval.common.text import duration
from eval.engines.engine import Ended, Engine
from eval.engines.lease import driving
from eval.engines.placing import Placing
from eval.engines.planned import planned_cells, write_planned
from eval.results.index import Index, Row
from eval.run.attempt import tries
from eval.run.execute import Failure, Report
from eval.run.group import Group, groups_of, in_shares
from eval.run.known import planned_from
from eval.run.plan import Request, warned
from eval.stores.front import check_store, fetch, place_of, store_of
from eval.stores.store import Store

POLL = 2.0  # seconds between two looks at the store
_JOINED = 500  # parts of the index, after which they are made one


def drive(
    request: Request, engine: Engine, cache: str, say: Callable[[str], None],
    images: int = Placing.images_per_job,
) -> Report:  # fmt: skip
    """Have a run scored by an engine. ``say`` is told a line a cell that ends.

    ``cache`` is what the machines are told of theirs: a directory, an address, or '' for the own
    one of each. Where it is shared, sets of more than ``images`` are encoded by several jobs.
    Raises UserError before anything is scored where the store, the engine, a model or
    a task cannot be used, and where another driver is at the same run.
    """
    start = time.perf_counter()
    engine.check()
    check_store(request.results)
    store = store_of(request.results)
    cells, index = planned_from(request)
    for text in warned(cells):
        say(text)
    run = key_of(request)
    groups = groups_of(request, cells, cache, run)
    done = Report(cells)
    if groups:
        with driving(store, run, engine.name):
            write_planned(store, run, planned_cells(cells, request.results))
            shared = bool(cache) or engine.name == "local"
            first = in_shares(groups, images) if shared else groups
            _Drive(store, index, groups, done, say).run(engine, place_of(request.results), first)
            index.join(store)
    folder = request.results
    for at, cell in enumerate(cells):  # by the precision that was chosen, where it stands in names
        name = cell.path.relative_to(folder).as_posix()
        cells[at] = dataclasses.replace(cell, path=folder / index.planned.get(name, name))
    fetch(folder, (cell.path.relative_to(folder).as_posix() for cell in cells))
    done.seconds = time.perf_counter() - start
    return done


def key_of(request: Request) -> str:
    """What tells a run from others on the same store: what is asked for, not how it is computed."""
    facts = (
        sorted(str(m) for m in request.models), sorted(request.tasks),
        sorted(request.protocols.items(), key=str), request.seed, request.limit, request.img_size,
        request.precision, request.readouts,
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


class _Drive:
    """The groups of a run while an engine has them."""

    def __init__(
        self, store: Store, index: Index, groups: Sequence[Group], done: Report,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._index, self._groups, self._done = store, index, groups, done
        self._say = say
        self._left = {path for group in groups for path, _, _ in group.cells}
        self._total = len(self._left)
        self._looked = 0.0
        self._began = time.monotonic()
        self._group_images = {group.key: group.images for group in groups}
        self._counted: set[str] = set()
        self._parts = 0  # of the index, since they were joined

    def run(self, engine: Engine, place: str, first: Sequence[Group]) -> None:
        """``first`` are the groups as they are, or shares of them that are to be encoded before."""
        todo = list(first)
        while todo:
            mine = self._free(todo)
            if mine:
                with closing(_generator(engine.work(mine, place))) as events:
                    for event in events:
                        if event is None and time.monotonic() - self._looked < POLL:
                            continue
                        self._look()
                        if event is not None:
                            self._ended(event)
            else:
                time.sleep(POLL)
                self._look()
            # Those of an earlier driver's processes: done by now, or nobody's.
            todo = [g for g in self._groups if any(path in self._left for path, _, _ in g.cells)]

    def _free(self, groups: Sequence[Group]) -> list[Group]:
        """Those that no process of an earlier driver is still scoring."""
        busy = {one.group for one in tries(self._store) if one.alive}
        return [g for g in groups if g.key not in busy]

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            new = self._index.refresh(self._store)
        except Unreachable as error:  # the work goes on without us
            self._say(str(error))
            return
        for row in new:
            self._note(row)
        self._parts += len({row.attempt for row in new})
        if self._parts >= _JOINED:  # so that a listing stays one request
            self._parts = 0
            self._index.join(self._store)

    def _note(self, row: Row) -> None:
        if row.planned not in self._left:
            return
        self._left.discard(row.planned)
        if row.error:
            self._done.failures.append(
                Failure(row.title, row.error, row.mistake, row.planned, row.conflict)
            )
            self._line(f"{row.title}: failed: {row.error}")
            return
        self._done.scored += 1
        if row.encode and row.attempt not in self._counted:
            self._counted.add(row.attempt)
            self._done.images += self._group_images.get(row.group, 0)
        self._line(f"{row.title}, {duration(row.fit + row.score)} on {row.host}")

    def _ended(self, event: Ended) -> None:
        """Cells of which the store says nothing have their failure from the engine."""
        for group in event.groups:
            for path, title, _ in group.cells:
                if path in self._left:
                    self._left.discard(path)
                    why = event.error or "its group ended without a result and without a reason"
                    self._done.failures.append(Failure(title, why, event.mistake, path))
                    self._line(f"{title}: failed: {why}")

    def _line(self, text: str) -> None:
        ended = self._total - len(self._left)
        left = ""
        if 0 < ended < self._total:
            seconds = (time.monotonic() - self._began) / ended * len(self._left)
            left = f"; about {duration(max(5.0, 5 * round(seconds / 5)))} left"
        self._say(f"[{ended}/{self._total}] {text}{left}")


def _generator(events: Iterator[Ended | None]) -> Generator[Ended | None]:
    """The events, as something that can be closed."""
    yield from events
