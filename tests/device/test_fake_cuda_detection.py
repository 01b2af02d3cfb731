"""The detector on an accelerator: batches, pooling, losses, gradients and answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from eval.detection.network import Detector, build_detector
from eval.detection.pixels import batch_of, found_in, target_of
from eval.detection.pooling import PyramidPool, roi_align
from eval.models.backbone import load
from eval.models.resolve import resolve
from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda, value_of

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def pictures() -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    sizes = ((60, 64), (64, 40))
    return [torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=draws) for h, w in sizes]


def test_batch(cuda: Cuda) -> None:
    targets = [
        target_of(np.array([[1, 2, 30, 40]], np.float32), np.array([1])),
        target_of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)),
    ]
    expected = batch_of(pictures(), targets, MEAN, STD, 32, torch.device("cpu"))
    with cuda():
        found = batch_of(pictures(), targets, MEAN, STD, 32, CUDA)
    assert_on_cuda(found.images, expected.images)
    assert found.targets is not None
    for mine, theirs in zip(found.targets, targets, strict=True):
        assert_on_cuda(mine.boxes, theirs.boxes)
        assert_on_cuda(mine.labels, theirs.labels)


def test_pooling(cuda: Cuda) -> None:
    """On CUDA torchvision pools, here our product; both must have the same bins and gradients."""
    draws = torch.Generator().manual_seed(1)
    maps = {
        str(i): torch.rand(2, 3, 64 // s, 64 // s, generator=draws) for i, s in enumerate((4, 8))
    }
    boxes = [torch.tensor([[1.0, 2, 30, 40], [0, 0, 64, 64]]), torch.tensor([[5.0, 5, 9, 60]])]

    def pooled(device: str) -> tuple[Tensor, Tensor]:
        there = {name: m.to(device).clone().requires_grad_() for name, m in maps.items()}
        out = PyramidPool((4, 8))(there, [b.to(device) for b in boxes], [(64, 64)] * 2)
        out.square().sum().backward()
        gradient = there["0"].grad
        assert gradient is not None
        return out, gradient

    expected, expected_gradient = pooled("cpu")
    with cuda():
        found, gradient = pooled("cuda")
        nothing = roi_align(maps["0"].to("cuda"), [torch.zeros(0, 4, device=CUDA)] * 2, 7, 0.25, 2)
    assert_on_cuda(found, expected)
    assert_on_cuda(gradient, expected_gradient)
    assert nothing.shape == (0, 3, 7, 7)
    plain = torchvision_roi_align(maps["0"], boxes, 7, 0.25, 2)
    torch.testing.assert_close(roi_align(maps["0"], boxes, 7, 0.25, 2), plain)


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_network(neck: str, tmp_path: Path, cuda: Cuda) -> None:
    """The losses before anything is drawn at random are those of the CPU; boxes to learn from are
    drawn by the device, so of the others only what does not depend on which is compared."""
    backbone = load(resolve("random:test_resnet", tmp_path))
    targets = [target_of(np.array([[4, 4, 40, 44]], np.float32), np.array([1]))] * 2

    def network() -> Detector:
        return build_detector(backbone, 3, neck=neck, channels=8, head=16)

    def learned(detector: Detector, device: torch.device) -> tuple[dict[str, Tensor], list[Tensor]]:
        torch.manual_seed(3)
        batch = batch_of(pictures(), targets, MEAN, STD, detector.divisor, device)
        losses = detector(batch)
        torch.stack(list(losses.values())).sum().backward()
        return losses, [p.grad for p in detector.parameters() if p.grad is not None]

    expected, gradients = learned(network(), torch.device("cpu"))
    there = network()
    with cuda():
        there.to(CUDA)
        losses, found = learned(there, CUDA)
        answers = there.eval().detect(batch_of(pictures(), None, MEAN, STD, there.divisor, CUDA))
        boxes = [found_in(a, (60, 64), (120, 128)) for a in answers]
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.device == CUDA
        assert np.isfinite(value_of(loss).detach().numpy()), name
    assert_on_cuda(losses["loss_objectness"], expected["loss_objectness"], 0.1)
    assert len(found) == len(gradients)
    assert all(g.device == CUDA and bool(value_of(g).isfinite().all()) for g in found)
    assert any(bool(value_of(g).abs().max() > 0) for g in found)
    assert all(answer["boxes"].device == CUDA for answer in answers)
    assert len(boxes) == 2
