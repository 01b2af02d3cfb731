"""Ridge regression from second moments: rows are seen once, whatever many penalties are tried.

Moments of two parts add up, and the squared error of a model on rows is read off their moments, so
that a penalty is chosen on a part that is held out without another look at it.

Shapes: n rows, D features, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over rows, in double precision."""

    n: int
    x: Tensor  # [D]
    y: Tensor  # [K]
    xx: Tensor  # [D, D]
    xy: Tensor  # [D, K]
    yy: Tensor  # [K]

    @classmethod
    def none(cls, features: int, targets: int) -> Moments:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        d, k = features, targets
        return cls(0, zeros(d), zeros(k), zeros(d, d), zeros(d, k), zeros(k))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows x [n, D] and y [n, K]. Products are formed in the precision of x; features of about
        zero mean and unit length lose nothing by that."""
        y = y.to(x.dtype)
        self.n += len(x)
        self.x += x.sum(0, dtype=torch.float64).cpu()
        self.y += y.sum(0, dtype=torch.float64).cpu()
        self.xx += (x.t() @ x).double().cpu()
        self.xy += (x.t() @ y).double().cpu()
        self.yy += y.double().square().sum(0).cpu()

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n, self.x + other.x, self.y + other.y, self.xx + other.xx,
            self.xy + other.xy, self.yy + other.yy,
        )  # fmt: skip

    def squares(self) -> Tensor:
        """[K] of the targets about their mean."""
        return self.yy - self.y.square() / self.n


@dataclass(frozen=True)
class Ridge:
    """A linear model of each target."""

    weight: Tensor  # [D, K]
    bias: Tensor  # [K]
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """[n, K] of features [n, D]."""
        return x @ self.weight.to(x.dtype) + self.bias.to(x.dtype)

    def error(self, rows: Moments) -> Tensor:
        """[K] sum of squared errors on the rows of these moments."""
        w, b = self.weight, self.bias
        gap = rows.yy - 2 * (w * rows.xy).sum(0) - 2 * b * rows.y
        return gap + (w * (rows.xx @ w)).sum(0) + 2 * b * (w.t() @ rows.x) + rows.n * b.square()


def solve(rows: Moments, penalties: Sequence[float]) -> list[Ridge]:
    """The minimum of the squared errors + penalty n |w|^2 for each penalty; the bias is free."""
    mean, centre = rows.x / rows.n, rows.y / rows.n
    gram = rows.xx - rows.n * torch.outer(mean, mean)
    cross = rows.xy - rows.n * torch.outer(mean, centre)
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp_min(0)
    turned = vectors.t() @ cross
    found = []
    for penalty in penalties:
        weight = vectors @ (turned / (values + penalty * rows.n)[:, None])
        found.append(Ridge(weight, centre - weight.t() @ mean, penalty))
    return found
