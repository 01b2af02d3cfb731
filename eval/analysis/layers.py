"""The layers of a backbone as features: one pass, one bank, a layer a range of its columns.

Layers are those that timm itself names in ``feature_info`` (a ResNet's stem and stages, a ViT's
blocks) and ``features``, the pooled vector that every other protocol uses. A map is averaged over
space, a sequence over its patch tokens. All of them stand side by side in one vector an image, so
the encoder, its cache and its resume serve them as they serve any features.

Spatial features keep the places: the whole map is one vector, and where that has more than
``SPATIAL`` values it is projected at random to so many. The projection is a balanced count sketch
(Charikar et al. 2002; Weinberger et al. 2009): values get drawn signs and are dealt out to
``SPATIAL`` sums. Inner products are kept on average, with a variance of
(|x|^2 |y|^2 + <x, y>^2) / ``SPATIAL`` at most, and it costs one pass over the values where a dense
projection of a stem would need gigabytes. It is drawn for the layer's shape alone, so two networks
with maps of one shape are projected alike.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eval.common.errors import NotFound
from eval.models.backbone import Backbone
from eval.models.pooling import channels_last, channels_of, listening
from eval.models.resolve import stage_facts

LAST = "features"
SPATIAL = 4096  # most values of a layer that keeps its places
_VERSION = 1  # raise it when a layer's vector changes


@dataclass(frozen=True)
class Layer:
    """Columns ``start`` to ``stop`` of a layered bank."""

    name: str
    start: int
    stop: int

    def of(self, features: Tensor) -> Tensor:
        """[N, width] of [N, all layers]."""
        return features[:, self.start : self.stop]


class LayerFeatures(nn.Module):
    """[B, 3, H, W] -> [B, all widths]: each layer averaged over its places, or sketched with them,
    then the last."""

    def __init__(self, net: nn.Module, names: Sequence[str], *, spatial: bool = False) -> None:
        """``net`` pools by itself (``PooledFeatures``); ``names`` are modules of the network in
        it."""
        super().__init__()
        self.net = net
        self.spatial = spatial
        self.names = tuple(names)
        inner = net.net
        assert isinstance(inner, nn.Module)
        self.channels = channels_of(inner)
        self.prefix_tokens = int(getattr(inner, "num_prefix_tokens", 0))
        self.widths: dict[str, int] = {}  # of each layer, once an image has passed

    def forward(self, images: Tensor) -> Tensor:
        with listening(self.net, self.names) as seen:
            last = self.net(images)
        vector = self._placed if self.spatial else self._pooled
        parts = {name: vector(seen[name], self.channels[name]) for name in self.names}
        parts[LAST] = last
        self.widths = {name: part.shape[1] for name, part in parts.items()}
        return torch.cat([part.float() for part in parts.values()], dim=1)

    def _pooled(self, out: Tensor, channels: int) -> Tensor:
        if out.ndim == 3:
            return out[:, self.prefix_tokens :].mean(1)  # [B, tokens, D]
        if out.ndim == 4:
            return out.mean((1, 2) if channels_last(out, channels) else (2, 3))
        return out.flatten(1)

    def _placed(self, out: Tensor, channels: int) -> Tensor:
        if out.ndim == 3:
            out = out[:, self.prefix_tokens :].transpose(1, 2)  # [B, D, tokens]
        elif out.ndim == 4 and channels_last(out, channels):
            out = out.permute(0, 3, 1, 2)
        return sketch(out.float(), SPATIAL)


def sketch(values: Tensor, width: int) -> Tensor:
    """[B, ...] -> [B, width]: a balanced count sketch; flattened as it is where no longer than
    that."""
    flat = values.flatten(1)
    length = flat.shape[1]
    if length <= width:
        return flat
    place, sign = _dealt(tuple(values.shape[1:]), length)
    dealt = flat[:, place.to(flat.device)] * sign.to(flat.device)
    filled = torch.nn.functional.pad(dealt, (0, -length % width))
    return filled.view(len(flat), -1, width).sum(1)


@functools.lru_cache(maxsize=64)
def _dealt(shape: tuple[int, ...], length: int) -> tuple[Tensor, Tensor]:
    """([length] an order, [length] signs), drawn for a layer's shape."""
    seed = hashlib.sha256(f"sketch/{_VERSION}/{shape}".encode()).digest()
    random = np.random.RandomState(np.frombuffer(seed, "<u4"))
    place = torch.from_numpy(random.permutation(length))
    return place, torch.from_numpy(random.choice([-1.0, 1.0], length).astype(np.float32))


def layer_names(backbone: Backbone) -> tuple[str, ...]:
    """The layers there are, first to last. Raises UserError where timm names none."""
    names = [f["module"] for f in stage_facts(backbone.net.net)]
    if not names:
        raise NotFound(
            f"{backbone.resolved.id} has no layers that timm names (no feature_info), so only its "
            f"{LAST!r} can be looked at"
        )
    return (*names, LAST)


def layered(
    backbone: Backbone, wanted: Sequence[str] = (), *, spatial: bool = False
) -> tuple[Backbone, tuple[Layer, ...]]:
    """(a backbone whose features are those of all its layers, the layers that are wanted).

    The network itself is shared with the given one. Raises UserError for a layer it has not.
    """
    names = layer_names(backbone)
    for name in wanted:
        if name not in names:
            raise NotFound(
                f"{backbone.resolved.id} has no layer {name!r}; its layers are {', '.join(names)}"
            )
    net = LayerFeatures(backbone.net, names[:-1], spatial=spatial).eval()
    with torch.inference_mode():
        dim = net(torch.zeros(1, *backbone.input_config["input_size"])).shape[1]
    layers, at = [], 0
    for name, width in net.widths.items():
        layers.append(Layer(name, at, at + width))
        at += width
    kind = "places" if spatial else "layers"
    layer = f"{kind}{_VERSION}:" + ",".join(f"{x.name}={x.stop - x.start}" for x in layers)
    chosen = tuple(x for x in layers if not wanted or x.name in wanted)
    return dataclasses.replace(backbone, net=net, dim=dim, layer=layer), chosen
