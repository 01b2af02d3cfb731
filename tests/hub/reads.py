"""The Hub's read path: who am I, repository metadata, trees, commits and file downloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from .metadata import FULL_FIELDS, LIST_FIELDS, repo_json
from .store import Blob, Commit, HubError, Kind, Repo, Store, tree_ids
from .wire import Reply, Request, route

KINDS: dict[str, Kind] = {"": "model", "models": "model", "datasets": "dataset", "spaces": "space"}
INFO_QUERY = {"blobs", "expand", "securityStatus"}
LIST_QUERY = {"author", "search", "filter", "pipeline_tag", "gated", "sort", "direction"}
LIST_QUERY |= {"limit", "cursor", "full", "cardData", "config", "expand"}


def repo_of(store: Store, request: Request) -> Repo:
    """The repository the route names, if the caller may see it."""
    return store.visible(KINDS[request.args["kind"]], request.args["repo"], request.token)


def only(request: Request, known: set[str]) -> None:
    """Answer 501 to a query parameter that would silently be ignored."""
    if unknown := sorted(request.query.keys() - known):
        what = f"{', '.join(unknown)} on {request.path}"
        raise HubError(501, f"The loopback Hub does not implement the query parameter {what}")


def page(store: Store, request: Request, items: list[Any]) -> Reply:
    """One page of a list, with the Link to the next."""
    query = request.query
    start = int(query.get("cursor", ["0"])[0])
    stop = start + min(int(query.get("limit", ["1000"])[0]), store.page_size)
    headers = {}
    if stop < len(items):
        pairs = [(k, v) for k, v in parse_qsl(urlsplit(request.target).query) if k != "cursor"]
        link = f"{request.base}{request.path}?{urlencode([*pairs, ('cursor', str(stop))])}"
        headers["Link"] = f'<{link}>; rel="next"'
    return Reply.json(items[start:stop], headers=headers)


@route("GET", "/api/whoami-v2")
def whoami(store: Store, request: Request) -> Reply:
    """Who the token belongs to."""
    if request.token not in store.tokens:
        raise HubError(401, "Invalid username or password.")
    role = "read" if request.token in store.read_only else "write"
    name = store.user(request.token)
    access = {"displayName": "loopback", "role": role}
    auth = {"type": "access_token", "accessToken": access}
    user = {"type": "user", "id": name, "name": name, "fullname": name, "email": None}
    orgs = [
        {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": "write"}
        for org in sorted(store.orgs.get(name, ()))
    ]
    return Reply.json({**user, "isPro": False, "orgs": orgs, "auth": auth})


@route("GET", "/api/{kind}/{repo}")
@route("GET", "/api/{kind}/{repo}/revision/{rev}")
def info(store: Store, request: Request) -> Reply:
    """Everything about a repository at a revision, or the fields asked for."""
    only(request, INFO_QUERY)
    repo = repo_of(store, request)
    commit = repo.at(request.args.get("rev") or "main")
    data = repo_json(repo, commit, request.flag("blobs"))
    if expand := request.query.get("expand"):
        data = pick(data, ["_id", "id", *expand])
    return Reply.json(data)


@route("GET", "/api/{kind}/{repo}/auth-check")
def auth_check(store: Store, request: Request) -> Reply:
    """Whether this token may read the repository's files."""
    store.check_gate(repo_of(store, request), request.token)
    return Reply.json({})


