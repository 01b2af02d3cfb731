"""Writing to the Hub: one commit that holds everything, or nothing at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.common.errors import BadInput, Conflict, Refused, UserError, one_line
from eval.common.files import sha256_file
from eval.hub.client import bad_token, busy, gated, with_retries

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset", "space"]
Files = Mapping[str, bytes | Path]  # path in the repository -> content, or where it lies

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Moved(Exception):
    """The branch is no longer at the commit that a change was made for; ``sha`` is where it is."""

    def __init__(self, sha: str) -> None:
        super().__init__(sha)
        self.sha = sha


@dataclass(frozen=True)
class Account:
    """Whose token is used, and which namespaces it may write to."""

    name: str
    orgs: frozenset[str]
    role: str  # read, write or fineGrained


@dataclass(frozen=True)
class Remote:
    """A repository at one commit: ``digests`` maps path to sha256 (LFS) or git blob id, ``sizes``
    to bytes."""

    sha: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)


def check_repo_id(text: str, subject: str) -> str:
    """``org/name`` as the Hub takes it. Raises UserError with the rule."""
    parts = text.split("/")
    good = (
        len(parts) == 2
        and len(text) <= 96
        and all(_NAME.fullmatch(part) for part in parts)
        and "--" not in text
        and ".." not in text
        and not text.endswith(".git")
    )
    if not good:
        raise BadInput(
            f"{subject} {text!r} is not a Hub repository; use ORG/NAME of letters, digits, '-', "
            "'_' "
            "and '.', at most 96 characters, without '--' or '..', not starting or ending in '-' "
            "or '.'"
        )
    return text


def account(api: HfApi) -> Account:
    """Who is logged in. Raises UserError without a token or with one that the Hub refuses."""
    from huggingface_hub import errors as hub_errors

    try:
        said = with_retries(api.whoami)
    except hub_errors.LocalTokenNotFoundError:
        raise Refused(
            "no Hub token here; log in with `hf auth login` or set HF_TOKEN to a writing token"
        ) from None
    except Exception as error:
        raise refusal(error, "the Hub", "") from None
    role = (said.get("auth") or {}).get("accessToken", {}).get("role", "")
    return Account(said["name"], frozenset(o["name"] for o in said.get("orgs") or ()), str(role))


def check_rights(who: Account, repo: str) -> None:
    """Raises UserError where this account cannot write to the repository's namespace."""
    owner = repo.partition("/")[0]
    if who.role == "read":
        raise Refused(
            f"the token of {who.name!r} may only read; make one that may write at "
            "https://huggingface.co/settings/tokens"
        )
    if owner != who.name and owner not in who.orgs:
        places = ", ".join(sorted({who.name, *who.orgs}))
        raise Refused(
            f"namespace {owner!r} of {repo!r} is not open to {who.name!r}; it may write to {places}"
        )


def look(api: HfApi, repo: str, kind: Kind, revision: str | None = None) -> Remote | None:
    """What the repository holds now; None where there is none (or it is hidden from us)."""
    from huggingface_hub import RepoFile
    from huggingface_hub import errors as hub_errors

    try:
        info = with_retries(lambda: api.repo_info(repo, repo_type=kind, revision=revision))
        sha = str(info.sha)
        tree = with_retries(
            lambda: list(api.list_repo_tree(repo, repo_type=kind, revision=sha, recursive=True))
        )
    except hub_errors.GatedRepoError:
        raise Refused(gated(repo, f"{kind} repository")) from None
    except hub_errors.RepositoryNotFoundError:
        return None
    except Exception as error:
        raise refusal(error, f"{kind} repository", repo) from None
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    digests = {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in files}
    return Remote(sha, digests, {f.path: f.size for f in files})


def create(api: HfApi, repo: str, kind: Kind, *, private: bool = False, sdk: str = "") -> None:
    """Make the repository. Raises UserError where the Hub refuses."""
    extra: dict[str, Any] = {"space_sdk": sdk} if sdk else {}
    try:
        # exist_ok: an attempt may have succeeded although its answer was lost
        with_retries(
            lambda: api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **extra)
        )
    except Exception as error:
        raise refusal(error, f"{kind} repository", repo) from None


def is_private(api: HfApi, repo: str, kind: Kind) -> bool:
    """Whether the repository is hidden from others."""
    try:
        return bool(with_retries(lambda: api.repo_info(repo, repo_type=kind)).private)
    except Exception as error:
        raise refusal(error, f"{kind} repository", repo) from None


def changed(files: Files, digests: Mapping[str, str]) -> list[str]:
    """Paths whose content the repository does not hold yet."""
    return [
        path for path, content in files.items() if digests.get(path) not in content_digests(content)
    ]


