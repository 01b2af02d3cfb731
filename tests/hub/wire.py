"""HTTP for the loopback Hub: requests, replies, ranges and deliberate faults."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from .store import Blob, HubError, Kind, Store


@dataclass
class Request:
    """One request as the routes see it."""

    method: str
    target: str  # as sent: path and query, still percent-encoded
    headers: Mapping[str, str]
    body: bytes
    args: dict[str, str] = field(default_factory=dict)  # named parts of the route, decoded

    @property
    def path(self) -> str:
        """The path, still percent-encoded ("refs%2Fpr%2F1" is one segment)."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """Query parameters; `expand[]=x` counts as `expand=x`."""
        found: dict[str, list[str]] = {}
        for key, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items():
            found.setdefault(key.removesuffix("[]"), []).extend(values)
        return found

    def flag(self, name: str) -> bool:
        """A true/false query parameter."""
        return self.query.get(name, ["false"])[-1].lower() in ("true", "1")

    @property
    def token(self) -> str | None:
        """The bearer token, valid or not."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @property
    def base(self) -> str:
        """The hub's address as this client spells it."""
        return f"http://{self.headers.get('host', '127.0.0.1')}"

    @property
    def storage(self) -> str:
        """The hub under its other host name. Clients take it for a CDN: no token is sent there."""
        host, _, port = self.headers.get("host", "127.0.0.1").partition(":")
        return f"http://{'127.0.0.1' if host == 'localhost' else 'localhost'}:{port}"

    def json(self) -> Any:
        """The body as JSON."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, f"The body is not JSON: {error}") from error

    def form(self) -> dict[str, list[str]]:
        """The body as form fields, or as JSON of the same shape."""
        if "json" in self.headers.get("content-type", ""):
            return {key: value for key, value in self.json().items() if isinstance(value, list)}
        return parse_qs(self.body.decode())


@dataclass
class Reply:
    """One answer; a `Blob` body is served with ranges."""

    body: bytes | Blob = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        """A JSON answer (dates in cards become text)."""
        body = json.dumps(data, default=str).encode()
        head = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        return cls(body, status, head)

    @classmethod
    def error(cls, error: HubError) -> Reply:
        """An error answer as the clients parse it."""
        text = error.message.replace("\n", " ").encode("latin-1", "replace").decode("latin-1")
        head = {"X-Error-Message": text, **error.headers}
        if error.code:
            head["X-Error-Code"] = error.code
        return cls.json({"error": error.message}, error.status, head)


Route = Callable[[Store, Request], Reply]

ROUTES: list[tuple[frozenset[str], re.Pattern[str], Route]] = []

_PARTS = {
    "kind": r"(?P<kind>models|datasets|spaces)",
    "prefix": r"(?:(?P<kind>datasets|spaces)/)?",
    "repo": r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)",
    "rev": r"(?P<rev>[^/]+)",
    "path": r"(?P<path>.+)",
    "num": r"(?P<num>[1-9]\d*)",
    "slug": r"(?P<slug>[\w.-]+/[\w.-]+)",
    "id": r"(?P<id>[0-9a-f]{24})",
    "sha256": r"(?P<sha256>[0-9a-f]{64})",
}


def route(methods: str, pattern: str) -> Callable[[Route], Route]:
    """Register a route; `{repo}`, `{rev}`, ... in the pattern become named parts of the request."""
    regex = re.compile(re.sub(r"\{(\w+)\}", lambda m: _PARTS[m[1]], pattern))

    def register(function: Route) -> Route:
        ROUTES.append((frozenset(methods.split()), regex, function))
        return function

    return register


def dispatch(store: Store, request: Request) -> Reply:
    """The answer to a request; 501 for what the loopback Hub does not do."""
    try:
        for methods, regex, function in ROUTES:
            if request.method in methods and (match := regex.fullmatch(request.path)):
                groups = match.groupdict(default="")
                request.args = {name: unquote(text) for name, text in groups.items()}
                store.check_token(request.token)
                return renamed(store, request, match) or function(store, request)
        what = f"{request.method} {request.path}"
        raise HubError(501, f"The loopback Hub does not implement {what} (see tests/hub/)")
    except HubError as error:
        return Reply.error(error)


def renamed(store: Store, request: Request, match: re.Match[str]) -> Reply | None:
    """The way to a repository's new name, where the route names a repository by its old one."""
    kind = cast("Kind", (request.args.get("kind") or "models").removesuffix("s"))
    new = store.moved.get((kind, request.args.get("repo", "")))
    if new is None:
        return None
    if (kind, new) not in store.moved:
        store.visible(kind, new, request.token)  # or the redirect would give away a hidden name
    start, stop = match.span("repo")
    where = request.target[:start] + new + request.target[stop:]
    text = f"Temporary Redirect. Redirecting to {where}".encode()
    return Reply(text, 307, {"Location": where})


