"""Task -> two splits whose identity does not depend on where or in which order the data lie.

A split's rows are put in *canonical order*: sorted by the hash of the image bytes. Features,
episodes and validation parts all count rows in that order, so a mirror that holds the same images
in another order gives the same split hash, the same episodes and the same numbers. Pixels are
never kept: images stream from the source when a backbone needs them.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from eval import hub
from eval.errors import UserError, one_line
from eval.files import atomic_file
from eval.tasks import TASKS, Task, TaskName, parse_task

HASH_BYTES = 16  # of sha256: 128 bits tell images apart
MOST_CLASSES = 1_000_000  # a larger label is an id or a time, not a class
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


class Source(Protocol):
    """Where the images of one split lie, in the source's own order."""

    def fingerprint(self) -> list[Any]:
        """Cheap facts (names, sizes, times) that change when the content does."""

    def scan(self) -> Scan:
        """One pass over all rows: labels and the hash of each image. Raises UserError."""

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        """(row, file bytes) for ascending source rows, streaming, memory bounded."""

    def describe(self, row: int) -> str:
        """A row in words, for error messages."""


@dataclass(frozen=True)
class Scan:
    """What one pass over a source finds. ``labels`` are raw: ints, or strings to be mapped."""

    labels: list[Any]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]
    names: tuple[str, ...] | None  # class names where the source declares them


@dataclass(frozen=True)
class Split:
    """One part of a task in canonical order. ``rows[i]`` is image i's row in the source."""

    name: str
    source: Source
    labels: NDArray[np.int64]  # [N]
    hashes: NDArray[np.uint8]  # [N, HASH_BYTES]
    rows: NDArray[np.int64]  # [N]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def keys(self) -> NDArray[np.void]:
        """[N] the image hashes as one comparable value each."""
        return as_keys(self.hashes)

    @cached_property
    def hash(self) -> str:
        """Hex digest over every image's bytes and label, the same for any row order."""
        digest = hashlib.sha256(f"{self.name}:{len(self)}:".encode())
        digest.update(np.ascontiguousarray(self.hashes).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class TaskData:
    """A task with its data found: what the protocols and the result file need to know."""

    name: str
    where: str  # the source as a string that finds it again
    revision: str  # commit sha for the Hub, '' for local data
    classes: tuple[str, ...]
    train: Split
    test: Split
    declared: Task | None = None
    notes: tuple[str, ...] = ()
    limit: int | None = None

    @cached_property
    def split_hash(self) -> str:
        both = f"{self.train.hash}{self.test.hash}{len(self.classes)}"
        return hashlib.sha256(both.encode()).hexdigest()

    @cached_property
    def duplicates(self) -> int:
        """Images of test that also stand, byte for byte, in train."""
        return int(np.isin(self.test.keys, self.train.keys).sum())

    @property
    def subset(self) -> bool:
        """Whether this is less than the whole data set, by its declaration or by --limit."""
        if self.limit is not None:
            return True
        full = self.declared.full if self.declared else None
        n = len(self.train) + len(self.test)
        return full is not None and (len(self.classes), n) != full


def as_keys(hashes: NDArray[np.uint8]) -> NDArray[np.void]:
    flat = np.ascontiguousarray(hashes)
    return flat.view(np.dtype((np.void, HASH_BYTES))).reshape(-1)


def image_hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:HASH_BYTES]


