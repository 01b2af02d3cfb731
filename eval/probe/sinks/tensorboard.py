"""Readings to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.common.extras import require
from eval.probe.training_probe import Sink


def tensorboard_sink(to: str | Path | Any) -> Sink:
    """To a ``SummaryWriter``, or to a new one in that folder. Each reading is flushed."""
    require("tensorboard", "tensorboard_sink()")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(to)) if isinstance(to, str | Path) else to

    def sink(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return sink
