"""Ties and the statistics under them, against naive loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from scipy.special import ndtr

from eval.metrics.paired import holm, ranks
from eval.metrics.paired import paired as paired_test
from space.tables.ties import SIGNIFICANT, Paired, groups, paired
from tests.space.tables.naive_ties import Hits, naive_groups, naive_holm, naive_p, naive_ranks

# --------------------------------------------------------------------------- eval.metrics.intervals


P = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0]))


@given(st.lists(P, max_size=30))
def test_holm_is_the_naive_loop(p_values: list[float]) -> None:
    found = holm(p_values)
    assert type(found) is list
    assert all(type(p) is float for p in found)
    assert found == naive_holm(p_values)


@given(st.lists(P, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_knows_no_order(p_values: list[float], random: object) -> None:
    place = list(range(len(p_values)))
    random.shuffle(place)  # type: ignore[attr-defined]
    found, turned = holm(p_values), holm([p_values[i] for i in place])
    assert turned == [found[i] for i in place]
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), max_size=30))
def test_ranks_are_the_naive_loop(values: list[float]) -> None:
    assert ranks(np.array(values)).tolist() == naive_ranks(values)


def test_ranks_of_equals_share_their_places() -> None:
    assert ranks(np.array([0.5, 0.9, 0.5, 0.1])).tolist() == [2.5, 1.0, 2.5, 4.0]


# --------------------------------------------------------------------------- pairs


def draw(seed: int, models: int, lengths: list[int], of: int) -> Hits:
    """Right answers of models of random skill on units of random hardness."""
    random = np.random.RandomState(seed)
    out = []
    for n in lengths:
        hard = random.normal(0, 1, n)
        skill = random.normal(0, 0.5, (models, 1))
        chance = 1 / (1 + np.exp(hard - skill))
        out.append(random.binomial(of, chance).astype(np.uint8))
    return out


def all_p(pairs: Paired) -> NDArray[np.float64]:
    every = np.arange(len(pairs.mean))
    return np.array([pairs.p_value(i, every) for i in every])


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(5, 200), st.sampled_from([1, 75]))
@settings(max_examples=30, deadline=None)
def test_one_task_is_the_paired_t_test(seed: int, models: int, n: int, of: int) -> None:
    (hits,) = samples = draw(seed, models, [n], of)
    found = all_p(paired(samples, [of]))
    for i, j in itertools.permutations(range(models), 2):
        if np.ptp(hits[i].astype(int) - hits[j]) == 0:
            continue
        t = scipy_stats.ttest_rel(hits[i] / of, hits[j] / of).statistic
        expected = max(2 * ndtr(-abs(t)), 2.0 ** (1 - n))  # few units prove little
        assert found[i, j] == pytest.approx(expected, rel=1e-3, abs=1e-9)


@given(
    st.integers(0, 10**6), st.integers(2, 4),
    st.lists(st.integers(20, 80), min_size=1, max_size=4), st.sampled_from([1, 15, 75]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_several_tasks_are_the_naive_sum_of_variances(
    seed: int, models: int, lengths: list[int], of: int
) -> None:
    samples, scale = draw(seed, models, lengths, of), [of] * len(lengths)
    pairs = paired(samples, scale)
    assert pairs.mean == pytest.approx(np.mean([h.mean(1) / of for h in samples], axis=0))
    found = all_p(pairs)
    for i, j in itertools.permutations(range(models), 2):
        if any(np.ptp(h[i].astype(int) - h[j]) for h in samples):
            expected = max(naive_p(samples, scale, i, j), 2.0 ** (1 - sum(lengths)))
            assert found[i, j] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_the_error_is_that_of_a_bootstrap() -> None:
    samples, scale = draw(1, 2, [300, 150, 80], 15), [15] * 3
    random = np.random.RandomState(0)
    deltas = [(h[0].astype(float) - h[1]) / 15 for h in samples]
    drawn = [
        np.mean([d[random.randint(len(d), size=len(d))].mean() for d in deltas])
        for _ in range(3000)
    ]
    c = paired(samples, scale).covariance
    assert math.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1]) == pytest.approx(np.std(drawn), rel=0.06)


def test_pairing_matters() -> None:
    """Models whose intervals overlap widely, but of which one is always a little better."""
    random = np.random.RandomState(0)
    low = random.randint(5, 60, 200)
    high = low + random.randint(0, 4, 200)
    pairs = paired([np.array([low, high], np.uint8)], [75])
    half = 1.96 * np.sqrt(pairs.covariance.diagonal())
    assert pairs.mean[0] + half[0] > pairs.mean[1] - half[1]
    assert pairs.p_value(0, np.array([1]))[0] < 1e-6


def test_identical_models_tie_and_better_ones_do_not() -> None:
    samples = draw(3, 1, [100, 60], 1)
    twice = [np.concatenate([h, h, np.zeros_like(h)]) for h in samples]
    pairs = paired(twice, [1, 1])
    assert pairs.p_value(0, np.array([0, 1, 2])) == pytest.approx([1, 1, 0], abs=1e-6)
    assert groups(pairs, np.array([0, 1, 2])) == [1, 1, 2]


def test_the_same_lead_on_every_unit_is_no_tie() -> None:
    pairs = paired([np.array([[3] * 50, [2] * 50], np.uint8)], [75])
    assert groups(pairs, np.array([0, 1])) == [1, 2]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_images_prove_nothing(n: int) -> None:
    samples = np.array([[1] * n, [0] * n], np.uint8)
    exact = paired_test(samples[0].astype(float), samples[1].astype(float), "image").p_value
    assert exact > SIGNIFICANT
    assert groups(paired([samples], [1]), np.array([0, 1])) == [1, 1]


# --------------------------------------------------------------------------- groups


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_groups_are_the_naive_definition(seed: int, models: int, tasks: int) -> None:
    samples, scale = draw(seed, models, [150] * tasks, 15), [15] * tasks
    pairs = paired(samples, scale)
    order = np.argsort(-pairs.mean, kind="stable")
    assert groups(pairs, order) == naive_groups(samples, scale, [int(i) for i in order])


@given(st.integers(0, 10**6), st.permutations(range(6)))
@settings(max_examples=25, deadline=None)
def test_groups_know_no_order_of_models(seed: int, place: list[int]) -> None:
    samples = draw(seed, 6, [150, 90], 15)
    plain = paired(samples, [15, 15])
    if len(set(plain.mean)) < 6:
        return
    turned = paired([h[place] for h in samples], [15, 15])
    assert groups(plain, np.argsort(-plain.mean)) == groups(turned, np.argsort(-turned.mean))


def test_nobody_makes_no_group() -> None:
    assert groups(paired(draw(0, 2, [10], 1), [1]), np.array([], np.int64)) == []
    assert groups(paired(draw(0, 1, [10], 1), [1]), np.array([0])) == [1]


def test_groups_are_numbered_from_best_to_worst() -> None:
    pairs = paired(draw(5, 12, [300] * 3, 15), [15] * 3)
    found = groups(pairs, np.argsort(-pairs.mean))
    assert found[0] == 1
    assert all(b - a in (0, 1) for a, b in itertools.pairwise(found))
    assert found[-1] > 2
