"""The probe as a callback of the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eval.common.extras import require
from eval.probe.training_probe import TrainingProbe


def trainer_callback(probe: TrainingProbe) -> Any:
    """A ``TrainerCallback`` for ``Trainer(callbacks=[...])``: the probe reads the model after each
    step of the optimiser, by ``state.global_step``. Models of transformers return no tensors: make
    the probe with ``features=pooled_features``.

    Raises UserError where transformers is not installed.
    """
    require("transformers", "trainer_callback()")
    from transformers import TrainerCallback

    class ProbeCallback(TrainerCallback):
        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
        ) -> None:
            probe(state.global_step, model)

    return ProbeCallback()


def pooled_features(net: Any, images: Tensor) -> Tensor:
    """[N, D] of a vision model of transformers: what its base model pools; where it pools nothing
    (a ViT under a classifier) the first token."""
    out = net.base_model(pixel_values=images)
    pooled = getattr(out, "pooler_output", None)
    return out.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
