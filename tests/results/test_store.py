"""The result schema: what is written is read back, what is foreign is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from eval.common.errors import UserError
from eval.metrics.intervals import Interval
from eval.metrics.scores import Samples, Score
from eval.results.names import portable, shelf_path
from eval.results.schema import Result
from eval.results.store import NotAResult, check_writable, read_result, read_shelf, write_result
from tests.factories import make_result


def test_round_trip(tmp_path: Path) -> None:
    result = make_result()
    write_result(tmp_path / "a" / "x.json", result)
    assert read_result(tmp_path / "a" / "x.json") == result
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.json"]


def test_fields_of_a_later_version_survive(tmp_path: Path) -> None:
    raw = make_result().model_dump(mode="json")
    raw["task"]["lesions"] = 12
    raw["review"] = "ok"
    (tmp_path / "x.json").write_text(json.dumps(raw))
    write_result(tmp_path / "y.json", read_result(tmp_path / "x.json"))
    assert json.loads((tmp_path / "y.json").read_text()) == raw


@given(hnp.arrays(bool, st.integers(1, 300)))
def test_image_samples_round_trip(correct: np.ndarray) -> None:
    samples = Samples.of_images(correct)
    again = Samples.model_validate(json.loads(samples.model_dump_json()))
    assert again.values().astype(bool).tolist() == correct.tolist()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 50), st.integers(1, 75))))
def test_episode_samples_round_trip(correct: np.ndarray) -> None:
    samples = Samples.of_episodes(correct)
    again = Samples.model_validate(json.loads(samples.model_dump_json()))
    assert again.answers().tolist() == correct.tolist()
    assert again.values() == pytest.approx(correct.mean(1))


def test_episodes_of_older_files_are_counts() -> None:
    old = Samples(unit="episode", n=3, of=75, correct=[0, 30, 75])
    assert old.values().tolist() == [0, 0.4, 1]
    with pytest.raises(ValueError, match="no single answers"):
        old.answers()
    bits = Samples.of_episodes(np.ones((3, 75), bool)).correct
    with pytest.raises(ValidationError, match="answers where n says 4 of 75"):
        Samples(unit="episode", n=4, of=75, correct=bits)


def test_files_of_before_get_no_new_fields() -> None:
    raw = make_result().model_dump(mode="json")
    del raw["scores"][0]["kind"]
    assert "without" not in raw["samples"]["top1"]
    assert Result.model_validate(raw).model_dump(mode="json") == raw


def test_score_is_rounded_to_six_digits() -> None:
    score = Score.of("top1", Interval(1 / 3, 0.1 + 1e-12, 0.5), 3)
    assert (score.value, score.ci_low) == (0.333333, 0.1)


BROKEN: dict[str, Any] = {
    "no JSON": "{",
    "a list": "[]",
    "no version": "{}",
    "a later version": json.dumps({"schema_version": 2}),
    "missing fields": json.dumps({"schema_version": 1}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_foreign_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(NotAResult) as caught:
        read_result(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_samples_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    raw = make_result().model_dump(mode="json")
    raw["samples"]["top1"]["n"] = 4000
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(NotAResult, match="samples"):
        read_result(tmp_path / "x.json")


def test_shelf_skips_and_names_the_foreign(tmp_path: Path) -> None:
    write_result(tmp_path / "m" / "dtd.linear.json", make_result())
    (tmp_path / "m" / "other.json").write_text("{}")
    (tmp_path / ".hidden.json").write_text("{}")
    shelf = read_shelf(tmp_path)
    assert [r.task.name for _, r in shelf.results] == ["dtd"]
    assert [p.name for p, _ in shelf.foreign] == ["other.json"]


def test_shelf_full_of_foreign_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "web"}')
    with pytest.raises(UserError, match=r"1 JSON files and none is a result.*package\.json"):
        read_shelf(tmp_path)
    with pytest.raises(UserError, match="none is a result"):
        check_writable(tmp_path)


def test_results_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file"):
            check_writable(path)


def test_check_writable_writes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "published"),
    [
        ("/home/ada/data/eurosat", "local:eurosat"),
        ("/home/ada/data/eurosat/", "local:eurosat"),
        ("~/photos", "local:photos"),
        ("parquet:/home/ada/photos?image=image&label=a/b", "local:photos"),
        ("imagefolder:/photos", "local:photos"),
        (r"C:\Users\ada\photos", "local:photos"),
        (r"\\server\share\photos", "local:photos"),
        ("hub:org/name?image=image&label=label", "hub:org/name?image=image&label=label"),
        ("https://host/data", "https://host/data"),
        ("mini v1", "mini v1"),
        ("local:eurosat", "local:eurosat"),
    ],
)
def test_a_published_result_names_no_folder(source: str, published: str) -> None:
    result = make_result(model="local-dir:/home/ada/my model/")
    task = result.task.model_copy(update={"source": source})
    out = portable(result.model_copy(update={"task": task}))
    assert out.task.source == published
    assert out.model.spec == "local-dir:my model"
    assert portable(out) == out


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.integers(0, 3))
def test_a_result_lies_three_parts_below_its_shelf(
    model: str, revision: str, task: str, seed: int
) -> None:
    result = make_result(model=model, revision=revision, task=task).model_copy(
        update={"seed": seed}
    )
    for by_hash in (False, True):
        parts = shelf_path(result, by_hash=by_hash).split("/")
        assert len(parts) == 3
        assert all(part not in ("", ".", "..") and "\\" not in part for part in parts)
        assert Path("/shelf", *parts).resolve().is_relative_to("/shelf")


def test_seed_and_split_make_other_files() -> None:
    plain, other = make_result(), make_result(split="other")
    seeded = make_result().model_copy(update={"seed": 3})
    paths = {shelf_path(r) for r in (plain, other, seeded)}
    assert paths == {"random--resnet18/seed0/dtd.linear.json",
                     "random--resnet18/seed0/dtd.linear@seed=3.json"}  # fmt: skip
    assert shelf_path(other, by_hash=True) != shelf_path(plain, by_hash=True)


def test_values_without_training_images_are_kept_and_left_out_where_there_are_none() -> None:
    correct = np.array([True, False, True])
    plain = Samples.of_images(correct)
    assert "without" not in json.loads(plain.model_dump_json())
    kept = Samples.of_images(correct, [0.5, 0.625])
    again = Samples.model_validate(json.loads(kept.model_dump_json()))
    assert again.without == [0.5, 0.625]
    assert again == kept
