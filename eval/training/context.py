"""What every protocol is given to work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from eval.data.task_data import TaskData

if TYPE_CHECKING:
    from eval.common.distributed import Workers
    from eval.features.bank import FeatureBank
    from eval.features.precision import Precision
    from eval.models.backbone import Backbone

AnyTask = TypeVar("AnyTask", bound=TaskData, covariant=True)


@dataclass(frozen=True)
class Context(Generic[AnyTask]):
    """A model on a task, and the means to score it; the same on every process."""

    backbone: Backbone
    task: AnyTask  # DetectionData for a protocol of that kind
    bank: FeatureBank | None  # features of train and test; None where the protocol takes none
    workers: Workers
    precision: Precision
    cache: Path
    seed: int
    keep: Path | None = None  # folder for what was trained, of a protocol that keeps it

    @property
    def features(self) -> FeatureBank:
        """The bank, of a protocol whose row in the registry asks for features.

        Raises RuntimeError for another: that is a mistake in the registry, not the user's.
        """
        if self.bank is None:
            raise RuntimeError(
                f"no features of task {self.task.name!r} were given; the protocol's row in "
                "eval.protocols must say features=True"
            )
        return self.bank
