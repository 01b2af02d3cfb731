"""One vector per image from whatever shape a backbone returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PooledFeatures(nn.Module):
    """Wraps a headless timm model so that [B, 3, H, W] always becomes [B, D].

    Most models pool by themselves once the classifier is gone. Of the others, maps are averaged
    over space and token sequences over tokens (a model that has a class token pools by itself).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.num_features = int(getattr(net, "num_features", 0))

    def forward(self, images: Tensor) -> Tensor:
        out = self.net(images)
        if isinstance(out, (tuple, list)):  # distilled models may return one vector a head
            out = torch.stack([o for o in out if o.ndim == 2]).mean(0)
        if out.ndim == 4:
            channels_last = out.shape[1] != self.num_features == out.shape[3]
            out = out.mean((1, 2) if channels_last else (2, 3))  # [B, H, W, D] or [B, D, H, W]
        elif out.ndim == 3:
            out = out.mean(1)  # [B, tokens, D]
        return out.flatten(1)
