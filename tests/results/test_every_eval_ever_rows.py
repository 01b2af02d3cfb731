"""Reading every_eval_ever: our own exports come back, and files as other harnesses write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics import intervals
from eval.models.names import ZOO_FOLDER
from eval.results.every_eval_ever import write_every_eval_ever
from eval.results.every_eval_ever_rows import Row, read_every_eval_ever
from eval.results.store import read_result
from tests.factories import make_result, refusal

DTD = ZOO_FOLDER / "resnet18_narrow.ce_tin100" / "results"
ID = "reading/lab/small-1/1706000000"


def entry(name: str, score: float, uncertainty: Any = None, **more: Any) -> dict[str, Any]:
    """A result as the format's README shows one."""
    details = {"score": score} | ({"uncertainty": uncertainty} if uncertainty else {})
    return {
        "evaluation_name": name,
        "source_data": {"dataset_name": name, "source_type": "other"},
        "metric_config": {
            "evaluation_description": f"exact match on {name}",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": details,
    } | more


def log(*entries: dict[str, Any], version: str = "0.3.0", **more: Any) -> dict[str, Any]:
    return {
        "schema_version": version,
        "evaluation_id": ID,
        "retrieved_timestamp": "1706000000",
        "source_metadata": {
            "source_name": "A leaderboard",
            "source_type": "documentation",
            "source_organization_name": "A lab",
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": "lm_eval", "version": "0.4.9"},
        "model_info": {
            "name": "Small 1",
            "id": "lab/small-1",
            "additional_details": {
                "deployment_type": "externally_managed",
                "model_availability": "closed_weights",
            },
        },
        "evaluation_results": list(entries),
    } | more


def line(item: str, score: float, **more: Any) -> dict[str, Any]:
    """A sample of one question and one answer, as the format's README shows one."""
    return {
        "schema_version": "0.3.0",
        "evaluation_id": ID,
        "model_id": "lab/small-1",
        "evaluation_name": "sums",
        "sample_id": item,
        "interaction_type": "single_turn",
        "input": {"raw": "What is 2 + 3?", "reference": ["5"]},
        "output": {"raw": ["It is 5."]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": "5",
                "extraction_method": "regex",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": score, "is_correct": score == 1},
    } | more


def written(path: Path, document: dict[str, Any], *lines: dict[str, Any]) -> Path:
    """The document and, where there are lines, its samples with what it must say of them."""
    if lines:
        content = "".join(json.dumps(x) + "\n" for x in lines).encode()
        samples = path.with_name(path.stem + "_samples.jsonl")
        samples.write_bytes(content)
        document["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": f"data/reading/lab/small-1/{samples.name}",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(content).hexdigest(),
            "total_rows": len(lines),
        } | document.get("detailed_evaluation_results", {})
    path.write_text(json.dumps(document))
    return path


# ---- our own


def test_our_scores_come_back(tmp_path: Path) -> None:
    result = read_result(DTD / "dtd.linear.json")
    (path,) = write_every_eval_ever([result], tmp_path)
    rows = read_every_eval_ever(path)
    assert [(r.task, r.score, r.n) for r in rows] == [
        (f"dtd / linear / {s.name}", s.value, s.n) for s in result.scores
    ]
    for row, score in zip(rows, result.scores, strict=True):
        assert row.item == ""
        assert row.model == "transferzoo/resnet18_narrow.ce_tin100"
        assert row.benchmark == "transferzoo_dtd_linear"
        assert row.lower_is_better == (score.name in ("ece", "nll"))
        half = (score.ci_high - score.ci_low) / 2
        assert row.standard_error == pytest.approx(half / 1.959964, rel=1e-6)


@pytest.mark.parametrize("name", ["dtd.linear.json", "dtd.fewshot.json"])
def test_our_answers_come_back(name: str, tmp_path: Path) -> None:
    """Each score that has answers as its answers, each other one as itself."""
    result = read_result(DTD / name)
    write_every_eval_ever([result], tmp_path, samples=True)
    rows = read_every_eval_ever(tmp_path)
    for score in result.scores:
        mine = [r for r in rows if r.task.endswith(f" / {score.name}")]
        samples = result.samples.get(score.name)
        if samples is None:
            assert [(r.item, r.score) for r in mine] == [("", score.value)]
            continue
        assert [r.score for r in mine] == samples.values().tolist()
        assert len({r.item for r in mine}) == samples.n
        assert all(r.standard_error is None and r.n is None for r in mine)
        assert np.mean([r.score for r in mine]) == pytest.approx(score.value, abs=1e-6)


def test_two_models_pair_by_item(tmp_path: Path) -> None:
    """A paired difference of the rows is the one of the samples."""
    right = np.arange(40) % 3 > 0
    results = [make_result(correct=right), make_result("random:resnet50", correct=right[::-1])]
    write_every_eval_ever(results, tmp_path, samples=True)
    rows = read_every_eval_ever(tmp_path)
    a, b = ({r.item: r.score for r in rows if r.model == f"random/resnet{d}"} for d in (18, 50))
    assert a.keys() == b.keys()
    found = np.array([a[item] - b[item] for item in a])
    assert sorted(found) == sorted(right.astype(float) - right[::-1].astype(float))


# ---- others


def test_aggregates_as_a_leaderboard_has_them(tmp_path: Path) -> None:
    """The uncertainty by the first of three ways to say it; none where there is none."""
    document = log(
        entry("plain", 0.31),
        entry("a", 0.5, {"standard_error": {"value": 0.01, "method": "bootstrap"}}),
        entry("b", 0.5, {"standard_deviation": 0.4, "num_samples": 400}),
        entry("c", 0.5, {"confidence_interval": {
            "lower": 0.4, "upper": 0.6, "confidence_level": 0.9}, "num_samples": 90}),
        entry("d", 0.5, {"confidence_interval": {"lower": 0.4, "upper": 0.6}}),
        entry("e", 12.5, metric_config={
            "metric_id": "lab.perplexity", "metric_name": "perplexity", "lower_is_better": True}),
    )  # fmt: skip
    rows = read_every_eval_ever(written(tmp_path / "x.json", document))
    assert rows[0] == Row("lab/small-1", "reading", "plain", "", "", 0.31, False)
    errors = [r.standard_error for r in rows[1:5]]
    assert errors == [0.01, 0.4 / 20, pytest.approx(0.1 / 1.644854, rel=1e-6), None]
    assert [r.n for r in rows[1:5]] == [None, 400, 90, None]
    assert (rows[5].metric, rows[5].lower_is_better) == ("lab.perplexity", True)


def test_samples_as_a_harness_writes_them(tmp_path: Path) -> None:
    """Linked by id or by name, asked twice, of a part of the results; blank lines do not count."""
    accuracy = {"metric_id": "accuracy", "lower_is_better": False}
    f1 = {"metric_id": "f1", "lower_is_better": False}
    document = log(
        entry("sums", 0.5, evaluation_result_id="sums-acc", metric_config=accuracy),
        entry("sums", 0.6, evaluation_result_id="sums-f1", metric_config=f1),
        entry("words", 0.7),
        entry("poems", 0.8),
    )
    lines = [
        line("q1", 1.0, evaluation_result_id="sums-acc"),
        line("q1", 0.9, evaluation_result_id="sums-f1"),
        line("q2", 0.0, evaluation_result_id="sums-acc", interaction_type="multi_turn"),
        line("q2", 1.0, evaluation_result_id="sums-acc"),
        line("w1", 1.0, evaluation_name="words", evaluation={"score": 1, "is_correct": None}),
    ]
    path = written(tmp_path / "x.json", document, *lines)
    found = [(r.task, r.metric, r.item, r.score) for r in read_every_eval_ever(path)]
    assert found == [
        ("sums", "accuracy", "q1", 1.0), ("sums", "accuracy", "q2", 0.0),
        ("sums", "accuracy", "q2", 1.0), ("sums", "f1", "q1", 0.9),
        ("words", "", "w1", 1.0), ("poems", "", "", 0.8),
    ]  # fmt: skip
    assert read_every_eval_ever(tmp_path / "x_samples.jsonl") == read_every_eval_ever(path)
    (tmp_path / "x_samples.jsonl").unlink()  # not fetched
    assert [r.score for r in read_every_eval_ever(path)] == [0.5, 0.6, 0.7, 0.8]


def test_a_file_of_version_0_2(tmp_path: Path) -> None:
    """Its path of samples is of another form, numbers stand in details, the checksum is md5."""
    content = (json.dumps(line("q1", 1.0)) + "\n\n").encode()
    (tmp_path / "old_samples.jsonl").write_bytes(content)
    document = log(
        entry("sums", 1.0),
        version="0.2.1",
        model_info={
            "name": "s", "id": "lab/small-1", "additional_details": {"params_billions": 8.3},
        },
        detailed_evaluation_results={
            "format": "jsonl", "file_path": "old_samples.jsonl", "hash_algorithm": "md5",
            "checksum": hashlib.md5(content).hexdigest(), "total_rows": 1,
        },
    )  # fmt: skip
    (row,) = read_every_eval_ever(written(tmp_path / "old.json", document))
    assert (row.task, row.item, row.score) == ("sums", "q1", 1.0)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b/y.json", "a/z.json"):
        (tmp_path / name).parent.mkdir()
        written(tmp_path / name, log(entry(name, 0.5)))
    (tmp_path / ".hidden.json").write_text("no JSON")
    assert [r.task for r in read_every_eval_ever(tmp_path)] == ["a/z.json", "b/y.json"]


# ---- what is refused


def change(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: document | fields


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(schema_version="1.0.0"), "schema_version"),
        (change(evaluation_id=7), "evaluation_id"),
        (change(evaluation_results=[entry("x", float("nan"))]), "score_details.score"),
        (change(evaluation_results=[{"evaluation_name": "x"}]), "metric_config"),
        (change(model_info={}), "model_info.id"),
        (lambda document: [document], "the whole"),
    ],
)
def test_what_is_not_of_the_format(
    changed: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed(log(entry("x", 0.5)))))
    message = refusal(read_every_eval_ever, path)
    assert str(path) in message
    assert said in message


