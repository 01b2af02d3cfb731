"""One folder or archive: what it holds, and the bytes of a member, without unpacking to disk.

Archives come from the internet. Names that would leave the folder they are unpacked to are refused
although nothing is unpacked, and so is what unpacks to far more than any data set does. A declared
size is a claim: reading stops at the first byte beyond it.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from eval.common.errors import BadInput, Conflict, Refused, UserError, one_line

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ENDINGS = (".zip", *TAR_ENDINGS)
UNREADABLE_ENDINGS = {".rar": "unrar x", ".7z": "7z x"}  # how to unpack them, with their folders

# Images and archives hold what no longer compresses; tables and MATLAB files unpack to about ten
# times their size. Beyond a factor of 200 lie only runs of one byte.
MOST_RATIO = 200
RATIO_FROM = 10 * 1000**2  # bytes unpacked: below, a ratio harms nobody
MOST_MEMBER = 4 * 1024**3
MOST_MEMBERS = 5_000_000
MOST_TOTAL = 500 * 1024**3
LONGEST_NAME = 4096
MOST_HEADER = 16 * 1024**2  # a tar header that claims more, such as a long name, is none
CHUNK = 1 << 20

_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ZIP_NAMES = {1: "shrink", 6: "implode", 9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_AGAIN = "download it again"


class Damage(Exception):
    """Why one member cannot be read."""


class Member(NamedTuple):
    """One file of a container."""

    name: str  # safe: relative, '/' between parts, no '.' or '..'
    size: int
    place: int


class Contents(NamedTuple):
    """What a container holds. ``skipped`` counts links, devices and names that are no text."""

    members: tuple[Member, ...]
    skipped: int


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int


def stamp_of(path: Path) -> Stamp:
    """The stamp of an archive. Raises UserError where it is gone."""
    try:
        facts = path.stat()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {one_line(error)}") from None
    return Stamp(facts.st_size, facts.st_mtime_ns)


def is_archive(name: str) -> bool:
    """Whether a file of this name is opened as an archive."""
    return name.lower().endswith(ENDINGS)


def is_packed_stream(path: Path) -> bool:
    """Whether its members are reached only by unpacking all before them: a compressed tar."""
    return path.is_file() and not path.name.lower().endswith(".zip") and _packer(path) is not None


def safe_name(raw: str, folder: bool = False) -> str:
    """The member's path without '.' parts. Raises ValueError, saying why, for an unsafe one.

    '' is the folder of the archive itself.
    """
    if "\0" in raw:
        raise ValueError("holds a NUL byte")
    if len(raw) > LONGEST_NAME:
        raise ValueError(f"is {len(raw)} characters long")
    if "\\" in raw:
        raise ValueError("holds a backslash, which some systems take for a folder")
    if raw.startswith("/") or re.match("[A-Za-z]:", raw):
        raise ValueError("is an absolute path")
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("leads out of its folder ('..')")
    if parts and re.match("[A-Za-z]:", parts[0]):
        raise ValueError("is an absolute path")
    if not parts and not folder:
        raise ValueError("is empty")
    return "/".join(parts)


def is_hidden(name: str) -> bool:
    """Hidden files, and what macOS leaves in archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Tally:
    """Members as they are found, checked one by one against the limits."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.count = self.total = self.skipped = 0
        self.found: dict[str, Member] = {}

    def name(self, raw: str, folder: bool = False) -> str:
        """``safe_name``. Raises UserError naming archive and member."""
        try:
            return safe_name(raw, folder)
        except ValueError as why:
            shown = raw if len(raw) < 200 else raw[:200] + "..."
            raise Refused(
                f"{self.where} holds a member of the unsafe name {shown!r}, which {why}; "
                f"{_AGAIN} from the official page"
            ) from None

    def add(self, name: str, size: int, place: int) -> None:
        """One more file. Raises UserError beyond a limit."""
        self.count += 1
        self.total += max(size, 0)
        if not 0 <= size <= MOST_MEMBER:
            raise BadInput(
                f"{self.where} holds {name!r} of {size:,} bytes; members of up to "
                f"{MOST_MEMBER:,} bytes are read"
            )
        check_totals(self.where, self.count, self.total)
        # The last of two members of one name is the one that unpacking leaves.
        self.found.pop(name, None)
        self.found[name] = Member(name, size, place)

    def contents(self) -> Contents:
        return Contents(tuple(self.found.values()), self.skipped)


def check_totals(where: Path, count: int, total: int) -> None:
    """Raises UserError where a download holds more than any data set."""
    if count > MOST_MEMBERS:
        raise BadInput(f"{where} holds more than {MOST_MEMBERS:,} files; give the data set alone")
    if total > MOST_TOTAL:
        raise Refused(f"{where} unpacks to more than {MOST_TOTAL:,} bytes; give the data set alone")


def _check_ratio(subject: str, size: int, packed: int) -> None:
    if size > RATIO_FROM and size > MOST_RATIO * packed:
        raise Refused(
            f"{subject} unpacks from {packed:,} to {size:,} bytes or more, over {MOST_RATIO} times "
            f"its size, as no image data do; {_AGAIN} from the official page"
        )


# --------------------------------------------------------------------------- listing


def list_archive(path: Path) -> Contents:
    """Its members in the order in which they lie there. Raises UserError for anything wrong.

    A compressed tar is read once from end to end, its checksum included; the outcome is remembered
    for the process until the file changes.
    """
    return _listed(path, stamp_of(path))


@lru_cache(maxsize=256)
def _listed(path: Path, stamp: Stamp) -> Contents:
    if stamp.size == 0:
        raise BadInput(f"{path} is empty (0 bytes); {_AGAIN}")
    try:
        return _list_zip(path) if path.name.lower().endswith(".zip") else _list_tar(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {one_line(error)}") from None


def list_folder(root: Path, archives: list[Path]) -> Contents:
    """Its files sorted by name, archives apart: those are appended to ``archives``.

    A link is followed only where it stays inside ``root``. Raises UserError beyond a limit.
    """
    tally = Tally(root)
    inside = root.resolve()

    def walk(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, int]]:
        above = (*above, folder.resolve())
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            name = prefix + child.name
            if is_hidden(child.name):
                continue
            here = folder / child.name
            if not _is_text(name):
                tally.skipped += 1
                continue
            if child.is_symlink():
                target = here.resolve()
                if not target.exists() or not target.is_relative_to(inside):
                    tally.skipped += 1
                    continue
            if child.is_dir():
                if here.resolve() not in above:  # a link to one would be walked for ever
                    yield from walk(here, name + "/", above)
            elif not child.is_file():
                tally.skipped += 1
            elif is_archive(name):
                archives.append(here)
            else:
                yield tally.name(name), child.stat().st_size

    try:
        for place, (name, size) in enumerate(sorted(walk(root, "", ()))):
            # Files as large as they like may lie there; one too large is refused when it is read.
            tally.add(name, min(size, MOST_MEMBER), place)
            tally.found[name] = Member(name, size, place)
    except OSError as error:
        raise BadInput(f"{root} cannot be read: {one_line(error)}") from None
    except RecursionError:
        raise BadInput(f"{root} holds folders nested too deeply") from None
    archives.sort()
    return tally.contents()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding
        return False
    return True


def _list_zip(path: Path) -> Contents:
    packed = path.stat().st_size
    with _open_zip(path) as archive:
        tally = Tally(path)
        for place, info in enumerate(_in_order(archive)):
            raw = info.orig_filename  # before zipfile cuts it at a NUL
            name = tally.name(raw, raw.endswith("/"))
            if raw.endswith("/") or is_hidden(name):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            if kind not in (0, stat.S_IFREG):
                tally.skipped += 1
                continue
            if info.flag_bits & 0x1:
                raise Refused(
                    f"{path} is encrypted ({name!r} needs a password); unpack it yourself"
                )
            if info.compress_type not in _ZIP_METHODS:
                method = _ZIP_NAMES.get(info.compress_type, "unknown")
                raise BadInput(
                    f"{path} is compressed by method {info.compress_type} ({method}), which Python "
                    "does not read; unpack it (`unzip` or `7z x`) and give the folder"
                )
            _check_ratio(f"{path}: member {name!r}", info.file_size, info.compress_size)
            tally.add(name, info.file_size, place)
            # Members that share their bytes make a bomb of which each is modest.
            _check_ratio(str(path), tally.total, packed)
        return tally.contents()


def _in_order(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Members as they lie in the file; an entry's place counts in this list."""
    return sorted(archive.infolist(), key=lambda info: info.header_offset)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {one_line(error)}") from None
    except Exception as error:  # BadZipFile, and what damaged lists lead the parser to
        with path.open("rb") as file:
            begin = file.read(64)
        if begin.startswith(b"PK\x03\x04"):
            raise BadInput(
                f"{path} is cut off or damaged: it begins as a zip archive, but the list of "
                f"members at its end is missing or broken; {_AGAIN}"
            ) from None
        raise _no_archive(path, begin, "zip", one_line(error)) from None


