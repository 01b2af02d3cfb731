"""How good are the features now? k nearest neighbours on the validation split while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from eval.solvers.knn import nearest, vote
from eval.training.augment import Augmentation, evaluation
from zoo.train.feed import read
from zoo.train.momentum import gather, processes, rank

if TYPE_CHECKING:
    from zoo.train.pixels import PixelStore

BATCH = 256
TEMPERATURE = 0.07


@torch.inference_mode()
def features(
    backbone: nn.Module, store: PixelStore, rows: np.ndarray, view: Augmentation,
    device: torch.device, bf16: bool,
) -> Tensor:  # fmt: skip
    """[n, D] float32 on the CPU, in eval mode; each process encodes its share of the rows."""
    was_training = backbone.training
    backbone.eval()
    share = -(-len(rows) // processes())
    padded = np.resize(rows, share * processes())
    mine = padded[rank() * share : (rank() + 1) * share]
    out = []
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for begin in range(0, share, BATCH):
            images = read(store, mine[begin : begin + BATCH]).images.to(device)
            out.append(backbone(evaluation(images, view)).float())
    backbone.train(was_training)
    return gather(torch.cat(out))[: len(rows)].cpu()


def knn_top1(
    backbone: nn.Module, train: PixelStore, validation: PixelStore, view: Augmentation,
    device: torch.device, bf16: bool, k: int, bank: int,
) -> float:  # fmt: skip
    """Top-1 in percent of validation images by the k nearest of ``bank`` training images."""
    assert train.labels is not None
    assert validation.labels is not None
    rows = np.random.default_rng(0).permutation(np.flatnonzero(train.labels >= 0))[:bank]
    asked = np.flatnonzero(validation.labels >= 0)
    known = features(backbone, train, rows, view, device, bf16)
    queries = features(backbone, validation, asked, view, device, bf16)
    k = min(k, len(rows))
    similarity, index = nearest(known, queries, k)
    labels = torch.from_numpy(train.labels[rows])[index]
    scores = vote(similarity, labels, (k,), len(train.classes), TEMPERATURE)[0]
    hits = scores.argmax(1) == torch.from_numpy(validation.labels[asked])
    return 100 * hits.float().mean().item()
