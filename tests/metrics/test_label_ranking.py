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


def test_a_label_without_a_score_is_left_out_of_the_mean() -> None:
    scores, truth = data(ties=False)
    scores, truth = np.c_[scores, scores[:, 0]], np.c_[truth, np.zeros(40, bool)]
    once = np.ones((1, 40))
    assert np.isnan(by_label(average_precision, scores, truth, once)[0, 3])
    assert np.isnan(by_label(roc_area, scores, np.ones_like(truth), once)).all()
    three = resampled(scores[:, :3], truth[:, :3], 0)["map"][0].value
    assert resampled(scores, truth, 0)["map"][0].value == pytest.approx(three)
    assert DRAWS == 1000
