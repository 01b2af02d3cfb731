"""Score against cost: where points stand, which are the best for their cost, whose names fit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from space.figures.cost import WORK, Point, cost, side_by_side


def drawing(points: list[Point]) -> ET.Element:
    """The figure, which must be well-formed."""
    return ET.fromstring(cost(points, "parameters", "Mean over 2 data sets"))


def made(seed: int, count: int) -> list[Point]:
    random = np.random.RandomState(seed)
    costs = 10 ** random.uniform(6, 9, count)
    return [
        Point(f"m{i}", "ce", float(c), float(random.uniform(20, 80)), 1.0)
        for i, c in enumerate(costs)
    ]


def places(figure: ET.Element) -> dict[str, tuple[float, float]]:
    """(percent from the left, pixels from the top) of each point by its name."""
    out = {}
    for group in figure.iter("g"):
        title = group.find("title")
        if title is not None:
            mark = group.find("g/svg")
            assert mark is not None
            name = str(title.text).partition(":")[0]
            out[name] = float(mark.attrib["x"].rstrip("%")), float(mark.attrib["y"])
    return out


def test_points_stand_by_cost_and_score() -> None:
    points = made(0, 12)
    found = places(drawing(points))
    assert len(found) == 12
    by_cost = sorted(points, key=lambda p: p.cost)
    assert [found[p.name][0] for p in by_cost] == sorted(found[p.name][0] for p in points)
    by_mean = sorted(points, key=lambda p: p.mean)
    assert [found[p.name][1] for p in by_mean] == sorted(
        (y for _, y in found.values()), reverse=True
    )
    assert all(8 < x < 97 and 10 < y < 262 for x, y in found.values())
    # a logarithmic axis: equal factors, equal distances
    three = [Point(n, "", c, 50.0, 1.0) for n, c in (("a", 1e6), ("b", 1e7), ("c", 1e8))]
    a, b, c = (places(drawing(three))[n][0] for n in "abc")
    assert b - a == pytest.approx(c - b, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_the_dashed_line_joins_those_that_none_beats_at_its_cost(seed: int) -> None:
    points = made(seed, 15)
    figure = drawing(points)
    front = [p for p in points if not any(
        q is not p and q.cost <= p.cost and q.mean >= p.mean for q in points)]  # fmt: skip
    corners = {
        (round(float(line.attrib[f"x{end}"].rstrip("%")), 1), round(float(line.attrib[f"y{end}"])))
        for line in figure.iter("line") if line.attrib["class"] == "front" for end in "12"
    }  # fmt: skip
    stand = places(figure)
    for point in points:
        x, y = stand[point.name]
        on = (round(x, 1), round(y)) in corners
        assert on == (point in front and len(front) > 1)


def test_of_many_the_best_are_drawn() -> None:
    points = made(4, 1000)
    figure = drawing(points)
    best = sorted(points, key=lambda p: -p.mean)[:200]
    assert set(places(figure)) == {p.name for p in best}
    assert "of the best 200 of 1,000 models" in "".join(figure.itertext())
    # of one cost, so many find their places, too
    alike = [Point(f"m{i}", "ce", 1e6, 50.0 + i / 100, 0.1) for i in range(1000)]
    x = sorted(x for x, _ in places(drawing(alike)).values())
    assert len(x) == 200
    assert x[0] >= 9
    assert x[-1] <= 96


LETTER, GAP = 2.05, 3.2  # percent of a phone's drawing


def labels_of(figure: ET.Element) -> list[tuple[float, float, float, str]]:
    """(left end, right end, pixels from the top, text) of each name."""
    found = []
    for label in figure.iter("text"):
        if label.attrib.get("class") is None:
            x, wide = float(label.attrib["x"].rstrip("%")), LETTER * len(str(label.text))
            left = x + GAP if label.attrib["text-anchor"] == "start" else x - GAP - wide
            found.append((left, left + wide, float(label.attrib["y"]) - 4, str(label.text)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_names_meet_neither_names_nor_points(seed: int) -> None:
    figure = drawing(made(seed, 60))
    labels = labels_of(figure)
    assert 3 <= len(labels) <= 14
    stand = places(figure)
    for i, (a, b, y, name) in enumerate(labels):
        assert a >= 9
        assert b <= 100
        assert not any(c < b and a < d and abs(y - z) < 14 for c, d, z, _ in labels[:i])
        assert not any(
            a < x < b and abs(y - z) < 13 for other, (x, z) in stand.items() if other != name
        )


def test_the_best_for_their_cost_are_named_first_wherever_they_stand() -> None:
    for place in np.linspace(6.1, 8.9, 29):
        best = Point("x" * 30, "ce", float(10**place), 90.0, 0.1)
        edges = [Point("a", "ce", 1e6, 10.0, 0.1), Point("b", "ce", 1e9, 11.0, 0.1)]
        names = [text for *_, text in labels_of(drawing([*edges, best]))]
        assert names[0] == "x" * 9 + "…" + "x" * 10


def test_nothing_is_drawn_of_fewer_than_two_models() -> None:
    one = Point("m", "ce", 1e6, 50.0, 1.0)
    unknown = Point("x", "ce", 0.0, 60.0, 1.0)
    assert cost([], "parameters", "") == ""
    assert cost([one, unknown], "parameters", "") == ""
    assert cost([one, Point("y", "ce", 1e6, float("nan"), 1.0)], "parameters", "") == ""


def test_models_of_one_cost_stand_side_by_side() -> None:
    alike = [Point(f"m{i}", "ce", 2.814e6, 50.0 + i % 3, 1.0) for i in range(6)]
    figure = drawing(alike)
    x = sorted(x for x, _ in places(figure).values())
    assert np.diff(x) == pytest.approx(np.full(5, x[1] - x[0]), abs=0.02)
    best = max(places(figure).items(), key=lambda item: -item[1][0])[0]
    assert best in ("m2", "m5")
    assert "All have 2.81M parameters" in "".join(figure.itertext())
    assert not [line for line in figure.iter("line") if line.attrib["class"] == "front"]


def drawings(found: dict[str, list[Point]]) -> dict[str, ET.Element]:
    """By their ids."""
    html = side_by_side(found, "Mean over 2 data sets")
    return {figure.attrib["id"]: figure for figure in ET.fromstring(html)} if html else {}


def test_two_kinds_of_cost_stand_side_by_side() -> None:
    work, params = made(0, 5), made(1, 5)
    found = drawings({WORK: work, "parameters": params})
    assert list(found) == ["cost-multiply-adds", "cost-parameters"]
    for figure, points in zip(found.values(), (work, params), strict=True):
        by_cost = sorted(points, key=lambda p: p.cost)
        x = [places(figure)[p.name][0] for p in by_cost]
        assert x == sorted(x)
    assert drawings({WORK: work[:1], "parameters": params[:1]}) == {}


def test_models_alike_in_every_cost_are_drawn_once() -> None:
    work = [Point(f"m{i}", "ce", 47_120_384, 50.0 + i, 1.0) for i in range(3)]
    params = [Point(f"m{i}", "ce", 2_814_976, 50.0 + i, 1.0) for i in range(3)]
    (figure,) = drawings({WORK: work, "parameters": params}).values()
    said = "".join(figure.itertext())
    assert "All have 47.1M multiply-adds an image and 2.81M parameters" in said
    wider = [*params[:2], Point("m2", "ce", 5e6, 52.0, 1.0)]
    assert len(drawings({WORK: work, "parameters": wider})) == 2  # alike in one of them alone


def test_a_model_of_which_nobody_counted_it_is_told_not_drawn() -> None:
    params = made(1, 4)
    work = [*made(0, 3), Point("old", "ce", 0, 50.0, 1.0)]
    found = drawings({WORK: work, "parameters": params})
    figure = found["cost-multiply-adds"]
    assert "old" not in places(figure)
    assert "1 more not drawn, whose multiply-adds are not known" in "".join(figure.itertext())
    nobody = [Point(p.name, "ce", 0, p.mean, 1.0) for p in params]
    assert list(drawings({WORK: nobody, "parameters": params})) == ["cost-parameters"]


def test_names_are_text() -> None:
    evil = '<script>alert(1)</script> & "x"'
    html = cost([Point(evil, evil, 1e6, 50.0, 1.0), Point("b", "", 2e6, 40.0, 1.0)], evil, evil)
    assert "<script" not in html
    assert not re.search(r"\son\w+=", html)
    ET.fromstring(html)
