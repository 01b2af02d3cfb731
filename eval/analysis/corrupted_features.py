"""Test images under corruption, as models encode them: each condition once for all models that see
the same pixels, and each model's features of it kept as a feature bank.

A run that was interrupted goes on at the next missing bank. Several processes take conditions in
turn, so that nothing is gathered and nothing depends on their number.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.analysis.measures.corruptions import VERSION, corrupt
from eval.analysis.study import Study
from eval.common.errors import BadInput, UserError
from eval.common.files import clear_left, locked
from eval.common.text import counted
from eval.data.task_data import TaskData
from eval.features.bank import FeatureKey, bank_path, open_bank, write_bank
from eval.features.encode import bank_key, default_batch_size, normalised, pixels_of
from eval.features.precision import Precision, forward, prepared
from eval.models.backbone import Backbone

CHUNK_BYTES = 256 << 20  # of clean pixels that are held at once


@dataclass(frozen=True)
class Condition:
    """One corruption at one severity."""

    name: str
    severity: int


def alike(models: dict[str, Backbone]) -> list[list[str]]:
    """Names of models whose transforms give the same pixels, group by group."""
    groups: dict[str, list[str]] = {}
    for name, backbone in models.items():
        groups.setdefault(_transform(backbone), []).append(name)
    return list(groups.values())


def _transform(backbone: Backbone) -> str:
    """What the pixels depend on: all of the input's configuration but the normalisation."""
    facts = {k: v for k, v in backbone.input_config.items() if k not in ("mean", "std")}
    return json.dumps(facts, sort_keys=True)


@dataclass(frozen=True)
class _Work:
    """A condition of a chunk of the images, and the models (by number) that have not seen it."""

    chunk: int
    condition: Condition
    models: tuple[int, ...]


def seed_of(image_hash: NDArray[np.uint8]) -> int:
    """What is drawn for an image follows from this: the first 8 bytes of its hash."""
    return int.from_bytes(image_hash[:8].tobytes(), "big")


