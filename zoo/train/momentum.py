"""The MoCo machinery, once: key encoder, queue, and what several processes need.

On one process nothing is gathered and nothing is shuffled, as in the study's code.
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn


class MomentumCopy(nn.Module):
    """A copy of a module that follows it slowly: p <- m p + (1 - m) p_source (He et al. 2020).

    Parameters only: batch norm's running statistics are the copy's own, as in the study's code.
    No gradient ever flows into it.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(source).requires_grad_(False)

    @torch.no_grad()
    def move_towards(self, source: nn.Module, momentum: float) -> None:
        """One step towards ``source``, in place and for all parameters at once."""
        mine = [p.detach() for p in self.copy.parameters()]
        its = [p.detach() for p in source.parameters()]
        if mine:
            torch._foreach_lerp_(mine, its, 1.0 - momentum)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.copy(x)


class Queue(nn.Module):
    """A ring of the last ``length`` unit keys [K, d] with their labels [K]; -1 is not a label.

    It starts with random unit vectors under label -1, which count as negatives until they are
    replaced. The length need not be a multiple of the batch: a batch may wrap around the end.
    """

    keys: Tensor
    labels: Tensor
    state: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"a queue needs at least one slot, got {length}")
        self.register_buffer("keys", nn.functional.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("labels", torch.full((length,), -1))
        self.register_buffer("state", torch.zeros(2, dtype=torch.long))  # next slot, keys ever
        self._next, self._seen = 0, 0  # the same on the host: no device sync a step

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def fill(self) -> float:
        """The share of slots that hold a real key, 0 to 1."""
        return min(1.0, self._seen / len(self))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor | None) -> Tensor:
        """Write keys [n, d] (n <= K) over the oldest ones; returns their slots [n]."""
        n, length = len(keys), len(self)
        if n > length:
            raise ValueError(f"{n} keys do not fit a queue of {length}")
        if labels is None:
            labels = torch.full((n,), -1, device=keys.device)
        first = min(n, length - self._next)  # up to the end, then on from the start
        for begin, end, slot in ((0, first, self._next), (first, n, 0)):
            self.keys[slot : slot + end - begin] = keys[begin:end].to(self.keys.dtype)
            self.labels[slot : slot + end - begin] = labels[begin:end]
        slots = (torch.arange(n, device=keys.device) + self._next) % length
        self._next, self._seen = (self._next + n) % length, self._seen + n
        self.state[0], self.state[1] = self._next, self._seen
        return slots

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._next, self._seen = (int(v) for v in self.state)


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if processes() > 1 else 0


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """[n, ...] of each process -> [processes * n, ...] in the order of the processes."""
    if processes() == 1:
        return rows
    rows = rows.contiguous()
    out = rows.new_empty((processes() * len(rows), *rows.shape[1:]))
    dist.all_gather_into_tensor(out, rows)
    return out


def own_rows(n: int) -> slice:
    """Where the ``n`` rows of this process stand in what ``gather`` returns."""
    return slice(rank() * n, (rank() + 1) * n)


@torch.no_grad()
def encode_shuffled(encoder: nn.Module, images: Tensor) -> Tensor:
    """Encode keys so that batch norm cannot tell which query they belong to (ShuffleBN).

    Images of all processes are permuted by one permutation, each process encodes its share, and
    the features come back to the process of their query. On one process it is a plain call.
    """
    if processes() == 1:
        return encoder(images)
    n = len(images)
    everyone = gather(images)
    order = torch.randperm(len(everyone), device=images.device)
    dist.broadcast(order, 0)
    mine = everyone[order[own_rows(n)]].contiguous(memory_format=torch.channels_last)
    features = gather(encoder(mine))
    return features[order.argsort()[own_rows(n)]]
