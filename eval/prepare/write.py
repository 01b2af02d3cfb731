"""Rows -> Parquet files in the Hugging Face layout, resumable and the same on every machine.

Who is in which file is planned from the list alone, before an image is read. Each file is written
whole together with a note of what is in it, so that a run which was killed goes on where it was.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from eval.common.errors import BadInput, Conflict, UserError, one_line
from eval.common.files import atomic_file, write_json
from eval.data.manifest import FileFacts
from eval.data.sources import HASH_BYTES, image_hash
from eval.prepare.archives import Damaged, Download, in_order
from eval.prepare.check import flaw
from eval.prepare.listing import Box, Entry, Item

VERSION = 1  # of the files' layout: a preparation begun by another version is not taken over
SHARD_BYTES = 256 << 20
ROW_GROUP_BYTES = 32 << 20  # what a reader, and a writer, holds at a time
BATCH_BYTES = 4 << 20  # Arrow copies what it is given: little at a time
LARGEST_IMAGE = 512 << 20
PNG_LEVEL = 6  # fixed: the default is Pillow's to change
STATE = ".prepare"
TELL_SECONDS = 0.1  # more often, processes would wait for each other's locks

Tick = Callable[[], object]  # called for each image; may raise to stop


@dataclass(frozen=True)
class Schema:
    """The columns besides image {bytes, path} and position."""

    names: tuple[str, ...]  # of the classes
    detection: bool = False  # objects instead of one label
    flag: Literal["", "difficult", "iscrowd"] = ""  # of an object, beside its category
    group: bool = False

    def arrow(self) -> Any:
        """The Arrow schema as ``datasets`` writes it: it reads the features back."""
        from datasets import ClassLabel, Features, List, Value  # slow: a second
        from datasets import Image as ImageFile

        of_class = ClassLabel(names=list(self.names))
        columns: dict[str, Any] = {"image": ImageFile()}
        if self.detection:
            columns["objects"] = {
                "bbox": List(List(Value("float32"), length=4)),
                "category": List(of_class),
                "area": List(Value("float32")),
            } | ({self.flag: List(Value("bool"))} if self.flag else {})
        else:
            columns["label"] = of_class
        columns["position"] = Value("int32")
        if self.group:
            columns["group"] = Value("string")
        return Features(columns).arrow_schema


@dataclass(frozen=True)
class Row:
    """One image of a file. ``item.entry`` is not None."""

    item: Item
    part: str  # the file it goes to: 'train', 'test', 'validation'
    position: int  # its place in the official list

    @property
    def entry(self) -> Entry:
        if self.item.entry is None:
            raise ValueError(f"{self.item.name} is not in the download")
        return self.item.entry


@dataclass(frozen=True)
class Written:
    """What the files hold."""

    files: dict[str, FileFacts]  # by file name
    hashes: dict[int, bytes]  # position -> image_hash of the bytes written
    unreadable: dict[int, str]  # position -> why: left out of the files


@dataclass(frozen=True)
class Shard:
    """One file to write, its rows in the order in which the download gives them."""

    name: str
    rows: tuple[Row, ...]
    bytes: int  # estimated
    pass_: tuple[int, ...] = ()  # what must be read from start to end; () where nothing must


def write_shards(
    download: Download,
    rows: Sequence[Row],
    out: Path,
    schema: Schema,
    *,
    processes: int = 1,
    decode: bool = False,
    shard_bytes: int = SHARD_BYTES,
    title: str = "prepare",
) -> Written:
    """Write ``<part>-<i>-of-<n>.parquet`` files into ``out``, or those of them not yet there.

    The outcome depends neither on ``processes`` nor on how often the work was interrupted. Raises
    UserError where ``out`` holds Parquet files of anything else, where another process writes
    there, and where an archive or the disk fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards = plan(download, rows, shard_bytes)
    download = replace(download, entries=())  # to read from: processes need not be sent the list
    arrow = schema.arrow()
    with _alone(out):
        key = _plan_key(download, shards, arrow, decode)
        done = _begin(out, shards, key)
        missing = [shard for shard in shards if shard.name not in done]
        jobs = [_Job(download, out, tuple(s), arrow, key, decode) for s in _jobs(missing)]
        bar = tqdm(
            total=len(rows),
            initial=len(rows) - sum(len(shard.rows) for shard in missing),
            desc=title,
            unit="img",
            disable=None,  # off when stderr is no terminal
            leave=False,
        )
        with bar:
            if min(processes, len(jobs)) > 1:
                _in_pool(jobs, processes, bar)
            else:
                for job in jobs:
                    job.run(bar.update)
        return _collect(out, shards, key)