def content_digests(content: bytes | Path) -> tuple[str, str]:
    """(sha256, git blob id): the Hub names a file by one or the other."""
    if isinstance(content, Path):
        size = content.stat().st_size
        git = hashlib.sha1(f"blob {size}\0".encode())
        with content.open("rb") as file:
            while chunk := file.read(1 << 20):
                git.update(chunk)
        return sha256_file(content), git.hexdigest()
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content)
    return hashlib.sha256(content).hexdigest(), git.hexdigest()


def check_head(
    api: HfApi, repo: str, kind: Kind, remote: Remote, replace: str | None, *, trailer: str,
    opening: Set[str], mend: str,
) -> None:  # fmt: skip
    """Raises UserError where the last commit is somebody else's and not the one to ``replace``.

    Ours have ``trailer`` in their message; a repository with one commit that holds nothing but
    ``opening`` was just made. ``mend`` says what to do first.
    """
    if replace is not None:
        if len(replace) < 7 or not remote.sha.startswith(replace):
            raise Conflict(f"{repo!r} is at commit {remote.sha}, not at --replace {replace}")
        return
    try:
        commits = with_retries(
            lambda: api.list_repo_commits(repo, repo_type=kind, revision=remote.sha)
        )
    except Exception as error:
        raise refusal(error, f"{kind} repository", repo) from None
    fresh = len(commits) == 1 and set(remote.digests) <= opening
    if not fresh and trailer not in commits[0].message:
        raise foreign_change(repo, remote.sha, mend, f" ({commits[0].title!r})")


def foreign_change(repo: str, sha: str, mend: str, title: str = "") -> UserError:
    """The sentence for a repository that somebody else changed last."""
    return UserError(
        f"{repo!r} was changed on the Hub by someone else (commit {sha[:7]}{title}); look at it, "
        f"{mend} with --replace {sha[:12]}"
    )


@dataclass(frozen=True)
class Landed:
    """A commit on the Hub; ``pull_request`` is its address where one was opened."""

    sha: str
    pull_request: str = ""


def commit(
    api: HfApi,
    repo: str,
    kind: Kind,
    files: Files,
    gone: Iterable[str],
    parent: str,
    message: str,
    description: str = "",
    *,
    pull_request: bool = False,
) -> Landed:
    """Add ``files`` and remove ``gone`` in one commit on top of ``parent``.

    Asked again while the Hub is busy, never twice: a commit that landed although its answer was
    lost is recognised by its content, a pull request by its title. Raises Moved when main is no
    longer at ``parent``, UserError where the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub import errors as hub_errors

    gone = list(gone)

    def attempt() -> Landed:
        if pull_request and (open_one := find_pull_request(api, repo, kind, message)):
            return open_one
        # made anew each time: the client notes its progress in them
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path, content) for path, content in files.items()),
            *(CommitOperationDelete(path) for path in gone),
        ]
        try:
            done = api.create_commit(
                repo, operations, repo_type=kind, commit_message=message,
                commit_description=description, parent_commit=parent, create_pr=pull_request,
            )  # fmt: skip
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code != 412 or pull_request:
                raise
            now = look(api, repo, kind)
            assert now is not None
            if changed(files, now.digests) or any(path in now.digests for path in gone):
                raise Moved(now.sha) from None
            return Landed(now.sha)
        return Landed(done.oid, done.pr_url or "")

    try:
        return with_retries(attempt)
    except (Moved, UserError):
        raise
    except Exception as error:
        raise refusal(error, f"{kind} repository", repo) from None


def find_pull_request(api: HfApi, repo: str, kind: Kind, title: str) -> Landed | None:
    """The open pull request of this title."""
    for talk in api.get_repo_discussions(
        repo, repo_type=kind, discussion_type="pull_request", discussion_status="open"
    ):
        if talk.title == title and talk.git_reference:
            sha = api.repo_info(repo, repo_type=kind, revision=talk.git_reference).sha
            return Landed(str(sha), talk.url)
    return None


def refusal(error: BaseException, subject: str, repo: str) -> UserError:
    """What the Hub answered, as a sentence a user can act on; tokens are blotted out."""
    from huggingface_hub import errors as hub_errors

    where = f"{subject} {repo!r}" if repo else subject
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    said = one_line(Exception(getattr(error, "server_message", None) or str(error)), 160)
    if isinstance(error, hub_errors.GatedRepoError):
        return Refused(gated(repo, subject) if repo else f"{where} is gated")
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return UserError(f"{where}: the Hub has none of that name, or it is private to others")
    if status == 401:
        return Refused(bad_token(where))
    if status == 403:
        return UserError(f"{where}: the Hub forbids it ({said})")
    if status is not None:
        return UserError(f"{where}: the Hub answered {status} ({said}); try again later")
    if busy(error) is None and not isinstance(error, OSError) and not _no_connection(error):
        return UserError(f"{where}: the upload is refused ({said})")
    return UserError(f"{where}: the Hub cannot be reached ({said}); try again later")


def _no_connection(error: BaseException) -> bool:
    # By name, as in eval.hub.client: the client's HTTP library changes.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
