"""The small fixed part of a task that a probe looks at, decoded once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.features.encode import pixels_of
from eval.models.backbone import Backbone


@dataclass(frozen=True)
class Subset:
    """Images of train, then of test, in canonical order, as the transform leaves them."""

    task: TaskData
    pixels: NDArray[np.uint8]  # [N, C, H, W]; float32 of a transform that normalises itself

    @classmethod
    def of(cls, task: TaskData, backbone: Backbone) -> Subset:
        """Decode all of the task's images. Raises UserError naming one that cannot be read."""
        found: list[NDArray[np.uint8]] = []
        for split in (task.train, task.test):
            order = np.argsort(split.rows)
            images: list[NDArray[np.uint8] | None] = [None] * len(split)
            read = split.source.images(split.rows[order])
            for place, (row, data) in zip(order.tolist(), read, strict=True):
                images[place] = pixels_of(backbone, task, split, row, data)
            found += [image for image in images if image is not None]
        return cls(task, np.stack(found))

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """[B, C, H, W], in order."""
        for start in range(0, len(self.pixels), size):
            yield self.pixels[start : start + size]

    def bank(
        self, encode: Callable[[NDArray[np.uint8]], Tensor], size: int, precision: str
    ) -> FeatureBank:
        """The features of all images, in memory. ``encode`` takes a batch [B, C, H, W] of pixels to
        features [B, D]."""
        features = torch.cat([encode(batch).float().cpu() for batch in self.batches(size)])
        labels = np.concatenate([self.task.train.labels, self.task.test.labels])
        return FeatureBank(features, torch.from_numpy(labels), len(self.task.train), precision)
