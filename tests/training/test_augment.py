"""Batched augmentations against torchvision's per-image ones: each op exactly, the rest in law."""

import itertools
import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from PIL import Image
from scipy import stats
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from eval.training import augment, resize
from eval.training.augment import Augmentation, evaluation, strong, weak

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Augmentation(px=32, mean=(0, 0, 0), std=(1, 1, 1))
# Nothing happens but what a test turns on.
STILL = replace(
    PLAIN,
    scale=(1, 1),
    ratio=(1, 1),
    jitter=(0, 0, 0, 0),
    jitter_p=0,
    grey_p=0,
    blur_p=0,
    flip_p=0,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, side: int, seed: int = 0) -> Tensor:
    """[n, 3, side, side] uint8 views of NHWC: smooth colours, edges, some noise."""
    g = seeded(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=g)
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    x[:, :, side // 3 : side // 2, side // 4 :] *= torch.rand(n, 3, 1, 1, generator=g)
    x = x + 0.05 * torch.randn(n, 3, side, side, generator=g)
    x = (x.clamp(0, 1) * 255).round().byte()
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def as_float(images: Tensor) -> Tensor:
    return images.float() / 255


def spectrum() -> Tensor:
    """[3, 32, 32] in [0, 1]: all corners and edges of the colour cube, greys, ties, noise."""
    corners = torch.tensor([*itertools.product((0.0, 0.25, 0.5, 1.0), repeat=3)])
    noise = torch.rand(32 * 32 - len(corners) - 64, 3, generator=seeded(3))
    greys = torch.linspace(0, 1, 64)[:, None].expand(-1, 3)
    return torch.cat([corners, greys, noise]).t().reshape(3, 32, 32).contiguous()


# Each op alone


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("op", "reference", "factors"),
    [
        (augment._brightness_, tv.adjust_brightness, [0.0, 0.6, 0.93, 1.0, 1.4, 2.0]),
        (augment._contrast_, tv.adjust_contrast, [0.0, 0.6, 0.93, 1.0, 1.4, 2.0]),
        (augment._saturation_, tv.adjust_saturation, [0.0, 0.6, 0.93, 1.0, 1.4, 2.0]),
        (augment._hue_, tv.adjust_hue, [-1 / 6, -0.1, -0.013, 0.0, 0.07, 1 / 6]),
    ],
)
def test_colour_ops_equal_torchvisions(op, reference, factors, transposed: bool) -> None:
    x = torch.cat([spectrum()[None], as_float(pictures(len(factors) - 1, 32))])
    x = torch.cat([x, x.roll(1, 0)])
    factors = factors * 2
    expected = torch.stack([reference(a, f) for a, f in zip(x, factors, strict=True)])
    x = x.mT.contiguous().mT if transposed else x.contiguous()
    op(x, torch.tensor(factors))
    assert (x - expected).abs().max() < 1e-5
    assert x.min() >= 0
    assert x.max() <= 1


def test_hue_of_nearly_grey_and_dark_pixels_stays_finite_and_close() -> None:
    g = seeded()
    level = torch.rand(1, 1, 64, 64, generator=g) ** 8
    x = level * (1 + 3e-7 * torch.randn(1, 3, 64, 64, generator=g))
    x = torch.cat([x, torch.zeros_like(x), 1e-38 * torch.rand(1, 3, 64, 64, generator=g)])
    x = x.clamp(0, 1)
    expected = torch.stack([tv.adjust_hue(a, 0.1) for a in x])
    augment._hue_(x, torch.full((3,), 0.1))
    assert (x - expected).abs().max() < 1e-5


def test_a_hue_jitter_beyond_the_formulas_range_is_refused() -> None:
    with pytest.raises(ValueError, match="hue"):
        replace(PLAIN, jitter=(0.4, 0.4, 0.4, 0.2))


@pytest.mark.parametrize(("side", "radius"), [(32, 8), (20, 3), (9, 8)])
def test_blur_equals_torchvisions(side: int, radius: int) -> None:
    sigmas = [0.1, 0.5, 0.9, 1.3, 2.0]
    x = as_float(pictures(len(sigmas), side))
    size = 2 * radius + 1
    expected = torch.stack(
        [tv.gaussian_blur(a, [size, size], [s, s]) for a, s in zip(x, sigmas, strict=True)]
    )
    assert (augment._blurred(x, torch.tensor(sigmas), radius) - expected).abs().max() < 1e-5


