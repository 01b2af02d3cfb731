"""CKA against the textbook formulas in a plain double loop, and its invariances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eval.analysis.measures.cka import Cka, CkaSums, Kernel, linear_cka, rbf_cka
from eval.common.errors import TooFew, UserError

Batch = tuple[list[Tensor], list[Tensor]]


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def layers(n: int, widths: Sequence[int], seed: int) -> list[Tensor]:
    """ReLU features [n, P] of layers that share eight hidden causes, far from centred."""
    causes = normal(n, 8, seed=seed)
    return [
        torch.relu(causes @ normal(8, p, seed=p) + 0.7 * normal(n, p, seed=seed + p)) + 0.5
        for p in widths
    ]


def batches(sizes: Sequence[int] = (12, 12, 9), seed: int = 0) -> list[Batch]:
    return [
        (layers(n, (5, 9, 30), seed + 100 * i), layers(n, (7, 40), seed + 100 * i))
        for i, n in enumerate(sizes)
    ]


def summed(
    data: Sequence[Batch], kernel: Kernel = "linear", dtype: torch.dtype = torch.float64
) -> Cka:
    sums = CkaSums(len(data[0][0]), len(data[0][1]), kernel)
    for a, b in data:
        sums.add([x.to(dtype) for x in a], [x.to(dtype) for x in b])
    return sums.result()


def distances(x: np.ndarray) -> np.ndarray:
    return np.array([[np.linalg.norm(p - q) for q in x] for p in x])


def median(x: np.ndarray) -> float:
    """The lower median distance of two different images."""
    pairs = np.sort(distances(x)[np.triu_indices(len(x), 1)])
    return float(pairs[(len(pairs) - 1) // 2])


def textbook_kernel(x: Tensor, kernel: str, first: Tensor, sigma: float = 0.8) -> np.ndarray:
    values = x.double().numpy()
    if kernel == "linear":
        return values @ values.T
    length = sigma * median(first.double().numpy())
    return np.exp(-(distances(values) ** 2) / (2 * length**2))


def textbook_hsic_1(k: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, written down term by term."""
    n, one = len(k), np.ones(len(k))
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    whole = np.trace(k @ other) + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return float((whole - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3)))


def naive(data: Sequence[Batch], kernel: str = "linear") -> np.ndarray:
    """[La, Lb], each from its own loop over the batches."""
    first_a, first_b = data[0]
    out = np.zeros((len(first_a), len(first_b)))
    for i in range(len(first_a)):
        for j in range(len(first_b)):
            cross = own_a = own_b = 0.0
            for a, b in data:
                k = textbook_kernel(a[i], kernel, first_a[i])
                other = textbook_kernel(b[j], kernel, first_b[j])
                cross += len(k) * textbook_hsic_1(k, other)
                own_a += len(k) * textbook_hsic_1(k, k)
                own_b += len(k) * textbook_hsic_1(other, other)
            out[i, j] = cross / math.sqrt(own_a * own_b)
    return out


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sums_are_the_textbook_formula(kernel: Kernel) -> None:
    data = batches()
    found = summed(data, kernel)
    np.testing.assert_allclose(found.values, naive(data, kernel), rtol=0, atol=1e-12)
    assert (found.images, found.batches, found.constant) == (33, 3, ((), ()))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_float32_products_keep_six_digits(kernel: Kernel, shift: float) -> None:
    a = [normal(128, p, seed=p, dtype=torch.float32) + shift for p in (16, 512)]
    mixed = a[0] @ normal(16, 64, seed=1, dtype=torch.float32)
    data: list[Batch] = [(a, [mixed + normal(128, 64, seed=2, dtype=torch.float32)])]
    exact = summed(data, kernel).values  # the same float32 numbers, multiplied in float64
    np.testing.assert_allclose(summed(data, kernel, torch.float32).values, exact, rtol=0, atol=1e-6)