def _no_archive(path: Path, begin: bytes, kind: str, why: str) -> UserError:
    if begin.lstrip().startswith(b"<"):
        why = "it is a web page"
    return UserError(f"{path} is no {kind} archive ({why}); {_AGAIN}")


def _packer(path: Path) -> Any:
    """What unpacks a file, by its first bytes: browsers unpack .tar.gz and leave the name."""
    with path.open("rb") as file:
        begin = file.read(6)
    if begin.startswith(b"\x1f\x8b"):
        return lambda file: gzip.GzipFile(fileobj=file, mode="rb")
    if begin.startswith(b"BZh"):
        return bz2.BZ2File
    if begin.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile
    return None


class _TarBytes:
    """The unpacked bytes of a tar as a file to seek in; a packed one is unpacked on the way."""

    def __init__(self, path: Path, bar: Any = None) -> None:
        self.path, self.bar = path, bar
        packer = _packer(path)
        self.raw = path.open("rb")
        self.file: Any = packer(self.raw) if packer else self.raw
        self.packed = packer is not None
        self.at = 0

    def __enter__(self) -> _TarBytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.raw.close()

    def tell(self) -> int:
        return self.at

    def seek(self, to: int) -> None:
        if not self.packed:
            self.at = self.raw.seek(to)
            return
        if to < self.at:
            self.file.seek(0)
            self.at = 0
        while self.at < to and self.read(min(CHUNK, to - self.at)):
            pass

    def read(self, count: int) -> bytes:
        data: bytes = self.file.read(count)
        self.at += len(data)
        if self.packed:
            read = self.raw.tell()
            # At every step, so that a bomb is stopped where it begins and not where it ends.
            _check_ratio(str(self.path), self.at, read)
            if self.bar is not None:
                self.bar.update(read - self.bar.n)
        return data


