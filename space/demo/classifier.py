"""The few-shot classifier of the page: tensors in, a head out.

The head is the study's: logistic regression with scikit-learn's objective on features scaled to
length 1. Two things are added: how often the classifier is right on a picture it has not seen
(leave-one-out), from the support pictures alone, and a temperature that turns its logits into
probabilities, from them and from what was measured on other data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eval.metrics.intervals import wilson
from eval.solvers.episodes import fit_logreg

# Below scikit-learn's own default by far: a head of a few dozen pictures is solved in no time.
_TOLERANCE = 1e-7
# Stacked leave-one-out problems held at once: their Grams, inverses and optimiser state.
_STACK_BYTES = 48 * 2**20

# The temperature before any picture is seen: log T is normal about a + b log(pictures a class) +
# c log(classes). Fitted by tests/bench/bench_temperature.py to the best temperatures of heads of 1
# to 10 pictures a class of 2, 5 and 10 classes: eleven real data sets, six shipped models.
PRIOR, PRIOR_SPREAD = (-2.170, 0.235, 0.196), 0.934
TEMPERATURES = np.geomspace(0.005, 20, 400)


@dataclass(frozen=True)
class Head:
    """A linear classifier on L2-normalised features.

    weight [W, D] and bias [W] are float32; ``predict`` gives softmax(logits / temperature).
    ``loo_top1`` is None where leave-one-out is impossible: some class has one picture only
    (copies count as one). ``loo_interval`` is its Wilson 95 % interval, ``loo_right`` says it of
    each support picture (empty where impossible, and of a head that was read from a file).

    What the probabilities are worth: on eleven real data sets that the prior was fitted without,
    the mean top probability of six shipped models was 12, 8, 6, 5 and 3 points from the accuracy
    on fresh pictures with 1, 2, 3, 5 and 10 pictures a class (18, 21, 23, 24 and 25 at T = 1). It
    tells "quite sure" from "a guess", not 0.90 from 0.95. It supposes that queries are like the
    support pictures: for a picture of none of the classes the probabilities mean nothing. With 2
    pictures a class the accuracy is pessimistic (0.45 for 0.66 on digits), for a head of one
    picture less is much poorer.
    """

    weight: Tensor
    bias: Tensor
    temperature: float
    classes: tuple[str, ...]
    loo_top1: float | None
    loo_interval: tuple[float, float] | None
    loo_right: tuple[bool, ...] = ()


def fit_head(
    features: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    c: float = 1.0,
    groups: Tensor | None = None,
) -> Head:
    """Fit head, leave-one-out accuracy and temperature.

    features: [N, D] floats, raw. labels: [N] int64 in 0..W-1, every class at least once.
    groups: [N] int64; pictures of one group (copies of each other) are left out together, else a
    copy would give the left-out picture's answer away. None: every picture is its own group.
    Raises ValueError on shapes, labels, classes or c that make no sense and on values that are
    not finite.
    """
    ways = len(classes)
    if features.ndim != 2 or not features.is_floating_point() or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features must be [N, D] floats and labels [N]; got {list(features.shape)} "
            f"{features.dtype} and {list(labels.shape)}"
        )
    if groups is not None and groups.shape != labels.shape:
        raise ValueError(f"groups must be [N]; got {list(groups.shape)} for {len(labels)} pictures")
    if ways < 2 or sorted(set(labels.tolist())) != list(range(ways)):
        raise ValueError(f"every one of {ways} >= 2 classes needs a picture, and no other label")
    if not 0 < c < math.inf:
        raise ValueError(f"c must be above 0 and finite; got {c}")
    x = normalised(features.double())
    weight, bias = fit_logreg(x[None], labels[None], ways, c, tolerance=_TOLERANCE)
    logits = leave_one_out(x, labels, ways, c, groups)
    top1 = interval = None
    right: tuple[bool, ...] = ()
    temperature = fit_temperature(logits, labels, ways)
    if logits is not None:
        right = tuple((logits.argmax(1) == labels).tolist())
        top1, interval = sum(right) / len(right), wilson(sum(right), len(right))
    return Head(
        weight[0].float(), bias[0].float(), temperature, tuple(classes), top1, interval, right
    )


def predict(head: Head, features: Tensor) -> Tensor:
    """Probabilities [Q, W] float32 of raw features [Q, D]; rows sum to 1."""
    logits = normalised(features.float()) @ head.weight.t() + head.bias
    return (logits / head.temperature).softmax(1)


def nearest(support: Tensor, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k support rows most alike each query by cosine: similarity and index, both [Q, k'].

    support [N, D] and query [Q, D] are raw features; k' = min(k, N). Best first; the earlier of
    equals first.
    """
    cosine = (normalised(query.float()) @ normalised(support.float()).t()).clamp(-1, 1)
    similarity, index = cosine.sort(dim=1, descending=True, stable=True)
    return similarity[:, :k], index[:, :k]


