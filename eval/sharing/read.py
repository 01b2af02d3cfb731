"""Reading results from a data set repository of the Hub, at one commit and inside the cache."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, NotFound, UserError
from eval.hub.client import gated, pin, with_retries
from eval.hub.commits import Remote, check_repo_id, look, refusal
from eval.results.parquet_table import flaw
from eval.results.schema import Result
from eval.results.shared import pull_results
from eval.results.signoff import SignOffs, sign_offs
from eval.results.sound import sound
from eval.results.store import NotAResult, Shelf, read_result, read_shelf
from eval.stores.front import folder_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WHAT = "data set repository"
MOST_BYTES = 1 << 25  # of a result; the largest that ships has 72 kB
RESULT = re.compile(r"[^/.][^/]*/[^/.][^/]*/[^/.][^/]*\.json")  # model/revision/file


def fetch(text: str) -> Path:
    """``hub:ORG/NAME[@rev]`` -> the folder, in the Hub's cache, with the results at one commit.

    A commit that was fetched before is read without asking anybody. Raises UserError for another
    form, for what the Hub refuses, and where there are no results.
    """
    match = re.fullmatch(r"hub:([^@\s]+)(?:@([\w.][\w./-]*))?", text)
    if match is None or ".." in (match[2] or ""):
        raise BadInput(f"results {text!r} are no hub:ORG/NAME or hub:ORG/NAME@REVISION")
    repo, revision = check_repo_id(match[1], "results repository"), match[2]
    subject = f"results {text!r}"
    found = pin(repo, revision, "dataset", subject)
    if found.files is None and (folder := _cached(repo, found.sha)):
        return folder
    files = found.files if found.files is not None else _listed(repo, found.sha, subject)
    check_paths(repo, files)
    if not any(path.endswith(".json") for path in files):
        raise NotFound(f"{subject}: {repo!r} holds no results at {found.sha[:7]}")
    return _download(repo, found.sha, ["*.json"], subject)


def shelf_at(place: str) -> tuple[Path, Shelf]:
    """(folder, its sound results) of a directory, a store's address or ``hub:ORG/NAME[@rev]``.

    The results of others must hold more than one's own: `flaw` rather than numbers alone. Raises
    UserError where there is no such place, or JSON but no result at all.
    """
    if place.startswith("hub:"):
        folder = fetch(place)
        return folder, sound(read_shelf(folder), flaw)
    folder = folder_of(place)
    pull_results(folder)
    return folder, sound(read_shelf(folder))


def marks_at(place: str, folder: Path) -> SignOffs | None:
    """The sign-offs of a place that `shelf_at` read; None where nobody asks who computed a result:
    for results of one's own that nobody signed."""
    found = sign_offs(folder)
    return found if found or place.startswith("hub:") else None


def _cached(repo: str, sha: str) -> Path | None:
    """The folder of a commit whose results were all fetched before."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import get_cached_repo_tree, snapshot_download

    try:
        # Without the commit's list of files the client cannot tell whether the folder is whole.
        tree = get_cached_repo_tree(repo, repo_type="dataset", revision=sha)
        check_paths(repo, [file.path for file in tree])
        folder = snapshot_download(
            repo,
            repo_type="dataset",
            revision=sha,
            allow_patterns=["*.json"],
            local_files_only=True,
        )
    except (OSError, ValueError, hub_errors.CachedRepoTreeNotFoundError):
        return None
    return Path(folder)


def _listed(repo: str, sha: str, subject: str) -> Iterable[str]:
    from huggingface_hub import HfApi

    try:
        return with_retries(
            lambda: HfApi().list_repo_files(repo, repo_type="dataset", revision=sha)
        )
    except Exception as error:
        raise _denial(error, repo, sha, subject) from None


def check_paths(repo: str, paths: Iterable[str]) -> None:
    """Raises UserError where a file of the repository would lie outside its folder."""
    for path in paths:
        if (
            not all(part.strip() not in ("", ".", "..") for part in path.split("/"))
            or re.search(r"[\\\x00-\x1f]", path)
            or re.match(r"[A-Za-z]:", path)
        ):
            raise BadInput(f"{WHAT} {repo!r} holds the path {path!r}, which leads out of it")


def _download(repo: str, sha: str, patterns: list[str], subject: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = with_retries(
            lambda: snapshot_download(
                repo, repo_type="dataset", revision=sha, allow_patterns=patterns
            )
        )
    except Exception as error:
        raise _denial(error, repo, sha, subject) from None
    return Path(folder)


def _denial(error: BaseException, repo: str, sha: str, subject: str) -> UserError:
    """Why a repository cannot be read at a commit, in the words of `eval.hub.client.pin`."""
    from huggingface_hub import errors as hub_errors

    causes = (error, error.__cause__)
    if any(isinstance(c, hub_errors.GatedRepoError) for c in causes):
        return UserError(gated(repo, subject))
    if any(isinstance(c, hub_errors.RepositoryNotFoundError) for c in causes):
        return UserError(
            f"{subject}: the Hub has no dataset {repo!r}, or it is private; check the name, "
            "or log in with `hf auth login`"
        )
    if any(isinstance(c, hub_errors.RevisionNotFoundError) for c in causes):
        return UserError(f"{subject}: {repo!r} has no revision {sha!r}")
    return refusal(error, subject, "")


def at(api: HfApi, repo: str, revision: str | None = None) -> Remote:
    """The repository at a revision. Raises UserError where there is none."""
    remote = look(api, repo, "dataset", revision)
    if remote is None:
        raise NotFound(f"the Hub has no {WHAT} {repo!r}, or it is private to others")
    check_paths(repo, remote.digests)
    return remote


def held_at(repo: str, remote: Remote, paths: Iterable[str]) -> dict[str, Result | str]:
    """Each result of ``paths``, or why it is none; other files are left out."""
    wanted = sorted(path for path in paths if RESULT.fullmatch(path))
    # by what the Hub says: nothing of that size is downloaded
    out: dict[str, Result | str] = {
        path: f"it has {size:,} bytes, at most {MOST_BYTES:,} are read"
        for path in wanted
        if (size := remote.sizes.get(path, 0)) > MOST_BYTES
    }
    for path, file in _local_files(repo, remote, [p for p in wanted if p not in out]).items():
        try:
            result = read_result(file)
        except NotAResult as why:
            out[path] = str(why)
        else:
            out[path] = flaw(result) or result
    return out


def contents(repo: str, remote: Remote, paths: Sequence[str]) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in _local_files(repo, remote, paths).items()}


def _local_files(repo: str, remote: Remote, paths: Sequence[str]) -> dict[str, Path]:
    """Where the files of a commit lie in the cache, downloaded if need be."""
    if not paths:
        return {}
    patterns = [glob.escape(path) for path in paths]
    folder = _download(repo, remote.sha, patterns, f"{WHAT} {repo!r}")
    return {path: folder / path for path in paths}
