"""Backbone -> feature maps [B, C, H / stride, W / stride] for images of any size.

timm's ``features_only`` networks give the maps. Such a network is built anew for the backbone's
architecture and each of its tensors is copied, by name, from the backbone that was loaded strictly:
the backbone, which is shared, stays as it is, and no weight is ever missing unseen.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.common.errors import BadInput, UserError, one_line
from eval.models.backbone import Backbone
from eval.models.resolve import model_config
from eval.models.timm_config import timm_config

LEVELS = (4, 8, 16, 32)  # strides of a pyramid
_PROBE = (128, 192)  # not square, and not what anything is built for


class Maps(nn.Module):
    """Images [B, 3, H, W] -> maps [B, widths[i], H / strides[i], W / strides[i]], finest first;
    H and W are multiples of the largest stride."""

    strides: tuple[int, ...]
    widths: tuple[int, ...]


class Stages(Maps):
    """The last map of each stride of a hierarchical network."""

    def __init__(self, net: nn.Module, picks: dict[int, int], widths: tuple[int, ...]) -> None:
        """``picks``: stride -> which of the network's maps, finest first."""
        super().__init__()
        self.net = net
        self.picks = tuple(picks.values())
        self.strides = tuple(picks)
        self.widths = widths

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = channels_first(self.net, images)
        return [maps[i] for i in self.picks]


class LastMap(Maps):
    """The one map of a network without stages (a plain ViT), before its final norm, as in ViTDet.

    Images are padded to whole patches here. Where a patch is not a power of two (14), the map is
    resampled to stride 16, so that all strides of a pyramid built on it are powers of two.
    """

    def __init__(self, net: nn.Module, patch: int, width: int) -> None:
        super().__init__()
        self.net = net
        self.patch = patch
        self.strides = (patch if patch.bit_count() == 1 else 16,)
        self.widths = (width,)

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.patch, 0, -height % self.patch))
        last = channels_first(self.net, padded)[-1]
        if self.patch != self.strides[0]:
            last = resample(last, self.patch, self.strides[0], (height, width))
        return [last]


