"""Readouts x task -> features: one pass and one bank for all; layers are chosen on train alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.common.distributed import Workers
from eval.data.task_data import TaskData
from eval.data.validation import held_out
from eval.features.bank import FeatureBank
from eval.features.encode import Encoded, Share, encode, encode_share
from eval.features.precision import Precision
from eval.features.readout import candidates, columns, reading
from eval.models.backbone import Backbone
from eval.settings.readout import AUTO, Readout
from eval.solvers.knn import nearest, predict, vote

NEIGHBOURS = 20
HELD_OUT = 0.2  # of train, to choose a layer on


@dataclass(frozen=True)
class Read:
    """Features by a readout, the network that gives them, and how its layer was chosen."""

    backbone: Backbone
    encoded: Encoded
    details: dict[str, Any] = field(default_factory=dict)


def read(
    backbone: Backbone,
    readouts: Sequence[Readout],
    task: TaskData,
    cache: Path,
    workers: Workers,
    precision: Precision,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[Readout, Read]:
    """The task's features by each readout, encoded together where they are not in the cache.

    Called by all processes. Raises UserError as `encode` does, for a layer or a class token that
    the network has not, and where nothing can be held out of train to choose a layer on.
    """
    joint = reading(backbone, readouts)
    encoded = encode(joint, task, cache, workers, precision, batch_size)
    found: dict[Readout, Read] = {}
    for readout in readouts:
        details: dict[str, Any] = {}
        own = readout
        if readout.layer == AUTO:
            own, details = _best(joint, backbone, readout, encoded.bank, task, workers, seed)
        bank = _part(encoded.bank, columns(joint, backbone, own))
        found[readout] = Read(
            reading(backbone, [own]), dataclasses.replace(encoded, bank=bank), details
        )
    return found


def read_share(
    backbone: Backbone,
    readouts: Sequence[Readout],
    task: TaskData,
    cache: Path,
    workers: Workers,
    precision: Precision,
    batch_size: int | None,
    share: Share,
) -> int:
    """Encode a share of what `read` needs of the task's images; see `encode_share`."""
    joint = reading(backbone, readouts)
    return encode_share(joint, task, cache, workers, precision, batch_size, share)


def _part(bank: FeatureBank, where: list[slice] | None) -> FeatureBank:
    """Some columns of a bank, side by side."""
    if where is None:
        return bank
    parts = [bank.features[:, place] for place in where]
    return dataclasses.replace(bank, features=torch.cat(parts, dim=1))


def _best(
    joint: Backbone,
    backbone: Backbone,
    readout: Readout,
    bank: FeatureBank,
    task: TaskData,
    workers: Workers,
    seed: int,
) -> tuple[Readout, dict[str, Any]]:
    """The candidate whose features have the best nearest neighbours on a held-out part of train;
    the later of equals. Found on the main process."""

    def choose() -> tuple[Readout, dict[str, Any]]:
        held = torch.from_numpy(held_out(task, HELD_OUT, seed))
        found = {}
        for one in candidates(backbone, readout):
            x, y = _part(bank, columns(joint, backbone, one)).train
            found[one] = round(neighbours_accuracy(x, y, held, len(task.classes)), 6)
        best = max(reversed(found), key=lambda one: found[one])
        names = {one: one.layer or "features" for one in found}
        return best, {
            "layer": names[best], "layer_validation": {names[r]: top1 for r, top1 in found.items()}
        }  # fmt: skip

    chosen = workers.broadcast(workers.together(lambda: choose() if workers.main else None))
    assert chosen is not None
    return chosen


def neighbours_accuracy(x: Tensor, y: Tensor, held: Tensor, classes: int) -> float:
    """Top-1 of the held rows of features x [N, D], labels y [N], by the votes of 20 cosine
    neighbours among the others."""
    k = min(NEIGHBOURS, int((~held).sum()))
    similarity, index = nearest(x[~held], x[held], k)
    answers = predict(vote(similarity, y[~held][index], (k,), classes, None))[0]
    return float((answers == y[held]).double().mean())
