"""RoIAlign and its gradient against torchvision's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align as reference

from eval.detection.pooling import roi_align

coordinate = st.floats(-40, 200, width=32)


@settings(deadline=None, max_examples=60)
@given(
    corners=st.lists(st.tuples(*[coordinate] * 4), min_size=1, max_size=5),
    height=st.integers(1, 9), width=st.integers(1, 9),
    scale=st.sampled_from([1.0, 0.25, 1 / 32]), samples=st.integers(1, 3),
)  # fmt: skip
def test_values_and_gradients_are_torchvisions(
    corners: list[tuple[float, float, float, float]], height: int, width: int, scale: float,
    samples: int,
) -> None:  # fmt: skip
    boxes = torch.tensor(corners)
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)
    boxes = [boxes, boxes[:0], boxes.flip(0)]
    random = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 2, height, width, generator=random, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    mine = roi_align(ours, boxes, 3, scale, samples)
    right = reference(theirs, boxes, 3, scale, samples)
    torch.testing.assert_close(mine, right, atol=1e-4, rtol=1e-4)
    gradient = torch.randn(right.shape, generator=random)
    mine.backward(gradient)
    right.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3)


def test_no_boxes() -> None:
    features = torch.ones(2, 3, 4, 4, requires_grad=True)
    pooled = roi_align(features, [torch.zeros(0, 4), torch.zeros(0, 4)], 7, 0.25, 2)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout(layout: torch.memory_format) -> None:
    features = torch.randn(2, 8, 12, 10)
    boxes = [torch.tensor([[0.0, 0.0, 100.0, 60.0]]), torch.tensor([[8.0, 9.0, 30.0, 31.0]])]
    want = reference(features, boxes, 7, 0.1, 2)
    got = roi_align(features.contiguous(memory_format=layout), boxes, 7, 0.1, 2)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
