"""Intervals, calibration and ranks against scipy, torchmetrics and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torchmetrics.functional.classification import multiclass_calibration_error

from eval.metrics import intervals, ranks


def test_mean_interval_is_196_population_standard_errors() -> None:
    values = np.random.RandomState(0).uniform(size=600)
    found = intervals.mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(600)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half)


def test_bootstrap_is_the_plain_loop_over_resamples() -> None:
    values = np.random.RandomState(2).normal(size=50)
    random = np.random.RandomState(7)
    draws = [values[random.randint(50, size=50)].mean() for _ in range(intervals.DRAWS)]
    found = intervals.bootstrap(lambda w: w @ values / w.sum(1), 50, seed=7)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_bootstrap_does_not_depend_on_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 MiB of weights instead of 32 would be eight times as many chunks; n does the same.
    values = np.random.RandomState(3).uniform(size=9000)
    whole = intervals.bootstrap(lambda w: w @ values / w.sum(1), 9000, seed=1)
    seen = []

    def statistic(weights: np.ndarray) -> np.ndarray:
        seen.append(len(weights))
        return weights @ values / weights.sum(1)

    again = intervals.bootstrap(statistic, 9000, seed=1)
    assert again == whole
    assert max(seen) * 9000 * 8 <= 32 << 20
    assert sum(seen) == intervals.DRAWS + 1


def test_mean_per_class_weighs_classes_equally() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    correct = np.array([True] * 90 + [False] * 10)
    found = intervals.mean_per_class(correct, labels)
    assert found.value == pytest.approx(0.5)
    assert 0.3 < found.low < 0.5 < found.high < 0.7  # ten wrong answers prove no class hopeless


@pytest.mark.parametrize(
    ("sizes", "truth", "least", "most"),
    [
        ([200, 50, 20], [0.9, 0.6, 0.5], 0.93, 0.975),
        ([25, 15, 10, 5, 3, 2], [0.9, 0.8, 0.95, 0.5, 0.7, 0.6], 0.94, 0.985),  # was 0.923
        ([125, 75, 50, 25, 15, 10], [0.9, 0.8, 0.95, 0.5, 0.7, 0.6], 0.93, 0.97),
        ([100, 5], [0.95, 0.6], 0.96, 1),  # was 0.833
        ([1] * 50, [0.6] * 50, 0.93, 0.985),
        ([4] * 6, [0.5] * 6, 0.92, 0.97),  # 93.7 %: of 24 answers, few sums can come
    ],
)
def test_mean_per_class_covers(
    sizes: list[int], truth: list[float], least: float, most: float
) -> None:
    """95 %, and more where a class has few images; 1,500 trials have a standard error of 0.6 %."""
    random, labels = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    inside, middle = [], float(np.mean(truth))
    for _ in range(1500):
        right = random.random(len(labels)) < np.array(truth)[labels]
        found = intervals.mean_per_class(right, labels)
        inside.append(found.low <= middle <= found.high)
    assert least < np.mean(inside) <= most


def test_mean_per_class_of_one_image_a_class() -> None:
    labels = np.array([0] * 30 + [1])
    correct = np.array([True] * 15 + [False] * 15 + [True])
    found = intervals.mean_per_class(correct, labels)
    assert found.value == pytest.approx(0.75)
    assert 0.1 < found.low < found.high <= 1.0  # of the class of one next to nothing is known


def test_ece_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.randn(500, 6, generator=generator).mul(2).softmax(1)
    labels = torch.randint(0, 6, (500,), generator=generator)
    confidence, answer = probability.double().max(1)
    ours = intervals.expected_calibration_error(
        confidence.numpy(), (answer == labels).numpy(), seed=0
    )
    theirs = multiclass_calibration_error(probability, labels, 6, n_bins=15, norm="l1")
    assert ours.value == pytest.approx(float(theirs), abs=1e-5)
    assert ours.low <= ours.value <= ours.high


@pytest.mark.parametrize("miss", [0.0, 0.1])
def test_ece_covers_the_truth_where_a_model_is_calibrated_too(miss: float) -> None:
    random = np.random.default_rng(0)
    inside = []
    for _ in range(150):
        confidence = random.uniform(0.3, 0.9, 300)
        correct = random.random(300) < confidence - miss
        found = intervals.expected_calibration_error(confidence, correct, seed=0)
        assert found.low <= found.value <= found.high
        inside.append(found.low <= miss <= found.high)
    assert np.mean(inside) > 0.93


def test_nll_interval_agrees_with_scipys_bca() -> None:
    truth = np.random.default_rng(3).beta(2, 1, 150)
    ours = intervals.negative_log_likelihood(truth, seed=0)
    theirs = scipy_stats.bootstrap(
        (-np.log(truth),), np.mean, n_resamples=20_000, method="BCa", rng=0
    ).confidence_interval
    assert ours.value == pytest.approx(-np.log(truth).mean())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * width)
    same = intervals.negative_log_likelihood(np.full(5, 0.5), seed=0)
    assert same.low == same.value == same.high


def test_holm_by_hand() -> None:
    assert ranks.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert ranks.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_none_and_bonferroni(p_values: list[float]) -> None:
    corrected = ranks.holm(p_values)
    for raw, new in zip(p_values, corrected, strict=True):
        assert raw - 1e-12 <= new <= min(1.0, raw * len(p_values)) + 1e-12
        assert new >= raw - 1e-12
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_ranks_agree_with_scipy(values: list[int]) -> None:
    found = ranks.ranks(np.array(values, float))
    assert found == pytest.approx(scipy_stats.rankdata(-np.array(values)))


def test_wilson_against_its_definition() -> None:
    for right, n in ((0, 5), (5, 5), (3, 10), (17, 25), (100, 200)):
        low, high = intervals.wilson(right, n)
        assert 0 <= low <= right / n <= high <= 1
        for p in (low, high):  # the ends solve |share - p| = z sqrt(p (1 - p) / n)
            assert abs(right / n - p) == pytest.approx(
                1.959964 * math.sqrt(p * (1 - p) / n), abs=1e-6
            )
