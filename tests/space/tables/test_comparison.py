"""Two models on all leaderboards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.results.schema import Result
from eval.results.store import read_shelf
from space.tables.comparison import compare, find, models
from space.tables.matrix import grid, keys
from space.tables.objectives import ONE_TRAINING, differences, pair_tasks
from tests.factories import make_fewshot, make_result, refusal
from tests.space.shelves import CARDS, scored, zoo


def _pair(task: str, a: float, b: float, protocol: str = "linear", **more: Any) -> list[Result]:
    names = ("hf-hub:a/one", "hf-hub:b/two")
    random = np.random.RandomState(ord(task[-1]))
    if protocol == "fewshot":
        asked = random.uniform(size=(600, 5, 15))
        return [make_fewshot(asked < share, name, task, **more)
                for name, share in zip(names, (a, b), strict=True)]  # fmt: skip
    chance = random.uniform(size=300)
    return [make_result(name, task, protocol, correct=chance < share, **more)
            for name, share in zip(names, (a, b), strict=True)]  # fmt: skip


@pytest.fixture
def scores() -> pd.DataFrame:
    return scored([
        *_pair("x", 0.8, 0.5), *_pair("y", 0.4, 0.7), *_pair("z", 0.5, 0.5),
        *_pair("x", 0.9, 0.6, "knn"), *_pair("x", 0.7, 0.5, "fewshot"),
        make_result("hf-hub:a/one", "w"), make_result("hf-hub:b/two", "w", "knn"),
        make_result("other", "x"),
    ])  # fmt: skip


def test_every_leaderboard_that_both_are_on(scores: pd.DataFrame) -> None:
    found = compare(scores, "hf-hub:a/one", "hf-hub:b/two")
    assert [m.key.title for m in found.matches] == [
        "Few-shot, 5-shot", "k nearest neighbours", "Linear",
    ]  # fmt: skip
    linear = found.matches[2]
    assert (linear.better, linear.worse, linear.undecided) == (1, 1, 1)
    assert list(linear.frame["task"]) == ["x", "y", "z"]
    assert linear.sentence.startswith("Linear: hf-hub:a/one is better than hf-hub:b/two on 1 of 3")
    assert ONE_TRAINING not in linear.sentence  # two models, not two ways to train
    assert "over other test images, the same training; Holm" in linear.sentence
    assert "over another sample of the data set; Holm" in found.matches[0].sentence
    assert found.totals == (3, 1, 1)
    assert "Over 3 leaderboards hf-hub:a/one is better than hf-hub:b/two 3 times, worse 1" in (
        found.sentence
    )
    back = compare(scores, "hf-hub:b/two", "hf-hub:a/one")
    assert back.totals == (1, 3, 1)


@pytest.mark.slow
def test_frames_are_those_of_the_whole_grid() -> None:
    scores = scored([result for _, result in read_shelf(Path(CARDS)).results])
    a, b = zoo("supcon+selfsupcon"), zoo("supcon")
    found = compare(scores, a, b)
    # few-shot files of before the answers of episodes were kept say nothing of two models
    known = [m.key for m in found.matches]
    assert known == [key for key in keys(scores) if key in known]
    assert "linear" in {key.protocol for key in known}
    for match in found.matches:
        one = grid(scores, match.key)
        place = list(one.models["model"]).index
        for frame, tasks in zip((match.frame, match.apart), pair_tasks(one, place(a), place(b)),
                                strict=True):  # fmt: skip
            pd.testing.assert_frame_equal(
                frame.set_index("task"),
                differences(one, place(a), place(b), tasks).set_index("task"),
                check_like=True,
            )
        detected = match.key.protocol == "detection"
        assert list(match.apart["task"]) == ([] if detected else ["tiny_imagenet"])


def test_revisions_are_told_apart() -> None:
    new = "2026-02-01T00:00:00+00:00"
    scores = scored([
        make_result("m", revision="a" * 40, correct=np.arange(90) < 30),
        make_result("m", revision="b" * 40, correct=np.arange(90) < 80, created=new),
        make_result("n", correct=np.arange(90) < 30),
        make_result("evil@aaa", "x"),
    ])  # fmt: skip
    assert list(models(scores)["name"]) == ["evil@aaa", "m@aaaaaaa", "m@bbbbbbb", "n"]
    assert find(scores, "m") == ("m", "b" * 40)
    assert find(scores, "m@aaaaaaa") == ("m", "a" * 40)
    assert find(scores, "evil@aaa") == ("evil@aaa", "seed0")
    for name in models(scores)["name"]:
        assert find(scores, name)[0] in name
    found = compare(scores, "m@aaaaaaa", "m@bbbbbbb")
    assert (found.a, found.b) == ("m@aaaaaaa", "m@bbbbbbb")
    assert found.totals == (0, 1, 0)
    assert compare(scores, "m", "n").totals == (1, 0, 0)


def test_what_cannot_be_compared(scores: pd.DataFrame) -> None:
    assert "did you mean 'hf-hub:a/one'" in refusal(compare, scores, "hf-hub:a/on", "other")
    assert "choose two" in refusal(compare, scores, "other", "other")
    one = scores[(scores["model"] != "other") | (scores["protocol"] == "knn")]
    assert "no result of model" in refusal(compare, one, "hf-hub:a/one", "other")
    lone = scored([make_result("a", "x"), make_result("b", "y")])
    assert "same command" in refusal(compare, lone, "a", "b")
    assert "choose one from the list" in refusal(compare, scored([]), "a", "b")
    assert len(models(scored([]))) == 0
