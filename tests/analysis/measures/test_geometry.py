"""Geometry of features against pairwise double loops and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eval.analysis.measures import geometry
from eval.common.errors import TooFew, UserError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def clusters(
    sizes: tuple[int, ...] = (5, 9, 4, 12), d: int = 6, spread: float = 0.8, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Shuffled features [N, D] around unequal class means, and labels with gaps."""
    labels = torch.cat([torch.full((n,), 7 * c - 3) for c, n in enumerate(sizes)])
    means = normal(len(sizes), d, seed=seed) + 0.5
    features = means.repeat_interleave(torch.tensor(sizes), 0)
    features = features + spread * normal(len(labels), d, seed=seed + 1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return features[order], labels[order]


def simplex(classes: int, d: int) -> Tensor:
    """A simplex equiangular tight frame [C, D >= C], turned."""
    frame = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return frame @ torch.linalg.qr(normal(d, d, seed=9)).Q[:classes]


def pairwise_separation(features: Tensor, labels: Tensor) -> tuple[float, float, float]:
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    classes = sorted(set(labels.tolist()))
    within: list[float] = []
    between: list[float] = []
    total: list[float] = []
    for c in classes:
        for k in classes:
            mine, other = np.flatnonzero(labels == c), np.flatnonzero(labels == k)
            pairs = [1 - unit[i] @ unit[j] for i in mine for j in other if i != j]
            (within if c == k else between).append(float(np.mean(pairs)))
            total.append(float(np.mean(pairs)))
    return float(np.mean(within)), float(np.mean(between)), float(np.mean(total))


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 7), min_size=2, max_size=5).map(tuple),
    spread=st.floats(0.01, 3),
    seed=st.integers(0, 1000),
)
def test_separation_is_the_mean_over_pairs(
    sizes: tuple[int, ...], spread: float, seed: int
) -> None:
    features, labels = clusters(sizes, spread=spread, seed=seed)
    found = geometry.separation(features, labels)
    within, between, total = pairwise_separation(features, labels)
    assert (found.within, found.between, found.total) == pytest.approx(
        (within, between, total), abs=1e-12
    )
    assert found.index == pytest.approx(1 - within / total, abs=1e-9)
    assert found.ratio == pytest.approx(between / within, rel=1e-9)


def test_separation_does_not_depend_on_blocks_or_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters()
    found = geometry.separation(features, labels)
    monkeypatch.setattr(geometry, "_BLOCK", 7)
    lengths = torch.logspace(-20, 20, len(features), dtype=torch.float64)[:, None]
    again = geometry.separation(features * lengths, labels)
    assert again.index == pytest.approx(found.index, abs=1e-12)
    assert geometry.separation(features.float(), labels).index == pytest.approx(
        found.index, abs=1e-6
    )


def test_separation_of_random_labels_is_nought_and_of_points_one() -> None:
    labels = torch.arange(300) % 100  # three images each: self pairs would give about 1/3
    assert abs(geometry.separation(normal(300, 20), labels).index) < 0.03
    points = geometry.separation(normal(100, 20)[labels], labels)
    assert points.index == pytest.approx(1, abs=1e-12)
    assert points.ratio > 1e9
    opposite = torch.tensor([[1.0, 0], [2, 0], [-1, 0], [-3, 0]])
    found = geometry.separation(opposite, torch.tensor([0, 0, 1, 1]))
    assert found == geometry.Separation(0.0, 2.0, 1.0, math.inf, 1.0)
    same = geometry.separation(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))
    assert (same.within, same.between) == pytest.approx((0, 0), abs=1e-15)


def test_a_class_of_one_image_counts_between_only() -> None:
    features = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    found = geometry.separation(features, torch.tensor([4, 4, 8]))
    assert (found.within, found.between) == pytest.approx((1.0, 1.5))


def test_effective_rank_of_known_spectra() -> None:
    basis = torch.linalg.qr(torch.cat([torch.ones(40, 1).double(), normal(40, 6)], 1)).Q[:, 1:]
    assert geometry.effective_rank(basis) == pytest.approx(6)  # centred, equal singular values
    values = torch.tensor([4.0, 2, 1, 1, 0, 0])
    bits = geometry.effective_rank(basis * values + 5)
    assert bits == pytest.approx(2**1.75)  # shares 1/2, 1/4, 1/8, 1/8
    assert geometry.effective_rank(basis[:, :1] @ normal(1, 9)) == pytest.approx(1, abs=1e-9)
    assert geometry.effective_rank(normal(4000, 16)) == pytest.approx(16, rel=0.01)
    assert geometry.effective_rank(normal(5, 30)) <= 4 + 1e-9
    assert math.isnan(geometry.effective_rank(torch.full((9, 3), 0.1)))


def test_effective_rank_ignores_rotation_scale_and_shift() -> None:
    x = normal(30, 5) * torch.arange(1, 6)
    turn = torch.linalg.qr(normal(5, 5, seed=1)).Q
    assert geometry.effective_rank(1e6 * (x @ turn) - 7) == pytest.approx(
        geometry.effective_rank(x)
    )


