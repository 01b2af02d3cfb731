"""The table of scores: which rows a result makes, and what a model's name tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.metrics.scores import Samples
from eval.results.leaderboard import main_scores
from eval.results.schema import Result
from eval.tasks.registry import TASKS
from space.tables.scores import COLUMNS, Facts, facts, frame, rows
from tests.factories import make_result
from tests.space.shelves import part, shipped


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("zoo:resnet18_narrow.ce_selfsupcon_tin100",
         Facts("ce+selfsupcon", "resnet18_narrow", "tin100")),
        ("zoo:resnet18_narrow.ce-strong_tin100", Facts("ce-strong", "resnet18_narrow", "tin100")),
        ("hf-hub:org/resnet18_narrow.supcon_tin100", Facts("supcon", "resnet18_narrow", "tin100")),
        ("resnet50.a1_in1k", Facts("", "resnet50", "in1k")),
        ("hf-hub:timm/resnet50.a1_in1k", Facts("", "resnet50", "in1k")),
        ("resnet50", Facts("", "resnet50", "")),
        ("random:resnet18", Facts("untrained", "resnet18", "")),
        ("random:resnet18.a1_in1k", Facts("untrained", "resnet18", "")),
        ("local-dir:my model", Facts("", "my model", "")),
        ("", Facts("", "", "")),
        ("<script>", Facts("", "<script>", "")),
    ],
)  # fmt: skip
def test_facts_from_a_name(model: str, found: Facts) -> None:
    assert facts(model) == found


def test_a_shipped_result_makes_a_row_for_each_main_score() -> None:
    for path, result in shipped():
        made = rows(str(path), result)
        assert [r["score"] for r in made] == [s.name for s in main_scores(result)]
        for row in made:
            score = result.score(row["score"])
            assert score is not None
            assert set(row) == set(COLUMNS)
            assert (row["value"], row["low"], row["high"]) == (
                score.value, score.ci_low, score.ci_high,
            )  # fmt: skip
            held = result.samples[row["score"]]
            back = np.frombuffer(row["samples"], np.uint8) / row["of"]
            assert back == pytest.approx(held.values())
            assert (row["domain"], row["title"]) == (
                TASKS[row["task"]].domain, TASKS[row["task"]].title,
            )  # fmt: skip
            assert row["seconds"] == pytest.approx(sum(result.seconds.values()))
            assert row["px"] == 64


def with_score(**changes: Any) -> Result:
    result = make_result()
    return result.model_copy(update={"scores": [result.scores[0].model_copy(update=changes)]})


@pytest.mark.parametrize(
    "changes",
    [{"value": -0.1}, {"value": 1.1}, {"value": math.nan}, {"ci_low": math.nan},
     {"ci_low": -math.inf}, {"ci_high": math.inf}],
)  # fmt: skip
def test_a_score_out_of_range_is_left_out(changes: dict[str, float]) -> None:
    assert len(rows("p", with_score())) == 1
    assert rows("p", with_score(**changes)) == []


def test_other_scores_and_unknown_protocols_make_no_row() -> None:
    assert rows("p", with_score(name="ece")) == []
    assert rows("p", make_result(protocol="psychic")) == []


def test_a_task_of_your_own() -> None:
    (row,) = rows("p", make_result(task="photos"))
    assert (row["domain"], row["title"], row["subset"]) == ("your own", "photos", False)


def test_the_input_size_is_the_chosen_one_else_the_models_own() -> None:
    own = part(make_result(), "model", input={"input_size": [3, 96, 96]})
    assert rows("p", own)[0]["px"] == 96
    chosen = part(own, "model", img_size=64)
    assert rows("p", chosen)[0]["px"] == 64
    assert rows("p", chosen)[0]["model"] == "random:resnet18 @64px"
    assert rows("p", make_result())[0]["px"] == 0


def test_samples_that_do_not_fit_a_byte_are_left_out() -> None:
    for held in ({}, {"top1": Samples.of_episodes(np.array([3, 256]), 256)}):
        (row,) = rows("p", make_result().model_copy(update={"samples": held}))
        assert (row["samples"], row["of"], row["unit"]) == (b"", 0, "")
    full = Samples.of_episodes(np.array([0, 3, 255]), 255)
    (row,) = rows("p", make_result().model_copy(update={"samples": {"top1": full}}))
    assert list(row["samples"]) == [0, 3, 255]


@pytest.mark.parametrize("hits", [[1, 300], [-1, 3]])
def test_samples_beyond_what_was_asked_are_left_out(hits: list[int]) -> None:
    held = Samples(unit="episode", n=2, of=75, correct=hits)
    (row,) = rows("p", make_result().model_copy(update={"samples": {"top1": held}}))
    assert row["samples"] == b""


def test_seconds_that_are_no_number_do_not_spoil_the_rest() -> None:
    (row,) = rows("p", make_result(seconds={"fit": 2.0, "load": math.nan, "score": math.inf}))
    assert row["seconds"] == 2.0


def test_an_empty_table_has_the_columns_of_a_full_one() -> None:
    empty, full = frame([]), frame(rows("p", make_result()))
    assert list(empty) == list(full) == list(COLUMNS)
    assert list(empty.dtypes) == list(full.dtypes)
    assert list(pd.concat([empty, full], ignore_index=True).dtypes) == list(full.dtypes)
