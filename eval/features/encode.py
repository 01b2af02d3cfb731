"""Backbone x task -> feature bank: each image once, whatever asks for it later.

Images stream in the source's own order through shards of ``SHARD`` rows. A shard is one file,
written whole; processes take shards in turn, so nothing is gathered and nothing depends on their
number, and an interrupted encode goes on at the next missing shard. The main process then puts
the rows in canonical order into one bank.

Several jobs may share the work of one bank: each encodes its share of the shards and leaves them in
the cache (`encode_share`), and whoever wants the bank finds them there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from eval.common.distributed import Workers
from eval.common.errors import BadInput, Unreadable, UserError
from eval.common.files import atomic_file, cache_errors, clear_left, locked, say_damaged
from eval.common.images import decode, why_unreadable
from eval.common.versions import installed
from eval.data.task_data import Split, TaskData
from eval.features.bank import (
    FeatureBank,
    FeatureKey,
    bank_path,
    open_bank,
    read_header,
    write_bank,
)
from eval.features.precision import Precision, agrees, forward, preferred, prepared
from eval.models.backbone import Backbone
from eval.models.formats import packages_of
from eval.models.in_memory import BadTransform
from eval.stores.front import address_of, fetch_large, give_large, store_of

SHARD = 512  # rows a shard: a few seconds of work lost at most, few files
SHARD_BYTES = 128 << 20  # of one whose rows are large, while it is made
CHECKED_IMAGES = 16  # whose bf16 features are held against fp32

_COMPUTING = ("torch", "torchvision", "timm", "pillow")  # features, of images that they prepare

Share = tuple[int, int]  # (which of them, how many there are)


@dataclass(frozen=True)
class Encoded:
    """A bank and what it cost now: seconds are 0 when it came from the cache."""

    bank: FeatureBank
    seconds: float
    images: int


def encode(
    backbone: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    precision: Precision | None = None,
    batch_size: int | None = None,
    *,
    half: bool = False,
) -> Encoded:
    """The task's feature bank, from the cache or computed now by all processes together.

    With ``half`` it is kept in half precision, which the backbone's layer must say.
    ``precision`` None is ``auto_precision``. A bank that lies in the cache in the other memory
    layout is the same up to rounding, and is used. Raises UserError naming the row of an image that
    cannot be read, or when features are not finite or all alike.
    """
    start = time.perf_counter()
    if precision is None:
        precision = auto_precision(backbone, task, workers)
    if workers.broadcast(workers.main and _in_other_layout(backbone, task, cache, precision)):
        precision = precision.other_layout
    key = bank_key(backbone, task, precision)
    path = bank_path(cache, key)
    shards = cache / "partial"
    # A whole bank needs no lock. Shards are left where a run was killed when it was just there.
    whole = workers.main and open_bank(path, key) and not any(shards.glob(f"{key.digest}-*"))
    have = workers.broadcast(bool(whole))
    if not have:
        with _locked(cache / "locks" / f"{key.digest}.lock", workers) as ours:
            absent = workers.main and not path.exists()  # another machine may have encoded it
            workers.together(lambda: fetch_large(cache, path) if absent else False)
            have = workers.broadcast(open_bank(path, key) is not None if workers.main else False)
            if not have:
                if workers.main and path.exists():
                    say_damaged(path)
                job = _Job(backbone, task, cache, workers, precision, batch_size, key, half)
                workers.together(lambda: job.fetch_shards() if workers.main else None)
                workers.together(job.encode_shards)
                workers.together(lambda: job.merge(ours) if workers.main else None)
                workers.together(lambda: give_large(cache, path) if workers.main else None)
                workers.together(lambda: job.clear_store() if workers.main else None)
            if ours:
                for left in shards.glob(f"{key.digest}-*"):
                    shutil.rmtree(left, ignore_errors=True)
    bank = open_bank(path, key)
    if bank is None:
        raise UserError(f"feature bank {path} is damaged; remove it and run again")
    images = 0 if have else len(task.train) + len(task.test)
    return Encoded(bank, 0.0 if have else time.perf_counter() - start, images)


def encode_share(
    backbone: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    precision: Precision,
    batch_size: int | None,
    share: Share,
) -> int:
    """Encode one share of the task's images and leave them in the cache, and in the store behind
    it, for the `encode` that makes the bank of the same backbone and precision: its bytes are the
    same however many shares there are, and whichever of them were encoded before.

    Images that were encoded now: none where the bank or the share is there. No lock is taken, as
    two who encode one share write the same bytes. Raises UserError as `encode` does.
    """
    key = bank_key(backbone, task, precision)
    path = bank_path(cache, key)
    absent = workers.main and read_header(path) is None
    workers.together(lambda: fetch_large(cache, path) if absent else False)
    if workers.broadcast(workers.main and read_header(path) is not None):
        return 0
    job = _Job(backbone, task, cache, workers, precision, batch_size, key, half=False, share=share)
    return job.encode_shards()


@contextlib.contextmanager
def _locked(path: Path, workers: Workers) -> Iterator[bool]:
    """The main process holds the lock for all: a second run waits, then finds the bank done."""
    if not workers.main:
        yield False
        return
    with locked(path) as ours:
        yield ours


def bank_key(
    backbone: Backbone, task: TaskData, precision: Precision, layer: str | None = None
) -> FeatureKey:
    """What the task's features of that network in that precision are called. ``layer`` stands for
    other features than the network's own of the images as they are."""
    return FeatureKey(
        backbone.weights_sha256,
        backbone.construction,
        json.dumps(backbone.input_config, sort_keys=True),
        task.split_hash,
        str(precision),
        backbone.layer if layer is None else layer,
        _versions(backbone.resolved.format),
    )