@dataclass
class Fault:
    """A plan for the next `left` requests whose "METHOD target" contains `match`."""

    left: int
    match: str
    reply: Reply | None = None  # answer this instead
    cut: int | None = None  # or drop the connection after so many body bytes
    drop: bool = False  # or drop it without an answer
    landed: bool = False  # handle the request all the same, before `reply` or `drop`
    delay: float = 0.0  # seconds to wait before the answer
    call: Callable[[], object] | None = None  # run this first: for `HubServer.hooks`


@dataclass(frozen=True)
class Exchange:
    """A request with what came of it, for tests that look closer than (method, path)."""

    method: str
    path: str
    status: int
    request_headers: Mapping[str, str]


class HubServer(ThreadingHTTPServer):
    """The socket side of a hub: logs every request and applies the planned faults."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, store: Store, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.store = store
        self.requests: list[tuple[str, str]] = []
        self.exchanges: list[Exchange] = []
        self.crashes: list[str] = []
        self.faults: list[Fault] = []
        self.hooks: list[Fault] = []

    def take(self, plans: list[Fault], request: Request) -> Fault | None:
        """The first plan that fits this request, used up by one."""
        with self.store.lock:
            for fault in plans:
                if fault.left > 0 and fault.match in f"{request.method} {request.target}":
                    fault.left -= 1
                    return fault
            return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not a news."""


class Handler(BaseHTTPRequestHandler):
    """One connection. HTTP/1.1 with keep-alive, so every body is read before the answer."""

    server: HubServer
    protocol_version = "HTTP/1.1"
    server_version = "LoopbackHub"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the client's ACK

    def answer(self) -> None:
        """Read a request, log it, answer it."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, b"".join(self.read_body()))
        self.server.requests.append((request.method, request.target))
        fault = self.server.take(self.server.faults, request) or Fault(0, "")
        reply = fault.reply
        try:
            while hook := self.server.take(self.server.hooks, request):
                if hook.call is not None:
                    hook.call()
            if fault.landed or not (reply or fault.drop):
                done = dispatch(self.server.store, request)
                reply = reply or done
        except Exception as error:  # a bug of the hub itself must not look like a dead network
            self.server.crashes.append(f"{request.method} {request.target}: {error!r}")
            reply = Reply.error(HubError(500, f"The loopback Hub crashed: {error!r}"))
        time.sleep(fault.delay)
        if fault.drop or reply is None:
            self.close_connection = True
            return
        self.send(request, reply, fault.cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def read_body(self) -> Iterator[bytes]:
        """The request body, plain or chunked."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
        elif length := int(self.headers.get("Content-Length") or 0):
            yield self.rfile.read(length)

    def send(self, request: Request, reply: Reply, cut: int | None) -> None:
        """Write a reply, or the part of it that a fault lets through."""
        headers = {"X-Request-Id": f"loopback-{len(self.server.requests)}", **reply.headers}
        status, body = reply.status, reply.body
        size = body.size if isinstance(body, Blob) else len(body)
        start, stop = 0, size
        if isinstance(body, Blob) and status == 200:
            headers["Accept-Ranges"] = "bytes"
            wanted = request.headers.get("range")
            if wanted is not None and (span := parse_range(wanted, size)) is not None:
                start, stop = span
                if start >= size:
                    status, body, start, stop = 416, b"", 0, 0
                    headers["Content-Range"] = f"bytes */{size}"
                else:
                    status = 206
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        self.server.exchanges.append(
            Exchange(request.method, request.target, status, request.headers)
        )
        self.send_response(status, responses.get(status, "Unknown"))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "HEAD" or status in (204, 304):
            return
        if cut is not None:
            stop = min(stop, start + cut)
        for chunk in body.chunks(start, stop) if isinstance(body, Blob) else [body[start:stop]]:
            self.wfile.write(chunk)
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_WR)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr for the tests."""


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """`bytes=5-9` as (5, 10), open ends filled in; None for a form servers may ignore."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
