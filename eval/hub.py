"""What the Hub says of a repository, pinned to a commit, in errors a user can act on."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.errors import UserError, one_line
from eval.files import atomic_file

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """A repository at one commit. ``files`` is None when the answer came from the local cache."""

    sha: str
    files: frozenset[str] | None


def pin(
    repo: str,
    revision: str | None,
    kind: Literal["model", "dataset"],
    what: str,
    needed: tuple[str, ...] = (),
) -> Pin:
    """Resolve a revision (default main) to a commit sha.

    A full sha whose ``needed`` files are cached asks nobody. Without network, the commit that the
    cache last saw for the revision serves if its files are there. Raises UserError when the
    repository is missing, private or gated, the revision unknown or the Hub out of reach.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub_errors

    exact = revision is not None and _COMMIT.fullmatch(revision) is not None
    # A data set's rows may all be remembered; if they are not, loading it asks the Hub.
    if revision and exact and (kind == "dataset" or _cached(repo, revision, kind, needed)):
        return Pin(revision, None)
    try:
        if constants.HF_HUB_OFFLINE:
            raise hub_errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = ask(repo, revision=revision, timeout=30)
        assert info.sha is not None
        return Pin(info.sha, frozenset(s.rfilename for s in info.siblings or []))
    except hub_errors.GatedRepoError:
        raise UserError(gated(repo, what)) from None
    except hub_errors.RepositoryNotFoundError:
        raise UserError(
            f"{what}: the Hub has no {kind} {repo!r}, or it is private; check the name, "
            "or log in with `hf auth login`"
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise UserError(f"{what}: {repo!r} has no revision {revision!r}") from None
    except hub_errors.HFValidationError as error:
        raise UserError(f"{what}: {one_line(error)}") from None
    except Exception as error:  # no network, a proxy's page, a 5xx: all mean "cannot ask now"
        ref = _ref_file(repo, revision, kind)
        if ref.is_file() and _cached(repo, sha := ref.read_text().strip(), kind, needed):
            return Pin(sha, None)
        raise UserError(
            f"{what}: the Hub cannot be reached and {repo!r} is not in the local cache "
            f"({one_line(error, 160)})"
        ) from None


def remember(repo: str, revision: str | None, sha: str) -> None:
    """Note which commit a model's revision meant, for when the Hub is out of reach.

    ``hf_hub_download`` does so only when it is asked for the revision by name, not by its commit.
    """
    if sha != revision:
        with contextlib.suppress(OSError), atomic_file(_ref_file(repo, revision, "model")) as file:
            file.write(sha.encode())


def _ref_file(repo: str, revision: str | None, kind: str) -> Path:
    """Where the Hub's cache keeps the commit of a branch or tag."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"
    return folder / "refs" / (revision or "main")


def gated(repo: str, what: str) -> str:
    """The sentence for a repository whose terms the user has not accepted."""
    return (
        f"{what}: {repo!r} is gated; accept its terms on its Hub page and log in "
        "with `hf auth login`"
    )


def _cached(repo: str, sha: str, kind: str, needed: tuple[str, ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return bool(needed) and all(
        isinstance(try_to_load_from_cache(repo, name, revision=sha, repo_type=kind), str)
        for name in needed
    )


def fetch(repo: str, sha: str, names: tuple[str, ...], what: str) -> Path:
    """The local folder holding ``names`` of a model at a pinned commit."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import hf_hub_download

    try:
        files = [hf_hub_download(repo, name, revision=sha) for name in names]
    except Exception as error:
        causes = (error, error.__cause__)
        if any(isinstance(c, hub_errors.GatedRepoError) for c in causes):
            raise UserError(gated(repo, what)) from None
        raise UserError(f"{what}: download of {repo!r} failed: {one_line(error)}") from None
    return Path(files[0]).parent
