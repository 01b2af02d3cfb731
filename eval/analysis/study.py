"""What an analysis is given to work with: models, tasks, and features of any layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from eval.analysis.layers import Layer, layered
from eval.common.distributed import Workers
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import ResolvedModel
from eval.results.names import task_label
from eval.results.receipt import model_info
from eval.results.schema import ModelInfo, Result

if TYPE_CHECKING:
    from torch import Tensor

    from eval.features.bank import FeatureBank
    from eval.models.backbone import Backbone


@dataclass(frozen=True)
class Layered:
    """A model's layers on the images of a task, side by side in one bank."""

    backbone: Backbone
    layers: tuple[Layer, ...]
    bank: FeatureBank

    @property
    def features(self) -> Tensor:
        """[N, all], train's rows before test's."""
        return self.bank.features

    def bank_of(self, layer: Layer) -> FeatureBank:
        """One layer's features as a bank of its own."""
        return dataclasses.replace(self.bank, features=layer.of(self.features).contiguous())


@dataclass
class Study:
    """One call of an analysis. ``seconds`` of encoding, ``infos`` and ``notes`` grow on the way."""

    models: tuple[ResolvedModel, ...]
    tasks: tuple[TaskData, ...]
    cache: Path
    workers: Workers
    results: tuple[Result, ...] = ()  # measured scores that are at hand
    seed: int = 0
    seconds: float = 0.0
    precision: Precision = field(default_factory=Precision)
    infos: list[ModelInfo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def backbones(self) -> Iterator[tuple[str, Backbone]]:
        """(name, network), one after the other; a bar where there is a terminal."""
        for name, model in tqdm(
            list(zip(labels(self.models), self.models, strict=True)),
            unit="model", leave=False, disable=None if self.workers.main else True,
        ):  # fmt: skip
            backbone = load(model)
            self.infos.append(model_info(backbone))
            yield name, backbone

    def bank(self, backbone: Backbone, task: TaskData) -> FeatureBank:
        """The pooled features that every protocol uses."""
        encoded = encode(backbone, task, self.cache, self.workers)
        self.seconds += encoded.seconds
        self.precision = Precision.parse(encoded.bank.precision)
        return encoded.bank

    def layers(
        self,
        backbone: Backbone,
        task: TaskData,
        wanted: Sequence[str] = (),
        *,
        spatial: bool = False,
    ) -> Layered:
        """All layers of a network, encoded in one pass, or those that are wanted.

        ``spatial`` keeps places: see ``eval.analysis.layers``. Raises UserError for a layer that is
        not there.
        """
        many, chosen = layered(backbone, wanted, spatial=spatial)
        return Layered(backbone, chosen, self.bank(many, task))


def labels(models: Sequence[ResolvedModel]) -> list[str]:
    """A name for each, with the revision where two share theirs."""
    ids = [m.id for m in models]
    twice = {i for i in ids if ids.count(i) > 1}
    return [f"{m.id}@{m.revision[:7]}" if m.id in twice else m.id for m in models]


def task_key(task: TaskData) -> str:
    """What a task is called in a finding."""
    return task_label(task.name, task.split)
