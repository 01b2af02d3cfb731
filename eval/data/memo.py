"""What one pass over a source found, remembered in the cache: a second call reads no image."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from eval.common.files import atomic_file

T = TypeVar("T")
Arrays = Mapping[str, Any]  # of NumPy


def remembered(
    cache: Path,
    facts: list[Any],
    find: Callable[[], T],
    *,
    pack: Callable[[T], Arrays],
    unpack: Callable[[Arrays], T],
) -> T:
    """What ``find`` returns; read from an .npz file where the cache has one of equal ``facts``.

    ``pack`` makes arrays of it and ``unpack`` it of arrays; `packed` is for what JSON holds better.
    """
    text = json.dumps(facts, default=str)
    memo = cache / "splits" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    if memo.is_file():
        try:
            with np.load(memo, allow_pickle=False) as saved:
                return unpack(saved)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            pass  # a damaged memo is made again
    found = find()
    # a memo is a convenience: a cache that may only be read does without
    with contextlib.suppress(OSError), atomic_file(memo) as file:
        np.savez(file, **pack(found))
    return found


def packed(value: object) -> NDArray[np.uint8]:
    """Anything that JSON holds, as an array."""
    return np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)


def unpacked(array: NDArray[np.uint8]) -> Any:
    """What was `packed`. Raises ValueError for bytes that are no JSON."""
    return json.loads(array.tobytes())


def names_of(value: list[str] | None) -> tuple[str, ...] | None:
    """Class names as they were, None where a source declares none."""
    return None if value is None else tuple(value)
