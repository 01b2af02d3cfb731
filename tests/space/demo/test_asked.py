"""An answer knows whether the page still holds what it was made of."""

from __future__ import annotations

from typing import Any

import pytest

from space.demo.asked import Asked, files

A, B, C = [("/u/1/a.png", "a"), ("/u/2/b.png", None)], [("/u/3/c.png", "c")], [("/u/4/q.png", "")]


def asked(**changes: Any) -> Asked:
    given: dict[str, Any] = {
        "models": ["zoo:x", "zoo:y"], "ways": 2, "names": ["ash", "birch", "class 3"],
        "galleries": [A, B, None], "queries": C,
    }  # fmt: skip
    return Asked.of(**given | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"models": ["zoo:y", "zoo:x"]}, ""),  # their order decides nothing
        ({"names": ["ash", "birch", "other"]}, ""),  # of a class that is not asked for
        ({"galleries": [[list(a) for a in A], B, []]}, ""),  # as JSON gives them back
        ({"models": ["zoo:x"]}, "the models"),
        ({"models": None}, "the models"),
        ({"ways": 3}, "the number of classes"),
        ({"names": ["oak", "birch", "class 3"]}, "the name of class 1"),
        ({"galleries": [A[:1], B, None]}, "the pictures of 'ash'"),
        ({"galleries": [A, None, None]}, "the pictures of 'birch'"),
        ({"galleries": [A, [], None]}, "the pictures of 'birch'"),
        ({"galleries": [A[::-1], B, None]}, "the pictures of 'ash'"),  # answers name places
        ({"queries": None}, "the pictures to recognise"),
        ({"queries": C + C}, "the pictures to recognise"),
        (
            {"models": [], "names": ["1", "2", "3"], "queries": []},
            "the models, the name of class 1, the name of class 2 and more",
        ),
    ],
)
def test_what_changed_is_said(changes: dict[str, Any], said: str) -> None:
    assert asked().changed(asked(**changes)) == said


@pytest.mark.parametrize("odd", [None, "x", 7, [], [[]], {"path": "x"}])
def test_what_is_no_gallery_holds_no_files(odd: Any) -> None:
    assert files(odd) == ()