def forget(out: Path) -> None:
    """Remove the notes that ``write_shards`` keeps in order to go on after an interruption."""
    shutil.rmtree(out / STATE, ignore_errors=True)


# --------------------------------------------------------------------------- the plan


def plan(download: Download, rows: Sequence[Row], shard_bytes: int) -> list[Shard]:
    """The files: rows of a part in the download's order, cut into even pieces.

    What can only be read from start to end shares no file with anything else, so that one process
    can write all of its files in one pass.
    """
    packed = [download.in_one_pass(number) for number in range(len(download.containers))]

    def pass_of(row: Row) -> tuple[int, ...]:
        if packed[row.entry.container]:
            return (row.entry.container,)
        if row.item.row >= 0:  # an array is loaded whole
            return (row.entry.container, row.entry.place)
        return ()

    sharing: dict[Entry, int] = {}
    for row in rows:
        sharing[row.entry] = sharing.get(row.entry, 0) + 1

    def order(row: Row) -> tuple[int, int, str, int, int]:
        entry = row.entry
        return entry.container, entry.place, entry.name, row.item.row, row.position

    shards: list[Shard] = []
    for part in sorted({row.part for row in rows}):
        pieces: list[tuple[tuple[int, ...], list[Row], int]] = []
        ours = sorted((row for row in rows if row.part == part), key=order)
        for pass_, run in groupby(ours, pass_of):
            these = list(run)
            sizes = [row.entry.size // sharing[row.entry] for row in these]
            total = max(sum(sizes), 1)
            count = -(-total // shard_bytes)
            before = 0
            cut: list[tuple[list[Row], list[int]]] = [([], []) for _ in range(count)]
            for row, size in zip(these, sizes, strict=True):
                piece = cut[min(before * count // total, count - 1)]
                piece[0].append(row)
                piece[1].append(size)
                before += size
            pieces += [(pass_, kept, sum(bytes_)) for kept, bytes_ in cut if kept]
        for i, (pass_, kept, size) in enumerate(pieces):
            name = f"{part}-{i:05d}-of-{len(pieces):05d}.parquet"
            shards.append(Shard(name, tuple(kept), size, pass_))
    return shards


def _jobs(shards: Sequence[Shard]) -> list[list[Shard]]:
    """What one process does at a time, the largest first: the last to end is a short one."""
    jobs: dict[Any, list[Shard]] = {}
    for shard in shards:
        jobs.setdefault(shard.pass_ or shard.name, []).append(shard)
    return sorted(jobs.values(), key=lambda job: -sum(shard.bytes for shard in job))


def _plan_key(download: Download, shards: Sequence[Shard], arrow: Any, decode: bool) -> str:
    """Hex digest of all that decides on the files."""
    digest = hashlib.sha256(f"{VERSION} {decode} {PNG_LEVEL}".encode())
    digest.update(arrow.serialize().to_pybytes())
    for path, stamp in zip(download.containers, download.stamps, strict=True):
        digest.update(repr((path.name, stamp) if stamp else "folder").encode())
    for shard in shards:
        digest.update(f"\n{shard.name}\n".encode())
        for row in shard.rows:
            digest.update(repr((row.item, row.position)).encode())
    return digest.hexdigest()


# --------------------------------------------------------------------------- what is there


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    (out / STATE).mkdir(exist_ok=True)
    try:
        with FileLock(out / STATE / "lock", timeout=0):
            yield
    except Timeout:
        raise BadInput(
            f"another process prepares data in {out}; wait for it or choose another --out"
        ) from None


def _begin(out: Path, shards: Sequence[Shard], key: str) -> set[str]:
    """The names of shards that are there. Raises UserError for a Parquet file of anything else."""
    noted = {shard.name for shard in shards if _state(out, shard.name, key) is not None}
    done = set()
    for file in sorted(out.glob("*.parquet")):
        if file.name not in noted:
            raise BadInput(
                f"{out} holds another preparation ({file.name}); remove it or choose another --out"
            )
        if not _is_whole(out, file.name, key):
            raise Conflict(f"{file} was changed since it was written; remove it and start again")
        done.add(file.name)
    for note in (out / STATE).glob("*.json"):
        if note.stem not in done:
            note.unlink()
    names = {shard.name for shard in shards}
    for path in out.glob(".*.tmp"):  # of a process that was killed; see atomic_file
        if any(fnmatch.fnmatchcase(path.name, f".{name}.*.tmp") for name in names):
            path.unlink()
    return done


def _note(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.json"


def _state(out: Path, name: str, key: str) -> dict[str, Any] | None:
    """What was noted of a shard; None where nothing was, or of another plan."""
    try:
        state = json.loads(_note(out, name).read_bytes())
        return state if state["plan"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_whole(out: Path, name: str, key: str) -> bool:
    """Whether the shard is there as it was noted."""
    state, path = _state(out, name, key), out / name
    return state is not None and path.is_file() and path.stat().st_size == state["bytes"]


def _collect(out: Path, shards: Sequence[Shard], key: str) -> Written:
    written = Written({}, {}, {})
    for shard in shards:
        state = _state(out, shard.name, key)
        if state is None or not _is_whole(out, shard.name, key):
            raise BadInput(f"{out / shard.name} was changed or removed meanwhile; start again")
        bad = {int(position): why for position, why in state["unreadable"].items()}
        kept = [row.position for row in shard.rows if row.position not in bad]
        hashes = bytes.fromhex(state["hashes"])
        written.files[shard.name] = FileFacts(rows=len(kept), sha256=state["sha256"])
        written.unreadable.update(bad)
        for i, position in enumerate(kept):
            written.hashes[position] = hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES]
    return written


# --------------------------------------------------------------------------- one job


@dataclass(frozen=True)
class _Job:
    """Shards that one process writes in one pass over the download."""

    download: Download  # without its entries
    out: Path
    shards: tuple[Shard, ...]
    schema: Any
    key: str
    decode: bool

    def run(self, tick: Tick) -> None:
        """Write them. Raises UserError where an archive or the disk fails."""
        try:
            self._run(tick)
        except OSError as error:  # of an archive it would be a UserError by now
            raise UserError(f"{self.out} cannot be written: {one_line(error)}") from None

    def _run(self, tick: Tick) -> None:
        wanted: dict[Entry, list[tuple[Shard, Row]]] = {}
        for shard in self.shards:
            for row in shard.rows:
                wanted.setdefault(row.entry, []).append((shard, row))
        files: dict[str, _File] = {}  # in a pass, one of each part at a time
        with ExitStack() as stack:
            for entry in in_order(wanted):
                images = _Images(self.download, entry, self.decode)
                for shard, row in wanted[entry]:
                    tick()
                    if shard.name not in files:
                        files[shard.name] = stack.enter_context(_File(self, shard))
                    files[shard.name].add(row, images.of(row))
                    if files[shard.name].left == 0:
                        files.pop(shard.name).finish()


class _Images:
    """The images of one entry: its bytes, or rows of a MATLAB array."""

    def __init__(self, download: Download, entry: Entry, decode: bool) -> None:
        self.download, self.entry, self.decode = download, entry, decode

    def of(self, row: Row) -> bytes | Damaged:
        return self._png(row.item) if row.item.row >= 0 else self._whole

    @cached_property
    def _whole(self) -> bytes | Damaged:
        if self.entry.size > LARGEST_IMAGE:
            return Damaged(f"it is {self.entry.size:,} bytes long, more than any image")
        data = self.download.get(self.entry)
        if isinstance(data, bytes) and (why := flaw(data, decode=self.decode)):
            return Damaged(why)
        return data

    @cached_property
    def _array(self) -> NDArray[np.uint8]:  # [height, width, 3, N]
        from scipy.io import loadmat

        data = self.download.read(self.entry)
        where = self.download.where(self.entry)
        try:
            array = loadmat(io.BytesIO(data), variable_names=["X"])["X"]
        except Exception as error:  # a parser fed with arbitrary bytes raises anything
            raise BadInput(
                f"{where} is not a MATLAB file with images X ({one_line(error)}); download it again"
            ) from None
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[2] != 3:
            raise BadInput(
                f"{where}: X is {array.dtype} of shape {array.shape}, not uint8 [height, width, 3, "
                "images]"
            )
        return array

    def _png(self, item: Item) -> bytes:
        array = self._array
        if item.row >= array.shape[3]:
            raise BadInput(
                f"{self.download.where(self.entry)} holds {array.shape[3]} images; "
                f"{item.name} should be number {item.row + 1}"
            )
        buffer = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(array[..., item.row]))
        image.save(buffer, "PNG", compress_level=PNG_LEVEL)
        return buffer.getvalue()


class _File:
    """A shard being written: rows are held until they fill a row group."""

    def __init__(self, job: _Job, shard: Shard) -> None:
        self.job, self.shard = job, shard
        self.left = len(shard.rows)
        self.rows: list[tuple[Row, bytes]] = []
        self.batches: list[Any] = []  # rows that are Arrow's already
        self.held = self.row_bytes = 0
        self.hashes: list[bytes] = []
        self.unreadable: dict[int, str] = {}
        self.stack = ExitStack()

    def __enter__(self) -> _File:
        import pyarrow.parquet as pq

        self.file: Any = self.stack.enter_context(atomic_file(self.job.out / self.shard.name))
        # Statistics would copy the smallest and largest image of each group into the footer.
        self.writer = pq.ParquetWriter(
            self.file, self.job.schema, use_dictionary=False, write_statistics=False
        )
        self.stack.push(self._close)  # before the file: it writes its footer
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def _close(self, *error: Any) -> None:
        if error[0] is not None:
            with suppress(Exception):  # the file is thrown away
                self.writer.close()

    def add(self, row: Row, data: bytes | Damaged) -> None:
        """The next row of the plan."""
        self.left -= 1
        if isinstance(data, Damaged):
            self.unreadable[row.position] = data.why
            return
        self.hashes.append(image_hash(data))
        self.rows.append((row, data))
        self.row_bytes += len(data)
        if self.row_bytes >= BATCH_BYTES:
            self._batch()
        if self.held >= ROW_GROUP_BYTES:
            self._flush()

    def _batch(self) -> None:
        if self.rows:
            self.batches.append(_batch(self.rows, self.job.schema))
        self.held += self.row_bytes
        self.rows, self.row_bytes = [], 0

    def _flush(self) -> None:
        import pyarrow as pa

        self._batch()
        if self.batches:
            table = pa.Table.from_batches(self.batches)
            self.writer.write_table(table, len(table))
        self.batches, self.held = [], 0

    def finish(self) -> None:
        """Note what the file holds, then give it its name: a file without a note is not ours."""
        self._flush()
        self.writer.close()
        self.file.flush()
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        note = {
            "plan": self.job.key,
            "bytes": size,
            "sha256": hashlib.file_digest(self.file, "sha256").hexdigest(),
            "hashes": b"".join(self.hashes).hex(),  # of the rows that are not unreadable
            "unreadable": {str(position): why for position, why in self.unreadable.items()},
        }
        write_json(_note(self.job.out, self.shard.name), note)
        self.stack.close()


def _batch(rows: list[tuple[Row, bytes]], schema: Any) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "image": pa.StructArray.from_arrays(
            [
                pa.array([data for _, data in rows], pa.binary()),
                pa.array([row.item.name for row, _ in rows], pa.string()),
            ],
            fields=list(schema.field("image").type),
        ),
        "label": [row.item.label for row, _ in rows],
        "objects": [_objects(row.item.boxes or ()) for row, _ in rows],
        "position": [row.position for row, _ in rows],
        "group": [row.item.group for row, _ in rows],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field in schema
        for column in [columns[field.name]]
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _objects(boxes: Sequence[Box]) -> dict[str, list[Any]]:
    return {  # Arrow takes those that the schema names
        "bbox": [[box.x, box.y, box.width, box.height] for box in boxes],
        "category": [box.category for box in boxes],
        "area": [box.area for box in boxes],
        "difficult": [box.difficult for box in boxes],
        "iscrowd": [box.crowd for box in boxes],
    }


# --------------------------------------------------------------------------- processes


class _Stopped(Exception):
    """Another job failed, or the user stops the run."""


_shared: list[Any] = []  # of a worker: the event to stop at, the count of images done


def _in_pool(jobs: Sequence[_Job], processes: int, bar: Any) -> None:
    # spawn: the caller may hold threads and locks, which a fork would copy in whatever state.
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("q", 0)
    first = bar.n
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), context, initializer=_start_worker, initargs=(stop, count)
    )
    with pool:
        with _no_interrupts():  # Ctrl-C reaches all processes; the parent says what to do
            waiting = {pool.submit(_run_in_worker, job) for job in jobs}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                bar.update(first + count.value - bar.n)
                for future in done:
                    future.result()
        except BrokenProcessPool:
            stop.set()
            raise BadInput(
                "a process was killed, most likely for want of memory; run again with fewer "
                "--processes (finished files are kept)"
            ) from None
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C from their first moment on."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(stop: Any, count: Any) -> None:
    # A scheduler sends it to all: the main process is the one to end the others.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    _shared[:] = stop, count
    for watch in (_end_with_parent, _end_when_stopped):
        threading.Thread(target=watch, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent's workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _end_when_stopped() -> None:
    """Far into a packed archive, or in a large array, there is no image for a long time."""
    _shared[0].wait()
    time.sleep(1)  # to remove what is half written
    os._exit(1)


def _run_in_worker(job: _Job) -> None:
    stop, count = _shared
    since, told = 0, time.monotonic()

    def tell() -> None:
        nonlocal since, told
        if stop.is_set():
            raise _Stopped
        with count.get_lock():
            count.value += since
        since, told = 0, time.monotonic()

    def tick() -> None:
        nonlocal since
        since += 1
        if time.monotonic() > told + TELL_SECONDS:
            tell()

    job.run(tick)
    tell()
