"""Ridge from moments against scikit-learn's, and errors against those of the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Known

from eval.solvers.ridge import Moments, solve


def rows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) + 2
    w = torch.randn(6, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return x, x @ w + torch.randn(n, 3, generator=generator, dtype=torch.float64) + 5


def moments(x: torch.Tensor, y: torch.Tensor, pieces: int = 1) -> Moments:
    found = Moments.none(6, 3)
    for some in torch.arange(len(x)).chunk(pieces):
        found.add(x[some], y[some])
    return found


@pytest.mark.parametrize("penalty", [1e-6, 0.01, 1.0])
def test_sklearn_agrees(penalty: float) -> None:
    x, y = rows(50)
    [model] = solve(moments(x, y, 4), [penalty])
    known = Known(alpha=penalty * 50).fit(x.numpy(), y.numpy())
    assert model.weight.numpy() == pytest.approx(known.coef_.T)
    assert model.bias.numpy() == pytest.approx(known.intercept_)
    other, truth = rows(30, seed=1)
    assert model(other).numpy() == pytest.approx(known.predict(other.numpy()))
    error = (model(other) - truth).square().sum(0)
    assert model.error(moments(other, truth)).numpy() == pytest.approx(error.numpy())


def test_parts_add_up() -> None:
    x, y = rows(40)
    both = moments(x[:15], y[:15]) + moments(x[15:], y[15:])
    for one, other in zip(solve(both, [0.1]), solve(moments(x, y), [0.1]), strict=True):
        assert one.weight.numpy() == pytest.approx(other.weight.numpy())
    spread = y.var(0, correction=0) * 40
    assert both.squares().numpy() == pytest.approx(spread.numpy())


def test_features_that_repeat_each_other_are_solved() -> None:
    x, y = rows(40)
    x = x[:, [0, 0, 1, 1, 2, 2]]
    [model] = solve(moments(x, y), [1e-3])
    assert torch.isfinite(model.weight).all()
    assert model.weight[0].numpy() == pytest.approx(model.weight[1].numpy(), abs=1e-6)
    assert np.isfinite(model.bias.numpy()).all()
