"""Segmentation by plain torch, on the same stored maps: features enlarged, one 1 x 1 convolution,
cross-entropy at every pixel of the masks, one point of the grid after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.data.masks.label_map import VOID
from eval.data.masks.mask_data import MaskSplit
from eval.features.maps import Layout
from eval.metrics.segmentation import mean_iou
from eval.protocols.segment_maps import Statistics
from eval.solvers.attentive import rate


def pixel_labels(split: MaskSplit) -> Tensor:
    """[N, H, W] of masks of one size."""
    found = dict(split.label_maps(np.arange(len(split))))
    return torch.from_numpy(np.stack([found[i] for i in range(len(split))]).astype(np.int64))


def side_by_side(layout: Layout, rows: Tensor) -> Tensor:
    """[B, D, h, w] of a bank's rows: layers enlarged to the finest grid."""
    large = [
        F.interpolate(x.transpose(1, 2).unflatten(2, grid), size=layout.finest, mode="bilinear")
        for x, grid in zip(layout.split(rows), layout.grids, strict=True)
    ]
    return torch.cat(large, 1)


class Standardised(nn.Module):
    """What stands in place of the BatchNorm: the statistics of train's places, each layer's own."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.mean, self.scale = (torch.cat(part) for part in zip(*statistics, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean[:, None, None]) / self.scale[:, None, None]


class PlainProbe(nn.Module):
    """A norm (BatchNorm without weights of its own) and a linear layer, logits enlarged to the
    masks."""

    def __init__(self, width: int, classes: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.BatchNorm2d(width, affine=False)
        self.layer = nn.Conv2d(width, classes, 1)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self.layer(self.norm(x)), size=size, mode="bilinear")


def fit(
    layout: Layout, rows: Tensor, labels: Tensor, classes: int, lr: float, decay: float,
    epochs: int, batch: int, seed: int = 0, norm: nn.Module | None = None,
    order: Callable[[int], Tensor] | None = None,
) -> PlainProbe:  # fmt: skip
    """``order`` gives an epoch's rows; without it they are drawn."""
    torch.manual_seed(seed)
    probe = PlainProbe(sum(layout.widths), classes, norm)
    adam = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=decay)
    steps, done = epochs * -(-len(rows) // batch), 0
    for epoch in range(epochs):
        drawn = order(epoch) if order else torch.randperm(len(rows))
        for some in drawn.split(batch):
            for group in adam.param_groups:
                group["lr"] = lr * rate(done, steps)
            adam.zero_grad()
            z = probe(side_by_side(layout, rows[some]), tuple(labels.shape[1:]))
            F.cross_entropy(z, labels[some], ignore_index=VOID).backward()
            adam.step()
            done += 1
    return probe.eval()


@torch.no_grad()
def miou(
    probe: PlainProbe, layout: Layout, rows: Tensor, labels: Tensor, classes: int
) -> float:  # fmt: skip
    matrix = np.zeros((classes, classes), np.int64)
    for some in torch.arange(len(rows)).split(16):
        answers = probe(side_by_side(layout, rows[some]), tuple(labels.shape[1:])).argmax(1)
        truth = labels[some]
        known = truth != VOID
        np.add.at(matrix, (truth[known].numpy(), answers[known].numpy()), 1)
    return float(mean_iou(matrix))