def normalised(x: Tensor) -> Tensor:
    """Rows at length 1, whatever their length was; rows of zeros stay. Raises ValueError on NaN or
    infinity. (The study adds 1e-6 to the length, which puts tiny features at chance.)"""
    peak = x.abs().amax(1, keepdim=True)
    if not torch.isfinite(peak).all():
        raise ValueError("features hold NaN or infinity")
    # A power of two, so that it rounds nothing: squares of huge or tiny values leave the range.
    scaled = torch.ldexp(x, -torch.frexp(peak).exponent)
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1)


@torch.no_grad()
def leave_one_out(
    x: Tensor, labels: Tensor, ways: int, c: float = 1.0, groups: Tensor | None = None
) -> Tensor | None:
    """Logits [N, W] of each row from the head fitted without its group; None where a class lies
    in one group alone, for then it cannot be left out.

    x [N, D] float64 is used as given. The refits are one stacked problem for each group size.

    A refit has seen the left-out row's own class less often, and its free bias says so: at C = 1
    the logits of a few pictures are so flat that this alone decides, always against the truth
    (digits, 5 classes of 5: 6 % where fresh pictures give 74 %). So log(n_k / n_k') is added to
    each class's logit, for the n_k pictures of the support and the n_k' of the refit: the usual
    correction of a prior, after which the same digits give 76 %.
    """
    n = len(x)
    group = torch.arange(n) if groups is None else torch.unique(groups, return_inverse=True)[1]
    if any(len(group[labels == way].unique()) < 2 for way in range(ways)):
        return None
    if x.shape[1] > n:  # inner products are all that matters: rotate into the rows' own space
        values, vectors = torch.linalg.eigh(x @ x.t())
        x = vectors * values.clamp_min(0).sqrt()  # [N, N], with the same Gram
    members = [(group == g).nonzero().view(-1) for g in range(int(group.max()) + 1)]
    count = torch.bincount(labels, minlength=ways).to(x.dtype)  # [W]
    logits = x.new_empty(n, ways)
    for size in sorted({len(rows) for rows in members}):
        same = [rows for rows in members if len(rows) == size]
        kept = n - size
        each = 8 * (kept * x.shape[1] + 6 * kept * kept + 32 * ways * kept)
        step = max(1, _STACK_BYTES // each)
        for begin in range(0, len(same), step):
            out = torch.stack(same[begin : begin + step])  # [B, size]
            mask = torch.ones(len(out), n, dtype=torch.bool).scatter_(1, out, False)
            rows = mask.nonzero()[:, 1].view(len(out), kept)
            weight, bias = fit_logreg(x[rows], labels[rows], ways, c, tolerance=_TOLERANCE)
            left = torch.nn.functional.one_hot(labels[rows], ways).sum(1)  # [B, W]
            bias = bias + (count / left).log()
            logits[out] = torch.bmm(x[out], weight.transpose(1, 2)) + bias[:, None]
    return logits


def prior_temperature(pictures: int, ways: int) -> float:
    """The temperature of a head of so many pictures, before it was asked for any."""
    a, b, c = PRIOR
    return math.exp(a + b * math.log(pictures / ways) + c * math.log(ways))


def fit_temperature(logits: Tensor | None, labels: Tensor, ways: int) -> float:
    """The most probable of ``TEMPERATURES`` given the left-out logits [N, W] and the prior.

    Without left-out logits it is the prior's own. Left-out pictures count by Platt's targets, (N +
    1) / (N + 2) for the true class and the rest shared by the others: with the bare labels, a small
    support set that is all right would ask for probabilities of 1. With many the prior hardly
    counts.
    """
    at = prior_temperature(len(labels), ways)
    if logits is None:
        return at
    n = len(labels)
    targets = torch.full_like(logits, 1 / (n + 2) / (ways - 1))
    targets[torch.arange(n), labels] = (n + 1) / (n + 2)
    grid = torch.from_numpy(TEMPERATURES).to(logits.dtype)
    told = (targets * (logits / grid[:, None, None]).log_softmax(2)).sum((1, 2))
    far = (grid.log() - math.log(at)) / PRIOR_SPREAD
    return float(grid[int((told - far.square() / 2).argmax())])
