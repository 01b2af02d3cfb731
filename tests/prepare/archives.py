"""The same files as a folder and in every kind of archive."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

KINDS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": lambda path, files: folder(path, files),
    "zip": lambda path, files: make_zip(path / "a.zip", files),
    "tar": lambda path, files: make_tar(path / "a.tar", files, "./"),
    "tar.gz": lambda path, files: make_tar(path / "a.tar.gz", files),
    "tgz": lambda path, files: make_tar(path / "a.tgz", files),
    "tar.bz2": lambda path, files: make_tar(path / "a.tar.bz2", files),
    "tar.xz": lambda path, files: make_tar(path / "a.tar.xz", files),
}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", ".xz": "w:xz"}.get(path.name[-3:], "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
