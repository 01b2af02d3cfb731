"""Crops of images of any size, cut from the pixels that they touch.

An epoch's crops are drawn for all images at once; `Drawn` knows what pixels each will touch. Of a
batch these alone are read and sent to the device, as a `Windows`, and `cut_windows` makes views of
them. What a view looks like depends on nothing else in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.training.augment import Augmentation, Crops, normalise
from eval.training.resize import empty, most_taps, parts, resized, weights

# Pixels of windows that are worked on at once: what a CPU's cache holds, in at most 32 images (a
# third faster than always 32, at 128 px), and 400 MB of an accelerator's memory.
_CACHE, _MEMORY = 100_000, 1 << 25


@dataclass(frozen=True)
class Windows:
    """The pixels under n crops, and where each lies in its image."""

    pixels: Tensor  # [n, h, w, 3] uint8; smaller ones at the top left
    place: Tensor  # [n, 4] top, left, bottom, right in the image, whole pixels
    sides: Tensor  # [n, 2] height and width of the image
    crops: Crops
    taps: int  # `most_taps` of the longest crop of the epoch, whatever batch it is in

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Drawn:
    """Crops of N images in an epoch."""

    crops: Crops
    sides: Tensor  # [N, 2] height and width of the images, float32
    place: Tensor  # [N, 4] the pixels they touch: top, left, bottom, right
    taps: int

    @classmethod
    def of(cls, crops: Crops, sides: NDArray[np.int64], px: int) -> Drawn:
        """Crops of images with these sides [N, 2], height and width, for views of px pixels."""
        size = torch.from_numpy(sides).float()
        start = torch.stack([crops.top, crops.left], 1) * size
        extent = torch.stack([crops.height, crops.width], 1) * size
        low, high = torch.minimum(start, start + extent), torch.maximum(start, start + extent)
        first = torch.minimum(low.floor().clamp_(min=0), size - 1)
        last = torch.minimum(torch.maximum(high.ceil(), first + 1), size)
        longest = float(extent.abs().max()) if len(sides) else 1.0
        return cls(crops, size, torch.cat([first, last], 1).long(), most_taps(longest, px))

    def windows(self, rows: Tensor, pixels: Tensor) -> Windows:
        """Of some of the images: ``pixels`` are those of their ``place``."""
        crops = self.crops.of(rows, "cpu")
        return Windows(pixels, self.place[rows], self.sides[rows], crops, self.taps)


@torch.no_grad()
def cut_windows(windows: Windows, settings: Augmentation, device: torch.device) -> Tensor:
    """What `eval.training.augment.cut` gives of the whole images: [n, 3, px, px] float32 on the
    device, channels_last."""
    images = windows.pixels.to(device, non_blocking=True)
    crops = windows.crops.of(torch.arange(len(windows)), device)
    place, sides = windows.place.to(device), windows.sides.to(device)

    def taps(axis: int, start: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
        size = sides[:, axis]
        first, end = place[:, axis, None, None], place[:, axis + 2, None, None]
        index, shares = weights(start * size, extent * size, settings.px, windows.taps)
        return torch.minimum(torch.maximum(index, first), end - 1).sub_(first).long(), shares

    rows = taps(0, crops.top, crops.height)
    columns = taps(1, crops.left, crops.width)
    high, wide = (windows.place[:, 2:] - windows.place[:, :2]).unbind(1)  # known without waiting
    out = empty(images, settings.px)
    each = images.shape[1] * images.shape[2]
    most = max(4, min(32, _CACHE // each)) if device.type == "cpu" else max(1, _MEMORY // each)
    for part in parts(len(images), device, most):
        some = images[part, : int(high[part].max()), : int(wide[part].max())]
        x = resized(some.permute(0, 3, 1, 2), rows, columns, part)
        normalise(x, settings, out=out[part])
    return out