class _Headers(_TarBytes):
    """For listing: tarfile reads headers alone, and believes the sizes that they give."""

    def read(self, count: int) -> bytes:
        if count > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        return super().read(count)


class _StrictInfo(tarfile.TarInfo):
    """Headers of which a broken one is an error: tarfile takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Any:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.TruncatedHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]  # not in typeshed
            if tarfile_.offset == 0:
                raise
            raise EOFError("it ends before its end mark") from None
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]  # not in typeshed
            if tarfile_.offset == 0:
                raise
            raise ValueError(f"broken header: {error}") from None


def _list_tar(path: Path) -> Contents:
    size = path.stat().st_size
    bar = tqdm(
        total=size,
        desc=f"list {path.name}",
        unit="B",
        unit_scale=True,
        disable=None,  # off when stderr is no terminal
        leave=False,
        delay=1,
    )
    with bar, _Headers(path, bar) as data:
        try:
            return _walk_tar(path, data)
        except UserError:
            raise
        except EOFError as error:
            raise BadInput(f"{path} is cut off ({one_line(error)}); {_AGAIN}") from None
        except Exception as error:  # each compression has its own; broken headers raise anything
            why = one_line(error)
        if "unexpected end of data" in why:
            raise BadInput(f"{path} is cut off ({why}); {_AGAIN}") from None
        with path.open("rb") as file:
            begin = file.read(64)
        if data.packed or data.at > tarfile.BLOCKSIZE:
            raise BadInput(f"{path} is damaged ({why}); {_AGAIN}")
        raise _no_archive(path, begin, "tar", why)


def _walk_tar(path: Path, data: _TarBytes) -> Contents:
    tally = Tally(path)
    with tarfile.TarFile(fileobj=data, mode="r", tarinfo=_StrictInfo) as tar:  # type: ignore[arg-type]  # reads and seeks
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            name = tally.name(_as_text(info.name), info.isdir())
            if info.isdir() or is_hidden(name):
                continue
            if not info.isreg() or info.issparse():
                tally.skipped += 1
                continue
            tally.add(name, info.size, info.offset_data)
    while data.packed and data.read(CHUNK):  # to the end, where the checksum is
        pass
    return tally.contents()


def _as_text(name: str) -> str:
    if _is_text(name):
        return name
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


# --------------------------------------------------------------------------- reading


class Container(ABC):
    """An open folder or archive. Not for several threads at once."""

    @abstractmethod
    def read(self, member: Member) -> bytes:
        """Its bytes; one more than declared where there are more. Raises anything."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


