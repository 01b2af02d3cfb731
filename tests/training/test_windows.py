"""Crops cut from the pixels they touch: torchvision's of the original, whatever else is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from eval.training.augment import Augmentation, Crops, cut, draw_crops
from eval.training.crop_store import CropStore
from eval.training.windows import Drawn, Windows, cut_windows

CPU = torch.device("cpu")
SETTINGS = Augmentation(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
SIZES = [(48, 48), (20, 31), (7, 90), (120, 33), (16, 16), (1, 1)]  # height and width


def pictures(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (*size, 3), np.uint8) for size in sizes]


def stored(images: list[np.ndarray]) -> CropStore:
    size = np.array([image.shape[:2] for image in images])
    ends = (size.prod(1) * 3).cumsum()
    flat = np.concatenate([image.reshape(-1) for image in images])
    aspect = (size[:, 1] / size[:, 0]).astype(np.float32)
    return CropStore(flat, ends - size.prod(1) * 3, size[:, 0], size[:, 1], aspect)


def drawn(crops: Crops, store: CropStore, px: int = SETTINGS.px) -> Drawn:
    return Drawn.of(crops, np.stack([store.height, store.width], 1), px)


def windows(store: CropStore, drawn: Drawn, rows: list[int]) -> Windows:
    where = torch.tensor(rows)
    pixels = store.read(np.array(rows), drawn.place[where].numpy())
    return drawn.windows(where, torch.from_numpy(pixels))


def some_crops(n: int, seed: int, aspect: Tensor | None = None) -> Crops:
    return draw_crops(n, aspect, SETTINGS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [9, 16, 23, 60])
def test_of_squares_they_are_what_cutting_the_whole_images_gives(side: int) -> None:
    """To the bit, so that results made with squares can be made again."""
    images = pictures([(side, side)] * 40)
    whole = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    crops = some_crops(40, 1, torch.linspace(0.4, 2.5, 40))
    store = stored(images)
    found = cut_windows(windows(store, drawn(crops, store), [*range(40)]), SETTINGS, CPU)
    assert torch.equal(found, cut(whole, crops, SETTINGS))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("px", [8, 16, 40])
@pytest.mark.parametrize("mirror", [False, True])
def test_they_equal_torchvisions_at_whole_pixels(px: int, mirror: bool) -> None:
    boxes = [(3, 5, 41, 30), (0, 0, 20, 31), (1, 60, 6, 8), (100, 0, 20, 33), (5, 5, 1, 2)]
    boxes.append((0, 0, 1, 1))
    images = pictures(SIZES)
    store = stored(images)
    settings = Augmentation(px, (0, 0, 0), (1, 1, 1))
    expected = torch.stack(
        [
            tv.resized_crop(
                torch.from_numpy(i).permute(2, 0, 1).float() / 255, *box, [px, px], antialias=True
            )
            for i, box in zip(images, boxes, strict=True)
        ]
    )
    top, left, height, width = torch.tensor(boxes).double().t()
    high, wide = torch.tensor(SIZES).double().t()
    top, left, height, width = top / high, left / wide, height / high, width / wide
    if mirror:
        expected = expected.flip(3)
        left, width = left + width, -width
    crops = Crops(*(x.float() for x in (left, top, width, height)))
    found = cut_windows(
        windows(store, drawn(crops, store, px), [*range(len(images))]), settings, CPU
    )
    # Positions are float32 fractions of a side: off by some 1e-6 pixels.
    assert (found - expected).abs().max() < 5e-5


def test_a_view_depends_on_nothing_else_in_its_batch() -> None:
    images = pictures(SIZES)
    store = stored(images)
    all_drawn = drawn(some_crops(6, 2, torch.from_numpy(store.aspect)), store)
    whole = cut_windows(windows(store, all_drawn, [*range(6)]), SETTINGS, CPU)
    for rows in ([0], [1, 4], [5, 3, 2], [4, 4]):
        part = cut_windows(windows(store, all_drawn, rows), SETTINGS, CPU)
        assert torch.equal(part, whole[rows])


def test_no_more_pixels_are_read_than_a_crop_touches() -> None:
    store = stored(pictures([(100, 200)]))
    crops = Crops(*(torch.tensor([x]) for x in (0.5, 0.25, -0.1, 0.5)))  # left is a right edge
    assert drawn(crops, store).place.tolist() == [[25, 80, 75, 100]]
    whole = Crops(*(torch.tensor([x]) for x in (0.0, 0.0, 1.0, 1.0)))
    assert drawn(whole, store).place.tolist() == [[0, 0, 100, 200]]
