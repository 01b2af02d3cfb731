"""Which network of timm a checkpoint file holds: named by its user, or told by ResNet shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput
from eval.models.checkpoint_keys import Account, account

if TYPE_CHECKING:
    from torch import Tensor

# torchvision's ResNets under their timm names: what shapes alone tell.
RESNETS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a file is: its tensors told apart for an architecture, and the side of its images where
    position embeddings tell it."""

    architecture: str
    account: Account
    px: int | None


def told(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Told:
    """Tell a file's tensors apart. Without ``architecture`` a ResNet is looked for that they fit to
    the last one. Raises UserError where none does, and like `account`."""
    for name in [architecture] if architecture else RESNETS:
        net, classifier = without_memory(name)
        found = account(top, file, net, classifier)
        if architecture or _fits(found, net, classifier):
            return Told(name, found, _px_of(found))
    raise BadInput(
        f"{file}: its weights are of none of {', '.join(RESNETS)}; name the architecture (--arch, "
        "or ?arch= of file:), as no shape tells the heads of a vision transformer"
    )


def without_memory(name: str) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes of a timm network by name, and the name of its classifier."""
    import timm
    import torch

    with torch.device("meta"):
        net = timm.create_model(name)
    known = timm.get_pretrained_cfg(name)
    classifier = known.classifier if known else None
    if isinstance(classifier, tuple | list):
        classifier = classifier[0]
    return {n: tuple(t.shape) for n, t in net.state_dict().items()}, classifier or "head"


def _fits(found: Account, net: Mapping[str, tuple[int, ...]], classifier: str) -> bool:
    used = {to: tuple(found.state[key].shape) for key, to in found.uses.items()}
    return not found.lost and all(
        used.get(name) == shape
        for name, shape in net.items()
        if not name.startswith(f"{classifier}.") and not name.endswith("num_batches_tracked")
    )


def _px_of(found: Account) -> int | None:
    """The side of the images by which position embeddings [1, tokens, dim] were trained."""
    tensors: dict[str, Tensor] = {to: found.state[key] for key, to in found.uses.items()}
    places, patches = tensors.get("pos_embed"), tensors.get("patch_embed.proj.weight")
    if places is None or patches is None or places.ndim != 3:
        return None
    extra = sum(tensors[n].shape[1] for n in ("cls_token", "reg_token") if n in tensors)
    for tokens in (places.shape[1] - extra, places.shape[1]):
        if tokens > 0 and math.isqrt(tokens) ** 2 == tokens:
            return math.isqrt(tokens) * int(patches.shape[-1])
    return None
