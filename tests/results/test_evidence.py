"""What a file's own numbers, data and date say against it: forgeries, slips, and what is honest."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics import intervals
from eval.metrics.scores import Samples
from eval.protocols.outcome import Outcome
from eval.protocols.trained import describe
from eval.results.evidence import against_numbers, broken
from eval.results.parquet_table import flaw
from eval.results.provenance import objection, objections
from eval.results.schema import Result, pack_confidence
from eval.results.sound import sound
from eval.results.store import read_result, read_shelf, write_result
from eval.tasks.registry import TASKS, known_splits
from tests.factories import Cli, make_fewshot_result, make_result
from tests.space.detectors import detector

CARDS = Path(__file__).resolve().parents[2] / "model_cards"
SHIPPED = sorted(CARDS.glob("*/results/*.json"))
EUROSAT = CARDS / "resnet18_narrow.ce_tin100/results/eurosat.linear.json"
FEWSHOT = CARDS / "resnet18_narrow.ce_tin100/results/eurosat.fewshot.json"
Change = dict[str, Any]


def changed(file: Path | Result, change: Change) -> Result:
    """A shipped result with other values: keys are places, as ``scores.0.value``."""
    result = read_result(file) if isinstance(file, Path) else file
    raw = result.model_dump(mode="json")
    for place, value in change.items():
        *path, last = [int(p) if p.isdigit() else p for p in place.split(".")]
        part = raw
        for key in path:
            part = part[key]
        if value is None:
            part.pop(last)
        else:
            part[last] = value
    return Result.model_validate(raw)


def test_all_that_ships_is_sound() -> None:
    assert len(SHIPPED) > 100
    for file in SHIPPED:
        assert list(objections(read_result(file))) == [], file
        assert flaw(read_result(file)) == ""


# The five that were pushed and merged before anything was held against their samples.
FORGERIES: list[tuple[Path, Change, str]] = [
    (
        EUROSAT,
        {"model.id": "hf-hub:bob/best", "model.revision": "a" * 40,
         "model.weights_sha256": "f" * 64, "scores.0.value": 0.999, "scores.0.ci_high": 1.0},
        "score 'top1' is 0.999 where its samples average 0.",
    ),
    (
        EUROSAT,
        {"scores.0.value": 1.0, "scores.0.ci_low": -5, "scores.0.ci_high": 7, "scores.0.n": -3},
        "the interval [-5, 7] of score 'top1' leaves 0 to 1",
    ),
    (
        EUROSAT,
        {"model.weights_sha256": "not a hash", "samples": {}, "confidence": None},
        "score 'top1' has no samples, so that nothing shows what it is the mean of",
    ),
    (
        EUROSAT,
        {"task.split_hash": "0" * 64, "task.counts": {"classes": -1, "train": -2, "test": -3}},
        "'top1' has answers of 800 images where the task has -3 to test",
    ),
    (EUROSAT, {"created": "2999-01-01T00:00:00+00:00"}, "its date is '2999-01-01T00:00:00+00:00'"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "why"), FORGERIES)
def test_the_forgeries_that_were_merged(file: Path, change: Change, why: str) -> None:
    forged = changed(file, change)
    assert objection(forged).startswith(why)
    assert flaw(forged) == objection(forged)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        (EUROSAT, {"scores.0.value": 42.0}, "no fraction of one"),
        (EUROSAT, {"scores.0.value": float("nan")}, "score 'top1' is nan, no fraction of one"),
        (EUROSAT, {"scores.0.ci_high": 1e9}, "leaves 0 to 1"),
        (EUROSAT, {"scores.0.ci_low": float("-inf")}, "is not finite"),
        (EUROSAT, {"scores.0.ci_low": 0.99}, "outside of its interval [0.99, "),
        (EUROSAT, {"scores.0.kind": "", "scores.0.ci_high": 1e9}, "leaves -7 to 8"),
        (EUROSAT, {"scores.0.n": 799}, "has n = 799 and 800 samples"),
        (EUROSAT, {"scores.1.n": 0}, "score 'mean_per_class' has n = 0, not one or more"),
        (EUROSAT, {"scores.3.value": 99.0}, "no number of nats from 0 to 27.7"),
        (EUROSAT, {"scores.3.ci_high": 99.0}, "leaves 0 to 27.7"),
        (EUROSAT, {"scores": []}, "it has no scores"),
        (FEWSHOT, {"scores.0.value": 0.5}, "outside of its interval"),
        (FEWSHOT, {"scores.0.these": [0.0, 0.99]}, "over episodes is [0, 0.99] where its samples"),
        (FEWSHOT, {"protocol.config.episodes": 599}, "where its settings ask for 599 of 75"),
        (FEWSHOT, {"scores.0.n": 45000}, "has n = 45000 and 600 samples"),
    ],
)
def test_numbers_that_contradict_each_other(file: Path, change: Change, why: str) -> None:
    assert any(why in sentence for sentence in against_numbers(changed(file, change)))


def test_two_scores_of_one_name() -> None:
    raw = read_result(EUROSAT).model_dump(mode="json")
    raw["scores"].append(raw["scores"][0])
    assert broken(Result.model_validate(raw)) == "it has two scores of one name"


def linear_with_confidences(seed: int = 0, curve: bool = False) -> Result:
    """As a protocol that trains makes one, of random probabilities."""
    random = np.random.RandomState(seed)
    probability = random.dirichlet(np.ones(5) / 2, 300)
    labels = np.array([random.choice(5, p=row) for row in probability])
    out = Outcome()
    describe(out, probability, labels, 0)
    assert out.confidence is not None
    scores = [score.model_dump() for score in out.scores]
    details = {}
    if curve:
        shares = [0.25, 0.5, 0.75]
        details = {"curve": [{"part": "10pct", "draw": i, "top1": s} for i, s in enumerate(shares)]}
        told = intervals.runs_interval(np.array(shares))
        scores.append({"name": "top1_10pct", "value": told.value, "ci_low": told.low,
                       "ci_high": told.high, "n": 300, "kind": "sample"})  # fmt: skip
    return make_result(
        correct=probability.argmax(1) == labels, scores=scores,
        samples={k: v.model_dump() for k, v in out.samples.items()},
        confidence=pack_confidence(out.confidence), details=details,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_what_a_protocol_computes_is_sound(seed: int) -> None:
    assert list(against_numbers(linear_with_confidences(seed, curve=True))) == []


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("ece", lambda v: v + 0.01, "where the file's other numbers give 0."),
        ("nll", lambda v: v / 9, "where its confidences allow no less than 0."),
        ("top1_10pct", lambda v: v + 0.05, "where the file's other numbers give 0.500000"),
    ],
)
def test_scores_that_follow_from_others(
    name: str, change: Callable[[float], float], why: str
) -> None:
    honest = linear_with_confidences(curve=True)
    scores = []
    for score in honest.scores:
        if score.name == name:
            value = change(score.value)
            update = {"value": value, "ci_low": 0.0, "ci_high": 1.0 if name != "nll" else 5.0}
            score = score.model_copy(update=update)
        scores.append(score)
    (said,) = against_numbers(honest.model_copy(update={"scores": scores}))
    assert f"score {name!r}" in said
    assert why in said


def test_mean_per_class_of_all_right() -> None:
    made = make_result(correct=np.ones(40, bool))
    other = made.scores[0].model_copy(update={"name": "mean_per_class", "value": 0.95})
    (said,) = against_numbers(made.model_copy(update={"scores": [*made.scores, other]}))
    assert said == ("score 'mean_per_class' is 0.95 where the file's other numbers give 1.000000")


def test_detectors_against_their_resamples() -> None:
    made = detector("a")
    assert list(against_numbers(made)) == []
    why = {
        "value": (0.99, "where its resamples lie within"),
        "ci_high": (0.9, "where its resamples give"),
        "ci_low": (0.99, "outside of its interval"),
    }
    for field, (value, expected) in why.items():
        forged = changed(made, {f"scores.0.{field}": value})
        assert any(expected in sentence for sentence in against_numbers(forged)), field


def test_samples_that_are_no_answers() -> None:
    made = make_result(protocol="fewshot")
    counts = [76] * 40
    samples = {"top1_5shot": Samples(unit="episode", n=40, of=75, correct=counts)}
    assert "is no fraction of one" in broken(made.model_copy(update={"samples": samples}))
    assert broken(make_fewshot_result()) == ""


# --------------------------------------------------------------------------- model, data, date


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model.weights_sha256": "not a hash"}, "weights_sha256 is 'not a hash', not 64"),
        ({"model.weights_sha256": "A" * 64}, "not 64 hexadecimal digits"),
        ({"task.split_hash": "../../x"}, "split_hash is '../../x', not 64 hexadecimal digits"),
        ({"model.id": "hf-hub:bob/best"}, "but it is called 'hf-hub:bob/best'"),
        ({"model.revision": "main"}, "revision 'main' of 'zoo:resnet18_narrow.ce_tin100' is"),
        (
            {"model.spec": "hf-hub:bob/best@" + "a" * 40, "model.id": "hf-hub:bob/best"},
            "but its revision is ",
        ),
        ({"model.spec": "random:resnet18", "model.id": "random:resnet18"}, "of revision "),
        # another alphabet's letters, a kind that does not exist, a name of somebody else's
        ({"model.id": "zoo:resnet18_narrow.c\u0435_tin100"}, "but it is called 'zoo:resnet"),
        ({"model.spec": f"hf-hub:bob/b\u0435st@{'a' * 40}", "model.revision": "a" * 40,
          "model.id": "hf-hub:bob/b\u0435st"}, "but it is called 'hf-hub:bob/b"),
        ({"model.spec": "new:resnet50", "model.id": "resnet50.a1_in1k"}, "is of no known kind"),
        ({"model.spec": "resnet50", "model.id": "resnet50.a1_in1k"}, "is of no known kind"),
        ({"model.spec": "python:resnet50", "model.id": "resnet50.a1_in1k"}, "but it is called"),
        ({"model.spec": "python:resnet50", "model.id": "python:other"}, "but it is called"),
        ({"model.spec": "local-dir:x", "model.id": "zoo:x"}, "but it is called 'zoo:x'"),
        ({"model.params": -1}, "params -1 is less than 0"),
        ({"seconds.fit": float("inf")}, "seconds.fit is inf"),
        ({"task.counts": {"classes": 10, "train": 2500, "test": 800, "x": -1},
          "task.duplicates": 801}, "801 duplicates among 800 test images"),
        ({"task.counts": {"train": 2500, "test": 800}}, "lack one or more classes"),
        ({"task.counts": {"classes": 11, "train": 2500, "test": 800}},
         "known smaller copy of 'eurosat' with 10 classes, 2,500 and 800 images"),
        ({"task.subset": False}, "and calls that the whole set"),
        ({"task.split_hash": "0" * 64, "task.subset": False, "task.split": "study"},
         "where the whole of 'eurosat' has 10 classes, 18,900 and 8,100 images"),
        ({"task.split_hash": "0" * 64, "task.subset": False, "task.split": "other"},
         "its split of 'eurosat' is 'other', which has study"),
        ({"task.split_hash": "0" * 64, "task.counts": {"classes": 10, "train": 50000, "test": 800}},
         "more than the 10 classes and 27,000 images of 'eurosat'"),
        ({"task.name": "dtd"}, "its split hash is that of 'eurosat', but its task is called 'dtd'"),
        ({"limit": 100}, "limited to 100 images a split, but counts 2500 and 800"),
        ({"created": "yesterday"}, "its date is 'yesterday', no ISO date"),
        ({"created": "2026-11-01T00:00:00"}, "has no time zone"),
        ({"created": "2019-11-01T00:00:00+00:00"}, "not from 2026 to today"),
    ],
)  # fmt: skip
def test_what_cannot_be_from_where_it_says(change: Change, why: str) -> None:
    found = list(objections(changed(EUROSAT, change)))
    assert any(why in sentence for sentence in found), found


def test_a_clock_that_is_a_little_ahead() -> None:
    result = read_result(EUROSAT)
    made = datetime.fromisoformat(result.created)
    assert list(objections(result, made - timedelta(hours=23))) == []
    assert "not from 2026 to today" in objection(result, made - timedelta(hours=25))
    assert objection(result, datetime(2999, 1, 1, tzinfo=UTC)) == ""


def test_splits_that_are_known() -> None:
    assert known_splits("eurosat") == {read_result(EUROSAT).task.split_hash}
    assert all(len(known_splits(name)) == 1 for name, task in TASKS.items() if task.embedded)
    assert known_splits("photos") == known_splits("voc0712") == frozenset()


# --------------------------------------------------------------------------- boards leave them out


def test_a_board_names_what_it_leaves_out(tmp_path: Path, cli: Cli) -> None:
    honest = make_result("a", "photos")
    write_result(tmp_path / "good.json", honest)
    for name, value in (("nan", float("nan")), ("percent", 42.0), ("wide", 0.5)):
        raw = honest.model_dump(mode="json")
        raw["model"]["id"] = name
        raw["scores"][0] |= {"value": value, "ci_high": 1e9 if name == "wide" else 0.6}
        (tmp_path / f"{name}.json").write_text(json.dumps(raw))
    found = sound(read_shelf(tmp_path))
    assert [result for _, result in found.results] == [honest]
    ran = cli("leaderboard", "--results", tmp_path)
    assert ran.code == 0
    assert "42" not in ran.out
    assert "nan" not in ran.out
    assert ran.err.splitlines() == [
        f"skipped {tmp_path}/nan.json: score 'top1' is nan, no fraction of one",
        f"skipped {tmp_path}/percent.json: score 'top1' is 42.0, no fraction of one",
        f"skipped {tmp_path}/wide.json: the interval [0.4, 1e+09] of score 'top1' leaves 0 to 1",
        "3 files skipped in all",
    ]
