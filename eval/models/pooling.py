"""One vector per image from whatever shape a backbone returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)  # of ITU-R 601, as PIL's convert("L")


class PooledFeatures(nn.Module):
    """Wraps a headless timm model so that [B, 3, H, W] always becomes [B, D].

    Most models pool by themselves once the classifier is gone. Of the others, maps are averaged
    over space and token sequences over tokens (a model that has a class token pools by itself).
    ``grey`` is for a model of one channel: it sees the luma of images whose three channels were
    normalised alike, which is the luma normalised, as the weights sum to one.
    """

    def __init__(self, net: nn.Module, *, grey: bool = False) -> None:
        super().__init__()
        self.net = net
        self.grey = grey
        self.num_features = int(getattr(net, "num_features", 0))

    def forward(self, images: Tensor) -> Tensor:
        if self.grey:
            red, green, blue = images.unbind(1)  # [B, H, W] each
            images = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)
        out = self.net(images)
        if isinstance(out, (tuple, list)):  # distilled models may return one vector a head
            out = torch.stack([o for o in out if o.ndim == 2]).mean(0)
        if out.ndim == 4:
            channels_last = out.shape[1] != self.num_features == out.shape[3]
            out = out.mean((1, 2) if channels_last else (2, 3))  # [B, H, W, D] or [B, D, H, W]
        elif out.ndim == 3:
            out = out.mean(1)  # [B, tokens, D]
        return out.flatten(1)
