"""Variances of scores and differences: against libraries, and against the truth they speak of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from eval.metrics import estimates, intervals
from eval.metrics.estimates import Estimates, of_answers, of_items, of_resamples
from eval.metrics.jackknife import delete_group_covariance
from tests.metrics.pools import answers


def test_a_difference_is_that_of_the_images_answered_unlike() -> None:
    a = np.array([True] * 60 + [False] * 40)
    b = np.array([True] * 50 + [False] * 10 + [True] * 2 + [False] * 38)
    gap, p = of_answers(np.stack([a, b])).difference()
    assert gap.value == pytest.approx(0.08)
    # McNemar's counts, one more image answered by one alone
    error = np.sqrt((10 + 2 + 1) / 100**2 - 0.08**2 / 100)
    assert p == pytest.approx(2 * stats.t.sf(0.08 / error, 99))
    assert gap.high - gap.value == pytest.approx(stats.t.ppf(0.975, 99) * error)
    exact = stats.binomtest(10, 12).pvalue
    assert exact / 2 < p < 2 * exact


def test_models_that_answer_alike_are_not_held_for_surely_equal() -> None:
    same = answers(0, 1, 100).repeat(2, 0)
    gap, p = of_answers(same).difference()
    assert (gap.value, p) == (0, 1)
    assert gap.low < 0 < gap.high


@pytest.mark.parametrize(("right", "n"), [(0, 40), (40, 40), (1, 90), (45, 90), (700, 1000)])
def test_a_share_has_jeffreys_interval(right: int, n: int) -> None:
    correct = np.arange(n) < right
    found = intervals.accuracy(correct)
    low, high = proportion_confint(right, n, method="jeffreys")
    assert found.low == pytest.approx(0 if right <= 1 else low)
    assert found.high == pytest.approx(1 if right == n else high)
    of_one = of_answers(correct[None]).share(0, n)
    assert of_one.value == found.value
    assert (of_one.low, of_one.high) == pytest.approx((found.low, found.high), abs=0.006)


def test_the_training_sample_widens_what_is_said() -> None:
    correct = answers(1, 2, 500)
    without = correct.mean(1)[:, None] + np.random.default_rng(0).normal(0, 0.004, (2, 10))
    alone, both = of_answers(correct), of_answers(correct, without)
    spread = delete_group_covariance(without) / estimates.FLIPS
    assert both.variance - alone.variance == pytest.approx(np.diag(spread))
    between = spread.trace() - 2 * spread[0, 1]
    assert both.pair_variance[0, 1] - alone.pair_variance[0, 1] == pytest.approx(between)
    assert (alone.kind, both.kind) == ("test", "sample")


def test_items_of_any_kind_are_a_paired_t_test() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 12))
    gap, p = of_items(scores).difference()
    theirs = stats.ttest_rel(*scores)
    assert p == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval()
    assert (gap.low, gap.high) == pytest.approx((low, high))


def test_resamples_are_the_spread_of_the_score_itself() -> None:
    random = np.random.default_rng(0)
    spread = random.normal(size=(2, 4000)) * [[0.02], [0.03]]
    resamples = np.array([[0.5], [0.6]]) + spread
    resamples[0, 3] = np.nan  # leaves one model without a value: counts for neither
    found = of_resamples(np.array([0.5, 0.6]), resamples)
    assert found.variance == pytest.approx([0.02**2, 0.03**2], rel=0.1)
    assert found.pair_variance[0, 1] == pytest.approx(0.02**2 + 0.03**2, rel=0.1)
    with pytest.raises(ValueError, match="fewer than two"):
        of_resamples(np.array([0.5]), np.full((1, 5), np.nan))


def test_the_mean_over_data_sets_adds_what_is_independent() -> None:
    parts = [of_answers(answers(seed, 3, n)) for seed, n in ((0, 100), (1, 400))]
    found = estimates.mean(parts)
    assert found.values == pytest.approx((parts[0].values + parts[1].values) / 2)
    assert found.variance == pytest.approx((parts[0].variance + parts[1].variance) / 4)
    assert found.pair_variance == pytest.approx(
        (parts[0].pair_variance + parts[1].pair_variance) / 4
    )
    both = of_answers(answers(0, 3, 100), np.zeros((3, 10)) + np.arange(10))
    assert estimates.mean([parts[0], both]).kind == "test"  # says no more than its weakest part


def test_normal_scores_have_the_p_of_students_t() -> None:
    for free in (2.0, 5.0, 30.0, 1e5):
        for t in (0.5, 2.0, 4.0):
            variance = np.array([[0.0, 1.0], [1.0, 0.0]])
            noise = np.where(variance > 0, 2 / free, 0)
            both = np.zeros(2)
            found = Estimates(np.array([t, 0.0]), both, both, variance, noise, "items")
            normal = found.scores_of_normal()[0, 1]
            assert stats.norm.sf(normal) == pytest.approx(stats.t.sf(t, free), rel=0.1)
            assert found.difference()[1] == pytest.approx(2 * stats.t.sf(t, free))


def test_some_of_the_models() -> None:
    found = of_answers(answers(0, 4, 60))
    some = found.of(np.array([3, 1]))
    assert some.difference(0, 1) == found.difference(3, 1)


@pytest.mark.parametrize("p", [0.5, 0.9])
@pytest.mark.parametrize("n", [30, 300])
def test_equal_models_are_seldom_told_apart(p: float, n: int) -> None:
    told = [of_answers(answers(seed, 2, n, p)).difference()[1] < 0.05 for seed in range(600)]
    assert np.mean(told) < 0.075  # 5 %, and 99.5 % of samples of 600


@pytest.mark.parametrize(
    ("p", "n"), [(0.98, 50), (0.5, 30), (0.9, 300), (0.999, 1000), (0.999, 100)]
)
def test_jeffreys_covers(p: float, n: int) -> None:
    # exact: every count that can come, by its probability
    counts = np.arange(n + 1)
    ends = [intervals.jeffreys(k / n, n) for k in counts]
    inside = np.array([low <= p <= high for low, high in ends])
    assert stats.binom.pmf(counts, n, p) @ inside > 0.92


def test_runs_have_students_interval_and_the_images_part() -> None:
    values = np.array([0.61, 0.64, 0.60])
    found = intervals.runs_interval(values)
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))
    wider = intervals.runs_interval(values, 0.02**2, 999)
    own = values.var(ddof=1) / 3
    free = (own + 0.02**2) ** 2 / (own**2 / 2 + 0.02**4 / 999)
    assert wider.high - wider.value == pytest.approx(
        stats.t.ppf(0.975, free) * (own + 0.02**2) ** 0.5
    )
    same = intervals.runs_interval(np.array([0.5, 0.5]))
    assert (same.low, same.high) == (0.5, 0.5)
