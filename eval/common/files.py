"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# A list of bare numbers spread over lines by json; strings cannot match, they are quoted.
_NUMBER_LIST = re.compile(r"(?<=[ \n])\[\n([-+.\deE,\s]+)\]")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``path`` only once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is known before the file is there: a Ctrl-C at any moment leaves none behind.
    temp = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temp.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def dump_json(value: Any) -> bytes:
    """JSON with keys in the given order and each list of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = _NUMBER_LIST.sub(
        lambda m: "[" + ", ".join(v.strip() for v in m[1].split(",")) + "]", text
    )
    return (text + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write ``dump_json`` atomically."""
    with atomic_file(path) as file:
        file.write(dump_json(value))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_cache() -> Path:
    """``$TRANSFERZOO_CACHE``, else ``transferzoo`` in the user's cache folder."""
    if named := os.environ.get("TRANSFERZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "transferzoo"
