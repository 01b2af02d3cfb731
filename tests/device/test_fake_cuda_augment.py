"""Augmentations on an accelerator: the views that the CPU gives for the same draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eval.training.augment import Augmentation, cut, draw_crops, evaluation, strong, weak
from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda

SETTINGS = Augmentation(px=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
IMAGES = torch.randint(
    0, 256, (37, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
).permute(0, 3, 1, 2)  # more than the CPU takes at once; a view of NHWC as stored
ASPECT = torch.linspace(0.5, 2, len(IMAGES))


@pytest.mark.parametrize("augment", [weak, strong], ids=lambda f: f.__name__)
@pytest.mark.parametrize("aspect", [None, ASPECT], ids=["square", "aspect"])
def test_random_views(augment: object, aspect: Tensor | None, cuda: Cuda) -> None:
    def views(device: str) -> Tensor:
        generator = torch.Generator(device).manual_seed(5)
        there = None if aspect is None else aspect.to(device)
        return augment(IMAGES.to(device), there, SETTINGS, generator)  # type: ignore[operator]

    expected = views("cpu")
    with cuda():
        found = views("cuda")
    assert_on_cuda(found, expected)


def test_evaluation_views(cuda: Cuda) -> None:
    expected = evaluation(IMAGES, SETTINGS)
    with cuda():
        found = evaluation(IMAGES.to("cuda"), SETTINGS)
    assert_on_cuda(found, expected)


def test_crops_drawn_on_the_cpu_are_cut_on_the_device(cuda: Cuda) -> None:
    """As linear-sgd and finetune do: the same crops on every device."""
    rows = torch.tensor([3, 0, 36])
    crops = draw_crops(len(IMAGES), ASPECT, SETTINGS, torch.Generator().manual_seed(2))
    expected = cut(IMAGES[rows], crops.of(rows, "cpu"), SETTINGS)
    with cuda():
        again = draw_crops(len(IMAGES), ASPECT, SETTINGS, torch.Generator().manual_seed(2))
        found = cut(IMAGES[rows].to("cuda"), again.of(rows, CUDA), SETTINGS)
    assert_on_cuda(found, expected)