@pytest.mark.parametrize("content", ["", "{", "\0", "[" * 100_000])
def test_what_is_no_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    assert "is no readable JSON" in refusal(read_every_eval_ever, tmp_path / "x.json")


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "cannot read" in refusal(read_every_eval_ever, tmp_path / "absent.json")
    assert "holds no .json file" in refusal(read_every_eval_ever, tmp_path)
    lonely = tmp_path / "x_samples.jsonl"
    lonely.write_text("")
    assert "x.json, which is not beside them" in refusal(read_every_eval_ever, lonely)


@pytest.mark.parametrize(
    ("details", "lines", "said"),
    [
        ({"checksum": "0" * 64}, [line("q", 1)], "fetch both again"),
        ({"total_rows": 2}, [line("q", 1)], "has 1 samples where its aggregate says 2"),
        ({}, [line("q", 1, evaluation_id="other/x/y/1")], "line 1 is of 'other/x/y/1'"),
        ({}, [line("q", 1, model_id="lab/large")], "by 'lab/large'"),
        ({}, [line("q", 1), line("q", 1, evaluation_name="odd")], "line 2 is of result 'odd'"),
        ({}, [line("q", 1, evaluation_result_id="odd")], "of which its aggregate has 0"),
        ({}, [line("q", float("inf"))], "evaluation.score"),
    ],
)
def test_samples_that_are_not_those_of_the_file(
    details: dict[str, Any], lines: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    document = log(entry("sums", 1.0), detailed_evaluation_results=details)
    assert said in refusal(read_every_eval_ever, written(tmp_path / "x.json", document, *lines))


def test_the_standard_error_of_a_share_is_the_binomial_one(tmp_path: Path) -> None:
    """Read back from the interval of an export, against the formula."""
    right = np.arange(400) < 240
    interval = intervals.accuracy(right)
    score = {
        "name": "top1", "value": interval.value,
        "ci_low": interval.low, "ci_high": interval.high, "n": 400,
    }  # fmt: skip
    (path,) = write_every_eval_ever([make_result(correct=right, scores=[score])], tmp_path)
    (row,) = read_every_eval_ever(path)
    assert row.standard_error == pytest.approx((0.6 * 0.4 / 400) ** 0.5, rel=0.1)
