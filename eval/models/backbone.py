"""A resolved model -> the network that gives features, strictly loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, one_line
from eval.common.files import sha256_file
from eval.hub import client
from eval.models.resolve import _MODEL_FILES, ResolvedModel

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True)
class Backbone:
    """A network ready to encode: ``net`` maps normalised [B, 3, H, W] float32 to [B, dim].

    ``transform`` stops at 8-bit pixels: normalising a whole batch on the device is cheaper, and
    a quarter of the bytes travel there.
    """

    resolved: ResolvedModel
    net: torch.nn.Module
    transform: Callable[[Image.Image], Any]  # RGB image -> [3, H, W] uint8, array or tensor
    input_config: dict[str, Any]  # timm's data config: input_size, mean, std, crop, interpolation
    dim: int
    params: int
    weights_sha256: str
    layer: str = "pooled"  # which features ``net`` gives: part of a bank's key


def load(model: ResolvedModel) -> Backbone:
    """Build the network in eval mode on the CPU, its classifier removed.

    Weights are loaded strictly with the classifier in place and it is dropped afterwards: timm
    loads loosely when the head differs, and a backbone with missing weights must not score.
    Raises UserError when the weights do not fit the architecture.
    """
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    from eval.models.pooling import PooledFeatures

    kwargs: dict[str, Any] = {}
    if model.kind == "random":
        config = timm.get_pretrained_cfg(model.name)
        if model.img_size and config is not None and config.fixed_input_size:
            kwargs["img_size"] = model.img_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(model.revision.removeprefix("seed")))
            try:
                net = timm.create_model(model.name, pretrained=False, **kwargs)
            except Exception as error:
                at = f" at {model.img_size} px" if model.img_size else ""
                raise BadInput(f"{model.id} cannot be built{at}: {one_line(error)}") from None
        drop_classifier(net)
        weights_sha256 = _state_sha256(net)
    else:
        folder = model.folder or client.fetch(
            str(model.repo), model.revision, _MODEL_FILES, f"model {model.id!r}"
        )
        if model.img_size and _wants_img_size(folder):
            kwargs["img_size"] = model.img_size
        try:
            with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
                net = timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs)
        except Exception as error:
            raise BadInput(
                f"the weights of {model.id} do not load into its architecture: {one_line(error)}"
            ) from None
        drop_classifier(net)
        weights_sha256 = sha256_file(folder / "model.safetensors")
    net.eval().requires_grad_(False)

    args = {"img_size": model.img_size} if model.img_size else {}
    data_config = resolve_data_config(args, model=net)
    if data_config["input_size"][0] != 3:
        raise BadInput(f"{model.id} takes {data_config['input_size'][0]} channels, not RGB")
    pooled = PooledFeatures(net)
    with torch.inference_mode():
        try:
            out = pooled(torch.zeros(1, *data_config["input_size"]))
        except Exception as error:
            raise BadInput(
                f"{model.id} does not run at {data_config['input_size'][1]} px: {one_line(error)}"
            ) from None
    return Backbone(
        resolved=model,
        net=pooled.eval(),
        transform=create_transform(**data_config, is_training=False, use_prefetcher=True),
        input_config={k: list(v) if isinstance(v, tuple) else v for k, v in data_config.items()},
        dim=out.shape[1],
        params=sum(p.numel() for p in net.parameters()),
        weights_sha256=weights_sha256,
    )


def drop_classifier(net: Any) -> None:
    """Make a timm model return features. Raises UserError where its class cannot."""
    if not callable(getattr(net, "reset_classifier", None)):
        raise BadInput(f"{type(net).__name__} has no reset_classifier: not a timm classifier")
    net.reset_classifier(0)


def _wants_img_size(folder: Path) -> bool:
    """Whether the architecture is built for one input size (ViTs) rather than any (CNNs)."""
    import timm

    config = json.loads((folder / "config.json").read_text())
    fixed = config.get("pretrained_cfg", {}).get("fixed_input_size")
    if fixed is None:
        known = timm.get_pretrained_cfg(config["architecture"])
        fixed = bool(known is not None and known.fixed_input_size)
    return bool(fixed)


def _state_sha256(net: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
