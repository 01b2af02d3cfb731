"""Networks of ``random:``: an architecture of timm's, drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eval.common.errors import BadInput, one_line
from eval.models import timm_network
from eval.models.resolve import ResolvedModel

MOST_NUMBERS = 500_000_000  # of a stranger's: 2 GB in fp32


def untrained(model: ResolvedModel) -> nn.Module:
    """The network with its classifier, its weights drawn from the seed. Raises UserError where timm
    cannot build it at this size."""
    import timm

    kwargs: dict[str, Any] = {}
    config = timm.get_pretrained_cfg(model.name)
    if model.img_size and config is not None and config.fixed_input_size:
        kwargs["img_size"] = model.img_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(model.revision.removeprefix("seed")))
        try:
            net: nn.Module = timm.create_model(model.name, pretrained=False, **kwargs)
        except Exception as error:
            at = f" at {model.img_size} px" if model.img_size else ""
            raise BadInput(f"{model.id} cannot be built{at}: {one_line(error)}") from None
    return net


def check_untrained(model: ResolvedModel) -> None:
    """Raises UserError for more than `MOST_NUMBERS`, which are counted before any is drawn."""
    with torch.device("meta"):
        numbers = timm_network.numbers(untrained(model))
    if numbers > MOST_NUMBERS:
        raise BadInput(f"{model.id} has {numbers:,} numbers, at most {MOST_NUMBERS:,} are drawn")
