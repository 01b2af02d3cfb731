"""Contrasts over trainings and data sets: against formulas, and against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from eval.metrics.contrasts import Repeated, combined
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


def test_as_many_trainings_as_are_said_to_be_needed_find_it() -> None:
    random = np.random.default_rng(0)
    world = Trainings(better=0.3, seeds=0.1, sets=4, images=200)
    needed = [combined(world.drawn(random), PAIR).trainings_needed() or 99 for _ in range(50)]
    enough = Trainings(better=0.3, seeds=0.1, sets=4, images=200, trainings=int(np.median(needed)))
    found = [combined(enough.drawn(random), PAIR).p() < 0.05 for _ in range(100)]
    assert enough.trainings < 20
    assert 0.6 <= np.mean(found) <= 1
