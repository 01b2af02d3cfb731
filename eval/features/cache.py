"""Listing and removing cached features."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound
from eval.common.text import text_table
from eval.features.bank import read_header


@dataclass(frozen=True)
class Entry:
    """One feature bank on disk."""

    key: str
    model: str
    task: str
    rows: int
    dim: int
    precision: str
    megabytes: float
    made: str
    path: Path


def entries(folder: Path) -> list[Entry]:
    """All banks of a cache, oldest first. A cache that does not exist is empty."""
    found = []
    for path in (folder / "banks").glob("*.safetensors"):
        header = read_header(path)
        if header is None:
            continue
        meta, stat = header["__metadata__"], path.stat()
        rows, dim = header["features"]["shape"]
        made = datetime.fromtimestamp(stat.st_mtime).isoformat(" ", "seconds")
        found.append(
            Entry(
                path.stem, meta.get("model", "?"), meta.get("task", "?"), rows, dim,
                meta["precision"], stat.st_size / 1e6, made, path,
            )
        )  # fmt: skip
    return sorted(found, key=lambda e: (e.made, e.key))


def remove(
    folder: Path, keys: Sequence[str], model: str | None, task: str | None, *, everything: bool
) -> list[Entry]:
    """Remove the named banks; with ``everything`` also all else that can be made again, and what
    interrupted runs left behind.

    Raises UserError when nothing is named, or a key fits no bank.
    """
    if not (keys or model or task or everything):
        raise BadInput("cache rm needs keys, --model, --task or --all; see `cache ls`")
    known = entries(folder)
    for key in keys:
        if not any(e.key.startswith(key) for e in known):
            raise NotFound(f"no cached features with key {key!r} in {folder}; see `cache ls`")
    chosen = [
        e
        for e in known
        if everything
        or any(e.key.startswith(k) for k in keys)
        or ((model or task) and model in (None, e.model) and task in (None, e.task))
    ]
    for entry in chosen:
        entry.path.unlink(missing_ok=True)
    if everything:
        # with banks that do not read, what the protocols that train keep, the drawn suite, and the
        # speeds ("probes") by which earlier versions chose a precision
        for name in ("banks", "partial", "pixels", "finetune", "detection", "mini", "probes"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for left in folder.glob("*/.*.tmp"):  # of memos
            left.unlink(missing_ok=True)
    return chosen


def render(found: Sequence[Entry], folder: Path, *, markdown: bool = False) -> str:
    header = ["key", "model", "task", "rows", "dim", "precision", "MB", "made"]
    lines = [
        [e.key[:12], e.model, e.task, str(e.rows), str(e.dim), e.precision,
         f"{e.megabytes:.1f}", e.made]
        for e in found
    ]  # fmt: skip
    total = f"{len(found)} feature banks, {sum(e.megabytes for e in found):.1f} MB in {folder}"
    return f"{text_table(header, lines, markdown)}\n{total}" if found else total


def as_json(entry: Entry) -> dict[str, Any]:
    return asdict(entry) | {"path": str(entry.path)}
