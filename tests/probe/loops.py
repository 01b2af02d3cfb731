"""A small training that shows any disturbance: BatchNorm, dropout, augmentation, all generators."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TRANSFORM: dict[str, Any] = {
    "input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "crop_pct": 1.0,
}  # fmt: skip


class Small(nn.Module):
    """Images [N, 3, 16, 16] -> logits [N, 4], by way of features [N, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def features(net: Any, images: Tensor) -> Tensor:
    """Those of `Small`, before its head."""
    return net.body(images)


def batch() -> tuple[Tensor, Tensor]:
    """Images and labels drawn from three generators, as augmentations draw."""
    images = torch.rand(8, 3, 16, 16) * random.random() + np.random.rand()
    return images, torch.randint(4, (8,))


def train(
    steps: int, after: Callable[[int, nn.Module], object] = lambda step, net: None
) -> tuple[dict[str, Tensor], list[float]]:
    """(state of the network and of the optimiser, losses) of a training from a fixed start;
    ``after`` is called after each step."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    net = Small().train()
    net.body[1].eval()  # a part that is not trained, whose mode must stay
    net.body[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for step in range(1, steps + 1):
        images, labels = batch()
        loss = nn.functional.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        after(step, net)
        if step == 4:
            net.body[1].train()
    state = dict(net.state_dict())
    for number, held in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{number}.{k}": v for k, v in held.items()}
    return state, [*losses, random.random(), float(np.random.rand()), float(torch.rand(1))]