def resample(maps: Tensor, patch: int, stride: int, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] of one vector a patch -> [B, C, H / stride, W / stride] for images of ``size``:
    bilinear between patch centres, so that what lies at a pixel still lies there."""
    rows, columns = size[0] // stride, size[1] // stride
    # The factor, not the size, is given: the padded map covers more than the images.
    scaled = F.interpolate(maps, scale_factor=patch / stride, mode="bilinear", align_corners=False)
    return scaled[..., :rows, :columns]


class SimplePyramid(nn.Module):
    """One map -> strides 4, 8, 16, 32 and 64, as ViTDet has it (Li et al. 2022, section 3): the map
    is brought to each stride by itself, by transposed convolutions or maximum pooling, then a 1x1
    and a 3x3 convolution, each with a LayerNorm; stride 64 is every second place of 32.
    """

    def __init__(self, width: int, stride: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(self._level(width, stride, to, channels) for to in LEVELS)

    @staticmethod
    def _level(width: int, stride: int, to: int, channels: int) -> nn.Sequential:
        from timm.layers import LayerNorm2d

        layers: list[nn.Module] = []
        doublings = round(math.log2(stride / to))
        for i in range(doublings):
            layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
            width //= 2
            if i < doublings - 1:
                layers += [LayerNorm2d(width), nn.GELU()]
        layers += [nn.MaxPool2d(2) for _ in range(-doublings)]
        return nn.Sequential(
            *layers,
            nn.Conv2d(width, channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        (only,) = maps.values()
        out = OrderedDict((str(i), level(only)) for i, level in enumerate(self.levels))
        out["pool"] = F.max_pool2d(out[str(len(LEVELS) - 1)], 1, 2)
        return out


def channels_first(net: Any, images: Tensor) -> list[Tensor]:
    """The maps of a ``features_only`` network as [B, C, H, W] (Swin's are channels last)."""
    maps = list(net(images))
    if str(getattr(getattr(net, "output_fmt", None), "value", "NCHW")) == "NHWC":
        maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
    return maps


def architecture_of(backbone: Backbone) -> tuple[str, dict[str, Any]]:
    """timm's name of the backbone's architecture, and the arguments that build it for images of any
    size with all tensors shaped as the backbone's. Both can be written as JSON."""
    model = backbone.resolved
    net = inner(backbone)
    args: dict[str, Any] = {}
    if model.kind == "random":
        name = model.name
    else:
        config = timm_config(model_config(model).config, model.id)
        if config.channels != 3:
            raise BadInput(f"{model.id} takes grey images; objects are found in RGB images alone")
        name, args = config.architecture, copy.deepcopy(config.args)
    takes = _parameters(type(net))
    built_for = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if "img_size" in takes and built_for is not None:
        args["img_size"] = [int(side) for side in built_for]  # the shape of position embeddings
    if "dynamic_img_size" in takes:
        args["dynamic_img_size"] = True
    elif "strict_img_size" in takes:
        args["strict_img_size"] = False
    return name, args


def _parameters(kind: type) -> set[str]:
    """What a class takes to be built, with what its bases take: DeiT hands the rest to ViT."""
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    return {name for init in inits for name in inspect.signature(init).parameters}


def inner(backbone: Backbone) -> nn.Module:
    """timm's network inside the backbone's pooling."""
    net = backbone.net.net
    assert isinstance(net, nn.Module)
    return net


def feature_net(name: str, args: dict[str, Any], **extra: Any) -> Any:
    """timm's ``features_only`` network, untrained. Raises UserError where timm has none."""
    import timm

    args = {key: tuple(value) if key == "img_size" else value for key, value in args.items()}
    try:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
            return timm.create_model(name, pretrained=False, features_only=True, **args, **extra)
    except Exception as error:
        raise BadInput(
            f"{name} gives no feature maps to detect objects on: {one_line(error)}; a ResNet, "
            "ConvNeXt or ViT works"
        ) from None


def copy_weights(source: nn.Module, target: nn.Module, name: str) -> None:
    """Fill every tensor of a ``features_only`` network from the network it was made of.

    There ``stages.0.x`` may be called ``stages_0.x``, or stand behind ``model.`` or ``body.``.
    Raises UserError where a tensor is not found or has another shape.
    """
    own = source.state_dict()
    have = {key.replace(".", "_", 1): value for key, value in own.items()} | own
    with torch.no_grad():
        for key, tensor in target.state_dict().items():
            bare = key.removeprefix("model.").removeprefix("body.")
            found = have.get(key, have.get(bare))
            if found is None:
                raise BadInput(
                    f"{name} has no weights for {key!r} of its feature maps, so no detector can "
                    "start from it"
                )
            if found.shape != tensor.shape:
                raise BadInput(
                    f"weights {key!r} of {name} are {list(found.shape)} but its feature maps take "
                    f"{list(tensor.shape)}, so no detector can start from it"
                )
            tensor.copy_(found)


def build_maps(name: str, args: dict[str, Any], source: nn.Module | None = None) -> Maps:
    """The maps of an architecture, with the weights of ``source`` where there is one.

    Raises UserError for a network without maps, with maps that are too few for a pyramid, or for
    images of one size only.
    """
    net = feature_net(name, args)
    patch = _patch(net)
    if patch:
        maps: Maps = LastMap(net, patch, net.feature_info.channels()[-1])
        _probe(name, maps)
    else:
        shapes = _probe(name, net)
        picks = {int(stride): i for i, (stride, _) in enumerate(shapes) if stride in LEVELS}
        if missing := [s for s in LEVELS[1:] if s not in picks]:
            seen = ", ".join(f"{stride:g}" for stride, _ in shapes)
            raise BadInput(
                f"{name} has no feature map of stride {' and '.join(map(str, missing))} (it has "
                f"{seen}), which a pyramid needs; a ResNet, ConvNeXt or ViT works"
            )
        if (last := max(picks.values())) < len(shapes) - 1:  # stages that would never be trained
            net = feature_net(name, args, out_indices=tuple(range(last + 1)))
        picks = dict(sorted(picks.items()))
        maps = Stages(net, picks, tuple(shapes[i][1] for i in picks.values()))
    if source is not None:
        copy_weights(source, net, name)
    return maps


def build_halves(
    name: str, args: dict[str, Any], source: nn.Module | None = None
) -> tuple[nn.Sequential, int, nn.Sequential, int]:
    """A network up to its last map of stride 16, the width of that map, the stage of stride 32 that
    follows, and its width. Raises UserError for a network that is no plain sequence of stages."""
    from timm.models._features import FeatureListNet

    net = feature_net(name, args)
    if not isinstance(net, FeatureListNet) and not _patch(net):
        # EfficientNets are taken apart only when asked.
        cfg = {"feature_cls": "list", "flatten_sequential": True}
        try:
            net = feature_net(name, args, feature_cfg=cfg)
        except UserError:
            net = nn.Module()
    shapes: list[tuple[float, int]] = []
    if isinstance(net, FeatureListNet) and net.output_fmt.value == "NCHW":
        shapes = _probe(name, net)
    strides = [stride for stride, _ in shapes]
    if not strides or strides[-1] != 32 or 16 not in strides:
        raise BadInput(
            f"neck 'c4' needs a sequence of stages with one of stride 16 and one of 32 at its end, "
            f"which {name} has not; neck 'fpn' works"
        )
    if source is not None:
        copy_weights(source, net, name)
    cut = len(strides) - 1 - strides[::-1].index(16)
    layers = list(net.items())
    returned = [i for i, (key, _) in enumerate(layers) if key in net.return_layers]
    end = returned[cut] + 1
    trunk, stage = (nn.Sequential(OrderedDict(part)) for part in (layers[:end], layers[end:]))
    return trunk, shapes[cut][1], stage, shapes[-1][1]


def _patch(net: Any) -> int:
    """The stride that all maps of a network share; 0 where they differ."""
    strides = set(net.feature_info.reduction())
    return int(strides.pop()) if len(strides) == 1 else 0


@torch.no_grad()
def _probe(name: str, net: nn.Module) -> list[tuple[float, int]]:
    """Stride and width of each map, as they come out. Raises UserError where none come out."""
    net.eval()  # no statistics are kept of it
    image = torch.zeros(1, 3, *_PROBE)
    try:
        maps = net(image) if isinstance(net, Maps) else channels_first(net, image)
        shapes = [(_PROBE[0] / m.shape[2], _PROBE[1] / m.shape[3], m.shape[1]) for m in maps]
    except Exception as error:
        raise BadInput(
            f"{name} gives no feature maps of images of any size: {one_line(error)}; a ResNet, "
            "ConvNeXt or ViT works"
        ) from None
    net.train()
    return [(down if down == across else math.nan, wide) for down, across, wide in shapes]
