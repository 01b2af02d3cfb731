"""A resolved model -> the network that gives features, all of it loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, one_line, ran_out_of_memory
from eval.common.files import sha256_file
from eval.models.formats import Loaded, format_of
from eval.models.hub_weights import check_bytes
from eval.models.plugs import source
from eval.models.resolve import ResolvedModel, model_files
from eval.models.weight_files import combined

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
    # What makes a network of the tensors: activations, strides, epsilons and pooling are in no
    # tensor. A digest, part of a bank's key as ``layer`` is: which features ``net`` gives.
    construction: str
    layer: str = "pooled"
    notes: tuple[str, ...] = ()  # what was converted or dropped to load it: stands in results
    multiply_adds: int | None = None  # of one image of the input's size; None: not counted


def load(model: ResolvedModel) -> Backbone:
    """Build the network in eval mode on the CPU, its classifier removed.

    Every tensor of the backbone comes from the weights (`eval.models.weights`); what they hold
    beside it is dropped and said in ``notes``. Raises UserError when the weights do not fit the
    architecture, or are not those of the commit.
    """
    if model.kind == "source":
        return source(model.spec).load(model)
    if model.kind == "random":
        loaded = _untrained(model)
        weights_sha256 = _state_sha256(loaded.net)
        construction: list[Any] = [model.name]
    else:
        files = model_files(model)
        hashes = {name: sha256_file(files.folder / name) for name in files.weights}
        if model.folder is None:
            check_bytes(model, files.folder, hashes)
        loaded = format_of(files.config, model.id).loader().load(files)
        loaded = replace(loaded, notes=(*files.notes, *loaded.notes))
        weights_sha256 = combined(hashes)
        construction = [model.format, files.config, files.beside]
    return assembled(model, loaded, weights_sha256, construction)


def assembled(
    model: ResolvedModel, loaded: Loaded, weights_sha256: str, construction: Sequence[Any]
) -> Backbone:
    """A backbone of a network with its weights, in eval mode on the CPU and run once.

    ``construction``: plain values that tell it from any other network of the same tensors. Raises
    UserError where it does not run on an image of its size.
    """
    import torch
    from timm.data import create_transform

    from eval.models.multiply_adds import counted
    from eval.models.pooling import PooledFeatures

    net, data_config = loaded.net, loaded.input_config
    net.eval().requires_grad_(False)
    pooled = PooledFeatures(net, grey=loaded.channels == 1)
    if loaded.channels == 1:  # grey is made of RGB pixels that were normalised alike
        data_config |= {k: (data_config[k][0],) * 3 for k in ("mean", "std")}
        data_config["input_size"] = (3, *data_config["input_size"][1:])
    if data_config["input_size"][0] != 3:
        raise BadInput(f"{model.id} takes {data_config['input_size'][0]} channels, not RGB")
    with torch.inference_mode():
        try:
            out, cost = counted(pooled, torch.zeros(1, *data_config["input_size"]))
        except Exception as error:
            if ran_out_of_memory(error):  # no fault of the model
                raise
            raise BadInput(
                f"{model.id} does not run at {data_config['input_size'][1]} px: {one_line(error)}"
            ) from None
    return Backbone(
        resolved=model,
        net=pooled.eval(),
        transform=loaded.transform
        or create_transform(**data_config, is_training=False, use_prefetcher=True),
        input_config={k: list(v) if isinstance(v, tuple) else v for k, v in data_config.items()},
        dim=out.shape[1],
        params=sum(p.numel() for p in net.parameters()),
        weights_sha256=weights_sha256,
        construction=digest_of(construction),
        notes=loaded.notes,
        multiply_adds=cost,
    )


def digest_of(construction: Sequence[Any]) -> str:
    """Of plain values, the same on every machine."""
    return hashlib.sha256(json.dumps(construction, sort_keys=True).encode()).hexdigest()[:40]


def _untrained(model: ResolvedModel) -> Loaded:
    """The network of ``random:`` without its classifier."""
    from timm.data import resolve_data_config

    from eval.models.timm_network import drop_classifier
    from eval.models.untrained import untrained

    net = untrained(model)
    drop_classifier(net)
    args = {"img_size": model.img_size} if model.img_size else {}
    return Loaded(net, resolve_data_config(args, model=net))


def _state_sha256(net: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