def test_half_precision_features_are_multiplied_in_float32() -> None:
    data = batches()
    rounded = [([x.bfloat16() for x in a], [x.bfloat16() for x in b]) for a, b in data]
    with torch.autocast("cpu", torch.bfloat16):
        found = summed(rounded, dtype=torch.bfloat16)
    np.testing.assert_allclose(found.values, summed(rounded).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_one_model_with_itself_is_that_model_twice(kernel: Kernel) -> None:
    data = [(a, a) for a, _ in batches()]
    once, twice = CkaSums(3, 3, kernel), CkaSums(3, 3, kernel)
    for a, _ in data:
        once.add(a, a)
        twice.add(a, list(a))
    found, copy = once.result(), twice.result()
    np.testing.assert_allclose(found.values, copy.values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.errors, copy.errors, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.values, found.values.T)
    np.testing.assert_allclose(found.values.diagonal(), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.errors.diagonal(), 0, rtol=0, atol=1e-12)


def test_swapping_the_models_transposes() -> None:
    data = batches()
    there, back = summed(data), summed([(b, a) for a, b in data])
    np.testing.assert_allclose(there.values, back.values.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(there.errors, back.errors.T, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 20),
    p=st.integers(1, 12),
    scale=st.floats(-12, 12).map(lambda e: 10.0**e),
    kernel=st.sampled_from(["linear", "rbf"]),
    seed=st.integers(0, 1000),
)
def test_rotation_scale_and_shift_change_nothing(
    n: int, p: int, scale: float, kernel: Kernel, seed: int
) -> None:
    x, y = normal(n, p, seed=seed), normal(n, 6, seed=seed + 1)
    y[:, 0] += x[:, 0]
    turn = torch.linalg.qr(normal(p, p, seed=seed + 2)).Q
    moved = scale * (x @ turn + 3)
    before = summed([([x, x, y], [y, x])], kernel).values
    after = summed([([moved, x, y], [y, moved])], kernel).values
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-7)
    assert np.abs(before).max() <= 1
    biased = linear_cka if kernel == "linear" else rbf_cka
    assert biased(moved, y) == pytest.approx(biased(x, y), abs=1e-8)
    assert biased(moved, x) == pytest.approx(1, abs=1e-8)
    assert -1e-12 <= biased(x, y) <= 1 + 1e-12
    assert biased(y, x) == pytest.approx(biased(x, y), abs=1e-12)


def test_noise_is_unlike_only_without_bias() -> None:
    # Layers far wider than the batch: the plain CKA of independent noise is near 1.
    data: list[Batch] = [
        ([normal(32, 1000, seed=2 * i)], [normal(32, 1000, seed=2 * i + 1)]) for i in range(20)
    ]
    assert linear_cka(data[0][0][0], data[0][1][0]) > 0.9
    found = summed(data)
    assert abs(found.values[0, 0]) < 0.05
    assert abs(found.values[0, 0]) < 4 * found.errors[0, 0] < 0.1


def test_small_batches_tell_what_all_images_at_once_do() -> None:
    a, b = layers(1200, (20,), seed=3), layers(1200, (30,), seed=3)
    whole = summed([(a, b)]).values[0, 0]
    parts = list(zip(a[0].split(40), b[0].split(40), strict=True))
    found = summed([([x], [y]) for x, y in parts])
    assert found.values[0, 0] == pytest.approx(whole, abs=4 * found.errors[0, 0])
    assert 0 < found.errors[0, 0] < 0.03
    biased = np.mean([linear_cka(x, y) for x, y in parts])
    assert abs(biased - whole) > 2 * abs(found.values[0, 0] - whole)


