"""A folder of a repository on the Hub that several machines write to: ``hf://datasets/ORG/NAME``.

Each write is a commit on top of the one that was looked at. The Hub refuses it (412) where
somebody's came in between; then it is looked at again. So of two who create a file one is told that
the other was first, and nothing is written over.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from eval.common.errors import BadInput, NotFound, Unreachable, UserError
from eval.hub.client import with_retries
from eval.hub.commits import Kind, content_digests, refusal

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

T = TypeVar("T")

_ADDRESS = re.compile(
    r"hf://(?:(datasets|models|spaces)/)?(?!(?:datasets|models|spaces)/)"
    r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?", re.DOTALL,
)  # fmt: skip
_AT_ONCE = 16  # requests for files
_OF_ONE = 100  # files that one commit removes
_TURNS = 60  # commits of others that may come in between, before a writer gives up
_LONGEST = 3.0  # seconds between two turns, at most


class HubFolder:
    """A store (`eval.stores.store.Store`) in a repository. Asks nobody before it is used."""

    def __init__(self, address: str) -> None:
        """Raises UserError for an address that names no repository."""
        self.address = address.rstrip("/")
        found = _ADDRESS.fullmatch(self.address)
        if found is None:
            raise BadInput(
                f"store {address!r} names no repository of the Hub; use "
                "hf://datasets/ORG/NAME or hf://datasets/ORG/NAME/FOLDER"
            )
        kinds: dict[str, Kind] = {"datasets": "dataset", "spaces": "space"}
        self._kind: Kind = kinds.get(found[1], "model")
        self._repo, self._revision = found[2], found[3] or "main"
        self._folder = f"{found[4]}/" if found[4] else ""

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi()

    def create(self, name: str, data: bytes) -> bool:
        from huggingface_hub import CommitOperationAdd

        path, sent = self._folder + name, False

        def attempt() -> bool | None:
            nonlocal sent
            head = self._head()
            there = self._digests([path], head)
            if there:  # of an earlier attempt, whose answer was lost?
                return sent and there[path] in content_digests(data)
            sent = True
            if self._commit([CommitOperationAdd(path, data)], f"Add {name}", parent=head):
                return True
            sent = False
            return None

        return self._in_turn(attempt)

    def put(self, name: str, data: bytes) -> None:
        self._add(name, data)

    def upload(self, name: str, file: Path) -> None:
        """Write a file of any size that is the same whoever makes it."""
        self._add(name, file)

    def _add(self, name: str, content: bytes | Path) -> None:
        from huggingface_hub import CommitOperationAdd

        what = f"Write {name}"

        def attempt() -> bool | None:
            return self._commit([CommitOperationAdd(self._folder + name, content)], what) or None

        self._in_turn(attempt)

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        names = list(names)
        if not names:
            return {}
        with self._told(), ThreadPoolExecutor(min(_AT_ONCE, len(names))) as pool:
            found = zip(names, pool.map(self._read, names), strict=True)
            return {name: data for name, data in found if data is not None}

    def _read(self, name: str) -> bytes | None:
        """Not through the client's cache of downloads, which a store's own folder would double."""
        from huggingface_hub import errors, get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        path, kind = self._folder + name, self._kind
        url = hf_hub_url(self._repo, path, repo_type=kind, revision=self._revision)

        def attempt() -> bytes:
            answer = get_session().get(url, headers=build_hf_headers(), follow_redirects=True)
            hf_raise_for_status(answer)
            return bytes(answer.content)

        try:
            return with_retries(attempt)
        except errors.EntryNotFoundError:
            return None

    def download(self, name: str, file: Path) -> bool:
        """Read a file of any size; False where there is none of that name."""
        from huggingface_hub import errors

        # The client's own cache would keep a second copy of everything that is fetched.
        with self._told(), TemporaryDirectory(dir=file.parent, prefix=".", suffix=".tmp") as folder:
            try:
                got = with_retries(
                    partial(
                        self._api.hf_hub_download, self._repo, self._folder + name,
                        repo_type=self._kind, revision=self._revision, local_dir=folder,
                    )
                )  # fmt: skip
            except errors.EntryNotFoundError:
                return False
            Path(got).replace(file)
            return True

    def sizes(self, folder: str = "") -> dict[str, int]:
        from huggingface_hub import RepoFile, errors

        below = (self._folder + folder).rstrip("/")
        ask = partial(
            self._api.list_repo_tree, self._repo, below or None, recursive=True,
            revision=self._revision, repo_type=self._kind,
        )  # fmt: skip
        with self._told():
            try:
                tree = with_retries(lambda: list(ask()))
            except errors.EntryNotFoundError:
                return {}
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        return {file.path.removeprefix(self._folder): file.size for file in files}

    def remove(self, names: Iterable[str]) -> None:
        from huggingface_hub import CommitOperationDelete

        def attempt(paths: Sequence[str]) -> bool | None:
            head = self._head()
            gone = [CommitOperationDelete(path) for path in self._digests(paths, head)]
            what = f"Remove {len(gone)} file(s)"
            return not gone or self._commit(gone, what, parent=head) or None

        paths = [self._folder + name for name in names]
        for start in range(0, len(paths), _OF_ONE):
            self._in_turn(partial(attempt, paths[start : start + _OF_ONE]))

    def _head(self) -> str:
        wanted: Any = ["sha"]  # its type says one name, it takes a list
        info = self._api.repo_info(
            self._repo, repo_type=self._kind, revision=self._revision, expand=wanted
        )
        return str(info.sha)

    def _digests(self, paths: Sequence[str], commit: str) -> dict[str, str]:
        """What those of the paths that are files hash to (sha256 of LFS, else as git does)."""
        from huggingface_hub import RepoFile

        found = self._api.get_paths_info(
            self._repo, list(paths), revision=commit, repo_type=self._kind
        )
        files = [entry for entry in found if isinstance(entry, RepoFile)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def _commit(
        self, operations: Sequence[CommitOperationAdd | CommitOperationDelete], message: str,
        parent: str | None = None,
    ) -> bool:  # fmt: skip
        """False where another commit came in between."""
        from huggingface_hub import errors

        try:
            self._api.create_commit(
                self._repo, operations, repo_type=self._kind, revision=self._revision,
                commit_message=message, parent_commit=parent,
            )  # fmt: skip
        except errors.HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
            return False
        return True

    def _in_turn(self, attempt: Callable[[], T | None]) -> T:
        """What an attempt returns that was not outrun by another's commit."""
        with self._told():
            for turn in range(_TURNS):
                done = with_retries(attempt)
                if done is not None:
                    return done
                time.sleep(random.uniform(0, min(_LONGEST, 0.05 * 2**turn)))
            raise Unreachable(
                f"store {self.address!r}: others have written each time, {_TURNS} times; the same "
                "command goes on later"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except UserError:
            raise
        except errors.GatedRepoError as error:
            raise refusal(error, f"store {self.address!r}", self._repo) from None
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise NotFound(
                f"store {self.address!r}: the Hub has no such {self._kind} repository, or hides "
                "it; make it first, or log in with `hf auth login`"
            ) from None
        except Exception as error:
            raise refusal(error, f"store {self.address!r}", "") from None
