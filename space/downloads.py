"""Files made for a visitor to download: each in a folder of its own, gone an hour later."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

PREFIX = "transferzoo-download-"
KEPT = 3600.0  # seconds; the browser fetches a file at once, and gradio's own copies go as soon
_lock = threading.Lock()


def folder() -> Path:
    """An empty folder for one download; those of an hour ago are removed, in the same place."""
    with _lock:
        sweep(Path(tempfile.gettempdir()))
        return Path(tempfile.mkdtemp(prefix=PREFIX))


def saved(name: str, text: str) -> str:
    """The path of a new file of that name with this text."""
    path = folder() / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def sweep(place: Path, now: float | None = None) -> None:
    """Remove the folders of downloads below ``place`` that are older than `KEPT`. Those of other
    users of the machine, which cannot be removed, stay."""
    now = time.time() if now is None else now
    for old in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # gone, or not ours
            if not old.is_symlink() and now - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