def test_the_blur_kernel_covers_four_sigma_and_reflection_allows_it() -> None:
    assert augment._radius(2.0, 64) == 8
    assert augment._radius(0.3, 64) == 2
    assert augment._radius(2.0, 8) == 7


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("px", [16, 40, 64])
def test_crop_equals_torchvisions_at_whole_pixels(px: int, mirror: bool) -> None:
    side = 48
    boxes = [(0, 0, 48, 48), (5, 11, 20, 31), (40, 0, 8, 48), (13, 7, 1, 2), (0, 3, 45, 45)]
    images = pictures(len(boxes), side)
    expected = torch.stack(
        [
            tv.resized_crop(a, *box, [px, px], InterpolationMode.BILINEAR, antialias=True)
            for a, box in zip(as_float(images), boxes, strict=True)
        ]
    )
    top, left, height, width = torch.tensor(boxes).t() / side
    if mirror:
        expected = expected.flip(3)
        left, width = left + width, -width
    rows = resize.taps(top, height, px, side)
    columns = resize.taps(left, width, px, side)
    # Positions are float32 fractions of the side: off by some 1e-6 pixels.
    assert (resize.resized(images, rows, columns) - expected).abs().max() < 2e-5


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    out=st.integers(1, 40),
    size=st.integers(1, 90),
)
def test_taps_sum_to_one_and_read_only_the_box(
    start: float, end: float, out: int, size: int
) -> None:
    if abs(end - start) * size < 0.5:  # no image has a box so thin
        end = start + 0.5 / size if start < 0.5 else start - 0.5 / size
        if not 0 <= end <= 1:
            return
    index, weights = resize.taps(
        torch.tensor([start]), torch.tensor([end]) - torch.tensor([start]), out, size
    )
    assert index.min() >= 0
    assert index.max() < size
    assert weights.min() >= 0
    assert torch.allclose(weights.sum(2), torch.ones(1, out), atol=1e-5)
    read = index[weights > 1e-3].float()
    assert (read + 1 > min(start, end) * size - 1e-3).all()
    assert (read < max(start, end) * size + 1e-3).all()


# The crop's law


@pytest.mark.parametrize("shape", [(600, 600), (600, 900), (900, 500), (300, 1500), (1500, 300)])
def test_boxes_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    height, width = shape
    n = 1500
    image = torch.empty(1, 1, 1).expand(3, height, width)
    crop = v2.RandomResizedCrop(64, scale=PLAIN.scale, ratio=PLAIN.ratio)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = [crop.make_params([image]) for _ in range(n)]
    theirs = np.array([[p["left"], p["top"], p["width"], p["height"]] for p in drawn], float)
    theirs /= np.array([width, height, width, height])
    aspect = torch.full((2 * n,), width / height)
    ours = torch.stack(augment._boxes(2 * n, aspect, PLAIN, seeded(2)), 1).double().numpy()

    def numbers(boxes: np.ndarray) -> dict[str, np.ndarray]:
        left, top, w, h = boxes.T
        # Rounded to two pixels, for the central fallback is one value, and theirs a whole pixel.
        parts = {"area": w * h, "ratio": w / h * width / height, "left": left, "top": top}
        return {name: np.round(values * 150) / 150 for name, values in parts.items()}

    a, b = numbers(ours), numbers(theirs)
    for name in a:
        assert stats.ks_2samp(a[name], b[name]).pvalue > 1e-3, name


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    aspect=st.floats(0.2, 5),
    low=st.floats(0.05, 1),
    ratio=st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (0.5, 0.9)]),
    seed=st.integers(0, 2**31),
)
def test_views_show_the_area_and_ratio_drawn_in_the_original(
    aspect: float, low: float, ratio: tuple[float, float], seed: int
) -> None:
    ramp = torch.arange(256, dtype=torch.uint8)
    image = torch.stack([ramp.expand(256, 256), ramp[:, None].expand(256, 256)] * 2)[:3]
    n = 32
    settings = replace(STILL, scale=(low, 1), ratio=ratio)
    x = weak(image.expand(n, -1, -1, -1), torch.full((n,), aspect), settings, seeded(seed))
    # Red is the column and green the row shown, so differences measure the box.
    width = (x[:, 0, 16, 24] - x[:, 0, 16, 8]) * 255 / 256 * 2
    height = (x[:, 1, 24, 16] - x[:, 1, 8, 16]) * 255 / 256 * 2
    area, shown = width * height, width / height * aspect
    fallback_width, fallback_height = min(1, ratio[1] / aspect), min(1, aspect / ratio[0])
    fallback = (width - fallback_width).abs() + (height - fallback_height).abs() < 2e-3
    assert ((area > low - 1e-3) | fallback).all()
    assert (area < 1 + 1e-3).all()
    assert (fallback | (shown > ratio[0] * 0.99)).all()
    assert (fallback | (shown < ratio[1] * 1.01)).all()