@lru_cache
def _versions(model_format: str) -> str:
    """Of the libraries whose other version may give other features, as JSON: a receipt states those
    that are here, so a bank of others does not answer."""
    found = installed((*_COMPUTING, *packages_of(model_format)))
    releases = {name: version.partition("+")[0] for name, version in found.items()}
    return json.dumps(releases, sort_keys=True)


def is_cached(backbone: Backbone, task: TaskData, cache: Path, precision: Precision) -> bool:
    """Whether `encode` would find a bank, in either memory layout. Reads headers alone."""
    return any(
        read_header(bank_path(cache, bank_key(backbone, task, p))) is not None
        for p in (precision, precision.other_layout)
    )


def _in_other_layout(backbone: Backbone, task: TaskData, cache: Path, precision: Precision) -> bool:
    """Earlier versions chose the layout by time, so the bank may lie there in the other one."""
    if bank_path(cache, bank_key(backbone, task, precision)).exists():
        return False
    other = bank_path(cache, bank_key(backbone, task, precision.other_layout))
    return read_header(other) is not None


def auto_precision(backbone: Backbone, task: TaskData, workers: Workers) -> Precision:
    """What the device and the architecture call for; fp32 where bf16 does not agree with it on the
    task's first images. The main process finds out, and all processes use it."""
    chosen = workers.together(lambda: _chosen(backbone, task, workers) if workers.main else None)
    precision = workers.broadcast(chosen)
    assert precision is not None
    return precision


def _chosen(backbone: Backbone, task: TaskData, workers: Workers) -> Precision:
    wanted = preferred(backbone.net, workers.device)
    if wanted.dtype == "fp32":
        return wanted
    split = task.train
    rows = np.sort(split.rows)[:CHECKED_IMAGES]
    read = [(split, row, data) for row, data in split.source.images(rows)]
    images = normalised(np.stack([pixels_of(backbone, task, *r) for r in read]), backbone)
    if agrees(backbone.net, images, workers.device, wanted):
        return wanted
    return dataclasses.replace(wanted, dtype="fp32")


def pixels_of(
    backbone: Backbone, task: TaskData, split: Split, row: int, data: bytes
) -> NDArray[np.uint8]:
    """One image as [3, H, W] uint8; float32 of a transform that normalises itself. Raises UserError
    naming the row and the task."""
    try:
        return np.asarray(backbone.transform(decode(data, split.values)))
    except BadTransform:  # no image's fault
        raise
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        raise Unreadable(
            f"task {task.name!r}: {split.source.describe(row)} ({split.name}) cannot be read as "
            f"an image: {why_unreadable(data, error)}"
        ) from None


def normalised(pixels: NDArray[np.uint8], backbone: Backbone, device: str = "cpu") -> Tensor:
    """[B, 3, H, W] uint8 -> float32 on the device, by the model's own mean and std; floats are
    normalised already."""
    images = torch.from_numpy(pixels).to(device, non_blocking=True)
    if images.is_floating_point():
        return images
    images = images.float()
    mean = torch.tensor(backbone.input_config["mean"], device=device).view(1, 3, 1, 1)
    std = torch.tensor(backbone.input_config["std"], device=device).view(1, 3, 1, 1)
    return images.sub_(mean * 255).div_(std * 255)


