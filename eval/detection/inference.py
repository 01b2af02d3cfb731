"""A detector's answers for images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.data.boxes.objects import BoxPrediction
from eval.detection.network import Detector
from eval.detection.pixels import View, batch_of, found_in, shown

NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Sight:
    """How a detector is shown an image."""

    side: int  # short side in pixels
    max_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find(
    detector: Detector,
    sight: Sight,
    image_of: Callable[[int], Image.Image],
    order: Sequence[int],
    *,
    batch_size: int = 8,
    channels_last: bool = False,
    done: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[int, BoxPrediction]]:
    """(which, what is found in it) for each of ``order``, which should put images of like shape
    side by side: a batch is padded to its largest. ``done`` hears how many are ready.

    Boxes are in pixels of the image, labels 0..classes-1. What ``image_of`` raises is raised.
    """
    device = next(detector.parameters()).device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pieces = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    training = detector.training
    detector.eval()

    def read(piece: Sequence[int]) -> list[tuple[Tensor, tuple[int, int]]]:
        return [_picture(image_of(which), sight) for which in piece]

    try:
        with ThreadPoolExecutor(1) as pool, torch.inference_mode():
            waiting = pool.submit(read, pieces[0]) if pieces else None
            for number, piece in enumerate(pieces):
                assert waiting is not None  # one is always asked for before it is needed
                pictures = waiting.result()
                if number + 1 < len(pieces):
                    waiting = pool.submit(read, pieces[number + 1])
                pixels = [picture for picture, _ in pictures]
                batch = batch_of(pixels, None, sight.mean, sight.std, detector.divisor, device)
                batch.images = batch.images.contiguous(memory_format=layout)
                answers = detector.detect(batch)
                for which, answer, shape, (_, size) in zip(
                    piece, answers, batch.sizes, pictures, strict=True
                ):
                    yield which, found_in(answer, shape, size)
                done(len(piece))
    finally:
        detector.train(training)


def _picture(image: Image.Image, sight: Sight) -> tuple[Tensor, tuple[int, int]]:
    pixels, _ = shown(image, NO_BOXES, View(sight.side, flip=False), sight.max_side)
    return pixels, (image.height, image.width)
