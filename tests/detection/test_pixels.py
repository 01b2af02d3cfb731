"""Views of images with boxes: sizes, flips, padding, and the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.detection.pixels import (
    View,
    batch_of,
    draw_view,
    found_in,
    new_size,
    shown,
    target_of,
    to_image,
)

CPU = torch.device("cpu")
lengths = st.integers(1, 120)
views = st.builds(View, st.integers(1, 150), st.booleans())
EMPTY = np.zeros((0, 4), np.float32)


@st.composite
def images_with_a_box(draw):
    """A dark image with one bright rectangle of whole pixels, and its box."""
    height, width = draw(lengths), draw(lengths)
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    return Image.fromarray(pixels), np.array([[x1, y1, x2, y2]], np.float32)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "side", "max_side", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # the usual COCO image
        ((640, 480), 800, 1333, (1067, 800)),
        ((375, 500), 800, 1333, (800, 1067)),
        ((333, 500), 800, 1333, (800, 1201)),
        ((200, 500), 800, 1333, (533, 1333)),  # the long side is limited
        ((500, 500), 800, 1333, (800, 800)),
        ((1, 1), 800, 1333, (800, 800)),
        ((1, 3000), 800, 1333, (1, 1333)),  # 0.44 would round to 0
        ((3000, 1), 224, 400, (400, 1)),
    ],
)
def test_sizes_are_those_of_detectron2(size, side, max_side, expected):
    assert new_size(*size, side, max_side) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 900), st.integers(1, 1400))
def test_size_keeps_limits(height, width, side, max_side):
    high, wide = new_size(height, width, side, max_side)
    assert 1 <= min(high, wide) <= max(high, wide) <= max_side
    assert min(high, wide) <= side
    assert min(high, wide) == side or max(high, wide) == max_side


@settings(deadline=None)
@given(images_with_a_box(), views, st.integers(8, 200))
def test_a_box_stays_on_its_pixels(image_and_box, view, max_side):
    image, boxes = image_and_box
    pixels, [box] = shown(image, boxes, view, max_side)
    assert tuple(pixels.shape[1:]) == new_size(image.height, image.width, view.side, max_side)
    for axis, length, (low, high) in (
        (0, pixels.shape[2], box[::2]),
        (1, pixels.shape[1], box[1::2]),
    ):
        assert 0 <= low < high <= length
        # An edge is blurred over a pixel of the image, seen at the size it is shown. A box thinner
        # than a pixel lights the next one to more than half where that is up to 2/3 from its middle
        # (of a triangle 1 - d), so that its far edge is up to 2/3 + 1/2 away.
        blur = 7 / 6 + 0.5 * length / image.size[axis]
        mass = pixels[0].amax(axis).numpy()  # the brightest along the other axis
        bright = np.flatnonzero(mass > mass.max() / 2)
        if len(bright):
            assert abs(bright[0] - low) <= blur
            assert abs(bright[-1] + 1 - high) <= blur


@settings(deadline=None)
@given(images_with_a_box(), st.integers(20, 120))
def test_bright_mass_has_the_middle_of_its_box(image_and_box, side):
    """Finer than edges: half a pixel of shift between image and box would show."""
    image, boxes = image_and_box
    for flip in (False, True):
        pixels, [box] = shown(image, boxes, View(side, flip), 400)
        for axis, low, high in ((0, box[0], box[2]), (1, box[1], box[3])):
            mass = pixels[0].double().sum(axis).numpy()
            length = image.size[axis]
            inner = (high - low) * length / len(mass) >= 4
            touches = low == 0 or high == len(mass)  # where the image ends, blur is one-sided
            if inner and not touches and mass.sum():
                middle = (mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum()
                assert abs(middle - (low + high) / 2) <= 0.3


@settings(deadline=None)
@given(images_with_a_box(), st.integers(1, 150))
def test_flipping_twice_is_the_identity(image_and_box, side):
    image, boxes = image_and_box
    plain, plain_boxes = shown(image, boxes, View(side), 200)
    once, once_boxes = shown(image, boxes, View(side, True), 200)
    short, long = sorted(plain.shape[1:])
    back = Image.fromarray(once.permute(1, 2, 0).numpy())
    twice, twice_boxes = shown(back, once_boxes, View(short, True), long)
    assert torch.equal(twice, plain)
    assert np.allclose(twice_boxes, plain_boxes, atol=1e-4)


@settings(deadline=None)
@given(lengths, lengths, views, st.integers(8, 200), st.integers(0, 1000))
def test_boxes_stay_inside_and_come_back(height, width, view, max_side, seed):
    corners = np.sort(np.random.default_rng(seed).random((7, 2, 2)), axis=1).reshape(7, 4)
    boxes = (corners * [width, height, width, height]).astype(np.float32)
    pixels, there = shown(noise(height, width), boxes, view, max_side)
    h, w = pixels.shape[1:]
    assert there.dtype == np.float32
    assert (there >= 0).all()
    assert (there <= [w, h, w, h]).all()
    assert (there[:, :2] <= there[:, 2:]).all()
    if view.flip:
        there[:, [0, 2]] = w - there[:, [2, 0]]
    back = to_image(there, (h, w), (height, width))
    assert back.dtype == np.float32
    assert np.allclose(back, boxes, atol=1e-3 * max(1, height / h, width / w))


def test_to_image_clips():
    far = np.array([[-5, -5, 500, 500]], np.float32)
    assert to_image(far, (100, 200), (50, 100)).tolist() == [[0, 0, 100, 50]]
    assert to_image(EMPTY, (100, 200), (50, 100)).shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 2999)])
@pytest.mark.parametrize("flip", [False, True])
def test_extreme_images(size, flip):
    height, width = size
    whole = np.array([[0, 0, width, height]], np.float32)
    pixels, [box] = shown(noise(*size), whole, View(224, flip), 400)
    assert pixels.shape == (3, *new_size(*size, 224, 400))
    assert box.tolist() == [0, 0, pixels.shape[2], pixels.shape[1]]
    assert shown(noise(*size), EMPTY, View(224, flip), 400)[1].shape == (0, 4)


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (61, 97), (1, 40), (900, 700)])
@pytest.mark.parametrize("side", [48, 224, 480])
def test_pixels_are_pillows(size, side):
    image = noise(*size)
    high, wide = new_size(*size, side, 1333)
    pillow = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR)).astype(int)
    pixels, _ = shown(image, EMPTY, View(side), 1333)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert abs(pixels.permute(1, 2, 0).numpy().astype(int) - pillow).max() <= 1


def test_the_same_size_is_the_same_image():
    image = noise(60, 80)
    pixels, _ = shown(image, EMPTY, View(60), 80)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_view_depends_on_its_numbers_alone(parts):
    sides = (192, 224, 256, 288)
    first = draw_view(sides, *parts)
    torch.rand(3)
    draw_view(sides, *parts, 1)
    np.random.default_rng().random()
    assert draw_view(sides, *parts) == first


def test_views_are_drawn_evenly():
    sides = (192, 224, 256, 288)
    drawn = [draw_view(sides, 0, 3, row) for row in range(4000)]
    for side, flip in itertools.product(sides, (False, True)):
        assert 400 < drawn.count(View(side, flip)) < 600
    assert drawn != [draw_view(sides, 0, 4, row) for row in range(4000)]
    assert drawn != [draw_view(sides, 1, 3, row) for row in range(4000)]


@settings(deadline=None)
@given(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=4), st.sampled_from([1, 32]))
def test_padding_is_zero_and_pictures_are_normalised(sizes, divisor):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pictures = [
        torch.from_numpy(np.array(noise(*s, seed=i))).permute(2, 0, 1) for i, s in enumerate(sizes)
    ]
    batch = batch_of(pictures, None, mean, std, divisor, CPU)
    assert batch.sizes == sizes
    assert batch.targets is None
    assert batch.images.dtype == torch.float32
    for axis in (0, 1):
        length, longest = batch.images.shape[2 + axis], max(s[axis] for s in sizes)
        assert length % divisor == 0
        assert longest <= length < longest + divisor
    for image, picture, (h, w) in zip(batch.images, pictures, sizes, strict=True):
        m, s = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
        assert torch.allclose(image[:, :h, :w], (picture / 255 - m) / s, atol=1e-5)
        rest = image.clone()
        rest[:, :h, :w] = 0
        assert not rest.any()


def test_a_picture_does_not_depend_on_its_batch():
    pictures = [
        torch.from_numpy(np.array(noise(*s))).permute(2, 0, 1) for s in ((50, 70), (90, 40))
    ]
    both = batch_of(pictures, None, [0.5] * 3, [0.25] * 3, 32, CPU)
    alone = batch_of(pictures[:1], None, [0.5] * 3, [0.25] * 3, 32, CPU)
    assert torch.equal(both.images[0, :, :50, :70], alone.images[0, :, :50, :70])


def test_targets_go_with_their_pictures():
    pixels, boxes = shown(
        noise(40, 80), np.array([[10, 5, 20, 15]], np.float32), View(20, True), 99
    )
    target = target_of(boxes, np.array([6]))
    assert target.boxes.tolist() == [[30, 2.5, 35, 7.5]]
    assert target.labels.tolist() == [7]
    none = target_of(EMPTY, np.zeros(0, np.int64))
    assert none.boxes.shape == (0, 4)
    batch = batch_of([pixels, pixels], [target, none], [0.0] * 3, [1.0] * 3, 1, CPU)
    assert batch.targets is not None
    assert [len(t.labels) for t in batch.targets] == [1, 0]
    with pytest.raises(ValueError, match="2 pictures with 1 targets"):
        batch_of([pixels, pixels], [target], [0.0] * 3, [1.0] * 3, 1, CPU)


def test_found_is_in_pixels_of_the_image_best_first():
    output = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 40]]),
        "scores": torch.tensor([0.25, 0.75]),
        "labels": torch.tensor([1, 3]),
    }
    found = found_in(output, (20, 30), (40, 60))
    assert found.scores.tolist() == [0.75, 0.25]
    assert found.labels.tolist() == [2, 0]
    assert found.boxes.tolist() == [[10, 10, 40, 40], [0, 0, 20, 20]]
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    empty = found_in({**nothing, "labels": torch.zeros(0, dtype=torch.int64)}, (2, 3), (4, 6))
    assert empty.boxes.shape == (0, 4)