# --------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files in the Hugging Face layout: image {bytes, path} and label columns."""

    files: tuple[Path, ...]
    image: str = "image"
    label: str = "label"

    def fingerprint(self) -> list[Any]:
        facts = [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in self.files]
        return ["parquet", facts, self.image, self.label]

    def describe(self, row: int) -> str:
        for file in self.files:
            here = open_parquet(file).metadata.num_rows
            if row < here:
                break
            row -= here
        return f"row {row} of {file.parent.name}/{file.name}"

    def scan(self) -> Scan:
        labels: list[Any] = []
        hashes: list[bytes] = []
        names: tuple[str, ...] | None = None
        for file in self.files:
            parquet = open_parquet(file)
            columns = parquet.schema_arrow.names
            for role, column in (("image", self.image), ("label", self.label)):
                if column not in columns:
                    raise UserError(
                        f"{file} has no {role} column {column!r}; its columns are "
                        f"{', '.join(columns)}"
                    )
            if parquet.metadata.num_rows == 0:
                continue
            declared = declared_names(parquet.schema_arrow.metadata, self.label)
            if names and declared and declared != names:
                raise UserError(f"{file} declares other class names than the files before it")
            names = names or declared
            begin = len(hashes)
            for batch in parquet_batches(parquet, file, columns=[self.image, self.label]):
                labels += batch.column(self.label).to_pylist()
                for data in self._bytes_of(batch.column(self.image), file, len(hashes) - begin):
                    hashes.append(image_hash(data))
        return Scan(labels, _stack(hashes), names)

    def _bytes_of(self, column: Any, file: Path, first: int) -> Iterator[bytes]:
        import pyarrow as pa

        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise UserError(
                f"column {self.image!r} of {file} is of type {column.type}, not encoded images "
                "(binary, or a struct with a 'bytes' field)"
            )
        for i, value in enumerate(column):
            if (data := value.as_py()) is None:
                raise UserError(f"row {first + i} of {file} holds no image bytes")
            yield data

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        start = 0
        for file in self.files:
            parquet = open_parquet(file)
            groups = []  # row groups that hold a wanted row; others are never read
            begin = start
            for g in range(parquet.metadata.num_row_groups):
                end = begin + parquet.metadata.row_group(g).num_rows
                if np.searchsorted(rows, begin) < np.searchsorted(rows, end):
                    groups.append((g, begin))
                begin = end
            start = begin
            for g, first in groups:
                for batch in parquet_batches(parquet, file, row_groups=[g], columns=[self.image]):
                    last = first + len(batch)
                    while row is not None and row < last:
                        piece = batch.column(0).slice(row - first, 1)
                        yield row, next(self._bytes_of(piece, file, row))
                        row = next(wanted, None)
                    first = last


def open_parquet(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        # Streamed pages, not whole column chunks: memory stays flat however long the file is.
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:
        raise UserError(f"{file} cannot be read as Parquet: {one_line(error)}") from None


def parquet_batches(parquet: Any, file: Path, **which: Any) -> Iterator[Any]:
    """Record batches of a Parquet file. Raises UserError where its pages are damaged."""
    try:
        yield from parquet.iter_batches(256, **which)
    except Exception as error:
        raise UserError(f"{file} cannot be read as Parquet: {one_line(error)}") from None


def declared_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        info = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]
    except (KeyError, ValueError, TypeError):
        return None
    return tuple(info["names"]) if info.get("_type") == "ClassLabel" else None


@dataclass(frozen=True)
class FolderSource:
    """Image files of one folder a class; the class is the folder's name."""

    root: Path
    files: tuple[str, ...]  # relative to root, sorted
    names: tuple[str, ...]

    def fingerprint(self) -> list[Any]:
        stats = [(f, (s := (self.root / f).stat()).st_size, s.st_mtime_ns) for f in self.files]
        return ["folder", str(self.root), stats, self.names]

    def describe(self, row: int) -> str:
        return f"file {self.root / self.files[row]}"

    def scan(self) -> Scan:
        labels = [self.names.index(Path(f).parts[0]) for f in self.files]
        hashes = [image_hash((self.root / f).read_bytes()) for f in self.files]
        return Scan(labels, _stack(hashes), self.names)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for row in rows.tolist():
            yield row, (self.root / self.files[row]).read_bytes()