def default_batch_size(device: torch.device, pixels: int) -> int:
    """Images a batch: enough to keep the device busy, few enough to stay in memory."""
    base = 32 if device.type == "cpu" else 256
    return int(min(max(base * (224 * 224) // pixels, base // 4), base * 8))


class _Job:
    """One bank being made: which process encodes which rows, and where they belong."""

    def __init__(
        self,
        backbone: Backbone,
        task: TaskData,
        cache: Path,
        workers: Workers,
        precision: Precision,
        batch_size: int | None,
        key: FeatureKey,
        half: bool,
        share: Share | None = None,
    ) -> None:
        self.backbone, self.task, self.workers = backbone, task, workers
        self.precision, self.key, self.cache = precision, key, cache
        self.dtype = torch.float16 if half else torch.float32
        _, height, width = backbone.input_config["input_size"]
        self.batch_size = batch_size or default_batch_size(workers.device, height * width)
        rows = min(SHARD, max(1, SHARD_BYTES // (4 * backbone.dim))) if half else SHARD
        self.shards = list(_plan_shards(task, rows))
        # Shards hold rows in source order: those of a mirror in another order are not these.
        order = hashlib.sha256(task.train.rows.tobytes() + task.test.rows.tobytes()).hexdigest()
        self.folder = cache / "partial" / f"{key.digest}-{order[:16]}"
        which, many = share or (0, 1)
        count = len(self.shards)
        self.mine = self.shards[count * which // many : count * (which + 1) // many]
        self.gives = share is not None and bool(address_of(cache))
        self.fetched: set[str] = set()

    def _in_store(self) -> set[str]:
        """The names of shards in the store behind the cache; none where there is no store."""
        if not address_of(self.cache):
            return set()
        return set(store_of(self.cache).sizes(self.folder.relative_to(self.cache).as_posix()))

    def _name(self, shard: _Shard) -> str:
        return self._file(shard).relative_to(self.cache).as_posix()

    def fetch_shards(self) -> None:
        """Bring here what others have encoded."""
        self.fetched = self._in_store()
        for shard in self.shards:
            if self._name(shard) in self.fetched and not self._file(shard).is_file():
                fetch_large(self.cache, self._file(shard))

    def clear_store(self) -> None:
        """Remove the shards of a bank that is in the store itself now."""
        if self.fetched:
            store_of(self.cache).remove(sorted(self.fetched))

    def _file(self, shard: _Shard) -> Path:
        return self.folder / f"shard-{shard.number:05d}.safetensors"

    def encode_shards(self) -> int:
        """Encode this process's part of the missing shards of the job's share, each written whole.
        The images of all that were missing."""
        there = self._in_store() if self.gives else set()
        missing = []
        for one in self.mine:
            if self._name(one) in there:
                continue
            if not _is_whole(self._file(one)):
                missing.append(one)
            elif self.gives:  # of a try that was killed
                give_large(self.cache, self._file(one))
        mine = missing[self.workers.rank :: self.workers.count]
        todo, total = (sum(len(s.rows) for s in many) for many in (missing, self.mine))
        bar = tqdm(
            total=total,
            initial=total - todo,
            desc=f"encode {self.task.name} with {self.backbone.resolved.id}",
            unit="img",
            # None: off when stderr is no terminal
            disable=None if self.workers.main else True,
            leave=False,
        )
        device = self.workers.device
        with bar, prepared(self.backbone.net, device, self.precision) as net:
            shards = iter(mine)
            shard = next(shards, None)
            parts: list[Tensor] = []
            for batch in self._batches(mine):
                assert shard is not None
                images = normalised(batch, self.backbone, str(device))
                parts.append(forward(net, images, self.precision).cpu())
                bar.update(len(batch) * self.workers.count)
                if sum(map(len, parts)) == len(shard.rows):
                    self._write(shard, torch.cat(parts))
                    parts = []
                    shard = next(shards, None)
        return todo

    def _batches(self, shards: list[_Shard]) -> Iterator[NDArray[np.uint8]]:
        """[B, 3, H, W] uint8 batches that never straddle two shards, decoded by threads.

        On an accelerator the next batches decode while it computes. On a CPU both would fight
        for the same cores, so decoding and computing take turns, each with all of them.
        """
        ahead = 0 if self.workers.device.type == "cpu" else 3
        threads = max(torch.get_num_threads(), 1) if ahead == 0 else 8
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for batch in self._read(shards):
                waiting.append(
                    [pool.submit(pixels_of, self.backbone, self.task, *item) for item in batch]
                )
                if len(waiting) > ahead:
                    yield np.stack([f.result() for f in waiting.popleft()])
            while waiting:
                yield np.stack([f.result() for f in waiting.popleft()])

    def _read(self, shards: list[_Shard]) -> Iterator[list[tuple[Split, int, bytes]]]:
        for split in (self.task.train, self.task.test):
            here = [s for s in shards if s.split is split]
            if not here:
                continue
            stream = split.source.images(np.concatenate([s.rows for s in here]))
            for shard in here:
                left = len(shard.rows)
                while left:
                    size = min(left, self.batch_size)
                    yield [(split, *next(stream)) for _ in range(size)]
                    left -= size

    def _write(self, shard: _Shard, features: Tensor) -> None:
        data = features.to(self.dtype).contiguous()
        bad = ~torch.isfinite(data).all(1)
        if bad.any():
            row = int(shard.rows[int(bad.nonzero()[0])])
            raise BadInput(
                f"{self.backbone.resolved.id} gives features that are not finite (NaN or "
                f"infinite{', or above 65504' * (self.dtype == torch.float16)}) for "
                f"{shard.split.source.describe(row)} of task {self.task.name!r}"
            )
        digest = hashlib.sha256(data.numpy().tobytes()).hexdigest()
        with cache_errors(self.cache, "features"), atomic_file(self._file(shard)) as file:
            file.write(save({"features": data}, {"sha256": digest}))
        if self.gives:
            give_large(self.cache, self._file(shard))

    def merge(self, ours: bool) -> None:
        """Put all shards in canonical order into the bank; whether its lock is ours."""
        low = high = None
        for shard in self.shards:
            features = _load_shard(self._file(shard))
            bounds = features.amin(0), features.amax(0)
            low = bounds[0] if low is None else torch.minimum(low, bounds[0])
            high = bounds[1] if high is None else torch.maximum(high, bounds[1])
        assert low is not None
        assert high is not None
        if bool((high - low <= 1e-6 * high.abs().clamp_min(1e-30)).all()):
            raise BadInput(
                f"{self.backbone.resolved.id} gives the same features for all "
                f"{len(self.task.train) + len(self.task.test)} images of task {self.task.name!r}"
            )
        labels = np.concatenate([self.task.train.labels, self.task.test.labels])
        path = bank_path(self.cache, self.key)
        if ours:
            clear_left(path)
        with cache_errors(self.cache, "features"):
            write_bank(
                path,
                self.key,
                rows=len(labels),
                dim=len(low),
                train_rows=len(self.task.train),
                labels=labels.astype("<i8").tobytes(),
                pieces=(
                    (s.places.tolist(), _load_shard(self._file(s)).numpy().tobytes())
                    for s in self.shards
                ),
                facts={"model": self.backbone.resolved.id, "task": self.task.name},
                half=self.dtype == torch.float16,
            )


@dataclass(frozen=True)
class _Shard:
    number: int
    split: Split
    rows: NDArray[np.int64]  # ascending source rows
    places: NDArray[np.int64]  # where each row stands in the bank


def _plan_shards(task: TaskData, size: int) -> Iterator[_Shard]:
    number = offset = 0
    for split in (task.train, task.test):
        order = np.argsort(split.rows)
        for begin in range(0, len(split), size):
            places = order[begin : begin + size]
            yield _Shard(number, split, split.rows[places], places + offset)
            number += 1
        offset += len(split)


def _load_shard(path: Path) -> Tensor:
    with safe_open(path, framework="pt") as stored:
        return stored.get_tensor("features").clone()


def _is_whole(path: Path) -> bool:
    """Whether a shard of an interrupted run can be used; a damaged one is encoded again."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as stored:
            data = stored.get_tensor("features").numpy().tobytes()
            return hashlib.sha256(data).hexdigest() == stored.metadata()["sha256"]
    except Exception:
        return False
