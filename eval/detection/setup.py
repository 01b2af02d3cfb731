"""What the detection protocol is given to work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval.data.boxes.box_data import DetectionData

if TYPE_CHECKING:
    from eval.common.distributed import Workers
    from eval.features.precision import Precision
    from eval.models.backbone import Backbone


@dataclass(frozen=True)
class DetectionSetup:
    """The same on every process."""

    backbone: Backbone
    task: DetectionData
    workers: Workers
    precision: Precision
    cache: Path
    seed: int
    keep: Path | None = None  # folder for the trained detector
