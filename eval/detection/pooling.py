"""RoIAlign with a fast gradient on CPU.

RoIAlign (He et al. 2017) is linear in the map: every value of a box's grid is a weighted mean of a
few of its places. On CPU that is written down as a sparse matrix, one row a bin, and both
directions are a product with it. torchvision's own backward pass there adds up place by place on
one thread, and takes longer than all convolutions of a small backbone together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torchvision.ops import roi_align as torchvision_roi_align

Floats = NDArray[np.float32]


def roi_align(
    features: Tensor, boxes: Sequence[Tensor], bins: int, scale: float, samples: int
) -> Tensor:
    """[K, C, bins, bins] of a map [B, C, H, W] and B times [K_b, 4] boxes in pixels of the image;
    ``samples`` squared points a bin, coordinates as torchvision's ``aligned=False``."""
    if features.device.type != "cpu" or not sum(map(len, boxes)):
        return torchvision_roi_align(features, list(boxes), bins, scale, samples)
    matrices = [
        weights(each.detach().numpy() * np.float32(scale), bins, samples, *features.shape[-2:])
        for each in boxes
    ]
    return _Pool.apply(features.float(), matrices, bins)


class PyramidPool(nn.Module):
    """[K, C, 7, 7] of boxes on maps of these strides, each box on the map that suits its size
    (Lin et al. 2017, equation 1: 224 pixels belong to stride 16)."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Tensor:
        """``maps`` finest first; those beyond the strides are for the proposals alone."""
        used = list(maps.values())[: len(self.strides)]
        whole = torch.cat(boxes)
        side = (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=0).sqrt()
        level = (math.log2(16) + torch.log2(side / 224 + 1e-8)).add(1e-6).floor()
        levels = [math.log2(stride) for stride in self.strides]
        level = level.clamp(levels[0], levels[-1])
        out = used[0].new_zeros((len(whole), used[0].shape[1], 7, 7))
        for features, stride, mine in zip(used, self.strides, levels, strict=True):
            chosen = (level == mine).split([len(b) for b in boxes])
            if rows := torch.cat(chosen).nonzero().flatten().tolist():
                here = [b[c] for b, c in zip(boxes, chosen, strict=True)]
                pooled = roi_align(features, here, 7, 1 / stride, 2)
                out = out.index_put((torch.tensor(rows, device=out.device),), pooled)
        return out


def weights(boxes: Floats, bins: int, samples: int, height: int, width: int) -> csr_matrix:
    """[K * bins^2, height * width] of boxes [K, 4] in places of the map."""
    down, down_weight = _axis(boxes[:, 1], boxes[:, 3], bins, samples, height)
    right, right_weight = _axis(boxes[:, 0], boxes[:, 2], bins, samples, width)
    place = down[:, :, None, :, None] * width + right[:, None, :, None, :]
    weight = down_weight[:, :, None, :, None] * right_weight[:, None, :, None, :]
    rows, each = len(boxes) * bins * bins, (2 * samples) ** 2
    starts = np.arange(0, rows * each + 1, each, dtype=np.int32)
    return csr_matrix((weight.ravel(), place.ravel(), starts), shape=(rows, height * width))


def _axis(
    low: Floats, high: Floats, bins: int, samples: int, length: int
) -> tuple[NDArray[np.int32], Floats]:
    """Along one axis: the [K, bins, 2 * samples] places behind a bin, and their weights."""
    size = np.maximum(high - low, 1, dtype=np.float32)
    steps = (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples).astype(np.float32)
    points = low[:, None, None] + steps * (size / np.float32(bins))[:, None, None]
    outside = (points < -1) | (points > length)
    points = np.clip(points, 0, length - 1)
    first = np.minimum(points.astype(np.int32), max(length - 2, 0))
    share = points - first
    weight = np.stack([1 - share, share], axis=-1) / np.float32(samples)
    weight[outside] = 0
    place = np.stack([first, np.minimum(first + 1, length - 1)], axis=-1)
    shape = (len(low), bins, 2 * samples)
    return place.reshape(shape), weight.reshape(shape).astype(np.float32)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, matrices: list[csr_matrix], bins: int) -> Tensor:
        ctx.matrices, ctx.shape = matrices, features.shape
        channels = features.shape[1]
        # Channels last, so that a place is a row.
        maps = features.permute(0, 2, 3, 1).reshape(len(features), -1, channels).numpy()
        pooled = np.concatenate([m @ f for m, f in zip(matrices, maps, strict=True)])
        return torch.from_numpy(pooled.reshape(-1, bins, bins, channels)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        batch, channels, height, width = ctx.shape
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, channels).numpy()
        out = np.empty((batch, height * width, channels), np.float32)
        at = 0
        for image, matrix in enumerate(ctx.matrices):
            end = at + matrix.shape[0]
            out[image] = matrix.T @ rows[at:end]
            at = end
        maps = torch.from_numpy(out).view(batch, height, width, channels)
        return maps.permute(0, 3, 1, 2), None, None
