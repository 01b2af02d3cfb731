"""What an image is like at each place, by definition and without labels: low-level targets.

An image is squeezed to ``PIXELS`` a cell, whatever size a network sees it in, so that all networks
are asked the same. Of each cell:

=========== ========================================================================
colour      mean red, green and blue
magnitude   mean length of the luminance gradient, by central differences
orientation direction of the gradient: the sums of gx2 - gy2 and of 2 gx gy over the
            sum of gx2 + gy2 (a vector at twice the angle, as long as the cell is
            uniform in direction; near 0 where there is no edge)
contrast    standard deviation of the luminance
=========== ========================================================================

Luminance is that of ITU-R 601 of values 0 to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.models.pooling import LUMA

Floats = NDArray[np.float32]

PIXELS = 16  # a side of a cell
# where each target's values stand
TARGETS: dict[str, slice] = {
    "colour": slice(0, 3), "magnitude": slice(3, 4), "orientation": slice(4, 6),
    "contrast": slice(6, 7),
}  # fmt: skip
VALUES = 7
_FLAT = 1e-4  # added to the mean energy of a cell: the square of a gradient of 1 % a pixel


def targets(image: Image.Image, cells: int) -> Floats:
    """[cells, cells, VALUES] of an RGB image."""
    side = PIXELS * cells
    small = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=None)
    rgb = np.asarray(small, np.float32) / 255  # [side, side, 3]
    grey = rgb @ np.asarray(LUMA, np.float32)
    down, across = (np.asarray(part) for part in np.gradient(grey))

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        """[cells, cells, ..] over each cell's pixels."""
        return values.reshape(cells, PIXELS, cells, PIXELS, -1).mean((1, 3), dtype=np.float64)

    energy = mean(across**2 + down**2) + _FLAT
    found = [
        mean(rgb),
        mean(np.hypot(across, down)),
        mean(across**2 - down**2) / energy,
        mean(2 * across * down) / energy,
        np.sqrt(np.maximum(mean(grey**2) - mean(grey) ** 2, 0)),
    ]
    return np.concatenate(found, axis=2).astype(np.float32)
