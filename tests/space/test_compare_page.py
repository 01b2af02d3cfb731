"""The page Compare: true counts beside the pictures, and sets apart below the others."""

from __future__ import annotations

import pytest
from PIL import Image

from space.examples_disagreement import Case, Disagreement
from space.pages import compare as page
from space.source import Source
from space.state import Desk
from tests.space.shelves import CARDS, zoo

PICTURE = Image.new("RGB", (2, 2))
CASES = tuple(Case(i, PICTURE, "x", "x", "y", i < 6) for i in range(12))


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> page.Compare:
    cache = tmp_path_factory.mktemp("cache")
    source = Source(str(CARDS), cache)
    source.refresh()
    with page.gr.Blocks():
        return page.Compare(Desk(source, cache))


@pytest.mark.parametrize(
    ("protocol", "answers", "whose"),
    [
        ("fewshot", "linear",
         "the answers of the linear classifier (fewshot has no one answer for each picture)"),
        ("linear", "linear", "the answers of the linear classifier. "),
        ("knn", "knn", "the answers of the k nearest neighbours. "),
    ],
)  # fmt: skip
def test_true_counts_and_whose_answers(
    compare: page.Compare, monkeypatch: pytest.MonkeyPatch, protocol: str, answers: str, whose: str
) -> None:
    asked = []

    def found(*names: object, protocol: str) -> Disagreement:
        asked.append(protocol)
        return Disagreement(protocol, 82, 106, 400, 154, CASES)

    monkeypatch.setattr(page, "disagreements", found)
    a, b = zoo("ce+selfsupcon"), zoo("ce")
    pictures, told, table = compare.look(a, b, f"{protocol}/top1", "cropdisease")
    assert asked == [answers]
    assert told.startswith("Of 742 test pictures A alone is right on 82, B alone on 106, both on "
                           "400, neither on 154: ")  # fmt: skip
    assert whose in told
    assert "Shown are 6 of A's and 6 of B's" in told
    assert told.endswith("the pictures are no count.")
    assert len(pictures["value"]) == len(table["value"]) == 12
    assert pictures["visible"]
    assert table["visible"]
    closed = compare.look(a, "nobody", "", "dtd")
    assert [closed[0]["visible"], closed[2]["visible"]] == [False, False]
    assert told not in closed[1]


@pytest.mark.slow
def test_sets_apart_stand_below(compare: page.Compare) -> None:
    found = compare.open(zoo("ce+selfsupcon"), zoo("ce"), "linear/top1")
    *picks, said, figure, table, task = found
    assert [p["value"] for p in picks] == [zoo("ce+selfsupcon"), zoo("ce"), "linear/top1"]
    assert ("CE (resnet18_narrow)", zoo("ce")) in picks[0]["choices"]
    *others, last = table["data"]
    assert (last[0], last[-1]) == ("tiny_imagenet ‡", "apart")
    assert len(others) == 11
    assert "apart" not in {row[-1] for row in others}
    assert "CE+SelfSupCon is better than CE on 0 of 11 data sets" in said
    assert "Apart, as no transfer for them: tiny_imagenet (-12.6 points)." in said
    assert "sets that one of them was pretrained on do not count" in said
    assert "tiny_imagenet" not in figure.to_json()
    assert task["choices"][-1] == "tiny_imagenet"
