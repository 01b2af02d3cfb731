"""Few-shot episodes solved all at once on given features.

Logistic regression is scikit-learn's `LogisticRegression(C=c)`: minimise over weights w, bias b
    f = c * sum_i CE(w x_i + b, y_i) + ||w||^2 / 2          (bias free of penalty)
and, for two ways, its binary sigmoid form, which is the softmax form with c / 2.

With x [n, d] the support, w = A x, F = w x^T + b 1^T [W, n] its logits, P their softmax and Y the
one-hot labels, everything the optimiser needs lives in n dimensions:
- gradient: R = A + c (P - Y), meaning the gradient of w is R x and that of b is R 1;
- objective: c * CE(F) + <A, F> / 2, because A 1 = 0 along the whole path;
- the fixed quadratic model with curvature kappa = 1/W (the softmax Hessian at its start, P = 1/W)
  has the minimiser A - RQ, with Q = H^-1 - u u^T / (1^T u), H = I + mu x x^T, u = H^-1 1,
  mu = kappa c, and moves the logits by -(R - RQ) / mu. So one product with Q gives the step *and*
  its effect on the logits: no Gram product, no bias solve, no Cholesky of a singular Gram.
This model preconditions a batched L-BFGS with a line search that accepts decrease only. H >= I, so
duplicate images, zero vectors and n > d are all harmless. For n > d, H^-1 is used in its low-rank
form (d x d Cholesky).

Every classifier ends up as a linear head A x on the support, so all heads of all shots score the
queries in one thin product; a Gram between support and query is never formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from eval.solvers.products import times_rows

Classifier = Literal["logreg", "centroid", "cosine"]

# Stop when the 2-norm of the gradient of scikit-learn's scaled objective f / (c n) is below this.
# Tighter than scikit-learn, which asks 1e-4 of the largest *entry* of the same gradient.
TOLERANCE = 1e-4
MAX_STEPS = 500
# L-BFGS pairs kept; more did not lower the step count at C = 1.
_MEMORY = 6
_MAX_BACKTRACKS = 20
# A solve chunk's support Gram, its inverse and the optimiser's state stay below this.
_SOLVE_BYTES = 256 * 2**20
# Norms of rows whose squares and products float32 holds with all their digits.
_SAFE = (2.0**-30, 2.0**30)
# Gathered rows of one sub-chunk: small enough to be still in the last-level cache when multiplied.
_GATHER_BYTES = 4 * 2**20


@torch.no_grad()
def episode_predictions(
    features: Tensor,
    support: Tensor,
    query: Tensor,
    shots: Sequence[int],
    classifiers: Sequence[Classifier] = ("logreg", "centroid", "cosine"),
    c: float = 1.0,
    *,
    tolerance: float = TOLERANCE,
    solve_bytes: int = _SOLVE_BYTES,
    gather_bytes: int = _GATHER_BYTES,
) -> dict[tuple[int, Classifier], Tensor]:
    """Predicted way of every query of every episode, per (shots, classifier).

    features: [N, D] any float dtype, raw: rows are scaled to x / ||x|| here, rows of zeros stay.
    support:  [E, W, K] int64 rows of features; k shots use support[:, :, :k], so draws are nested.
    query:    [E, W, Q] int64 rows of features; query w * Q + j truly belongs to way w.
    c:        scikit-learn's C of "logreg".
    Returns   [E, W * Q] int64 each, values in 0..W-1.

    Only the rows named by support and query are read, and only in chunks: the peak beyond inputs
    and outputs is about solve_bytes + 3 * gather_bytes, or one episode's need where that is more.
    Arithmetic is float64 for float64 features or an extreme c, else float32.
    Raises ValueError on shapes, shots, classifiers or c that make no sense and on rows that are
    not finite.
    """
    _check(features, support, query, shots, classifiers, c)
    episodes, ways, _ = support.shape
    shots = sorted(set(shots))
    queries = ways * query.shape[2]
    most = max(shots) * ways
    # Shot-major order: the support of k shots is then the first k * W rows of the largest one.
    support_rows = support[:, :, : max(shots)].transpose(1, 2).reshape(episodes, most)
    rows = torch.cat([support_rows, query.reshape(episodes, queries)], dim=1)  # [E, most + queries]
    dtype = _compute_dtype(features, ways, most, c)
    out = {
        (k, name): torch.empty(episodes, queries, dtype=torch.int64, device=features.device)
        for k in shots
        for name in classifiers
    }
    fit = "logreg" in classifiers
    mean = "centroid" in classifiers or "cosine" in classifiers
    heads_per_shot = ways * (fit + mean)
    gather = _Rows(features, dtype, rows, gather_bytes)
    solve_floats = _solve_floats(ways, most, features.shape[1], len(shots) * heads_per_shot, fit)
    dim, item = features.shape[1], torch.empty((), dtype=dtype).element_size()
    for lo, hi in _slices(episodes, solve_bytes, item * solve_floats):
        # Dual coefficients and biases of every head: for each shot logreg's, then the class means'.
        a = torch.zeros(
            hi - lo, len(shots), heads_per_shot, most, dtype=dtype, device=features.device
        )
        bias = torch.zeros(hi - lo, len(shots), heads_per_shot, dtype=dtype, device=features.device)
        if fit:
            base = _support_base(gather, support_rows[lo:hi], gather_bytes)
            for i, k in enumerate(shots):
                one_hot = torch.eye(ways, dtype=dtype, device=features.device).repeat(1, k)
                a[:, i, :ways, : k * ways], bias[:, i, :ways] = _solve(
                    _kernel(base, k * ways, ways, c), one_hot.expand(hi - lo, -1, -1), c, tolerance
                )
            del base
        if mean:
            for i, k in enumerate(shots):
                one_hot = torch.eye(ways, dtype=dtype, device=features.device).repeat(1, k)
                a[:, i, -ways:, : k * ways] = one_hot / k
        a = a.flatten(1, 2)  # [e, shots * heads, most]
        floats = (most + queries + 2 * a.shape[1]) * dim + a.shape[1] * queries
        for s, t in _slices(hi - lo, gather_bytes, item * floats):
            x, inverse_norm = gather(rows[lo + s : lo + t])
            scaled = a[s:t] * inverse_norm[:, None, :most]
            weights = torch.bmm(scaled, x[:, :most])  # [e, shots * heads, D]
            scores = torch.bmm(weights, x[:, most:].transpose(1, 2))
            scores *= inverse_norm[:, None, most:]
            # [e, shots, heads, queries] and [e, shots, heads]
            scores = scores.unflatten(1, (len(shots), heads_per_shot))
            square = weights.square().sum(-1).unflatten(1, (len(shots), heads_per_shot))
            for i, k in enumerate(shots):
                for name in classifiers:
                    own = slice(0, ways) if name == "logreg" else slice(-ways, None)
                    score, norm2 = scores[:, i, own], square[:, i, own, None]
                    if name == "logreg":
                        score = score + bias[s:t, i, own, None]
                    elif name == "centroid":
                        # argmin ||q - m||^2 = argmax q.m - ||m||^2 / 2
                        score = score - norm2 / 2
                    else:
                        # A zero mean has no direction: its similarity counts as 0.
                        score = score / norm2.sqrt().clamp_min(torch.finfo(dtype).tiny)
                    out[k, name][lo + s : lo + t] = score.argmax(1)
    return out


@torch.no_grad()
def fit_logreg(
    x: Tensor, y: Tensor, n_way: int, c: float = 1.0, *, tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Weights [B, n_way, d] and bias [B, n_way] of B logistic regressions, fitted together.

    x: [B, n, d] used as given (normalise first if wanted). y: [B, n] labels in 0..n_way-1; each
    problem needs no particular class balance. Two ways return the pair (-w/2, w/2) of the binary
    form's w, so that the argmax of x w^T + b is right for any n_way.
    """
    if x.ndim != 3 or y.shape != x.shape[:2]:
        raise ValueError(
            f"x must be [B, n, d] and y [B, n]; got {list(x.shape)} and {list(y.shape)}"
        )
    if n_way < 2 or not c > 0:
        raise ValueError(f"n_way must be at least 2 and c above 0; got {n_way} and {c}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity")
    # Not normalised: the largest squared norm takes the place of 1 in the range check.
    scale = float(x.to(torch.float64).square().sum(-1).amax()) if x.numel() else 1.0
    x = x.to(_compute_dtype(x, n_way, x.shape[1], c, scale))
    y_hot = torch.nn.functional.one_hot(y, n_way).transpose(1, 2).to(x.dtype)  # [B, W, n]
    base = torch.bmm(x, x.transpose(1, 2)) if x.shape[1] <= x.shape[2] else x
    a, bias = _solve(_kernel(base, x.shape[1], n_way, c), y_hot, c, tolerance)
    return torch.bmm(a, x), bias