def test_errors_are_the_jackknife_written_out() -> None:
    data = batches((10, 14, 8, 11))
    left_out = np.stack([naive(data[:i] + data[i + 1 :]) for i in range(4)])
    spread = np.sqrt(3 / 4 * ((left_out - left_out.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(summed(data).errors, spread, rtol=1e-9)


def test_jackknife_errors_are_the_spread_of_repeats() -> None:
    found = [summed(batches((12,) * 12, seed=10_000 * r)) for r in range(30)]
    spread = np.std([f.values for f in found], axis=0)
    typical = np.mean([f.errors for f in found], axis=0)
    np.testing.assert_array_less(0.5 * spread, typical)
    np.testing.assert_array_less(typical, 2 * spread)


def test_one_batch_has_no_error() -> None:
    assert np.isnan(summed(batches((12,))).errors).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_layers_are_named(kernel: Kernel, dtype: torch.dtype) -> None:
    data = batches()
    # 0.1 has no exact mean; and a layer that is off at first counts from where it is not.
    late = [torch.zeros(12, 3), torch.zeros(12, 3), normal(9, 3, seed=1)]
    with_dead = [
        ([a[0], torch.full((len(a[0]), 6), 0.1), a[2]], [b[0], late[i], b[1]])
        for i, (a, b) in enumerate(data)
    ]
    found = summed(with_dead, kernel, dtype)
    assert found.constant == ((1,), ())
    assert np.isnan(found.values[1]).all()
    assert np.isfinite(found.values[[0, 2]]).all()
    expected = summed(data, kernel, dtype).values
    np.testing.assert_allclose(found.values[[0, 2]][:, [0, 2]], expected[[0, 2]], atol=1e-6)


def test_images_all_alike_apart_have_no_unbiased_cka() -> None:
    # One axis per image: all pairs are equally far, nothing is left to align.
    eye = torch.eye(64)
    found = summed([([eye], [normal(64, 5, seed=0)])], dtype=torch.float32)
    assert found.constant == ((0,), ())


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_float32_neither_over_nor_underflows(scale: float) -> None:
    data = batches()
    scaled = [([x * scale for x in a], b) for a, b in data]
    for kernel in ("linear", "rbf"):
        found = summed(scaled, kernel, torch.float32).values
        np.testing.assert_allclose(found, summed(data, kernel).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("p", "q"), [(3, 5), (40, 60)])  # by features, by kernels
def test_linear_cka_is_the_centred_textbook_formula(p: int, q: int) -> None:
    x, y = normal(25, p, seed=0) + 4, normal(25, q, seed=1)
    y[:, :3] += x[:, :3]
    centre = np.eye(25) - 1 / 25
    k, other = (centre @ (v @ v.T) @ centre for v in (x.numpy(), y.numpy()))
    expected = np.trace(k @ other) / math.sqrt(np.trace(k @ k) * np.trace(other @ other))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(x.float(), y.float()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.2, 0.8])
def test_rbf_cka_is_the_centred_textbook_formula(sigma: float) -> None:
    x, y = layers(25, (4, 7), seed=5)
    centre = np.eye(25) - 1 / 25
    k, other = (centre @ textbook_kernel(v, "rbf", v, sigma) @ centre for v in (x, y))
    expected = np.trace(k @ other) / math.sqrt(np.trace(k @ k) * np.trace(other @ other))
    assert rbf_cka(x, y, sigma) == pytest.approx(expected, abs=1e-12)


def test_constant_features_have_no_cka() -> None:
    x, dead = normal(9, 3, seed=0), torch.full((9, 3), 0.1)
    assert math.isnan(linear_cka(x, dead))
    assert math.isnan(rbf_cka(x, dead))


def test_mistakes_are_named() -> None:
    x = normal(6, 3, seed=0)
    sums = CkaSums(1, 2)
    with pytest.raises(TooFew, match="at least 4 images per batch, got 3"):
        sums.add([x[:3]], [x[:3], x[:3]])
    with pytest.raises(UserError, match="layer 1 of model b holds NaN"):
        sums.add([x], [x, x / 0])
    with pytest.raises(TooFew, match="at least one batch"):
        sums.result()  # the refused batches left nothing behind
    with pytest.raises(UserError, match="unknown kernel 'rfb'; did you mean 'rbf'"):
        CkaSums(1, 1, "rfb")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(UserError, match="sigma must be above 0"):
        CkaSums(1, 1, "rbf", sigma=0)
    with pytest.raises(TooFew, match="at least 2 images"):
        linear_cka(x[:1], x[:1])
    with pytest.raises(ValueError, match="layers"):
        sums.add([x, x], [x, x])
    with pytest.raises(ValueError, match="same n images"):
        sums.add([x], [x, x[:5]])
    own = CkaSums(1, 1)
    own.add(pair := [x], pair)
    with pytest.raises(ValueError, match="always or never"):
        own.add([x], [x])
