"""The solvers on an accelerator: the answers of the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eval.solvers.c_path import search_c
from eval.solvers.episodes import episode_predictions, fit_logreg
from eval.solvers.heads import Heads, initial
from eval.solvers.knn import nearest, predict, vote
from eval.solvers.logistic import fit, standardise
from tests.device.fake_cuda import Cuda, assert_on_cuda

N, D, C = 48, 10, 4


def clouds() -> tuple[Tensor, Tensor]:
    """Features [N, D] of C overlapping clouds, and their labels [N]."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % C
    centres = torch.randn(C, D, generator=draws)
    return centres[labels] + torch.randn(N, D, generator=draws), labels


X, Y = clouds()


def neighbours(device: str) -> dict[str, Tensor]:
    x, y = X.to(device), Y.to(device)
    similarity, index = nearest(x[12:], x[:12], k=7)
    found = {"similarity": similarity, "index": index}
    for temperature in (None, 0.07):
        scores = vote(similarity, y[12:][index], (1, 7), C, temperature)
        found |= {f"scores {temperature}": scores, f"answers {temperature}": predict(scores)}
    return found


def tied_neighbours(device: str) -> dict[str, Tensor]:
    """Equal similarities, which a sort settles."""
    similarity, index = nearest(torch.ones(9, 3).to(device), torch.ones(2, 3).to(device), k=4)
    return {"similarity": similarity, "index": index}


def episodes(device: str) -> dict[str, Tensor]:
    """More support than features at 4 shots, fewer at 1: both forms of the solver."""
    order = torch.arange(N).view(-1, C).t().expand(3, C, N // C)
    found = episode_predictions(
        X.to(device), order[..., :4].to(device), order[..., 4:].to(device), shots=(1, 4)
    )
    return {f"{shots} {classifier}": answers for (shots, classifier), answers in found.items()}


def logistic_episodes(device: str) -> dict[str, Tensor]:
    weight, bias = fit_logreg(X.view(2, -1, D).to(device), Y.view(2, -1).to(device), C)
    return {"weight": weight, "bias": bias}


def logistic(device: str) -> dict[str, Tensor]:
    x, y = X.to(device), Y.to(device)
    mean, scale = standardise(x)
    x = (x - mean) / scale
    search = search_c(x[12:], y[12:], x[:12], y[:12], C, grid=(0.01, 0.1, 1.0))
    model = fit(x, y, C, search.best_c, init=search.model, tol=1e-6)
    assert search.best_c in (0.01, 0.1, 1.0)
    return {"weight": model.weight, "bias": model.bias, "logits": model.logits(x)}


def heads(device: str) -> dict[str, Tensor]:
    weight, bias = initial(D, C, torch.Generator().manual_seed(1))
    grid = Heads(weight.to(device), bias.to(device), [16, 5, 16], [0.0, 1e-2, 1e-3])
    x, y, order = X.to(device), Y.to(device), torch.arange(N).flip(0).to(device)
    for lrs in ([0.1, 0.05, 1e30], [0.1, 0.05, 0.1]):
        grid.train_epoch(x, y, order, lrs)
    assert sum(grid.correct(x, y)[:2]) > N  # more than half of the rows right, on average
    best = grid.only(1)
    return {
        "logits": grid.logits(x, 0), "variance": grid.statistics(0)[1],
        "weight": best.parameters(0)[0], "logits of one": best.logits(x, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    "solve",
    [neighbours, tied_neighbours, episodes, logistic_episodes, logistic, heads],
    ids=lambda f: f.__name__,
)
def test_solvers(solve: object, cuda: Cuda) -> None:
    expected = solve("cpu")  # type: ignore[operator]
    with cuda():
        found = solve("cuda")  # type: ignore[operator]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_on_cuda(found[name], value, 1e-3)