def _check(
    features: Tensor,
    support: Tensor,
    query: Tensor,
    shots: Sequence[int],
    classifiers: Sequence[Classifier],
    c: float,
) -> None:
    """Raise ValueError, naming the value seen, before any feature is read."""
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features must be [N, D] floats; got {list(features.shape)} {features.dtype}"
        )
    if support.ndim != 3 or query.ndim != 3 or support.shape[:2] != query.shape[:2]:
        raise ValueError(
            "support must be [E, W, K] and query [E, W, Q] with the same E and W; "
            f"got {list(support.shape)} and {list(query.shape)}"
        )
    if support.shape[1] < 2:
        raise ValueError(f"an episode needs at least 2 ways; got {support.shape[1]}")
    if not shots or min(shots) < 1 or max(shots) > support.shape[2]:
        raise ValueError(f"shots must be 1..{support.shape[2]} (K of support); got {list(shots)}")
    unknown = [name for name in classifiers if name not in get_args(Classifier)]
    if unknown or not classifiers:
        raise ValueError(
            f"classifiers must be among {get_args(Classifier)}; got {list(classifiers)}"
        )
    if not 0 < c < float("inf"):
        raise ValueError(f"c must be above 0 and finite; got {c}")


def _compute_dtype(x: Tensor, ways: int, n: int, c: float, scale: float = 1.0) -> torch.dtype:
    """float32 where H = I + (c/W) x x^T is inverted accurately in it, else float64.

    scale is the largest squared row norm: too large and H is ill-conditioned, too small and
    (R - RQ) / mu cancels.
    """
    mu = c / ways
    safe = mu * scale >= 1e-3 and mu * scale * n <= 1e3
    return torch.float32 if safe and x.dtype != torch.float64 else torch.float64


