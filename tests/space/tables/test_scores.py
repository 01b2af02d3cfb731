"""The table of scores: which rows a result makes, and what is declared of its model."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from eval.results.estimates import stated
from eval.results.leaderboard import main_scores
from eval.results.schema import Result
from eval.tasks.registry import TASKS
from space.tables.scores import COLUMNS, frame, rows
from tests.factories import make_result
from tests.space.shelves import part, shipped, without_samples

ABOUT = ("objective", "architecture", "data", "making", "said", "doubt", "seen")


def about(**changes: Any) -> tuple[str, ...]:
    (row,) = rows("p", make_result(**changes))
    return tuple(row[name] for name in ABOUT)


@pytest.mark.parametrize(
    "model",
    ["hf-hub:evil/resnet18_narrow.supcon_tin100", "resnet50.a1_in1k", "local-dir:x.ce_in1k"],
)
def test_a_name_tells_nothing(model: str) -> None:
    assert about(model=model, facts={}) == ("", "", "", "", "", "not declared", "")


def test_what_is_declared_stands_in_the_row() -> None:
    facts = {"objective": "mae", "architecture": "vit", "data": ["ILSVRC/imagenet-1k", "dtd"],
             "said_in": ["config.json", "README.md"]}  # fmt: skip
    assert about(model="hf-hub:alice/my-ssl", task="dtd", facts=facts) == (
        "mae", "vit", "ILSVRC/imagenet-1k, dtd", "vit on ILSVRC/imagenet-1k+dtd",
        "config.json, README.md", "", "pretrained on dtd",
    )  # fmt: skip
    assert about(model="hf-hub:a/b", facts={"data": ["laion-2b"]})[5:] == ("never listed", "")
    assert about(model="random:resnet18")[:2] == ("untrained", "resnet18")
    assert about(model="random:resnet18")[5] == ""


def test_a_step_of_a_training() -> None:
    (row,) = rows("p", part(make_result("local-dir:run@20"), "model", step=20))
    assert (row["series"], row["step"]) == ("local-dir:run", 20)
    (row,) = rows("p", make_result())
    assert (row["series"], row["step"]) == ("", -1)


def test_a_shipped_result_makes_a_row_for_each_main_score() -> None:
    for path, result in shipped():
        made = rows(str(path), result)
        assert [r["score"] for r in made] == [s.name for s in main_scores(result)]
        for row in made:
            raw = result.score(row["score"])
            assert raw is not None
            score = stated(result, raw)
            assert set(row) == set(COLUMNS)
            assert (row["value"], row["low"], row["high"]) == (
                score.value, score.ci_low, score.ci_high,
            )  # fmt: skip
            assert row["kind"] == score.kind
            held = result.samples[row["score"]]
            if isinstance(held.correct, str):
                assert (row["samples"], row["n"], row["of"]) == (held.packed(), held.n, held.of)
            else:  # counts of episodes, of before single answers were kept: nothing rests on them
                assert (row["samples"], row["unit"], row["kind"]) == (b"", "", "episodes")
            assert (row["domain"], row["title"]) == (
                TASKS[row["task"]].domain, TASKS[row["task"]].title,
            )  # fmt: skip
            assert row["multiply_adds"] == result.model.multiply_adds == 47_120_384
            assert row["px"] == 64


def with_score(**changes: Any) -> Result:
    result = without_samples(make_result())  # else its interval is that of the samples
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


def test_multiply_adds_that_nobody_counted_are_0() -> None:
    assert rows("p", make_result())[0]["multiply_adds"] == 0
    counted = part(make_result(), "model", multiply_adds=1_800_000_000)
    assert rows("p", counted)[0]["multiply_adds"] == 1_800_000_000


def test_an_empty_table_has_the_columns_of_a_full_one() -> None:
    empty, full = frame([]), frame(rows("p", make_result()))
    assert list(empty) == list(full) == list(COLUMNS)
    assert list(empty.dtypes) == list(full.dtypes)
    assert list(pd.concat([empty, full], ignore_index=True).dtypes) == list(full.dtypes)
