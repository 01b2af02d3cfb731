"""What a network costs an image: multiply-adds, which are the same on every machine.

Seconds are of one machine and of what else ran there; boards whose rows come from many machines
need a cost that none of them changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def counted(net: nn.Module, image: Tensor) -> tuple[Tensor, int | None]:
    """What ``net`` makes of one image [1, C, H, W], and its multiply-adds: those of convolutions,
    matrix products and attention, as `torch.utils.flop_counter` counts them (two operations are one
    multiply-add). Normalisation, activations and pooling are not counted, as in the literature.

    None where the network does not run under a counter, or holds none of these. Raises what the
    network raises.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    counter.mod_tracker = _Whole()  # type: ignore[assignment]  # has what is asked of one
    try:
        with counter:
            out = net(image)
    except Exception:  # of the network, which then fails again, or of the counter
        return net(image), None
    return out, counter.get_total_flops() // 2 or None


class _Whole:
    """In the place of the counter's module tracker: all is counted together, and no hook is put on
    every module of the process, whose other threads may be running networks too."""

    parents = frozenset(["Global"])

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """[B, heads, N, d]: similarities and weighted sums, two operations a multiply-add."""
    batch, heads, count, width = query
    return 2 * batch * heads * count * key[2] * (width + value[3])


def _self_attention(query: Shape, *_: Any, **__: Any) -> int:
    """[B, N, D]: three projections, similarities, weighted sums, one projection."""
    batch, count, width = query
    return 2 * batch * count * width * (4 * width + 2 * count)


def _encoder_layer(source: Shape, *rest: Any, **__: Any) -> int:
    """[B, N, D] with a hidden layer of [F, D]."""
    batch, count, width = source
    hidden = rest[13][0]  # of ffn_weight_1
    return _self_attention(source) + 4 * batch * count * width * hidden


# What nn.MultiheadAttention and nn.TransformerEncoderLayer run as in evaluation, which the counter
# does not know; attention on a CPU it knows in newer versions of torch alone.
_FUSED: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._native_multi_head_attention: _self_attention,
    torch.ops.aten._transformer_encoder_layer_fwd: _encoder_layer,
}