def test_a_box_that_never_fits_falls_back_to_the_largest_central_one() -> None:
    settings = replace(PLAIN, scale=(1, 1))
    aspect = torch.tensor([4.0, 0.25, 1.0])
    left, top, width, height = augment._boxes(3, aspect, settings, seeded())
    assert torch.allclose(width[:2], torch.tensor([1 / 3, 1.0]))
    assert torch.allclose(height[:2], torch.tensor([1.0, 1 / 3]))
    assert torch.allclose(left[:2], torch.tensor([1 / 3, 0.0]))
    assert torch.allclose(top[:2], torch.tensor([0.0, 1 / 3]))


# Whole transforms


def summaries(x: Tensor) -> dict[str, np.ndarray]:
    """Numbers [N] of views [N, 3, px, px] in [0, 1] that each transform moves."""
    grey = x.mean(1)
    parts = {f"mean {c}": x[:, c].mean((1, 2)) for c in range(3)}
    parts |= {f"std {c}": x[:, c].std((1, 2)) for c in range(3)}
    parts["detail"] = (grey[:, 1:] - grey[:, :-1]).abs().mean((1, 2))
    parts["colour"] = (x.amax(1) - x.amin(1)).mean((1, 2))
    parts["tilt"] = grey[..., :16].mean((1, 2)) - grey[..., 16:].mean((1, 2))
    return {name: values.double().numpy() for name, values in parts.items()}


@pytest.mark.parametrize("which", ["weak", "strong"])
def test_views_are_distributed_as_torchvisions(which: str) -> None:
    image = pictures(1, 160, seed=5)  # so large that torchvision's whole-pixel boxes do not show
    crop = v2.RandomResizedCrop(32, scale=PLAIN.scale, ratio=PLAIN.ratio, antialias=True)
    flip = v2.RandomHorizontalFlip()
    pipeline = v2.Compose(
        [
            crop,
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(17, (0.1, 2.0))], 0.5),
            flip,
        ]
        if which == "strong"
        else [crop, flip]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([pipeline(as_float(image[0])) for _ in range(1200)])
    transform = {"weak": weak, "strong": strong}[which]
    ours = transform(image.expand(2500, -1, -1, -1), None, PLAIN, seeded(1))
    a, b = summaries(ours), summaries(theirs)
    for name in a:
        x, y = a[name], b[name]
        if name == "colour":  # of those left with any: chance differences in how many are below
            x, y = x[x > 1e-3], y[y > 1e-3]
        assert stats.ks_2samp(x, y).pvalue > 1e-3, name
    if which == "strong":
        greys = int((ours.amax(1) - ours.amin(1) < 1e-5).flatten(1).all(1).sum())
        assert stats.binomtest(greys, 2500, 0.2).pvalue > 1e-3


def only(**kwargs: object) -> Augmentation:
    return replace(STILL, px=16, **kwargs)


@pytest.mark.parametrize(
    ("settings", "p"),
    [
        (only(jitter=(0.4, 0, 0, 0), jitter_p=0.8), 0.8),
        (only(jitter=(0, 0.4, 0, 0), jitter_p=0.8), 0.8),
        (only(jitter=(0, 0, 0.4, 0), jitter_p=0.8), 0.8),
        (only(jitter=(0, 0, 0, 0.1), jitter_p=0.8), 0.8),
        (only(grey_p=0.2), 0.2),
        (only(blur_p=0.5, blur_sigma=(0.4, 2)), 0.5),
        (only(flip_p=0.5), 0.5),
    ],
)
def test_each_op_has_its_own_probability_and_factor_per_image(
    settings: Augmentation, p: float
) -> None:
    n = 1000
    image = pictures(1, 16, seed=2)
    x = strong(image.expand(n, -1, -1, -1), None, settings, seeded())
    changed = (x - as_float(image)).abs().flatten(1).amax(1) > 1e-4
    # A factor close to 1 leaves the image: hence the margin below, not above.
    assert p - 0.06 < changed.double().mean() < p + 0.05
    distinct = len(torch.unique((x * 1e4).round().flatten(1), dim=0))
    if settings.grey_p or settings.flip_p:
        assert distinct == 2
    else:
        assert distinct > 0.6 * n * p


@pytest.mark.parametrize("op", range(4))
def test_factors_are_uniform_and_independent_over_images_and_ops(op: int) -> None:
    factors = augment._factors(3000, PLAIN, torch.device("cpu"), seeded())
    low, width = (-0.1, 0.2) if op == 3 else (0.6, 0.8)
    values = factors[op].double().numpy()
    assert stats.kstest(values, "uniform", (low, width)).pvalue > 1e-3
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.08
    for other in range(op):
        assert abs(np.corrcoef(values, factors[other].numpy())[0, 1]) < 0.08


