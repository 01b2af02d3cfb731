"""R2 against scikit-learn, also of images that are really drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from eval.metrics.intervals import DRAWS
from eval.metrics.regression import ImageSums, r2, resampled

GROUPS = {"one": slice(0, 1), "two": slice(1, 3)}


def data(images: int = 12, places: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    truth = random.normal(3, 2, (images, places, 3))
    return truth, truth + random.normal(0, 1, truth.shape) * [0.5, 1, 2]


def test_sklearn_agrees() -> None:
    truth, answer = data()
    sums = ImageSums.of(truth, answer)
    flat = truth.reshape(-1, 3), answer.reshape(-1, 3)
    known = r2_score(*flat, multioutput="raw_values")
    assert r2(sums, np.ones((1, 12)))[0] == pytest.approx(known)
    rows = [0, 0, 3, 7, 7, 7]
    weights = np.bincount(rows, minlength=12)[None].astype(float)
    known = r2_score(
        truth[rows].reshape(-1, 3), answer[rows].reshape(-1, 3), multioutput="raw_values"
    )
    assert r2(sums, weights)[0] == pytest.approx(known)


@pytest.mark.parametrize("together", [1, 3])
def test_resamples_are_those_of_drawn_images(together: int) -> None:
    truth, answer = data()
    units = np.arange(12) // together
    count = 12 // together
    found = resampled(ImageSums.of(truth, answer), GROUPS, units, seed=3)
    assert list(found) == ["r2", "r2_one", "r2_two"]
    drawn = np.random.RandomState(3).randint(count, size=(DRAWS, count))
    for draw in (0, 500):
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn[draw]])
        known = r2_score(
            truth[rows].reshape(-1, 3), answer[rows].reshape(-1, 3), multioutput="raw_values"
        )
        assert found["r2_one"][1][draw] == pytest.approx(known[0], abs=1e-6)
        assert found["r2_two"][1][draw] == pytest.approx(known[1:].mean(), abs=1e-6)
        mean = (known[0] + known[1:].mean()) / 2
        assert found["r2"][1][draw] == pytest.approx(mean, abs=1e-6)
    interval = found["r2"][0]
    assert interval.low < interval.value < interval.high


def test_a_value_that_never_varies_has_no_r2_and_nothing_is_below_minus_one() -> None:
    truth, answer = data()
    truth[..., 0] = 1.0
    sums = ImageSums.of(truth, answer)
    assert np.isnan(r2(sums, np.ones((1, 12)))[0, 0])
    worse = ImageSums.of(truth, 100 * answer)
    assert resampled(worse, {"two": slice(1, 3)}, np.arange(12), 0)["r2_two"][0].value == -1.0
