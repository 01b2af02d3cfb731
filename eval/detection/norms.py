"""How a detector's BatchNorm layers are trained."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eval.common.errors import NotFound

NORMS = ("batch", "frozen")


def check_norm(norm: str) -> None:
    """Raises UserError for a name that is none of ``NORMS``."""
    if norm not in NORMS:
        raise NotFound(f"norm {norm!r} is unknown; it is 'batch' (trained) or 'frozen'")


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Its BatchNorm layers: torch's own, synchronised ones and timm's with an activation inside."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def freeze(module: nn.Module) -> None:
    """Fix statistics, scale and shift of the BatchNorm layers. The layers stay what they are, for
    timm's hold the activation; who calls ``train()`` afterwards must call this again."""
    for norm in batch_norms(module):
        norm.eval().requires_grad_(False)


def synchronised(module: nn.Module) -> nn.Module:
    """With SyncBatchNorm in the place of BatchNorm where several processes train on CUDA; elsewhere
    as it is, for SyncBatchNorm has no CPU kernel. Who keeps to the CPU beside a GPU talks gloo."""
    from timm.layers import convert_sync_batchnorm
    from torch import distributed

    several = (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
    on_cuda = several and torch.cuda.is_available() and distributed.get_backend() != "gloo"
    return convert_sync_batchnorm(module) if on_cuda else module
