"""A vision network of transformers from a checked config.json: counted, built, filled, pooled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.common.errors import BadInput, one_line
from eval.models import weights
from eval.models.formats.transformers_config import Pool, TransformersConfig
from eval.models.formats.transformers_library import library_config, quiet
from eval.models.timm_network import SPARE, numbers

# Of a trained pooler, where an architecture may have one.
_POOLER = "pooler.dense.weight"


class PooledOutput(nn.Module):
    """Images [B, C, H, W] -> the library's own pooled output [B, D].

    ``pooler`` is ``pooler_output``; where there is none, the class token or the mean of all tokens
    after the last norm, as the library's own classifiers read them.
    """

    def __init__(self, net: Any, pool: Pool) -> None:
        super().__init__()
        self.net, self._pool = net, pool
        self._masks = "noise" in _forward_names(net)  # MAE

    def forward(self, images: Tensor) -> Tensor:
        extra: dict[str, Any] = {}
        if self._masks:  # patches stay in their order, and the same from call to call
            patches = self.net.embeddings.patch_embeddings.num_patches
            steps = torch.arange(patches, device=images.device, dtype=torch.float32)
            extra["noise"] = steps.expand(len(images), -1)
        out = self.net(pixel_values=images, **extra)
        if self._pool == "pooler":
            return out.pooler_output.flatten(1)
        tokens = out.last_hidden_state  # [B, tokens, D]
        return tokens[:, 0] if self._pool == "class token" else tokens.mean(1)


def check_budget(config: TransformersConfig, held: int, who: str, *, pooler: bool) -> Any:
    """The network built without memory. Raises UserError where the library cannot build it, and
    where it is far larger than weights of ``held`` numbers."""
    with torch.device("meta"):
        net = _build(config, who, pooler)
    wanted = numbers(net)
    if wanted > 2 * held + SPARE:
        raise BadInput(
            f"config.json of {who} describes a network of {wanted:,} numbers, its weights hold "
            f"at most {held:,}"
        )
    return net


def load(
    config: TransformersConfig, paths: Sequence[Path], who: str
) -> tuple[PooledOutput, list[str]]:
    """The network with its weights, on the CPU, and what to say of them.

    The library brings names of older files to those of its classes; what it then finds missing, of
    another shape or left over is held to the rules of `eval.models.weights`. Raises UserError.
    """
    held = weights.elements(paths, who)
    check_budget(config, held, who, pooler=False)
    state = weights.read_tensors(paths, who)
    state = {weights.unwrapped(name): tensor for name, tensor in state.items()}
    pooler = config.architecture.optional_pooler and any(n.endswith(_POOLER) for n in state)
    kind = _class(config)
    wanted = _build(config, who, pooler, meta=True).state_dict()
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net, found = kind.from_pretrained(
                None,
                config=_own_config(config, who),
                state_dict=state,
                output_loading_info=True,
                dtype=torch.float32,
                **_pooler_argument(config, pooler),
            )
    except Exception as error:  # shapes that differ, above all
        raise BadInput(
            f"the weights of {who} do not load into its architecture: {one_line(error)}"
        ) from None
    # What was left over is named as in the file, there perhaps under its class's or a tower's name.
    left = [n.removeprefix(f"{net.base_model_prefix}.") for n in found["unexpected_keys"]]
    left = [n.removeprefix("vision_model.") for n in left]
    notes = weights.loaded_notes(found["missing_keys"], left, found["mismatched_keys"], wanted, who)
    weights.check_finite(net, who)
    pool: Pool = "pooler" if pooler else config.architecture.pool
    taken = "pooler_output" if pool == "pooler" else pool
    notes.append(f"features of {who} are transformers' {taken}")
    return PooledOutput(net, pool), notes


def _class(config: TransformersConfig) -> Any:
    import transformers

    return getattr(transformers, config.architecture.model)


def _own_config(config: TransformersConfig, who: str) -> Any:
    own = library_config(config, who)
    if hasattr(own, "mask_ratio"):
        own.mask_ratio = 0.0
    return own


def _pooler_argument(config: TransformersConfig, pooler: bool) -> dict[str, bool]:
    return {"add_pooling_layer": pooler} if config.architecture.optional_pooler else {}


def _build(config: TransformersConfig, who: str, pooler: bool, *, meta: bool = False) -> Any:
    own = _own_config(config, who)
    if getattr(own, "vision_use_head", True) is False:
        raise BadInput(
            f"config.json of {who} has vision_use_head false: without its pooling head, no pooled "
            "features are told"
        )
    try:
        with quiet(), torch.device("meta") if meta else torch.random.fork_rng(devices=[]):
            return _class(config)(own, **_pooler_argument(config, pooler))
    except Exception as error:
        raise BadInput(
            f"transformers cannot build the network of {who} as its config.json has it: "
            f"{one_line(error)}"
        ) from None


def _forward_names(net: nn.Module) -> set[str]:
    import inspect

    return set(inspect.signature(net.forward).parameters)
