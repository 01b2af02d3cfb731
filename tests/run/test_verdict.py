"""Two runs of a result: what the tolerance allows, and what it never does."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.data.load import load_task
from eval.metrics import intervals
from eval.metrics.scores import Samples, Score
from eval.models.names import ZOO_FOLDER
from eval.results.schema import Result, pack_confidence
from eval.results.store import read_result
from eval.run.tolerance import Tolerance, changed, tolerance
from eval.run.verdict import Verdict, choices, differences, given
from tests.factories import make_result

VERSIONS = {"torch": "2.15.0", "pillow": "13.0.0", "huggingface-hub": "2.4.0"}
LOOSE = Tolerance("another Pillow", few=4, rate=0.002, confidence=0.02, nll=0.005)
EXACT = Tolerance("the same")


def result(right: np.ndarray, confidence: np.ndarray | None = None, **scores: float) -> Result:
    """A linear result over images, its scores by their definitions, the others as given."""
    parts = {"top1": intervals.accuracy(right)}
    if confidence is not None:
        parts["ece"] = intervals.expected_calibration_error(confidence, right, 0)
    found = [Score.of(name, i, len(right), "test") for name, i in parts.items()]
    found += [
        Score(name=name, value=v, ci_low=v - 0.05, ci_high=v + 0.05, n=len(right), kind="test")
        for name, v in scores.items()
    ]
    more = {} if confidence is None else {"confidence": pack_confidence(confidence)}
    return make_result(correct=right, scores=[s.model_dump() for s in found], **more)


def episodes(hits: Sequence[int]) -> Result:
    correct = np.arange(75) < np.array(hits)[:, None]
    interval = intervals.mean_interval(correct.mean(1))
    return make_result(
        protocol="fewshot",
        scores=[Score.of("top1_5shot", interval, len(hits), "episodes", interval).model_dump()],
        samples={"top1_5shot": Samples.of_episodes(correct).model_dump()},
    )


def flipped(right: np.ndarray, up: int, down: int) -> np.ndarray:
    """So many wrong answers made right, and so many right ones wrong."""
    out = right.copy()
    out[np.flatnonzero(~right)[:up]] = True
    out[np.flatnonzero(right)[:down]] = False
    return out


def word(old: Result, new: Result, by: Tolerance = LOOSE, labels: Any = None) -> str:
    return Verdict(differences(old, new, by, labels), (), by).word


def edited(old: Result, name: str, **fields: float) -> Result:
    scores = [s.model_copy(update=fields) if s.name == name else s for s in old.scores]
    return old.model_copy(update={"scores": scores})


RIGHT = np.random.RandomState(0).rand(400) < 0.6


# ---- which tolerance


def environment(**changes: Any) -> Any:
    known = {"versions": dict(VERSIONS), "instructions": "x86_64 AVX512"}
    return make_result().environment.model_copy(update=known | changes)


@pytest.mark.parametrize(
    ("change", "exact", "why"),
    [
        ({}, True, "are those recorded"),
        ({"versions": VERSIONS | {"huggingface-hub": "3.0"}}, True, "are those recorded"),
        ({"threads": 7}, False, "threads 7 here, 2 recorded"),
        ({"versions": VERSIONS | {"pillow": "12.3.0"}}, False, "pillow 12.3.0 here, 13.0.0"),
        ({"device": "cuda"}, False, "device cuda here, cpu recorded"),
        (
            {"instructions": "aarch64 DEFAULT"},
            False,
            "instructions aarch64 DEFAULT here, x86_64 AVX512 recorded",
        ),
    ],
)
def test_a_tolerance_has_a_cause(change: dict[str, Any], exact: bool, why: str) -> None:
    """What fetches and stores is named, and excuses nothing."""
    then, here = environment(), environment(**change)
    found = tolerance(then, here)
    assert found.exact == exact
    assert why in str(found)
    assert [c.what for c in changed(then, here)] == [
        *(
            ["huggingface-hub"]
            if change.get("versions", {}).get("huggingface-hub") == "3.0"
            else []
        ),
        *(["pillow"] if change.get("versions", {}).get("pillow") == "12.3.0" else []),
        *(name for name in ("device", "instructions", "threads") if name in change),
    ]


def test_a_result_that_does_not_tell_its_processor_is_excused_by_none() -> None:
    then = environment(instructions=None)
    found = tolerance(then, environment())
    assert found.exact
    assert "the processor's instructions are not" in str(found)
    assert changed(then, environment()) == ()
    assert "processor" not in str(tolerance(environment(), environment()))


def test_threads_excuse_less_than_versions() -> None:
    then = environment()
    threads = tolerance(then, environment(threads=1))
    both = tolerance(then, environment(threads=1, versions={}))
    for n in (10, 400, 45_000):
        assert 0 < threads.answers(n) < both.answers(n)
    assert threads.confidence < both.confidence
    assert threads.nll < both.nll


# ---- answers


@pytest.mark.parametrize(
    ("up", "down", "said"),
    [(0, 0, "equal"), (1, 0, "within tolerance"), (2, 2, "within tolerance"), (3, 2, "differs")],
)
def test_so_many_answers_may_change(up: int, down: int, said: str) -> None:
    old, new = result(RIGHT), result(flipped(RIGHT, up, down))
    assert word(old, new) == word(new, old) == said
    assert word(old, new, EXACT) == ("equal" if up == 0 else "differs")


def test_the_limit_grows_with_the_answers() -> None:
    hits = np.random.RandomState(1).randint(20, 60, 600)
    near, far = hits.copy(), hits.copy()
    near[:90] += np.tile([1, -1], 45)  # 90 of 45,000 answers
    far[:92] += np.tile([1, -1], 46)
    assert word(episodes(hits), episodes(near)) == "within tolerance"
    assert word(episodes(hits), episodes(far)) == "differs"
    text = " ".join(d.text for d in differences(episodes(hits), episodes(far), LOOSE))
    assert "92 of 45,000 answers changed, +0 in all; at most 90 may" in text


def test_noise_has_no_side() -> None:
    """As many answers as noise changes, but all for the better: somebody's hand."""
    hits = np.full(600, 40)
    better, both = hits.copy(), hits.copy()
    better[:80] += 1
    both[:80] += np.tile([1, 1, 1, -1], 20)
    assert word(episodes(hits), episodes(better)) == "differs"
    text = " ".join(d.text for d in differences(episodes(hits), episodes(better), LOOSE))
    assert "noise changes both ways, at most +29 in all" in text
    assert word(episodes(hits), episodes(both)) == "differs"  # +40
    both[60:80] = hits[60:80] + np.tile([-1, -1, -1, 1], 5)
    assert word(episodes(hits), episodes(both)) == "within tolerance"  # +20


