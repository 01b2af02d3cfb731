"""One read-only view of a download: its folder and the archives in it, as they were downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eval.common.errors import BadInput, NotFound, UserError
from eval.prepare.containers import (
    ENDINGS,
    UNREADABLE_ENDINGS,
    Contents,
    Damage,
    Member,
    Stamp,
    check_totals,
    is_archive,
    is_packed_stream,
    list_archive,
    list_folder,
    opened,
    read_member,
    stamp_of,
)
from eval.prepare.listing import Entry

_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2")
_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Damaged:
    """In place of a file's bytes: why it cannot be read."""

    why: str


@dataclass(frozen=True)
class Download:
    """Every file of a download. Holds no open file, so that processes can be sent one; one that is
    only to read needs no ``entries`` (``dataclasses.replace(download, entries=())``).
    """

    source: Path
    containers: tuple[Path, ...]  # the folder first, then each archive in it, sorted
    entries: tuple[Entry, ...] = field(repr=False)
    stamps: tuple[Stamp | None, ...] = field(default=(), repr=False)  # of each archive
    skipped: int = 0  # links, devices, and names that are no text

    @classmethod
    def open(cls, source: Path) -> Download:
        """List a folder with its archives, at any depth, or one archive.

        Archives within archives are not opened. Raises UserError for anything that is missing,
        damaged, unsafe or unreadable.
        """
        containers: list[Path] = []
        listed: list[Contents] = []
        archives: list[Path] = []
        if source.is_dir():
            containers.append(source)
            listed.append(list_folder(source, archives))
        elif not source.exists():
            raise NotFound(f"--source {source} does not exist; give the folder of the download")
        elif is_archive(source.name):
            archives.append(source)
        else:
            raise BadInput(
                f"--source {source} is neither a folder nor an archive ({', '.join(ENDINGS)})"
                + _how_to_unpack([source.name])
            )
        for archive in archives:
            listed.append(list_archive(archive))
            containers.append(archive)
        entries = tuple(
            Entry(number, member.name, member.size, member.place)
            for number, contents in enumerate(listed)
            for member in contents.members
        )
        names = [Path(entry.name).name for entry in entries]
        if all(_is_unreadable(name) or _is_unfinished(name) for name in names):
            hint = _how_to_unpack(names)
            raise BadInput(f"{source} holds " + (f"nothing to read{hint}" if hint else "no file"))
        check_totals(source, len(entries), sum(entry.size for entry in entries))
        return cls(
            source,
            tuple(containers),
            entries,
            tuple(None if path.is_dir() else stamp_of(path) for path in containers),
            sum(contents.skipped for contents in listed),
        )

    def find(self, pattern: str) -> list[tuple[re.Match[str], Entry]]:
        """Entries whose whole name matches, in any folder; sorted by name, then by container.

        For any case write ``(?i:...)``: a flag cannot stand in the middle of an expression.
        """
        expression = re.compile(rf"(?:(?s:.*)/)?(?:{pattern})")
        found = [
            (match, entry) for entry in self.entries if (match := expression.fullmatch(entry.name))
        ]
        return sorted(found, key=lambda pair: (pair[1].name, pair[1].container))

    def one(self, pattern: str, what: str) -> Entry:
        """The one entry that matches. Raises UserError when there is none, or more than one."""
        found = self.find(pattern)
        if not found:
            raise self.missing(what)
        if len(found) > 1:
            names = _listed([repr(self.where(entry)) for _, entry in found])
            raise BadInput(f"{len(found)} files could be {what}: {names}; leave one of them there")
        return found[0][1]

    def missing(self, what: str) -> UserError:
        """The error to raise where ``what`` is not in the download: it says what is."""
        text = f"no {what} in {self.source}; it holds {_listed(list(self.sources()))}"
        text += _how_to_unpack([entry.name for entry in self.entries])
        if self.skipped:
            text += f"; left out: {self.skipped} links or devices (links out of it, or in archives)"
        return UserError(text)

    def where(self, entry: Entry) -> str:
        """The entry in words: its path, behind the archive's where it lies in one."""
        container = self.containers[entry.container]
        if self.stamps[entry.container] is None:
            return entry.name
        if container == self.source:
            return f"{container.name}:{entry.name}"
        return f"{container.relative_to(self.source).as_posix()}:{entry.name}"

    def read(self, entry: Entry) -> bytes:
        """The file's bytes. Raises UserError where it is damaged.

        Many files of a compressed tar are better read by ``stream``: each read out of the archive's
        order begins at its start.
        """
        data = self.get(entry)
        if isinstance(data, Damaged):
            raise BadInput(
                f"{self.source}: {self.where(entry)} cannot be read: {data.why}; download it again"
            )
        return data

    def stream(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes | Damaged]]:
        """Each entry once, in the containers' own order: one pass over each archive.

        Raises UserError where an archive has gone or changed since it was listed.
        """
        for entry in in_order(set(entries)):
            yield entry, self.get(entry)

    def get(self, entry: Entry) -> bytes | Damaged:
        """The file's bytes, or why there are none. Raises UserError as ``stream`` does."""
        container = opened(self.containers[entry.container], self.stamps[entry.container])
        try:
            return read_member(container, Member(entry.name, entry.size, entry.place))
        except Damage as why:
            return Damaged(str(why))

    def in_one_pass(self, container: int) -> bool:
        """Whether it is read only from start to end: a compressed tar."""
        return self.stamps[container] is not None and is_packed_stream(self.containers[container])

    def sources(self) -> dict[str, int]:
        """Bytes of each archive, and of each file and folder (with a '/') at the top."""
        sizes: dict[str, int] = {}
        for path, stamp in zip(self.containers, self.stamps, strict=True):
            if stamp is not None:
                inside = path != self.source
                name = path.relative_to(self.source).as_posix() if inside else path.name
                sizes[name] = stamp.size
        for entry in self.entries:
            if self.stamps[entry.container] is None:
                top, slash, _ = entry.name.partition("/")
                sizes[top + slash] = sizes.get(top + slash, 0) + entry.size
        return dict(sorted(sizes.items()))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """As they lie in their containers."""
    return sorted(entries, key=lambda e: (e.container, e.place, e.name))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _is_unreadable(name: str) -> bool:
    return name.lower().endswith(tuple(UNREADABLE_ENDINGS))


def _is_unfinished(name: str) -> bool:
    return name.lower().endswith(_UNFINISHED)


def _how_to_unpack(names: Iterable[str]) -> str:
    """What to do about files that cannot be read; '' where there are none."""
    text = ""
    names = list(names)
    for ending, command in UNREADABLE_ENDINGS.items():
        found = [name for name in names if name.lower().endswith(ending)]
        if found:
            flat = ", not `unrar e`, which drops the folders" if ending == ".rar" else ""
            text += (
                f"; {_listed(found)} is not readable here: unpack it with its folders "
                f"(`{command} {found[0]}`{flat})"
            )
    if unfinished := [name for name in names if _is_unfinished(name)]:
        text += f"; {_listed(unfinished)} is an unfinished download"
    return text