class _Folder(Container):
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, member: Member) -> bytes:
        with (self.path / member.name).open("rb") as file:
            return file.read(member.size + 1)

    def close(self) -> None:
        pass


class _Zip(Container):
    def __init__(self, path: Path) -> None:
        self.archive = _open_zip(path)
        self.infos = _in_order(self.archive)

    def read(self, member: Member) -> bytes:
        info = copy.copy(self.infos[member.place])
        info.file_size += 1  # zipfile cuts at the declared size and would hide what comes behind
        with self.archive.open(info) as file:
            return file.read(member.size + 1)

    def close(self) -> None:
        self.archive.close()


class _Tar(Container):
    def __init__(self, path: Path) -> None:
        self.bytes = _TarBytes(path)

    def read(self, member: Member) -> bytes:
        self.bytes.seek(member.place)
        return self.bytes.read(member.size)

    def close(self) -> None:
        self.bytes.close()


_open: dict[tuple[Path, Stamp | None], Container] = {}
_MOST_OPEN = 8


def opened(path: Path, stamp: Stamp | None) -> Container:
    """The container, kept open for the next call. Raises UserError where it has changed since.

    ``stamp`` is None for a folder.
    """
    if stamp is not None and stamp_of(path) != stamp:
        raise Conflict(f"{path} was changed while it was read; start again")
    key = path, stamp
    container = _open.pop(key, None)
    if container is None:
        try:
            container = _of(path)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {one_line(error)}") from None
        while len(_open) >= _MOST_OPEN:
            _open.pop(next(iter(_open))).close()
    _open[key] = container  # last: the first ones are those used longest ago
    return container


def _of(path: Path) -> Container:
    if path.is_dir():
        return _Folder(path)
    return _Zip(path) if path.name.lower().endswith(".zip") else _Tar(path)


def read_member(container: Container, member: Member) -> bytes:
    """Exactly the declared bytes. Raises Damage for anything else."""
    if member.size > MOST_MEMBER:
        raise Damage(f"it is {member.size:,} bytes long; up to {MOST_MEMBER:,} are read")
    try:
        data = container.read(member)
    except Exception as error:  # each format and compression has errors of its own
        raise Damage(one_line(error)) from None
    if len(data) > member.size:
        raise Damage(f"it holds more than the {member.size:,} bytes that are declared")
    if len(data) < member.size:
        raise Damage(f"it holds {len(data):,} bytes where {member.size:,} are declared")
    return data
