"""Intervals, calibration, paired tests and ranks against scipy, torchmetrics and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torchmetrics.functional.classification import multiclass_calibration_error

from eval.metrics import intervals, paired


def test_mean_interval_is_196_population_standard_errors() -> None:
    values = np.random.RandomState(0).uniform(size=600)
    found = intervals.mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(600)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half)


def test_accuracy_interval_agrees_with_scipy_bootstrap() -> None:
    correct = np.random.RandomState(1).uniform(size=400) < 0.7
    ours = intervals.accuracy(correct, seed=0)
    theirs = scipy_stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=5000, method="percentile", rng=0
    ).confidence_interval
    assert ours.value == pytest.approx(correct.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


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
    found = intervals.mean_per_class(correct, labels, seed=0)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))


def test_mean_per_class_survives_resamples_without_a_class() -> None:
    labels = np.array([0] * 30 + [1])
    correct = np.array([True] * 15 + [False] * 15 + [True])
    found = intervals.mean_per_class(correct, labels, seed=0)
    assert found.value == pytest.approx(0.75)
    assert 0.3 < found.low < found.high <= 1.0


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


def test_paired_images_use_mcnemar() -> None:
    a = np.array([1.0] * 60 + [0.0] * 40)
    b = np.array([1.0] * 50 + [0.0] * 10 + [1.0] * 2 + [0.0] * 38)
    found = paired.paired(a, b, "image")
    assert (found.wins, found.losses) == (10, 2)
    assert found.difference.value == pytest.approx(0.08)
    assert found.p_value == pytest.approx(scipy_stats.binomtest(10, 12).pvalue)


def test_paired_episodes_use_the_paired_t_test() -> None:
    random = np.random.RandomState(0)
    a = random.uniform(size=600)
    b = a - 0.01 + random.normal(0, 0.05, 600)
    found = paired.paired(a, b, "episode")
    assert found.p_value == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert found.difference.low < found.difference.value < found.difference.high


def test_equal_models_are_not_different() -> None:
    a = np.random.RandomState(0).randint(0, 2, 100).astype(float)
    found = paired.paired(a, a, "image")
    assert found.p_value == 1.0
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)


def test_paired_refuses_unpaired() -> None:
    with pytest.raises(ValueError, match="unpaired"):
        paired.paired(np.zeros(3), np.zeros(4), "image")


def test_holm_by_hand() -> None:
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_between_none_and_bonferroni(p_values: list[float]) -> None:
    corrected = paired.holm(p_values)
    for raw, new in zip(p_values, corrected, strict=True):
        assert raw - 1e-12 <= new <= min(1.0, raw * len(p_values)) + 1e-12
        assert new >= raw - 1e-12
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_ranks_agree_with_scipy(values: list[int]) -> None:
    found = paired.ranks(np.array(values, float))
    assert found == pytest.approx(scipy_stats.rankdata(-np.array(values)))


def test_wilson_against_its_definition() -> None:
    for right, n in ((0, 5), (5, 5), (3, 10), (17, 25), (100, 200)):
        low, high = intervals.wilson(right, n)
        assert 0 <= low <= right / n <= high <= 1
        for p in (low, high):  # the ends solve |share - p| = z sqrt(p (1 - p) / n)
            assert abs(right / n - p) == pytest.approx(
                1.959964 * math.sqrt(p * (1 - p) / n), abs=1e-6
            )
