"""A folder of this disk before a store that several machines share.

Everything reads and writes plain files. Where they lie before a store, a file ``.store`` in the
folder says which one: what is missing here is fetched, what is new goes to the store first.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from eval.common.errors import NotFound, Refused, UserError, one_line
from eval.common.files import atomic_file, default_cache
from eval.stores.store import Disk, Store

MARK = ".store"  # of a folder before a store: the store's address
FETCHED = 256  # files at a time


def is_address(text: str) -> bool:
    """Whether a place is one that fsspec opens: ``SCHEME://...``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def folder_of(place: str) -> Path:
    """The folder of this disk for a place: a directory as it is, or one before an address.

    Raises UserError for an address that cannot be opened; asks nobody else.
    """
    if not is_address(place):
        return Path(place)
    _opened(place)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place).strip("-")[:60]
    digest = hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:12]
    folder = default_cache() / "stores" / f"{name}-{digest}"
    if not (folder / MARK).is_file():
        try:
            with atomic_file(folder / MARK) as file:
                file.write(place.rstrip("/").encode())
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def address_of(folder: Path) -> str:
    """The address of the store behind a folder; '' for a plain one."""
    try:
        return (folder / MARK).read_text()
    except OSError:
        return ""


def place_of(folder: Path) -> str:
    """What another machine must be told to find the same: an address, or the whole path."""
    return address_of(folder) or str(folder.expanduser().resolve())


def store_of(folder: Path) -> Store:
    """The store behind a folder; the folder itself where there is none."""
    address = address_of(folder)
    return _opened(address) if address else Disk(folder)


@lru_cache(maxsize=8)
def _opened(address: str) -> Store:
    if address.startswith("hf://") and not address.startswith("hf://buckets/"):
        from eval.hub.shared_folder import HubFolder

        return HubFolder(address)
    from eval.stores.remote import Remote

    return Remote(address)


def check_store(folder: Path) -> None:
    """Raises UserError where the store behind a folder cannot be written and listed, or takes a
    second file of one name for the first: some servers of S3 do not know If-None-Match."""
    if not address_of(folder):
        return
    store, name = store_of(folder), f".check/{secrets.token_hex(8)}"
    store.create(name, b"")
    twice = store.create(name, b"")
    store.sizes(".check")
    store.remove([name])
    if twice:
        raise Refused(
            f"store {store.address!r} writes over a file that is there although it is asked not to "
            "(If-None-Match), so a result could be lost; use a server that heeds it, as Amazon's"
        )


def create(folder: Path, path: Path, data: bytes) -> bool:
    """Write a new file of the folder, in the store first; False where somebody else has written
    one of that name, which then lies here."""
    name, store = path.relative_to(folder).as_posix(), store_of(folder)
    if not store.create(name, data):
        fetch(folder, [name])
        return False
    if not isinstance(store, Disk):
        _keep(path, data)
    return True


def fetch(folder: Path, names: Iterable[str]) -> None:
    """Bring files of the store into the folder; those that are here are not asked for again."""
    store = store_of(folder)
    if isinstance(store, Disk):
        return
    missing = sorted({name for name in names if not (folder / name).is_file()})
    for start in range(0, len(missing), FETCHED):
        for name, data in store.get(missing[start : start + FETCHED]).items():
            _keep(folder / name, data)


def fetch_large(folder: Path, path: Path) -> bool:
    """Bring one file of any size here, where the folder stands before a store that has it."""
    if not address_of(folder):
        return False
    temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    temp.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not store_of(folder).download(path.relative_to(folder).as_posix(), temp):
            return False
        temp.replace(path)
        return True
    finally:
        temp.unlink(missing_ok=True)


def give_large(folder: Path, path: Path) -> None:
    """Bring one file of any size to the store behind the folder, for the others."""
    if address_of(folder):
        store_of(folder).upload(path.relative_to(folder).as_posix(), path)


def mirror(folder: Path, below: str) -> None:
    """Make a folder before a store what it is there: one listing, what is new is fetched, what was
    removed there is removed here."""
    store = store_of(folder)
    if isinstance(store, Disk):
        return
    # Ours before theirs: what a neighbour keeps here in between is in the store already, and would
    # be missing from a listing of before.
    held: dict[str, int] = {}
    for path in (folder / below).rglob("*"):
        ours = path.name == MARK or path.name.endswith(".tmp")  # one that a neighbour is writing
        with contextlib.suppress(FileNotFoundError):
            if not ours and path.is_file():
                held[path.relative_to(folder).as_posix()] = path.stat().st_size
    there = store.sizes(below)
    for name, size in held.items():
        if there.get(name) != size:
            (folder / name).unlink(missing_ok=True)
    fetch(folder, there)


def local_copy(place: str) -> Path:
    """A file or folder as a path of this disk; what an address names is fetched anew."""
    if not is_address(place):
        return Path(place)
    above, _, name = place.rstrip("/").rpartition("/")
    if "." in name and not above.endswith(":/"):
        folder = folder_of(above)
        (folder / name).unlink(missing_ok=True)  # it is not one of ours, which never change
        fetch(folder, [name])
        if not (folder / name).is_file():
            raise NotFound(f"{place!r} is not there")
        return folder / name
    folder = folder_of(place)
    mirror(folder, "")
    return folder


def _keep(path: Path, data: bytes) -> None:
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as error:
        raise UserError(
            f"cannot keep {path}: {one_line(error)}; set TRANSFERZOO_CACHE to a folder that can be "
            "written"
        ) from None
