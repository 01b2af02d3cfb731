"""Annotated boxes held against their images: what cannot be right is left out or cut to size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = "not finite"
INVERTED = "inverted"
NO_AREA = "without area"
OUTSIDE = "outside the image"
TINY = "smaller than a pixel"
CLIPPED = "clipped to the image"  # kept
REASONS = ("", NOT_FINITE, INVERTED, NO_AREA, OUTSIDE, TINY, CLIPPED)

OVERHANG = 1.0  # pixels beyond the edge that are cut without a word: annotators round
FEW_OVER = 0.1  # of the boxes of a part: annotators err
_SLACK = 1e-3  # of a side of one pixel: single precision


@dataclass(frozen=True)
class Checked:
    """What ``check`` finds for K boxes."""

    boxes: NDArray[np.float32]  # [K, 4] x1, y1, x2, y2 within the image; unusable where not kept
    kept: NDArray[np.bool_]  # [K]
    cut: NDArray[np.bool_]  # [K] clipped, however little
    reasons: NDArray[np.int8]  # [K] an index into REASONS


def check(xywh: NDArray[np.float32], sizes: NDArray[np.int64], least: float = 1.0) -> Checked:
    """Boxes [K, 4] as x, y, width, height; ``sizes`` [K, 2] height, width of each one's image.

    A side must have ``least`` pixels within the image: 0 for boxes that are only asked for, as
    the official evaluators ask for them. A negative width or height means corners in the wrong
    order. Raises nothing.
    """
    boxes = np.asarray(xywh, np.float64).reshape(-1, 4)
    finite = np.all(np.isfinite(boxes), axis=1)
    x, y, width, height = np.where(finite[:, None], boxes, 0.0).T
    tall, wide = np.asarray(sizes, np.float64).reshape(-1, 2).T
    corners = np.stack([x, y, x + width, y + height], axis=1)  # [K, 4]
    limits = np.stack([wide, tall, wide, tall], axis=1)
    inside = np.clip(corners, 0.0, limits)
    overhang = np.abs(corners - inside).max(axis=1, initial=0.0)
    sides = inside[:, 2:] - inside[:, :2]
    beyond = (x >= wide) | (y >= tall) | (x + width <= 0) | (y + height <= 0)

    reasons = np.zeros(len(boxes), np.int8)
    for reason, wrong in (  # the first that holds counts, so the last is written first
        (CLIPPED, overhang > OVERHANG),
        (TINY, (sides <= max(least - _SLACK, 0.0)).any(axis=1)),
        (OUTSIDE, beyond),
        (NO_AREA, (width == 0) | (height == 0)),
        (INVERTED, (width < 0) | (height < 0)),
        (NOT_FINITE, ~finite),
    ):
        reasons[wrong] = REASONS.index(reason)
    kept = (reasons == 0) | (reasons == REASONS.index(CLIPPED))
    return Checked(inside.astype(np.float32), kept, kept & (overhang > 0), reasons)


def taken_for_corners(xywh: NDArray[np.float32], sizes: NDArray[np.int64]) -> int:
    """How many boxes hang over their image's edge as x, y, width, height, where all of them fit as
    x1, y1, x2, y2; 0 where they do not, or where hardly any hangs over."""
    boxes = np.asarray(xywh, np.float64).reshape(-1, 4)
    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[:, ::-1] + OVERHANG
    as_corners = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= limits).all(1)
    over = (boxes[:, :2] + boxes[:, 2:] > limits).any(1)
    return int(over.sum()) if as_corners.all() and over.mean() > FEW_OVER else 0
