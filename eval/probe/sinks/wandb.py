"""Readings to Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.common.errors import BadInput
from eval.common.extras import require
from eval.probe.training_probe import Sink


def wandb_sink(run: Any = None) -> Sink:
    """To a run of wandb; None is the one that ``wandb.init`` began.

    The step is a metric of its own, ``probe/step``: wandb drops what comes with a step that it has
    passed already, and the training counts there too. Raises UserError where no run has begun.
    """
    require("wandb", "wandb_sink()")
    import wandb

    to = wandb.run if run is None else run
    if to is None:
        raise BadInput("wandb_sink() has no run to write to; call wandb.init(...) before it")
    to.define_metric("probe/step")
    to.define_metric("probe/*", step_metric="probe/step")

    def sink(step: int, values: Mapping[str, float]) -> None:
        to.log({**values, "probe/step": step})

    return sink
