"""Collections: titled lists of models, data sets, spaces, papers and other collections."""

from __future__ import annotations

import re
from typing import Any

from .reads import KINDS, only, page
from .store import Collection, HubError, Store, git_id, iso
from .wire import Reply, Request, route
from .writes import asked

CREATE_FIELDS = {"title", "namespace", "private", "description"}
UPDATE_FIELDS = {"title", "description", "private", "theme", "position"}


def collection_json(collection: Collection, items: int | None = None) -> dict[str, Any]:
    """A collection as the clients parse it, with its first `items` items."""
    rows = [{**item, "position": n} for n, item in enumerate(collection.items)]
    return {
        "slug": collection.slug,
        "title": collection.title,
        "owner": {"name": collection.owner, "fullname": collection.owner},
        "items": rows[:items],
        "lastUpdated": iso(collection.updated),
        "position": collection.position,
        "private": collection.private,
        "theme": collection.theme,
        "upvotes": 0,
        "description": collection.description,
    }


def slug(owner: str, title: str, id: str) -> str:
    """The name in addresses: words of the title, and the id."""
    return f"{owner}/{'-'.join([*re.findall(r'[a-z0-9]+', title.lower()), id])}"


def collection_of(store: Store, request: Request, write: bool = False) -> Collection:
    """The collection the route names, by its id: the title's words may be old ones."""
    found = store.collections.get(request.args["slug"][-24:])
    hidden = found is not None and found.private and request.token not in store.tokens
    if found is None or hidden or found.owner != request.args["slug"].partition("/")[0]:
        raise HubError(404, "Collection not found")
    if write:
        store.writer(request.token)
        why = "Forbidden: you have no write access to this collection"
        store.check_owner(found.owner, request.token, why)
    return found


@route("GET", "/api/collections")
def collections(store: Store, request: Request) -> Reply:
    """Collections of some owners or with some items, last changed first; four items of each."""
    only(request, {"owner", "item", "sort", "limit", "cursor"})
    owners, items = request.query.get("owner"), request.query.get("item", [])
    found = []
    for collection in sorted(store.collections.values(), key=lambda c: c.updated, reverse=True):
        names = {f"{item['type']}s/{item['id']}" for item in collection.items}
        if collection.private and request.token not in store.tokens:
            continue
        if (not owners or collection.owner in owners) and (not items or names & {*items}):
            data = collection_json(collection, items=4)
            del data["position"]  # the client numbers the rows of a list itself
            found.append(data)
    return page(store, request, found)


@route("POST", "/api/collections")
def create_collection(store: Store, request: Request) -> Reply:
    """A new collection; 409 with the slug where the owner has one of this title."""
    user, body = store.writer(request.token), request.json()
    if unknown := sorted(body.keys() - CREATE_FIELDS):
        raise HubError(501, f"The loopback Hub does not implement {unknown} on collections")
    title, owner = asked(request, "title", str), body.get("namespace") or user
    why = f'You don\'t have the rights to create a collection under the namespace "{owner}"'
    store.check_owner(owner, request.token, why)
    with store.lock:
        mine = [c for c in store.collections.values() if c.owner == owner]
        for known in mine:
            if known.title == title:
                error = "You already created this collection"
                head = {"X-Error-Message": error}
                return Reply.json({"error": error, "slug": known.slug}, 409, head)
        date = store.tick()
        id = git_id("collection", f"{owner}\n{title}\n{date.timestamp():.0f}".encode())[:24]
        made = Collection(slug(owner, title, id), title, owner, date, position=len(mine))
        made.private, made.description = bool(body.get("private")), body.get("description")
        store.collections[id] = made
    return Reply.json(collection_json(made))


@route("GET", "/api/collections/{slug}")
def collection(store: Store, request: Request) -> Reply:
    """A collection with all its items."""
    return Reply.json(collection_json(collection_of(store, request)))


@route("PATCH", "/api/collections/{slug}")
def update_collection(store: Store, request: Request) -> Reply:
    """Change title (and with it the slug, not the id), description, visibility, theme, position."""
    found, body = collection_of(store, request, write=True), request.json()
    if unknown := sorted(body.keys() - UPDATE_FIELDS):
        raise HubError(501, f"The loopback Hub does not implement {unknown} on collections")
    for name, value in body.items():
        setattr(found, name, value)
    found.slug, found.updated = slug(found.owner, found.title, found.id), store.tick()
    return Reply.json({"success": True, "data": collection_json(found)})


@route("DELETE", "/api/collections/{slug}")
def delete_collection(store: Store, request: Request) -> Reply:
    """Remove a collection."""
    del store.collections[collection_of(store, request, write=True).id]
    return Reply.json({"success": True})


@route("POST", "/api/collections/{slug}/items")
def add_item(store: Store, request: Request) -> Reply:
    """One more item, at the end; 404 where no such thing exists, 409 where it is listed."""
    found, body = collection_of(store, request, write=True), request.json()
    kind, name = asked(request, "item", dict)["type"], body["item"]["id"]
    if kind == "collection":
        known = store.collections.get(name[-24:])
        if known is None:
            raise HubError(404, f"Collection {name} not found")
        name = known.slug
    elif kind != "paper":
        if f"{kind}s" not in KINDS:
            raise HubError(501, f"The loopback Hub has no collection items of type {kind!r}")
        store.visible(KINDS[f"{kind}s"], name, request.token)
    with store.lock:
        if any((item["type"], item["id"]) == (kind, name) for item in found.items):
            raise HubError(409, f"The {kind} {name} is already in the collection")
        found.updated = store.tick()
        seed = f"{found.id} {kind} {name} {found.updated.timestamp():.0f}"
        item = {"_id": git_id("item", seed.encode())[:24], "id": name, "type": kind}
        found.items.append(item | note_of(body))
    return Reply.json(collection_json(found))


def note_of(body: dict[str, Any]) -> dict[str, Any]:
    """The note of an item, as answers have it."""
    return {"note": {"text": body["note"], "html": body["note"]}} if "note" in body else {}


def item_of(request: Request, collection: Collection) -> dict[str, Any]:
    """The item the route names by its own id."""
    for item in collection.items:
        if item["_id"] == request.args["id"]:
            return item
    raise HubError(404, "Collection item not found")


@route("PATCH", "/api/collections/{slug}/items/{id}")
def update_item(store: Store, request: Request) -> Reply:
    """Change an item's note or its place in the list."""
    found, body = collection_of(store, request, write=True), request.json()
    item = item_of(request, found)
    item |= note_of(body)
    if "position" in body:
        found.items.remove(item)
        found.items.insert(body["position"], item)
    found.updated = store.tick()
    return Reply.json({"success": True})


@route("DELETE", "/api/collections/{slug}/items/{id}")
def delete_item(store: Store, request: Request) -> Reply:
    """Take an item off the list."""
    found = collection_of(store, request, write=True)
    found.items.remove(item_of(request, found))
    found.updated = store.tick()
    return Reply.json({"success": True})
