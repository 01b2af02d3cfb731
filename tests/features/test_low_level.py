"""Low-level targets of pictures whose colours and edges are known, and by plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eval.features.low_level import PIXELS, TARGETS, VALUES, targets

CELLS = 4
SIDE = CELLS * PIXELS


def of(name: str, pixels: np.ndarray) -> np.ndarray:
    return targets(Image.fromarray(pixels), CELLS)[..., TARGETS[name]]


def stripes(angle: float, period: float = 8.0) -> np.ndarray:
    """A sine whose brightness changes along a direction, in degrees from the x axis."""
    y, x = np.mgrid[:SIDE, :SIDE]
    along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    grey = 127.5 + 100 * np.sin(2 * np.pi * along / period)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def test_colour_is_the_mean_of_a_cell() -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:PIXELS, PIXELS : 2 * PIXELS] = (255, 51, 0)
    found = of("colour", pixels)
    assert found[0, 1].tolist() == pytest.approx([1, 0.2, 0])
    assert found.sum() == pytest.approx(1.2)


def test_a_flat_picture_has_no_edges() -> None:
    pixels = np.full((50, 70, 3), 90, np.uint8)
    for name in ("magnitude", "orientation", "contrast"):
        assert of(name, pixels) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 135])
def test_orientation_is_twice_the_angle(angle: float) -> None:
    found = of("orientation", stripes(angle))[1:3, 1:3].mean((0, 1))
    length = float(np.hypot(*found))
    assert length > 0.9
    gap = np.degrees(np.arctan2(found[1], found[0])) - 2 * angle
    assert (gap + 180) % 360 - 180 == pytest.approx(0, abs=4)


def test_noise_has_no_direction() -> None:
    pixels = np.random.RandomState(0).randint(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    assert np.abs(of("orientation", pixels)).max() < 0.4


def test_plain_loops_agree() -> None:
    pixels = np.random.RandomState(1).randint(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    grey = (pixels / 255) @ np.array([0.299, 0.587, 0.114])
    found = targets(Image.fromarray(pixels), CELLS)
    assert found.shape == (CELLS, CELLS, VALUES)
    for row, column in ((0, 0), (2, 3)):
        lengths, values = [], []
        for y in range(row * PIXELS, (row + 1) * PIXELS):
            for x in range(column * PIXELS, (column + 1) * PIXELS):
                up, down = max(y - 1, 0), min(y + 1, SIDE - 1)
                left, right = max(x - 1, 0), min(x + 1, SIDE - 1)
                gy = (grey[down, x] - grey[up, x]) / (down - up)
                gx = (grey[y, right] - grey[y, left]) / (right - left)
                lengths.append(np.hypot(gx, gy))
                values.append(grey[y, x])
        assert found[row, column, 3] == pytest.approx(np.mean(lengths), rel=1e-4)
        assert found[row, column, 6] == pytest.approx(np.std(values), rel=1e-3)
