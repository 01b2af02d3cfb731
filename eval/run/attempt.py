"""Who is at work on which group, said in the store: a small file a try, written anew now and then.

It goes when the try ends, whatever came of it; that of a process which was killed stays, and says
since when nobody has heard of it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from eval.common.errors import UserError
from eval.stores.store import Store

FOLDER = ".tries"  # of a results directory
BEAT = 15.0  # seconds between two signs of life
STALE = 90.0  # seconds without one, after which a try counts as dead


@dataclass(frozen=True)
class Try:
    """One process at one group."""

    name: str
    group: str  # its key
    title: str
    host: str
    process: int
    since: str  # UTC, ISO
    beat: str
    drive: str = ""  # key of the run that asked for it

    @property
    def file(self) -> str:
        return f"{FOLDER}/{self.group}.{self.name}.json"

    @property
    def silent(self) -> float:
        """Seconds since its last sign of life, by the clock of this machine."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.beat)).total_seconds()

    @property
    def alive(self) -> bool:
        return self.silent < STALE and not (self.here and not _runs(self.process))

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def hours(self) -> float:
        """How long it has been at it, by its own clock."""
        both = (datetime.fromisoformat(t) for t in (self.since, self.beat))
        since, beat = both
        return (beat - since).total_seconds() / 3600


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def tried(store: Store, group: str, title: str, drive: str = "") -> Iterator[Try]:
    """A try that shows in the store while the block runs. Raises UserError where it cannot be
    written at first; later a store that is busy costs a beat only."""
    one = Try(
        secrets.token_hex(6), group, title, socket.gethostname(), os.getpid(), now(), now(), drive
    )
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(UserError):
                store.put(one.file, _bytes(replace(one, beat=now())))

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    gone = False

    def end() -> None:
        nonlocal gone
        if gone:
            return
        over.set()
        if thread.is_alive():
            thread.join()
        with suppress(UserError):
            store.remove([one.file])
        gone = True

    # Whatever a signal raises, and wherever in the block or in its end, the file goes.
    try:
        try:
            store.put(one.file, _bytes(one))
            thread.start()
            yield one
        finally:
            end()
    finally:
        end()


def tries(store: Store) -> list[Try]:
    """All that have not ended, the dead among them."""
    names = [name for name in store.sizes(FOLDER) if name.endswith(".json")]
    found = []
    for data in store.get(names).values():
        with suppress(ValueError, TypeError):  # of another version
            found.append(Try(**json.loads(data)))
    return sorted(found, key=lambda one: one.since)


def _bytes(one: Try) -> bytes:
    return json.dumps(asdict(one)).encode()


def _runs(process: int) -> bool:
    """Whether there is such a process here; one that was killed and not waited for is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
        return file.read().rpartition(b")")[2].split()[0] != b"Z"
    return True
