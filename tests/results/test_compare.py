"""Paired comparison: only like with like, and a sentence that says what the numbers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eval.common.errors import UserError
from eval.report.forest import _cell
from eval.results.compare import as_json, compare, find_model, render
from eval.results.schema import Result
from tests.factories import make_result


def _pair(task: str, a: float, b: float, seed: int = 0, protocol: str = "linear") -> list[Result]:
    """Two models' results on 400 shared images at about the given accuracies."""
    chance = np.random.RandomState(seed).uniform(size=400)
    return [
        make_result("a", task, protocol, correct=chance < a),
        make_result("b", task, protocol, correct=chance < b),
    ]


def test_a_clear_winner_is_named() -> None:
    results = _pair("x", 0.8, 0.6) + _pair("y", 0.5, 0.7, 1) + _pair("z", 0.5, 0.5, 2)
    (found,) = compare("a", "b", results)
    assert [t.verdict for t in found.tasks] == ["A", "B", "tie"]
    assert "a is better than b on 1 of 3 tasks (x), worse on 1 (y), undecided on 1" in (
        found.sentence
    )
    text = render([found])
    assert "| x " in text
    assert found.sentence in text
    assert as_json(found)["tasks"][0]["verdict"] == "A"


def test_swapping_the_models_swaps_the_signs() -> None:
    results = _pair("x", 0.8, 0.6)
    (ab,) = compare("a", "b", results)
    (ba,) = compare("b", "a", results)
    assert ab.tasks[0].difference.value == -ba.tasks[0].difference.value
    assert ab.tasks[0].wins == ba.tasks[0].losses
    assert ab.tasks[0].p_value == ba.tasks[0].p_value


def test_p_values_are_corrected_within_a_score() -> None:
    results = [r for i in range(10) for r in _pair(f"t{i}", 0.60, 0.57, i)]
    (found,) = compare("a", "b", results)
    assert any(t.p_holm > t.p_value for t in found.tasks)


@pytest.mark.parametrize(("p", "verdict"), [(0.0496, "A"), (0.0504, "tie")])
def test_a_p_value_is_shown_on_the_side_of_its_verdict(p: float, verdict: str) -> None:
    (found,) = compare("a", "b", _pair("x", 0.8, 0.6))
    near = replace(found.tasks[0], p_holm=p)
    assert near.verdict == verdict
    shown = str(p)
    cells = render([replace(found, tasks=(near,))]).split("|")
    assert shown in [cell.strip() for cell in cells]
    assert _cell(near).endswith(f", {shown}")


def test_unlike_results_are_not_compared() -> None:
    a, _ = _pair("x", 0.8, 0.6)
    others = [
        make_result("b", "x", "linear", split="other"),
        make_result("b", "x", "knn"),
        make_result("b", "x", "linear", seed=1),
    ]
    with pytest.raises(UserError, match="share no task"):
        compare("a", "b", [a, *others])


def test_the_newest_revision_is_taken_unless_one_is_named() -> None:
    old = make_result("m", revision="a" * 40, created="2026-01-01T00:00:00+00:00")
    new = make_result("m", revision="b" * 40, created="2026-02-01T00:00:00+00:00")
    assert find_model("m", [old, new]) == [new]
    assert find_model("m@aaaa", [old, new]) == [old]
    (found,) = compare("m@aaaa", "m@bbbb", [old, new])
    assert (found.a, found.b) == ("m@aaaaaaa", "m@bbbbbbb")


def test_unknown_and_equal_models() -> None:
    results = _pair("x", 0.8, 0.6)
    with pytest.raises(UserError, match="no result of model 'c'"):
        compare("a", "c", results)
    with pytest.raises(UserError, match="same model"):
        compare("a", "a", results)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_screen_gets_lines_that_fit_it_with_every_cell_whole(width: int) -> None:
    results = [r for i in range(3) for r in _pair(f"a_long_name_of_a_task_{i}", 0.8, 0.6, i)]
    found = compare("a", "b", results)
    text = render(found, width)
    assert max(map(len, text.splitlines())) <= width
    for task in found[0].tasks:
        assert f"{100 * task.difference.low:+.1f}, {100 * task.difference.high:+.1f}]" in text
        assert task.task in text
    assert " ".join(text.split()).endswith(found[0].sentence)
