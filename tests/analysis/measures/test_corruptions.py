"""Corruptions: what each does to the pixels, against closed forms and slow references.

They were also held against the package ``imagecorruptions`` once, on photographs at 224 px: equal
for pixelate and JPEG, alike in strength for the others but frost and fog. It is not among the
requirements of the tests, since it fails on today's numpy and scikit-image.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, zoom

from eval.analysis.measures import corruptions
from eval.analysis.measures.corruptions import (
    CORRUPTIONS,
    GROUPS,
    MIN_SIDE,
    SEVERITIES,
    Pixels,
    corrupt,
    strength_of,
)
from eval.common.errors import UserError

SIDES = (32, 64, 176)  # one for each table
DRAWN = (*GROUPS["noise"], "glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform")
Floats = NDArray[np.float64]


def natural(height: int, width: int, seed: int) -> Pixels:
    """Colours with the spectrum of photographs (amplitude falls as frequency^1.2), and four disks
    for edges."""
    random = RandomState(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    amplitude = np.maximum(np.hypot(down, across), 1 / max(height, width)) ** -1.2
    phases = random.random_sample((4, *amplitude.shape))
    waves = np.fft.irfft2(amplitude * np.exp(2j * np.pi * phases), s=(height, width))
    values = waves[0][:, :, None] + 0.4 * np.moveaxis(waves[1:], 0, 2)
    y, x = np.mgrid[:height, :width]
    for _ in range(4):
        centre, radius = random.random_sample(2) * (height, width), random.uniform(0.1, 0.3)
        disk = np.hypot(y - centre[0], x - centre[1]) < radius * min(height, width)
        values[disk] += random.uniform(-1.5, 1.5, 3) * values.std()
    values = (values - values.mean()) / values.std()
    return np.clip(np.rint(110 + 48 * values), 0, 255).astype(np.uint8)


def flat(level: int, side: int = 64) -> Pixels:
    return np.full((side, side, 3), level, np.uint8)


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def dissimilarity(a: Pixels, b: Pixels) -> float:
    """1 - SSIM (Wang et al. 2004) of the grey images, Gaussian windows of 1.5 pixels."""
    x, y = (image @ np.array([0.299, 0.587, 0.114]) for image in (a, b))

    def mean(values: Floats) -> Floats:
        return gaussian_filter(values, 1.5)

    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    similar = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(1 - similar.mean())


# What every corruption keeps to


def test_the_fifteen_in_four_groups() -> None:
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 15
    assert list(GROUPS) == ["noise", "blur", "weather", "digital"]
    assert sum(GROUPS.values(), ()) == CORRUPTIONS
    assert set(corruptions._APPLY) == set(corruptions._STRENGTHS) == set(CORRUPTIONS)
    for tables in corruptions._STRENGTHS.values():
        assert [len(table) for table in tables] == [5, 5, 5]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(16, 16), (16, 41), (47, 130), (130, 64), (161, 203)])
def test_any_size_keeps_its_shape(name: str, shape: tuple[int, int]) -> None:
    image = natural(*shape, seed=1)
    before = image.copy()
    for severity in (1, 5):
        out = corrupt(image, name, severity, seed=5)
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        assert not np.shares_memory(out, image)
        assert np.array_equal(image, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_read_only_and_strided_pixels_do(name: str) -> None:
    wide = natural(40, 80, seed=2)
    view = wide[:, ::2]
    view.flags.writeable = False
    assert np.array_equal(corrupt(view, name, 3, 1), corrupt(view.copy(), name, 3, 1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_alone_decides(name: str) -> None:
    image = natural(48, 48, seed=3)
    np.random.seed(1)
    state = repr(np.random.get_state(legacy=False))
    one = corrupt(image, name, 3, seed=11)
    assert repr(np.random.get_state(legacy=False)) == state
    np.random.seed(2)
    assert np.array_equal(one, corrupt(image, name, 3, seed=11))
    indexed = np.array([3, 11])  # numpy's whole numbers do as well
    assert np.array_equal(one, corrupt(image, name, indexed[0], seed=indexed[1]))
    other = corrupt(image, name, 3, seed=12)
    assert np.array_equal(one, other) == (name not in DRAWN)
    corrupt(image, name, 3, seed=2**256 - 1)  # a whole hash is a seed


def test_each_severity_and_name_has_its_own_draws() -> None:
    grey = flat(128)
    noise = [corrupt(grey, "gaussian_noise", s, 0).astype(float).ravel() for s in (1, 2)]
    noise.append(corrupt(grey, "shot_noise", 1, 0).astype(float).ravel())
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05


def test_draws_are_frozen() -> None:
    """Scores over the years are compared: these pixels must not change without a new VERSION."""
    corner = corrupt(flat(128, 16), "gaussian_noise", 5, seed=7)[0, :2].ravel().tolist()
    assert (corruptions.VERSION, corner) == (1, [92, 67, 137, 93, 144, 154])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows(name: str, side: int) -> None:
    """In mean absolute change or in structure; the two exceptions are the published tables'."""
    images = [natural(side, side, seed) for seed in range(3)]
    pairs = [[(x, corrupt(x, name, s, i)) for i, x in enumerate(images)] for s in SEVERITIES]
    change = np.array([np.mean([difference(*pair) for pair in some]) for some in pairs])
    structure = np.array([np.mean([dissimilarity(*pair) for pair in some]) for some in pairs])
    assert structure[0] > 0.001
    if name == "glass_blur" or (name, side) == ("snow", 176):
        assert structure[4] > 1.3 * structure[0]
    else:
        assert (np.diff(change) > 0).all() or (np.diff(structure) > 0).all(), (change, structure)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_flat_images_survive(name: str, side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = {level: corrupt(flat(level, side), name, 5, 3) for level in (0, 128, 255)}
    if name in (*GROUPS["blur"], *GROUPS["digital"]):
        for level, image in out.items():  # JPEG rounds the mean to a multiple of its step
            assert np.ptp(image) == 0
            assert abs(int(image[0, 0, 0]) - level) <= (name == "jpeg_compression")
    if name in ("shot_noise", "fog"):  # no light, no noise; fog is as bright as the brightest
        assert not out[0].any()


# Mistakes


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UserError, match="no corruption 'gausian_noise'; did you mean 'gaussian_no"):
        corrupt(flat(0), "gausian_noise", 1, 0)
    with pytest.raises(UserError, match="no corruption 'rain'; choose from gaussian_noise, shot_"):
        corrupt(flat(0), "rain", 1, 0)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, "3", None])