@dataclass(frozen=True)
class HubSource:
    """One split of a Hub data set at a pinned commit, read through ``datasets``."""

    repo: str
    sha: str
    config: str | None
    split: str
    image: str
    label: str

    def fingerprint(self) -> list[Any]:
        return ["hub", self.repo, self.sha, self.config, self.split, self.image, self.label]

    def describe(self, row: int) -> str:
        return f"row {row} of split {self.split!r} of {self.repo}"

    @cached_property
    def _table(self) -> Any:
        from datasets import Image, load_dataset

        try:
            data = load_dataset(self.repo, self.config, revision=self.sha, split=self.split)
        except Exception as error:
            raise UserError(f"data set {self.repo!r} does not load: {one_line(error)}") from None
        for role, column in (("image", self.image), ("label", self.label)):
            if column not in data.column_names:
                raise UserError(
                    f"split {self.split!r} of {self.repo!r} has no {role} column {column!r}; "
                    f"its columns are {', '.join(data.column_names)}"
                )
        if not isinstance(data.features[self.image], Image):
            raise UserError(
                f"column {self.image!r} of {self.repo!r} is {data.features[self.image]}, not images"
            )
        return data.cast_column(self.image, Image(decode=False))

    def scan(self) -> Scan:
        table = self._table
        feature = table.features[self.label]
        names = tuple(feature.names) if hasattr(feature, "names") else None
        hashes = [image_hash(data) for _, data in self.images(np.arange(len(table)))]
        return Scan(list(table[self.label]), _stack(hashes), names)

    def images(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        table = self._table.select_columns([self.image])
        for begin in range(0, len(rows), 256):
            chunk = rows[begin : begin + 256].tolist()
            for row, cell in zip(chunk, table[chunk][self.image], strict=True):
                if cell is None or (cell["bytes"] is None and cell["path"] is None):
                    raise UserError(f"{self.describe(row)} holds no image")
                data = cell["bytes"]
                yield row, data if data is not None else Path(cell["path"]).read_bytes()


def _stack(hashes: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), HASH_BYTES)


# --------------------------------------------------------------------------- finding a task's data


def load_task(
    text: str, cache: Path, data_dir: Path | None = None, limit: int | None = None, seed: int = 0
) -> TaskData:
    """Find a task's data and put it in canonical order.

    ``data_dir`` holds DIR/<task>/train-*.parquet and test-*.parquet. A scan of the images is
    remembered in ``cache`` by file name, size and time, so that a second call reads no image.
    ``limit`` keeps at most that many images of each split, balanced over classes. Raises
    UserError for anything wrong with the data.
    """
    parsed = parse_task(text)
    if parsed.kind == "declared":
        task = _load_declared(TASKS[parsed.value], cache, data_dir)
    elif parsed.kind == "parquet":
        folder = _existing_folder(parsed.value, text)
        train, test = _parquet_pair(folder, parsed)
        columns = urlencode({"image": parsed.image, "label": parsed.label})
        where = f"parquet:{folder.resolve()}?{columns}"
        task = _assemble(folder.resolve().name, where, "", train, test, cache, text)
        task = _renamed(task, "parquet")
    elif parsed.kind == "imagefolder":
        task = _renamed(_load_imagefolder(parsed, cache, text, seed), "imagefolder")
    else:
        task = _renamed(_load_hub(parsed, cache, text), "hub")
    return _limited(task, limit) if limit is not None else task


def _existing_folder(path: str, what: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"task {what!r}: {path!r} does not exist or is no directory")
    return folder


def _load_declared(task: Task, cache: Path, data_dir: Path | None) -> TaskData:
    if task.kind == "detection":
        raise UserError(
            f"task {task.name!r} is a detection set (boxes, not one label an image); the "
            "protocols fewshot, knn and linear cannot score it"
        )
    if task.embedded:
        from eval.mini import MINI_VERSION, write_task

        folder = cache / "mini" / f"v{MINI_VERSION}" / task.name
        if not (folder / "test-00000-of-00001.parquet").is_file():
            write_task(task.name, folder)
        where = f"mini v{MINI_VERSION}"
    else:
        if data_dir is None:
            raise UserError(
                f"task {task.name!r} needs --data DIR (or TRANSFERZOO_DATA) with "
                f"DIR/{task.name}/train-*.parquet and test-*.parquet"
            )
        if not data_dir.is_dir():
            raise UserError(f"--data {str(data_dir)!r} does not exist or is no directory")
        folder = data_dir / task.name
        if not folder.is_dir():
            have = sorted(p.name for p in data_dir.iterdir() if p.is_dir())
            raise UserError(
                f"--data {str(data_dir)!r} has no folder {task.name!r}; it holds "
                + (", ".join(have[:20]) or "no folders")
            )
        where = str(folder.resolve())
    train, test = _parquet_pair(folder, TaskName("declared", task.name))
    found = _assemble(task.name, where, "", train, test, cache, f"task {task.name!r}")
    counts = (len(found.classes), len(found.train), len(found.test))
    notes = found.notes
    if counts != (task.classes, task.train, task.test):
        notes += (
            f"counts {counts} (classes, train, test) differ from the declared "
            f"{(task.classes, task.train, task.test)}",
        )
    return TaskData(
        task.name, where, "", found.classes, found.train, found.test, task, notes
    )  # fmt: skip


