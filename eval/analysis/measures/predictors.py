"""Cheap predictors of transfer: numbers from features and labels alone, no training.

    log_me(features, labels)               # You et al. 2021, 2022
    h_score(features, labels)              # Bao et al. 2019
    shrunk_h_score(features, labels)       # Ibrahim et al. 2022
    trans_rate(features, labels)           # Huang et al. 2022
    centroid_separation(features, labels)  # leave-one-out nearest class mean

Larger is better in all, and features times any factor have the same score. Shapes: N images, D
features, C classes, k the rank of the features. Arrays or CPU tensors in, one number out; sums and
decompositions are float64 whatever the features are. Labels are any integers; only the classes
present count.

LogME and both H-scores need no more than the squared singular values of the features and the
length of each class's indicator vector along each left singular vector. One eigendecomposition of
the smaller Gram matrix, [D, D] or [N, N], gives both for all classes; the left singular vectors
[N, D] are never formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.common.errors import BadInput

Floats = NDArray[np.float64]

_BLOCK = 4096  # rows made float64 at a time: 64 MiB at 2048 features
_EPS = float(np.finfo(np.float64).eps)
_STEPS = 11  # both of LogME's stopping rule, as the authors' code has them
_TOLERANCE = 1e-3
_RIDGE = 1e-5  # the authors' guard of both denominators against a perfect fit


def log_me(features: ArrayLike, labels: ArrayLike) -> float:
    """LogME: the log evidence of a linear model per image, maximised, mean over classes.

    For each class the targets y [N] are 1 in the class and 0 outside, f = features [N, D], and

        y = f w + noise,  w ~ N(0, I / alpha),  noise ~ N(0, I / beta)
        2 log p(y | f) = D log alpha + N log beta - log |alpha I + beta f'f|
                         - beta |y - f m|^2 - alpha |m|^2 - N log 2 pi

    with m the posterior mean of w, at the alpha and beta that maximise it, found by MacKay's fixed
    point as in "Ranking and Tuning Pre-trained Models" (You et al., JMLR 2022) for the score of
    "LogME" (You et al., ICML 2021): at most 11 steps, until alpha / beta moves by under 0.1 %.
    Features are not centred. The evidence at its maximum does not depend on their length, but the
    ridge, the start at alpha = beta and the end after 11 steps do: the features are first divided
    by one number, so that their squared singular values are N on the mean over the k directions.

    The determinant is over all D directions, as in the paper. The authors' code
    (github.com/thuml/LogME) sums its logarithm over the k directions with a singular value above
    1e-10 but keeps D log alpha. The two agree for k = D; for N < D theirs has (D - N) / (2 N) mean
    log alpha on top, which even columns of zeros add to. A class of one image is a target like any
    other.
    """
    x, index = _checked(features, labels)
    s = _spectrum(x, index, centred=False)
    if len(s.sigma):
        s = s._replace(sigma=s.sigma * (len(x) / s.sigma.mean()))
    return float(np.mean(_evidence(s)))


def h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """H-score: tr(cov(f)^+ cov(E[f | y])), the share of each direction's spread between classes.

    "An Information-Theoretic Approach to Transferability in Task Transfer Learning" (Bao et al.,
    ICIP 2019), with both covariances over the N images and the pseudo-inverse of the first: between
    0 and min(C - 1, k). Any features of rank N - 1 reach C - 1, so with N near or below D prefer
    the shrunk one. A class of one image is its own mean, hence all between classes.
    """
    x, index = _checked(features, labels)
    s = _spectrum(x, index, centred=True)
    return float((s.along.sum(1) / s.counts).sum())


def shrunk_h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """H-score with a Ledoit-Wolf covariance: (1 - a) tr(cov_a(f)^-1 cov(E[f | y])).

    "Newer is not always better: Rethinking transferability metrics, their peculiarities, stability
    and performance" (Ibrahim et al., 2022): cov_a = (1 - a) cov(f) + a tr(cov(f)) / D I, with the
    a of Ledoit and Wolf 2004 (as scikit-learn's). 0 for features that are all alike.
    """
    x, index = _checked(features, labels)
    s = _spectrum(x, index, centred=True)
    n, d = x.shape
    variance = s.sigma / n  # [k] the nonzero eigenvalues of cov(f)
    if not len(variance):
        return 0.0
    mean = variance.sum() / d
    # Ledoit and Wolf's d^2 = |cov - mean I|^2 and b^2, the variance of cov's entries, both / D.
    distance = ((variance**2).sum() - mean * variance.sum()) / d
    noise = (s.quartic / n - (variance**2).sum()) / (n * d)
    # Where cov is a multiple of I already (as for D = 1) there is nothing to shrink towards.
    a = 0.0 if distance <= 0 else float(min(max(noise, 0.0) / distance, 1.0))
    share = (1 - a) * variance / ((1 - a) * variance + a * mean)
    return float((s.along / s.counts[:, None] * share).sum())


def trans_rate(features: ArrayLike, labels: ArrayLike, eps: float = 1e-4) -> float:
    """TransRate: R(Z) - mean over classes of R(Z_c), in nats.

        R(Z) = 1/2 log |I + Z'Z / (rows(Z) eps)|

    "Frustratingly Easy Transferability Estimation" (Huang et al., ICML 2022), as the code printed
    there: Z is the features less their mean over all images, Z_c [n_c, D] the rows of class c (not
    centred again), every class weighing the same. There, features a times as long act as an eps a^2
    times as small; here Z is first divided by one number, so that its rows have a mean squared
    length of 1 (the coding rate's features lie on the unit sphere: Yu et al., NeurIPS 2020). For
    N <= D the logarithm's rank still outweighs how the classes lie. A class of one image has
    R = 1/2 log(1 + |z|^2 / eps). 0 for features that are all alike.
    """
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    x, index = _checked(features, labels)
    mean = x.mean(0, dtype=np.float64)
    whole = _gram(x, mean)
    scale = float(np.trace(whole)) / len(x)
    if scale <= (8 * _EPS) ** 2 * float(mean @ mean):  # the rounding of the mean alone
        return 0.0
    eps *= scale
    rates = []
    for label in range(int(index.max()) + 1):
        rows = x[index == label].astype(np.float64) - mean
        rates.append(_coding_rate(_gram(rows), len(rows), eps))
    return _coding_rate(whole, len(x), eps) - float(np.mean(rates))


def centroid_separation(features: ArrayLike, labels: ArrayLike) -> float:
    """Leave-one-out accuracy, in 0..1, of the nearest class mean by cosine.

    With u the features scaled to length 1 and S_c the sum of class c, image i of class y is right
    if its cosine to its own class's mean without it is above that to every other class's mean:

        (u_i S_y - |u_i|^2) / |S_y - u_i|  >  u_i S_c / |S_c|  for all c != y

    A tie is wrong, so features that are all alike score 0; a zero vector has cosine 0 to all. An
    image alone in its class has no mean left without it: it is not scored, but its class stays a
    rival of the others.
    """
    x, index = _checked(features, labels)
    counts = np.bincount(index)
    if counts.max() == 1:
        raise BadInput("the centroid separation needs a class with two or more images.")
    sums = np.zeros((len(counts), x.shape[1]))  # [C, D]
    for rows, unit in _unit_blocks(x):
        sums += _members(index[rows], len(counts)) @ unit
    length = np.linalg.norm(sums, axis=1)  # [C]
    right = scored = 0
    for rows, unit in _unit_blocks(x):
        own = index[rows]
        each = np.arange(len(own))
        dots = unit @ sums.T  # [B, C]
        square = (unit**2).sum(1)  # 1, or 0 for a zero vector
        rest = np.linalg.norm(sums[own] - unit, axis=1)
        mine = _ratio(dots[each, own] - square, rest)
        others = _ratio(dots, length)
        others[each, own] = -np.inf
        alone = counts[own] == 1
        # Equal cosines differ by rounding, as they are computed in two ways: hence the margin.
        right += int(((mine > others.max(1) + 1e-12) & ~alone).sum())
        scored += int((~alone).sum())
    return right / scored


class _Spectrum(NamedTuple):
    """The features f [N, D] (centred or not) as LogME and the H-scores see them."""

    sigma: Floats  # [k] squared singular values above rounding
    along: Floats  # [C, k] squared length of the class indicator along each left singular vector
    counts: Floats  # [C] images of the class
    shape: tuple[int, int]
    quartic: float  # sum over images of |f_i|^4


def _spectrum(x: NDArray[Any], index: NDArray[np.intp], centred: bool) -> _Spectrum:
    """Decompose features [N, D] of class indices [N] through the smaller Gram matrix.

    With f = U S V': the indicator y of a class lies U'y along the left singular vectors, and
    U'y = S^-1 V' (f'y), where f'y is the sum of the class's rows.
    """
    n, d = x.shape
    counts = np.bincount(index)
    mean = x.mean(0, dtype=np.float64) if centred else np.zeros(d)
    if n > d:
        gram, quartic = np.zeros((d, d)), 0.0
        sums = np.zeros((len(counts), d))
        for rows, block in _blocks(x, mean):
            gram += block.T @ block
            sums += _members(index[rows], len(counts)) @ block
            quartic += float((np.einsum("bd,bd->b", block, block) ** 2).sum())
    else:
        f = x.astype(np.float64) - mean
        gram = f @ f.T
        quartic = float((gram.diagonal() ** 2).sum())
    sigma, vectors = np.linalg.eigh(gram)
    # The eigenvalues' rounding error, and that of the subtracted mean where all images are alike.
    rounding = max(max(n, d) * _EPS * sigma[-1], n * (8 * _EPS) ** 2 * float(mean @ mean))
    kept = sigma > max(rounding, 0.0)
    sigma, vectors = sigma[kept], vectors[:, kept]
    members = _members(index, len(counts))
    inside = sums @ vectors / np.sqrt(sigma) if n > d else members @ vectors  # [C, k]
    return _Spectrum(sigma, inside**2, counts.astype(np.float64), (n, d), quartic)


def _evidence(s: _Spectrum) -> Floats:
    """The maximised log evidence per image [C]; all classes step together, done ones drop out."""
    n = s.shape[0]
    # |y|^2 = n_c: what lies outside the features' span is not a fit's to explain.
    outside = np.maximum(s.counts - s.along.sum(1), 0.0)  # [C]
    found = np.empty(len(s.counts))
    active = np.arange(len(s.counts))
    t = np.ones(len(s.counts))  # alpha / beta
    for step in range(_STEPS):
        along = s.along[active]  # [A, k]
        fit = s.sigma + t[:, None]  # [A, k]
        gamma = (s.sigma / fit).sum(1)  # the effective number of parameters
        m2 = (s.sigma * along / fit**2).sum(1)
        residual = (along * (t[:, None] / fit) ** 2).sum(1) + outside[active]
        # N - gamma summed as such: for k = N the difference would be lost to rounding.
        free = n - len(s.sigma) + (t[:, None] / fit).sum(1)
        alpha = gamma / (m2 + _RIDGE)
        beta = free / (residual + _RIDGE)
        new = np.maximum(alpha / beta, np.finfo(np.float64).tiny)  # 0 without a single direction
        done = (np.abs(new - t) <= _TOLERANCE * t) | (step == _STEPS - 1)
        # D log alpha - log |alpha I + beta f'f| = -sum over the k directions of log(1 + sigma / t).
        volume = np.log1p(s.sigma / new[:, None]).sum(1)
        loss = beta * residual + alpha * m2
        value = (n * np.log(beta / (2 * np.pi)) - volume - loss) / (2 * n)
        found[active[done]] = value[done]
        active, t = active[~done], new[~done]
        if not len(active):
            break
    return found


def _coding_rate(gram: Floats, n: int, eps: float) -> float:
    """1/2 log |I + gram / (n eps)| of a Gram matrix over n rows, from its Cholesky factor."""
    scaled = gram / (n * eps)
    scaled[np.diag_indices_from(scaled)] += 1.0
    return float(np.log(np.linalg.cholesky(scaled).diagonal()).sum())


def _gram(x: NDArray[Any], mean: Floats | None = None) -> Floats:
    """The smaller of f'f [D, D] and ff' [N, N], f = x less the mean; same nonzero eigenvalues."""
    n, d = x.shape
    mean = np.zeros(d) if mean is None else mean
    if n <= d:
        f = x.astype(np.float64) - mean
        return f @ f.T
    gram = np.zeros((d, d))
    for _, block in _blocks(x, mean):
        gram += block.T @ block
    return gram


def _blocks(x: NDArray[Any], mean: Floats) -> Iterator[tuple[slice, Floats]]:
    """Rows of x less the mean, float64, a bounded number at a time."""
    for begin in range(0, len(x), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        block = x[rows].astype(np.float64)
        block -= mean
        yield rows, block


def _unit_blocks(x: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
    """Rows of x scaled to length 1; zero rows stay zero."""
    for rows, block in _blocks(x, np.zeros(x.shape[1])):
        peak = np.abs(block).max(1, keepdims=True)  # scaled first: squares of huge values overflow
        block /= np.where(peak > 0, peak, 1.0)
        length = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(length > 0, length, 1.0)
        yield rows, block


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b, and 0 where b is not a length but rounding (a mean whose images cancel out)."""
    real = b > 1e-12
    return np.where(real, a / np.where(real, b, 1.0), 0.0)


def _members(index: NDArray[np.intp], n_classes: int) -> Any:
    """One-hot rows [C, B] of class indices [B], sparse: a product adds up each class's rows."""
    from scipy import sparse

    columns = np.arange(len(index))
    return sparse.csr_array((np.ones(len(index)), (index, columns)), (n_classes, len(index)))


def _checked(features: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Features [N, D] and class indices [N] in 0..C-1, every class present; else says what's wrong.

    Raises UserError for what data can be at fault for (too few classes, values that are no
    numbers), ValueError for what only a caller can (shapes, types).
    """
    x, y = np.asarray(features), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"need features [N, D] and labels [N], got {[*x.shape]} and {[*y.shape]}")
    if not np.issubdtype(x.dtype, np.floating) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"need float features and integer labels, got {x.dtype} and {y.dtype}")
    if x.shape[1] == 0:
        raise ValueError("need at least one feature, got [N, 0]")
    classes, index = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadInput(f"a predictor needs images of 2 or more classes, found {len(classes)}.")
    bad = int((~np.isfinite(x)).any(1).sum())
    if bad:
        raise BadInput(f"{bad} of {len(x)} images have features that are NaN or infinite.")
    return x, index
