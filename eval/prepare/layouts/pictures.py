"""The image files of a download, found by the names that the authors' lists give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from eval.common.errors import BadInput
from eval.prepare.listing import Entry

if TYPE_CHECKING:
    from eval.prepare.archives import Download

SUFFIX = r"\.(?i:jpe?g|png)"
FILE = rf"[^/]+{SUFFIX}"


def last(entry: Entry, parts: int = 1) -> str:
    """The last parts of the entry's path: its file name, or that with its folder."""
    return "/".join(entry.name.split("/")[-parts:])


def _key(name: str) -> str:
    """The name with its suffix in one spelling: copies have .JPG and .jpeg where lists say .jpg."""
    stem, dot, suffix = name.rpartition(".")
    suffix = suffix.lower()
    return f"{stem}{dot}{'jpg' if suffix == 'jpeg' else suffix}"


class Pictures:
    """Image files by official name; none is opened."""

    def __init__(
        self,
        download: Download,
        named: Iterable[tuple[str, Entry]],
        prefer: str = "",
        exact: bool = False,
    ) -> None:
        """``prefer``: the folder whose copy counts where others hold files of the same name.
        ``exact``: suffixes are those of the list, too, as it was made from the files."""
        self._where = download.where
        self._of = str if exact else _key
        self._copies: dict[str, list[Entry]] = {}
        for name, entry in named:
            self._copies.setdefault(self._of(name), []).append(entry)
        self._prefer = f"/{prefer}/"  # without one '//', which is in no name
        self.known: set[Entry] = set()  # every copy of what was asked for

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, name: str) -> Entry | None:
        """The file of this official name; None where the download has none.

        An archive and its unpacked tree may lie side by side: then the first container's file is
        taken. Copies that are not the same size are refused: one of them is broken or another's.
        """
        copies = self._copies.get(self._of(name), [])
        self.known.update(copies)
        copies = [e for e in copies if self._prefer in f"/{e.name}"] or copies
        if len({entry.size for entry in copies}) > 1:
            one, other = sorted(copies, key=lambda entry: entry.size)[:: len(copies) - 1]
            raise BadInput(
                f"the download has {name!r} more than once and not alike: "
                f"{self._where(one)!r} of {one.size:,} bytes and {self._where(other)!r} of "
                f"{other.size:,}; leave one of them there"
            )
        return min(copies, key=lambda e: (e.container, e.name)) if copies else None

    def strangers(self, among: Iterable[Entry]) -> tuple[str, ...]:
        """Where those lie that were never asked for."""
        return tuple(sorted(self._where(entry) for entry in among if entry not in self.known))


def every(download: Download) -> list[Entry]:
    """All image files of the download."""
    return [entry for _, entry in download.find(FILE)]


def flat(download: Download, prefer: str = "") -> Pictures:
    """All image files by file name alone, whatever folder they are in."""
    return Pictures(download, ((last(entry), entry) for entry in every(download)), prefer)
