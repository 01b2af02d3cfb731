"""The unit of a run: one model on one task under all protocols asked for.

A group can be scored twice, at once or one after the other, without harm: it finds for itself what
is done, and of two who write a result the second one finds it there. So whoever places groups on
machines may try again whenever it likes. Everything is found by names, so a group can be sent to
another machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import BadInput, UserError, one_line
from eval.common.files import default_cache
from eval.protocols import PROTOCOLS
from eval.results.index import Row, add_part, row_of
from eval.results.names import shelf_folder
from eval.results.store import read_result
from eval.run.attempt import now, tried
from eval.run.execute import Failure, Networks, Report, encode_share, execute
from eval.run.plan import Cell, Request, plan
from eval.run.progress import Progress
from eval.stores.front import folder_of, mirror, store_of

_NETWORKS = Networks()  # of this process: the next group is often of the same model


@dataclass(frozen=True)
class Group:
    """What to score, of a request of one model and one task. ``cells`` are (where the result is to
    lie below the store, title) of those that were missing when it was planned."""

    request: Request
    cache: str  # a directory or an address; '' for each machine's own
    revision: str  # of the model when the run was planned
    split_hash: str  # of the task
    shelf: str  # folder of the model's results
    title: str
    images: int
    cells: tuple[tuple[str, str, str], ...]  # (planned path, title, protocol)
    drive: str = ""  # key of the run that it is part of
    # (which, of how many): to encode that share of the images and score nothing, for the group that
    # is scored afterwards
    share: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """What tells it from all other groups, on any machine."""
        asked = self.request
        facts = (
            self.shelf, self.revision, self.split_hash, sorted(asked.protocols.items(), key=str),
            asked.seed, asked.limit, asked.precision, asked.readouts, asked.tasks,
            *((self.share,) if self.share else ()),
        )  # fmt: skip
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class GroupReport:
    """What a try of a group did."""

    scored: int = 0
    reused: int = 0
    failures: tuple[Failure, ...] = ()
    images: int = 0
    seconds: float = 0.0


def groups_of(request: Request, cells: Iterable[Cell], cache: str, drive: str = "") -> list[Group]:
    """The missing cells of a run as groups, those of a model one after another.

    Raises UserError for networks of this process's memory, which no other process has.
    """
    if any(not isinstance(model, str) for model in request.models):
        raise BadInput("a network in memory cannot be scored by other processes; name a model")
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if not cell.done:
            found.setdefault((shelf_folder(cell.model), cell.task.split_hash), []).append(cell)
    return [_group(request, mine, cache, drive) for mine in found.values()]


def in_shares(groups: Iterable[Group], most: int) -> list[Group]:
    """The groups, but of each with more than ``most`` images only the shares, of about as many
    each, in which several jobs encode them."""
    found = []
    for group in groups:
        many = -(-group.images // most)
        if many < 2 or not any(PROTOCOLS[name].features for name in group.request.protocols):
            found.append(group)
            continue
        found += [
            dataclasses.replace(
                group, share=(i, many), cells=(), title=f"{group.title}, share {i + 1} of {many}",
                images=group.images // many,
            )
            for i in range(many)
        ]  # fmt: skip
    return found


def _group(request: Request, cells: Sequence[Cell], cache: str, drive: str) -> Group:
    model, task = cells[0].model, cells[0].task
    wanted = {cell.protocol for cell in cells}
    one = dataclasses.replace(
        request,
        models=(model.name if model.kind == "timm" else model.spec,),
        tasks=(cells[0].asked,),
        protocols={name: s for name, s in request.protocols.items() if name in wanted},
        results=Path(), cache=Path(),
    )  # fmt: skip
    missing = tuple(
        (c.path.relative_to(request.results).as_posix(), c.title, c.protocol) for c in cells
    )
    return Group(
        one, cache, model.revision, task.split_hash, shelf_folder(model),
        f"{model.id} on {task.name}", len(task.train) + len(task.test), missing, drive,
    )  # fmt: skip


def run_group(group: Group, store: str, progress: Progress | None = None) -> GroupReport:
    """Score what is missing of a group, write it to the store (a directory or an address), and say
    so in the store's index.

    What goes wrong with a cell, or with the group, is a failure in the report and in the index;
    with a share it is in the report alone, as the group that it is part of meets the same.
    Raises UserError where the store itself cannot be used.
    """
    folder = folder_of(store)
    back = store_of(folder)
    mirror(folder, group.shelf)
    request = dataclasses.replace(
        group.request,
        results=folder,
        cache=folder_of(group.cache) if group.cache else default_cache(),
    )
    if group.share:
        with tried(back, group.key, group.title, group.drive):
            return _encoded_share(group, request, group.share)
    with tried(back, group.key, group.title, group.drive) as this:
        try:
            cells = _planned(group, request)
        except UserError as error:
            failures = [
                Failure(title, str(error), True, str(folder / path))
                for path, title, _ in group.cells
            ]
            report = Report([], failures=failures)
        else:
            report = execute(request, cells, progress=progress, networks=_NETWORKS)
        worked = report.scored or report.failures
        rows = rows_of(report, folder, group.key, this.name if worked else "")
        add_part(back, rows)
    return GroupReport(
        report.scored, report.reused, tuple(report.failures), report.images, report.seconds
    )


def _encoded_share(group: Group, request: Request, share: tuple[int, int]) -> GroupReport:
    try:
        return GroupReport(images=encode_share(request, _planned(group, request), share, _NETWORKS))
    except Exception as error:
        failure = Failure(group.title, one_line(error), isinstance(error, UserError))
        return GroupReport(failures=(failure,))


def _planned(group: Group, request: Request) -> list[Cell]:
    """The group's cells as they are now. Raises UserError where the model or the task is not what
    the run was planned for."""
    cells = plan(request)
    model, task = cells[0].model, cells[0].task
    if model.revision != group.revision:
        raise BadInput(
            f"{model.id} was at revision {group.revision[:12]} when the run was planned and is at "
            f"{model.revision[:12]} now; start the run again"
        )
    if task.split_hash != group.split_hash:
        raise BadInput(
            f"task {task.name!r} has other images here (split {task.split_hash[:12]}) than where "
            f"the run was planned ({group.split_hash[:12]}); give all machines the same data"
        )
    return cells


def rows_of(report: Report, folder: Path, group: str = "", attempt: str = "") -> list[Row]:
    """What the index is told of a run: each result that is there, and each failure. ``group`` is
    the key of the group and ``attempt`` the name of the try that worked at it, where it was one."""
    host, when = socket.gethostname(), now()
    back = {placed: planned for planned, placed in report.placed.items()}

    def name(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    rows = []
    for cell in report.cells:
        if cell.path.is_file():
            rows.append(
                row_of(
                    read_result(cell.path), name(cell.path),
                    planned=name(back.get(cell.path, cell.path)), title=cell.title,
                    group=group, attempt=attempt, when=when, host=host,
                    size=cell.path.stat().st_size,
                )
            )  # fmt: skip
    for failure in report.failures:
        planned = name(Path(failure.planned))
        rows.append(
            Row(
                "", planned, failure.title, group, attempt, when, host,
                error=failure.error, mistake=failure.user_mistake, conflict=failure.conflict,
            )
        )  # fmt: skip
    return rows
