"""The delete-a-group jackknife: its formula, and what it says of scores against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eval.metrics.jackknife import delete_group_covariance
from eval.solvers.knn import nearest, predict, predict_without, vote
from eval.solvers.logistic import fit, fit_without

GROUPS, CLASSES = 10, 3


def test_of_a_mean_it_is_the_variance_between_groups() -> None:
    """The mean of equal groups has leave-one-out values whose jackknife is s^2 / G, exactly."""
    groups = np.random.RandomState(0).standard_normal((4, GROUPS))
    without = (groups.sum(1, keepdims=True) - groups) / (GROUPS - 1)
    np.testing.assert_allclose(
        delete_group_covariance(without), np.cov(groups) / GROUPS, rtol=1e-12, atol=1e-16
    )


def test_of_the_difference_of_two_models_it_sees_what_they_share() -> None:
    values = np.random.RandomState(1).standard_normal(GROUPS)
    both = delete_group_covariance(np.stack([values, values + 0.25]))
    assert both[0, 0] + both[1, 1] - 2 * both[0, 1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("values", [np.ones((1, 1)), np.ones((3, 0))])
def test_fewer_than_two_groups_are_refused(values: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        delete_group_covariance(values)


def test_it_is_no_less_than_the_truth_and_not_very_much_more() -> None:
    """Of 60 training samples of Gaussian classes, for both solvers and their difference.

    Top-1 is not smooth in its training sample (see the module), so that 3 to 4 times the variance
    is what is found here.
    """
    generator = torch.Generator().manual_seed(0)
    means = 0.35 * torch.randn(CLASSES, 32, generator=generator)
    y_test = torch.arange(600) % CLASSES
    x_test = means[y_test] + torch.randn(600, 32, generator=generator)
    y, groups = torch.arange(210) % CLASSES, torch.arange(210) // CLASSES % GROUPS
    scores, withouts = [], []
    for _ in range(60):
        x = means[y] + torch.randn(210, 32, generator=generator)
        model = fit(x, y, CLASSES, 0.01)
        similarity, index = nearest(x, x_test, 22)
        near = vote(similarity[:, :10], y[index[:, :10]], [10], CLASSES, None)
        answers = [model.logits(x_test).argmax(1), predict(near)[0]]
        scores.append([_top1(a, y_test) for a in answers])
        left = torch.stack(
            [m.logits(x_test).argmax(1) for m in fit_without(x, y, CLASSES, model, groups, GROUPS)]
        )
        others = predict_without(x, x_test, similarity, index, y, groups, GROUPS, 10, CLASSES, None)
        withouts.append([[_top1(a, y_test) for a in found] for found in (left, others)])
    s, w = np.array(scores), np.array(withouts)  # [60, 2], [60, 2, G]
    truth = np.append(s.var(0, ddof=1), (s[:, 0] - s[:, 1]).var(ddof=1))
    spread = np.mean([delete_group_covariance(one) for one in w], axis=0)  # [2, 2]
    found = np.append(np.diag(spread), spread.trace() - 2 * spread[0, 1])
    assert (found > 0.9 * truth).all()
    assert (found < 5 * truth).all()


def _top1(answers: torch.Tensor, truth: torch.Tensor) -> float:
    return float((answers == truth).double().mean())
