"""An attentive probe as torch's own attention computes it, trained alone in a plain loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eval.solvers.attentive import rate


class NaiveProbe(nn.Module):
    """nn.MultiheadAttention with one query, whose other projections are the identity, and
    nn.Linear; in float64."""

    def __init__(self, start: dict[str, Tensor], heads: int) -> None:
        super().__init__()
        width = len(start["query"])
        one = torch.eye(width, dtype=torch.float64)
        self.query = nn.Parameter(start["query"].double())
        self.attention = nn.MultiheadAttention(
            width, heads, bias=False, batch_first=True, kdim=width, vdim=width
        ).double()
        # kdim is not told apart from the width, so the three projections are one matrix
        self.attention.in_proj_weight.data.copy_(
            torch.cat([one, start["key"].double(), start["value"].double()])
        )
        self.attention.out_proj.weight.data.copy_(one)
        self.attention.out_proj.requires_grad_(False)
        self.attention.in_proj_weight.register_hook(_without_query)
        self.linear = nn.Linear(width, len(start["bias"])).double()
        self.linear.weight.data.copy_(start["weight"])
        self.linear.bias.data.copy_(start["bias"])

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query.expand(len(tokens), 1, -1)
        out, _ = self.attention(query, tokens, tokens, need_weights=False)
        return self.linear(out[:, 0])

    def fit(
        self, batches: Sequence[tuple[Tensor, Tensor]], lr: float, weight_decay: float
    ) -> NaiveProbe:
        """One step on each of the batches."""
        width = len(self.query)
        adam = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay
        )
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rate(step, len(batches)))
        for tokens, labels in batches:
            adam.zero_grad()
            nn.functional.cross_entropy(self(tokens), labels).backward()
            adam.step()
            falling.step()
            # weight decay shrinks the identity as it does all of the matrix: it is none of ours
            one = torch.eye(width, dtype=torch.float64)
            self.attention.in_proj_weight.data[:width] = one
        return self


def _without_query(gradient: Tensor) -> Tensor:
    """The query's projection stays what it is."""
    gradient = gradient.clone()
    gradient[: len(gradient) // 3] = 0
    return gradient
