"""Groups and places: against scipy's studentised range, by hand, and on boards of equal models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import tukey_hsd

from eval.metrics.estimates import Estimates, mean, of_answers, of_items
from eval.metrics.ties import pair_p, range_p, range_quantile, ties
from tests.metrics.pools import answers


def board(values: list[float], error: float) -> Estimates:
    """Models of these values, whose differences all have one standard error."""
    count = len(values)
    pair = np.full((count, count), error**2) * (1 - np.eye(count))
    none = np.zeros((count, count))
    return Estimates(np.array(values), none[0], none[0], pair, none, "sample")


@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_the_range_is_scipys(count: int) -> None:
    for level in (0.01, 0.05, 0.2):
        width = range_quantile(count, level)
        assert width == pytest.approx(stats.studentized_range.ppf(1 - level, count, 1e7), rel=1e-5)
        assert range_p(width, count) == pytest.approx(level)
    assert range_quantile(2) == pytest.approx(1.959964 * 2**0.5)
    assert range_quantile(1) == 0


def test_independent_samples_of_one_size_are_tukeys_test() -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(shift, 1, 200) for shift in (0, 0.1, 0.3, 0.5)]
    theirs = tukey_hsd(*samples)
    pooled = np.mean([x.var(ddof=1) for x in samples])
    values = [float(x.mean()) for x in samples]
    found = board(values, float(np.sqrt(2 * pooled / 200)))
    for i in range(4):
        for j in range(i):
            assert pair_p(found, i, j) == pytest.approx(theirs.pvalue[i, j], abs=0.003)


def test_groups_and_places_by_hand() -> None:
    # ten points are told apart, eight are not
    found = ties(board([0.70, 0.90, 0.85, 0.62, 0.80], 0.034))
    assert found.group.tolist() == [3, 1, 1, 3, 2]
    assert [found.places(i) for i in range(5)] == ["4-5", "1-2", "1-3", "4-5", "2-3"]
    apart = ties(board([0.1, 0.5, 0.9], 0.01))
    assert apart.group.tolist() == [3, 2, 1]
    assert [apart.places(i) for i in range(3)] == ["3", "2", "1"]


def test_one_model_and_two_that_are_the_same() -> None:
    assert ties(board([0.5], 0.1)).group.tolist() == [1]
    same = of_answers(answers(0, 1, 50).repeat(2, 0))
    assert ties(same).group.tolist() == [1, 1]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.floats(1e-3, 0.5),
    st.randoms(use_true_random=False),
)
def test_places_hold_the_order_and_do_not_depend_on_it(
    values: list[float], error: float, random: object
) -> None:
    found = ties(board(values, error))
    for i in range(len(values)):
        behind = sum(v > values[i] for v in values)
        equal = sum(v == values[i] for v in values)
        assert 1 <= found.first[i] <= behind + 1
        assert behind + equal <= found.last[i] <= len(values)
    order = np.argsort(values, kind="stable")[::-1]
    turned = ties(board([values[i] for i in order], error))
    assert turned.first.tolist() == found.first[order].tolist()
    assert (np.diff(turned.group) >= 0).all()


@pytest.mark.parametrize(("models", "boards"), [(2, 300), (10, 300), (50, 150)])
@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_boards_of_equal_models_seldom_show_more_than_one_group(
    models: int, boards: int, shared: float
) -> None:
    more = 0
    for seed in range(boards):
        sets = [answers(100 * seed + t, models, 300, 0.7, shared) for t in range(3)]
        more += ties(mean([of_answers(x) for x in sets])).group.max() > 1
    assert more / boards < 0.1  # 5 %, and 99.9 % of samples of 150 or 300


def test_few_seeds_are_few() -> None:
    random = np.random.default_rng(0)
    more = sum(ties(of_items(random.normal(size=(5, 3)))).group.max() > 1 for _ in range(400))
    assert more / 400 < 0.09
