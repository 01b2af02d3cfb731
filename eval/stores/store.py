"""What all shared folders can do, and a folder of this disk (or of NFS) as one of them.

What is written under a name stays: of two who create a file of one name one is told that the other
was first. So nothing needs a lock, and a copy that was made once is never out of date.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from eval.common.errors import UserError
from eval.common.files import atomic_file


class Store(Protocol):
    """Files by their names below one folder, ``/`` between the parts of a name.

    All methods raise UserError where the place refuses, in one sentence that names it.
    """

    address: str  # as a user writes it

    def create(self, name: str, data: bytes) -> bool:
        """Write a file whole, unless there is one of that name; whether it was written."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file that nobody else writes, over what it held before."""

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of those that are there."""

    def upload(self, name: str, file: Path) -> None:
        """Write a file of any size that is the same whoever makes it."""

    def download(self, name: str, file: Path) -> bool:
        """Read a file of any size; False where there is none of that name."""

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Name -> bytes of all files below a folder of it; a folder that is not there has none."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone do not matter."""


class Disk:
    """A folder that the system opens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def create(self, name: str, data: bytes) -> bool:
        path = self.folder / name
        try:
            return create_file(path, data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            with atomic_file(path) as file:
                file.write(data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (self.folder / name).read_bytes()
        return found

    def upload(self, name: str, file: Path) -> None:
        self.put(name, file.read_bytes())

    def download(self, name: str, file: Path) -> bool:
        found = self.get([name])
        file.write_bytes(found[name]) if found else None
        return bool(found)

    def sizes(self, folder: str = "") -> dict[str, int]:
        found = {}
        for place, _, files in os.walk(self.folder / folder):
            for file in files:
                path = Path(place, file)
                if not file.endswith(".tmp"):
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return found

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file whole under a name that is free; False where it is not.

    By a link to a complete file, which the system makes or refuses at once, on NFS too. A file
    system without links has a claim beside the file instead: whoever makes it writes the file.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temp.open("x+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError:
            if path.exists():
                return False
            with (path.parent / f".{path.name}.claim").open("xb"):
                temp.replace(path)
        return True
    except FileExistsError:  # of the claim
        return False
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)  # a full disk: which one?
        raise
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
