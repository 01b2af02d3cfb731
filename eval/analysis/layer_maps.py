"""The layers of a backbone as maps, with their places."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eval.analysis.layers import LAST
from eval.analysis.measures.inversion import Size
from eval.common.errors import BadInput
from eval.models.backbone import Backbone
from eval.models.pooling import channels_last, channels_of, listening


class LayerMaps:
    """[B, 3, H, W] normalised images -> {layer: [B, C, h, w]}.

    A sequence's patch tokens lie on their grid, a vector is a map of one place.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.net = backbone.net
        self.inner = backbone.net.net
        self.channels = channels_of(self.inner)
        self.prefix_tokens = int(getattr(self.inner, "num_prefix_tokens", 0))
        self.id = backbone.resolved.id

    def __call__(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        with listening(self.net, [name for name in names if name != LAST]) as seen:
            last = self.net(images)
        return {
            name: last[:, :, None, None] if name == LAST else self._placed(name, seen[name])
            for name in names
        }

    def _placed(self, name: str, out: Tensor) -> Tensor:
        if out.ndim == 3:
            out = out[:, self.prefix_tokens :]  # [B, tokens, D]
            height, width = self._grid(name, out.shape[1])
            return out.transpose(1, 2).unflatten(2, (height, width))
        if out.ndim == 4:
            last = channels_last(out, self.channels[name])
            return out.permute(0, 3, 1, 2) if last else out
        return out.flatten(1)[:, :, None, None]

    def _grid(self, name: str, tokens: int) -> Size:
        grid = getattr(getattr(self.inner, "patch_embed", None), "grid_size", None)
        if grid is not None and grid[0] * grid[1] == tokens:
            return int(grid[0]), int(grid[1])
        side = round(tokens**0.5)
        if side * side != tokens:
            raise BadInput(f"the {tokens} tokens of {self.id}'s layer {name!r} lie on no grid")
        return side, side