def _parquet_pair(folder: Path, names: TaskName) -> tuple[ParquetSource, ParquetSource]:
    def of(*parts: str) -> tuple[Path, ...]:
        for part in parts:
            found = sorted(folder.glob(f"{glob.escape(part)}-*.parquet"))
            found = found or sorted(folder.glob(f"{glob.escape(part)}.parquet"))
            if found:
                return tuple(found)
        have = sorted(p.name for p in folder.glob("*.parquet"))
        raise UserError(
            f"{folder} has no {parts[0]}-*.parquet; "
            + (f"it holds {', '.join(have[:5])}" if have else "it holds no Parquet file at all")
        )

    train = ParquetSource(of("train"), names.image, names.label)
    return train, ParquetSource(of("test", "validation"), names.image, names.label)


def _load_imagefolder(parsed: TaskName, cache: Path, text: str, seed: int) -> TaskData:
    root = _existing_folder(parsed.value, text)
    where = f"imagefolder:{root.resolve()}"
    parts = {p.name for p in root.iterdir() if p.is_dir()}
    test_name = next((n for n in ("test", "val", "validation") if n in parts), None)
    if "train" in parts and test_name:
        train = folder_source(root / "train")
        test = folder_source(root / test_name)
        if missing := sorted(set(test.names) - set(train.names)):
            raise UserError(f"task {text!r}: test has classes that train has not: {missing[:5]}")
        test = FolderSource(test.root, test.files, train.names)
        return _assemble(root.resolve().name, where, "", train, test, cache, text)
    if "train" in parts and any(p.is_dir() for p in (root / "train").iterdir()):
        raise UserError(
            f"task {text!r}: {root} has train/ but neither test/, val/ nor validation/; "
            f"to split one folder here, use imagefolder:{root / 'train'}"
        )
    whole = folder_source(root)
    everything = _canonical("all", whole, *remembered_scan(whole, cache, text), text)
    in_train = stratified_part(everything.labels, everything.keys, 0.7, seed)
    train_split = _take(everything, np.flatnonzero(in_train), "train")
    test_split = _take(everything, np.flatnonzero(~in_train), "test")
    _check_split(train_split, text)
    _check_split(test_split, text)
    note = f"one folder, split here: 70 % of each class to train, seed {seed}"
    return TaskData(
        root.resolve().name, where, "", whole.names, train_split, test_split, notes=(note,)
    )


