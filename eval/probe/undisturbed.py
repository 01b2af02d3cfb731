"""A look at a network that its training does not notice."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every module's mode, every buffer, and the
    random states of Python, NumPy, torch and all GPUs are what they were, to the bit.

    Modes are set on the modules themselves: ``net.eval()`` would call what a module does on such
    an occasion (some merge weights then), and gradients are turned off by ``no_grad``, as tensors
    that a module keeps from ``inference_mode`` could not be trained with.
    """
    modules = list(net.modules())
    modes = [module.training for module in modules]
    buffers = [
        (
            module,
            {k: (b, b.clone(), b._version) for k, b in module._buffers.items() if b is not None},
        )
        for module in modules
    ]
    rng = _random_states()
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for module, held in buffers:
                for name, (buffer, value, version) in held.items():
                    module._buffers[name] = buffer
                    if buffer._version != version:
                        buffer.copy_(value)
        _restore(rng)
        torch.clear_autocast_cache()  # else weights cast without gradients might be trained with


_States = tuple[object, object, torch.Tensor, list[torch.Tensor]]


def _random_states() -> _States:
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    cuda = torch.cuda.get_rng_state_all() if used else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore(states: _States) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)  # type: ignore[arg-type]  # as getstate gave it
    np.random.set_state(numpy)  # type: ignore[arg-type]  # as get_state gave it
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
