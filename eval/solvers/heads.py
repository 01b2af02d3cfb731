"""A grid of linear classifiers trained by SGD in one pass over features.

Each head is what `nn.Sequential(nn.BatchNorm1d(D, affine=False), nn.Linear(D, C))` under
`torch.optim.SGD(momentum, weight_decay)` and cross-entropy is, and ends in the same weights; only
the work is shared:

1.  Heads of one batch size see the same normalised batch. Their weights lie below each other, so
    logits of all are one matrix product and their gradients (softmax minus one-hot, times the
    input) are another, added straight to the momentum buffers. A step is six operations however
    many heads there are.
2.  Biases are one more column of the weights, met by a column of ones in the input.
3.  Batch statistics do not depend on weights: they are computed for many batches at once.

Heads of different batch sizes walk the same order of rows, each in steps of its own.

A head whose weights are no longer finite is frozen and marked. It never touched the others: no
operation mixes rows of different heads.

Shapes: N rows, D features, C classes, G heads, B batch size. Memory beside the features:
`2 G C D` values and small blocks of rows. Deterministic for a machine and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Values of features gathered and normalised at once: what fits the cache, or many batches on a GPU
_CPU_BLOCK, _GPU_BLOCK = 1 << 18, 1 << 24
_EPS, _BN_MOMENTUM = 1e-5, 0.1  # torch's BatchNorm1d
_ALIGN = 8  # columns a row is padded to: products of odd widths are slower on GPUs


def initial(dim: int, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] as torch's nn.Linear draws them."""
    weight, bias = torch.empty(classes, dim), torch.empty(classes)
    nn.init.kaiming_uniform_(weight, math.sqrt(5), generator=generator)
    nn.init.uniform_(bias, -1 / math.sqrt(dim), 1 / math.sqrt(dim), generator=generator)
    return weight, bias


class Heads:
    """G heads that start from the same weights, in the dtype and on the device of those.

    weight [C, D], bias [C]; one batch size and weight decay a head.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        batch_sizes: Sequence[int],
        weight_decays: Sequence[float],
        momentum: float = 0.9,
    ) -> None:
        if not batch_sizes or len(batch_sizes) != len(weight_decays):
            raise ValueError(
                f"need a batch size and a weight decay for each head: got {len(batch_sizes)} and "
                f"{len(weight_decays)}"
            )
        if min(batch_sizes) < 2:
            raise ValueError(
                f"BatchNorm needs batches of at least 2 images, got {min(batch_sizes)}"
            )
        self.count = len(batch_sizes)
        self.diverged = [False] * self.count
        self._groups = [
            _Group(
                [g for g, other in enumerate(batch_sizes) if other == size],
                size, weight, bias, weight_decays, momentum,
            )
            for size in dict.fromkeys(batch_sizes)
        ]  # fmt: skip

    @torch.no_grad()
    def train_epoch(
        self, features: Tensor, labels: Tensor, order: Tensor, lrs: Sequence[float]
    ) -> None:
        """One pass of every head over features [N, D], labels [N] in the order [n] of rows.

        The last batch of what is left is a step too, unless it is a single row, which BatchNorm
        cannot normalise. ``lrs`` has a learning rate for each head. Raises ValueError where the
        order has fewer than two rows.
        """
        if len(order) < 2:
            raise ValueError(f"BatchNorm needs at least 2 rows to train on, got {len(order)}")
        if len(lrs) != self.count:
            raise ValueError(f"need {self.count} learning rates, got {len(lrs)}")
        for group in self._groups:
            group.train(features, labels, order, lrs, self.diverged)
            for head in group.freeze():
                self.diverged[head] = True

    @torch.no_grad()
    def logits(self, features: Tensor, head: int) -> Tensor:
        """[N, C] of one head for features [N, D], normalised by the running statistics."""
        group = self._group(head)
        return group.logits(features, group.heads.index(head))

    @torch.no_grad()
    def correct(self, features: Tensor, labels: Tensor) -> list[int]:
        """How many rows of features [N, D] each head gives their label in labels [N]."""
        counts = [0] * self.count
        for group in self._groups:
            total = labels.new_zeros(len(group.heads))
            for part in _blocks(len(features), _block_rows(features)):
                logits = group.logits(features[part]).view(-1, *group.weight.shape[:2])
                total += (logits.argmax(2) == labels[part, None]).sum(0)
            for head, count in zip(group.heads, total.tolist(), strict=True):
                counts[head] = count
        return counts

    def parameters(self, head: int) -> tuple[Tensor, Tensor]:
        """Copies of a head's weight [C, D] and bias [C], of normalised features."""
        group = self._group(head)
        weight = group.weight[group.heads.index(head)]
        return weight[:, : group.dim].clone(), weight[:, group.dim].clone()

    def statistics(self, head: int) -> tuple[Tensor, Tensor]:
        """Copies of a head's running mean and variance [D]."""
        group = self._group(head)
        return group.mean.clone(), group.var.clone()

    def only(self, head: int) -> Heads:
        """One head to be trained on alone, in the state it is in; this object is not changed."""
        kept = object.__new__(Heads)
        kept.count, kept.diverged = 1, [self.diverged[head]]
        kept._groups = [self._group(head).only(head)]
        return kept

    def _group(self, head: int) -> _Group:
        return next(group for group in self._groups if head in group.heads)