def folder_source(root: Path) -> FolderSource:
    names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and is_shown(p.name)))
    if not names:
        raise UserError(f"{root} has no class folders; expected {root}/CLASS/IMAGE")
    files = [
        str(Path(folder, file).relative_to(root))
        for name in names
        for folder, _, found in os.walk(root / name)
        for file in found
        if Path(file).suffix.lower() in IMAGE_SUFFIXES and is_shown(file)
    ]
    if not files:
        raise UserError(f"{root} holds no image files ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return FolderSource(root, tuple(sorted(files)), names)


def is_shown(name: str) -> bool:
    """Not hidden: notebooks leave .ipynb_checkpoints, macOS ._photo.jpg beside photo.jpg."""
    return not name.startswith(".")


def _load_hub(parsed: TaskName, cache: Path, text: str) -> TaskData:
    sha = hub.pin(parsed.value, parsed.revision, "dataset", f"task {text!r}").sha
    train, test = (
        HubSource(parsed.value, sha, parsed.config, part, parsed.image, parsed.label)
        for part in (parsed.train, parsed.test)
    )
    options = {"revision": sha, "image": parsed.image, "label": parsed.label}
    options |= {"config": parsed.config} if parsed.config else {}
    options |= {"train": parsed.train, "test": parsed.test}
    where = f"hub:{parsed.value}?{urlencode(options)}"
    return _assemble(parsed.value.replace("/", "--"), where, sha, train, test, cache, text)


def _renamed(task: TaskData, prefix: str) -> TaskData:
    """A user's data set is named by its content, so that two folders `photos` never collide."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", task.name)
    return _replace(task, name=f"{prefix}-{name}-{task.split_hash[:8]}")


def _replace(task: TaskData, **changes: Any) -> TaskData:
    values = {f: getattr(task, f) for f in TaskData.__dataclass_fields__}
    return TaskData(**(values | changes))


# --------------------------------------------------------------------------- checking and ordering


def _assemble(
    name: str, where: str, revision: str, train: Source, test: Source, cache: Path, what: str
) -> TaskData:
    train_scan, test_scan = remembered_scan(train, cache, what), remembered_scan(test, cache, what)
    names, numbered = _class_names(train_scan[0], test_scan[0], what)
    splits = []
    for part, source, (scan, order) in (
        ("train", train, train_scan),
        ("test", test, test_scan),
    ):
        if names != scan.names:
            scan = Scan(_to_ints(scan.labels, names, numbered, part, what), scan.hashes, names)
        split = _canonical(part, source, scan, order, what)
        _check_split(split, what)
        splits.append(split)
    return TaskData(name, where, revision, names, splits[0], splits[1])


def _class_names(train: Scan, test: Scan, what: str) -> tuple[tuple[str, ...], bool]:
    """(class names, whether an integer label is a class's number rather than its name)."""
    if train.names and test.names and test.names != train.names:
        raise UserError(f"{what}: train and test declare different class names")
    if declared := train.names or test.names:
        return declared, True
    values = {v for v in train.labels if v is not None}
    if all(isinstance(v, int) for v in values):
        return tuple(f"class {i}" for i in range(max(values, default=-1) + 1)), True
    return tuple(sorted({str(v) for v in values})), False


def _to_ints(
    labels: list[Any], names: tuple[str, ...], numbered: bool, part: str, what: str
) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    out = []
    for row, label in enumerate(labels):
        number = label if numbered and isinstance(label, int) else index.get(str(label))
        if label is None or number is None:
            raise UserError(f"{what}: label {label!r} in row {row} of {part} is no class of train")
        out.append(number)
    return out


def _canonical(part: str, source: Source, scan: Scan, order: NDArray[np.int64], what: str) -> Split:
    classes = len(scan.names) if scan.names is not None else 0
    for row, label in enumerate(scan.labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise UserError(
                f"{what}: label {label!r} in row {row} of {part} is outside 0..{classes - 1}"
            )
    labels = np.asarray(scan.labels, np.int64).reshape(-1)
    # Equal images under two labels must not depend on the source's order either.
    order = order[np.lexsort((labels[order], _ranks(scan.hashes[order])))]
    return Split(part, source, labels[order], scan.hashes[order], order)


def _ranks(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.unique(as_keys(hashes), return_inverse=True)[1].reshape(-1)


def _check_split(split: Split, what: str) -> None:
    if len(split) == 0:
        raise UserError(f"{what}: the {split.name} split is empty")
    if len(np.unique(split.labels)) < 2:
        raise UserError(
            f"{what}: all {len(split)} images of {split.name} have label {split.labels[0]}; "
            "at least two classes are needed"
        )


def _take(split: Split, index: NDArray[np.int64], name: str | None = None) -> Split:
    return Split(
        name or split.name,
        split.source,
        split.labels[index],
        split.hashes[index],
        split.rows[index],
    )


def check_labels(labels: Sequence[Any], source: Source, what: str) -> None:
    """Raise UserError for a label that is neither missing, a class number nor a string."""
    for row, label in enumerate(labels):
        number = isinstance(label, int) and label <= MOST_CLASSES
        if not (number or label is None or isinstance(label, str)):
            raise UserError(
                f"{what}: label {repr(label)[:80]} of {source.describe(row)} is neither a class "
                f"number (0 to {MOST_CLASSES}) nor a string"
            )


def remembered_scan(source: Source, cache: Path, what: str) -> tuple[Scan, NDArray[np.int64]]:
    """(scan, source rows sorted by image hash), remembered in the cache."""
    facts = json.dumps([1, HASH_BYTES, source.fingerprint()], default=str)
    memo = cache / "splits" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.npz"
    if memo.is_file():
        try:
            with np.load(memo, allow_pickle=False) as saved:
                meta = json.loads(saved["meta"].tobytes())
                names = None if meta["names"] is None else tuple(meta["names"])
                labels = meta["labels"] if meta["labels"] is not None else saved["labels"].tolist()
                return Scan(labels, saved["hashes"], names), saved["order"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            memo.unlink(missing_ok=True)  # a damaged memo is made again
    scan = source.scan()
    check_labels(scan.labels, source, what)
    order = np.argsort(as_keys(scan.hashes), kind="stable").astype(np.int64)
    if scan.labels and all(type(v) is int for v in scan.labels):
        array, listed = np.asarray(scan.labels, np.int64), None
    else:
        array, listed = np.zeros(0, np.int64), scan.labels
    meta_bytes = json.dumps({"names": scan.names, "labels": listed}, default=str).encode()
    with atomic_file(memo) as file:
        np.savez(
            file,
            labels=array,
            hashes=scan.hashes,
            order=order,
            meta=np.frombuffer(meta_bytes, np.uint8),
        )
    return scan, order


def stratified_part(
    labels: NDArray[np.int64], keys: NDArray[np.void], share: float, seed: int
) -> NDArray[np.bool_]:
    """[N] True for ``share`` of each class, at least one image of every class on each side where
    a class has two different ones that no other class has too. Copies of one image stay on one
    side, whatever their labels. The draw depends on the images and the seed alone, so rows in
    canonical order give the same part on every machine.
    """
    different, copy_of = np.unique(keys, return_inverse=True)
    side = np.zeros(len(different), np.int8)  # 1 chosen, -1 not, 0 open
    random = np.random.RandomState(seed)
    for label in np.unique(labels):
        images = np.unique(copy_of.reshape(-1)[labels == label])
        n = len(images)
        wanted = min(max(round(share * n), 1), max(n - 1, 1))
        missing = max(wanted - np.count_nonzero(side[images] == 1), 0)
        undecided = (drawn := images[random.permutation(n)])[side[drawn] == 0]
        side[undecided[:missing]] = 1
        side[undecided[missing:]] = -1
    return side[copy_of.reshape(-1)] == 1


def _limited(task: TaskData, limit: int) -> TaskData:
    """At most ``limit`` images of each split, one class after the other, in canonical order."""
    if limit < 1:
        raise UserError(f"--limit must be at least 1, got {limit}")

    def cut(split: Split) -> Split:
        place = np.zeros(len(split), np.int64)  # an image's place within its class
        for label in np.unique(split.labels):
            rows = np.flatnonzero(split.labels == label)
            place[rows] = np.arange(len(rows))
        keep = np.lexsort((split.labels, place))[:limit]
        return _take(split, np.sort(keep))

    train, test = cut(task.train), cut(task.test)
    for split in (train, test):
        _check_split(split, f"{task.name} with --limit {limit}")
    if len(train) == len(task.train) and len(test) == len(task.test):
        return task
    note = f"limited to {limit} images a split"
    return _replace(task, train=train, test=test, limit=limit, notes=(*task.notes, note))


__all__ = [
    "FolderSource",
    "HubSource",
    "ParquetSource",
    "Scan",
    "Source",
    "Split",
    "TaskData",
    "load_task",
    "stratified_part",
]
