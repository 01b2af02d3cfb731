"""The C of a logistic regression, chosen on validation rows from a grid of 45.

Validation accuracy is not smooth in C: near its peak it goes up and down by a row or two, and only
a fit of every C there says which is best. So the search walks up the grid and makes each fit cheap
instead: the solutions lie on a smooth curve in log C, and the curve through the last two or three
points at the next C, which is a few iterations from its optimum. The walk ends where no larger C
can be expected to win any more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eval.solvers.logistic import STACKED_COLUMNS, TOL, LinearModel, Metric, Problem

C_GRID: tuple[float, ...] = tuple(10.0 ** (-6.0 + 11.0 * i / 44) for i in range(45))
"""The 45 log-spaced values 1e-6 .. 1e5 of ssl-transfer and DINOv2."""

# A parabola magnifies the errors of its points sevenfold, a line threefold: from fits that took
# more iterations than this to reach their tolerance, the line is the better start.
_PARABOLA_UP_TO = 12
# McNemar's z between the best C so far and this one. In 20 sweeps of ten data sets a C that went on
# to be the best never came after a z of more than 2.33. Among the smallest C, where all models are
# almost the same, a z as large can stand for a handful of rows: hence the share beside it.
_HOPELESS = 2.5
_HOPELESS_SHARE = 0.01
_MAX_ITERATIONS = 1000
# Where the mean loss is about 1 a fit's tolerance is met by a start that is off by some rows: a
# smaller one costs an iteration there. Where C is large, and iterations are many, it stays.
_SMALL = 0.3
# C values within this many right answers of the best are solved to a smaller tolerance before they
# are compared: at that of a fit a row or two of validation are still undecided.
_CLOSE = 1
_POLISH = 0.3


@dataclass(frozen=True)
class CSearch:
    """The chosen C and every (C, validation top-1) that was solved to the end, ascending in C."""

    best_c: float
    tried: tuple[tuple[float, float], ...]
    model: LinearModel | None = field(default=None, compare=False, repr=False)
    """The fit-part model at `best_c`: a warm start for the refit on fit + validation rows."""
    metric: Metric | None = field(default=None, compare=False, repr=False)
    """The preconditioner of the fit part, which does for that refit as well."""


def search_c(
    x_fit: Tensor,
    y_fit: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    n_classes: int,
    grid: Sequence[float] = C_GRID,
) -> CSearch:
    """The C of `grid` with the best validation top-1; ties go to the smaller C.

    The grid is walked from its smallest C until the answers are all right, or significantly worse
    than those of the best C so far (by 2.5 standard errors of the paired difference, and by 1 %);
    then the C values within a row of the best are solved to 0.3 of a fit's tolerance and compared.
    A fit that does not converge is neither chosen nor listed, except for the smallest C. Only the
    rows given are looked at. Memory beside x: that of a fit, and the weights of each C that comes
    close.
    """
    grid = sorted(set(grid))
    if not grid:
        raise ValueError("grid of C values is empty; give at least one, e.g. C_GRID")
    if len(x_val) == 0 or len(x_val) != len(y_val):
        raise ValueError(f"validation needs rows, one label each: {len(x_val)} and {len(y_val)}")
    problem = Problem(x_fit, y_fit, n_classes)
    x_val = x_val.to(problem.x.dtype)
    right: dict[int, Tensor] = {}  # [M] of each C that was solved
    count: dict[int, int] = {}
    models: dict[int, LinearModel] = {}  # the last three, and those close to the best

    def best() -> int:
        return min(count, key=lambda i: (-count[i], i))

    def note(i: int, model: LinearModel) -> None:
        models[i] = model
        right[i] = model.logits(x_val).argmax(1) == y_val
        count[i] = int(right[i].sum())

    last: list[int] = []
    for i, c in enumerate(grid):
        start = _extrapolated([models[j] for j in last], c)
        model = problem.solve([c], [start], _SMALL * TOL, 1 / _SMALL, _MAX_ITERATIONS)[0]
        if count and not model.converged:
            continue
        note(i, model)
        last = [*last[-2:], i]
        if count[i] == len(y_val) or _hopeless(right[best()], right[i]):
            break
        near = count[best()] - _CLOSE
        models = {j: m for j, m in models.items() if j in last or count[j] >= near}

    exact: set[int] = set()
    while close := [i for i in count if i not in exact and count[i] >= count[best()] - _CLOSE]:
        if not exact and len(close) == 1:  # nothing to compare it with
            break
        close = close[: max(1, STACKED_COLUMNS // problem.n_present)]
        found = problem.solve(
            [grid[i] for i in close], [models.get(i) for i in close],
            TOL * _POLISH, 1.0, _MAX_ITERATIONS,
        )  # fmt: skip
        for i, model in zip(close, found, strict=True):
            note(i, model)
        exact.update(close)
    return CSearch(
        best_c=grid[best()],
        tried=tuple((grid[i], count[i] / len(y_val)) for i in sorted(count)),
        model=models[best()],
        metric=problem.metric,
    )


def _extrapolated(models: Sequence[LinearModel], c: float) -> LinearModel | None:
    """The parabola or line in log C through models at their C, at another; None through none."""
    if not models:
        return None
    order = 3 if models[-1].iterations <= _PARABOLA_UP_TO else 2
    points = models[-order:]
    at = [math.log(m.c) for m in points]
    shares = [
        math.prod((math.log(c) - b) / (a - b) for b in at if b != a) for a in at
    ]  # Lagrange's polynomials
    weight = torch.stack([s * m.weight for s, m in zip(shares, points, strict=True)]).sum(0)
    # float64: three times the lowest bias there is, of a class without rows, stays finite.
    bias = torch.stack([s * m.bias.double() for s, m in zip(shares, points, strict=True)]).sum(0)
    return LinearModel(weight, bias, c, 0, False)


def _hopeless(best: Tensor, now: Tensor) -> bool:
    """Whether of answers [M] significantly fewer are right than of the best ones, in pairs."""
    lost, gained = int((best & ~now).sum()), int((now & ~best).sum())
    least = max(_HOPELESS * math.sqrt(max(1, lost + gained)), _HOPELESS_SHARE * len(now))
    return lost - gained >= least
