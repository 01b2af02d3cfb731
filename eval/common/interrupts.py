"""Who hears Ctrl-C and SIGTERM: a training loop that saves first, and we where a library would."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """A list that Ctrl-C or SIGTERM fills once; the second time they act as usual."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        for kind, action in old.items():
            signal.signal(kind, action)

    old: dict[signal.Signals, Any] = {}
    try:
        for kind in (signal.SIGINT, signal.SIGTERM):
            old[kind] = signal.getsignal(kind)
            signal.signal(kind, note)
    except ValueError:  # not in the main thread: the caller handles signals
        pass
    try:
        yield seen
    finally:
        if not seen:
            for kind, action in old.items():
                signal.signal(kind, action)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """SIGTERM stays with who listened before the block, whatever a library sets in it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
