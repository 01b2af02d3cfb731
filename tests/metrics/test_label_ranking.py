"""Average precision and AUROC against scikit-learn, also of images that are really drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from eval.metrics.intervals import DRAWS
from eval.metrics.label_ranking import average_precision, by_label, resampled, roc_area


def data(
    n: int = 40, labels: int = 3, *, ties: bool, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    truth = random.rand(n, labels) < 0.3
    scores = truth + random.normal(0, 1.2, (n, labels))
    return (np.round(scores) if ties else scores), truth


@pytest.mark.parametrize("ties", [False, True])
def test_sklearn_agrees(ties: bool) -> None:
    scores, truth = data(ties=ties)
    once = np.ones((1, 40))
    for of, known in ((average_precision, average_precision_score), (roc_area, roc_auc_score)):
        found = by_label(of, scores, truth, once)[0]
        plain = [known(truth[:, c], scores[:, c]) for c in range(3)]
        assert found == pytest.approx(plain)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("budget", [32 << 20, 1])
def test_resamples_are_those_of_drawn_images(
    ties: bool, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.metrics.label_ranking._BUDGET", budget)
    monkeypatch.setattr("eval.metrics.intervals.DRAWS", 50)
    scores, truth = data(ties=ties)
    found = resampled(scores, truth, seed=7)
    drawn = np.random.RandomState(7).randint(40, size=(50, 40))
    known = {
        "map": (average_precision_score, "macro"),
        "map_micro": (average_precision_score, "micro"),
        "auroc": (roc_auc_score, "macro"),
    }
    assert set(found) == set(known)
    for name, (of, average) in known.items():
        interval, values = found[name]
        assert interval.value == pytest.approx(of(truth, scores, average=average))
        for draw in (0, 11, 49):
            rows = drawn[draw]
            plain = of(truth[rows], scores[rows], average=average)
            assert values[draw] == pytest.approx(plain, abs=1e-6)
        assert [interval.low, interval.high] == np.quantile(values, [0.025, 0.975]).tolist()


@pytest.mark.parametrize("every", [False, True])
def test_a_label_of_all_images_or_none_is_left_out_of_the_mean(every: bool) -> None:
    """An average precision of 1, whatever the model says, would raise the mean."""
    scores, truth = data(ties=False)
    scores, truth = np.c_[scores, scores[:, 0]], np.c_[truth, np.full(40, every)]
    once = np.ones((1, 40))
    for of in (average_precision, roc_area):
        found = by_label(of, scores, truth, once)[0]
        assert np.isnan(found).tolist() == [False, False, False, True]
    whole, three = resampled(scores, truth, 0), resampled(scores[:, :3], truth[:, :3], 0)
    for name in ("map", "auroc"):
        assert whole[name][0] == three[name][0]
        np.testing.assert_array_equal(whole[name][1], three[name][1])
    assert DRAWS == 1000


def test_a_resample_in_which_all_images_have_the_label_has_no_score_of_it() -> None:
    scores, truth = np.array([0.3, 0.2, 0.1]), np.array([True, True, False])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    for of in (average_precision, roc_area):
        found = of(scores, truth, weights)
        assert found[0] == 1
        assert np.isnan(found[1:]).all()
