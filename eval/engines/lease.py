"""One driver at a time for one and the same run; the next one goes on where it died.

Each driver makes a file of the next number, which only one of several can. It writes the time into
its own file now and then, and nobody writes another's.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from eval.common.errors import Conflict, UserError
from eval.run import attempt
from eval.run.attempt import Try, now
from eval.stores.store import Store

FOLDER = ".drivers"  # of a results directory


@dataclass(frozen=True)
class Driver:
    """Who hands out the groups of a run."""

    host: str
    process: int
    since: str
    beat: str
    engine: str
    ended: bool = False

    @property
    def alive(self) -> bool:
        one = Try("", "", "", self.host, self.process, self.since, self.beat)
        return not self.ended and one.alive


@contextmanager
def driving(store: Store, run: str, engine: str) -> Iterator[None]:
    """Be the driver of a run (its key) while the block runs.

    Raises Conflict where another one is at work, in words that say where.
    """
    held = drivers(store, run)
    last, other = max(held.items(), default=(0, None))
    if other is not None and other.alive:
        raise Conflict(
            f"another driver works on this run since {other.since[:19]} (process {other.process} "
            f"on {other.host}); wait for it, or end it and give the same command again"
        )
    name = _name(run, last + 1)
    mine = Driver(socket.gethostname(), os.getpid(), now(), now(), engine)
    if not store.create(name, _bytes(mine)):
        raise Conflict("another driver of this run started a moment ago; wait for it")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(attempt.BEAT):
            with suppress(UserError):
                store.put(name, _bytes(replace(mine, beat=now())))

    thread = threading.Thread(target=beat, name="driver", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(UserError):
            store.put(name, _bytes(replace(mine, beat=now(), ended=True)))
            store.remove(_name(run, number) for number in held)


def drivers(store: Store, run: str = "") -> dict[int, Driver]:
    """All that are known, by number; of one run, or the last of each."""
    names = [n for n in store.sizes(FOLDER) if n.endswith(".json")]
    found = {}
    for name, data in store.get(n for n in names if run in n).items():
        with suppress(ValueError, TypeError):
            found[int(name.removesuffix(".json").rpartition(".")[2])] = Driver(**json.loads(data))
    return found


def _name(run: str, number: int) -> str:
    return f"{FOLDER}/{run}.{number:06d}.json"


def _bytes(driver: Driver) -> bytes:
    return json.dumps(asdict(driver)).encode()