def _solve_floats(ways: int, n: int, dim: int, heads: int, fit: bool) -> int:
    """Numbers held per episode while a chunk is solved."""
    if not fit:
        return heads * n
    # Gram, H, its factor, its inverse and Q; then the pairs and about ten work arrays.
    return heads * n + 5 * n * min(n, dim) + (3 * _MEMORY + 12) * ways * n


def _slices(total: int, budget: int, each: int) -> Iterator[tuple[int, int]]:
    """Equal slices of range(total) whose bytes stay in budget, at least one item each."""
    parts = -(-total // max(1, min(total, budget // each))) if total else 0
    for i in range(parts):
        yield i * total // parts, (i + 1) * total // parts


class _Rows:
    """Gathers raw rows into one buffer, reused: fresh memory pages cost more than the copy.

    Norms are taken once of each row that is `used` [...], however many episodes it is in. Rows
    whose products would leave the range of the dtype are brought into it by a power of two, which
    is exact: where one needs it, all.
    """

    def __init__(
        self, features: Tensor, dtype: torch.dtype, used: Tensor, block_bytes: int
    ) -> None:
        self.features = features
        self.dtype = dtype
        self.buffer = torch.empty(0, features.shape[1], dtype=dtype, device=features.device)
        self.inverse = torch.zeros(len(features), dtype=dtype, device=features.device)
        self.rescaled = False
        mask = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        mask[used.flatten()] = True
        rows = mask.nonzero()[:, 0]
        block = max(1, block_bytes // (features.shape[1] * self.buffer.element_size()))
        norm = self._norms(rows, block)
        if not bool(((norm > _SAFE[0]) & (norm < _SAFE[1])).all()):
            self.rescaled = True
            norm = self._norms(rows, block)
        if not torch.isfinite(norm).all():
            bad = rows[~torch.isfinite(norm)][0].item()
            raise ValueError(f"features row {bad} holds NaN or infinity")
        self.inverse[rows] = torch.where(norm > 0, 1 / norm, 0.0)

    def _norms(self, rows: Tensor, block: int) -> Tensor:
        parts = [
            torch.linalg.vector_norm(self._gathered(part), dim=-1) for part in rows.split(block)
        ]
        return torch.cat(parts) if parts else self.inverse[:0]

    def _gathered(self, flat: Tensor) -> Tensor:
        if len(self.buffer) < len(flat):
            self.buffer = self.buffer.new_empty(len(flat), self.buffer.shape[1])
        x = self.buffer[: len(flat)]
        if self.features.dtype == self.dtype:
            torch.index_select(self.features, 0, flat, out=x)
        else:
            x.copy_(self.features.index_select(0, flat))
        if self.rescaled:
            _rescale(x)
        return x

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[e, n, D] valid until the next call, and 1 / norm [e, n], 0 for a row of zeros.

        The norms scale the products later: cheaper than scaling the rows here.
        """
        return self._gathered(rows.reshape(-1)).view(*rows.shape, -1), self.inverse[rows]


def _rescale(x: Tensor) -> None:
    """Bring the largest value of each row of x [n, D] to 0.5..1, in place and without rounding.

    In two steps: the power itself may be outside of the dtype's range."""
    exponent = -torch.frexp(x.abs().amax(1, keepdim=True)).exponent
    half = exponent // 2
    for power in (half, exponent - half):
        x.mul_(torch.ldexp(x.new_ones(power.shape), power))


def _support_base(gather: _Rows, rows: Tensor, gather_bytes: int) -> Tensor:
    """Normalised support: its Gram [e, n, n] if n <= D, else the rows themselves [e, n, D]."""
    (e, n), dim = rows.shape, gather.features.shape[1]
    base = torch.empty(e, n, min(n, dim), dtype=gather.dtype, device=rows.device)
    for lo, hi in _slices(e, gather_bytes, n * dim * base.element_size()):
        x, inverse_norm = gather(rows[lo:hi])
        if n <= dim:
            for i, own in enumerate(x, lo):
                base[i] = times_rows(own, own)
            base[lo:hi] *= inverse_norm[:, :, None]
            base[lo:hi] *= inverse_norm[:, None, :]
        else:
            torch.mul(x, inverse_norm[:, :, None], out=base[lo:hi])
    return base


class _Kernel(NamedTuple):
    """What the optimiser needs of the support: products with Q (see the top) and with x x^T."""

    base: Tensor  # [B, n, n] Gram, or [B, n, d] rows
    inverse: Tensor  # [B, n, n] H^-1; or [B, n, d] T with H^-1 = I - T T^T
    share: Tensor  # [B, n] u / (1^T u)
    mu: float
    low_rank: bool

    def precondition(self, r: Tensor) -> Tensor:
        """r Q for r [B, W, n]."""
        if self.low_rank:
            r = torch.baddbmm(r, torch.bmm(r, self.inverse), self.inverse.transpose(1, 2), alpha=-1)
        else:
            r = torch.bmm(r, self.inverse)
        # Now r H^-1, whose sum is r u: take the sum out along u.
        return r - r.sum(-1, keepdim=True) * self.share[:, None, :]

    def gram(self, a: Tensor) -> Tensor:
        """a x x^T for a [B, W, n]."""
        if not self.low_rank:
            return torch.bmm(a, self.base)
        return torch.bmm(torch.bmm(a, self.base), self.base.transpose(1, 2))

    def select(self, keep: Tensor) -> _Kernel:
        return self._replace(
            base=self.base[keep], inverse=self.inverse[keep], share=self.share[keep]
        )


def _kernel(base: Tensor, n: int, ways: int, c: float) -> _Kernel:
    """The kernel of the first n support rows; base as _support_base returns it."""
    mu = _scaled(c, ways) / ways
    low_rank = base.shape[1] > base.shape[2]
    if low_rank and n <= base.shape[2]:  # few shots of a set whose largest shot count exceeds D
        base, low_rank = torch.bmm(base[:, :n], base[:, :n].transpose(1, 2)), False
    if not low_rank:
        base = base[:, :n, :n]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(_identity_plus(base, mu)))
        u = inverse.sum(-1)
        return _Kernel(base, inverse, u / u.sum(-1, keepdim=True), mu, low_rank)
    base = base[:, :n]
    # H^-1 = I - mu x (I + mu x^T x)^-1 x^T = I - T T^T, T = sqrt(mu) x L^-T
    factor = torch.linalg.cholesky(_identity_plus(torch.bmm(base.transpose(1, 2), base), mu))
    inverse = torch.linalg.solve_triangular(
        factor.transpose(1, 2), base * mu**0.5, upper=True, left=False
    )
    u = 1 - torch.bmm(inverse, inverse.sum(1)[:, :, None])[:, :, 0]
    return _Kernel(base, inverse, u / u.sum(-1, keepdim=True), mu, low_rank)


def _identity_plus(gram: Tensor, mu: float) -> Tensor:
    h = gram * mu
    h.diagonal(dim1=1, dim2=2).add_(1)
    return h


def _scaled(c: float, ways: int) -> float:
    """The softmax form's c: half for two ways, where scikit-learn penalises w = w1 - w0 once."""
    return c / 2 if ways == 2 else c


def _solve(kernel: _Kernel, y: Tensor, c: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Dual coefficients [B, W, n] and bias [B, W] for one-hot y [B, W, n].

    Preconditioned L-BFGS on all problems at once. A finished problem stands still, and leaves the
    batch once half of the batch has finished.
    """
    batch, ways, n = y.shape
    c = _scaled(c, ways)
    coefficients = torch.zeros_like(y, memory_format=torch.contiguous_format)
    logits = torch.zeros_like(coefficients)
    whole, ids = kernel, torch.arange(batch, device=y.device)
    a, f = torch.zeros_like(coefficients), torch.zeros_like(coefficients)
    p, value = _loss(a, f, y, c)
    r = a + c * (p - y)
    # Per pair: the step as coefficients and as logits, the change of R, and 1 / <step, change>.
    pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    stuck = torch.zeros(batch, 1, 1, dtype=torch.bool, device=y.device)
    for _ in range(MAX_STEPS):
        # Gradient of (w, b) is (R x, R 1), so its squared norm is <R, R x x^T> + ||R 1||^2.
        norm2 = _dot(r, kernel.gram(r)) + r.sum(-1, keepdim=True).square().sum(1, keepdim=True)
        active = (norm2 > (tolerance * c * n) ** 2) & ~stuck
        left = int(active.sum())
        if left == 0:
            break
        if left <= len(ids) // 2:
            coefficients[ids], logits[ids] = a, f
            keep = active.view(-1).nonzero().view(-1)
            ids, kernel, y, a, f, r, p, value, active = (
                ids[keep],
                kernel.select(keep),
                *(t[keep] for t in (y, a, f, r, p, value, active)),
            )
            pairs = [(s[keep], sf[keep], dr[keep], rho[keep]) for s, sf, dr, rho in pairs]
        # Two-loop recursion, direction d = -H g. Every vector of steps is kept twice.
        q, alphas = r, []
        for _, s_f, d_r, rho in reversed(pairs):
            alpha = rho * _dot(s_f, q)
            q = q - alpha * d_r
            alphas.append(alpha)
        z_a = kernel.precondition(q)
        z_f = (q - z_a) / kernel.mu
        for (s_a, s_f, d_r, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            beta = alpha - rho * _dot(d_r, z_f)
            z_a = torch.addcmul(z_a, beta, s_a)
            z_f = torch.addcmul(z_f, beta, s_f)
        a_next, f_next, p, next_value, moved = _line_search(
            a, f, y, c, z_a.neg_(), z_f.neg_(), _dot(r, z_f), p, value, active
        )
        r_next = a_next + c * (p - y)
        stuck = ~moved
        s_a, s_f, d_r = a_next - a, f_next - f, r_next - r
        curve = _dot(s_f, d_r)
        # Rounding can hide the curvature of a tiny step: such a pair would spoil the next ones.
        rho = torch.where(curve > 0, 1 / curve, 0)
        rho = torch.where(torch.isfinite(rho), rho, 0)
        pairs = [*pairs[-_MEMORY + 1 :], (s_a, s_f, d_r, rho)]
        a, f, r, value = a_next, f_next, r_next, next_value
    coefficients[ids], logits[ids] = a, f
    # The logits were summed up step by step; the bias is what they hold beyond A x x^T.
    return coefficients, (logits - whole.gram(coefficients)).mean(-1)


def _line_search(
    a: Tensor,
    f: Tensor,
    y: Tensor,
    c: float,
    d_a: Tensor,
    d_f: Tensor,
    slope: Tensor,
    p: Tensor,
    value: Tensor,
    active: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Next A, f, P, objective, and which problems moved; backtracks from step 1.

    Accepts Armijo decrease or, where rounding hides the decrease, its first-derivative form
    (Hager and Zhang's approximate Wolfe test). Logits are linear in the step, so a trial costs no
    matrix product.
    """
    noise = 4 * torch.finfo(f.dtype).eps
    todo = active & (slope < 0)
    step = todo.to(f.dtype)  # [B, 1, 1]; 0 keeps a problem where it is
    for _ in range(_MAX_BACKTRACKS):
        a_next, f_next = torch.addcmul(a, step, d_a), torch.addcmul(f, step, d_f)
        p_next, next_value = _loss(a_next, f_next, y, c)
        end_slope = _dot(a_next + c * (p_next - y), d_f)
        bad = todo & ~(
            (next_value <= value + 1e-4 * step * slope)
            | ((end_slope <= -0.8 * slope) & (next_value <= value + noise * value.abs()))
        )
        if not bad.any():
            return a_next, f_next, p_next, next_value, step > 0
        # Secant guess of the minimum along the line, kept well inside the failed step.
        guess = (slope / (slope - end_slope)).nan_to_num(0.5).clamp(0.1, 0.5)
        step = torch.where(bad, step * guess, step)
    step = torch.where(bad, 0, step)
    a_next, f_next = torch.addcmul(a, step, d_a), torch.addcmul(f, step, d_f)
    return a_next, f_next, *_loss(a_next, f_next, y, c), step > 0


def _loss(a: Tensor, f: Tensor, y: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """P [B, W, n] and the objective [B, 1, 1] at coefficients a and logits f."""
    top = f.amax(1, keepdim=True)
    p = torch.exp(f - top)
    total = p.sum(1, keepdim=True)
    p /= total
    loss = (top + total.log()).sum(-1, keepdim=True)
    return p, c * (loss - _dot(f, y)) + _dot(a, f) / 2


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per problem, [B, 1, 1]."""
    return (a * b).flatten(1).sum(-1)[:, None, None]
