"""Child processes of tests: started from a fork server, ended in time, joined as torchrun does."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

FORKS = multiprocessing.get_context("forkserver")
PATIENCE = 60  # seconds until a process counts as hanging


def start(target: Callable[..., None], *args: Any) -> Any:
    process = FORKS.Process(target=target, args=args)
    process.start()
    return process


def finish(process: Any) -> int:
    """The exit code; a process that hangs fails the test."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        pytest.fail("hangs")
    return process.exitcode


def join_two(rank: int, port: int) -> None:
    """In a child: be one of two processes, as torchrun sets them up."""
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= both | {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
