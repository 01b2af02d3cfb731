"""What the Hub says of a repository, pinned to a commit, in errors a user can act on."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from eval.common.errors import TOKEN_NAMES, NotFound, Refused, Unreachable, UserError, one_line
from eval.common.files import atomic_file

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo
    from huggingface_hub.hf_api import RepoSibling

T = TypeVar("T")

_COMMIT = re.compile(r"[0-9a-f]{40}")

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before another attempt where the Hub is busy
_BUSY = (408, 429, 500, 502, 503, 504)
# By name: the client's HTTP library was httpx and is httpx2. No connection at all is not among
# them: without a network the user should hear so at once.
_CUT = ("ReadError", "WriteError", "RemoteProtocolError", "ReadTimeout", "WriteTimeout")


def with_retries(call: Callable[[], T]) -> T:
    """What ``call`` returns; asked again, with growing waits, while the Hub is busy or hangs up.

    The client retries some requests by itself, but neither a HEAD (every download starts with one)
    nor a commit. Retry-After is heeded up to a minute.
    """
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            asked = busy(error)
            if asked is None:
                raise
        time.sleep(min(max(wait, asked), 60.0))
    return call()


def busy(error: BaseException | None) -> float | None:
    """Seconds the Hub asks to wait (0: it does not say); None where asking again is no use."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and response.status_code in _BUSY:
            after = response.headers.get("Retry-After", "")
            return float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else 0.0
        if any(kind.__name__ in _CUT for kind in type(error).__mro__):
            return 0.0
        error = error.__cause__ or error.__context__
    return None


@dataclass(frozen=True)
class Pin:
    """A repository at one commit. ``files`` is None when the answer came from the local cache.

    ``repo`` is its name of today: the Hub answers for the old name of a renamed one. ``sha256`` is
    what a model's large files hash to there, by name; empty like ``files`` where nobody was asked.
    """

    repo: str
    sha: str
    files: frozenset[str] | None
    sha256: Mapping[str, str] = field(default_factory=dict, compare=False)


def pin(
    repo: str,
    revision: str | None,
    kind: Literal["model", "dataset"],
    subject: str,
    *needed: tuple[str, ...],
) -> Pin:
    """Resolve a revision (default main) to a commit sha.

    A full sha of which all files of one of ``needed`` are cached asks nobody. Without network,
    the commit that the cache last saw for the revision serves if its files are there. Raises
    UserError when the repository is missing, private or gated, the revision unknown or the Hub
    out of reach.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub_errors

    exact = revision is not None and _COMMIT.fullmatch(revision) is not None
    # A data set's rows may all be remembered; if they are not, loading it asks the Hub.
    if revision and exact and (kind == "dataset" or _cached(repo, revision, kind, needed)):
        return Pin(repo, revision, None)
    try:
        if constants.HF_HUB_OFFLINE:
            raise hub_errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        ask: Callable[[], ModelInfo | DatasetInfo] = (
            partial(HfApi().model_info, repo, revision=revision, timeout=30, files_metadata=True)
            if kind == "model"
            else partial(HfApi().dataset_info, repo, revision=revision, timeout=30)
        )
        info = with_retries(ask)
        if info.sha is None or not _COMMIT.fullmatch(info.sha):  # it will be part of a path
            raise ValueError(f"the Hub calls its commit {info.sha!r}")
        now = info.id if re.fullmatch(r"[\w.-]+/[\w.-]+", info.id) else repo
        files = frozenset(s.rfilename for s in info.siblings or [])
        return Pin(now, info.sha, files, _large_files(info.siblings))
    except hub_errors.GatedRepoError:
        raise Refused(gated(repo, subject)) from None
    except hub_errors.RepositoryNotFoundError:
        raise NotFound(
            f"{subject}: the Hub has no {kind} {repo!r}, or it is private; check the name, "
            "or log in with `hf auth login`"
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise NotFound(f"{subject}: {repo!r} has no revision {revision!r}") from None
    except hub_errors.HFValidationError as error:
        raise UserError(f"{subject}: {one_line(error)}") from None
    except Exception as error:  # no network, a proxy's page, a 5xx: all mean "cannot ask now"
        ref = _ref_file(repo, revision, kind)
        if ref.is_file() and _cached(repo, sha := ref.read_text().strip(), kind, needed):
            return Pin(repo, sha, None)
        if refuses_token(error):
            raise Refused(bad_token(subject)) from None
        raise Unreachable(
            f"{subject}: the Hub cannot be reached and {repo!r} is not in the local cache "
            f"({one_line(error, 160)})"
        ) from None


def remember(
    repo: str, revision: str | None, sha: str, kind: Literal["model", "dataset"] = "model"
) -> None:
    """Note which commit a revision meant, for when the Hub is out of reach.

    ``hf_hub_download`` does so only when it is asked for the revision by name, not by its commit.
    """
    if sha != revision:
        with contextlib.suppress(OSError), atomic_file(_ref_file(repo, revision, kind)) as file:
            file.write(sha.encode())


def _ref_file(repo: str, revision: str | None, kind: str) -> Path:
    """Where the Hub's cache keeps the commit of a branch or tag."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"
    return folder / "refs" / (revision or "main")


