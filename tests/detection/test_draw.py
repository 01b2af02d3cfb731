"""Boxes in images: colours, dashes and labels where they belong, and no error at any edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageColor

from eval.data.boxes.objects import BoxPrediction, Objects
from eval.detection.draw import COLOURS, MOST, SMALL, TALLEST, colour_of, draw

CLASSES = ("cat", "dog", "a very long name of a class that goes on and on")


def found(*boxes: tuple[float, ...], scores: list[float] | None = None,
          labels: list[int] | None = None) -> BoxPrediction:  # fmt: skip
    count = len(boxes)
    return BoxPrediction(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * count, np.float32),
        np.array(labels or [0] * count, np.int64),
    )


def truth(*boxes: tuple[float, ...], difficult: bool = False, crowd: bool = False) -> Objects:
    count = len(boxes)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4), np.zeros(count, np.int64),
        np.ones(count, np.float32), np.full(count, difficult), np.full(count, crowd),
    )  # fmt: skip


def grey(width: int = 600, height: int = 500) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


def rgb(colour: str) -> list[int]:
    return list(ImageColor.getrgb(colour))


@pytest.mark.parametrize("label", range(9))
def test_a_box_s_edge_has_its_class_s_colour(label: int) -> None:
    picture = pixels(draw(grey(), found((100, 200, 300, 400), labels=[label]), None, CLASSES))
    assert picture.shape == (500, 600, 3)
    colour = rgb(COLOURS[label % len(COLOURS)])
    assert rgb(colour_of(label)) == colour
    for y, x in ((300, 100), (300, 299), (399, 200), (399, 299)):  # a box ends before x2, y2
        assert picture[y, x].tolist() == colour
    for y, x in ((300, 98), (300, 300), (400, 200), (300, 200)):
        assert picture[y, x].tolist() == [90, 90, 90]


def test_a_label_stands_above_its_box_and_within_the_image() -> None:
    picture = pixels(draw(grey(), found((100, 200, 300, 400)), None, CLASSES))
    above = picture[180:199, 100:180].reshape(-1, 3)
    assert (above == rgb(COLOURS[0])).all(1).mean() > 0.3  # its ground
    assert (above == 0).all(1).any()  # its letters
    for box in ((0, 0, 600, 500), (595, 0, 600, 5), (0, 495, 5, 500), (595, 495, 600, 500)):
        plain = pixels(draw(grey(), found(box, labels=[2]), None, CLASSES))
        assert (plain == 0).all(2).sum() > 30  # letters, not cut away


def test_crowded_labels_do_not_hide_the_best() -> None:
    boxes = [(100, 200, 300, 400)] * 40
    alone = pixels(draw(grey(), found(boxes[0], scores=[0.9]), None, CLASSES))
    many = pixels(draw(grey(), found(*boxes, scores=[0.9, *[0.6] * 39]), None, CLASSES))
    assert (alone[180:200] == many[180:200])[:, 100:150].all()


def test_the_best_box_is_on_top_and_poor_ones_are_not_drawn() -> None:
    both = found((100, 100, 400, 400), (100, 100, 400, 400), scores=[0.6, 0.8], labels=[0, 1])
    assert pixels(draw(grey(), both, None, CLASSES))[300, 100].tolist() == rgb(COLOURS[1])
    some = pixels(draw(grey(), both, None, CLASSES, least=0.7))
    assert (some == rgb(COLOURS[0])).all(2).sum() == 0
    assert pixels(draw(grey(), both, None, CLASSES, least=0.9)).std() == 0
    exact = found((100, 100, 400, 400), scores=[0.5])
    assert pixels(draw(grey(), exact, None, CLASSES, least=0.5)).std() > 0


def test_true_boxes_are_dashed_in_white_and_black() -> None:
    picture = pixels(draw(grey(), None, truth((100, 100, 500, 400)), CLASSES))
    edge = picture[100, 100:500]
    white, black = (edge == 255).all(1), (edge == 0).all(1)
    assert (white | black).all()
    assert 0.4 < white.mean() < 0.75
    changes = int((white[1:] != white[:-1]).sum())
    assert changes > 10
    # ignored ones: dots, on a thinner line
    for kind in ({"difficult": True}, {"crowd": True}):
        dotted = pixels(draw(grey(), None, truth((100, 100, 500, 400), **kind), CLASSES))
        dots = (dotted[100, 100:500] == 255).all(1)
        assert (dots[1:] != dots[:-1]).sum() > 2 * changes
        assert dotted[101, 200:400].std() == 0 or (dotted[101, 200:400] == 90).mean() > 0.5
        assert (dotted[300:398, 110:490] == 90).all()  # and no name


def test_a_true_box_is_named_where_it_has_room() -> None:
    large = pixels(draw(grey(), None, truth((100, 100, 500, 400)), CLASSES))
    assert (large[380:400, 104:140] == 0).all(2).mean() > 0.3
    small = pixels(draw(grey(), None, truth((100, 100, 118, 118)), CLASSES))
    assert (small[104:114, 104:114] == 90).all()


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [((64, 32), None, (SMALL, SMALL // 2)), ((600, 500), None, (600, 500)),
     ((600, 300), 300, (300, 150)), ((100, 50), 300, (300, 150)), ((1, 1), None, (SMALL, SMALL)),
     ((1, 3000), 100, (1, 400)), ((3000, 1), 100, (100, 1))],
)  # fmt: skip
def test_sizes(size: tuple[int, int], width: int | None, expected: tuple[int, int]) -> None:
    picture = draw(Image.new("L", size), found((0, 0, *size)), None, CLASSES, width=width)
    assert picture.mode == "RGB"
    assert picture.size == expected
    assert picture.height <= TALLEST * picture.width or width is None or picture.width == 1


def test_boxes_grow_with_the_image() -> None:
    picture = pixels(draw(grey(48, 48), found((12, 12, 36, 36)), None, CLASSES))
    at = 12 * SMALL // 48
    assert picture[2 * at, at].tolist() == rgb(COLOURS[0])
    assert picture[2 * at, 3 * at - 1].tolist() == rgb(COLOURS[0])
    assert picture[2 * at, 3 * at].tolist() == [90, 90, 90]


def test_the_image_given_stays_as_it_is() -> None:
    image = grey()
    before = pixels(image).copy()
    drawn = draw(image, found((0, 0, 100, 100)), truth((5, 5, 80, 80)), CLASSES)
    assert (pixels(image) == before).all()
    again = draw(image, found((0, 0, 100, 100)), truth((5, 5, 80, 80)), CLASSES)
    assert drawn.tobytes() == again.tobytes()
    nothing = draw(image, None, None, ())
    assert nothing is not image
    assert nothing.tobytes() == image.tobytes()
    assert draw(image, found(), truth(), ()).tobytes() == image.tobytes()


def test_no_more_boxes_than_can_be_seen() -> None:
    boxes = [(5.0 * i % 500, i // 2, 5.0 * i % 500 + 60, i // 2 + 90) for i in range(MOST + 40)]
    scores = list(np.linspace(0.99, 0.6, len(boxes)))
    whole = draw(grey(), found(*boxes, scores=scores), None, CLASSES)
    some = draw(grey(), found(*boxes[:MOST], scores=scores[:MOST]), None, CLASSES)
    assert whole.tobytes() == some.tobytes()


ANY = st.one_of(st.floats(-2000, 2000), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e30]))
BOX = st.tuples(ANY, ANY, ANY, ANY)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.lists(BOX, max_size=5), st.integers(0, 99),
       st.one_of(st.none(), st.integers(1, 200)), st.text(max_size=40))  # fmt: skip
@example(1, 1, [(0.0, 0.0, 1.0, 1.0)], 0, None, "x")
@example(1, 90, [(0.0, 89.0, 1.0, 90.0)], 3, 7, "\n\x00\u202e😀漢字")
def test_nothing_raises(
    width: int, height: int, boxes: list[tuple[float, ...]], label: int, wide: int | None,
    name: str,
) -> None:  # fmt: skip
    labels = [label] * len(boxes)
    one = found(*boxes, labels=labels)
    draw(grey(width, height), one, truth(*boxes), (name,), width=wide, least=0.0)
    draw(grey(width, height), one, truth(*boxes, crowd=True), (name,) * 100, width=wide)
