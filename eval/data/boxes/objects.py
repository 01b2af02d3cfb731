"""The objects of an image as they are annotated, and what a detector finds in one.

Boxes are [K, 4] float32 x1, y1, x2, y2 in pixels of the image as it is decoded (upright), counted
from 0; a box that covers the whole of a W x H image is 0, 0, W, H.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Objects:
    """What one image shows. All arrays have K entries; K may be 0."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]  # 0..classes-1
    area: NDArray[np.float32]  # as the authors give it (COCO: of the mask), else width x height
    difficult: NDArray[np.bool_]  # PASCAL VOC: trained on, not counted
    crowd: NDArray[np.bool_]  # COCO: a group in one box, neither trained on nor counted

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ignore(self) -> NDArray[np.bool_]:
        """Those that a metric neither asks for nor punishes."""
        return self.difficult | self.crowd


@dataclass(frozen=True)
class BoxPrediction:
    """What a detector finds in one image, best first."""

    boxes: NDArray[np.float32]  # [K, 4]
    scores: NDArray[np.float32]  # [K]
    labels: NDArray[np.int64]  # [K] 0..classes-1


@dataclass
class Dropped:
    """Annotated boxes that were left out, by reason, with where the first few stand."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    most = 5

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self.examples) < self.most:
            self.examples.append(f"{where}: {reason}")

    @property
    def note(self) -> str:
        """One sentence for the result; empty where nothing was dropped."""
        if not self.counts:
            return ""
        why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.counts.items()))
        return f"annotated boxes left out or changed: {why} (such as {'; '.join(self.examples)})"


def answer_hash(
    xywh: NDArray[np.float32], area: NDArray[np.float32], labels: NDArray[np.int64],
    ignore: NDArray[np.bool_],
) -> int:  # fmt: skip
    """What stands for an image's label in a split hash: 48 bits over its boxes as they are stored
    ([K, 4] x, y, width, height), before any check; equal to that of ``transfer-eval prepare``."""
    rows = [
        (*map(float, place), float(size), int(label), bool(ignored))
        for place, size, label, ignored in zip(xywh, area, labels, ignore, strict=True)
    ]
    return int.from_bytes(hashlib.sha256(repr(rows).encode()).digest()[:6], "big")
