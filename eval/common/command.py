"""What all commands share: one sentence for a mistake, and the exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from eval.common.distributed import is_main_process
from eval.common.errors import (
    OUT_OF_MEMORY,
    BadInput,
    NotFound,
    UserError,
    did_you_mean,
    one_line,
    ran_out_of_memory,
    without_token,
)
from eval.common.printed import printed

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Mistakes are one sentence on stderr and exit code 2, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command that does not know an argument says so itself: argparse would let the whole
        program say it, whose help does not have the command's options."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            name = next((one for one in unknown if one.startswith("-")), unknown[0])
            options = [one for one in self._option_string_actions if one not in ("-h", "--help")]
            near = did_you_mean(name.partition("=")[0], options)
            said = f"unrecognized arguments: {' '.join(unknown)}; see {self.prog} --help{near}"
            raise BadInput(said)
        return found, unknown


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Slurm, Kubernetes and ``kill`` send it: unwound like Ctrl-C."""


def dispatch(
    parser: Callable[[], Parser],
    handlers: Mapping[str, Handler],
    argv: Sequence[str] | None,
    interrupted: str,
) -> int:
    """Parse, call the command's handler, and turn what it raises into an exit code.

    What the handler returns (0 done, 1 something failed), 2 the user's mistake, 130 Ctrl-C, 143
    SIGTERM. ``interrupted`` is the sentence for both. Under torchrun one process prints for all.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    speaks = is_main_process()
    sys.excepthook = _traceback
    prog = "transferzoo"
    try:
        with printed(silent=not speaks), _terminable():
            try:
                commands = parser()
                prog = commands.prog
                if argv and not argv[0].startswith("-") and argv[0] not in handlers:
                    raise NotFound(f"unknown command {argv[0]!r}" + did_you_mean(
                        argv[0], handlers, "commands are " + ", ".join(handlers)))  # fmt: skip
                args = commands.parse_args(argv)
                return handlers[args.command](args)
            except UserError as error:
                message = str(error)
            except KeyboardInterrupt as stop:
                terminated = isinstance(stop, Terminated)
                said = (
                    interrupted.replace("interrupted", "terminated") if terminated else interrupted
                )
                print(said, file=sys.stderr)
                return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
            except Exception as error:
                if ran_out_of_memory(error):
                    message = OUT_OF_MEMORY
                elif isinstance(error, OSError):
                    message = _refused(error)
                else:
                    raise
            return _failed(prog, message, speaks)
    except OSError as error:  # of what was printed last
        return _failed(prog, _refused(error), speaks)


def _refused(error: OSError) -> str:
    place = f" {error.filename!r}" if error.filename else ""
    return f"the system refused{place}: {error.strerror or one_line(error)}"


def _failed(prog: str, message: str, speaks: bool) -> int:
    if not speaks:
        # torchrun kills all processes once one fails: the main one must live to say why.
        return 0
    print(f"{prog}: {' '.join(message.splitlines())}", file=sys.stderr)
    return 2


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block, unless somebody listens to it already."""
    mine = os.getpid()

    def heard(kind: int, frame: FrameType | None) -> None:
        if os.getpid() != mine:  # a process that was forked since ends as it would without us
            signal.signal(kind, signal.SIG_DFL)
            os.kill(os.getpid(), kind)
        else:
            raise Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Of a bug: it may quote what was sent to the Hub."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(without_token(text), end="", file=sys.stderr)
