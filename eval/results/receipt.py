"""What a result says of its making: model, task, machine and versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from eval.data.task_data import TaskData
from eval.models.facts import declared
from eval.models.formats import packages_of
from eval.results.facts import stated
from eval.results.schema import Environment, ModelInfo, TaskInfo

if TYPE_CHECKING:
    from eval.common.distributed import Workers
    from eval.features.precision import Precision
    from eval.models.backbone import Backbone


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


def environment(
    workers: Workers, precision: Precision, backbone: Backbone | None = None
) -> Environment:
    """What the numbers were computed with, that of ``backbone`` among them."""
    import torch

    return Environment(
        versions=versions(packages_of(backbone.resolved.format) if backbone else ()),
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
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was not installed
            continue
    return found
