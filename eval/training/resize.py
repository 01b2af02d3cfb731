"""Spans of images, each its own, resized to one size: batched, antialiased, on any device.

Both axes in turn are weighted sums of whole rows (`embedding_bag`, faster than grid_sample): the
same code antialiases, mirrors and minds borders.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def parts(n: int, device: torch.device, most: int | None = None) -> list[slice]:
    """Slices that cover n images, ``most`` in each: all at once on a GPU, 32 on a CPU if not given.

    Temporaries then fit the cache, and malloc keeps them: returning large ones to the system and
    faulting in fresh pages took longer than the arithmetic.
    """
    step = most or (32 if device.type == "cpu" else max(n, 1))
    return [slice(at, at + step) for at in range(0, n, step)]


def empty(images: Tensor, px: int) -> Tensor:
    """[N, 3, px, px] float32, channels_last, for N images."""
    return torch.empty(len(images), px, px, 3, device=images.device).permute(0, 3, 1, 2)


def resized(
    images: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
    part: slice = slice(None),
) -> Tensor:
    """A part [n, 3, h, w] uint8 of the images, resized by its `taps` of rows and of columns.

    [n, 3, px, px] float32 in [0, 1]. In memory the planes are transposed, x [n, 3, x, y].
    """
    n, _, high, wide = images.shape
    px = rows[0].shape[1]
    # NHWC as stored: a row of the first table is a row of an image, of the second a column.
    x = images.permute(0, 2, 3, 1).float().reshape(n * high, wide * 3)
    x = bags(x, rows[0][part], rows[1][part]).view(n, px, wide, 3)
    x = x.permute(0, 2, 3, 1).reshape(n * wide, 3 * px)
    x = bags(x, columns[0][part], columns[1][part]).view(n, px, 3, px)
    return x.permute(0, 2, 1, 3).contiguous().div_(255).transpose(2, 3)


def bags(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [n * px, D] of rows of a table [n * S, D]: index, weights [n, px, taps]."""
    n, _, taps = index.shape
    index = index + torch.arange(n, device=index.device)[:, None, None] * (len(table) // n)
    return F.embedding_bag(
        index.view(-1, taps), table, mode="sum", per_sample_weights=weights.reshape(-1, taps)
    )


def taps(start: Tensor, extent: Tensor, out: int, size: int) -> tuple[Tensor, Tensor]:
    """Index and weight [n, out, taps] to resize a line of `size` pixels, cut to a span, to `out`.

    The span runs from start to start + extent [n], fractions of the line; backwards if extent < 0.
    Triangle filter as in Pillow and torchvision (antialias=True), which cut first: pixels outside
    the span count nothing, and one partly inside counts for that part. Weights sum to 1.
    """
    index, shares = weights(start * size, extent * size, out, most_taps(size, out))
    return index.clamp_(0, size - 1).long(), shares


def most_taps(extent: float, out: int) -> int:
    """The pixels that one of ``out`` averages, of a span of ``extent`` pixels or a shorter one."""
    return math.ceil(2 * max(1.0, extent / out))  # whole numbers in an open interval 2 reach long


def weights(start: Tensor, extent: Tensor, out: int, taps: int) -> tuple[Tensor, Tensor]:
    """As `taps`, of spans [n] in pixels: whole numbers, also outside the line, and their shares."""
    steps = (torch.arange(out, device=start.device) + 0.5) / out
    start, extent = start[:, None], extent[:, None]
    centres = start + extent * steps  # [n, out]
    reach = (extent.abs() / out).clamp_(min=1)  # an output pixel wider than a pixel averages
    first = (centres - reach - 0.5).floor_().add_(1)
    pixels = first[..., None] + torch.arange(taps, device=start.device)
    shares = (pixels + 0.5 - centres[..., None]).abs_().div_(reach[..., None])
    shares.neg_().add_(1).clamp_(min=0)
    ends = start + extent
    low, high = torch.minimum(start, ends)[..., None], torch.maximum(start, ends)[..., None]
    shares *= (torch.minimum(pixels + 1, high) - torch.maximum(pixels, low)).clamp_(0, 1)
    shares /= shares.sum(2, keepdim=True)
    return pixels, shares
