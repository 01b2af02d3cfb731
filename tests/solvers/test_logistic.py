"""Logistic regression against tight float64 solves by scikit-learn and scipy."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval.solvers import logistic
from eval.solvers.logistic import LinearModel
from tests.solvers.logistic_rows import rows, tight


def objective(model: LinearModel, x: Tensor, y: Tensor, c: float) -> float:
    """The softmax objective in float64, of the classes present."""
    present, target = torch.unique(y, return_inverse=True)
    weight, bias = model.weight[present].double(), model.bias[present].double()
    loss = torch.nn.functional.cross_entropy(
        x.double() @ weight.t() + bias, target, reduction="sum"
    )
    twice = 2 if len(present) == 2 else 1
    return float(loss + twice * weight.square().sum() / (2 * c))


def gradient_size(model: LinearModel, x: Tensor, y: Tensor, c: float) -> float:
    """Largest entry of the gradient of the mean objective, by autograd in float64."""
    present = torch.unique(y)
    weight = model.weight[present].double().requires_grad_()
    bias = model.bias[present].double().requires_grad_()
    parts = LinearModel(weight, bias, c, 0, True)
    target = torch.searchsorted(present, y)
    loss = torch.nn.functional.cross_entropy(parts.logits(x), target, reduction="sum")
    twice = 2 if len(present) == 2 else 1
    (loss + twice * weight.square().sum() / (2 * c)).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    return max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) / len(x)


SHAPES = {
    "tall": (600, 30, 5),
    "square": (150, 150, 4),
    "wide": (60, 200, 3),
    "two classes": (300, 40, 2),
    "two classes, wide": (40, 120, 2),
}


@pytest.mark.parametrize("c", [1e-5, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_reaches_the_optimum(shape: tuple[int, int, int], c: float) -> None:
    x, y = rows(*shape)
    model = logistic.fit(x, y, shape[2], c)
    reference = tight(x, y, c)
    best = objective(reference, x, y, c)
    assert model.converged
    assert model.weight.dtype == torch.float32
    assert -1e-6 < objective(model, x, y, c) / best - 1 < 1e-3
    assert gradient_size(model, x, y, c) <= 1.05e-4 * min(1, best / len(x))
    same = model.logits(x).argmax(1) == reference.logits(x).argmax(1)
    assert same.float().mean() >= 0.99


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_float64_reaches_the_same_weights(shape: tuple[int, int, int], c: float) -> None:
    x, y = rows(*shape)
    x = x.double()
    model = logistic.fit(x, y, shape[2], c, tol=1e-9, max_iter=3000)
    reference = tight(x, y, c)
    assert model.converged
    scale = float(reference.weight.abs().max())
    weight = reference.weight - reference.weight.mean(0)
    bias = reference.bias - reference.bias.mean()
    torch.testing.assert_close(model.weight, weight, rtol=0, atol=3e-4 * scale)
    torch.testing.assert_close(model.bias - model.bias.mean(), bias, rtol=0, atol=2e-3)
    # Strong convexity bounds how far scikit-learn's own answer may be better.
    assert objective(model, x, y, c) <= objective(reference, x, y, c) * (1 + 1e-7)


def test_agrees_with_scipy_on_features_far_from_standardised() -> None:
    """No scikit-learn in the loop: the formula itself, with offsets and unequal scales."""
    x, y = rows(200, 6, 3, seed=1)
    x = x.double() * torch.logspace(-1, 1, 6) + torch.linspace(-5, 20, 6)
    c = 0.3

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat.copy()).view(3, 7).requires_grad_()
        loss = torch.nn.functional.cross_entropy(x @ w[:, :6].t() + w[:, 6], y, reduction="sum")
        loss = loss + w[:, :6].square().sum() / (2 * c)
        loss.backward()
        assert w.grad is not None
        return loss.item(), w.grad.view(-1).numpy()

    best = minimize(value, np.zeros(21), jac=True, method="BFGS", options={"gtol": 1e-6})
    model = logistic.fit(x, y, 3, c, tol=1e-8)
    assert model.converged
    assert abs(objective(model, x, y, c) / best.fun - 1) < 1e-8
    in_float32 = logistic.fit(x.float(), y, 3, c)
    assert in_float32.converged
    assert abs(objective(in_float32, x, y, c) / best.fun - 1) < 1e-4


def test_absent_class_is_left_out_and_never_predicted() -> None:
    x, y = rows(200, 20, 3)
    spaced = torch.tensor([1, 4, 2])[y]  # classes 0, 3 and 5 have no row
    model = logistic.fit(x, spaced, 6, 0.1)
    plain = logistic.fit(x, y, 3, 0.1)
    torch.testing.assert_close(model.weight[[1, 4, 2]], plain.weight, rtol=1e-3, atol=1e-5)
    logits = model.logits(1000 * torch.randn(500, 20, generator=torch.Generator().manual_seed(0)))
    assert set(logits.argmax(1).tolist()) <= {1, 2, 4}
    assert torch.isfinite(logits).all()
    # Such a model still starts a fit in which the class is there.
    warm = logistic.fit(x, torch.tensor([1, 4, 0])[y], 6, 0.1, init=model)
    cold = logistic.fit(x, torch.tensor([1, 4, 0])[y], 6, 0.1)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=0, atol=2e-3)


def test_one_class() -> None:
    x, _ = rows(20, 5, 2)
    model = logistic.fit(x, torch.full((20,), 2), 3, 1.0)
    assert model.converged
    assert (model.logits(x).argmax(1) == 2).all()


@pytest.mark.parametrize("shape", [(300, 20, 4), (30, 100, 3)])
def test_duplicates_and_constant_columns(shape: tuple[int, int, int]) -> None:
    x, y = rows(*shape)
    # Every row three times weighs like three times the C.
    model = logistic.fit(x.repeat(3, 1), y.repeat(3), shape[2], 0.1)
    single = logistic.fit(x, y, shape[2], 0.3)
    assert model.converged
    torch.testing.assert_close(model.weight, single.weight, rtol=0, atol=1e-3)
    # A zero column gets no weight, a copied column shares its twin's.
    wide = torch.cat([x, torch.zeros(len(x), 1), x[:, :1]], dim=1)
    model = logistic.fit(wide, y, shape[2], 0.1)
    assert model.converged
    assert model.weight[:, -2].abs().max() == 0
    torch.testing.assert_close(model.weight[:, 0], model.weight[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(200, 20, 4), (40, 300, 3), (50, 10, 2)])
def test_separable_at_huge_c(shape: tuple[int, int, int]) -> None:
    x, y = rows(*shape, spread=8.0)
    for max_iter in (0, 2, 300):
        model = logistic.fit(x, y, shape[2], 1e5, max_iter=max_iter)
        assert model.iterations <= max_iter
        assert torch.isfinite(model.weight).all()
        assert torch.isfinite(model.bias).all()
        value = objective(model, x, y, 1e5)
        # Honest either way: converged exactly when the promised gradient bound holds.
        bound = 1e-4 * min(1, value / len(x))
        assert model.converged == (gradient_size(model, x, y, 1e5) <= 1.05 * bound)
    assert (model.logits(x).argmax(1) == y).all()
    # scikit-learn's default tolerance stops early here; be no worse than that, by far.
    rival = LogisticRegression(C=1e5, max_iter=1000).fit(x.double().numpy(), y.numpy())
    w, b = torch.from_numpy(rival.coef_), torch.from_numpy(rival.intercept_)
    if len(w) == 1:
        w, b = torch.cat([-w, w]) / 2, torch.cat([-b, b]) / 2
    assert value < objective(LinearModel(w, b, 1e5, 0, True), x, y, 1e5)


def test_iterations_never_increase_the_objective() -> None:
    x, y = rows(80, 60, 3)
    values = [
        objective(logistic.fit(x, y, 3, 10.0, max_iter=i, tol=1e-6), x, y, 10.0) for i in range(15)
    ]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(values))
    assert values[0] == pytest.approx(80 * math.log(3), rel=1e-6)


def test_warm_start_gives_the_same_solution() -> None:
    x, y = rows(400, 50, 5)
    cold = logistic.fit(x, y, 5, 1.0, tol=1e-6)
    near = logistic.fit(x, y, 5, 1.0, init=logistic.fit(x, y, 5, 0.6), tol=1e-6)
    again = logistic.fit(x, y, 5, 1.0, init=cold, tol=1e-5)
    shifted = LinearModel(cold.weight + 3, cold.bias - 7, 1.0, 0, True)
    lifted = logistic.fit(x, y, 5, 1.0, init=shifted, tol=1e-5)
    assert near.converged
    assert near.iterations < cold.iterations
    assert again.iterations == lifted.iterations == 0
    torch.testing.assert_close(near.weight, cold.weight, rtol=0, atol=2e-4)
    torch.testing.assert_close(lifted.weight, cold.weight, rtol=0, atol=1e-5)


def test_stacked_fits_equal_single_ones() -> None:
    x, y = rows(300, 40, 4)
    cs = [1e-4, 1e-2, 1.0, 1e3]
    problem = logistic.Problem(x, y, 4)
    for model, c in zip(problem.solve(cs, [None] * 4, 1e-5, 1.0, 500), cs, strict=True):
        alone = logistic.fit(x, y, 4, c, tol=1e-5, max_iter=500)
        assert model.converged
        assert objective(model, x, y, c) == pytest.approx(objective(alone, x, y, c), rel=1e-5)


def test_subsampled_metric_changes_nothing_but_speed() -> None:
    x, y = rows(2000, 8, 3)  # more than 8 D rows
    model = logistic.fit(x, y, 3, 1.0)
    best = objective(tight(x, y, 1.0), x, y, 1.0)
    assert model.converged
    assert model.iterations < 25
    assert objective(model, x, y, 1.0) / best - 1 < 1e-5


def test_same_input_same_bits() -> None:
    x, y = rows(300, 40, 4)
    first, second = logistic.fit(x, y, 4, 0.5), logistic.fit(x, y, 4, 0.5)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_inputs_stay_untouched() -> None:
    x, y = rows(50, 10, 3)
    before = x.clone()
    init = logistic.fit(x, y, 3, 1.0)
    weight = init.weight.clone()
    logistic.fit(x, y, 3, 5.0, init=init)
    assert torch.equal(x, before)
    assert torch.equal(init.weight, weight)


def test_standardise() -> None:
    x = torch.randn(1001, 40, generator=torch.Generator().manual_seed(0)) * 3 + 1
    # Constant and not representable exactly: rounding must not count as variance.
    x[:, 2:] = torch.linspace(0, 1234.567, 38)
    mean, scale = logistic.standardise(x)
    np.testing.assert_allclose(mean.numpy(), x.double().mean(0).numpy(), rtol=1e-5, atol=1e-6)
    assert (((x - mean) / scale)[:, 2:] == 0).all()
    expected = x[:, :2].double().std(0, correction=0)
    torch.testing.assert_close(scale[:2].double(), expected, rtol=1e-5, atol=0)


def test_bad_arguments_say_what_would_work() -> None:
    x, y = rows(20, 5, 2)
    with pytest.raises(ValueError, match=r"outside 0\.\.0"):
        logistic.fit(x, y, 1, 1.0)
    with pytest.raises(ValueError, match="positive"):
        logistic.fit(x, y, 2, 0.0)
    with pytest.raises(ValueError, match="NaN"):
        logistic.fit(x.log(), y, 2, 1.0)
    with pytest.raises(ValueError, match=r"y \[N\]"):
        logistic.fit(x, y[:-1], 2, 1.0)
    with pytest.raises(ValueError, match="init"):
        logistic.fit(x, y, 2, 1.0, init=logistic.fit(x[:, :3], y, 2, 1.0))


@pytest.mark.parametrize("shape", [(300, 20, 4), (60, 200, 3), (200, 30, 2)])
def test_fits_without_a_group_are_fits_of_the_other_rows(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "_REFIT_SLACK", 0.01)
    x, y = rows(*shape)
    x = x.double()
    groups = torch.arange(len(x)) // shape[2] % 5
    model = logistic.fit(x, y, shape[2], 0.1)
    for g, found in enumerate(logistic.fit_without(x, y, shape[2], model, groups, 5)):
        rest = groups != g
        alone = logistic.fit(x[rest], y[rest], shape[2], 0.1, tol=1e-6)
        assert found.converged
        torch.testing.assert_close(found.weight, alone.weight, rtol=0, atol=2e-4)
        bias = alone.bias - alone.bias.mean() + found.bias.mean()
        torch.testing.assert_close(found.bias, bias, rtol=0, atol=1e-3)


def test_fits_without_a_group_at_their_own_tolerance_give_the_same_answers() -> None:
    x, y = rows(400, 40, 4)
    groups = torch.arange(400) // 4 % 10
    model = logistic.fit(x, y, 4, 0.1)
    for g, found in enumerate(logistic.fit_without(x, y, 4, model, groups, 10)):
        alone = tight(x[groups != g], y[groups != g], 0.1)
        same = found.logits(x).argmax(1) == alone.logits(x).argmax(1)
        assert same.float().mean() > 0.99
