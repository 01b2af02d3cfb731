"""The search for C against sweeps of the whole grid by scikit-learn, solved to nine digits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.mini import suite
from eval.solvers import c_path, logistic
from tests.solvers.logistic_rows import Rows, rows, tight


def exhaustive(fit: Rows, val: Rows) -> dict[float, float]:
    """Validation top-1 of every C."""
    return {
        c: float((tight(*fit, c).logits(val[0]).argmax(1) == val[1]).double().mean())
        for c in c_path.C_GRID
    }


def test_grid() -> None:
    np.testing.assert_allclose(c_path.C_GRID, np.logspace(-6, 5, 45), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "spread"), [((700, 30, 4), 0.5), ((300, 80, 3), 0.7), ((240, 12, 2), 0.5)]
)
def test_search_finds_the_best_of_the_grid(shape: tuple[int, int, int], spread: float) -> None:
    x, y = rows(*shape, spread=spread, seed=3)
    cut = shape[0] // 2
    fit, val = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    found = c_path.search_c(*fit, *val, shape[2])
    truth = exhaustive(fit, val)
    tried = dict(found.tried)
    # A walk from the smallest C, without a gap, whose end is past the best.
    assert list(tried) == list(c_path.C_GRID[: len(tried)])
    assert found.best_c == max(truth, key=lambda c: (truth[c], -c))
    # What is listed is what an exact fit has, within a borderline row, at large C too.
    assert all(abs(tried[c] - truth[c]) <= 1.01 / len(val[1]) for c in tried)
    assert found.model is not None
    assert found.model.c == found.best_c


def pooled(images: np.ndarray) -> Tensor:
    """Means of 8 x 8 fields of images [N, 64, 64, 3], as features [N, 192]."""
    fields = images.reshape(len(images), 8, 8, 8, 8, 3).mean((2, 4))
    return torch.from_numpy(fields.reshape(len(images), -1)).float()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hue", "shape", "count"])
def test_the_c_of_the_whole_sweep_on_tasks_of_the_mini_suite(name: str) -> None:
    classes = len(suite.FACTOR_TASKS[name].classes)
    images = [suite.draw(name, "train", c, i) for i in range(40) for c in range(classes)]
    x, y = pooled(np.stack(images)), torch.arange(classes).repeat(40)
    cut = 28 * classes
    mean, scale = logistic.standardise(x[:cut])
    x = (x - mean) / scale
    fit, val = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    truth = exhaustive(fit, val)
    assert c_path.search_c(*fit, *val, classes).best_c == max(truth, key=lambda c: (truth[c], -c))


def test_the_walk_ends_where_the_answers_are_significantly_worse() -> None:
    """Most columns are noise: beyond the best C accuracy falls, and the rest is not fitted."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(900) % 3
    x = torch.randn(900, 200, generator=generator)
    x[:, :3] += torch.nn.functional.one_hot(y, 3)
    found = c_path.search_c(x[:300], y[:300], x[300:], y[300:], 3)
    accuracies = [accuracy for _, accuracy in found.tried]
    assert len(accuracies) < 30
    assert max(accuracies) - accuracies[-1] > 0.01
    truth = exhaustive((x[:300], y[:300]), (x[300:], y[300:]))
    assert max(truth.values()) == truth[found.best_c]


def test_a_fit_that_does_not_converge_is_neither_listed_nor_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = rows(300, 80, 3, spread=0.7, seed=3)
    parts = (x[:150], y[:150], x[150:], y[150:], 3)
    everything = c_path.search_c(*parts)
    monkeypatch.setattr(c_path, "_MAX_ITERATIONS", 4)
    few = c_path.search_c(*parts)
    assert 0 < len(few.tried) < len(everything.tried)
    problem = logistic.Problem(x[:150], y[:150], 3)
    for c, accuracy in few.tried:
        model = problem.solve([c], [None], 1e-6, 1.0, 1000)[0]
        exact = float((model.logits(x[150:]).argmax(1) == y[150:]).double().mean())
        assert abs(exact - accuracy) <= 1.01 / 150


def test_search_ties_go_to_the_smaller_c() -> None:
    x, y = rows(120, 10, 3, spread=30.0)  # every C but the smallest is perfect
    found = c_path.search_c(x[:60], y[:60], x[60:], y[60:], 3)
    tried = dict(found.tried)
    best = max(tried.values())
    assert found.best_c == min(c for c, accuracy in tried.items() if accuracy == best)
    before = c_path.C_GRID.index(found.best_c) - 1
    assert before < 0 or tried[c_path.C_GRID[before]] < best


def test_search_on_small_grids() -> None:
    x, y = rows(90, 10, 3)
    parts = (x[:60], y[:60], x[60:], y[60:], 3)
    assert c_path.search_c(*parts, grid=[0.5]).best_c == 0.5
    assert [c for c, _ in c_path.search_c(*parts, grid=(10.0, 0.1, 1.0)).tried] == [0.1, 1.0, 10]
    with pytest.raises(ValueError, match="empty"):
        c_path.search_c(*parts, grid=())
    with pytest.raises(ValueError, match="validation"):
        c_path.search_c(x, y, x[:0], y[:0], 2)


def test_search_looks_only_at_what_it_is_given() -> None:
    """Slices of one store: poisoning the rows outside must not change a bit of the answer."""
    x, y = rows(300, 20, 3)
    clean = c_path.search_c(x[:100], y[:100], x[100:160], y[100:160], 3)
    poisoned, labels = x.clone(), y.clone()
    poisoned[160:], labels[160:] = math.nan, 99
    again = c_path.search_c(poisoned[:100], labels[:100], poisoned[100:160], labels[100:160], 3)
    assert clean == again
    # Nor do validation rows enter a fit: another validation set, the same models.
    other = c_path.search_c(x[:100], y[:100], x[160:], y[160:], 3, grid=[clean.best_c])
    direct = c_path.search_c(x[:100], y[:100], x[100:160], y[100:160], 3, grid=[clean.best_c])
    assert other.model is not None
    assert direct.model is not None
    assert torch.equal(other.model.weight, direct.model.weight)


def test_classes_without_a_row_in_the_fitted_part() -> None:
    x, y = rows(200, 20, 3)
    spaced = torch.tensor([1, 4, 2])[y]
    found = c_path.search_c(x[:100], spaced[:100], x[100:], spaced[100:], 6)
    plain = c_path.search_c(x[:100], y[:100], x[100:], y[100:], 3)
    assert found.best_c == plain.best_c
    assert found.model is not None
    assert torch.isfinite(found.model.logits(x)).all()


def test_many_classes_are_solved_in_turn() -> None:
    x, y = rows(600, 16, 150, spread=2.0)
    found = c_path.search_c(x[:300], y[:300], x[300:], y[300:], 150)
    assert dict(found.tried)[found.best_c] > 0.05
