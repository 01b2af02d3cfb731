"""A grid of attentive probes trained by AdamW in one pass over tokens.

A probe is one learned query that attends over an image's tokens with several heads, and a linear
layer on what it gathers: AIM's AttentionPoolingClassifier (apple/ml-aim, aim/torch/layers.py;
El-Nouby et al. 2024). Keys and values have no bias, and nothing projects the query or the output.

Each is what `nn.MultiheadAttention` with one query computes, without computing keys and values of
the tokens: with one query a head's score of token x is (W_k^T q) . x, and its output W_v applied to
the tokens' mean under the attention. So a token meets two products of width D a head, and not two
matrices of D x D, and those of all probes are one product.

The losses of all probes are summed: none of them touches another's weights, and AdamW works on each
number alone. A probe whose loss is not finite is frozen and marked.

Shapes: B images, T tokens, D their width, G probes, H heads, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NAMES = ("query", "key", "value", "weight", "bias")
_WARM_UP = 0.05  # of the steps


def most_heads(width: int, heads: int) -> int:
    """The largest number up to ``heads`` that divides the width."""
    return next(h for h in range(min(heads, width), 0, -1) if width % h == 0)


def initial(width: int, classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """query [D], key [D, D], value [D, D], weight [C, D] and bias [C]: the query as AIM draws it,
    the layers as nn.Linear."""

    def linear(rows: int) -> Tensor:
        drawn = torch.empty(rows, width)
        nn.init.kaiming_uniform_(drawn, math.sqrt(5), generator=generator)
        return drawn

    query = 0.02 * torch.randn(width, generator=generator)
    key, value, weight = linear(width), linear(width), linear(classes)
    bias = torch.empty(classes)
    nn.init.uniform_(bias, -1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)
    return dict(zip(_NAMES, (query, key, value, weight, bias), strict=True))


def rate(step: int, steps: int) -> float:
    """What part of its rate a step has: up over the first twentieth, then down a cosine to 0."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class AttentiveProbes:
    """G probes that start alike, one rate and weight decay each, for a number of steps."""

    def __init__(
        self,
        start: dict[str, Tensor],
        heads: int,
        lrs: Sequence[float],
        weight_decays: Sequence[float],
        steps: int,
    ) -> None:
        if len(lrs) != len(weight_decays) or not lrs:
            raise ValueError(
                f"need a rate and a weight decay for each probe: got {len(lrs)} and "
                f"{len(weight_decays)}"
            )
        if len(start["query"]) % heads:
            raise ValueError(f"{heads} heads do not divide a width of {len(start['query'])}")
        self.heads, self.steps, self.done = heads, steps, 0
        self.count = len(lrs)
        self.diverged = [False] * self.count
        self._lrs = tuple(lrs)
        self._own = [  # of each probe
            {name: nn.Parameter(start[name].clone()) for name in _NAMES} for _ in lrs
        ]
        groups = [
            {"params": list(own.values()), "lr": lr, "weight_decay": decay}
            for own, lr, decay in zip(self._own, lrs, weight_decays, strict=True)
        ]
        self._adam = torch.optim.AdamW(groups)

    def step(self, tokens: Tensor, labels: Tensor) -> None:
        """One step of every probe on tokens [B, T, D] with labels [B]."""
        part = rate(self.done, self.steps)
        for group, lr in zip(self._adam.param_groups, self._lrs, strict=True):
            group["lr"] = part * lr
        self._adam.zero_grad()
        logits = self._logits(tokens)  # [B, G, C]
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels.repeat_interleave(self.count), reduction="none"
        )
        losses = losses.view(-1, self.count).mean(0)  # [G]
        for probe in (~losses.isfinite()).nonzero().flatten().tolist():
            self.diverged[probe] = True
        losses.sum().backward()
        for own, gone in zip(self._own, self.diverged, strict=True):
            if gone:
                self._freeze(own)
        self._adam.step()
        self.done += 1

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """[B, G, C] of tokens [B, T, D]."""
        return self._logits(tokens)

    def parameters(self, probe: int) -> dict[str, Tensor]:
        """Copies of a probe's query, key, value, weight and bias."""
        return {name: value.detach().clone() for name, value in self._own[probe].items()}

    def _freeze(self, own: dict[str, nn.Parameter]) -> None:
        """At zero, where it stays: its loss is that of a guess, and no number of it is broken."""
        for value in own.values():
            value.grad = None
            value.data.zero_()

    def _logits(self, tokens: Tensor) -> Tensor:
        query, key, value, weight, bias = (
            torch.stack([own[name] for own in self._own]) for name in _NAMES
        )
        g, h, (b, _, d) = self.count, self.heads, tokens.shape
        split = (g, h, d // h)
        # [G, H, D]: what each head's score weighs a token with
        seeking = torch.einsum("ghe,ghed->ghd", query.view(split), key.view(*split, d))
        scores = tokens @ seeking.view(g * h, d).t() * (d // h) ** -0.5  # [B, T, G H]
        gathered = scores.softmax(1).transpose(1, 2) @ tokens  # [B, G H, D]
        out = torch.einsum("bghd,ghed->bghe", gathered.view(b, g, h, d), value.view(*split, d))
        return torch.einsum("bgd,gcd->bgc", out.reshape(b, g, d), weight) + bias
