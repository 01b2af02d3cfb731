"""From an image with boxes to what the network takes, and boxes back to the image.

A view is drawn before any pixel is read, from numbers that the caller names, so neither the batch,
the number of processes nor the order of reading changes it. Sizes follow detectron2's
``ResizeShortestEdge``. Images stay 8 bit until they are on the device: a quarter of the bytes
travel there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from eval.data.boxes.objects import BoxPrediction
from eval.detection.batch import Batch, Target

_VIEWS = 0x7669  # keeps these draws apart from others that are seeded with the same numbers


@dataclass(frozen=True)
class View:
    """How one image is shown."""

    side: int  # short side in pixels, before the limit on the long one
    flip: bool = False  # left and right exchanged


def draw_view(sides: Sequence[int], *seed_parts: int) -> View:
    """One of ``sides`` and whether to flip, each equally likely, from the numbers (0 or more, such
    as seed, epoch and place of the image; always equally many) alone."""
    drawn = np.random.default_rng(np.random.SeedSequence(seed_parts, spawn_key=(_VIEWS,)))
    return View(sides[int(drawn.integers(len(sides)))], bool(drawn.integers(2)))


def new_size(height: int, width: int, side: int, max_side: int) -> tuple[int, int]:
    """Height and width with the short side ``side``, the aspect kept, the long side at most
    ``max_side``: detectron2's ``ResizeShortestEdge`` to the rounding, but at least 1 pixel."""
    scale = side / min(height, width)
    high, wide = (side, scale * width) if height < width else (scale * height, side)
    if max(high, wide) > max_side:
        scale = max_side / max(high, wide)
        high, wide = high * scale, wide * scale
    return max(1, int(high + 0.5)), max(1, int(wide + 0.5))


def shown(
    image: Image.Image, boxes: NDArray[np.float32], view: View, max_side: int
) -> tuple[Tensor, NDArray[np.float32]]:
    """The RGB image as [3, h, w] uint8, resized and flipped, and its boxes [K, 4] with it.

    The resize is bilinear with antialiasing, as Pillow's (equal to one grey level, three times as
    fast). Each axis of the boxes is scaled by what rounding really made of it.
    """
    high, wide = new_size(image.height, image.width, view.side, max_side)
    # A copy: Pillow's own memory is read-only, which torch.from_numpy warns of.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if (image.height, image.width) != (high, wide):
        pixels = functional.interpolate(
            pixels[None], size=(high, wide), mode="bilinear", antialias=True
        )[0]
    ratio = np.array([wide / image.width, high / image.height] * 2)
    places = boxes.reshape(-1, 4).astype(np.float64) * ratio
    if view.flip:
        pixels = pixels.flip(2)
        places[:, [0, 2]] = wide - places[:, [2, 0]]
    return pixels.contiguous(), _inside(places, high, wide)


def _inside(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
    return boxes.clip(0, [width, height, width, height]).astype(np.float32)


def batch_of(
    pictures: Sequence[Tensor],
    targets: Sequence[Target] | None,
    mean: Sequence[float],
    std: Sequence[float],
    divisor: int,
    device: torch.device,
) -> Batch:
    """The pictures, each [3, h, w] uint8, normalised (``mean`` and ``std`` of values 0 to 1) at the
    top left of one tensor on the device; all round them is 0 and stays out of their statistics.

    ``targets`` are in pixels of the pictures, one for each, or None.
    """
    sizes = [(p.shape[1], p.shape[2]) for p in pictures]
    high, wide = (-(-max(s[axis] for s in sizes) // divisor) * divisor for axis in (0, 1))
    cuda = device.type == "cuda"
    padded = torch.zeros((len(pictures), 3, high, wide), dtype=torch.uint8, pin_memory=cuda)
    for slot, picture, (h, w) in zip(padded, pictures, sizes, strict=True):
        slot[:, :h, :w] = picture
    images = padded.to(device, non_blocking=cuda).float()
    for values, numbers in ((images.sub_, mean), (images.div_, std)):
        values(torch.tensor(numbers, dtype=torch.float32, device=device).mul_(255).view(3, 1, 1))
    for image, (h, w) in zip(images, sizes, strict=True):  # padding is the mean's colour, not black
        image[:, h:] = 0
        image[:, :h, w:] = 0
    moved = None
    if targets is not None:
        moved = [Target(t.boxes.to(device), t.labels.to(device)) for t in targets]
        if len(moved) != len(sizes):
            raise ValueError(f"{len(sizes)} pictures with {len(moved)} targets")
    return Batch(images, sizes, moved)


def target_of(boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> Target:
    """Boxes [K, 4] in pixels of the picture and labels [K] from 0, as the network learns them."""
    return Target(torch.from_numpy(boxes.reshape(-1, 4)), torch.from_numpy(labels + 1))


def to_image(
    boxes: NDArray[np.float32], size_in_batch: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes [K, 4] of an unflipped picture of ``size_in_batch`` (height, width) in pixels of its
    image of ``size``, clipped to it."""
    ratio = np.array([size[1] / size_in_batch[1], size[0] / size_in_batch[0]] * 2)
    return _inside(boxes.reshape(-1, 4).astype(np.float64) * ratio, *size)


def found_in(
    output: Mapping[str, Tensor], size_in_batch: tuple[int, int], size: tuple[int, int]
) -> BoxPrediction:
    """What ``Detector.detect`` says of one picture of ``size_in_batch``, in pixels of its image of
    ``size``, with labels from 0, best first."""
    scores = output["scores"].detach().float().cpu().numpy()
    best = np.argsort(-scores, kind="stable")
    boxes = to_image(output["boxes"].detach().float().cpu().numpy(), size_in_batch, size)
    labels = output["labels"].detach().cpu().numpy().astype(np.int64) - 1
    return BoxPrediction(boxes[best], scores[best], labels[best])
