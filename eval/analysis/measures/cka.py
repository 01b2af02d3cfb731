"""Centred kernel alignment: how alike two layers represent the same images.

    sums = CkaSums(len(layers_a), len(layers_b), "linear")
    for a, b in batches:  # lists of [n, P_l] features of the same n images
        sums.add(a, b)
    sums.result().values  # [La, Lb]

CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of two kernel matrices over the same images
(Kornblith et al. 2019, "Similarity of neural network representations revisited"). It is 1 for
features equal up to a rotation and one scale. The plain HSIC of N images is biased upwards by
O(1 / N), badly where a layer is wider than N; HSIC_1 (Song et al. 2012, "Feature selection via
dependence maximization") is not, so it may be averaged over batches (Nguyen, Raghu,
Kornblith 2021, "Do wide and deep networks learn the same things?").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.common.errors import BadInput, NotFound, TooFew, did_you_mean

Kernel = Literal["linear", "rbf"]
Floats = NDArray[np.float64]

SIGMA = 0.8  # of the median distance: the width that worked best for Kornblith et al.
_MIN_IMAGES = 4  # HSIC_1 divides by n - 3
# A layer is constant where its HSIC with itself is this share of its kernel's squared entries: far
# above what rounding leaves of a constant one, far below anything that varies.
_CONSTANT = 1e-10


def linear_cka(x: Tensor, y: Tensor) -> float:
    """CKA of features [N, P] and [N, Q] by the plain, biased HSIC; NaN where one is constant.

    ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) on centred columns, or the same from the [N, N] kernels
    where those are smaller.
    """
    n, p, q = _sizes(x, y)
    x, y = _scaled(_centred(x.double())), _scaled(_centred(y.double()))
    if n * (p + q) < p * p + q * q + p * q:
        return _alignment(x @ x.t(), y @ y.t())
    cross = (y.t() @ x).norm() ** 2
    return float(cross / ((x.t() @ x).norm() * (y.t() @ y).norm()))


def rbf_cka(x: Tensor, y: Tensor, sigma: float = SIGMA) -> float:
    """CKA of features [N, P] and [N, Q] by the plain HSIC of kernels exp(-d^2 / (2 s^2)).

    s is ``sigma`` times the median distance between two images, in x and in y on their own. NaN
    where that is 0.
    """
    _sizes(x, y)
    kernels = []
    for features in (x, y):
        unit = _scaled(_centred(features.double()))
        length = _median_distance(unit) * sigma
        if not length > 0:
            return math.nan
        kernel = _rbf(unit / length)
        # H K H, H = I - 11'/N: rows and columns lose their means
        kernel = kernel - kernel.mean(0, keepdim=True)
        kernels.append(kernel - kernel.mean(1, keepdim=True))
    return _alignment(*kernels)


@dataclass(frozen=True)
class Cka:
    """Layer by layer likeness of two models."""

    values: Floats  # [La, Lb], each in [-1, 1]; NaN in a constant layer's row or column
    errors: Floats  # [La, Lb] standard errors; NaN after a single batch
    images: int
    batches: int
    constant: tuple[tuple[int, ...], tuple[int, ...]]  # layers of a, of b: the same on all images


class CkaSums:
    """Unbiased CKA of every layer of a with every layer of b, summed up batch by batch.

    A batch's HSIC_1 counts by its images, so a short last batch, whose estimate is the noisiest,
    weighs little; with equal batches this is the estimator of Nguyen et al. Kernels need one length
    per layer, the same in all batches: the first batch in which the layer varies sets it. An rbf
    kernel's is ``sigma`` times the median distance there; a linear kernel's cancels out of CKA and
    only keeps float32 in range. Holds a few numbers per batch and, during ``add``, the kernel
    matrices of one batch: 8 n^2 (La + Lb) bytes.
    """

    def __init__(
        self, layers_a: int, layers_b: int, kernel: Kernel = "linear", sigma: float = SIGMA
    ) -> None:
        if kernel not in get_args(Kernel):
            known = get_args(Kernel)
            hint = did_you_mean(str(kernel), known, f"known: {', '.join(known)}")
            raise NotFound(f"unknown kernel {kernel!r}{hint}")
        if min(layers_a, layers_b) < 1:
            raise ValueError(f"need layers on both sides, got {layers_a} and {layers_b}")
        if not sigma > 0:
            raise BadInput(f"sigma must be above 0, got {sigma}")
        self._layers = (layers_a, layers_b)
        self._kernel = kernel
        self._sigma = sigma
        self._lengths: list[float] = []  # per layer of a, then of b; 0 while it never varied
        self._images = 0
        # Per batch, times its images: HSIC_1 of a's with b's layers, and of each with itself.
        self._cross: list[Floats] = []  # [La, Lb] each
        self._own: list[Floats] = []  # [La + Lb] each, or [La] if b is a
        self._energy: Floats | float = 0.0  # the scale of `_own`, whether or not a layer varies

    @torch.no_grad()
    def add(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
        """One batch: a's and b's layers, each [n, P_l], all of the same n >= 4 images.

        Pass one list as both a and b to compare a model with itself at half the price.
        """
        if (len(a), len(b)) != self._layers:
            raise ValueError(f"need {self._layers} layers, got {len(a)} and {len(b)}")
        stack = list(a) if a is b else [*a, *b]
        n = len(stack[0])
        if any(x.ndim != 2 or len(x) != n for x in stack):
            shapes = [[*x.shape] for x in stack]
            raise ValueError(f"need [n, P] features of the same n images, got {shapes}")
        if n < _MIN_IMAGES:
            raise TooFew(
                f"an unbiased CKA estimate needs at least {_MIN_IMAGES} images per batch, got {n}"
            )
        if self._batches and len(self._lengths) != len(stack):
            raise ValueError("b is a in some batches only: pass one list twice always or never")
        lengths = list(self._lengths) or [0.0] * len(stack)

        device = stack[0].device
        kernels = torch.empty(len(stack), n * n, dtype=torch.float64, device=device)
        with torch.autocast(device.type, enabled=False):
            for layer, x in enumerate(stack):
                # The products, where the time goes, are in float32 on centred features; all sums
                # over images, where digits cancel, are in float64.
                x = x.to(device, torch.promote_types(x.dtype, torch.float32))
                kernel, lengths[layer] = self._gram(x, lengths[layer])
                kernels[layer] = kernel.flatten()
        hsic, energy = (part.cpu().numpy() for part in _hsic_1(kernels, n))
        own = hsic.diagonal().copy()
        if not np.isfinite(own).all():
            layer = int(np.flatnonzero(~np.isfinite(own))[0])
            side = "ab"[layer >= len(a)]
            at = layer % len(a) if side == "a" else layer - len(a)
            raise BadInput(f"layer {at} of model {side} holds NaN or infinite features")
        self._lengths = lengths
        self._images += n
        self._cross.append(n * hsic[: len(a), -len(b) :])
        self._own.append(n * own)
        self._energy = self._energy + n * energy

    def result(self) -> Cka:
        """CKA over all batches so far, with delete-one-batch jackknife errors."""
        if not self._batches:
            raise TooFew("CKA needs at least one batch of images")
        cross, own = np.stack(self._cross), np.stack(self._own)  # [B, La, Lb], [B, layers]
        least = _CONSTANT * self._energy
        values = self._ratio(cross.sum(0), own.sum(0), least)
        errors = np.full_like(values, np.nan)
        if (count := self._batches) > 1:
            without = self._ratio(cross.sum(0) - cross, own.sum(0) - own, least)  # [B, La, Lb]
            errors = np.sqrt((count - 1) * without.var(0))
        constant = own.sum(0) <= least
        a, b = (np.flatnonzero(part).tolist() for part in self._sides(constant))
        return Cka(values, errors, self._images, count, (tuple(a), tuple(b)))

    @property
    def _batches(self) -> int:
        return len(self._cross)

    def _sides(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """a's and b's part of values [..., layers]; the same if b is a."""
        return values[..., : self._layers[0]], values[..., -self._layers[1] :]

    def _ratio(self, cross: Floats, own: Floats, least: Floats | float) -> Floats:
        """CKA [..., La, Lb] from summed HSIC [..., La, Lb] and [..., layers]."""
        a, b = self._sides(np.sqrt(np.where(own > least, own, np.nan)))
        # Within [-1, 1] by Cauchy-Schwarz; rounding may step over it.
        return np.clip(cross / (a[..., :, None] * b[..., None, :]), -1, 1)

    def _gram(self, x: Tensor, length: float) -> tuple[Tensor, float]:
        """Kernel [n, n] of [n, P] features and its length, chosen here if still 0."""
        x = _centred(x)
        if length == 0 and (length := float(x.abs().amax())) > 0 and self._kernel == "rbf":
            length *= self._sigma * _median_distance(x / length)
        if length == 0:  # the same for all images so far, and so is any kernel: HSIC 0
            return x.new_zeros(len(x), len(x)), length
        x = x / length
        return (x @ x.t() if self._kernel == "linear" else _rbf(x)), length


def _hsic_1(kernels: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """HSIC_1 [L, L] of all pairs of kernels [L, n * n], whose diagonals it sets to 0, and [L] the
    part of each one's with itself that does not vanish where the layer is constant.

    1 / (n (n - 3)) (tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'KL1), diagonals 0.
    """
    square = kernels.view(-1, n, n)
    square.diagonal(dim1=1, dim2=2).zero_()
    rows = square.sum(2)  # [L, n]
    total = rows.sum(1)  # [L]
    trace = kernels @ kernels.t()
    hsic = trace + torch.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.t()
    hsic = (hsic + hsic.t()) / 2  # a matrix product need not round both halves alike
    return hsic / (n * (n - 3)), trace.diagonal() / (n * (n - 3))


def _centred(x: Tensor) -> Tensor:
    """x [N, P] without its column means. No CKA depends on them, but digits do.

    The first row goes before the mean does, so that equal rows become exactly 0.
    """
    x = x - x[:1]
    return x.sub_(x.mean(0))


def _scaled(x: Tensor) -> Tensor:
    """x over its largest absolute value: products neither over- nor underflow; NaN if all 0."""
    return x / x.abs().amax()


def _squared_distances(x: Tensor) -> Tensor:
    """[N, N] squared Euclidean distances between the rows of x [N, P]."""
    gram = x @ x.t()
    norms = gram.diagonal()
    return (norms[:, None] + norms - 2 * gram).clamp_(min=0)


def _median_distance(x: Tensor) -> float:
    """Median Euclidean distance of two different rows of x [N, P] (the lower one of two)."""
    upper = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu_(1)
    return float(_squared_distances(x)[upper].median().sqrt())


def _rbf(x: Tensor) -> Tensor:
    """exp(-d^2 / 2) [N, N] of the rows of x [N, P]."""
    return _squared_distances(x).mul_(-0.5).exp_()


def _alignment(a: Tensor, b: Tensor) -> float:
    """Cosine of two matrices as vectors."""
    return float((a * b).sum() / (a.norm() * b.norm()))


def _sizes(x: Tensor, y: Tensor) -> tuple[int, int, int]:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"need [N, P] and [N, Q], got {[*x.shape]} and {[*y.shape]}")
    if len(x) < 2:
        raise TooFew(f"CKA needs at least 2 images, got {len(x)}")
    return len(x), x.shape[1], y.shape[1]
