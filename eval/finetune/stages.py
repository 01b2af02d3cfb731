"""The stages of a network, as timm names them, and what stays as it was where some are frozen.

A stage begins where the one before ends: a ResNet's first, which timm names by its activation
(``act1``), has the stem's convolution and BatchNorm, and an EfficientNet's last has both blocks of
its resolution, of which timm names the second. What comes before the first is frozen with it, what
follows the last (final norms, pooling that has parameters) is always free.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from eval.common.errors import BadInput
from eval.models.backbone import Backbone
from eval.models.resolve import stage_facts


@dataclass(frozen=True)
class Frozen:
    """What does not train: modules that stay in eval mode whatever the network is told, and
    parameters, also those that a module holds which is free in part (a ViT's ``pos_embed``)."""

    modules: tuple[nn.Module, ...] = ()
    parameters: tuple[nn.Parameter, ...] = ()


def free_stages(backbone: Backbone, last: int) -> tuple[str, ...]:
    """Names of the ``last`` stages; of none for 0, which is all of the network.

    Raises UserError where there are fewer, none, or such that their order says nothing.
    """
    net, who = backbone.net.net, backbone.resolved.id
    assert isinstance(net, nn.Module)
    if not last:
        return ()
    names = _stages(net)
    if not names:
        raise BadInput(
            f"{who} has no stages that timm names (no feature_info), so finetune.last cannot be "
            f"{last}; use 0, with which everything trains"
        )
    if last > len(names):
        raise BadInput(
            f"finetune.last is {last}, but {who} has {len(names)} stages ({', '.join(names)}); "
            f"use {len(names)} at most"
        )
    if last < len(names) and not _in_order(net, names):
        raise BadInput(
            f"the stages of {who} ({', '.join(names)}) are not modules that follow one another, so "
            f"finetune.last cannot be {last}; use 0, with which everything trains"
        )
    return tuple(names[-last:])


def frozen(net: nn.Module, last: int) -> Frozen:
    """What is frozen of a headless timm network if its ``last`` stages train; nothing for 0.

    ``last`` is one that ``free_stages`` takes.
    """
    names = _stages(net)
    if not last or last >= len(names):
        return Frozen()
    places = _places(net)
    end = _span(net, names[-last - 1])[1]
    closed = [m for m in places if max(places[part] for part in m.modules()) < end]
    held = [p for m, place in places.items() if place < end for p in m.parameters(recurse=False)]
    return Frozen(tuple(closed), tuple(held))


def _stages(net: nn.Module) -> list[str]:
    """Names of the modules whose output timm counts as a stage's, first to last."""
    return [fact["module"] for fact in stage_facts(net)]


def _places(net: nn.Module) -> dict[nn.Module, int]:
    """Each module's place in the order of registration, a parent before its parts."""
    return {module: place for place, module in enumerate(net.modules())}


def _span(net: nn.Module, name: str) -> tuple[int, int]:
    """The places of a module and its parts: the first, and the one behind the last."""
    places = _places(net)
    inside = [places[part] for part in net.get_submodule(name).modules()]
    return min(inside), max(inside) + 1


def _in_order(net: nn.Module, names: list[str]) -> bool:
    """Whether each stage is there and begins behind the one before."""
    there = dict(net.named_modules())
    if any(name not in there for name in names):
        return False
    spans = [_span(net, name) for name in names]
    return all(a[1] <= b[0] for a, b in pairwise(spans))
