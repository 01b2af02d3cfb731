"""`LoopbackHub`: the server as tests use it; the protocol lives in the modules beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from . import collect, discuss, reads, writes  # noqa: F401  (each registers its routes)
from .store import Blob, Gate, HubError, Kind, Store
from .wire import Exchange, Fault, HubServer, Reply

Files = Mapping[str, bytes | str | Path | None]


class LoopbackHub(Store):
    """A Hugging Face Hub on 127.0.0.1 for the real clients, as a context manager.

    Example:
        >>> with LoopbackHub() as hub:
        ...     sha = hub.add_model("org/name", {"config.json": b"{}"})
        ...     subprocess.run([sys.executable, "script.py"], env=hub.env(tmp_path), check=True)
        ...     assert ("GET", "/api/models/org/name") in hub.requests

    huggingface_hub and datasets read HF_ENDPOINT once, at import: drive them in a subprocess with
    `env`, or in this process through arguments (`HfApi(endpoint=hub.url)`,
    `hf_hub_download(..., endpoint=hub.url, cache_dir=...)`).

    Attributes:
        url: The endpoint, `http://127.0.0.1:PORT`.
        requests: (method, path with query) of every request so far; clear it as you like.
        exchanges: The same with status and request headers.
        crashes: Bugs of the hub itself; leaving the `with` block raises if there were any.

    See `Store` for tokens and the other settings.
    """

    def __init__(
        self, *, strict_auth: bool = False, strict_namespaces: bool = False, port: int = 0
    ) -> None:
        super().__init__(strict_auth=strict_auth, strict_namespaces=strict_namespaces)
        self._server = HubServer(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: list[tuple[str, str]] = self._server.requests
        self.exchanges: list[Exchange] = self._server.exchanges
        self.crashes: list[str] = self._server.crashes
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self.crashes and error is None:
            raise RuntimeError("The loopback Hub crashed on: " + "; ".join(self.crashes))

    # ---- content

    def add_model(
        self,
        repo_id: str,
        files: Files,
        *,
        private: bool | None = None,
        gated: Gate | bool | None = None,
        ref: str = "main",
    ) -> str:
        """Commit files to a model repository, which is made if need be; returns the commit sha.

        Files are added to those of the previous commit, like an upload; `None` in place of a
        content deletes the file. A `Path` is read when served, so leave it alone while the hub is
        up. `private` and `gated` (True means "manual") stay as they are unless given.
        """
        return self.add_repo("model", repo_id, files, private=private, gated=gated, ref=ref)

    def add_dataset(
        self,
        repo_id: str,
        files: Files,
        *,
        private: bool | None = None,
        gated: Gate | bool | None = None,
        ref: str = "main",
    ) -> str:
        """Commit files to a dataset repository; see `add_model`."""
        return self.add_repo("dataset", repo_id, files, private=private, gated=gated, ref=ref)

    def add_repo(
        self,
        kind: Kind,
        repo_id: str,
        files: Files,
        *,
        private: bool | None = None,
        gated: Gate | bool | None = None,
        ref: str = "main",
    ) -> str:
        """Commit files to a repository of any kind; see `add_model`."""
        blobs = {
            path: Blob.of(path, data.encode() if isinstance(data, str) else data)
            for path, data in files.items()
            if data is not None
        }
        with self.lock:
            repo = self.repos.get((kind, repo_id)) or self.create(kind, repo_id)
            if private is not None:
                repo.private = private
            if gated is not None:
                repo.gated = "manual" if gated is True else gated
            base = repo.branches.get(ref) or repo.pulls.get(ref) or repo.branches.get("main")
            if base is None and ref != "main":
                raise ValueError(f"the first commit of {repo_id} goes to main, not {ref}")
            before = repo.commits[base].files if base else {}
            kept = {path: blob for path, blob in before.items() if path not in files}
            title = f"Upload {len(files)} file(s)"
            return self.commit(repo, {**kept, **blobs}, title, ref=ref, parent=base).sha

    def tag(
        self, repo_id: str, name: str, revision: str = "main", kind: Kind | None = None
    ) -> None:
        """Name a revision. `kind` is only needed where a model and a dataset share the id."""
        found = [r for r in self.repos.values() if r.id == repo_id and kind in (None, r.kind)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} repositories are called {repo_id}: give kind=")
        found[0].tags[name] = found[0].at(revision).sha

    def rename(self, old_id: str, new_id: str, kind: Kind = "model") -> None:
        """Rename a repository: requests for the old id are answered by 307 to the new one."""
        if (kind, old_id) not in self.repos or (kind, new_id) in self.repos:
            raise ValueError(f"there is no {kind} {old_id}, or there is a {new_id} already")
        self.move(kind, old_id, new_id)

    def grant(self, token: str, repo_id: str) -> None:
        """Let a token's owner read the files of a gated repository."""
        self.grants.add((token, repo_id))

    # ---- clients

    def settings(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Only the variables that point clients here, for `monkeypatch.setenv` or a union."""
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # uploads would go to a Xet server without asking us
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets would call s3.amazonaws.com
            "TORCH_HOME": str(home / "torch"),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if token is not None:
            settings["HF_TOKEN"] = token
        return settings

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The whole environment of a subprocess whose clients talk to this hub and cache in `home`.

        It is this process's own, with nothing of the developer's own Hub settings left in it.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        return {**kept, **self.settings(home, token)}

    # ---- faults

    def fail_next(
        self,
        n: int,
        status: int = 503,
        match: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer `status` to the next `n` requests whose "METHOD path?query" contains `match`."""
        reply = Reply.error(HubError(status, "Fault injected by the test", headers=headers))
        self._server.faults.append(Fault(n, match, reply=reply))

    def cut_next(self, n: int, after: int, match: str = "") -> None:
        """Drop the connection after `after` body bytes of the next `n` matching requests."""
        self._server.faults.append(Fault(n, match, cut=after))

    def slow_next(self, n: int, seconds: float, match: str = "") -> None:
        """Answer the next `n` matching requests late (they take effect at once)."""
        self._server.faults.append(Fault(n, match, delay=seconds))

    def drop_next(self, n: int, match: str = "") -> None:
        """Close the connection of the next `n` matching requests: no effect, no answer."""
        self._server.faults.append(Fault(n, match, drop=True))

    def land_then_fail(self, n: int, status: int | None = 503, match: str = "") -> None:
        """Do what the next `n` matching requests ask, but answer `status`; None: no answer."""
        fault = Fault(n, match, drop=status is None, landed=True)
        if status is not None:
            fault.reply = Reply.error(HubError(status, "Fault injected by the test"))
        self._server.faults.append(fault)

    def on_next(self, match: str, callback: Callable[[], object]) -> None:
        """Call `callback` once, just before the next matching request is handled."""
        self._server.hooks.append(Fault(1, match, call=callback))

    def clear_faults(self) -> None:
        """Forget every planned fault and callback."""
        self._server.faults.clear()
        self._server.hooks.clear()
