"""Ctrl-C and SIGTERM as a question the training loop asks, so that it can save first."""

from __future__ import annotations

import signal
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
