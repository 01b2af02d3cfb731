"""A folder that fsspec opens: ``s3://``, ``gs://``, ``memory://`` and what else is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from eval.common.errors import (
    BadInput,
    NotFound,
    Refused,
    Unreachable,
    UserError,
    one_line,
)
from eval.common.extras import require

_AT_ONCE = 32  # requests for files
_SECRET = re.compile(r"(?i)(secret|token|password|signature)=[^&\s]+")


class Remote:
    """See `eval.stores.store.Store`.

    ``create`` leaves the choice to the server where it can: S3 by If-None-Match, Google by a
    generation of zero. fsspec's other file systems look first and write then, which is enough for
    memory of one process, and not for several writers.
    """

    def __init__(self, address: str) -> None:
        """Raises UserError for a scheme that fsspec does not know or that lacks its library."""
        self.address = address.rstrip("/")
        scheme = address.partition("://")[0]
        if scheme in ("s3", "s3a"):
            require("s3", f"store {address!r}")
        import fsspec

        try:
            # A listing that is remembered tells nothing of what others have written since.
            self._fs, path = fsspec.core.url_to_fs(
                self.address, use_listings_cache=False, skip_instance_cache=scheme != "memory"
            )
        except ImportError as error:
            raise UserError(f"store {address!r} needs a library: {one_line(error)}") from None
        except ValueError as error:
            raise BadInput(
                f"store {address!r} cannot be opened ({one_line(error)}); use a directory, "
                "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or hf://datasets/ORG/NAME"
            ) from None
        self._root = str(path).rstrip("/")

    def create(self, name: str, data: bytes) -> bool:
        with self._told():
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            return True

    def put(self, name: str, data: bytes) -> None:
        with self._told():
            self._fs.pipe_file(self._path(name), data)

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        # fs.cat would ask for each file first whether it is one.
        with self._told(), ThreadPoolExecutor(min(_AT_ONCE, len(paths))) as pool:
            found = zip(paths.values(), pool.map(self._read, paths), strict=True)
            return {name: data for name, data in found if data is not None}

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None

    def upload(self, name: str, file: Path) -> None:
        """Write a file of any size that is the same whoever makes it."""
        with self._told():
            self._fs.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> bool:
        """Read a file of any size; False where there is none of that name."""
        with self._told():
            try:
                self._fs.get_file(self._path(name), str(file))
            except FileNotFoundError:
                return False
            return True

    def sizes(self, folder: str = "") -> dict[str, int]:
        with self._told():
            try:
                found = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError:
                # A bucket that is not there is another matter than a folder with nothing in it.
                self._fs.ls(self._root.split("/")[0] if "/" in self._root else self._root)
                return {}
        cut = len(self._root) + 1
        return {path[cut:]: int(facts["size"]) for path, facts in found.items()}

    def remove(self, names: Iterable[str]) -> None:
        paths = [self._path(name) for name in names]
        with self._told():
            for path in paths:
                try:
                    self._fs.rm_file(path)
                except FileNotFoundError:
                    continue

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise _sentence(self.address, error) from None


def _sentence(address: str, error: Exception) -> UserError:
    """What a store refuses, and what would work."""
    said = _SECRET.sub(r"\1=[hidden]", one_line(error))
    kind, subject = type(error).__name__, f"store {address!r}"
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return Refused(
            f"{subject} needs credentials and there are none here; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, PermissionError):
        return Refused(
            f"{subject} refuses access ({said}); check the credentials, and that they may read, "
            "list and write there"
        )
    if isinstance(error, FileNotFoundError):
        bucket = address.partition("://")[2].split("/")[0]
        return NotFound(f"{subject}: there is no {bucket!r}; make it first, or name another")
    if isinstance(error, OSError | TimeoutError) or "Connect" in kind or "Endpoint" in kind:
        return Unreachable(f"{subject} does not answer ({said}); the same command goes on later")
    return UserError(f"{subject} failed: {kind}: {said}")
