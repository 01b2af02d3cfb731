"""Multinomial L2-regularised logistic regression on cached features.

The objective is scikit-learn's: `sum_i CE_i + ||W||^2 / (2 C)`, intercept not penalised; with two
classes scikit-learn uses the sigmoid form, which is the softmax form with twice the penalty, and so
do we. How the optimum is reached:

1.  Preconditioned L-BFGS. At probabilities p the Hessian is about
    `alpha (I - 11'/K) (x) X'X + I/C` with `alpha = (1 - mean ||p_i||^2) / (K - 1)`: exactly so at
    W = 0 and in trace everywhere, and never more than Boehning's bound, alpha = 1/2. One Gram
    matrix of the features therefore serves every C and every iterate. Rows are turned into its
    eigenvectors once, where the inverse of it plus a ridge, the preconditioner, is a division. On
    correlated features 5-25 iterations replace hundreds. (Few rows stay as they are, and the
    preconditioner costs two thin products with the axes of their span.)
2.  The model is linear, so logits move linearly along a search direction. An iteration costs two
    passes over X (direction -> logits, residuals -> gradient), and the line search runs on logits
    alone: an almost exact minimum for the price of a few exponentials. Every accepted step
    decreases a convex function, so the fit cannot diverge.
3.  With few classes a pass over X is limited by memory bandwidth: fits for several C share it,
    stacked in one matrix product.

Shapes: N rows, D features, K classes (those present in `y`), S values of C solved together.
Memory beside X: about `N D + 4 S K N + 24 S K D + 9 min(N, D)^2` floats, so one fit (S = 1) of
K = 1000, D = 2048, N = 50 000 takes about 1.6 GB.
float64 features are solved in float64; anything else in float32, with sums of losses in float64.
Everything is deterministic for a given machine and number of threads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.solvers.products import times_rows

_HISTORY = 10  # L-BFGS pairs
STACKED_COLUMNS = 128  # beyond this many class columns a product is bound by arithmetic
_SLOPE_LEFT = 0.25  # line search ends when this share of the initial slope is left
_LINE_EVALUATIONS = 20
TOL = 1e-4  # scikit-learn's
_REFIT_SLACK = 10.0
_LARGEST = 2.5  # times the root mean square: the largest of hundreds of entries is seldom smaller
_LEAST = 1e-3  # of the mean eigenvalue: below it the preconditioner tells directions not apart


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier; classes without a training row get a bias no other logit falls below."""

    weight: Tensor  # [K, D]
    bias: Tensor  # [K]
    c: float
    iterations: int
    converged: bool

    def logits(self, x: Tensor) -> Tensor:
        """Class scores [N, K] of features x [N, D]."""
        return torch.addmm(self.bias, x.to(self.weight.dtype), self.weight.t())


