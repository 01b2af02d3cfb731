"""The models' standing on a visitor's pictures, against the ties that every board uses."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from eval.metrics.estimates import of_items
from eval.metrics.intervals import wilson
from eval.metrics.ties import ties
from eval.models.names import zoo_names
from space.demo.backbones import Shelf
from space.demo.choice import Choice, choose
from space.demo.classifier import Head
from space.demo.classify import ModelAnswer
from space.demo.uploads import Picture

NAMES = ["A", "B", "C", "D", "E", "F"]


@cache
def pictures(n: int) -> tuple[Picture, ...]:
    def one(i: int) -> Picture:
        return Picture(Image.new("RGB", (4, 4), (i % 256, i // 256, 7)), f"{i}.png")

    return tuple(one(i) for i in range(n))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return Shelf(tmp_path_factory.mktemp("cache")).get(f"zoo:{zoo_names()[0]}")


def chosen(backbone, right, params=None, log_me=None, shots=None) -> Choice:  # type: ignore[no-untyped-def]
    """The choice among models that were right as ``right`` [M, N] says, in two classes."""
    count, n = len(right), len(right[0])
    answers = []
    for i, row in enumerate(right):
        told = tuple(bool(x) for x in row)
        head = Head(torch.zeros(2, 3), torch.zeros(2), 1.0, ("x", "y"), sum(told) / n,
                    wilson(sum(told), n), told)  # fmt: skip
        sized = replace(backbone, params=(params or [10] * count)[i])
        answers.append(ModelAnswer(NAMES[i], head, sized, (), (log_me or range(count))[i], 0.1))
    given = shots or pictures(n)
    half = len(given) // 2
    return choose(answers, [("x", given[:half]), ("y", given[half:])], NAMES[:count])


def test_the_order_and_places_are_those_of_the_board_s_ties(backbone) -> None:  # type: ignore[no-untyped-def]
    random = np.random.RandomState(5)
    hard = random.uniform(size=80)
    right = np.array([hard + random.normal(0, 0.05, 80) < s for s in (0.5, 0.95, 0.9, 0.3, 0.52)])
    found = chosen(backbone, right)
    told = ties(of_items(right.astype(float)))
    assert len(set(told.group.tolist())) > 1  # else the test says little
    assert [row.right for row in found.rows] == sorted(right.sum(1).tolist(), reverse=True)
    for row in found.rows:
        i = NAMES.index(row.model)
        assert (row.places, row.group) == (told.places(i), told.group[i])
        assert (row.low, row.high) == pytest.approx(wilson(int(right[i].sum()), 80))


def test_copies_are_one_item(backbone) -> None:  # type: ignore[no-untyped-def]
    """Each picture ten times over says no more of two models than once."""
    once = pictures(12)
    right = np.array([[1] * 12, [1] * 8 + [0] * 4])
    alone = chosen(backbone, right)
    many = chosen(
        backbone, np.repeat(right, 10, axis=1), shots=[p for p in once for _ in range(10)]
    )
    assert [row.places for row in many.rows] == [row.places for row in alone.rows] == ["1-2"] * 2


def test_few_pictures_take_the_smallest_and_say_how_many_would_do(backbone) -> None:  # type: ignore[no-untyped-def]
    right = np.array([[1, 1, 1, 0, 1, 1], [1, 0, 1, 0, 1, 1], [1, 1, 0, 0, 1, 0]])
    found = chosen(backbone, right, params=[30, 20, 20], log_me=[0, 1, 2])
    assert found.taken == "B"
    said = re.fullmatch(
        r"6 pictures cannot tell these 3 models apart: take the smallest, B, or give (\d+) a "
        r"class\.", found.sentence
    )  # fmt: skip
    assert said
    # the same answers of that many pictures a class would tell the first from the last
    times, rest = divmod(2 * int(said[1]), 6)
    assert rest == 0
    assert times > 1
    told = [
        ties(of_items(np.tile(right, n).astype(float))).better[0, 2] for n in (times - 1, times)
    ]
    assert told == [False, True]


def test_models_of_one_size_and_a_gap_that_no_gallery_shows(backbone) -> None:  # type: ignore[no-untyped-def]
    right = np.array([[1, 0] * 10, [0, 1] * 10])
    found = chosen(backbone, right, log_me=[1, 2])
    assert found.rows[0].model == "B"  # equals stand by LogME
    assert found.sentence == (
        "20 pictures cannot tell these 2 models apart: take any (they are of one size), say B; "
        "even 20 a class would hardly tell them apart."
    )


def test_a_clear_winner_is_named(backbone) -> None:  # type: ignore[no-untyped-def]
    right = np.array([[0] * 30 + [1] * 10, [1] * 40, [0] * 25 + [1] * 15])
    found = chosen(backbone, right, params=[1, 50, 1])
    assert found.taken == "B"  # though the largest
    assert found.sentence.startswith("B is the best here: right on 40 of 40, each asked of a head")
    assert found.rows[0].places == "1"


def test_some_are_behind(backbone) -> None:  # type: ignore[no-untyped-def]
    right = np.array([[1] * 40, [1] * 39 + [0], [0] * 40])
    found = chosen(backbone, right, params=[5, 4, 1])
    assert found.taken == "B"
    assert found.sentence == (
        "40 pictures cannot tell 2 of these 3 models apart, the others are worse: of the 2 take "
        "the smallest, B."
    )


def test_one_picture_a_class_measures_nothing(backbone) -> None:  # type: ignore[no-untyped-def]
    heads = [Head(torch.zeros(2, 3), torch.zeros(2), 1.0, ("x", "y"), None, None)] * 2
    answers = [ModelAnswer(NAMES[i], h, backbone, (), i, 0.1) for i, h in enumerate(heads)]
    given = [("x", pictures(1)), ("y", pictures(2)[1:])]
    found = choose(answers, given, NAMES[:2])
    assert [row.model for row in found.rows] == ["B", "A"]
    assert {row.places for row in found.rows} == {""}
    assert found.sentence == (
        "With one picture in a class nothing can be left out, so nothing is measured: B is first "
        "by LogME alone. Give at least two of each class."
    )
    assert choose(answers[:1], given, ["A"]).sentence.endswith("give at least two of each class.")