class Corrupted:
    """A task's test images under corruption, as models of one transform encode them.

    A bank holds the images of one chunk under one condition, in canonical order; only test sets
    larger than ``CHUNK_BYTES`` of pixels have several chunks.
    """

    def __init__(
        self,
        study: Study,
        task: TaskData,
        models: Sequence[tuple[Backbone, Precision]],
        conditions: Sequence[Condition],
    ) -> None:
        self.task, self.models, self.conditions = task, models, conditions
        self.cache, self.workers = study.cache, study.workers
        _, height, width = models[0][0].input_config["input_size"]
        self.batch_size = default_batch_size(self.workers.device, height * width)
        rows = max(1, CHUNK_BYTES // (3 * height * width))
        n = len(task.test)
        self.chunks = [slice(begin, min(begin + rows, n)) for begin in range(0, n, rows)]

    def features(self, backbone: Backbone, condition: Condition) -> Tensor:
        """[N_test, D] float32 in canonical order, once ``encode`` is done. Raises UserError."""
        (precision,) = (p for b, p in self.models if b is backbone)
        parts = []
        for chunk in self.chunks:
            key = self._key(backbone, precision, condition, chunk)
            bank = open_bank(bank_path(self.cache, key), key)
            if bank is None:
                path = bank_path(self.cache, key)
                raise UserError(f"feature bank {path} is damaged; remove it and run again")
            parts.append(bank.features)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _key(
        self, backbone: Backbone, precision: Precision, condition: Condition, chunk: slice
    ) -> FeatureKey:
        layer = f"{backbone.layer}/{condition.name}-{condition.severity}-v{VERSION}"
        if len(self.chunks) > 1:
            layer += f"/{chunk.start}-{chunk.stop}"
        return bank_key(backbone, self.task, precision, layer)

    def encode(self) -> float:
        """Encode what is missing, by all processes together; the seconds that it took."""
        start = time.perf_counter()
        facts = _transform(self.models[0][0]) + self.task.split_hash
        name = hashlib.sha256(facts.encode()).hexdigest()[:40]
        lock = self.cache / "locks" / f"corrupted-{name}.lock"
        # The main process holds the lock for all: a second run waits, then finds the banks done.
        with locked(lock) if self.workers.main else contextlib.nullcontext(False) as held:
            # The main process looks for all: a bank that another has just written is not a
            # surprise.
            todo = self.workers.broadcast(self._missing() if self.workers.main else [])
            if not todo:
                return 0.0
            for path in self._paths(todo) if held else ():
                clear_left(path)
            mine = todo[self.workers.rank :: self.workers.count]
            self.workers.together(lambda: self._fill(mine))
        return time.perf_counter() - start

    def _missing(self) -> list[_Work]:
        found = []
        for number, chunk in enumerate(self.chunks):
            for condition in self.conditions:
                keys = [self._key(b, p, condition, chunk) for b, p in self.models]
                missing = (
                    i for i, k in enumerate(keys) if open_bank(bank_path(self.cache, k), k) is None
                )
                if models := tuple(missing):
                    found.append(_Work(number, condition, models))
        return found

    def _paths(self, todo: Sequence[_Work]) -> Iterator[Path]:
        for work in todo:
            for model in work.models:
                key = self._key(*self.models[model], work.condition, self.chunks[work.chunk])
                yield bank_path(self.cache, key)

    def _fill(self, todo: Sequence[_Work]) -> None:
        """Encode and write; a chunk's clean pixels are made once for all its conditions."""
        on_cpu = self.workers.device.type == "cpu"
        bar = tqdm(
            total=sum(self._rows(w.chunk) for w in todo),
            desc=f"corrupt {self.task.name} for {counted(len(self.models), 'model')}",
            unit="img",
            # None: off when stderr is no terminal
            disable=None if self.workers.main else True,
            leave=False,
        )
        # On a CPU corrupting and computing would fight for the same cores, so they take turns.
        with bar, ThreadPoolExecutor(max(torch.get_num_threads(), 1) if on_cpu else 8) as pool:
            for number, works in itertools.groupby(todo, lambda w: w.chunk):
                pixels = self._pixels(self.chunks[number], pool)
                for work in works:
                    parts: list[list[Tensor]] = [[] for _ in work.models]
                    for batch in self._batches(work, pixels, pool, ahead=0 if on_cpu else 2):
                        for part, model in zip(parts, work.models, strict=True):
                            part.append(self._forward(model, batch))
                        bar.update(len(batch))
                    for part, model in zip(parts, work.models, strict=True):
                        self._write(work, model, torch.cat(part))

    def _rows(self, number: int) -> int:
        return self.chunks[number].stop - self.chunks[number].start

    def _pixels(self, chunk: slice, pool: ThreadPoolExecutor) -> NDArray[np.uint8]:
        """[n, 3, H, W] clean pixels of a chunk in canonical order."""
        test, backbone = self.task.test, self.models[0][0]
        rows = test.rows[chunk]
        order = np.argsort(rows)
        out: NDArray[np.uint8] = np.empty(
            (len(rows), *backbone.input_config["input_size"]), np.uint8
        )
        places = iter(order.tolist())
        stream = test.source.images(rows[order])
        # A batch at a time: files may be much larger than the pixels that are kept of them.
        while batch := list(itertools.islice(stream, self.batch_size)):
            made = pool.map(lambda item: pixels_of(backbone, self.task, test, *item), batch)
            for image in made:
                out[next(places)] = image
        return out

    def _batches(
        self, work: _Work, pixels: NDArray[np.uint8], pool: ThreadPoolExecutor, ahead: int
    ) -> Iterator[NDArray[np.uint8]]:
        """[B, 3, H, W] corrupted pixels; ``ahead`` batches are made while others are in use."""
        begin = self.chunks[work.chunk].start
        seeds = [seed_of(h) for h in self.task.test.hashes[begin : begin + len(pixels)]]
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        for at in range(0, len(pixels), self.batch_size):
            some = range(at, min(at + self.batch_size, len(pixels)))
            waiting.append(
                [pool.submit(_corrupted, pixels[i], work.condition, seeds[i]) for i in some]
            )
            if len(waiting) > ahead:
                yield np.stack([f.result() for f in waiting.popleft()])
        while waiting:
            yield np.stack([f.result() for f in waiting.popleft()])

    def _forward(self, model: int, batch: NDArray[np.uint8]) -> Tensor:
        backbone, precision = self.models[model]
        device = self.workers.device
        with prepared(backbone.net, device, precision) as net:
            return forward(net, normalised(batch, backbone, str(device)), precision).cpu()

    def _write(self, work: _Work, model: int, features: Tensor) -> None:
        backbone, precision = self.models[model]
        chunk = self.chunks[work.chunk]
        bad = ~torch.isfinite(features).all(1)
        if bad.any():
            row = int(self.task.test.rows[chunk][int(bad.nonzero()[0])])
            raise BadInput(
                f"{backbone.resolved.id} gives features that are not finite (NaN or infinite) for "
                f"{self.task.test.source.describe(row)} of task {self.task.name!r} under "
                f"{work.condition.name} {work.condition.severity}; it cannot be analysed"
            )
        key = self._key(backbone, precision, work.condition, chunk)
        path = bank_path(self.cache, key)
        write_bank(
            path,
            key,
            rows=len(features),
            dim=features.shape[1],
            train_rows=0,
            labels=self.task.test.labels[chunk].astype("<i8").tobytes(),
            pieces=[(range(len(features)), features.contiguous().numpy().tobytes())],
            facts={"model": backbone.resolved.id, "task": self.task.name},
        )


def _corrupted(pixels: NDArray[np.uint8], condition: Condition, seed: int) -> NDArray[np.uint8]:
    """[3, H, W] -> [3, H, W]."""
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return corrupt(image, condition.name, condition.severity, seed).transpose(2, 0, 1)
