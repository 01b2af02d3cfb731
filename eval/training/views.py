"""Features of augmented views of train: what a frozen backbone sees of each image in each epoch.

    views = Views(setup, scale=(0.2, 1.0), count=0)
    features = views.epoch(3, rows)  # [n, D] of rows of train, in canonical order

A view is a random resized crop, mirrored or not. Its box is drawn for the image's place in the
task's canonical order, by the task's split hash, the seed and the epoch: whatever rows are asked
for, however many processes share the work, an image has the same view in the same epoch.

Images are decoded once, and crops are cut from what is kept of them (`eval.training.crop_images`).

With a ``count`` of views an image, each is encoded once and kept beside the feature banks; epochs
take turns with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import BadInput, UserError
from eval.common.files import cache_errors, clear_left, locked
from eval.features.bank import FeatureKey, bank_path, open_bank, write_bank
from eval.features.encode import bank_key, default_batch_size
from eval.features.precision import forward, prepared
from eval.training.crop_images import TrainCrops
from eval.training.windows import Drawn

if TYPE_CHECKING:
    from pathlib import Path

    from eval.data.task_data import TaskData
    from eval.training.context import Context

# Of views, by what crops are cut from: raise one when its draws, crops or stored images change.
VERSIONS = {"originals": 2, "reduced": 1}
_PIECE = 4096  # rows written to a bank at once


class Views:
    """Views of a task's train images through one backbone. Made and asked on every process.

    ``encoded`` counts the views computed so far, by all processes, and ``seconds`` what that took.
    Raises UserError for images that cannot be read and a model whose input is not a square.
    """

    def __init__(
        self,
        setup: Context[TaskData],
        scale: tuple[float, float],
        count: int = 0,
        crops_from: str = "originals",
        batch_size: int | None = None,
    ) -> None:
        self._setup, self._count, self._crops_from = setup, count, crops_from
        self._images = TrainCrops(setup, scale, crops_from)
        px = self._images.settings.px
        self._batch = batch_size or default_batch_size(setup.workers.device, px * px)
        self._kept: dict[int, Tensor] = {}
        self.encoded, self.seconds = 0, 0.0

    def epoch(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """[n, D] float32 of ascending rows of train, on the device of the main process.

        Other processes do their share of the work and get no rows.
        """
        if not self._count:
            return self._encode(epoch, rows)
        view = epoch % self._count
        if view not in self._kept:
            self._kept[view] = self._cached(view)
        kept, workers = self._kept[view], self._setup.workers
        if not workers.main:
            return kept
        some = kept if len(rows) == len(kept) else kept[torch.from_numpy(rows)]
        return some.to(workers.device)

    def _drawn(self, epoch: int) -> Drawn:
        """Of every image of train, though some may not be asked for."""
        facts = f"{self._setup.task.split_hash}:{self._setup.seed}:view:{epoch}"
        seed = int.from_bytes(hashlib.sha256(facts.encode()).digest()[:4], "little")
        return self._images.draw(seed)

    def _encode(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """Encoded in the store's order, which reads the disk from front to back.

        Processes take whole batches in turn: what a batch holds does not depend on their number.
        """
        start = time.perf_counter()
        workers = self._setup.workers
        order = rows[np.argsort(self._images.place[rows])]
        batches = [order[at : at + self._batch] for at in range(0, len(order), self._batch)]
        share = workers.together(lambda: self._share(epoch, batches[workers.rank :: workers.count]))
        shares = self._gathered(share, batches)
        out = workers.together(lambda: self._assembled(rows, shares, batches))
        self.encoded += len(rows)
        self.seconds += time.perf_counter() - start
        return out

    def _share(self, epoch: int, batches: list[NDArray[np.int64]]) -> Tensor:
        """[n, D] of this process's batches, one after the other, on its device."""
        setup, device = self._setup, self._setup.workers.device
        drawn = self._drawn(epoch)
        done = torch.empty(sum(map(len, batches)), setup.backbone.dim, device=device)
        at = 0
        with prepared(setup.backbone.net, device, setup.precision) as net:
            for rows in batches:
                view = self._images.cut(self._images.read(rows, drawn))
                if not setup.precision.channels_last:
                    view = view.contiguous()
                done[at : at + len(rows)] = forward(net, view, setup.precision)
                at += len(rows)
        if not done.isfinite().all():  # once an epoch: it waits for the device
            raise BadInput(
                f"{setup.backbone.resolved.id} gives features that are not finite for augmented "
                f"images of task {setup.task.name!r} in {setup.precision}; try --precision fp32"
            )
        return done

    def _gathered(self, share: Tensor, batches: list[NDArray[np.int64]]) -> list[Tensor]:
        """All processes' shares, on the main one; padded to the longest where there are several."""
        workers = self._setup.workers
        if workers.count == 1:
            return [share]
        longest = max(len(_joined(part)) for part in _dealt(batches, workers.count))
        padded = share.new_zeros(longest, share.shape[1])
        padded[: len(share)] = share
        shares = [torch.empty_like(padded) for _ in range(workers.count)] if workers.main else None
        torch.distributed.gather(padded, shares, dst=0)
        return shares or []

    def _assembled(
        self, rows: NDArray[np.int64], shares: list[Tensor], batches: list[NDArray[np.int64]]
    ) -> Tensor:
        """The shares' rows in the order of ``rows``, which ascend; without shares no rows."""
        setup = self._setup
        n = len(rows) if shares else 0
        out = torch.empty(n, setup.backbone.dim, device=setup.workers.device)
        for share, part in zip(shares, _dealt(batches, setup.workers.count), strict=bool(shares)):
            places = torch.from_numpy(np.searchsorted(rows, _joined(part)))
            out[places.to(out.device)] = share[: len(places)]
        return out

    def _cached(self, view: int) -> Tensor:
        """[N_train, D] of a view of all of train, memory-mapped; encoded now where it is missing.

        Other processes get no rows.
        """
        setup, workers = self._setup, self._setup.workers
        version = VERSIONS[self._crops_from]
        low, high = self._images.settings.scale
        layer = setup.backbone.layer
        key = bank_key(
            setup.backbone, setup.task, setup.precision,
            f"{layer}:view{view}:scale{low:g}-{high:g}:seed{setup.seed}:version{version}",
        )  # fmt: skip
        path = bank_path(setup.cache, key)
        with _locked(setup.cache / "locks" / f"{key.digest}.lock", workers.main) as ours:
            bank = workers.together(lambda: open_bank(path, key) if workers.main else None)
            if not workers.broadcast(bank is not None):
                features = self._encode(view, np.arange(len(setup.task.train)))
                workers.together(
                    lambda: self._write(path, key, features, ours) if workers.main else None
                )
                bank = workers.together(lambda: open_bank(path, key) if workers.main else None)
            have = workers.broadcast(bank is not None)
        if not have:
            raise UserError(f"feature bank {path} is damaged; remove it and run again")
        return bank.features if bank else torch.empty(0, setup.backbone.dim)

    def _write(self, path: Path, key: FeatureKey, features: Tensor, ours: bool) -> None:
        train = self._setup.task.train
        if ours:
            clear_left(path)
        pieces = (range(at, min(at + _PIECE, len(train))) for at in range(0, len(train), _PIECE))
        with cache_errors(self._setup.cache, f"views of {len(train):,} images"):
            write_bank(
                path,
                key,
                rows=len(train),
                dim=features.shape[1],
                train_rows=len(train),
                labels=train.labels.astype("<i8").tobytes(),
                pieces=((p, features[p.start : p.stop].cpu().numpy().tobytes()) for p in pieces),
                facts={"model": self._setup.backbone.resolved.id, "task": self._setup.task.name},
            )


def _dealt(batches: list[NDArray[np.int64]], count: int) -> list[list[NDArray[np.int64]]]:
    """The batches of each process."""
    return [batches[rank::count] for rank in range(count)]


def _joined(batches: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(batches) if batches else np.empty(0, np.int64)


@contextlib.contextmanager
def _locked(path: Path, main: bool) -> Iterator[bool]:
    """The main process holds the lock for all: a second run waits, then finds the views done."""
    if not main:
        yield False
        return
    with locked(path) as ours:
        yield ours