def pick(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The named fields that are there."""
    return {name: data[name] for name in dict.fromkeys(names) if name in data}


@route("GET", "/api/{kind}")
def listing(store: Store, request: Request) -> Reply:
    """Repositories of a kind: by author, words in the id, tags; sorted and paged."""
    only(request, LIST_QUERY)
    kind, query = KINDS[request.args["kind"]], request.query
    fields = LIST_FIELDS[kind].split()
    if request.flag("full"):
        fields += FULL_FIELDS.split()
    fields += [name for name in ("cardData", "config") if request.flag(name)]
    if request.flag("full") and kind == "dataset":
        fields.append("cardData")
    if "expand" in query:
        fields = ["_id", "id", *query["expand"]]
    found = []
    for repo in list(store.repos.values()):
        if repo.kind != kind or (repo.private and request.token not in store.tokens):
            continue
        data = repo_json(repo, repo.head)
        if listed(data, query):
            found.append(data)
    key = query.get("sort", ["trendingScore"])[0]
    if key not in ("lastModified", "createdAt", "downloads", "likes", "trendingScore"):
        raise HubError(400, f"Cannot sort by {key}")
    found.sort(key=lambda data: data["id"])
    found.sort(key=lambda data: data.get(key, 0), reverse=query.get("direction", ["-1"])[0] == "-1")
    return page(store, request, [pick(data, fields) for data in found])


def listed(data: Mapping[str, Any], query: Mapping[str, list[str]]) -> bool:
    """Whether a repository fits a list's filters (all of them)."""
    tests = [data["author"] == author for author in query.get("author", [])]
    tests += [word.lower() in data["id"].lower() for word in query.get("search", [])]
    tests += [tag in data["tags"] for value in query.get("filter", []) for tag in value.split(",")]
    tests += [data.get("pipeline_tag") == tag for tag in query.get("pipeline_tag", [])]
    tests += [bool(data["gated"]) == (text.lower() == "true") for text in query.get("gated", [])]
    return all(tests)


@route("GET", "/api/{kind}/{repo}/tree/{rev}")
@route("GET", "/api/{kind}/{repo}/tree/{rev}/{path}")
def tree(store: Store, request: Request) -> Reply:
    """Files and folders below a folder."""
    only(request, {"recursive", "expand", "limit", "cursor"})
    repo = repo_of(store, request)
    commit = repo.at(request.args["rev"])
    folder = request.args.get("path", "").strip("/")
    folders = tree_ids(commit.files)
    if folder not in folders:
        raise HubError(404, f'Folder "{folder}" not found', "EntryNotFound", at(commit))
    inside = f"{folder}/" if folder else ""
    names = [name for name in [*commit.files, *folders] if name.startswith(inside) and name]
    if not request.flag("recursive"):
        names = [name for name in names if "/" not in name[len(inside) :]]
    names = sorted(name for name in names if name != folder)
    entries = [entry(repo, commit, folders, name, request.flag("expand")) for name in names]
    return page(store, request, entries)


def entry(
    repo: Repo, commit: Commit, folders: Mapping[str, str], name: str, expand: bool
) -> dict[str, Any]:
    """A file or folder as trees list it."""
    data: dict[str, Any]
    if name in folders:
        data = {"type": "directory", "oid": folders[name], "size": 0, "path": name}
    else:
        blob = commit.files[name]
        data = {"type": "file", "oid": blob.oid, "size": blob.size, "path": name}
        if blob.lfs:
            data["lfs"] = blob.lfs_json
    if expand:
        last = repo.last_commit(commit, name)
        data["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.when}
    return data


@route("POST", "/api/{kind}/{repo}/paths-info/{rev}")
def paths_info(store: Store, request: Request) -> Reply:
    """The tree entries of some paths; paths that do not exist are left out."""
    repo = repo_of(store, request)
    commit = repo.at(request.args["rev"])
    form = request.form()
    expand = form.get("expand", ["false"])[0].lower() == "true"
    folders = tree_ids(commit.files)
    names = [name.strip("/") for name in form.get("paths", [])]
    known = [name for name in names if name and (name in commit.files or name in folders)]
    return Reply.json([entry(repo, commit, folders, name, expand) for name in known])


@route("GET", "/api/{kind}/{repo}/refs")
def refs(store: Store, request: Request) -> Reply:
    """Branches, tags and, if asked, pull-request refs."""
    only(request, {"include_prs"})
    repo = repo_of(store, request)

    def rows(names: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": prefix + n, "targetCommit": sha} for n, sha in names.items()]

    data = {
        "branches": rows(repo.branches, "refs/heads/"),
        "tags": rows(repo.tags, "refs/tags/"),
        "converts": [],
    }
    if request.flag("include_prs"):
        data["pullRequests"] = rows(repo.pulls, "")
    return Reply.json(data)


@route("GET", "/api/{kind}/{repo}/commits/{rev}")
def commits(store: Store, request: Request) -> Reply:
    """History of a revision, newest first."""
    only(request, {"limit", "cursor", "expand"})
    repo = repo_of(store, request)
    rows = []
    for commit in repo.history(repo.at(request.args["rev"])):
        row: dict[str, Any] = {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "date": commit.when,
            "authors": [{"user": commit.author}],
        }
        if "formatted" in request.query.get("expand", []):
            row["formatted"] = {"title": commit.title, "message": commit.message}
        rows.append(row)
    return page(store, request, rows)


def at(commit: Commit) -> dict[str, str]:
    """The header that says which commit an answer is about."""
    return {"X-Repo-Commit": commit.sha}


@route("GET HEAD", "/{prefix}{repo}/resolve/{rev}/{path}")
def resolve(store: Store, request: Request) -> Reply:
    """A file: small ones directly, LFS ones by redirect to the storage host."""
    repo = repo_of(store, request)
    store.check_gate(repo, request.token)
    commit = repo.at(request.args["rev"])
    path = request.args["path"]
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", at(commit))
    name = quote(path.rpartition("/")[2])
    headers = {
        **at(commit),
        "Content-Disposition": f"inline; filename*=UTF-8''{name}; filename=\"{name}\";",
    }
    if not blob.lfs:
        return Reply(blob, headers={**headers, "ETag": f'"{blob.oid}"', **content_type(path)})
    signature = store.sign(f"GET {blob.sha256}")
    headers |= {
        "ETag": f'"{blob.oid}"',
        "X-Linked-Etag": f'"{blob.sha256}"',
        "X-Linked-Size": str(blob.size),
        "Location": f"{request.storage}/storage/{blob.sha256}?sig={signature}",
    }
    return Reply(b"Found. Redirecting to the storage host", 302, headers)


@route("GET HEAD", "/storage/{sha256}")
def stored(store: Store, request: Request) -> Reply:
    """An LFS file from the storage host: the signed URL is the permission."""
    check_storage(store, request, f"GET {request.args['sha256']}")
    blob: Blob = store.blobs[request.args["sha256"]]
    return Reply(blob, headers={"ETag": f'"{blob.sha256}"', **content_type("")})


def check_storage(store: Store, request: Request, text: str) -> None:
    """Like S3: exactly one way of authentication, and it must be the signature."""
    if "authorization" in request.headers:
        raise HubError(400, "Only one auth mechanism allowed: a token was sent to the storage host")
    store.check_signature(text, request.query.get("sig", [""])[0])


def content_type(path: str) -> dict[str, str]:
    """Text for what a browser would show, bytes otherwise."""
    text = path.endswith((".json", ".md", ".txt", ".yaml", ".yml", ".csv", ".gitattributes"))
    kind = "text/plain; charset=utf-8" if text else "application/octet-stream"
    return {"Content-Type": kind}
