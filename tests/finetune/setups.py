"""A small fine-tuning on made-up images."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.features.bank import FeatureBank
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.settings.protocols import Finetune
from eval.training.context import Context

SHORT = Finetune(lrs=(0.05,), batch_sizes=(16,), weight_decays=(0.0, 1e-3), tune_epochs=2, epochs=3)


def make_setup(folder: Path, cache: Path, model: str = "random:test_resnet") -> Context:
    px = 32 if "vit" in model else 24
    return Context(
        backbone=load(resolve(model, cache, img_size=px)),
        task=load_task(f"parquet:{folder}", cache),
        bank=cast(FeatureBank, None),  # of which fine-tuning has no use
        workers=Workers("cpu"),
        precision=Precision("fp32", channels_last=True),
        cache=cache,
        seed=0,
    )


def everything(setup: Context) -> NDArray[np.int64]:
    return np.arange(len(setup.task.train))
