"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from eval.common.errors import BadInput, UserError, one_line

if TYPE_CHECKING:
    from filelock import BaseFileLock

# A list of bare numbers spread over lines by json; strings cannot match, they are quoted.
_NUMBER_LIST = re.compile(r"(?<=[ \n])\[\n([-+.\deE,\s]+)\]")

SILENCE = 300.0  # seconds without a sign of life after which a lock's holder is not waited for
_BEAT = 15.0  # seconds between signs

MOST_JSON = 1 << 28  # bytes of a file of ours that is read; the largest that ships has 72 kB


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``path`` only once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is known before the file is there: a Ctrl-C at any moment leaves none behind.
    temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temp.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk: which one?
        raise


def clear_left(path: Path) -> None:
    """Remove what killed writers of the file have left beside it, which may be as large as it is.
    Only who has its lock can know that they are not at work."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink()


@contextmanager
def locked(path: Path, patience: float = math.inf) -> Iterator[bool]:
    """One process at a time is in this block, of all that name the same file: on this machine, or
    on others where the file system has locks (NFS has, of version 4 or with its lock daemon).

    The system frees the lock of a process that ends, however it ends; the file stays. The block is
    entered without it, and is told False, where no lock is to be had, in a folder that may only be
    read, say; after ``patience`` seconds; and where its holder gave no sign of life for `SILENCE`,
    as one that was stopped or whose machine is gone. It must be right then, too: another may be in
    it, or come back.
    """
    from filelock import FileLock

    lock = None
    with contextlib.suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        _acquire(lock, path, patience)
    ours = lock is not None and lock.is_locked
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, over), daemon=True)
    try:
        if ours:
            thread.start()
        yield ours
    finally:
        over.set()
        if lock is not None:
            lock.release()


def _acquire(lock: BaseFileLock, path: Path, patience: float) -> None:
    """Wait for the lock as long as its holder lives and ``patience`` lasts."""
    from filelock import Timeout

    end = time.monotonic() + patience
    seen, sign = time.monotonic(), 0
    while True:
        with contextlib.suppress(Timeout):
            wait = min(_BEAT, SILENCE, end - time.monotonic())
            lock.acquire(timeout=max(wait, 0), poll_interval=0.02)
            return
        now, last = time.monotonic(), path.stat().st_atime_ns
        if last != sign:
            seen, sign = now, last
        if now >= end or now - seen > SILENCE:
            return


def _beat(path: Path, over: threading.Event) -> None:
    """Signs of life of a lock's holder. Whoever waits reads the time of access, since opening a
    lock may set that of the last change."""
    while not over.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def read_plain(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, or of one that a link names; nothing else is waited for.

    Raises OSError with a reason for pipes, sockets, devices and folders, for more than ``most``
    bytes, and for what the system refuses.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a device may act on that
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # not blocking: another may have put a pipe there since
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if most is not None and facts.st_size > most:
            raise OSError(
                errno.EFBIG, f"it has {facts.st_size:,} bytes, at most {most:,} are read", str(path)
            )
        return file.read()


@contextmanager
def cache_errors(cache: Path, subject: str) -> Iterator[None]:
    """Any trouble of writing the cache as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(cache).free if cache.is_dir() else 0
            raise BadInput(
                f"no space is left for {subject} in {cache} ({free:,} bytes are free); set "
                "TRANSFERZOO_CACHE to a folder with more space"
            ) from None
        raise UserError(
            f"{subject} cannot be kept in {cache} (TRANSFERZOO_CACHE): {one_line(error)}"
        ) from None


def say_damaged(path: Path) -> None:
    """Tell that a file which this package made, and which is not whole, is made again."""
    print(f"{path} is damaged; it is made again", file=sys.stderr)


def dump_json(value: Any) -> bytes:
    """JSON with keys in the given order and each list of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = _NUMBER_LIST.sub(
        lambda m: "[" + ", ".join(v.strip() for v in m[1].split(",")) + "]", text
    )
    return (text + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write ``dump_json`` atomically."""
    with atomic_file(path) as file:
        file.write(dump_json(value))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_cache() -> Path:
    """``$TRANSFERZOO_CACHE``, else ``transferzoo`` in the user's cache folder."""
    if named := os.environ.get("TRANSFERZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "transferzoo"