def standardise(x_train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and scale [D]: the population standard deviation; infinite for features that never
    vary, which are then 0 in every row, at any length of the features."""
    # Squares of very short or long features leave float32's range: a power of two, which is exact,
    # brings them into it. Ordinary ones are not copied. Two steps: one alone may be out of range.
    exponent = int(torch.frexp(x_train.abs().amax()).exponent) if x_train.numel() else 0
    first, second = (1.0, 1.0)
    if abs(exponent) > 10:
        first, second = 2.0 ** (exponent // 2), 2.0 ** (exponent - exponent // 2)
        x_train = x_train / first / second
    variance, mean = torch.var_mean(x_train, dim=0, correction=0)
    # torch updates means (Welford), so a constant column has a variance of exactly 0 and its
    # rounding noise is never blown up into a feature.
    scale = torch.where(variance > 0, variance.sqrt() * first * second, torch.inf)
    return mean * first * second, scale


def fit(
    x: Tensor,
    y: Tensor,
    n_classes: int,
    c: float,
    init: LinearModel | None = None,
    tol: float = TOL,
    max_iter: int = 300,
    metric: Metric | None = None,
) -> LinearModel:
    """The logistic regression of labels y [N] on features x [N, D] at regularisation C.

    `converged` means what it means in scikit-learn: no entry of the gradient of the mean objective
    exceeds `tol`, checked on logits recomputed from the returned weights; and where the mean
    objective itself is below 1 the bound shrinks with it. (Without that, on separable data with a
    large C every solver stops anywhere: scikit-learn at twice the optimum and more.) At `max_iter`
    the best model so far is returned with `converged=False`.
    Classes 0..n_classes-1 that have no row are left out of the problem and never predicted.
    `metric`, of a problem on much the same rows, spares an eigendecomposition: the way to the
    optimum is another, the optimum is not.
    """
    problem = Problem(x, y, n_classes, metric)
    return problem.solve([c], [init], tol, 1.0, max_iter)[0]


def fit_without(
    x: Tensor,
    y: Tensor,
    n_classes: int,
    model: LinearModel,
    groups: Tensor,
    n_groups: int,
    max_iter: int = 300,
    metric: Metric | None = None,
) -> list[LinearModel]:
    """`model`'s fit again without the rows of each of n_groups groups; groups [N] in 0..n_groups-1.

    Each starts from `model`, the fit of all rows at its C, and many are solved together. They are
    solved to `_REFIT_SLACK` times the tolerance of a fit, for what is wanted of them is by how
    much answers change. A class whose rows are all left out keeps next to no probability.
    """
    problem = Problem(x, y, n_classes, metric)
    stacked = max(1, STACKED_COLUMNS // problem.n_present)
    found: list[LinearModel] = []
    for at in range(0, n_groups, stacked):
        some = torch.arange(at, min(at + stacked, n_groups), device=x.device)
        found += problem.solve(
            [model.c] * len(some), [model] * len(some), TOL, _REFIT_SLACK, max_iter,
            groups[None] == some[:, None],
        )  # fmt: skip
    return found


class Problem:
    """One set of rows and labels: what fits at different C have in common."""

    def __init__(self, x: Tensor, y: Tensor, n_classes: int, metric: Metric | None = None) -> None:
        if x.ndim != 2 or y.shape != x.shape[:1] or len(x) == 0:
            raise ValueError(f"need x [N, D] and y [N], N > 0; got {[*x.shape]} and {[*y.shape]}")
        self._label(y, n_classes)
        self.x = x if x.dtype == torch.float64 else x.float()  # [N, D]
        # Columns are centred implicitly: the free intercept absorbs the mean, and the Hessian
        # loses its coupling between weights and intercept.
        self.mean = self.x.mean(0)  # [D]
        if not torch.isfinite(self.mean).all():
            raise ValueError("features contain NaN or infinity; find the rows with torch.isfinite")
        # Of few rows it knows their span alone, which other rows are not in.
        self.metric = None if metric is None or metric.wide else metric
        self._rows: Tensor | None = None

    def relabelled(self, y: Tensor, n_classes: int) -> Problem:
        """The same rows under other labels: what is known of the rows is not computed again."""
        other = copy.copy(self)
        other._label(y, n_classes)
        return other

    def _label(self, y: Tensor, n_classes: int) -> None:
        low, high = (int(v) for v in torch.aminmax(y))
        if low < 0 or high >= n_classes:
            raise ValueError(f"labels span {low}..{high}, outside 0..{n_classes - 1}")
        self.n_classes = n_classes
        # [K] the classes with rows; labels renumbered to 0..K-1
        self.present, self.y = torch.unique(y, return_inverse=True)
        self.n_present = len(self.present)

    def solve(
        self,
        cs: Sequence[float],
        init: Sequence[LinearModel | None],
        tol: float,
        relative: float,
        max_iter: int,
        left_out: Tensor | None = None,
    ) -> list[LinearModel]:
        """One model per C, solved together until max |gradient| <= tol min(N, relative * loss).

        left_out [S, N] is True for rows that do not count in one of the S fits.
        """
        if not all(math.isfinite(c) and c > 0 for c in cs):
            raise ValueError(f"C must be a positive number, got {list(cs)}")
        if self.n_present == 1:  # nothing to separate: zero weights are optimal
            weight = self.x.new_zeros(1, self.x.shape[1])
            return [self._model(weight, weight[:, 0], c, 0, True) for c in cs]
        if self.metric is None:
            self.metric = Metric(self.x, self.mean)
        if self._rows is None:
            self._rows = self.metric.turned(self.x, self.mean)
        # Sigmoid form: w = 2 W_1 = -2 W_0, hence ||w||^2 = 2 ||W||^2.
        twice = 2.0 if self.n_present == 2 else 1.0
        penalty = torch.tensor([twice / c for c in cs], dtype=self.x.dtype, device=self.x.device)
        start = torch.stack([self._state(model, self.metric) for model in init])  # [S, K, D + 1]
        state, iterations, converged = _minimise(
            self._rows,
            self.mean,
            self.y,
            penalty,
            self.metric,
            start,
            tol,
            relative,
            max_iter,
            left_out,
        )
        return [
            self._model(self.metric.turned_back(w[:, :-1]), w[:, -1], c, i, done)
            for w, c, i, done in zip(state, cs, iterations, converged, strict=True)
        ]

    def _state(self, model: LinearModel | None, metric: Metric) -> Tensor:
        """Weights along the metric's axes and, last, the intercept of centred rows, [K, D + 1]."""
        if model is None:
            return self.x.new_zeros(self.n_present, self.x.shape[1] + 1)
        if model.weight.shape != (self.n_classes, self.x.shape[1]):
            raise ValueError(
                f"init has weights {[*model.weight.shape]}, this problem needs "
                f"{[self.n_classes, self.x.shape[1]]}"
            )
        weight = model.weight[self.present].to(self.x)
        bias = model.bias[self.present].to(self.x)
        # A class the earlier fit had no rows of carries a bias of about minus infinity.
        known = bias > torch.finfo(bias.dtype).min / 2
        bias = torch.where(known, bias, bias[known].mean() if known.any() else 0.0)
        intercept = bias + weight @ self.mean
        state = torch.cat([metric.turned_weights(weight), intercept[:, None]], dim=1)
        return state - state.mean(0)  # softmax ignores a shift common to all classes

    def _model(
        self, weight: Tensor, intercept: Tensor, c: float, iterations: int, converged: bool
    ) -> LinearModel:
        """Of the weights [K, D] of present classes and their intercepts [K] on centred rows."""
        whole = weight.new_zeros(self.n_classes, self.x.shape[1])
        # Finite, so that 0 * bias and log-softmax stay finite; low enough to act as -infinity.
        bias = weight.new_full((self.n_classes,), torch.finfo(weight.dtype).min)
        whole[self.present] = weight
        bias[self.present] = intercept - weight @ self.mean
        return LinearModel(whole, bias, float(c), iterations, converged)


class Metric:
    """The axes of rows' covariance, and `(alpha X'X + penalty I)^-1` (X centred) along them.

    That inverse, the preconditioner, only has to be positive definite and roughly right: one
    eigendecomposition of the Gram matrix serves all C and all iterates, and eigenvalues below a
    share of the mean count as that share. With many rows the problem is solved along the axes,
    where the inverse is diagonal; beyond 8 D rows a regular subsample stands for the rest, and that
    of most of the rows will do for all. Few rows, `wide`, are left as they are: the N x N side is
    decomposed, and gives axes of their span alone, without those of small eigenvalues.
    """

    def __init__(self, x: Tensor, mean: Tensor) -> None:
        n, d = x.shape
        self.wide = 2 * n <= d
        if self.wide:
            centred = x - mean
            gram = times_rows(centred, centred)  # [N, N]
        else:
            step = max(1, n // (8 * d))
            gram = _gram(x[::step], mean) * (n / len(x[::step]))  # [D, D]
        values, vectors = torch.linalg.eigh(gram)
        values = values.clamp_min(0)
        self.rest = _LEAST * float(values.mean())
        self.rows = n
        if self.wide:
            kept = values > self.rest
            self.values = values[kept]  # [R]
            along = vectors[:, kept].t().contiguous()
            # [R, D], orthonormal
            self.axes = times_rows(along, centred.t()) / self.values.sqrt()[:, None]
        else:
            self.values = values.clamp_min(self.rest)  # [D]
            self.axes = vectors.t().contiguous()  # [D, D]

    def turned(self, x: Tensor, mean: Tensor, row_block: int = 4096) -> Tensor:
        """Rows [N, D] centred and along the axes; few rows as they are."""
        if self.wide:
            return x
        turned = torch.empty_like(x, memory_format=torch.contiguous_format)
        for top in range(0, len(x), row_block):
            turned[top : top + row_block] = times_rows(x[top : top + row_block] - mean, self.axes)
        return turned

    def turned_weights(self, weight: Tensor) -> Tensor:
        """Weights [K, D] for `turned` rows."""
        return weight if self.wide else times_rows(weight, self.axes)

    def turned_back(self, weight: Tensor) -> Tensor:
        """The weights [K, D] of features of weights, or gradients, for `turned` rows."""
        return weight if self.wide else times_rows(weight.contiguous(), self.axes.t())

    def solve(self, g: Tensor, alpha: Tensor, penalty: Tensor) -> Tensor:
        """g [S, K, D] -> approximately `(alpha X'X + penalty I)^-1 g`, one alpha, penalty per S."""
        alpha, penalty = alpha[:, None, None], penalty[:, None, None]
        if not self.wide:
            return g / (alpha * self.values + penalty)
        outside = 1 / (alpha * self.rest + penalty)  # [S, 1, 1]
        inside = 1 / (alpha * self.values + penalty) - outside  # [S, 1, R]
        along = times_rows(g.flatten(0, 1), self.axes).view(*g.shape[:2], -1)
        along *= inside
        back = times_rows(along.flatten(0, 1), self.axes.t()).view(g.shape)
        return back.addcmul_(g, outside)


def _gram(x: Tensor, mean: Tensor, row_block: int = 4096, column_block: int = 512) -> Tensor:
    """`(x - mean)' (x - mean)` [D, D]: upper blocks only, then mirrored; no centred copy of x."""
    d = x.shape[1]
    gram = x.new_zeros(d, d)
    for top in range(0, len(x), row_block):
        block = (x[top : top + row_block] - mean).t().contiguous()  # [D, rows]
        for left in range(0, d, column_block):
            right = left + column_block
            gram[left:right, left:] += times_rows(block[left:right], block[left:])
    return gram.triu() + gram.triu(1).t()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each stacked problem: [S, K, D + 1] twice -> [S]."""
    return (a.flatten(1)[:, None] @ b.flatten(1)[:, :, None]).view(-1)


class _History:
    """The last L-BFGS pairs of S problems, in ring buffers, and the direction they give.

    The two-loop recursion runs on inner products: four matrix products however many pairs, instead
    of two dozen small operations whose overhead would rival a pass over the features.
    """

    def __init__(self, like: Tensor) -> None:
        stacked, size = len(like), like[0].numel()
        self.steps = like.new_zeros(stacked, _HISTORY, size)  # [S, m, M]
        self.changes = like.new_zeros(stacked, _HISTORY, size)
        # s_i . y_j, and 1 / s_i . y_i; float64, for the recursion subtracts.
        self.cross = like.new_zeros(stacked, _HISTORY, _HISTORY, dtype=torch.float64)
        self.inverse = like.new_zeros(stacked, _HISTORY, dtype=torch.float64)
        self.slots: list[int] = []  # oldest first

    def append(self, step: Tensor, change: Tensor) -> None:
        full = len(self.slots) == _HISTORY
        slot = self.slots.pop(0) if full else len(self.slots)
        self.slots.append(slot)
        product = _dot(step, change)
        # A pair without measurable curvature is noise; weight 0 switches it off.
        least = torch.finfo(step.dtype).eps * (_dot(step, step) * _dot(change, change)).sqrt()
        self.inverse[:, slot] = torch.where(product > least, 1 / product.double(), 0.0)
        self.steps[:, slot], self.changes[:, slot] = step.flatten(1), change.flatten(1)
        self.cross[:, slot, :] = self._along(self.changes, step)
        self.cross[:, :, slot] = self._along(self.steps, change)

    def keep(self, stay: Tensor) -> None:
        self.steps, self.changes = self.steps[stay], self.changes[stay]
        self.cross, self.inverse = self.cross[stay], self.inverse[stay]

    def clear(self) -> None:
        self.slots = []
        self.inverse.zero_()

    def direction(
        self, gradient: Tensor, metric: Metric, alpha: Tensor, penalty: Tensor, n: int
    ) -> Tensor:
        """Minus the inverse Hessian times the gradient [S, K, D + 1], starting from the metric."""
        order = torch.tensor(self.slots, dtype=torch.int64, device=gradient.device)
        inverse = self.inverse[:, order, None]  # [S, m, 1], oldest first
        scaled = self.cross[:, order][:, :, order]  # [S, m, m]
        along = self._along(self.steps, gradient)[:, order, None]
        # The loop from the newest pair to the oldest, as one triangular system.
        first = torch.linalg.solve_triangular(
            (inverse * scaled).triu(1), inverse * along, upper=True, unitriangular=True
        )
        q = gradient - self._combined(self.changes, first, order).view_as(gradient)
        # The intercept's Hessian is alpha n; centring has decoupled it from the weights.
        intercept = q[:, :, -1:] / (alpha * n)[:, None, None]
        weight = q[:, :, :-1].contiguous()
        weight = metric.solve(weight, alpha * (n / metric.rows), penalty)
        h = torch.cat([weight, intercept], dim=2)
        along = self._along(self.changes, h)[:, order, None]
        # And back.
        second = torch.linalg.solve_triangular(
            (inverse * scaled.transpose(1, 2)).tril(-1), first - inverse * along,
            upper=False, unitriangular=True,
        )  # fmt: skip
        return -h - self._combined(self.steps, second, order).view_as(h)

    @staticmethod
    def _along(vectors: Tensor, other: Tensor) -> Tensor:
        """Inner products [S, m] of vectors [S, m, M] with other [S, K, D + 1]."""
        return (vectors @ other.flatten(1)[:, :, None])[:, :, 0].double()

    @staticmethod
    def _combined(vectors: Tensor, weights: Tensor, order: Tensor) -> Tensor:
        """Sum [S, M] of vectors [S, m, M] by weights [S, k, 1] of those in the slots of order."""
        placed = vectors.new_zeros(len(vectors), 1, vectors.shape[1])
        placed[:, 0, order] = weights[:, :, 0].to(vectors.dtype)
        return (placed @ vectors)[:, 0]


def _minimise(
    x: Tensor,
    mean: Tensor,
    y: Tensor,
    penalty: Tensor,
    metric: Metric,
    state: Tensor,
    tol: float,
    relative: float,
    max_iter: int,
    left_out: Tensor | None,
) -> tuple[Tensor, list[int], list[bool]]:
    """Preconditioned L-BFGS on S stacked problems; solved ones leave the stack.

    x [N, D] are the metric's turned rows, mean [D] that of the features. state [S, K, D + 1] holds
    weights for those rows and, last, the intercept of the centred features. A row that is left out
    [S, N] has margins of minus infinity at all classes: neither loss nor gradient. The
    preconditioner takes no notice.
    """
    n, d = x.shape
    offset = mean if metric.wide else torch.zeros_like(mean)  # turned rows are centred
    n_classes = state.shape[1]
    rows = torch.arange(n, device=x.device)

    def margins_of(w: Tensor, own: float) -> Tensor:
        """Logits minus the true class's logit [S, K, N]; `own` stands at the true class itself."""
        weight = w[:, :, :d].reshape(-1, d).contiguous()
        bias = w[:, :, d].reshape(-1) - weight @ offset
        logits = times_rows(weight, x).add_(bias[:, None]).view(len(w), n_classes, n)
        logits -= logits[:, y, rows][:, None]
        logits[:, y, rows] = own
        if left_out is not None:
            logits.masked_fill_(left_out[:, None], own)
        return logits

    result = torch.empty_like(state)
    iterations, converged = [0] * len(state), [False] * len(state)
    ids = torch.arange(len(state))  # which problem each slot of the stack holds
    stalled = torch.zeros(len(state), dtype=torch.bool, device=x.device)
    history = _History(state)
    step = last_gradient = None
    margins = margins_of(state, -math.inf)
    wrong, loss = _soften(margins)  # [S, K, N] with 0 at the true class, [S, N]
    fresh = True  # margins were computed from the state, not updated along steps
    iteration = 0
    while True:
        missing = wrong.sum(1)  # [S, N] 1 - p_y
        alpha = (missing * (2 - missing) - wrong.square().sum(1)).mean(-1) / (n_classes - 1)  # [S]
        alpha = alpha.clamp_min(1e-12)
        wrong[:, y, rows] = -missing  # from here on: the residual P - Y, without cancellation
        g_bias = wrong.sum(-1)  # [S, K]
        g_weight = times_rows(wrong.view(-1, n), x.t()).view(len(state), n_classes, d)
        g_weight += penalty[:, None, None] * state[:, :, :d]
        squares = state[:, :, :d].square().sum((1, 2))  # [S]
        objective = loss.sum(-1, dtype=torch.float64) + 0.5 * penalty * squares
        bound = tol * torch.clamp(relative * objective, max=n)
        solved = _within(bound, g_weight, g_bias, metric, mean)
        if not fresh and bool(solved.any()):
            # Claim convergence only on exact logits: updates along steps gather rounding errors.
            margins, fresh = margins_of(state, -math.inf), True
            wrong, loss = _soften(margins)
            continue
        gradient = torch.cat([g_weight - g_bias[:, :, None] * offset, g_bias[:, :, None]], dim=2)

        if step is not None and last_gradient is not None:
            history.append(step, gradient - last_gradient)

        leave = solved | stalled if iteration < max_iter else torch.ones_like(solved)
        if bool(leave.any()):
            for slot in leave.nonzero().view(-1).tolist():
                problem = int(ids[slot])
                result[problem] = state[slot]
                iterations[problem], converged[problem] = iteration, bool(solved[slot])
            stay = ~leave
            if not bool(stay.any()):
                return result, iterations, converged
            ids = ids[stay.cpu()]
            left_out = None if left_out is None else left_out[stay]
            state, margins, loss = state[stay], margins[stay], loss[stay]
            gradient, penalty, alpha = gradient[stay], penalty[stay], alpha[stay]
            history.keep(stay)

        direction = history.direction(gradient, metric, alpha, penalty, n)
        slope = _dot(direction, gradient)
        if bool((slope >= 0).any()):  # rounding near the optimum: fall back to the bare metric
            history.clear()
            direction = history.direction(gradient, metric, alpha, penalty, n)
            slope = _dot(direction, gradient)
        moved = margins_of(direction, 0.0)
        length, wrong, new_loss = _line_search(
            margins, moved, loss, slope, penalty, state[:, :, :d], direction[:, :, :d]
        )
        stalled = length == 0  # no decrease measurable in this precision: nothing left to gain
        step = length[:, None, None] * direction
        last_gradient = gradient
        state = state + step
        margins = margins.addcmul_(length[:, None, None], moved)
        loss = new_loss
        fresh = False
        iteration += 1


def _within(
    bound: Tensor, g_weight: Tensor, g_bias: Tensor, metric: Metric, mean: Tensor
) -> Tensor:
    """Whether no entry of the gradient by the weights of features exceeds the bound: [S], [S].

    g_weight [S, K, D] is that of turned rows, g_bias [S, K] of the intercept. Turning it back is a
    product, so it is done only where its length lets the bound be hoped for: where that errs, an
    iteration more is done.
    """
    if not metric.wide:
        length = torch.linalg.vector_norm(g_weight, dim=2)
        length = length - g_bias.abs() * torch.linalg.vector_norm(mean)
        if bool((_LARGEST * length.amax(1) / math.sqrt(len(mean)) > bound).all()):
            return torch.zeros_like(bound, dtype=torch.bool)
        back = metric.turned_back(g_weight.flatten(0, 1)).view(g_weight.shape)
        g_weight = back.addcmul_(g_bias[:, :, None], mean)
    return torch.maximum(g_weight.abs().amax((1, 2)), g_bias.abs().amax(1)) <= bound


def _soften(margins: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of the wrong classes [S, K, N] (0 at the true one) and cross-entropies [S, N].

    margins [S, K, N] is minus infinity at the true class, whose own margin is zero. Both results
    keep full relative precision when the loss is tiny, as on separable data with a huge C.
    """
    top = margins.amax(1).clamp_min(0)  # [S, N]
    wrong = (margins - top[:, None]).exp_()
    others = wrong.sum(1)
    total = others + (-top).exp()
    loss = torch.where(top > 0, top + total.log(), others.log1p())
    return wrong.mul_((1 / total)[:, None]), loss


def _line_search(
    margins: Tensor,
    moved: Tensor,
    loss: Tensor,
    slope: Tensor,
    penalty: Tensor,
    weight: Tensor,
    direction: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step lengths [S] close to the minimum along `direction`, with `_soften` of the new margins.

    Safeguarded Newton in one variable on margins [S, K, N] and their change `moved` per unit step.
    A length of 0 says that no decrease was found.
    """
    cross = penalty * (weight * direction).sum((1, 2))  # [S]
    square = penalty * direction.square().sum((1, 2))
    finfo = torch.finfo(slope.dtype)
    t = torch.ones_like(slope)
    low, high = torch.zeros_like(slope), torch.full_like(slope, math.inf)
    done = torch.zeros_like(slope, dtype=torch.bool)
    for _ in range(_LINE_EVALUATIONS):
        wrong, new_loss = _soften(torch.addcmul(margins, t[:, None, None], moved))
        weighted = wrong * moved  # [S, K, N]
        mean_move = weighted.sum(1)  # [S, N]
        first = mean_move.sum(-1) + cross + t * square
        second = weighted.mul_(moved).sum((1, 2)) - mean_move.square().sum(-1) + square
        # Convexity: a slope still negative proves descent; past the minimum, compare values.
        gain = (new_loss - loss).sum(-1, dtype=torch.float64) + t * cross + 0.5 * t * t * square
        slack = 4 * finfo.eps * new_loss.sum(-1)
        done |= (first.abs() <= _SLOPE_LEFT * slope.abs()) & ((first <= 0) | (gain <= slack))
        if bool(done.all()):
            return t, wrong, new_loss
        past = ~(first < 0)  # NaN (overflowing logits) counts as too far
        low, high = torch.where(past, low, t), torch.where(past, t, high)
        unbounded = high.isinf()
        proposal = t - first / second.clamp_min(finfo.tiny)
        inside = (proposal > low) & (proposal < torch.where(unbounded, 8 * t, high))
        safe = torch.where(unbounded, 4 * t, 0.5 * (low + high))
        t = torch.where(done, t, torch.where(inside, proposal, safe))
    t = torch.where(done, t, low)
    return t, *_soften(torch.addcmul(margins, t[:, None, None], moved))
