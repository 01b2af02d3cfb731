"""Features as a `Readout` asks for them: any layers and ways of pooling, from one pass.

Every layer's class token or mean is a piece of columns; what is asked for is some pieces side by
side. All pieces that several readouts need are encoded together, so that ten layers cost one pass.

Layers are those that timm names in ``feature_info``. The network's last norm is applied to each
whose width it has, as DINO's and DINOv2's ``get_intermediate_layers`` and timm's
``forward_intermediates(norm=True)`` do; a hierarchical network's earlier stages have other widths
and stay as they are. Without it late blocks differ in scale more than in content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eval.common.errors import BadInput, NotFound
from eval.models.backbone import Backbone
from eval.models.pooling import channels_last, channels_of, listening
from eval.models.resolve import stage_facts
from eval.settings.readout import AUTO, OWN, TOKENS, Readout

_VERSION = 1  # raise it when a piece's columns change
_DEFAULT = Readout()


@dataclass(frozen=True)
class Piece:
    """One vector of an image: a layer's class token, mean or tokens; or the network's own."""

    layer: str  # OWN for the network's own vector
    how: str = ""  # cls, mean, tokens

    def __str__(self) -> str:
        return f"{self.layer}:{self.how}" if self.how else self.layer


class ReadoutFeatures(nn.Module):
    """[B, 3, H, W] -> [B, all widths]: pieces side by side, in their order."""

    def __init__(self, net: nn.Module, pieces: Sequence[Piece], who: str) -> None:
        """``net`` holds the network itself as ``net.net``; it is shared, not copied."""
        super().__init__()
        self.net = net
        self.pieces = tuple(pieces)
        self.layers = tuple(dict.fromkeys(p.layer for p in pieces if p.layer != OWN))
        self.widths: dict[Piece, int] = {}  # once an image has passed
        self.depth = 0  # values of a token, once one has
        self._who = who
        inner = net.net
        assert isinstance(inner, nn.Module)
        self._channels = channels_of(inner)
        self._prefix = int(getattr(inner, "num_prefix_tokens", 0) or 0)
        self._has_class = class_token(inner)
        norm = getattr(inner, "norm", None)
        self._norm = norm if isinstance(norm, nn.Module) else None
        self._normed = int(getattr(inner, "num_features", 0))

    def forward(self, images: Tensor) -> Tensor:
        with listening(self.net, self.layers) as seen:
            own = self.net(images)
        out: dict[str, tuple[Tensor | None, Tensor]] = {}
        parts = []
        for piece in self.pieces:
            if piece.layer == OWN:
                parts.append(own)
                continue
            if piece.layer not in out:
                out[piece.layer] = self._split(piece.layer, seen.pop(piece.layer))
            parts.append(self._vector(piece, *out[piece.layer]))
        self.widths = {p: part.shape[1] for p, part in zip(self.pieces, parts, strict=True)}
        return torch.cat([part.float() for part in parts], dim=1)

    def _split(self, layer: str, out: object) -> tuple[Tensor | None, Tensor]:
        """(class token [B, D] or None, patch tokens [B, T, D]), after the last norm."""
        if not isinstance(out, Tensor) or out.ndim not in (3, 4):
            raise BadInput(
                f"layer {layer!r} of {self._who} gives no tokens and no map; choose another layer"
            )
        maps: Tensor = out
        if self._norm is not None and self._channels[layer] == self._normed:
            maps = self._norm(maps)
        if maps.ndim == 3:
            cls = maps[:, 0] if self._has_class else None
            return cls, maps[:, self._prefix :]
        if not channels_last(maps, self._channels[layer]):
            maps = maps.permute(0, 2, 3, 1)
        return None, maps.flatten(1, 2)

    def _vector(self, piece: Piece, cls: Tensor | None, tokens: Tensor) -> Tensor:
        if piece.how == "mean":
            return tokens.mean(1)
        if piece.how == TOKENS:
            self.depth = tokens.shape[2]
            return tokens.flatten(1)
        if cls is None:
            raise BadInput(f"{self._who} has no class token; take --pool mean or leave --pool out")
        return cls


def class_token(net: nn.Module) -> bool:
    """Whether token sequences of the network start with a class token."""
    return getattr(net, "cls_token", None) is not None and bool(
        getattr(net, "num_prefix_tokens", 1)
    )


def layer_names(backbone: Backbone) -> tuple[str, ...]:
    """The layers there are, first to last. Raises UserError where timm names none."""
    names = tuple(f["module"] for f in stage_facts(backbone.net.net))
    if not names:
        raise NotFound(
            f"{backbone.resolved.id} has no layers that timm names (no feature_info); leave --pool "
            "and --layer out"
        )
    return names


def pieces_of(backbone: Backbone, readout: Readout) -> tuple[Piece, ...]:
    """What a readout is made of, ``auto`` aside. Raises UserError for a layer that is not there."""
    if readout == _DEFAULT:
        return (Piece(OWN),)
    names = layer_names(backbone)
    layers = names[-1:]
    if readout.last is not None:
        if readout.last > len(names):
            raise NotFound(
                f"{backbone.resolved.id} has {len(names)} layers, not the {readout.last} of "
                f"{readout.layer}"
            )
        layers = names[-readout.last :]
    elif readout.layer:
        layers = tuple(readout.layer.split("+"))
        for name in layers:
            if name not in names:
                known = ", ".join((*names, OWN))
                raise NotFound(
                    f"{backbone.resolved.id} has no layer {name!r}; its layers are {known}"
                )
    pool = readout.pool
    if pool == "default":
        inner = backbone.net.net
        assert isinstance(inner, nn.Module)
        own_token = getattr(inner, "global_pool", "") == "token" and class_token(inner)
        pool = "cls" if own_token else "mean"
    if pool == TOKENS:
        return (Piece(layers[-1], TOKENS),)
    if pool == "cls+last-mean":
        return (*(Piece(x, "cls") for x in layers), Piece(layers[-1], "mean"))
    hows = pool.split("+")
    return tuple(Piece(layer, how) for how in hows for layer in layers)


def candidates(backbone: Backbone, readout: Readout) -> tuple[Readout, ...]:
    """What ``auto`` chooses among: each layer alone, first to last, then the network's own vector
    where it pools as by default. A readout that names its layers is alone."""
    if readout.layer != AUTO:
        return (readout,)
    each = [dataclasses.replace(readout, layer=name) for name in layer_names(backbone)]
    return (*each, *([_DEFAULT] if readout.pool == "default" else []))


def reading(backbone: Backbone, readouts: Iterable[Readout]) -> Backbone:
    """The backbone whose features are all pieces of the readouts, each once; the given one where
    that is its own vector alone. The network itself is shared.

    Raises UserError for a layer or a token that the network has not.
    """
    pieces = [
        piece
        for readout in readouts
        for one in candidates(backbone, readout)
        for piece in pieces_of(backbone, one)
    ]
    pieces = list(dict.fromkeys(pieces))
    if pieces == [Piece(OWN)]:
        return backbone
    net = ReadoutFeatures(backbone.net, pieces, backbone.resolved.id).eval()
    with torch.inference_mode():
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        dim = net(torch.zeros(1, *backbone.input_config["input_size"], device=device)).shape[1]
    words = ",".join(f"{p}={width}" for p, width in net.widths.items())
    own = "" if backbone.layer == "pooled" else f"{backbone.layer}/"
    return dataclasses.replace(backbone, net=net, dim=dim, layer=f"{own}readout{_VERSION}:{words}")


def columns(joint: Backbone, backbone: Backbone, readout: Readout) -> list[slice] | None:
    """Where the readout's pieces stand in the features of ``joint``; None where they are all."""
    if not isinstance(joint.net, ReadoutFeatures):
        return None
    at, places = 0, {}
    for piece, width in joint.net.widths.items():
        places[piece] = slice(at, at + width)
        at += width
    wanted = pieces_of(backbone, readout)
    return None if wanted == joint.net.pieces else [places[piece] for piece in wanted]


def tokens_of(backbone: Backbone, features: Tensor) -> Tensor:
    """[N, T, D] of the features [N, T D] of a backbone that reads tokens."""
    assert isinstance(backbone.net, ReadoutFeatures)
    return features.view(len(features), -1, backbone.net.depth)
