"""Rows to fit a logistic regression to, and scikit-learn's fit to nine digits."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval.solvers import logistic
from eval.solvers.logistic import LinearModel

Rows = tuple[Tensor, Tensor]


def rows(n: int, d: int, n_classes: int, spread: float = 0.6, seed: int = 0) -> Rows:
    """ReLU-shaped, correlated, standardised features [n, d] of overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1) ** -0.7
    y = torch.arange(n) % n_classes
    centres = torch.randn(n_classes, d, generator=generator) * scale
    latent = spread * centres[y] + torch.randn(n, d, generator=generator) * scale
    x = torch.relu(latent @ torch.randn(d, d, generator=generator) / scale.norm())
    mean, deviation = logistic.standardise(x)
    return (x - mean) / deviation, y


def tight(x: Tensor, y: Tensor, c: float) -> LinearModel:
    """scikit-learn in float64, to nine digits, in softmax form."""
    solver = LogisticRegression(C=c, tol=1e-9, max_iter=20_000)
    solver.fit(x.double().numpy(), y.numpy())
    weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
    if len(weight) == 1:  # sigmoid form
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return LinearModel(weight, bias, c, 0, True)
