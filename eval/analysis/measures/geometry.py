"""The shape of a feature space: class separation, dimension, spread, neural collapse.

Shapes: N images, D features, C classes. Labels are any integers [N]; classes count equally, however
many images they have. Sums are in float64, and no function holds more than a block of images or
pairs in it (but ``effective_rank``, which needs all singular values).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.common.errors import BadInput, TooFew

_BLOCK = 4096  # images in float64 at a time
_PAIRS = 1 << 24  # similarities at a time: 64 MiB in float32


@dataclass(frozen=True)
class Separation:
    """Mean cosine distances, 1 - cos, between two different images."""

    within: float  # of one class
    between: float  # of two classes
    total: float  # of two classes drawn with replacement
    ratio: float  # between / within
    index: float  # 1 - within / total: 0 if the labels say nothing, 1 if classes are points


def separation(features: Tensor, labels: Tensor) -> Separation:
    """How far apart the classes of features [N, D] lie.

    The index is R^2 of Kornblith et al. 2021 ("Why do better loss functions lead to less
    transferable features?"), but for each image's distance 0 to itself, which they count: here
    random labels have an index near 0 also where classes are small. A class of one image has no
    pairs and counts between classes only. Zero vectors have cosine 0 to all.

    Closed form: with u the images at unit length, the cosines of all pairs within class c sum to
    ||sum u||^2 - sum ||u||^2, and those between classes follow from the class means alone.
    """
    index, counts = _classes(features, labels)
    classes = len(counts)
    if int(counts.max()) < 2:
        raise TooFew("class separation needs a class with at least 2 images")
    sums = features.new_zeros(classes, features.shape[1], dtype=torch.float64)  # [C, D]
    squares = features.new_zeros(classes, dtype=torch.float64)  # [C] sums of ||u||^2
    for block, rows in _blocks(features):
        unit = _unit(block)
        sums.index_add_(0, index[rows], unit)
        squares.index_add_(0, index[rows], unit.square().sum(1))
    paired = counts > 1
    n = counts[paired]
    cosines = (sums[paired].square().sum(1) - squares[paired]) / (n * (n - 1))
    within = max(0.0, 1 - float(cosines.mean()))  # below 0 by rounding only

    means = sums / counts[:, None]
    across = means.sum(0).square().sum() - means.square().sum()
    between = max(0.0, 1 - float(across) / (classes * (classes - 1)))
    total = within / classes + between * (classes - 1) / classes
    return Separation(
        within,
        between,
        total,
        ratio=between / within if within else math.inf if between else math.nan,
        index=1 - within / total if total else math.nan,
    )


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the singular values' shares, of centred features [N, D].

    Between 1 and min(N - 1, D) (Roy & Vetterli 2007, "The effective rank"). NaN if all are equal.
    """
    _check(features)
    x = features.double()
    x = x - x[:1]  # before the mean, so that equal rows become exactly 0
    values = torch.linalg.svdvals(x - x.mean(0))
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def alignment(a: Tensor, b: Tensor, alpha: float = 2) -> float:
    """Mean of ||a_i - b_i||^alpha over N positive pairs [N, D] x 2, brought to unit length.

    Low is aligned (Wang & Isola 2020, "Understanding contrastive representation learning through
    alignment and uniformity on the hypersphere").
    """
    _check(a)
    _check(b)
    if a.shape != b.shape:
        raise ValueError(f"need pairs of one shape, got {[*a.shape]} and {[*b.shape]}")
    total = 0.0
    for block, rows in _blocks(a):
        distance = _unit(block) - _unit(b[rows].double())
        total += float(distance.norm(dim=1).pow(alpha).sum())
    return total / len(a)


def uniformity(features: Tensor, t: float = 2) -> float:
    """log mean of exp(-t ||u_i - u_j||^2) over all pairs i < j of features [N, D] at unit length.

    0 for a single point, lower where the sphere is filled evenly (Wang & Isola 2020).
    """
    _check(features)
    n = len(features)
    if n < 2:
        raise TooFew(f"uniformity needs at least 2 images, got {n}")
    unit = _unit(_floats(features))
    total = torch.tensor(-math.inf, dtype=torch.float64, device=unit.device)
    rows = max(1, _PAIRS // n)
    for start in range(0, n - 1, rows):
        block = unit[start : start + rows] @ unit[start:].t()  # [rows, n - start]
        # ||u - v||^2 = 2 - 2 cos at unit length; pairs up to the diagonal count 0
        block = block.clamp_(max=1).mul_(2 * t).sub_(2 * t)
        below = torch.ones(len(block), len(block), dtype=torch.bool, device=unit.device).tril_()
        block[:, : len(block)].masked_fill_(below, -math.inf)
        total = torch.logaddexp(total, block.logsumexp(1).double().logsumexp(0))
    return float(total) - math.log(n * (n - 1) / 2)


def nc1(features: Tensor, labels: Tensor) -> float:
    """Collapse of the classes of features [N, D] to points: tr(Sigma_W pinv(Sigma_B)) / C.

    Sigma_W is the covariance [D, D] within a class, Sigma_B that of the class means, both averaged
    over classes (Papyan, Han, Donoho 2020, "Prevalence of neural collapse during the terminal phase
    of deep learning training"). 0 is full collapse; inf if all class means are equal.
    """
    index, counts = _classes(features, labels)
    classes = len(counts)
    means = _class_means(features, index, counts)
    # With U S V' the C centred means [C, D], pinv(Sigma_B) = C V S^-2 V': no [D, D] matrix needed.
    _, spread, axes = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    if not spread[0] > 0:
        return math.inf
    # Centred means span at most C - 1 axes; what rounding leaves of a C-th must not be inverted.
    least = spread[0] * max(means.shape) * torch.finfo(torch.float64).eps
    kept = int((spread[: classes - 1] > least).sum())
    project = axes[:kept].t() / spread[:kept]  # [D, kept]
    within = features.new_zeros(classes, dtype=torch.float64)
    for block, rows in _blocks(features, features[:1]):
        residual = (block - means[index[rows]]) @ project
        within.index_add_(0, index[rows], residual.square().sum(1))
    # mean over classes of Sigma_W, times C of pinv(Sigma_B), over C
    return float((within / counts).mean())


@dataclass(frozen=True)
class Simplex:
    """How far the centred class means are from a simplex equiangular tight frame: 0, 0 and 0."""

    equinorm: float  # coefficient of variation of their norms
    equiangular: float  # standard deviation of the cosines of two of them
    angle_gap: float  # mean of |cos + 1 / (C - 1)|, from the widest angle all can have


def nc2(features: Tensor, labels: Tensor) -> Simplex:
    """Collapse of the class means of features [N, D] to a simplex (Papyan, Han, Donoho 2020).

    NaN if a class mean is the mean of all of them, and so has no direction.
    """
    index, counts = _classes(features, labels)
    classes = len(counts)
    means = _class_means(features, index, counts)
    means = means - means.mean(0)  # [C, D]
    norms = means.norm(dim=1)
    unit = means / norms[:, None]
    pairs = torch.ones(classes, classes, dtype=torch.bool, device=means.device).triu_(1)
    cosines = (unit @ unit.t())[pairs]
    return Simplex(
        equinorm=float(norms.std(correction=0) / norms.mean()),
        equiangular=float(cosines.std(correction=0)),
        angle_gap=float((cosines + 1 / (classes - 1)).abs().mean()),
    )


def _check(features: Tensor) -> None:
    if features.ndim != 2 or not features.numel():
        raise ValueError(f"need features [N, D], got {[*features.shape]}")
    if not bool(features.isfinite().all()):
        raise BadInput("the features hold NaN or infinite values")


def _classes(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices [N] in 0..C-1 and images per class [C]; two classes at least."""
    _check(features)
    if labels.shape != features.shape[:1]:
        raise ValueError(f"need labels [{len(features)}], got {[*labels.shape]}")
    _, index, counts = labels.to(features.device).unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise BadInput("all images are of one class; compare at least 2 classes")
    return index, counts


def _floats(features: Tensor) -> Tensor:
    """float64 stays, all else becomes float32."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _blocks(features: Tensor, origin: Tensor | float = 0.0) -> Iterator[tuple[Tensor, slice]]:
    """Blocks [B, D] of features in float64, less ``origin``, and the rows they are."""
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield features[rows].double() - origin, rows


def _unit(x: Tensor) -> Tensor:
    """Rows [B, D] at unit length, however short or long; rows of zeros stay."""
    peak = x.abs().amax(1, keepdim=True)
    return F.normalize(x / torch.where(peak > 0, peak, 1.0), dim=1)  # first: squares stay in range


def _class_means(features: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Class means [C, D] less the first image, so that equal images have means of exactly 0."""
    sums = features.new_zeros(len(counts), features.shape[1], dtype=torch.float64)
    for block, rows in _blocks(features, features[:1]):
        sums.index_add_(0, index[rows], block)
    return sums / counts[:, None]
