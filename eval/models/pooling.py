"""One vector per image from whatever shape a backbone returns, and what its layers give."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from eval.models.resolve import stage_facts

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


@contextlib.contextmanager
def listening(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Fills a dict with what the named modules of a ``PooledFeatures`` give while it runs.

    The network is shared: it is listened to inside the block, and no longer.
    """
    inner, seen = net.net, dict[str, Tensor]()
    assert isinstance(inner, nn.Module)
    handles = [
        inner.get_submodule(name).register_forward_hook(
            lambda module, given, out, name=name: seen.__setitem__(name, out)
        )
        for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def channels_of(net: object) -> dict[str, int]:
    """{layer: channels} as timm tells them."""
    return {f["module"]: int(f["num_chs"]) for f in stage_facts(net)}


def channels_last(out: Tensor, channels: int) -> bool:
    """Whether a map is [B, H, W, D] rather than [B, D, H, W]."""
    return out.shape[1] != channels == out.shape[3]
