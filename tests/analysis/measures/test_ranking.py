"""Agreement of predicted and measured ranks against scipy, enumeration and plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.analysis.measures.ranking import agreement, weighted_tau
from eval.common.errors import UserError

MEASURED = np.array([70.0, 75.0, 80.0, 85.0, 90.0])


def pairwise_tau(x: list[float], y: list[float]) -> float:
    """Weighted tau of distinct values as a loop over pairs, both rankings averaged (Vigna 2015)."""

    def one(by: list[float], other: list[float]) -> float:
        order = sorted(range(len(by)), key=lambda i: (by[i], other[i]), reverse=True)
        weight = {i: 1 / (rank + 1) for rank, i in enumerate(order)}
        total = agreed = 0.0
        for i, j in itertools.combinations(range(len(x)), 2):
            total += weight[i] + weight[j]
            agreed += np.sign((x[i] - x[j]) * (y[i] - y[j])) * (weight[i] + weight[j])
        return agreed / total

    return (one(x, y) + one(y, x)) / 2


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 9), st.integers(0, 10_000))
def test_tau_is_the_sum_over_pairs(n: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    x, y = random.permutation(n).astype(float), random.permutation(n).astype(float)
    assert weighted_tau(x, y) == pytest.approx(pairwise_tau(x.tolist(), y.tolist()))
    assert weighted_tau(x, x) == pytest.approx(1)
    assert weighted_tau(x, -x) == pytest.approx(-1)


def test_constant_scores_order_nothing() -> None:
    assert weighted_tau(np.ones(5), MEASURED) == 0
    assert weighted_tau(MEASURED, np.ones(5)) == 0


def test_models_without_both_scores_are_left_out() -> None:
    predicted = np.array([1.0, np.nan, 3.0, 2.0, 5.0])
    measured = np.array([70.0, 75.0, np.nan, 85.0, 90.0])
    kept = [0, 3, 4]
    assert weighted_tau(predicted, measured) == weighted_tau(predicted[kept], measured[kept])
    assert agreement(predicted, measured).models == (3,)
    predicted[0] = np.nan
    with pytest.raises(UserError, match=r"3 or more models .* found 2"):
        weighted_tau(predicted, measured)
    two = np.stack([MEASURED, predicted], 1)
    with pytest.raises(UserError, match="found 2 on task 2 of 2"):
        agreement(two, np.stack([MEASURED, measured], 1))


def test_several_tasks_have_mean_and_interval_of_their_taus() -> None:
    random = np.random.RandomState(0)
    measured = random.uniform(50, 90, size=(8, 12))
    predicted = measured + 10 * random.randn(8, 12)
    predicted[2, 4] = np.nan
    found = agreement(predicted, measured, seed=3)
    taus = np.array([weighted_tau(predicted[:, t], measured[:, t]) for t in range(12)])
    assert found.tau == pytest.approx(taus.mean())
    interval = stats.ttest_1samp(taus, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value is None
    assert found.models == (8, 8, 8, 8, 7, 8, 8, 8, 8, 8, 8, 8)
    regrets, hits = [], []
    for t in range(12):
        known = np.isfinite(predicted[:, t])
        p, m = predicted[known, t], measured[known, t]
        regrets.append(m.max() - m[p.argmax()])
        hits.append((p.argmax() == m.argmax(), m.argmax() in np.argsort(-p)[:3]))
    assert found.regret == pytest.approx(np.mean(regrets))
    assert (found.hit1, found.hit3) == pytest.approx(tuple(np.mean(hits, 0)))


def test_one_task_has_an_exact_permutation_test() -> None:
    predicted = np.array([1.0, 2.0, 3.0, 5.0, 4.0])
    found = agreement(predicted, MEASURED)
    taus = [
        stats.weightedtau(list(order), MEASURED).statistic
        for order in itertools.permutations(predicted)
    ]
    assert found.p_value == pytest.approx(np.mean(np.array(taus) >= found.tau - 1e-9))
    assert (found.low, found.high) == (None, None)
    assert (found.hit1, found.hit3, found.regret) == (0, 1, 5)
    assert agreement(MEASURED, MEASURED).p_value == pytest.approx(1 / 120)
    assert agreement(MEASURED[:, None], MEASURED[:, None]) == agreement(MEASURED, MEASURED)


def test_many_models_of_one_task_are_permuted_at_random() -> None:
    random = np.random.RandomState(0)
    measured = random.randn(12)
    assert agreement(measured, measured).p_value == pytest.approx(1 / 1001)
    assert agreement(-measured, measured).p_value == 1
    first = agreement(random.randn(12), measured, seed=1)
    assert first.p_value is not None
    assert 0.01 < first.p_value < 1


def test_ties_count_as_a_random_choice_among_them() -> None:
    found = agreement(np.array([0.0, 1.0, 1.0, 1.0, 1.0]), MEASURED)
    assert found.hit1 == pytest.approx(1 / 4)
    assert found.hit3 == pytest.approx(3 / 4)
    assert found.regret == pytest.approx(7.5)
    both_best = agreement(np.arange(4.0), np.array([1.0, 9.0, 2.0, 9.0]))
    assert (both_best.hit1, both_best.regret) == (1, 0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[M\] or \[M, T\]"):
        agreement(np.ones((5, 2)), np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"need two arrays \[M\]"):
        weighted_tau(np.ones(5), np.ones(4))
