"""What all commands share: one sentence for a mistake, and the exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from eval.common.distributed import is_main_process
from eval.common.errors import BadInput, NotFound, UserError, did_you_mean, one_line

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Mistakes are one sentence on stderr and exit code 2, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def dispatch(
    parser: Callable[[], Parser],
    handlers: Mapping[str, Handler],
    argv: Sequence[str] | None,
    interrupted: str,
) -> int:
    """Parse, call the command's handler, and turn what it raises into an exit code.

    What the handler returns (0 done, 1 something failed), 2 the user's mistake, 130 Ctrl-C.
    Under torchrun one process prints for all.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    speaks = is_main_process()
    if not speaks:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (open to the end)
    prog = "transferzoo"
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
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe had enough
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (open to the end)
        return 0
    except OSError as error:
        place = f" {error.filename!r}" if error.filename else ""
        message = f"the system refused{place}: {error.strerror or one_line(error)}"
    if not speaks:
        # torchrun kills all processes once one fails: the main one must live to say why.
        return 0
    print(f"{prog}: {message}", file=sys.stderr)
    return 2
