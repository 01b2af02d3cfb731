"""From result files to what can be claimed: answers, old counts, kinds and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eval.metrics.scores import Samples
from eval.protocols.episodes import Draw, design
from eval.results import board_text, leaderboard
from eval.results.compare import compare, render
from eval.results.estimates import OLD_EPISODES, estimates, measured, stated
from eval.results.schema import Result
from tests.factories import make_fewshot_result, make_result, split_hash

SIZES = [40] * 8


def old(result: Result) -> Result:
    """As a version wrote it that kept right answers an episode and named no kinds."""
    raw = result.model_dump(mode="json")
    for name, samples in result.samples.items():
        counts = np.rint(samples.values() * samples.of).astype(int).tolist()
        raw["samples"][name]["correct"] = counts
    for score in raw["scores"]:
        score.pop("kind")
        score.pop("these", None)
    raw["details"] = {}
    return Result.model_validate(raw)


def test_the_episodes_are_those_that_were_drawn() -> None:
    result = make_fewshot_result("a", p=0.6)
    found = measured(result, "top1_5shot")
    assert found is not None
    assert found.draw == Draw(tuple(SIZES), 5, 5, 15, 60, split_hash("dtd"), 0)
    told = estimates([found])
    assert told is not None
    assert told.kind == "sample"
    assert told.values[0] == pytest.approx(result.scores[0].value, abs=1e-6)
    assert design(found.draw).query.shape == (60, 5, 15)


@pytest.mark.parametrize(
    "details",
    [
        {}, {"class_images": "many"}, {"class_images": [40.5] * 8}, {"class_images": [-1] * 8},
        {"class_images": [40] * 3}, {"class_images": [2**40] * 8}, {"class_images": [True] * 8},
        {"class_images": [2**21] * 8},
    ],
)  # fmt: skip
def test_an_unsound_description_claims_nothing(details: dict[str, Any]) -> None:
    result = make_fewshot_result("a").model_copy(update={"details": details})
    assert measured(result, "top1_5shot") is None


def test_other_episodes_than_the_settings_say_claim_nothing() -> None:
    result = make_fewshot_result("a")
    config = result.protocol.config | {"episodes": 61}
    protocol = result.protocol.model_copy(update={"config": config})
    assert measured(result.model_copy(update={"protocol": protocol}), "top1_5shot") is None


def test_old_few_shot_files_keep_their_interval_under_its_name_and_claim_nothing() -> None:
    results = [old(make_fewshot_result(m, p=p, seed=i)) for i, (m, p) in enumerate(
        (("a", 0.9), ("b", 0.5)))]  # fmt: skip
    (score,) = leaderboard.main_scores(results[0])
    assert (score.kind, score.these) == ("episodes", (score.ci_low, score.ci_high))
    (table,) = leaderboard.tables(results)
    assert table.ties == {}
    text = board_text.render([table])
    assert "†" in text
    assert "± of fewshot: 95 % over other episodes of these images. † from an earlier" in text
    (found,) = compare("a", "b", results)
    assert [t.verdict for t in found.tasks] == [""]
    assert f"No claim on dtd: {OLD_EPISODES}." in render([found])
    assert "better" not in found.sentence


def test_old_image_scores_are_stated_as_today() -> None:
    result = make_result(correct=np.ones(90, bool))
    raw = result.model_dump(mode="json")
    raw["scores"][0] |= {"ci_low": 1.0, "ci_high": 1.0}
    del raw["scores"][0]["kind"]
    found = stated(Result.model_validate(raw), Result.model_validate(raw).scores[0])
    assert (found.kind, found.ci_high) == ("test", 1.0)
    assert 0.95 < found.ci_low < 0.99  # 90 of 90 is not perfection


def test_few_shot_models_have_groups_and_places() -> None:
    results = [
        make_fewshot_result(m, task, p=p, seed=i)
        for i, (m, p) in enumerate((("a", 0.9), ("b", 0.5), ("c", 0.5)))
        for task in ("dtd", "eurosat")
    ]
    (table,) = leaderboard.tables(results)
    assert table.ties == {0: (1, "1"), 1: (2, "2-3"), 2: (2, "2-3")}
    lines = board_text.render([table]).splitlines()
    assert lines[1].split()[-3:] == ["tie", "group", "place"]
    assert lines[3].split()[-2:] == ["1", "1"]
    assert "a is 4" in board_text.ahead(table)
    assert "on these 2 tasks, decided." in board_text.ahead(table)


def test_models_that_were_asked_otherwise_are_in_no_group() -> None:
    results = [make_result(m, correct=np.arange(40) < 20) for m in "ab"]
    results.append(make_result("c", correct=np.arange(41) < 20))
    (table,) = leaderboard.tables(results)
    assert table.ties == {0: (1, "1-2"), 1: (1, "1-2")}
    line = board_text.render([table]).splitlines()[5]
    assert line.split()[-2:] == ["-", "-"]


def test_five_tasks_are_a_sample_of_tasks() -> None:
    results = [make_result(m, f"t{t}", top1=v + t / 40) for t in range(5)
               for m, v in (("a", 0.6), ("b", 0.5))]  # fmt: skip
    (table,) = leaderboard.tables(results)
    found = table.over_tasks(0, 1)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert "with the tasks as a sample of tasks 10.0 ±0.0." in board_text.ahead(table)
    (four,) = leaderboard.tables([r for r in results if r.task.name != "t0"])
    assert four.over_tasks(0, 1) is None
    assert "sample" not in board_text.ahead(four)


def test_the_training_part_is_compared_too() -> None:
    def result(model: str, shift: float) -> Result:
        made = make_result(model)
        samples = made.samples["top1"].model_copy(
            update={"without": [0.5 + shift * (g % 2) for g in range(10)]}
        )
        return made.model_copy(update={"samples": {"top1": samples}})

    (found,) = compare("a", "b", [result("a", 0.0), result("b", 0.1)])
    (narrow,) = compare("a", "b", [result("a", 0.0), result("b", 0.0)])
    assert found.tasks[0].kind == narrow.tasks[0].kind == "sample"
    wide, thin = (t.tasks[0].difference for t in (found, narrow))
    assert wide.high - wide.low > 3 * (thin.high - thin.low)
    (mixed,) = compare("a", "b", [result("a", 0.0), make_result("b")])
    assert mixed.tasks[0].kind == "test"  # one file tells of its training sample, one does not
    odd = make_result("b", correct=np.arange(41) < 20)
    (other,) = compare("a", "b", [result("a", 0.0), odd])
    assert "No claim on dtd: the two were not asked the same." in render([other])


def test_answers_are_kept_as_bits() -> None:
    samples = make_fewshot_result("a").samples["top1_5shot"]
    assert isinstance(samples, Samples)
    assert len(samples.packed()) == 60 * 75 / 8 + 0.5