def test_unknown_severity(severity: int) -> None:
    with pytest.raises(UserError, match="whole number from 1 to 5, got " + repr(severity)):
        corrupt(flat(0), "fog", severity, 0)


def test_tiny_image() -> None:
    with pytest.raises(UserError, match="of 20 x 15 pixels is too small"):
        corrupt(np.zeros((MIN_SIDE - 1, 20, 3), np.uint8), "fog", 1, 0)


@pytest.mark.parametrize(
    "pixels", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 3))]
)
def test_wrong_array(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        corrupt(pixels, "fog", 1, 0)


def test_which_table() -> None:
    found = {side: strength_of("gaussian_noise", 5, side) for side in (16, 47, 48, 159, 160, 600)}
    assert list(found.values()) == [(0.1,), (0.1,), (0.18,), (0.18,), (0.38,), (0.38,)]
    long = corrupt(np.full((32, 500, 3), 128, np.uint8), "gaussian_noise", 5, 0)
    assert np.std(long / 255.0) == pytest.approx(0.1, rel=0.03)  # by the shorter side


# Closed forms


@pytest.mark.parametrize(("side", "severity"), [(32, 1), (64, 3), (64, 5), (176, 1)])
def test_gaussian_noise_on_grey(side: int, severity: int) -> None:
    noise = corrupt(flat(128, side), "gaussian_noise", severity, 0) / 255 - 128 / 255
    (std,) = strength_of("gaussian_noise", severity, side)
    assert noise.std() == pytest.approx(std, rel=0.04)
    assert abs(noise.mean()) < 5 * std / math.sqrt(noise.size)


@pytest.mark.parametrize("level", [40, 128])
def test_shot_noise_is_poisson(level: int) -> None:
    (photons,) = strength_of("shot_noise", 3, 64)
    values = corrupt(flat(level), "shot_noise", 3, 0) / 255
    assert values.mean() == pytest.approx(level / 255, rel=0.02)
    assert values.var() == pytest.approx(level / 255 / photons, rel=0.06)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_share(severity: int) -> None:
    (share,) = strength_of("impulse_noise", severity, 176)
    out = corrupt(flat(128, 176), "impulse_noise", severity, 0)
    assert set(np.unique(out)) == {0, 128, 255}
    for level in (0, 255):
        assert (out == level).mean() == pytest.approx(share / 2, rel=0.06)


def test_brightness_raises_value_and_keeps_hue() -> None:
    image = natural(64, 64, 0)
    image[0, :4] = [[0, 0, 0], [255, 255, 255], [200, 0, 0], [10, 20, 30]]
    out = corrupt(image, "brightness", 2, 0)
    assert out[0, 0].tolist() == [51, 51, 51]  # black has no hue
    (amount,) = strength_of("brightness", 2, 64)
    assert np.array_equal(out.max(2), np.minimum(image.max(2).astype(int) + amount * 255, 255))
    before, after = rgb_to_hsv(image / 255), rgb_to_hsv(out / 255)
    clear = (image.max(2) > 60) & (before[..., 1] > 0.3)
    assert clear.sum() > 500
    turn = np.abs(before - after)[clear]
    assert np.minimum(turn[:, 0], 1 - turn[:, 0]).max() < 0.02
    assert turn[:, 1].max() < 0.02


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_about_each_channels_mean(severity: int) -> None:
    image = natural(64, 64, 1)
    (factor,) = strength_of("contrast", severity, 64)
    mean = image.mean((0, 1))
    expected = (image - mean) * factor + mean
    assert np.abs(corrupt(image, "contrast", severity, 0) - expected).max() < 0.501


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_is_down_and_up(severity: int) -> None:
    image = natural(60, 90, 1)
    (factor,) = strength_of("pixelate", severity, 60)
    size, box = (int(90 * factor), int(60 * factor)), Image.Resampling.BOX
    small = Image.fromarray(image).resize(size, box)
    expected = np.asarray(small.resize((90, 60), box))
    assert np.array_equal(corrupt(image, "pixelate", severity, 0), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_pillows(severity: int) -> None:
    image = natural(50, 70, 1)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=(65, 58, 50, 40, 25)[severity - 1])
    expected = np.asarray(Image.open(file))
    assert np.array_equal(corrupt(image, "jpeg_compression", severity, 0), expected)


@pytest.mark.parametrize("side", [64, 224])
def test_elastic_moves_by_smoothed_uniform_noise(side: int) -> None:
    """On a ramp the values tell how far each pixel moved. White noise of variance v smoothed by a
    Gaussian of s pixels has variance v / (4 pi s^2)."""
    ramp = np.repeat(np.repeat(np.arange(side, dtype=np.uint8)[None, :, None], side, 0), 3, 2)
    moved = corrupt(ramp, "elastic_transform", 5, 0)[:, 10:-10, 0] - np.arange(side)[10:-10]
    amount, smooth = strength_of("elastic_transform", 5, side)
    std = amount / math.sqrt(3) / (2 * math.sqrt(math.pi) * smooth)  # pixels
    assert moved.std() == pytest.approx(math.hypot(std, math.sqrt(1 / 12)), rel=0.12)


def test_fog_is_the_image_and_a_cloud() -> None:
    """At the least and most fog of its map, grey g becomes (g + c f) g / (g + c)."""
    (amount, _) = strength_of("fog", 5, 64)
    out = corrupt(flat(204), "fog", 5, 0) / 255
    assert out.max() <= 0.8 + 1 / 255
    assert out.min() >= 0.8 * 0.8 / (0.8 + amount) - 1 / 255
    assert out.std() > 0.05
    assert np.array_equal(out[..., 0], out[..., 2])


def test_plasma_is_a_rougher_cloud_where_it_decays_less() -> None:
    smooth, rough = (corruptions._plasma(64, 64, decay, RandomState(0)) for decay in (3, 1.4))
    for cloud in (smooth, rough):
        assert (cloud.min(), cloud.max()) == (0, 1)
    assert np.abs(np.diff(rough)).mean() > 3 * np.abs(np.diff(smooth)).mean()


def test_ice_has_the_photographs_light() -> None:
    for side in SIDES:
        panes = [corruptions._ice(side, side, RandomState(seed)) for seed in range(6)]
        red, green, blue = np.mean(panes, axis=(0, 1, 2))
        assert 0.5 < red < green < blue < 0.75
        assert 0.1 < np.mean([pane.std() for pane in panes]) < 0.2


# Slow references


def scattered_slowly(x: Floats, reach: int, moves: NDArray[np.int64]) -> Floats:
    """The loop of imagenet_c/corruptions.py; numpy's views make its swap a copy."""
    x, steps = x.copy(), iter(moves.reshape(-1, 2))
    for h in range(x.shape[0] - reach, reach, -1):
        for w in range(x.shape[1] - reach, reach, -1):
            dx, dy = next(steps)
            h_prime, w_prime = h + dy, w + dx
            x[h, w], x[h_prime, w_prime] = x[h_prime, w_prime], x[h, w]
    return x


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_scatters_as_the_loop_does(reach: int) -> None:
    x = RandomState(0).random_sample((23, 31, 3))
    moves = RandomState(1).randint(-reach, reach, (23 - 2 * reach, 31 - 2 * reach, 2))
    source = corruptions._scattered(23, 31, reach, moves)
    fast = x.reshape(-1, 3)[source].reshape(x.shape)
    assert np.array_equal(fast, scattered_slowly(x, reach, moves))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [32, 64, 176])
