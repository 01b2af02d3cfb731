"""Discussions and pull requests: reading them, talking on them, closing and merging."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from .reads import only, repo_of
from .store import Blob, Discussion, HubError, Repo, Store, iso, pointer
from .wire import Reply, Request, route
from .writes import asked, check_rights, writable


def thread_of(store: Store, request: Request) -> tuple[Repo, Discussion]:
    """The discussion or pull request the route names."""
    repo = repo_of(store, request)
    found = repo.discussions.get(int(request.args["num"]))
    if found is None:
        raise HubError(404, f"Discussion {request.args['num']} not found")
    return repo, found


def summary(repo: Repo, thread: Discussion) -> dict[str, Any]:
    """A discussion as lists show it."""
    return {
        "num": thread.num,
        "title": thread.title,
        "author": {"name": thread.author},
        "repo": {"name": repo.id, "type": repo.kind},
        "createdAt": iso(thread.created),
        "status": thread.status,
        "isPullRequest": thread.pull,
        "numComments": sum(event["type"] == "comment" for event in thread.events),
    }


@route("GET", "/api/{kind}/{repo}/discussions")
def threads(store: Store, request: Request) -> Reply:
    """Discussions and pull requests, newest first; pages are counted by `p`."""
    only(request, {"p", "type", "status", "author"})
    repo = repo_of(store, request)
    kind, status, author = (
        request.query.get(name, [""])[0] for name in ("type", "status", "author")
    )
    found = [
        thread
        for _, thread in sorted(repo.discussions.items(), reverse=True)
        if kind in ("", "all", "pull_request" if thread.pull else "discussion")
        and status in ("", "all", "open" if thread.status in ("open", "draft") else "closed")
        and author in ("", thread.author)
    ]
    start = int(request.query.get("p", ["0"])[0]) * store.page_size
    rows = [summary(repo, thread) for thread in found[start : start + store.page_size]]
    return Reply.json({"discussions": rows, "count": len(found), "start": start})


@route("POST", "/api/{kind}/{repo}/discussions")
def open_thread(store: Store, request: Request) -> Reply:
    """A new discussion, or a draft pull request without changes as yet."""
    repo = writable(store, request, proposal=True)
    pull, author = bool(request.json().get("pullRequest")), store.user(request.token)
    with store.lock:
        thread = store.discuss(repo, asked(request, "title", str), author, store.tick(), pull=pull)
        thread.comment(author, thread.created, asked(request, "description", str))
        if pull:
            thread.status = "draft"
            repo.pulls[f"refs/pr/{thread.num}"] = repo.head.sha
    return Reply.json(summary(repo, thread))


@route("GET", "/api/{kind}/{repo}/discussions/{num}")
def details(store: Store, request: Request) -> Reply:
    """A discussion with its events; of a pull request also the target, conflicts and diff."""
    only(request, {"diff"})
    repo, thread = thread_of(store, request)
    data = {**summary(repo, thread), "events": thread.events}
    if thread.pull:
        waiting = thread.merged is None
        data["changes"] = {"base": f"refs/heads/{thread.base}"}
        if not waiting:
            data["changes"]["mergeCommitId"] = thread.merged
        data["filesWithConflicts"] = repo.merge(thread)[1] if waiting else []
        if request.flag("diff"):
            data["diff"] = "".join(diff(repo, thread))
    return Reply.json(data)


def diff(repo: Repo, pull: Discussion) -> Iterator[str]:
    """A pull request's changes in git's form; LFS files stand there as their pointers."""
    theirs = repo.at(f"refs/pr/{pull.num}").files
    start = repo.merge_base(pull).files
    for path in sorted({*start, *theirs}):
        old, new = start.get(path), theirs.get(path)
        if old != new:
            yield f"diff --git a/{path} b/{path}\n"
            yield from difflib.unified_diff(
                lines(old),
                lines(new),
                f"a/{path}" if old else "/dev/null",
                f"b/{path}" if new else "/dev/null",
            )


def lines(blob: Blob | None) -> list[str]:
    """A file's lines as git has them."""
    if blob is None:
        return []
    data = pointer(blob.sha256, blob.size) if blob.lfs else blob.read()
    return data.decode("utf-8", "replace").splitlines(keepends=True)


@route("POST", "/api/{kind}/{repo}/discussions/{num}/comment")
def comment(store: Store, request: Request) -> Reply:
    """A comment by anyone who can see the repository."""
    writable(store, request, proposal=True)
    _, thread = thread_of(store, request)
    text, author = asked(request, "comment", str), store.user(request.token)
    return Reply.json({"newMessage": thread.comment(author, store.tick(), text)})


@route("POST", "/api/{kind}/{repo}/discussions/{num}/title")
def retitle(store: Store, request: Request) -> Reply:
    """Another title."""
    _, thread = own_thread(store, request)
    new = asked(request, "title", str)
    change = {"from": thread.title, "to": new}
    thread.title = new
    author = store.user(request.token)
    return Reply.json({"newTitle": thread.add("title-change", author, store.tick(), change)})


@route("POST", "/api/{kind}/{repo}/discussions/{num}/status")
def status(store: Store, request: Request) -> Reply:
    """Open or close; a draft is opened to be merged."""
    _, thread = own_thread(store, request)
    new = asked(request, "status", str)
    if new not in ("open", "closed"):
        raise HubError(400, f'"status" must be open or closed, got {new!r}')
    with store.lock:
        if thread.merged is not None:
            raise HubError(400, "A merged pull request cannot be opened or closed")
        thread.status = new
        return Reply.json({"newStatus": change_status(store, request, thread)})


@route("POST", "/api/{kind}/{repo}/discussions/{num}/merge")
def merge(store: Store, request: Request) -> Reply:
    """Put a pull request's changes on its target; 409 where both sides changed a file."""
    writable(store, request)
    repo, pull = thread_of(store, request)
    with store.lock:
        if not pull.pull or pull.status != "open":
            what = pull.status if pull.pull else "not a pull request"
            raise HubError(400, f"Discussion {pull.num} is {what}: it cannot be merged")
        files, conflicts = repo.merge(pull)
        if conflicts:
            raise HubError(409, f"Cannot merge: conflicts in {', '.join(conflicts)}")
        steps = [event["data"] for event in pull.events if event["type"] == "commit"]
        message = "\n".join(f"- {step['subject']} ({step['oid']})" for step in steps)
        title, author = f"{pull.title} (#{pull.num})", store.user(request.token)
        made = store.commit(repo, files, title, message, author, ref=pull.base)
        pull.status, pull.merged = "merged", made.sha
        change_status(store, request, pull)
    return Reply.json({"mergeCommitId": made.sha})


def own_thread(store: Store, request: Request) -> tuple[Repo, Discussion]:
    """The thread the route names, for its author and for those who may write to the repository."""
    repo = writable(store, request, proposal=True)
    _, thread = thread_of(store, request)
    if thread.author != store.user(request.token):
        check_rights(store, repo, request.token)
    return repo, thread


def change_status(store: Store, request: Request, thread: Discussion) -> dict[str, Any]:
    """Log the new status, after the comment that came with it."""
    author, date = store.user(request.token), store.tick()
    if text := request.json().get("comment"):
        thread.comment(author, date, text)
    return thread.add("status-change", author, date, {"status": thread.status})