# ---- numbers that the answers do not give


@pytest.mark.parametrize("field", ["value", "ci_low", "ci_high"])
def test_a_score_must_be_that_of_its_own_answers(field: str) -> None:
    """Changed by less than one answer, or by as much as the tolerance: not computed from them."""
    for by in (0.0005, 1 / 400):
        old = result(RIGHT)
        was = getattr(old.scores[0], field)
        forged = edited(old, "top1", **{field: was + by})
        assert word(forged, result(flipped(RIGHT, 1, 1))) == "differs"
        text = " ".join(d.text for d in differences(forged, old, LOOSE))
        assert f"the recorded answers give {old.scores[0].value:.6f}" in text


def test_mean_per_class_follows_from_answers_and_labels() -> None:
    labels = np.arange(400) % 7
    new_right = flipped(RIGHT, 1, 2)

    def with_it(right: np.ndarray) -> Result:
        interval = intervals.mean_per_class(right, labels)
        score = Score.of("mean_per_class", interval, 400).model_dump()
        return make_result(correct=right, scores=[result(right).scores[0].model_dump(), score])

    old, new = with_it(RIGHT), with_it(new_right)
    assert word(old, new, labels=labels) == "within tolerance"
    forged = edited(old, "mean_per_class", value=old.scores[1].value + 0.002)
    assert word(forged, new, labels=labels) == "differs"


def test_calibration_follows_from_confidences() -> None:
    sure = np.random.RandomState(2).rand(400) * 0.6 + 0.4
    near = np.clip(sure + np.tile([0.004, -0.004], 200), 0, 1)
    old, new = result(RIGHT, sure), result(RIGHT, near)
    assert word(old, new) == "within tolerance"
    assert word(old, result(RIGHT, np.clip(sure + 0.03, 0, 1))) == "differs"
    assert word(edited(old, "ece", value=old.scores[1].value + 0.001), new) == "differs"


@pytest.mark.slow
def test_the_committed_scores_are_those_of_their_answers() -> None:
    """The definitions above are the protocols' own: the committed ones follow from theirs."""
    paths = sorted(ZOO_FOLDER.glob("*/results/*.json"))
    count = 0
    for path in paths:
        old = read_result(path)
        for score in old.scores:
            found = given(old, score)
            if found is not None:
                count += 1
                numbers = (score.value, score.ci_low, score.ci_high)
                near = 2e-5 if score.name == "ece" else 1.1e-6  # confidences are rounded
                assert (found.value, found.low, found.high) == pytest.approx(numbers, abs=near)
    assert count > 600


