"""Child processes of tests: started from a fork server, ended in time, joined as torchrun does."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
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


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now, all different."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def give_up_root() -> None:
    """From here on this process may do what the modes of files allow, also where it is root's."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    both = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
    held = (ctypes.c_uint32 * 6)()
    overriding = ~0b111 & 0xFFFFFFFF  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capget(both, held) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for i in (0, 1):  # effective and permitted
        held[i] &= overriding
    if libc.capset(both, held) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    for number in (0, 1, 2):  # nor back by starting another program
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
