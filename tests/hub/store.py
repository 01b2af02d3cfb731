"""What the loopback Hub holds: repositories as chains of commits over blobs, and who may see them.

Nothing here knows HTTP. Object ids are real git ids (blob, LFS pointer, tree); commit ids are
git-like and deterministic: the same calls in the same order give the same shas in every run.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

Kind = Literal["model", "dataset", "space"]
Gate = Literal["auto", "manual", False]

CHUNK = 1 << 20
LARGE_SIZE = 10 << 20  # the Hub refuses larger files as plain git blobs
LARGE_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".onnx"}
LARGE_SUFFIXES |= {".parquet", ".arrow", ".npy", ".npz", ".msgpack", ".zip", ".tar", ".gz"}
REPO_NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)\w([\w.-]{0,94}\w)?", re.ASCII)
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)  # commits are one minute apart from here


class HubError(Exception):
    """An error answer; clients read its X-Error-Code and X-Error-Message headers."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Blob:
    """One file's content. A path is read when served: it must not change while the hub is up."""

    data: bytes | Path
    size: int
    sha256: str
    oid: str  # git sha1: of the content, or of the LFS pointer
    lfs: bool

    @classmethod
    def of(cls, path: str, data: bytes | Path, lfs: bool | None = None) -> Blob:
        """Hash `data`; `path` (the name in the repo) and the content decide LFS unless told."""
        if isinstance(data, bytes):
            size, chunks = len(data), iter([data])
        else:
            size, chunks = data.stat().st_size, read_chunks(data, 0, data.stat().st_size)
        sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
        head = b""
        for chunk in chunks:
            head = head or chunk[:512]
            sha256.update(chunk)
            git.update(chunk)
        if lfs is None:
            lfs = is_large(path, size, head)
        oid = git_id("blob", pointer(sha256.hexdigest(), size)) if lfs else git.hexdigest()
        return cls(data, size, sha256.hexdigest(), oid, lfs)

    @property
    def lfs_json(self) -> dict[str, str | int]:
        """The `lfs` field of tree entries."""
        size = len(pointer(self.sha256, self.size))
        return {"oid": self.sha256, "size": self.size, "pointerSize": size}

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop`."""
        return b"".join(self.chunks(start, stop))

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `stop`, in pieces."""
        stop = self.size if stop is None else min(stop, self.size)
        if isinstance(self.data, bytes):
            yield self.data[start:stop]
        else:
            yield from read_chunks(self.data, start, stop)


def read_chunks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """Bytes `start` to `stop` of a file, in pieces of at most `CHUNK`."""
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
            start += len(chunk)
            yield chunk


def is_large(path: str, size: int, head: bytes) -> bool:
    """Whether the Hub stores such a file as LFS: known suffix, over 10 MiB, or binary."""
    if size == 0:
        return False
    return Path(path).suffix.lower() in LARGE_SUFFIXES or size > LARGE_SIZE or b"\0" in head


def pointer(sha256: str, size: int) -> bytes:
    """The text git keeps in place of an LFS file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def git_id(kind: str, body: bytes) -> str:
    """The sha1 git gives an object."""
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body).hexdigest()


def tree_ids(files: Mapping[str, Blob]) -> dict[str, str]:
    """Git tree id of every folder of a file listing, the root as ""."""
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}  # folder -> name -> (mode, oid)
    for path, blob in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = ("100644", blob.oid)
        while folder:  # make the folders above exist
            folder = folder.rpartition("/")[0]
            folders.setdefault(folder, {})
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda name: (name.count("/"), name != ""), reverse=True):
        entries = sorted(
            folders[folder].items(), key=lambda item: item[0] + "/" * (item[1][0] == "40000")
        )
        body = b"".join(f"{m} {name}\0".encode() + bytes.fromhex(o) for name, (m, o) in entries)
        ids[folder] = git_id("tree", body)
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent][name] = ("40000", ids[folder])
    return ids


@dataclass(frozen=True)
class Commit:
    """One state of a repository's files."""

    sha: str
    parent: str | None
    files: Mapping[str, Blob]
    title: str
    message: str
    author: str
    date: datetime

    @property
    def when(self) -> str:
        """The date as the Hub writes it."""
        return iso(self.date)


def iso(date: datetime) -> str:
    """`2025-01-01T00:00:00.000Z`, the only form the clients parse."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass
class Discussion:
    """A discussion or a pull request: they share their numbers and their thread of events."""

    num: int
    title: str
    author: str
    created: datetime
    pull: bool
    status: str = "open"  # or draft, closed, merged
    base: str = "main"  # the branch a pull request is for
    merged: str | None = None  # the merge commit
    events: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: str, author: str, date: datetime, data: dict[str, Any]) -> dict[str, Any]:
        """Put an event on the thread, in the form that answers have."""
        text = f"{self.num} {len(self.events)} {kind} {date.timestamp():.0f}"
        event = {"id": git_id("event", text.encode())[:24], "type": kind, "createdAt": iso(date)}
        self.events.append({**event, "author": {"name": author}, "data": data})
        return self.events[-1]

    def comment(self, author: str, date: datetime, text: str) -> dict[str, Any]:
        """Put a comment on the thread."""
        data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}}
        return self.add("comment", author, date, data)


@dataclass
class Collection:
    """A titled list of repositories and papers."""

    slug: str  # "owner/words-of-the-title-ID"; the ID stays when the title changes
    title: str
    owner: str
    updated: datetime
    position: int
    private: bool = False
    description: str | None = None
    theme: str = "orange"
    items: list[dict[str, Any]] = field(default_factory=list)  # _id, id, type, note?

    @property
    def id(self) -> str:
        """The part of the slug that never changes."""
        return self.slug[-24:]


@dataclass
class Repo:
    """A repository: commits, the refs into them and its access settings."""

    kind: Kind
    id: str
    created: datetime
    private: bool = False
    gated: Gate = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)  # "refs/pr/1" -> sha
    discussions: dict[int, Discussion] = field(default_factory=dict)  # pull requests too

    @property
    def prefix(self) -> str:
        """What stands before the id in page and resolve URLs."""
        return "" if self.kind == "model" else f"{self.kind}s/"

    @property
    def owner(self) -> str:
        """The namespace; "" for the few repositories without one."""
        return self.id.rpartition("/")[0]

    @property
    def head(self) -> Commit:
        """The last commit on main."""
        return self.commits[self.branches["main"]]

    def at(self, revision: str) -> Commit:
        """The commit a sha, branch, tag or ref names."""
        if revision in self.commits:
            return self.commits[revision]
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for refs in (self.pulls, self.branches, self.tags):
            if name in refs:
                return self.commits[refs[name]]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self.commits[commit.parent]
            yield commit

    def merge_base(self, pull: Discussion) -> Commit:
        """The last commit that a pull request shares with its target."""
        ours = {commit.sha for commit in self.history(self.at(pull.base))}
        return next(c for c in self.history(self.at(f"refs/pr/{pull.num}")) if c.sha in ours)

    def merge(self, pull: Discussion) -> tuple[dict[str, Blob], list[str]]:
        """What merging a pull request gives: the files, and the paths both sides changed."""
        theirs, ours = self.at(f"refs/pr/{pull.num}").files, self.at(pull.base).files
        start = self.merge_base(pull).files
        files, conflicts = dict(ours), []
        for path in sorted({*start, *theirs}):
            old, new, now = (
                side[path].oid if path in side else None for side in (start, theirs, ours)
            )
            if new in (old, now):
                continue
            if now != old:
                conflicts.append(path)
            elif new is None:
                del files[path]
            else:
                files[path] = theirs[path]
        return files, conflicts

    def last_commit(self, commit: Commit, path: str) -> Commit:
        """The newest commit at or before `commit` that changed a file or folder."""

        def state(files: Mapping[str, Blob]) -> list[tuple[str, str]]:
            inside = (n for n in files if n == path or n.startswith(path + "/"))
            return sorted((name, files[name].oid) for name in inside)

        for newer in self.history(commit):
            older = self.commits[newer.parent].files if newer.parent else {}
            if state(older) != state(newer.files):
                return newer
        raise AssertionError(f"{path} is in no commit of {self.id}")


@dataclass(repr=False, eq=False)
class Store:
    """Everything the hub knows, with the rules of who may read and write what.

    Attributes:
        tokens: The valid tokens. Any of them reads every private repository.
        users: User name of a token; "tester" for a token that is not named here.
        read_only: Tokens that may not write (403).
        orgs: The organisations a user may write to.
        strict_namespaces: On, a user writes only to repositories and collections of their own or
            of their `orgs` (else 403), but may open pull requests on every visible repository.
        strict_auth: Off, a hidden repository is always 404 and a gate always 403. On, as on
            huggingface.co, these are 401 (same error code) for a request with no token, and a
            token not in `tokens` gets 401 "Invalid credentials" on every request.
        page_size: Entries per page of lists, trees and commits.
        multipart_size: Uploads larger than this are done in parts of this size.
    """

    tokens: set[str] = field(default_factory=set)
    users: dict[str, str] = field(default_factory=dict)
    read_only: set[str] = field(default_factory=set)
    orgs: dict[str, set[str]] = field(default_factory=dict)
    strict_auth: bool = False
    strict_namespaces: bool = False
    page_size: int = 1000
    multipart_size: int = 64 << 20
    repos: dict[tuple[Kind, str], Repo] = field(default_factory=dict)
    moved: dict[tuple[Kind, str], str] = field(default_factory=dict)  # old id -> new id
    collections: dict[str, Collection] = field(default_factory=dict)  # by Collection.id
    blobs: dict[str, Blob] = field(default_factory=dict)  # LFS content by sha256
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)  # multipart uploads under way
    grants: set[tuple[str, str]] = field(default_factory=set)  # (token, repository id)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)
    _clock: int = 0

    # ---- content

    def tick(self) -> datetime:
        """The next moment of the hub's own clock."""
        with self.lock:
            self._clock += 1
            return EPOCH + timedelta(minutes=self._clock)

    def create(self, kind: Kind, repo_id: str) -> Repo:
        """An empty repository (no commit yet)."""
        with self.lock:
            repo = Repo(kind, repo_id, created=self.tick())
            self.repos[kind, repo_id] = repo
            self.moved.pop((kind, repo_id), None)
            return repo

    def move(self, kind: Kind, old: str, new: str) -> None:
        """Rename a repository; requests for the old id are redirected from now on."""
        with self.lock:
            repo = self.repos[kind, new] = self.repos.pop((kind, old))
            repo.id = new
            self.moved.pop((kind, new), None)
            self.moved[kind, old] = new
            self.grants |= {(token, new) for token, name in self.grants if name == old}
            for item in (item for c in self.collections.values() for item in c.items):
                if (item["type"], item["id"]) == (kind, old):
                    item["id"] = new

    def commit(
        self,
        repo: Repo,
        files: Mapping[str, Blob],
        title: str,
        message: str = "",
        author: str = "tester",
        ref: str = "main",
        parent: str | None = None,
    ) -> Commit:
        """Put a commit with exactly `files` on a branch or pull-request ref."""
        with self.lock:
            refs = repo.pulls if ref.startswith("refs/pr/") else repo.branches
            parent = parent or refs.get(ref)
            date = self.tick()
            seed = (
                f"tree {tree_ids(files)['']}\nparent {parent}\n"
                f"author {author} {date.timestamp():.0f}\n"
                f"repo {repo.kind} {repo.id}\n\n{title}\n\n{message}"
            )
            sha = git_id("commit", seed.encode())
            made = Commit(sha, parent, dict(files), title, message, author, date)
            repo.commits[sha] = made
            refs[ref] = sha
            if refs is repo.pulls:
                num = int(ref.rpartition("/")[2])
                pull = repo.discussions.get(num) or self.discuss(repo, title, author, date, num)
                pull.add("commit", author, date, {"subject": title, "oid": sha})
            for blob in files.values():
                if blob.lfs:
                    self.blobs[blob.sha256] = blob
            return made

    def discuss(
        self, repo: Repo, title: str, author: str, date: datetime, num: int = 0, pull: bool = True
    ) -> Discussion:
        """A new pull request or discussion, under the next number unless one is given."""
        num = num or max(repo.discussions, default=0) + 1
        made = repo.discussions[num] = Discussion(num, title, author, date, pull)
        return made

    # ---- access

    def user(self, token: str | None) -> str:
        """Name of a token's owner."""
        return self.users.get(token or "", "tester")

    def check_token(self, token: str | None) -> None:
        """Refuse an unknown token, where the hub is strict about it."""
        if self.strict_auth and token is not None and token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")

    def visible(self, kind: Kind, repo_id: str, token: str | None) -> Repo:
        """The repository, if it exists and this token may know that."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and token not in self.tokens):
            if self.strict_auth and token is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repo

    def check_gate(self, repo: Repo, token: str | None) -> None:
        """Refuse to serve a gated repository's files without granted access."""
        if not repo.gated or (token in self.tokens and (token, repo.id) in self.grants):
            return
        what = f"Access to {repo.kind} {repo.id} is restricted"
        if self.strict_auth and token is None:
            text = "You must have access to it and be authenticated to access it. Please log in."
            raise HubError(401, f"{what}. {text}", "GatedRepo")
        raise HubError(403, f"{what} and you are not in the authorized list.", "GatedRepo")

    def writer(self, token: str | None) -> str:
        """The user name behind a token that may write."""
        if token not in self.tokens:
            raise HubError(401, "Invalid username or password.")
        if token in self.read_only:
            raise HubError(403, "Forbidden: you must use a write token to write to a repository.")
        return self.user(token)

    def may_write(self, owner: str, token: str | None) -> bool:
        """Whether a writer's token is good for a namespace."""
        user = self.user(token)
        return not self.strict_namespaces or owner in {user, *self.orgs.get(user, ())}

    def check_owner(self, owner: str, token: str | None, message: str) -> None:
        """Refuse with `message` to write in a namespace of somebody else."""
        if not self.may_write(owner, token):
            raise HubError(403, message)

    def sign(self, text: str) -> str:
        """Signature that lets a storage URL work without a token."""
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()[:32]

    def check_signature(self, text: str, signature: str) -> None:
        """Refuse a storage URL that this hub did not hand out."""
        if not hmac.compare_digest(self.sign(text), signature):
            raise HubError(403, "The storage URL's signature does not match")
