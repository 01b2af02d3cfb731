"""The training images of a task, to be cropped: what the protocols that train on views share.

Crops are cut from the originals, as torchvision's RandomResizedCrop does, or from a store of
`eval.training.crop_store` that no view can tell from them. ``crops_from="reduced"`` takes them
from squares a little larger than the model's input instead, as all versions before there was the
setting did: less disk, but a small crop is enlarged from few pixels, and blurred.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import BadInput
from eval.training import crop_store, pixel_store
from eval.training.augment import Augmentation, draw_crops
from eval.training.crop_store import CropStore
from eval.training.windows import Drawn, Windows, cut_windows

if TYPE_CHECKING:
    from eval.data.task_data import TaskData
    from eval.settings.protocols import Trained
    from eval.training.context import Context

REDUCED = 1.15  # side of a reduced image by the model's


def reduced_side(px: int) -> int:
    """The side images are reduced to for a model of px pixels."""
    return math.ceil(REDUCED * px)


@dataclass(frozen=True)
class Stock:
    """Decoded images in the cache, there or not."""

    folder: Path
    size: Callable[[], int]  # bytes, about; reads a few of the images. Raises UserError
    open: Callable[[bool], CropStore]  # makes them, with a progress bar or not. Raises UserError


def stock_of(
    task: TaskData, px: int, scale: tuple[float, float], crops_from: str, cache: Path
) -> Stock:
    """Of the training images in the source's order, for views of px pixels. Raises UserError."""
    source, rows, name = task.train.source, np.sort(task.train.rows), task.name
    if crops_from == "reduced":
        side = reduced_side(px)
        return Stock(
            pixel_store.place(source, rows, side, cache),
            lambda: len(rows) * side * side * 3,
            lambda progress: crop_store.squares(
                pixel_store.open_pixels(source, name, rows, side, cache, progress)
            ),
        )
    low, high = Augmentation.ratio
    bound = crop_store.Bound(px, scale[0] * min(low, 1 / high))
    return Stock(
        crop_store.place(source, rows, bound, cache),
        lambda: crop_store.expected_bytes(source, rows, bound),
        lambda progress: crop_store.open_crop_store(source, name, rows, bound, cache, progress),
    )


def to_store(context: Context[TaskData], settings: Trained) -> tuple[Path, int]:
    """The folder of the images that a training with these settings decodes, and about how many
    bytes it will write there: 0 where they lie there already. Raises UserError."""
    px = context.backbone.input_config["input_size"][1]
    stock = stock_of(context.task, px, settings.scale, settings.crops_from, context.cache)
    return stock.folder, 0 if stock.folder.exists() else stock.size()


class TrainCrops:
    """Crops of a task's training images, which canonical rows name. Made on every process.

    Raises UserError for images that cannot be read and a model whose input is not a square.
    """

    def __init__(
        self, setup: Context[TaskData], scale: tuple[float, float], crops_from: str
    ) -> None:
        config = setup.backbone.input_config
        _, height, width = config["input_size"]
        if height != width:
            raise BadInput(
                f"{setup.backbone.resolved.id} takes images of {width} x {height}; augmented views "
                "are square: use the protocols knn or linear, or a square --img-size"
            )
        self.settings = Augmentation(
            px=height, mean=tuple(config["mean"]), std=tuple(config["std"]), scale=scale
        )
        workers, rows = setup.workers, setup.task.train.rows
        self._device = workers.device
        self.place = np.empty_like(rows)  # canonical row -> place in the store
        self.place[np.argsort(rows)] = np.arange(len(rows))

        def store(progress: bool) -> CropStore:
            return stock_of(setup.task, height, scale, crops_from, setup.cache).open(progress)

        # One process decodes, with a progress bar; the others find it done.
        workers.together(lambda: store(True) if workers.main else None)
        self._store = workers.together(lambda: store(False))
        self._aspect = torch.from_numpy(self._store.aspect[self.place])
        self._sides = np.stack([self._store.height, self._store.width], 1)[self.place]

    def __len__(self) -> int:
        return len(self.place)

    def draw(self, seed: int) -> Drawn:
        """A crop, mirrored or not, of every image: by the seed alone."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: alike on all devices
        crops = draw_crops(len(self), self._aspect, self.settings, generator)
        return Drawn.of(crops, self._sides, self.settings.px)

    def read(self, rows: NDArray[np.int64], drawn: Drawn) -> Windows:
        """The pixels under the crops of some rows, in memory that the device can fetch from."""
        where = torch.from_numpy(rows)
        pixels = torch.from_numpy(self._store.read(self.place[rows], drawn.place[where].numpy()))
        if self._device.type == "cuda":
            pixels = pixels.pin_memory()
        return drawn.windows(where, pixels)

    def cut(self, windows: Windows) -> Tensor:
        """[n, 3, px, px] float32 on the device, normalised, channels_last."""
        return cut_windows(windows, self.settings, self._device)
