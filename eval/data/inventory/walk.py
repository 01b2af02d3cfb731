"""Everything below a folder, links to other folders followed, in an order of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import BadInput
from eval.data.inventory.junk import is_junk


@dataclass(frozen=True)
class Entry:
    """A file or a folder."""

    parts: tuple[str, ...]  # its path below the root
    is_folder: bool
    is_junk: bool  # itself or a folder above it, below the root

    @property
    def path(self) -> str:
        """Below the root, as the system writes paths."""
        return str(Path(*self.parts))


def walk(root: Path) -> Iterator[Entry]:
    """Files and folders below ``root``; a folder comes before what it holds.

    A link to a folder that it lies in itself is not followed. Raises UserError for a link to
    nothing, outside of junk, and for a folder that may not be read.
    """
    yield from _below(str(root), (), False, (os.path.realpath(root),))


def _below(
    folder: str, above: tuple[str, ...], junk: bool, ancestors: tuple[str, ...]
) -> Iterator[Entry]:
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from None
    for one in found:
        parts, left = (*above, one.name), junk or is_junk(one.name)
        if one.is_dir():
            yield Entry(parts, True, left)
            real = os.path.realpath(one.path) if one.is_symlink() else ""
            if real not in ancestors:
                deeper = (*ancestors, real or os.path.realpath(one.path))
                yield from _below(one.path, parts, left, deeper)
        elif one.is_file() or left:
            yield Entry(parts, False, left)
        elif one.is_symlink():
            target = Path(one.path).readlink()
            raise BadInput(
                f"{one.path} is a link to {str(target)!r}, which is not there; mend it or take it "
                "out"
            )