def test_every_order_of_the_colour_ops_is_drawn_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [1.4, 0.6, 1.4, 0.1]
    monkeypatch.setattr(
        augment, "_factors", lambda n, *_: torch.tensor(values)[:, None].repeat(1, n)
    )
    image = pictures(1, 16, seed=7)
    ops = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    expected = []
    for order in itertools.permutations(range(4)):
        x = as_float(image[0])
        for op in order:
            x = ops[op](x, values[op])
        expected.append(x)
    n = 2400
    settings = only(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=1)
    x = strong(image.expand(n, -1, -1, -1), None, settings, seeded())
    distance = torch.cdist(x.flatten(1), torch.stack(expected).flatten(1), p=math.inf)
    assert distance.amin(1).max() < 2e-5
    assert stats.chisquare(distance.argmin(1).bincount(minlength=24)).pvalue > 1e-3


def test_images_stay_in_their_rows() -> None:
    levels = torch.arange(40, 240, 5, dtype=torch.uint8)
    images = levels[:, None, None, None].expand(-1, 3, 20, 20)
    settings = replace(PLAIN, jitter=(0, 0.4, 0.4, 0.1))  # none of which moves a flat grey
    for transform in (weak, strong):
        x = transform(images, None, settings, seeded())
        assert (x * 255 - levels[:, None, None, None]).abs().max() < 0.1


def test_more_images_than_one_part_and_none_at_all() -> None:
    images = pictures(70, 32)
    x = strong(images, None, STILL, seeded())
    assert torch.allclose(x, as_float(images), atol=1e-6)
    for transform in (weak, strong):
        assert transform(images[:0], None, PLAIN, seeded()).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("transform", [weak, strong])
def test_copies_in_a_batch_get_different_views(transform) -> None:
    image = pictures(1, 32)
    x = transform(image.expand(8, -1, -1, -1), None, PLAIN, seeded())
    for i, j in itertools.combinations(range(8), 2):
        assert not torch.equal(x[i], x[j])


@pytest.mark.parametrize("transform", [weak, strong])
def test_a_seed_fixes_the_views_and_calls_move_on(transform) -> None:
    images, aspect = pictures(40, 32), torch.linspace(0.5, 2, 40)
    before = torch.get_rng_state()
    first, second = seeded(), seeded()
    x, y = transform(images, aspect, PLAIN, first), transform(images, aspect, PLAIN, second)
    assert torch.equal(x, y)
    again = transform(images, aspect, PLAIN, first)
    assert not torch.equal(x, again)
    # A saved state resumes the stream, and the global one is left alone.
    resumed = torch.Generator()
    resumed.set_state(second.get_state())
    assert torch.equal(transform(images, aspect, PLAIN, resumed), again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("transform", [weak, strong])
@pytest.mark.parametrize("planar", [False, True])
def test_settings_that_do_nothing_return_the_normalised_image(transform, planar: bool) -> None:
    images = pictures(5, 32)
    kept = images.clone()
    x = transform(
        images.contiguous() if planar else images,
        None,
        replace(STILL, mean=MEAN, std=STD, jitter_p=1, blur_p=1, blur_sigma=(0, 0)),
        seeded(),
    )
    expected = tv.normalize(as_float(images), list(MEAN), list(STD))
    assert torch.allclose(x, expected, atol=3e-6)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("px", [24, 32, 48])
def test_outputs_are_finite_in_range_and_channels_last(px: int) -> None:
    images = torch.cat(
        [pictures(20, 32), torch.zeros(2, 3, 32, 32), torch.full((2, 3, 32, 32), 255)]
    )
    images = images.byte()
    settings = replace(PLAIN, px=px, mean=MEAN, std=STD)
    aspect = torch.linspace(0.2, 5, len(images))
    low = (0 - torch.tensor(MEAN)) / torch.tensor(STD)
    high = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    for x in (
        weak(images, aspect, settings, seeded()),
        strong(images, aspect, settings, seeded()),
        evaluation(images, settings),
    ):
        assert x.shape == (24, 3, px, px)
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.isfinite(x).all()
        assert (x >= low[:, None, None] - 1e-6).all()
        assert (x <= high[:, None, None] + 1e-6).all()


def test_autocast_does_not_coarsen_views() -> None:
    images = pictures(16, 32)
    expected = strong(images, None, PLAIN, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(strong(images, None, PLAIN, seeded()), expected)


@pytest.mark.parametrize(("side", "px"), [(64, 64), (96, 64), (32, 48), (73, 64)])
def test_evaluation_equals_timms_squash_crop(side: int, px: int) -> None:
    images = pictures(4, side)
    settings = Augmentation(px=px, mean=MEAN, std=STD)
    transform = create_transform(
        px,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        crop_pct=settings.crop_pct,
        crop_mode="squash",
    )
    expected = torch.stack([transform(Image.fromarray(a.permute(1, 2, 0).numpy())) for a in images])
    # Pillow rounds to 8 bits after each of its two passes.
    error = (evaluation(images, settings) - expected).abs() * torch.tensor(STD)[:, None, None] * 255
    assert error.max() < 1.3
    assert error.mean() < 0.4
