"""The 15 common corruptions of Hendrycks & Dietterich (ICLR 2019) at 5 severities, for any image.

    noisy = corrupt(pixels, "shot_noise", severity=3, seed=seed_of_the_image)

Written here because neither package fits: ``imagecorruptions`` 1.1.2 (Michaelis et al. 2019) fails
on numpy 2 (fog) and scikit-image 0.26 (glass_blur), and its fork ``imagecorruptions-imaug`` 1.1.5
needs OpenCV, numba and scikit-image; both draw from numpy's global state, refuse sides below 32
pixels and give every image the strengths meant for 224. The original also needs ImageMagick.

The shorter side s of the image chooses one of three published tables of strengths:

============ ============================ ====================================================
s < 48       CIFAR-10-C (32 px)           create_c/make_cifar_c.py of hendrycks/robustness
48 <= s <160 Tiny-ImageNet-C (64 px)      create_c/make_tinyimagenet_c.py
s >= 160     ImageNet-C (224 px)          imagenet_c/corruptions.py
============ ============================ ====================================================

Within a range strengths in pixels stay in pixels, as Michaelis et al. have it: a blur of 3 pixels
is gentler on 512 than on 224. Zoom and frost grow with the image; of the elastic warp the
wavelength does, while pixels move as far.

What differs from the originals:

- frost adds drawn crystals, not a photograph (none may be shipped), of like mean and contrast; its
  numbers cannot be compared with ImageNet-C's, nor can a mean over all 15;
- elastic_transform keeps the local warp and leaves out the random affine map, which in the
  originals is strongest at severity 1 or 2; its strengths are those of Michaelis et al. at 224 and
  have the same proportions in the small tables, where severity 5 is the original's;
- motion_blur and the streaks of snow follow the kernel that Michaelis et al. wrote for
  ImageMagick's; borders are repeated, so small images are not darkened;
- glass_blur's loop over pixels is followed exactly, by pointer jumping. Its "swap" of two numpy
  views copies one pixel over the other, and so does ours;
- defocus_blur's kernels sum to 1; at radius 8 and 10 the original's brighten or darken by 1 %;
- values are rounded, where the original cuts off decimals, and nothing is saved as JPEG after.

Severities are as published, which is not always in order: glass_blur 2 to 5 swap places in pixel
change (rounds against sigma), and ImageNet-C's snow 3 has fewer flakes than its snow 2.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
from collections.abc import Callable

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from scipy.signal import fftconvolve

from eval.common.errors import BadInput, NotFound, did_you_mean

Pixels = NDArray[np.uint8]  # [H, W, 3]
Values = NDArray[np.float32]  # [H, W, 3] or [H, W], in 0..1
Strength = tuple[float, ...]  # what one corruption takes at one severity

GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS: tuple[str, ...] = tuple(name for group in GROUPS.values() for name in group)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 16  # pixels
VERSION = 1  # of the pixels: raise it when any corruption changes


def corrupt(pixels: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """The image [H, W, 3] under one corruption, as a new array of the same shape.

    What is drawn depends on (seed, name, severity) and the image's size alone: take a seed from
    the image's hash, so that images differ and every model meets the same pixels. Raises UserError.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be uint8 [H, W, 3], got {pixels.dtype} {pixels.shape}")
    height, width, _ = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise BadInput(
            f"an image of {width} x {height} pixels is too small to corrupt; each side needs at "
            f"least {MIN_SIDE}"
        )
    strength = strength_of(name, severity, min(height, width))
    key = f"corruption/{VERSION}/{name}/{int(severity)}/{int(seed)}"
    # RandomState, because its streams are the same in every version of numpy.
    random = RandomState(np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4"))
    values = pixels.astype(np.float32) / 255
    return _to_pixels(_APPLY[name](values, random, *strength))


def strength_of(name: str, severity: int, side: int) -> Strength:
    """The parameters of a corruption for images whose shorter side has ``side`` pixels; their
    meanings are at the table below. Raises UserError."""
    if name not in CORRUPTIONS:
        known = "choose from " + ", ".join(CORRUPTIONS)
        raise NotFound(f"there is no corruption {name!r}{did_you_mean(name, CORRUPTIONS, known)}")
    if severity not in SEVERITIES:
        raise BadInput(f"severity must be a whole number from 1 to 5, got {severity!r}")
    column = 0 if side < 48 else 1 if side < 160 else 2
    return _STRENGTHS[name][column][SEVERITIES.index(severity)]


def _to_pixels(values: Values) -> Pixels:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _to_values(image: Image.Image) -> Values:
    return np.asarray(image).astype(np.float32) / np.float32(255)


# Noise


def _gaussian_noise(x: Values, random: RandomState, std: float) -> Values:
    return x + random.standard_normal(x.shape).astype(np.float32) * np.float32(std)


def _shot_noise(x: Values, random: RandomState, photons: float) -> Values:
    """Counts of photons, of which white would send ``photons`` on average."""
    return (random.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: Values, random: RandomState, share: float) -> Values:
    """A share of all values, each channel for itself, becomes 0 or 1 in equal parts."""
    u = random.random_sample(x.shape)
    return np.where(u < share / 2, 0, np.where(u >= 1 - share / 2, 1, x)).astype(np.float32)


# Blur


def _defocus_blur(x: Values, random: RandomState, radius: float, soft: float) -> Values:
    """Convolution with a disk, the borders mirrored."""
    kernel = _disk(radius, soft)
    margin = len(kernel) // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))


@functools.cache
def _disk(radius: float, soft: float) -> NDArray[np.float32]:
    """[K, K] disk of ``radius`` pixels whose edge a Gaussian of ``soft`` pixels softens; sums to 1.

    The original cuts the Gaussian to 3 x 3 pixels, 5 x 5 for radii above 8; at a radius of 0.3
    there is but that Gaussian left.
    """
    reach = 1 if radius <= 8 else 2
    side = np.arange(-math.floor(radius) - reach, math.floor(radius) + reach + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(np.float64)
    disk = gaussian_filter(disk / disk.sum(), soft, mode="constant", radius=reach)
    return disk.astype(np.float32)


def _glass_blur(
    x: Values, random: RandomState, sigma: float, reach: float, rounds: float
) -> Values:
    """Pixels scattered by up to ``reach`` pixels, a Gaussian blur of ``sigma`` before and after."""
    x = _blurred(x, sigma)
    height, width, channels = x.shape
    reach = int(reach)
    for _ in range(int(rounds)):
        shape = (height - 2 * reach, width - 2 * reach, 2)
        source = _scattered(height, width, reach, random.randint(-reach, reach, shape))
        x = x.reshape(-1, channels)[source].reshape(x.shape)
    return _blurred(x, sigma)


def _blurred(x: Values, sigma: float) -> Values:
    """Gaussian blur in both directions, the borders repeated."""
    return gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _scattered(
    height: int, width: int, reach: int, moves: NDArray[np.signedinteger]
) -> NDArray[np.int64]:
    """[H * W] for each pixel the one whose value it has after the original's loop

        for h in range(H - reach, reach, -1):
            for w in range(W - reach, reach, -1):
                x[h, w] = x[h + dy, w + dx]

    ``moves`` [H - 2 reach, W - 2 reach, 2] holds its (dx, dy), each in -reach..reach - 1, in order.
    A pixel that copies from a later one gets what that one has copied already, and so on: such
    chains are followed for all pixels at once, twice as far each time.
    """
    own = np.arange(height * width).reshape(height, width)
    copied = own.copy()
    inner = slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    copied[inner] += (moves[..., 1] * width + moves[..., 0])[::-1, ::-1]
    source = copied.ravel()
    last = np.maximum(own.ravel(), source)  # the end of the chain, as far as it is known
    while not np.array_equal(further := last[last], last):
        last = further
    return source[last]


def _motion_blur(x: Values, random: RandomState, radius: float, sigma: float) -> Values:
    return _streaked(x, radius, sigma, random.uniform(-45, 45))


def _streaked(x: Values, radius: float, sigma: float, degrees: float) -> Values:
    """Half a Gaussian of ``sigma`` pixels, 2 radius + 1 long, drawn out in one direction; the
    borders are repeated. x: [H, W] or [H, W, C]."""
    length = 2 * int(radius) + 1
    weights = np.exp(-np.square(np.arange(length)) / (2 * sigma**2))
    weights /= weights.sum()
    height, width = x.shape[:2]
    padded = np.pad(x, [(length, length)] * 2 + [(0, 0)] * (x.ndim - 2), "edge")
    out = np.zeros_like(x)
    for step, weight in enumerate(weights.astype(np.float32)):
        top = length + math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        left = length + math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        out += weight * padded[top : top + height, left : left + width]
    return out


def _zoom_blur(x: Values, random: RandomState, stop: float, step: float) -> Values:
    """Mean of the image and its zooms by 1, 1 + step, ... (below ``stop``)."""
    height, width, _ = x.shape
    factors = np.arange(1, stop, step)
    image = Image.fromarray(_to_pixels(x))
    total = x.copy()
    for factor in factors.tolist():
        (left, right), (top, bottom) = _zoomed(width, factor), _zoomed(height, factor)
        box = (left, top, right, bottom)
        total += _to_values(image.resize((width, height), Image.Resampling.BILINEAR, box))
    return total / np.float32(len(factors) + 1)


def _zoomed(size: int, factor: float) -> tuple[float, float]:
    """The span of one side that a zoom shows, in pixels.

    The original cuts whole pixels from the middle, enlarges so that the first and last pixel stay
    the first and last (scipy.ndimage.zoom), and cuts the middle again.
    """
    cut = math.ceil(size / factor)
    large = round(cut * factor)
    step = (cut - 1) / (large - 1)  # old pixels a new one
    start = (size - cut) // 2 + (large - size) // 2 * step + 0.5 - step / 2
    return start, start + size * step


# Weather


def _snow(
    x: Values,
    random: RandomState,
    mean: float,
    std: float,
    size: float,
    least: float,
    radius: float,
    sigma: float,
    kept: float,
) -> Values:
    """Flakes are the values above ``least`` of normal noise (mean, std) enlarged by ``size``, drawn
    out as by `_streaked`; the scene is whitened, only ``kept`` of it stays as it is."""
    height, width, _ = x.shape
    grid = math.ceil(height / size), math.ceil(width / size)
    flakes = _enlarged(random.normal(mean, std, grid).astype(np.float32), size, height, width)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _streaked(flakes, radius, sigma, random.uniform(-135, -45))
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)  # [H, W]
    white = np.maximum(x, grey[:, :, None] * 1.5 + 0.5)
    return kept * x + (1 - kept) * white + (flakes + flakes[::-1, ::-1])[:, :, None]


def _enlarged(noise: Values, factor: float, height: int, width: int) -> Values:
    """[height, width] from the middle of the noise, linearly enlarged."""
    large = zoom(noise, factor, order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def _frost(x: Values, random: RandomState, kept: float, ice: float) -> Values:
    return kept * x + ice * _ice(x.shape[0], x.shape[1], random)


def _ice(height: int, width: int, random: RandomState) -> Values:
    """[H, W, 3] a frosted pane: feathers of ice on cloudy, grainy, bluish rime.

    The mean is about 0.61, the standard deviation 0.13, and 0.08 once a blur of 4 pixels is taken
    off (at 224): as in crops of the photographs, which have 0.64, 0.12 and 0.07.
    """
    cloud = _plasma(height, width, 1.8, random)
    grain = _plasma(height, width, 1.15, random)
    feathers = _feathers(height, width, random)
    tone = 0.2 + 0.45 * cloud + 0.25 * grain + 0.55 * feathers
    return np.clip(tone[:, :, None] * np.array([0.9, 1.0, 1.07], np.float32), 0, 1)


_PLUMES, _BARBS = 90, 20  # feathers of ice on a square image; twigs on each side of one
_CANVAS = 320  # pixels on the shorter side, on which they are drawn for any image


def _feathers(height: int, width: int, random: RandomState) -> Values:
    """[H, W] straight stems with twigs at 60 degrees, as ice grows, ever shorter to the tip."""
    scale = _CANVAS / min(height, width)
    canvas = Image.new("L", (round(width * scale), round(height * scale)))
    count = round(_PLUMES * max(canvas.size) / _CANVAS)
    foot = random.uniform(-0.1, 1.1, (count, 1, 2)) * canvas.size  # (x, y)
    angle = random.uniform(0, 2 * np.pi, (count, 1))
    stem = random.uniform(0.1, 0.5, (count, 1)) * _CANVAS
    along = (np.arange(_BARBS) + random.random_sample((count, _BARBS))) / _BARBS
    joints = foot + _towards(angle, along * stem)  # [count, barbs, 2]
    lines = [np.concatenate([foot, foot + _towards(angle, stem)], axis=2)]
    for turn in (-np.pi / 3, np.pi / 3):
        length = 0.25 * stem * (1 - along) * random.uniform(0.4, 1, along.shape)
        lines.append(np.concatenate([joints, joints + _towards(angle + turn, length)], axis=2))
    ends = np.concatenate(lines, axis=1).reshape(-1, 4)
    draw = ImageDraw.Draw(canvas)
    for line, light in zip(ends.tolist(), random.randint(64, 256, len(ends)).tolist(), strict=True):
        draw.line(line, fill=light)
    soft = canvas.resize((width, height), Image.Resampling.BICUBIC)
    return _to_values(soft)


def _towards(angle: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """[count, lines, (x, y)] steps of a length in a direction."""
    return np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1)


def _fog(x: Values, random: RandomState, amount: float, decay: float) -> Values:
    brightest = x.max()
    thick = x + amount * _plasma(x.shape[0], x.shape[1], decay, random)[:, :, None]
    return thick * brightest / (brightest + amount)


def _plasma(height: int, width: int, decay: float, random: RandomState) -> Values:
    """[height, width] cut from a cloudy square of values in 0..1, its side the next power of two.

    Midpoints are displaced (diamond-square) on a torus. The swing falls by decay squared per level:
    the original multiplies two numbers of which each falls by decay.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = np.zeros((side, side), np.float32)
    step, swing = side, 1.0
    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        down, right = np.roll(corners, -1, 0), np.roll(corners, -1, 1)
        across = np.roll(right, -1, 0)
        jolts = swing * random.uniform(-1, 1, (3, *corners.shape))
        centres = (corners + down + right + across) / 4 + jolts[0]
        cloud[half::step, half::step] = centres
        cloud[::step, half::step] = (corners + right + centres + np.roll(centres, 1, 0)) / 4
        cloud[::step, half::step] += jolts[1]
        cloud[half::step, ::step] = (corners + down + centres + np.roll(centres, 1, 1)) / 4
        cloud[half::step, ::step] += jolts[2]
        step, swing = half, swing / decay**2
    low, high = cloud.min(), cloud.max()
    return (cloud[:height, :width] - low) / (high - low)


def _brightness(x: Values, random: RandomState, amount: float) -> Values:
    """``amount`` added to the value of HSV, hue and saturation kept."""
    value = x.max(axis=2, keepdims=True)
    raised = np.minimum(value + np.float32(amount), 1)
    return np.where(value > 0, x * (raised / np.maximum(value, 1e-6)), raised)


# Digital


def _contrast(x: Values, random: RandomState, factor: float) -> Values:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * np.float32(factor) + mean


def _elastic_transform(x: Values, random: RandomState, amount: float, smooth: float) -> Values:
    """Each pixel is fetched from nearby: uniform noise of +- amount sides, smoothed by a Gaussian
    of ``smooth`` sides (the shorter one), gives the ways."""
    height, width, channels = x.shape
    side = min(height, width)
    noise = random.uniform(-amount * side, amount * side, (2, height, width)).astype(np.float32)
    sigma = smooth * side
    ways = gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3)
    places = np.indices((height, width), np.float32) + ways  # [2, H, W]
    planes = [map_coordinates(x[..., c], places, order=1, mode="reflect") for c in range(channels)]
    return np.stack(planes, axis=-1)


def _pixelate(x: Values, random: RandomState, factor: float) -> Values:
    height, width, _ = x.shape
    image = Image.fromarray(_to_pixels(x))
    small = image.resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return _to_values(small.resize(image.size, Image.Resampling.BOX))


def _jpeg_compression(x: Values, random: RandomState, quality: float) -> Values:
    file = io.BytesIO()
    Image.fromarray(_to_pixels(x)).save(file, "JPEG", quality=int(quality))
    return _to_values(Image.open(file))


_APPLY: dict[str, Callable[..., Values]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}


def _levels(*values: float) -> tuple[Strength, ...]:
    """Five severities of a corruption with one parameter."""
    return tuple((value,) for value in values)


# Rows: CIFAR-10-C, Tiny-ImageNet-C, ImageNet-C; in each, severities 1 to 5. Parameters in the order
# of the functions above. Elastic: see the module's docstring.
_STRENGTHS: dict[str, tuple[tuple[Strength, ...], ...]] = {
    "gaussian_noise": (
        _levels(0.04, 0.06, 0.08, 0.09, 0.10),
        _levels(0.04, 0.08, 0.12, 0.15, 0.18),
        _levels(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": (
        _levels(500, 250, 100, 75, 50),
        _levels(250, 100, 50, 30, 15),
        _levels(60, 25, 12, 5, 3),
    ),
    "impulse_noise": (
        _levels(0.01, 0.02, 0.03, 0.05, 0.07),
        _levels(0.01, 0.02, 0.05, 0.08, 0.14),
        _levels(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": (
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (
        _levels(0.05, 0.1, 0.15, 0.2, 0.3),
        _levels(0.1, 0.2, 0.3, 0.4, 0.5),
        _levels(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": (
        _levels(0.75, 0.5, 0.4, 0.3, 0.15),
        _levels(0.4, 0.3, 0.2, 0.1, 0.05),
        _levels(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "elastic_transform": (
        ((0.042, 0.03), (0.054, 0.03), (0.071, 0.03), (0.083, 0.03), (0.1, 0.03)),
        ((0.067, 0.03), (0.087, 0.03), (0.113, 0.03), (0.133, 0.03), (0.16, 0.03)),
        ((0.0625, 0.01), (0.08125, 0.01), (0.10625, 0.01), (0.125, 0.01), (0.15, 0.01)),
    ),
    "pixelate": (
        _levels(0.95, 0.9, 0.85, 0.75, 0.65),
        _levels(0.9, 0.8, 0.7, 0.6, 0.5),
        _levels(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": (
        _levels(80, 65, 58, 50, 40),
        _levels(65, 58, 50, 40, 25),
        _levels(25, 18, 15, 10, 7),
    ),
}