@pytest.mark.parametrize("t", [0.5, 2, 300])
@pytest.mark.parametrize("pairs", [1, 100, 1 << 24])
def test_uniformity_is_the_mean_over_pairs(
    t: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "_PAIRS", pairs)
    features = normal(37, 4)
    unit = features / features.norm(dim=1, keepdim=True)
    exact = torch.pdist(unit).square().mul(-t).exp().mean().log()
    assert geometry.uniformity(features, t) == pytest.approx(float(exact), rel=1e-10)
    assert geometry.uniformity(features.float(), t) == pytest.approx(float(exact), rel=1e-4)


def test_uniformity_of_known_sets() -> None:
    opposite = torch.tensor([[3.0, 0], [-1.0, 0]])
    assert geometry.uniformity(opposite) == pytest.approx(-8)  # distance 2, t = 2
    assert geometry.uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-6)


def test_alignment_is_the_mean_over_positive_pairs() -> None:
    a, b = normal(20, 5), normal(20, 5, seed=1)
    apart = [float((x / x.norm() - y / y.norm()).norm()) for x, y in zip(a, b, strict=True)]
    assert geometry.alignment(a, b) == pytest.approx(np.mean(np.square(apart)))
    assert geometry.alignment(a, b, alpha=1) == pytest.approx(np.mean(apart))
    assert geometry.alignment(a, 5 * a) == pytest.approx(0, abs=1e-12)
    assert geometry.alignment(a, -a) == pytest.approx(4)


def plain_nc1(features: Tensor, labels: Tensor) -> float:
    classes = labels.unique()
    means = torch.stack([features[labels == c].mean(0) for c in classes])
    centred = means - means.mean(0)
    between = centred.t() @ centred / len(classes)
    covariances = [torch.cov(features[labels == c].t(), correction=0) for c in classes]
    within = torch.stack(covariances).mean(0)
    inverse = torch.linalg.pinv(between, rtol=1e-10, hermitian=True)
    return float(torch.trace(within @ inverse)) / len(classes)


@pytest.mark.parametrize("d", [2, 3, 6, 40])  # fewer, as many and more axes than class means span
def test_nc1_is_the_trace_with_the_pseudo_inverse(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(d=d)
    found = geometry.nc1(features, labels)
    assert found == pytest.approx(plain_nc1(features, labels), rel=1e-8)
    assert geometry.nc1(features.float() * 1e3, labels) == pytest.approx(found, rel=1e-4)
    monkeypatch.setattr(geometry, "_BLOCK", 7)
    assert geometry.nc1(features, labels) == pytest.approx(found, rel=1e-10)


def test_collapse_to_a_simplex_has_nc1_and_nc2_of_nought() -> None:
    labels = torch.arange(60) % 6
    features = 5 * simplex(6, 10)[labels] + 3  # NC2 is about centred means
    assert geometry.nc1(features, labels) == pytest.approx(0, abs=1e-20)
    found = geometry.nc2(features, labels)
    assert (found.equinorm, found.equiangular, found.angle_gap) == pytest.approx(
        (0, 0, 0), abs=1e-12
    )
    less = [geometry.nc1(features + s * normal(60, 10), labels) for s in (0.1, 0.3, 1.0)]
    assert less == sorted(less)


def test_nc2_of_a_cross() -> None:
    # Means (1, 0), (-1, 0), (0, 2), (0, -2): norms 1 1 2 2; cosines -1 twice, 0 four times.
    means = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
    found = geometry.nc2(means.repeat(3, 1) + 1, torch.arange(12) % 4)
    assert found.equinorm == pytest.approx(1 / 3)
    assert found.equiangular == pytest.approx(math.sqrt(2) / 3)
    assert found.angle_gap == pytest.approx((2 * 2 / 3 + 4 * 1 / 3) / 6)


def test_two_classes_are_always_opposite() -> None:
    features, labels = clusters((5, 9))
    found = geometry.nc2(features, labels)
    assert (found.equinorm, found.equiangular, found.angle_gap) == pytest.approx(
        (0, 0, 0), abs=1e-12
    )


def test_equal_class_means_have_not_collapsed() -> None:
    same = torch.full((6, 3), 0.1)
    assert geometry.nc1(same, torch.arange(6) % 2) == math.inf
    assert math.isnan(geometry.nc2(same, torch.arange(6) % 2).equinorm)


@pytest.mark.parametrize("measure", [geometry.separation, geometry.nc1, geometry.nc2])
def test_mistakes_are_named(measure: Callable[[Tensor, Tensor], object]) -> None:
    x = normal(6, 3)
    with pytest.raises(UserError, match="one class"):
        measure(x, torch.zeros(6, dtype=torch.long))
    with pytest.raises(UserError, match="NaN or infinite"):
        measure(x / 0, torch.arange(6) % 2)
    with pytest.raises(ValueError, match=r"labels \[6\]"):
        measure(x, torch.arange(5) % 2)


def test_too_few_images_are_named() -> None:
    with pytest.raises(TooFew, match="at least 2 images"):
        geometry.separation(normal(3, 2), torch.arange(3))
    with pytest.raises(TooFew, match="at least 2 images"):
        geometry.uniformity(normal(1, 2))
    with pytest.raises(ValueError, match="one shape"):
        geometry.alignment(normal(3, 2), normal(4, 2))