def test_the_committed_means_per_class_are_those_of_their_answers_and_labels(
    real_data: Path, tmp_path: Path
) -> None:
    labels: dict[str, Any] = {}
    count = 0
    for path in sorted(ZOO_FOLDER.glob("*/results/*.linear.json")):
        old = read_result(path)
        if old.task.name not in labels:
            labels[old.task.name] = load_task(old.task.name, tmp_path, real_data).test.labels
        score = old.score("mean_per_class")
        found = given(old, score, labels[old.task.name])
        assert found is not None
        numbers = (score.value, score.ci_low, score.ci_high)
        assert (found.value, found.low, found.high) == pytest.approx(numbers, abs=1.1e-6)
        count += 1
    assert count == 72


@pytest.mark.parametrize(
    ("name", "value", "near", "far"),
    [
        ("ece", 0.07, 0.0095, 0.0105),  # without confidences: as many images as answers
        ("nll", 2.0, 0.0095, 0.0105),  # half a percent
        ("top1_10pct", 0.4, 0.0095, 0.0105),
        ("mean_per_class", 0.4, 0.0095, 0.0105),  # without labels
        ("own_score", 0.4, 1e-6, 1e-5),  # of somebody's own protocol: the last digit alone
    ],
)
def test_scores_without_samples_have_limits_of_their_own(
    name: str, value: float, near: float, far: float
) -> None:
    old = result(RIGHT, **{name: value})
    for by in (near, -near):
        assert word(old, result(RIGHT, **{name: value + by})) == "within tolerance"
    assert word(old, result(RIGHT, **{name: value + far})) == "differs"
    assert word(old, result(RIGHT, **{name: value + near}), EXACT) == "differs"


def test_the_ends_of_an_interval_may_move_twice_as_far() -> None:
    old = result(RIGHT, ece=0.07)
    assert word(old, edited(old, "ece", ci_high=0.12 + 0.019)) == "within tolerance"
    assert word(old, edited(old, "ece", ci_high=0.12 + 0.021)) == "differs"


def test_another_choice_is_named() -> None:
    old = result(RIGHT).model_copy(update={"details": {"c": 10.0, "iterations": 88}})
    new = old.model_copy(update={"details": {"c": 17.8, "iterations": 70}})
    assert choices(old, old) == choices(result(RIGHT), new) == ()
    assert choices(old, new) == ("c 17.8 here, 10.0 recorded",)


# ---- what no tolerance covers


def test_other_shapes_are_no_noise() -> None:
    old = result(RIGHT)
    assert word(old, result(RIGHT[:-1])) == "differs"
    assert word(old, result(RIGHT, extra=0.5)) == "differs"
    assert word(result(RIGHT, extra=0.5), old) == "differs"
    assert word(old, old.model_copy(update={"samples": {}})) == "differs"
    assert word(old.model_copy(update={"samples": {}}), old) == "differs"
    assert word(old, result(RIGHT, nll=2.0)) == "equal"  # earlier results have none


def test_resamples_are_no_answers() -> None:
    def ap(by: float) -> Result:
        values = np.random.RandomState(3).rand(1000) + by
        sample = Samples.of_resamples(values, 40)
        return make_result(protocol="detection", scores=[], samples={"ap": sample.model_dump()})

    assert word(ap(0), ap(0)) == "equal"
    assert word(ap(0), ap(1e-4)) == "differs"


def test_what_is_within_is_told_from_what_is_beyond() -> None:
    old = result(RIGHT, ece=0.07, nll=2.0)
    new = result(flipped(RIGHT, 1, 0), ece=0.071, nll=2.5)
    found = differences(old, new, LOOSE)
    assert [(d.text.partition(":")[0], d.allowed) for d in found] == [
        ("top1", True), ("ece", True), ("nll", False), ("top1", True),
    ]  # fmt: skip


def test_answers_that_were_edited_do_not_pass_as_noise() -> None:
    """Under the largest tolerance, one bit: the scores of the file were computed from others."""
    old = result(RIGHT)
    raw = bytearray(base64.b64decode(str(old.samples["top1"].correct)))
    raw[0] ^= 0x80
    bits = base64.b64encode(bytes(raw)).decode()
    samples = {"top1": old.samples["top1"].model_copy(update={"correct": bits})}
    forged = old.model_copy(update={"samples": samples})
    assert word(forged, old, EXACT) == word(forged, old, LOOSE) == "differs"
    # with the score and its interval made to fit, one answer is what noise changes too
    assert word(result(flipped(RIGHT, 1, 0)), old, LOOSE) == "within tolerance"
    assert word(result(flipped(RIGHT, 1, 0)), old, EXACT) == "differs"
