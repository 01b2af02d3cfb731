"""A queue in a directory: DIR/{pending,running,done,failed}/ID.json."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from eval.common.errors import BadInput, one_line
from eval.common.files import atomic_file
from eval.queue import request
from eval.queue.candidate import Candidate
from eval.queue.request import STATES, State, Ticket
from eval.queue.request_file import Broken, Record, parse
from eval.queue.rules import (
    Board,
    Decide,
    Decision,
    Move,
    T,
    decide_add,
    decide_finish,
    decide_renewal,
    decide_take,
    decide_tickets,
)

_PATIENCE = 60.0  # seconds for the lock, which is held for milliseconds
_MOST_READ = 100_000  # bytes of a file; no request is as large


class DirectoryQueue:
    """See `eval.queue.request.Queue`. Processes of one machine may share it (or several machines,
    where
    the file system has locks); a beat is the running file's time."""

    def __init__(self, folder: Path, per_day: int) -> None:
        """Makes the folders. Raises UserError where they cannot be."""
        self._folder, self._per_day = folder, per_day
        with self._locked():
            pass

    def add(self, candidate: Candidate, user: str) -> Ticket:
        return self._transact(STATES, lambda b: decide_add(b, candidate, user, self._per_day))

    def tickets(self) -> list[Ticket]:
        return self._transact(STATES, decide_tickets)

    def take(self, worker: str) -> Ticket | None:
        def decide(board: Board) -> Decision[Ticket | None]:
            self._set_aside({name for state, name in board.broken if state == "pending"})
            return decide_take(board, worker)

        return self._transact(("pending", "running"), decide)

    def renew_lease(self, ticket: Ticket) -> None:
        self._transact(("running",), lambda b: decide_renewal(b, ticket))

    def finish(self, ticket: Ticket, state: State, note: str) -> Ticket:
        return self._transact(("running",), lambda b: decide_finish(b, ticket, state, note))

    def _transact(self, states: Sequence[State], decide: Decide[T]) -> T:
        """Read the folders, decide, move, all under one lock."""
        with self._locked():
            moves, answer = decide(self._board(states))
            for move in moves:
                self._move(move)
            return answer

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A killed process holds no lock. Raises UserError for what the system refuses."""
        try:
            for state in STATES:
                folder = self._folder / state
                if folder.is_symlink():  # files would be moved out of where it leads
                    raise BadInput(
                        f"{state}/ of queue {str(self._folder)!r} is a link; make it a folder"
                    )
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock").acquire(timeout=_PATIENCE, poll_interval=0.01):
                yield
        except Timeout:
            raise BadInput(
                f"queue {str(self._folder)!r} was locked for {_PATIENCE:.0f} s; is a process "
                "that uses it stopped?"
            ) from None
        except OSError as error:
            raise BadInput(
                f"queue {str(self._folder)!r} cannot be used: {error.strerror or one_line(error)}"
            ) from None

    def _board(self, states: Sequence[State]) -> Board:
        board = Board()
        for state in states:
            for entry in sorted(os.scandir(self._folder / state), key=lambda e: e.name):
                if entry.name.startswith("."):  # on its way
                    continue
                name = _shown(entry.name)
                try:
                    record, touched = _read(Path(entry.path), name)
                except FileNotFoundError:
                    continue
                except Broken as why:
                    board.broken[state, name] = str(why), _touched(Path(entry.path))
                else:
                    if state == "running" and record.claim:
                        record = record.model_copy(update={"beat": touched})
                    board.records[state][record.id] = record
        return board

    def _set_aside(self, broken: set[str]) -> None:
        """What is no request and never will be leaves pending/ for failed/, as it is."""
        for entry in list(os.scandir(self._folder / "pending")):
            if _shown(entry.name) in broken:
                target = self._folder / "failed" / entry.name
                if os.path.lexists(target):  # a request's own file, perhaps
                    target = target.with_name(f"{uuid.uuid4().hex[:8]}.{entry.name}"[-255:])
                Path(entry.path).rename(target)

    def _move(self, move: Move) -> None:
        """The new content first, then the one rename that decides."""
        name = f"{move.record.id}.json"
        first = self._folder / (move.source or move.target) / name
        with atomic_file(first) as file:
            file.write(move.record.dump())
        if move.record.beat is not None:
            seconds = move.record.beat.timestamp()
            os.utime(first, (seconds, seconds))
        if move.source and move.source != move.target:
            first.rename(self._folder / move.target / name)


def _shown(name: str) -> str:
    """Invalid UTF-8 in a name must not break who prints it."""
    return name.encode(errors="replace").decode()


def _read(path: Path, name: str) -> tuple[Record, datetime]:
    """(the request, when the file was touched). Raises Broken; links and devices are not opened."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Broken("it is not a plain file")
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
            record = parse(name, file.read(_MOST_READ))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Broken(f"it cannot be read ({error.strerror})") from None
    return record, _time(touched)


def _touched(path: Path) -> datetime:
    try:
        return _time(path.lstat().st_mtime)
    except OSError:
        return request.now()


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
