"""A process that scores groups: what runs on the machines, whichever engine started it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path

from eval.common.errors import BadInput, UserError
from eval.run.group import Group, run_group


def our_version() -> str:
    """transferzoo's version, '' of a checkout that was not installed."""
    try:
        return version("transferzoo")
    except PackageNotFoundError:
        return ""


def score_groups(groups: Sequence[Group], store: str, folder: str, driver: str) -> str:
    """Score groups one after another, in the driver's working directory where there is one of that
    name, as models and data may be named by relative paths.

    The sentence of what goes wrong with the store or this machine, which no other group would do
    better with; '' where all were tried. ``driver`` is the version of transferzoo there.
    """
    try:
        if driver != our_version():
            raise BadInput(
                f"transferzoo is {our_version() or 'not installed'} on this machine "
                f"({os.uname().nodename}) and {driver or 'a checkout'} where the run was started; "
                "install the same version"
            )
        if Path(folder).is_dir():
            os.chdir(folder)
        for group in groups:
            run_group(group, store)
    except UserError as error:
        return str(error)
    return ""


def serve(handle: int) -> None:
    """Score groups that come through a pipe, one by one, until it is closed."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with Connection(handle) as pipe:
        while True:
            try:
                group, store, folder, driver = pipe.recv()
            except (EOFError, OSError):
                return
            error = score_groups([group], store, folder, driver)
            try:
                pipe.send(error)
            except OSError:  # the driver is gone; the results are where they belong
                return
