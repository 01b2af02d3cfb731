"""stdout and stderr as commands use them: foreign names steer no terminal, and no reader is needed.

A command prints names that others chose: of models, classes, files, authors. What is printed goes
through `Printed`, once, so that no printer can forget it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from eval.common.errors import without_known_tokens
from eval.common.text import visible

_MOVES = re.compile(r"\r?(?:\n|\x1b\[A)*")  # what a progress bar begins a write with


class Printed:
    """A text stream that shows control characters and marks of direction as escapes, keeps back the
    Hub's token, writes what the encoding lacks as escapes too, and is silent where the reader of
    its pipe has gone: the command goes on, as its work is worth more than what it says of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves = _MOVES.match(text)
        begin = moves.end() if moves else 0
        shown = text[:begin] + visible(without_known_tokens(text[begin:]), lines=True)
        try:
            self._stream.write(shown)
        except BrokenPipeError:
            self._leave()
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        """What is written from now on, and what is left in buffers, goes nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printed(*, silent: bool = False) -> Iterator[None]:
    """stdout and stderr as `Printed` in the block; ``silent``: stdout goes nowhere, to the end.

    Raises OSError where what was printed could not be written, on a full disk, say.
    """
    for handle in range(3):  # one that the caller closed would be the next file's that is opened
        with contextlib.suppress(OSError):
            os.fstat(handle)
            continue
        os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    nowhere = Path(os.devnull)
    out = nowhere.open("w") if silent or sys.stdout is None else sys.stdout
    err = nowhere.open("w") if sys.stderr is None else sys.stderr
    for stream in (out, err):
        with contextlib.suppress(AttributeError, OSError):
            cast(Any, stream).reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, Printed(stream)) for stream in (out, err))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = out if silent else before[0] or out, before[1] or err
