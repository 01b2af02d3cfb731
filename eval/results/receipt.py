"""What a result says of its making: model, task, machine and versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.common.versions import installed
from eval.data.task_data import TaskData
from eval.models.facts import declared
from eval.models.formats import packages_of
from eval.results.facts import stated
from eval.results.schema import Environment, ModelInfo, TaskInfo

if TYPE_CHECKING:
    from eval.common.distributed import Workers
    from eval.features.precision import Precision
    from eval.models.backbone import Backbone
    from eval.models.resolve import ResolvedModel


def model_info(backbone: Backbone) -> ModelInfo:
    """What a result file says of a loaded model."""
    model = backbone.resolved
    return ModelInfo(
        spec=model.spec,
        id=model.id,
        revision=model.revision,
        weights_sha256=backbone.weights_sha256,
        params=backbone.params,
        multiply_adds=backbone.multiply_adds,
        input=backbone.input_config,
        img_size=model.img_size,
        step=model.step,
        facts=stated(declared(model)),
    )


def task_info(task: TaskData) -> TaskInfo:
    """What a result file says of a task's data."""
    return TaskInfo(
        name=task.name,
        source=task.where,
        revision=task.revision,
        split_hash=task.split_hash,
        counts={"classes": len(task.classes), "train": len(task.train), "test": len(task.test)},
        duplicates=task.duplicates,
        subset=task.subset,
        split=task.split,
    )


def environment(workers: Workers, precision: Precision, *models: ResolvedModel) -> Environment:
    """What the numbers were computed with, the libraries that built the models among it."""
    import torch

    return Environment(
        versions=versions([p for model in models for p in packages_of(model.format)]),
        device=str(workers.device.type),
        dtype=str(precision),
        threads=torch.get_num_threads(),
        processes=workers.count,
        instructions=f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    )


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Of the packages that every result depends on, and of those that this one does."""
    packages = (
        "transferzoo", "torch", "torchvision", "timm", "numpy", "scipy", "pillow",
        "datasets", "huggingface-hub", "safetensors", "accelerate", "faster-coco-eval", *more,
    )  # fmt: skip
    return {"python": platform.python_version()} | installed(packages)
