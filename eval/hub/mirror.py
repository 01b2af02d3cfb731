"""Some files as the whole content of a Hub repository: one commit of what differs, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import Conflict, NotFound, Unreachable
from eval.hub import commits

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Say = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """Under which a repository is ours to change, and how the change is told."""

    kind: commits.Kind
    trailer: str  # in our commits' messages: who changed the repository last
    opening: frozenset[str]  # what the Hub's own first commit may hold
    mend: str  # what to do about somebody else's change; "... with --replace SHA" follows
    title: str  # of the commit
    sdk: str = ""  # of a Space


@dataclass(frozen=True)
class Mirrored:
    """What the repository holds now. ``sha`` is '' in a dry run of one that is yet to be made."""

    repo: str
    url: str
    sha: str
    uploaded: tuple[str, ...]
    removed: tuple[str, ...]
    bytes: int  # of what was (or would be) uploaded
    dry_run: bool


def begin(
    api: HfApi, repo: str, kind: commits.Kind, *, private: bool, dry_run: bool, replace: str | None
) -> commits.Remote | None:
    """What the repository holds before anything is done; None where it is yet to be made.

    Raises UserError for a name, a token or a visibility with which the rest could not succeed.
    """
    commits.check_repo_id(repo, f"{kind} repository")
    if not dry_run:
        commits.check_rights(commits.account(api), repo)
    remote = commits.look(api, repo, kind)
    if remote is None and replace is not None:
        raise NotFound(f"the Hub has no {kind} {repo!r} yet, so there is nothing to --replace")
    if remote is not None and private and not commits.is_private(api, repo, kind):
        raise Conflict(f"{kind} repository {repo!r} is public already; leave --private out")
    return remote


def mirror(
    api: HfApi,
    repo: str,
    files: commits.Files,
    remote: commits.Remote | None,
    terms: Terms,
    *,
    private: bool,
    dry_run: bool,
    replace: str | None,
    say: Say,
) -> Mirrored:
    """Make the repository if need be, then add what it lacks and remove what is not in ``files``.

    Nothing is committed where nothing differs. A repository that somebody else changed last is
    left alone unless ``replace`` names the commit to be replaced. Raises UserError for whatever
    the Hub refuses; the repository is then as it was.
    """
    if remote is None and not dry_run:
        commits.create(api, repo, terms.kind, private=private, sdk=terms.sdk)
        remote = commits.look(api, repo, terms.kind)
        if remote is None:
            raise Unreachable(f"the Hub made {repo!r} but does not show it; try again later")
    held: Mapping[str, str] = remote.digests if remote else {}
    changed = commits.changed(files, held)
    gone = sorted(set(held) - set(files) - {".gitattributes"})
    size = sum(size_of(files[name]) for name in changed)
    sha = remote.sha if remote else ""
    prefix = "" if terms.kind == "model" else f"{terms.kind}s/"
    url = f"{api.endpoint}/{prefix}{repo}"
    if remote is not None and (changed or gone):
        commits.check_head(
            api, repo, terms.kind, remote, replace,
            trailer=terms.trailer, opening=terms.opening, mend=terms.mend,
        )  # fmt: skip
        if not dry_run:
            say(f"uploading {len(changed)} files, {size / 1e6:.1f} MB, to {url}")
            try:
                sha = commits.commit(
                    api, repo, terms.kind, {name: files[name] for name in changed}, gone,
                    remote.sha, terms.title, f"{len(files)} files\n\n{terms.trailer}",
                ).sha  # fmt: skip
            except commits.Moved as moved:
                raise commits.foreign_change(repo, moved.sha, terms.mend) from None
    return Mirrored(repo, url, sha, tuple(changed), tuple(gone), size, dry_run)


def size_of(content: bytes | Path) -> int:
    """In bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)
