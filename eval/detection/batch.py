"""A batch of images with boxes, as the network takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Target:
    """The boxes of one image, in pixels of the batch."""

    boxes: Tensor  # [K, 4] x1 y1 x2 y2 float32; K may be 0
    labels: Tensor  # [K] int64, 1..classes: 0 is the background, as torchvision has it


@dataclass
class Batch:
    """``images`` are normalised, at the top left of a tensor padded with zeros."""

    images: Tensor  # [B, 3, H, W] float32; H and W are multiples of the network's ``divisor``
    sizes: list[tuple[int, int]]  # [B] height and width of each image within it
    targets: list[Target] | None = None  # in training
