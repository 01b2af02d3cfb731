"""Contrasts over trainings and data sets: against formulas, and against the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from eval.metrics.contrasts import Repeated, Spread, combined, pooled_spread
from eval.metrics.estimates import Estimates, mean
from tests.metrics.trainings import Trainings

PAIR = np.array([1.0, -1.0])


def gaussian(covariance: np.ndarray, values: np.ndarray) -> Estimates:
    """Scores whose covariance over images is known for sure."""
    own = covariance.diagonal()
    none = np.zeros_like(covariance)
    pairs = own[:, None] + own[None, :] - 2 * covariance
    return Estimates(values, own, none.diagonal(), pairs, none, "test")


@pytest.mark.parametrize("factors", [[1, -1], [1, 0], [1, -0.5], [0.5, 0.5]])
def test_the_variance_is_that_of_the_weighted_sum(factors: list[float]) -> None:
    random = np.random.default_rng(0)
    sets, spread = [], 0.0
    weights = np.tile(np.array(factors) / 3, 3)
    for _ in range(4):
        root = random.normal(size=(6, 8))
        sets.append(gaussian(root @ root.T, random.normal(size=6)))
        spread += weights @ root @ root.T @ weights / 16
    found = combined(sets, np.array(factors))
    assert found.images == pytest.approx(spread)
    assert found.images_noise == 0
    total = np.mean([s.values for s in sets], axis=0).reshape(3, 2) @ factors
    assert found.by_training == pytest.approx(total)


def test_two_models_trained_once_differ_as_a_pair_of_models_does() -> None:
    """The same as `Estimates.difference`, which has tests of its own."""
    sets = Trainings(trainings=1).drawn(np.random.default_rng(1))
    found = combined(sets, PAIR)
    gap, _ = mean(sets).difference()
    ours = found.over_images()
    assert (ours.value, ours.low, ours.high) == pytest.approx((gap.value, gap.low, gap.high))
    assert (found.over_trainings(), found.over_both(), found.p()) == (None, None, 1.0)
    assert found.trainings_needed() is None


def test_seeds_alone_are_a_paired_t_test() -> None:
    values = (0.01, 0.03, 0.025)
    found = Repeated(values, 0.0, 0.0)
    expected = stats.ttest_1samp(values, 0)
    interval = found.over_both()
    assert interval == found.over_trainings()
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p() == pytest.approx(expected.pvalue)


def test_the_pooled_spread_is_the_residual_of_a_two_way_analysis() -> None:
    """Where nothing is missing: what is left beside the means of ways and of seeds."""
    scores = np.random.default_rng(0).normal(size=(4, 3))
    left = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    found = pooled_spread(scores)
    assert found is not None
    assert (found.variance, found.free) == (pytest.approx(np.sum(left**2) / 6), 6)


def test_the_pooled_spread_of_two_ways_is_that_of_their_difference() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 5))
    found = pooled_spread(scores)
    assert found is not None
    assert found.times(2).variance == pytest.approx(np.var(scores[0] - scores[1], ddof=1))
    assert found.free == 4


def test_the_pooled_spread_where_trainings_are_missing() -> None:
    """A way with one training tells nothing; what has no second way or seed is not there."""
    whole = np.random.default_rng(0).normal(size=(3, 3))
    more = np.full((4, 4), np.nan)
    more[:3, :3] = whole
    more[3, 0] = more[0, 3] = 5.0
    known, found = pooled_spread(whole), pooled_spread(more)
    assert known is not None
    assert found is not None
    assert (found.variance, found.free) == (pytest.approx(known.variance), known.free)
    for nothing in (np.full((3, 3), np.nan), whole[:, :1], whole[:1], np.zeros((0, 3))):
        assert pooled_spread(nothing) is None


@pytest.mark.parametrize("missing", [(), ((0, 2), (3, 1))])
def test_the_pooled_spread_is_right_on_average(missing: tuple[tuple[int, int], ...]) -> None:
    random = np.random.default_rng(1)
    found = []
    for _ in range(3000):
        scores = random.normal(size=(4, 1)) + random.normal(size=3) + random.normal(0, 2, (4, 3))
        for at in missing:
            scores[at] = np.nan
        one = pooled_spread(scores)
        assert one is not None
        assert one.free == 6 - len(missing)
        found.append(one.variance)
    assert np.mean(found) == pytest.approx(4, rel=0.05)


def test_a_pooled_spread_stands_in_for_the_trainings_own() -> None:
    sets = Trainings().drawn(np.random.default_rng(0))
    plain, pooled = combined(sets, PAIR), combined(sets, PAIR, Spread(1e-4, 6))
    assert pooled.spread == Spread(2e-4, 6)
    assert pooled.alone == plain
    interval = pooled.over_trainings()
    assert interval is not None
    half = stats.t.isf(0.025, 6) * (2e-4 / 3) ** 0.5
    assert interval.high - interval.value == pytest.approx(half)
    assert pooled.over_images() == plain.over_images()
    # of a way alone it says nothing: what a seed does to all ways alike is not in it
    assert combined(sets, np.array([1.0, 0.0]), Spread(1e-4, 6)).pooled is None
    # nor of one training, which nothing repeats
    once = combined(Trainings(trainings=1).drawn(np.random.default_rng(0)), PAIR, Spread(1e-4, 6))
    assert (once.spread, once.over_both(), once.p()) == (None, None, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_p_is_the_level_whose_interval_ends_at_0(seed: int) -> None:
    found = combined(Trainings(better=0.1).drawn(np.random.default_rng(seed)), PAIR)
    interval = found.over_both(found.p())
    assert interval is not None
    assert min(abs(interval.low), abs(interval.high)) == pytest.approx(0, abs=1e-9)
    usual = found.over_both()
    assert usual is not None
    assert (found.p() < 0.05) == (usual.low > 0 or usual.high < 0)


def test_no_difference_and_no_chance() -> None:
    assert Repeated((0.0, 0.0), 0.0, 0.0).p() == 1
    assert Repeated((0.1, 0.1), 0.0, 0.0).p() < 1e-12
    assert Repeated((0.1, 0.1), 0.0, 0.0).trainings_needed() == 2
    assert Repeated((0.0, 0.0), 1e-4, 0.0).trainings_needed() is None


def test_what_combines_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 data sets"):
        combined([], PAIR)
    with pytest.raises(ValueError, match="combine to nothing"):
        combined(Trainings().drawn(np.random.default_rng(0)), np.zeros(2))


@pytest.mark.parametrize("trainings", [2, 3])
@pytest.mark.parametrize("seeds", [0.0, 0.15])
def test_equal_ways_are_seldom_told_apart(trainings: int, seeds: float) -> None:
    """The bench has the whole table: `bench_certainty --part trainings`."""
    world = Trainings(trainings=trainings, seeds=seeds, sets=4, images=100)
    random = np.random.default_rng(0)
    found = [combined(world.drawn(random), PAIR) for _ in range(200)]
    assert np.mean([one.p() < 0.05 for one in found]) <= 0.08
    if seeds:  # the images of these trainings alone would tell them apart
        alone = [one.over_images() for one in found]
        assert np.mean([not i.low <= 0 <= i.high for i in alone]) > 0.3


def test_what_an_image_does_to_one_training_averages_out() -> None:
    """The images' variance of as many trainings, foretold from a few: its common part stays."""
    random = np.random.default_rng(0)
    world = Trainings(seeds=0.1, trainings=2, sets=4, images=400)
    few = [combined(world.drawn(random), PAIR) for _ in range(200)]
    many = [combined(replace(world, trainings=8).drawn(random), PAIR) for _ in range(50)]
    once = np.mean([one.images_once or 0.0 for one in few])
    common = 2 * np.mean([one.images for one in few]) - once
    assert common + (once - common) / 8 == pytest.approx(
        np.mean([one.images for one in many]), rel=0.15
    )


def test_as_many_trainings_as_are_said_to_be_needed_find_it() -> None:
    random = np.random.default_rng(0)
    world = Trainings(better=0.3, seeds=0.1, sets=4, images=200)
    needed = [combined(world.drawn(random), PAIR).trainings_needed() or 99 for _ in range(50)]
    enough = Trainings(better=0.3, seeds=0.1, sets=4, images=200, trainings=int(np.median(needed)))
    found = [combined(enough.drawn(random), PAIR).p() < 0.05 for _ in range(100)]
    assert enough.trainings < 20
    assert 0.6 <= np.mean(found) <= 1