class _Group:
    """The heads of one batch size, and the BatchNorm they share."""

    def __init__(
        self,
        heads: list[int],
        batch_size: int,
        weight: Tensor,
        bias: Tensor,
        weight_decays: Sequence[float],
        momentum: float,
    ) -> None:
        classes, self.dim = weight.shape
        width = -(-(self.dim + 1) // _ALIGN) * _ALIGN
        self.heads, self.batch_size, self.momentum = heads, batch_size, momentum
        # [g, C, width]: weight, bias, then columns that stay zero
        self.weight = weight.new_zeros(len(heads), classes, width)
        self.weight[..., : self.dim], self.weight[..., self.dim] = weight, bias
        self.buffer = torch.zeros_like(self.weight)  # of momentum
        decay = [weight_decays[head] for head in heads]
        self.decay = weight.new_tensor(decay)[:, None, None] if any(decay) else None
        self.mean, self.var = weight.new_zeros(self.dim), weight.new_ones(self.dim)

    def only(self, head: int) -> _Group:
        at = self.heads.index(head)
        kept = object.__new__(_Group)
        kept.dim, kept.heads, kept.batch_size = self.dim, [0], self.batch_size
        kept.momentum = self.momentum
        kept.weight = self.weight[at : at + 1].clone()
        kept.buffer = self.buffer[at : at + 1].clone()
        kept.decay = None if self.decay is None else self.decay[at : at + 1].clone()
        kept.mean, kept.var = self.mean.clone(), self.var.clone()
        return kept

    def train(
        self,
        features: Tensor,
        labels: Tensor,
        order: Tensor,
        lrs: Sequence[float],
        diverged: Sequence[bool],
    ) -> None:
        """An epoch. A frozen head has rate 0 and zero weights, which keep its numbers small."""
        steps = [0.0 if diverged[head] else -lrs[head] for head in self.heads]
        lr = self.weight.new_tensor(steps)[:, None, None]
        for batch in self._batches(len(order), _block_rows(features)):
            rows = order[batch.rows]
            x = self._normalised(features[rows].to(self.weight), batch.size)
            y = labels[rows]
            for at in range(0, len(rows), batch.size):
                self._step(x[at : at + batch.size], y[at : at + batch.size], lr)

    def _batches(self, n: int, block: int) -> Iterator[_Batches]:
        """All whole batches in blocks of about as many rows, then the smaller last one where it has
        two rows or more."""
        whole = n // self.batch_size * self.batch_size
        for part in _blocks(whole, max(1, block // self.batch_size) * self.batch_size):
            yield _Batches(part, self.batch_size)
        if n - whole > 1:
            yield _Batches(slice(whole, n), n - whole)

    def _normalised(self, x: Tensor, size: int) -> Tensor:
        """Rows x [k B, D] of k batches -> [k B, width], each batch by its own statistics.

        The running statistics follow, a tenth of the way a batch. x is overwritten.
        """
        x = x.view(-1, size, self.dim)
        mean = x.mean(1)  # [k, D]
        out = x.new_zeros(len(x), size, self.weight.shape[2])
        inner = torch.sub(x, mean[:, None], out=out[..., : self.dim])
        var = torch.square(inner, out=x).mean(1)  # x is ours; torch.var_mean takes 30 times as long
        k = len(x)
        # r <- 0.9 r + 0.1 s, k times: the last batch counts 0.1, the one before it 0.09, ...
        ages = torch.arange(k - 1, -1, -1, dtype=x.dtype, device=x.device)
        shares = _BN_MOMENTUM * (1 - _BN_MOMENTUM) ** ages
        for running, new in ((self.mean, mean), (self.var, var * (size / (size - 1)))):
            running.mul_((1 - _BN_MOMENTUM) ** k).add_(shares @ new)
        inner.mul_((var + _EPS).rsqrt_()[:, None])
        out[..., self.dim] = 1
        return out.view(k * size, -1)

    def _step(self, x: Tensor, y: Tensor, lr: Tensor) -> None:
        """One step of every head on a batch x [B, width], y [B]; lr [g, 1, 1] is negative."""
        g, classes, width = self.weight.shape
        flat = self.weight.view(g * classes, width)
        # p becomes the gradient of the summed loss by the logits: softmax minus one-hot
        p = (x @ flat.t()).view(len(x), g, classes).softmax(2)
        index = y[:, None, None].expand(len(x), g, 1)
        p.scatter_add_(2, index, p.new_full((), -1.0).expand(len(x), g, 1))
        buffer = self.buffer.view(g * classes, width)
        buffer.addmm_(p.view(len(x), -1).t(), x, beta=self.momentum, alpha=1 / len(x))
        if self.decay is not None:
            self.buffer.addcmul_(self.weight, self.decay)
        self.weight.addcmul_(self.buffer, lr)

    def freeze(self) -> list[int]:
        """The heads that are no longer finite, set to zero so that nothing of them goes on."""
        finite = self.weight.isfinite().all(2).all(1) & self.buffer.isfinite().all(2).all(1)
        broken = [i for i, fine in enumerate(finite.tolist()) if not fine]
        for i in broken:
            self.weight[i].zero_()
            self.buffer[i].zero_()
        return [self.heads[i] for i in broken]

    def logits(self, x: Tensor, at: int | None = None) -> Tensor:
        """[N, g C] of x [N, D] by the running statistics; of the head at one place: [N, C]."""
        own = self.weight if at is None else self.weight[at]
        own = own.reshape(-1, own.shape[-1])
        scaled = own[:, : self.dim] * (self.var + _EPS).rsqrt()
        out = own.new_empty(len(x), len(own))
        for part in _blocks(len(x), _block_rows(x)):
            centred = x[part].to(own) - self.mean
            torch.addmm(own[:, self.dim], centred, scaled.t(), out=out[part])
        return out


@dataclass(frozen=True)
class _Batches:
    """A piece of an epoch's order, in whole batches of one size."""

    rows: slice
    size: int


def _block_rows(features: Tensor) -> int:
    values = _CPU_BLOCK if features.device.type == "cpu" else _GPU_BLOCK
    return max(1, values // features.shape[1])


def _blocks(n: int, step: int) -> Iterator[slice]:
    return (slice(at, min(at + step, n)) for at in range(0, n, step))