def test_defocus_is_a_mean_over_a_disk(side: int, severity: int) -> None:
    radius, soft = strength_of("defocus_blur", severity, side)
    kernel = corruptions._disk(radius, soft)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(kernel, kernel.T)
    assert np.array_equal(kernel, kernel[::-1])
    middle = len(kernel) // 2
    reach = 1 if radius <= 8 else 2
    assert middle == int(radius) + reach
    assert kernel[middle, middle] == kernel.max()
    image = natural(side, side + 5, 2)
    slow = [convolve(image[..., c].astype(float), kernel, mode="mirror") for c in range(3)]
    out = corrupt(image, "defocus_blur", severity, 0)
    assert np.abs(out - np.stack(slow, -1)).max() < 0.51


@pytest.mark.parametrize("degrees", [-130, -90, -45, 0, 30, 45])
def test_streaks_follow_a_slow_loop(degrees: float) -> None:
    x = RandomState(0).random_sample((18, 25, 3)).astype(np.float32)
    slow = np.zeros_like(x)
    weights = np.exp(-(np.arange(21.0) ** 2) / (2 * 4**2))
    for step, weight in enumerate(weights / weights.sum()):
        dy = math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        dx = math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        rows, columns = np.clip(np.arange(18) + dy, 0, 17), np.clip(np.arange(25) + dx, 0, 24)
        slow += weight * x[rows][:, columns]
    assert np.allclose(corruptions._streaked(x, 10, 4, degrees), slow, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_zoom_crops_and_enlarges_as_the_original(severity: int) -> None:
    image = natural(161, 176, 3)
    stop, step = strength_of("zoom_blur", severity, 161)
    total, factors = image / 255, np.arange(1, stop, step)
    for factor in factors:
        down, across = math.ceil(161 / factor), math.ceil(176 / factor)
        top, left = (161 - down) // 2, (176 - across) // 2
        cut = image[top : top + down, left : left + across] / 255
        large = zoom(cut, (factor, factor, 1), order=1)
        top, left = (large.shape[0] - 161) // 2, (large.shape[1] - 176) // 2
        total = total + large[top : top + 161, left : left + 176]
    slow = total / (len(factors) + 1) * 255
    out = corrupt(image, "zoom_blur", severity, 0)
    assert np.abs(out - slow).max() < 1.5  # Pillow rounds each zoom
    assert np.abs(out - slow).mean() < 0.35
