"""The Hub's write path: repositories, uploads, commits, refs and settings."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .metadata import parse_card
from .reads import KINDS, check_storage, repo_of
from .store import CHUNK, REPO_NAME, Blob, HubError, Kind, Repo, Store, is_large
from .wire import Reply, Request, route

GITATTRIBUTES = b"".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for suffix in ("arrow", "bin", "npz", "parquet", "pt", "pth", "safetensors", "zip")
)
CREATE_FIELDS = {"name", "organization", "type", "visibility", "private", "sdk"}


def asked(request: Request, name: str, kind: type) -> Any:
    """A field of the JSON body, or 400 where it is missing or of another type."""
    value = request.json().get(name)
    if not isinstance(value, kind):
        raise HubError(400, f'"{name}" must be a {kind.__name__}, got {value!r}')
    return value


def named_repo(store: Store, request: Request) -> tuple[Kind, str]:
    """Kind and id from the body of /api/repos/*."""
    body = request.json()
    kind = KINDS.get(f"{body.get('type') or 'model'}s")
    if kind is None:
        raise HubError(501, f"The loopback Hub has no repositories of type {body['type']!r}")
    owner = body.get("organization") or store.user(request.token)
    return kind, f"{owner}/{asked(request, 'name', str)}"


def check_new_id(store: Store, kind: Kind, repo_id: str, token: str | None) -> None:
    """Refuse an id that no repository can have, or that this user may not take."""
    owner, _, name = repo_id.partition("/")
    for part in (owner, name):
        if not REPO_NAME.fullmatch(part):
            rules = (
                "Only regular characters and '-', '_', '.' accepted. '--' and '..' are forbidden. "
                "'-' and '.' cannot start or end the name. Max length is 96."
            )
            raise HubError(400, f'Invalid repo name: "{part}". {rules}')
    why = f'You don\'t have the rights to create a {kind} under the namespace "{owner}"'
    store.check_owner(owner, token, why)


@route("POST", "/api/repos/create")
def create_repo(store: Store, request: Request) -> Reply:
    """Make a repository with its first commit; 409 with the url where it exists."""
    author = store.writer(request.token)
    kind, repo_id = named_repo(store, request)
    body = request.json()
    if unknown := sorted(body.keys() - CREATE_FIELDS):
        raise HubError(501, f"The loopback Hub does not implement {unknown} on create")
    check_new_id(store, kind, repo_id, request.token)
    with store.lock:
        known = store.repos.get((kind, repo_id))
        repo = known or store.create(kind, repo_id)
        url = f"{request.base}/{repo.prefix}{repo_id}"
        if known is not None:
            error = f"You already created this {kind} repo: {repo_id}"
            return Reply.json({"error": error, "url": url}, 409, {"X-Error-Message": error})
        apply_settings(repo, {k: v for k, v in body.items() if k in ("visibility", "private")})
        repo.sdk = body.get("sdk")
        first = {".gitattributes": Blob.of(".gitattributes", GITATTRIBUTES)}
        store.commit(repo, first, "initial commit", author=author)
        store.grants.add((request.token or "", repo_id))  # the owner passes the gate
    return Reply.json({"url": url, "name": repo_id, "id": repo_id})


@route("DELETE", "/api/repos/delete")
def delete_repo(store: Store, request: Request) -> Reply:
    """Remove a repository."""
    store.writer(request.token)
    kind, repo_id = named_repo(store, request)
    check_rights(store, store.visible(kind, repo_id, request.token), request.token)
    del store.repos[kind, repo_id]
    return Reply.json({})


@route("POST", "/api/repos/move")
def move_repo(store: Store, request: Request) -> Reply:
    """Give a repository another name; the old one redirects."""
    store.writer(request.token)
    body = {"type": "model", **request.json()}
    kind = KINDS.get(f"{body['type']}s")
    if kind is None:
        raise HubError(501, f"The loopback Hub has no repositories of type {body['type']!r}")
    old, new = asked(request, "fromRepo", str), asked(request, "toRepo", str)
    check_rights(store, store.visible(kind, old, request.token), request.token)
    check_new_id(store, kind, new, request.token)
    if (kind, new) in store.repos:
        raise HubError(409, f"There is already a {kind} called {new}")
    store.move(kind, old, new)
    return Reply.json({})


@route("PUT", "/api/{kind}/{repo}/settings")
def settings(store: Store, request: Request) -> Reply:
    """Change visibility or gate."""
    repo = writable(store, request)
    body = request.json()
    apply_settings(repo, body)
    return Reply.json(body)


def apply_settings(repo: Repo, body: Mapping[str, Any]) -> None:
    """Visibility and gate as the settings endpoint takes them."""
    if unknown := sorted(body.keys() - {"visibility", "private", "gated"}):
        raise HubError(501, f"The loopback Hub does not implement the settings {unknown}")
    if body.get("visibility", "public") not in ("public", "private"):
        raise HubError(501, f"The loopback Hub has no visibility {body['visibility']!r}")
    if body.get("gated", False) not in ("auto", "manual", False):
        raise HubError(400, '"gated" must be "auto", "manual" or false')
    if "visibility" in body:
        repo.private = body["visibility"] == "private"
    if "private" in body:
        repo.private = bool(body["private"])
    repo.gated = body.get("gated", repo.gated)


@route("POST", "/api/{kind}/{repo}/user-access-request/grant")
def grant(store: Store, request: Request) -> Reply:
    """Let a user through the gate, with each of the tokens they have."""
    repo = writable(store, request)
    user = asked(request, "user", str)
    tokens = [token for token in store.tokens if store.user(token) == user]
    if not tokens:
        raise HubError(404, f"No user is called {user}")
    store.grants |= {(token, repo.id) for token in tokens}
    return Reply.json({})


def writable(store: Store, request: Request, proposal: bool = False) -> Repo:
    """The repository the route names, if the caller may write to it (or open a pull request)."""
    repo = repo_of(store, request)
    store.writer(request.token)
    if not proposal:
        check_rights(store, repo, request.token)
    return repo


def check_rights(store: Store, repo: Repo, token: str | None) -> None:
    """Refuse to change a repository in a namespace of somebody else."""
    why = f"Forbidden: you have no write access to the {repo.kind} {repo.id}"
    store.check_owner(repo.owner, token, why)


def committable(store: Store, request: Request) -> Repo:
    """Like `writable`, for commits: anyone may open a pull request and go on with their own."""
    repo = writable(store, request, proposal=True)
    ref = request.args["rev"]
    pull = repo.discussions.get(int(ref.rpartition("/")[2])) if ref in repo.pulls else None
    if not (request.flag("create_pr") or (pull and pull.author == store.user(request.token))):
        hint = "pass `create_pr=1` as a query parameter to create a Pull Request"
        store.check_owner(repo.owner, request.token, f"Forbidden: {hint}")
    return repo


@route("POST", "/api/{kind}/{repo}/branch/{rev}")
def create_branch(store: Store, request: Request) -> Reply:
    """A new branch; 409 where it exists."""
    repo, name = writable(store, request), request.args["rev"]
    start = repo.at(request.json().get("startingPoint") or "main")
    if name in repo.branches:
        raise HubError(409, f"Branch {name} already exists")
    repo.branches[name] = start.sha
    return Reply.json({})


@route("DELETE", "/api/{kind}/{repo}/branch/{rev}")
def delete_branch(store: Store, request: Request) -> Reply:
    """Remove a branch; main stays."""
    repo, name = writable(store, request), request.args["rev"]
    if name == "main":
        raise HubError(403, "The branch main cannot be deleted")
    if repo.branches.pop(name, None) is None:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return Reply.json({})


@route("POST", "/api/{kind}/{repo}/tag/{rev}")
def create_tag(store: Store, request: Request) -> Reply:
    """A new tag on a revision; 409 where it exists."""
    repo, name = writable(store, request), asked(request, "tag", str)
    commit = repo.at(request.args["rev"])
    if name in repo.tags:
        raise HubError(409, f"Tag {name} already exists")
    repo.tags[name] = commit.sha
    return Reply.json({})


@route("DELETE", "/api/{kind}/{repo}/tag/{rev}")
def delete_tag(store: Store, request: Request) -> Reply:
    """Remove a tag."""
    repo, name = writable(store, request), request.args["rev"]
    if repo.tags.pop(name, None) is None:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return Reply.json({})


@route("POST", "/api/validate-yaml")
def validate_yaml(store: Store, request: Request) -> Reply:
    """Whether a README's metadata block parses."""
    _, problem = parse_card(asked(request, "content", str))
    if problem is not None:
        return Reply.json({"errors": [{"message": problem}], "warnings": []}, 400)
    return Reply.json({"errors": [], "warnings": []})


@route("POST", "/api/{kind}/{repo}/preupload/{rev}")
def preupload(store: Store, request: Request) -> Reply:
    """How each file is to be uploaded, and the id of what is there already."""
    repo = committable(store, request)
    files = repo.at(request.args["rev"]).files
    if request.json().get("gitIgnore") or ".gitignore" in files:
        raise HubError(501, "The loopback Hub does not implement .gitignore on upload")
    rows = []
    for item in asked(request, "files", list):
        head = base64.b64decode(item["sample"])
        large = is_large(item["path"], item["size"], head)
        row = {
            "path": item["path"],
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
        }
        if (blob := files.get(item["path"])) is not None:
            row["oid"] = blob.sha256 if blob.lfs else blob.oid
        rows.append(row)
    return Reply.json({"files": rows})


@route("POST", "/{prefix}{repo}\\.git/info/lfs/objects/batch")
def lfs_batch(store: Store, request: Request) -> Reply:
    """Where to put each LFS object; nothing to do for the ones we have."""
    writable(store, request, proposal=True)
    body = request.json()
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise HubError(501, "The loopback Hub's LFS batch only does sha256 uploads")
    return Reply.json(
        {
            "transfer": "basic",
            "objects": [lfs_object(store, request, item) for item in body["objects"]],
        }
    )


def lfs_object(store: Store, request: Request, item: Mapping[str, Any]) -> dict[str, Any]:
    """Upload instructions for one object, in one piece or in parts."""
    oid, size = item["oid"], item["size"]
    answer: dict[str, Any] = {"oid": oid, "size": size}
    if oid in store.blobs:
        return answer
    url = f"{request.storage}/storage/{oid}"
    upload: dict[str, Any] = {"href": f"{url}?sig={store.sign(f'PUT {oid}')}"}
    if size > store.multipart_size:
        count = -(-size // store.multipart_size)
        upload["href"] = f"{url}/complete?sig={store.sign(f'POST {oid}')}"
        upload["header"] = {"chunk_size": str(store.multipart_size)} | {
            f"{n:05d}": f"{url}/part/{n}?sig={store.sign(f'PUT {oid} {n}')}"
            for n in range(1, count + 1)
        }
    verify = f"{request.base}{request.path.removesuffix('objects/batch')}verify"
    return {**answer, "actions": {"upload": upload, "verify": {"href": verify}}}


@route("PUT", "/storage/{sha256}")
def put_object(store: Store, request: Request) -> Reply:
    """A whole object."""
    check_storage(store, request, f"PUT {request.args['sha256']}")
    return keep(store, request.args["sha256"], request.body)


@route("PUT", r"/storage/{sha256}/part/(?P<part>\d+)")
def put_part(store: Store, request: Request) -> Reply:
    """One part of an object; its ETag is the receipt."""
    sha256, part = request.args["sha256"], int(request.args["part"])
    check_storage(store, request, f"PUT {sha256} {part}")
    store.parts[sha256, part] = request.body
    return Reply(headers={"ETag": etag(request.body)})


@route("POST", "/storage/{sha256}/complete")
def complete(store: Store, request: Request) -> Reply:
    """Put the parts together, if the receipts match."""
    sha256 = request.args["sha256"]
    check_storage(store, request, f"POST {sha256}")
    receipts = {row["partNumber"]: row["etag"] for row in asked(request, "parts", list)}
    parts = {n: store.parts.pop((sha256, n), b"") for n in sorted(receipts)}
    if wrong := [n for n, data in parts.items() if receipts[n] != etag(data)]:
        raise HubError(400, f"Parts {wrong} were not uploaded or do not match their ETag")
    return keep(store, sha256, b"".join(parts.values()))


def etag(data: bytes) -> str:
    """The receipt of a part."""
    return f'"{hashlib.md5(data).hexdigest()}"'


def keep(store: Store, sha256: str, data: bytes) -> Reply:
    """Store an uploaded object under the hash it must have."""
    blob = Blob.of("", data, lfs=True)
    if blob.sha256 != sha256:
        raise HubError(400, f"The upload hashes to {blob.sha256}, not {sha256}")
    store.blobs[sha256] = blob
    return Reply(headers={"ETag": etag(data[:CHUNK])})


@route("POST", "/{prefix}{repo}\\.git/info/lfs/verify")
def verify(store: Store, request: Request) -> Reply:
    """Whether an object arrived whole."""
    writable(store, request, proposal=True)
    blob = store.blobs.get(asked(request, "oid", str))
    if blob is None or blob.size != request.json().get("size"):
        raise HubError(404, "The object was not uploaded")
    return Reply.json({})


@route("POST", "/api/{kind}/{repo}/commit/{rev}")
def commit(store: Store, request: Request) -> Reply:
    """Apply additions and deletions on a branch, or open a pull request; 412 on a stale parent.

    A pull request starts from the parent it names, which need not be the branch's last commit.
    """
    repo = committable(store, request)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if not lines or lines[0]["key"] != "header":
        raise HubError(400, "A commit starts with its header line")
    header, ref = lines[0]["value"], request.args["rev"]
    create_pr = request.flag("create_pr")
    author, parent = store.user(request.token), header.get("parentCommit")
    with store.lock:
        if create_pr and ref not in repo.branches:
            raise HubError(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        if ref not in repo.branches and ref not in repo.pulls:
            repo.at(ref)  # an unknown revision is 404
            raise HubError(400, f"{ref} is not a branch: cannot commit to it")
        head = repo.at(ref)
        if parent is not None and create_pr:
            head = repo.at(next((sha for sha in repo.commits if sha.startswith(parent)), parent))
        elif parent is not None and not head.sha.startswith(parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            apply(store, files, line["key"], line["value"])
        if create_pr:
            pull = store.discuss(repo, header["summary"], author, store.tick())
            pull.base, ref = ref, f"refs/pr/{pull.num}"
            if header.get("description"):
                pull.comment(author, pull.created, header["description"])
        made = store.commit(
            repo,
            files,
            header["summary"],
            header.get("description", ""),
            author=author,
            ref=ref,
            parent=head.sha,
        )
    page = f"{request.base}/{repo.prefix}{repo.id}"
    data = {"success": True, "commitOid": made.sha, "commitUrl": f"{page}/commit/{made.sha}"}
    if create_pr:
        data["pullRequestUrl"] = f"{page}/discussions/{ref.rpartition('/')[2]}"
    return Reply.json(data)


def apply(store: Store, files: dict[str, Blob], key: str, value: Mapping[str, Any]) -> None:
    """One line of a commit."""
    path = value["path"]
    if key == "file":
        if value.get("encoding") != "base64":
            raise HubError(501, f"The loopback Hub has no encoding {value.get('encoding')!r}")
        files[path] = Blob.of(path, base64.b64decode(value["content"]), lfs=False)
    elif key == "lfsFile":
        blob = store.blobs.get(value["oid"])
        if blob is None:
            raise HubError(400, f"The LFS object of {path} was not uploaded")
        files[path] = blob
    elif key in ("deletedFile", "deletedFolder"):
        gone = [n for n in files if n == path or n.startswith(path.rstrip("/") + "/")]
        if not gone or (key == "deletedFile" and gone != [path]):
            raise HubError(404, f"{path} is not in the repository", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise HubError(501, f"The loopback Hub does not implement {key!r} in a commit")
