"""The probe in a loop of accelerate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from eval.probe.training_probe import TrainingProbe
from eval.results.collection import Results

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


def in_accelerate(probe: TrainingProbe, accelerator: Accelerator) -> Callable[..., Results]:
    """``read(step, net)`` of a prepared network, for after ``accelerator.sync_gradients``: the
    probe where ``step`` is due, by the main process, with what it read in accelerate's trackers.

    The network is unwrapped with its mixed precision left on: taking that off would change it.
    """

    def read(step: int, net: nn.Module) -> Results:
        found = Results()
        if accelerator.is_main_process:
            found = probe(step, accelerator.unwrap_model(net, keep_fp32_wrapper=True))
        return found

    probe.sinks = (*probe.sinks, lambda step, values: accelerator.log(dict(values), step=step))
    return read