def gated(repo: str, subject: str) -> str:
    """The sentence for a repository whose terms the user has not accepted."""
    return (
        f"{subject}: {repo!r} is gated; accept its terms on its Hub page and log in "
        "with `hf auth login`"
    )


def refuses_token(error: BaseException | None) -> bool:
    """Whether the Hub says that the token is none of its own. (401 is also what it says of a
    repository that it hides: the client tells these apart, by errors of their own.)"""
    from huggingface_hub import errors as hub_errors

    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            return not isinstance(error, hub_errors.RepositoryNotFoundError)
        error = error.__cause__ or error.__context__
    return False


def bad_token(subject: str) -> str:
    """The sentence for a token that the Hub does not accept: where it stands, never the token."""
    from huggingface_hub import constants

    named = [name for name in TOKEN_NAMES if os.environ.get(name)]
    if named:
        return (
            f"{subject}: the Hub does not accept the token in the variable {named[0]}; set it to "
            "a valid one, or unset it and log in with `hf auth login`"
        )
    file = Path(constants.HF_TOKEN_PATH)
    if file.is_file():
        return (
            f"{subject}: the Hub does not accept the token in the file {file}; log in again with "
            "`hf auth login`"
        )
    return f"{subject}: the Hub wants a token; log in with `hf auth login` or set HF_TOKEN"


def cached_folder(repo: str, sha: str) -> Path:
    """Where the Hub's cache has what it has of a model's commit."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots" / sha


def _cached(repo: str, sha: str, kind: str, needed: tuple[tuple[str, ...], ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(
        all(
            isinstance(try_to_load_from_cache(repo, name, revision=sha, repo_type=kind), str)
            for name in names
        )
        for names in needed
    )


def _large_files(siblings: Iterable[RepoSibling] | None) -> dict[str, str]:
    """SHA-256 by name, of the files that the Hub stores by theirs (LFS)."""
    return {s.rfilename: s.lfs.sha256 for s in siblings or () if s.lfs is not None}


def lfs_sha256(repo: str, sha: str) -> dict[str, str]:
    """What the large files of a model at a commit hash to, by name; empty where the Hub is out of
    reach or does not say."""
    from huggingface_hub import HfApi

    ask = partial(HfApi().model_info, repo, revision=sha, timeout=30, files_metadata=True)
    try:
        return _large_files(with_retries(ask).siblings)
    except Exception:  # no network is no reason not to use a complete cache
        return {}


def fetch(repo: str, sha: str, names: tuple[str, ...], subject: str) -> Path:
    """The local folder holding ``names`` of a model at a pinned commit."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import hf_hub_download

    try:
        files = [with_retries(partial(hf_hub_download, repo, name, revision=sha)) for name in names]
    except Exception as error:
        causes = (error, error.__cause__)
        if any(isinstance(c, hub_errors.GatedRepoError) for c in causes):
            raise Refused(gated(repo, subject)) from None
        if refuses_token(error):
            raise Refused(bad_token(subject)) from None
        raise Unreachable(f"{subject}: download of {repo!r} failed: {one_line(error)}") from None
    return Path(files[0]).parent


def snapshot(repo: str, sha: str, patterns: tuple[str, ...], subject: str) -> Path:
    """The local folder holding a data set repository's files of these patterns at a commit.

    What is in the cache is not asked for again, so a second run needs no network.
    """
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import snapshot_download

    fetch_all = partial(
        snapshot_download, repo, repo_type="dataset", revision=sha, allow_patterns=list(patterns)
    )
    try:
        return Path(with_retries(fetch_all))
    except Exception as error:
        causes = (error, error.__cause__)
        if any(isinstance(c, hub_errors.GatedRepoError) for c in causes):
            raise Refused(gated(repo, subject)) from None
        if refuses_token(error):
            raise Refused(bad_token(subject)) from None
        raise Unreachable(f"{subject}: download of {repo!r} failed: {one_line(error)}") from None
