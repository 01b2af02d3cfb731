"""A step of a training on one process or many: what the processes agree on and add up.

Gradients are reduced here and not by DistributedDataParallel: shares may differ in size, and a
process that runs out of memory can say so before the others wait for its gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from eval.common.distributed import Workers

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class OutOfMemory(Exception):
    """A step did not fit the memory of a process."""


def agree(
    workers: Workers,
    optimiser: torch.optim.Optimizer,
    error: Exception | None,
    losses: Tensor,
    due: bool,
) -> bool:
    """Raise on all processes what was raised on one; add up ``losses`` (any shape) in place.

    Returns what the main process says of ``due``. Raises OutOfMemory where memory ran out."""
    memory = error is not None and is_memory(error)
    if workers.count > 1:
        facts = torch.tensor(
            [memory, error is not None, due and workers.main], device=losses.device
        )
        told = torch.cat([facts.to(losses.dtype), losses.reshape(-1)])
        torch.distributed.all_reduce(told)
        losses.copy_(told[3:].view(losses.shape))
        memory, failed, due = (v > 0 for v in told[:3].tolist())
        if failed and error is None and not memory:
            raise RuntimeError("another process failed")
    if memory:
        optimiser.zero_grad(set_to_none=True)
        raise OutOfMemory from error
    if error is not None:
        raise error
    return due


def add_up_gradients(workers: Workers, net: nn.Module) -> None:
    """The sum over the processes, on each of them; the same parameters have one everywhere."""
    if workers.count > 1:
        reduce([p.grad for p in net.parameters() if p.grad is not None])


def average_statistics(workers: Workers, net: nn.Module) -> None:
    """BatchNorm's running mean and variance: their mean over the processes, everywhere."""
    if workers.count == 1:
        return
    running = ("running_mean", "running_var")
    buffers = [b for name, b in net.named_buffers() if name.endswith(running)]
    if buffers:
        reduce(buffers)
        for buffer in buffers:
            buffer /= workers.count


def reduce(tensors: list[Tensor]) -> None:
    """Add up tensors over all processes, in place and in one message."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def is_memory(error: Exception) -> bool:
    """Whether this is how a device or the system says that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error).lower() for t in NO_MEMORY)


@contextlib.contextmanager
def own_random(device: torch.device) -> Iterator[None]:
    """Draws in here leave the caller's random state as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
