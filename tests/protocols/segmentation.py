"""Segmentation by plain torch, on the same stored maps: features enlarged, one 1 x 1 convolution,
cross-entropy at every pixel of the masks, one point of the grid after the other."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.data.masks.label_map import VOID
from eval.data.masks.mask_data import MaskSplit
from eval.features.maps import Layout
from eval.metrics.segmentation import mean_iou
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


class PlainProbe(nn.Module):
    """BatchNorm without weights of its own and a linear layer, logits enlarged to the masks."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.layer = nn.Conv2d(width, classes, 1)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self.layer(self.norm(x)), size=size, mode="bilinear")


def fit(
    layout: Layout, rows: Tensor, labels: Tensor, classes: int, lr: float, decay: float,
    epochs: int, batch: int, seed: int = 0,
) -> PlainProbe:  # fmt: skip
    torch.manual_seed(seed)
    probe = PlainProbe(sum(layout.widths), classes)
    adam = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=decay)
    steps, done = epochs * -(-len(rows) // batch), 0
    for _ in range(epochs):
        for some in torch.randperm(len(rows)).split(batch):
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
