"""How fast this machine is with a model, for a plan's minutes. Measured when first asked for."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from eval.data.task_data import TaskData
from eval.features.encode import normalised, pixels_of
from eval.features.precision import forward, prepared
from eval.training.context import Context

IMAGES = 16  # of a forward pass; a training step takes twice as many


class Speed:
    """Images a second of one process."""

    def __init__(self, context: Context[TaskData]) -> None:
        self._context = context

    @cached_property
    def encoding(self) -> float:
        """Of a forward pass without gradients."""
        context = self._context
        with prepared(context.backbone.net, context.workers.device, context.precision) as net:
            forward(net, self._images, context.precision)
            return IMAGES * _rounds_per_second(
                lambda: forward(net, self._images, context.precision).cpu()
            )

    @cached_property
    def training(self) -> float:
        """Of a forward and a backward pass with a step."""
        device, precision = self._context.workers.device, self._context.precision
        net = copy.deepcopy(self._context.backbone.net).to(device).train().requires_grad_(True)
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)
        batch = self._images.repeat(2, 1, 1, 1).to(device)

        def step() -> None:
            optimiser.zero_grad()
            with (
                torch.enable_grad(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision.dtype == "bf16"),
            ):
                net(batch).float().square().mean().backward()
            optimiser.step()

        step()
        return len(batch) * _rounds_per_second(step)

    @cached_property
    def _images(self) -> Tensor:
        """[16, 3, H, W] the task's first image as the network takes it, again and again."""
        context = self._context
        train = context.task.train
        read = train.source.images(train.rows[:1])
        pixels = pixels_of(context.backbone, context.task, train, *next(iter(read)))
        device = str(context.workers.device)
        return normalised(pixels[None].repeat(IMAGES, 0), context.backbone, device)


def _rounds_per_second(work: Callable[[], object]) -> float:
    """Repeated for about a second."""
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        work()
        rounds += 1
    return rounds / (time.perf_counter() - start)
