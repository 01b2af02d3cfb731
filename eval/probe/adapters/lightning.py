"""The probe as a callback of Lightning."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from eval.common.extras import require
from eval.probe.training_probe import TrainingProbe


def lightning_callback(probe: TrainingProbe) -> Any:
    """A ``Callback`` for ``Trainer(callbacks=[...])``: the probe reads the LightningModule after
    the optimiser's step, by the trainer's ``global_step``. With several backward passes a step, or
    several optimisers, no step is read twice.

    For ``lightning`` and ``pytorch_lightning`` alike. Raises UserError where there is neither.
    """
    if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:
        base = import_module("pytorch_lightning").Callback
    else:
        require("lightning", "lightning_callback()")
        base = import_module("lightning.pytorch").Callback

    class ProbeCallback(base):  # type: ignore[misc, valid-type]  # known when it is imported
        def __init__(self) -> None:
            super().__init__()
            self._read = 0

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step != self._read:
                self._read = trainer.global_step
                probe(trainer.global_step, pl_module)

    return ProbeCallback()
