"""The head against scikit-learn, leave-one-out against refits, the temperature against a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from space.demo import classifier
from space.demo.classifier import (
    Head,
    fit_head,
    fit_temperature,
    leave_one_out,
    nearest,
    normalised,
    predict,
    prior_temperature,
)


def cloud(
    ways: int, shots: int, dim: int, seed: int = 0, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Noisy classes, [ways * shots, dim] and labels."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(ways).repeat_interleave(shots)
    centres = torch.randn(ways, dim, generator=g)
    x = centres[labels] + spread * torch.randn(len(labels), dim, generator=g)
    return x * 7, labels


def names(ways: int) -> list[str]:
    return [f"c{i}" for i in range(ways)]


def sklearn_logits(x: Tensor, y: Tensor, queries: Tensor, c: float) -> Tensor:
    """log-probabilities of scikit-learn's converged fit."""
    model = LogisticRegression(C=c, tol=1e-10, max_iter=20_000)
    model.fit(normalised(x.double()).numpy(), y.numpy())
    return torch.from_numpy(model.predict_log_proba(normalised(queries.double()).numpy()))


@pytest.mark.parametrize(
    ("ways", "shots", "dim", "c"),
    [(5, 5, 64, 1.0), (2, 1, 16, 1.0), (2, 8, 5, 1.0), (10, 3, 512, 1.0), (3, 20, 8, 30.0)],
)
def test_the_head_is_scikit_learns(ways: int, shots: int, dim: int, c: float) -> None:
    x, y = cloud(ways, shots, dim)
    queries, _ = cloud(ways, 4, dim, seed=1)
    head = fit_head(x, y, names(ways), c)
    uncalibrated = Head(head.weight, head.bias, 1.0, head.classes, None, None)
    found = predict(uncalibrated, queries)
    assert torch.allclose(found.double(), sklearn_logits(x, y, queries, c).exp(), atol=2e-5)
    assert head.weight.shape == (ways, dim)
    assert (head.weight.dtype, head.bias.dtype) == (torch.float32, torch.float32)


def refits(x: Tensor, y: Tensor, c: float, groups: Tensor | None = None) -> Tensor:
    """Leave-one-out probabilities by scikit-learn, one fit a picture, at the support's priors."""
    group = torch.arange(len(x)) if groups is None else groups
    rows = []
    for i, own in enumerate(group.tolist()):
        kept = group != own
        rows.append(
            sklearn_logits(x[kept], y[kept], x[i : i + 1], c)
            + torch.log(torch.bincount(y) / torch.bincount(y[kept]))
        )
    return torch.cat(rows).softmax(1)


@pytest.mark.parametrize(
    ("ways", "shots", "dim", "c"), [(5, 5, 64, 1.0), (2, 9, 3, 1.0), (4, 3, 40, 10.0)]
)
def test_leave_one_out_is_one_refit_for_each_picture(
    ways: int, shots: int, dim: int, c: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = cloud(ways, shots, dim, spread=3.0)
    expected = refits(x, y, c)
    found = leave_one_out(normalised(x.double()), y, ways, c)
    assert found is not None
    assert torch.allclose(found.softmax(1), expected, atol=2e-5)
    head = fit_head(x, y, names(ways), c)
    right = int((expected.argmax(1) == y).sum())
    assert 0 < right < len(y)  # else the comparison says little
    assert head.loo_top1 == right / len(y)
    monkeypatch.setattr(classifier, "_STACK_BYTES", 1)  # one refit at a time
    alone = leave_one_out(normalised(x.double()), y, ways, c)
    assert alone is not None
    assert torch.allclose(alone, found, atol=1e-6)


@given(power=st.integers(-110, 110))
@settings(max_examples=25, deadline=None)
def test_answers_are_the_same_at_any_length(power: int) -> None:
    """To the bit. The squares of such features are outside of float32 from 2 ** 64 on."""
    x, y = cloud(3, 4, 16, seed=2)
    queries, _ = cloud(3, 2, 16, seed=3)
    length = 2.0**power
    head, other = fit_head(x, y, names(3)), fit_head(x * length, y, names(3))
    assert torch.equal(other.weight, head.weight)
    assert (other.temperature, other.loo_top1) == (head.temperature, head.loo_top1)
    assert torch.equal(predict(other, queries * length), predict(head, queries))
    found, expected = nearest(x * length, queries * length, 2), nearest(x, queries, 2)
    assert all(map(torch.equal, found, expected))
    assert predict(head, queries).std() > 0.01


def test_a_row_of_zeros_stays_and_what_is_no_number_is_refused() -> None:
    found = normalised(torch.tensor([[0.0, 0.0], [3e-30, 4e-30]]))
    assert found.tolist() == [[0, 0], pytest.approx([0.6, 0.8])]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="NaN or infinity"):
            normalised(torch.tensor([[0.0, bad]]))


@pytest.mark.parametrize("shots", [[5] * 5, [3, 3], [3, 4, 6, 9]])
def test_the_estimate_is_that_of_fresh_pictures(shots: list[int]) -> None:
    """Features whose common part dwarfs their differences, as real backbones': there the bare
    refits are always wrong, as each has seen its own class less than the others."""
    ways, errors = len(shots), []
    for seed in range(15):
        g = torch.Generator().manual_seed(seed)
        common, centres = 6 * torch.ones(24), torch.randn(ways, 24, generator=g)
        y = torch.arange(ways).repeat_interleave(torch.tensor(shots))
        t = y.repeat(10)
        x, q = (common + 0.6 * centres[c] + torch.randn(len(c), 24, generator=g) for c in (y, t))
        head = fit_head(x, y, names(ways))
        assert head.loo_top1 is not None
        truth = float((predict(head, q).argmax(1) == t).double().mean())
        errors.append(head.loo_top1 - truth)
    assert abs(float(np.mean(errors))) < 0.1


def test_copies_are_left_out_together() -> None:
    x, y = cloud(3, 4, 32, spread=30.0)  # noise: nothing to learn
    doubled, labels = torch.cat([x, x]), torch.cat([y, y])
    groups = torch.arange(len(x)).repeat(2) * 7 + 3  # any numbers
    apart = fit_head(doubled, labels, names(3), 100.0).loo_top1
    together = fit_head(doubled, labels, names(3), 100.0, groups).loo_top1
    assert apart == 1.0  # its copy gives each one away
    assert together is not None
    assert together <= 0.6
    expected = refits(doubled, labels, 100.0, groups)
    found = leave_one_out(normalised(doubled.double()), labels, 3, 100.0, groups)
    assert found is not None
    assert torch.allclose(found.softmax(1), expected, atol=2e-5)


def test_groups_of_different_sizes() -> None:
    x, y = cloud(3, 5, 20, spread=2.0)
    groups = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 10, 2])  # one spans two classes
    found = leave_one_out(normalised(x.double()), y, 3, 1.0, groups)
    expected = refits(x, y, 1.0, groups)
    assert found is not None
    assert torch.allclose(found.softmax(1), expected, atol=2e-5)


def test_no_estimate_where_a_class_cannot_be_left_out() -> None:
    x, y = cloud(3, 4, 16)
    assert fit_head(x, y, names(3)).loo_top1 is not None
    single = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8])  # class 2 keeps one picture
    head = fit_head(x[single], y[single], names(3))
    assert (head.loo_top1, head.loo_interval, head.loo_right) == (None, None, ())
    assert head.temperature == pytest.approx(
        math.exp(-2.170 + 0.235 * math.log(3) + 0.196 * math.log(3))
    )
    copies = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8])
    assert fit_head(x, y, names(3), groups=copies).loo_top1 is None


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 8), st.floats(0.01, 50), st.integers(0, 10_000))
def test_the_temperature_is_the_most_probable_one(
    ways: int, shots: int, scale: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(ways).repeat_interleave(shots)
    n = len(labels)
    logits = torch.randn(n, ways, generator=g, dtype=torch.float64) * scale
    logits[torch.arange(n), labels] += scale
    at = math.log(prior_temperature(n, ways))

    def lost(log_t: float) -> float:
        """Minus the logarithm of the posterior, written out with plain numbers."""
        total = (log_t - at) ** 2 / (2 * classifier.PRIOR_SPREAD**2)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            scaled = [x / math.exp(log_t) for x in row]
            peak = max(scaled)
            whole = peak + math.log(sum(math.exp(x - peak) for x in scaled))
            for i, x in enumerate(scaled):
                share = (n + 1) / (n + 2) if i == label else 1 / (n + 2) / (ways - 1)
                total += share * (whole - x)
        return total

    t = fit_temperature(logits, labels, ways)
    assert 0.00499 < t < 20.001
    # no worse than any other, but for the step of the grid
    assert (
        lost(math.log(t))
        <= min(lost(x) for x in np.linspace(np.log(0.005), np.log(20), 150)) + 0.02
    )


def test_few_pictures_stay_near_the_prior_and_many_leave_it() -> None:
    at = prior_temperature(6, 3)
    assert fit_temperature(None, torch.arange(3).repeat(2), 3) == at
    # logits at which T = 3 would be right: labels drawn from their softmax
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3000, 3, generator=g, dtype=torch.float64) * 6
    labels = torch.multinomial((logits / 3).softmax(1), 1, generator=g)[:, 0]
    few, many = (fit_temperature(logits[:n], labels[:n], 3) for n in (3, 3000))
    assert abs(math.log(few / 3)) > abs(math.log(many / 3))
    assert many == pytest.approx(3, rel=0.1)
    # all right by far: not certain all the same
    sure = torch.full((6, 3), -1.0, dtype=torch.float64)
    sure[torch.arange(6), torch.arange(6) % 3] = 1.0
    t = fit_temperature(sure, torch.arange(6) % 3, 3)
    assert 0.9 < float((sure / t).softmax(1).max()) < 0.9999


def test_calibrated_probabilities_are_nearer_the_truth() -> None:
    """C = 1 on unit vectors is far too timid: on fresh pictures the temperature must help."""
    losses = []
    for seed in range(5):
        x, y = cloud(5, 9, 64, seed, spread=1.2)
        fit = torch.arange(45) % 9 < 5
        head = fit_head(x[fit], y[fit], names(5))
        plain = Head(head.weight, head.bias, 1.0, head.classes, None, None)
        q, truth = x[~fit], y[~fit]
        losses.append(
            [-float(predict(h, q).log()[torch.arange(20), truth].mean()) for h in (head, plain)]
        )
        assert torch.equal(predict(head, q).argmax(1), predict(plain, q).argmax(1))
        # Never certain: 25 right answers of 25 do not show a probability of 1.
        assert float(predict(head, q).max()) < 0.9999
    calibrated, plain_loss = np.mean(losses, axis=0)
    assert calibrated < 0.6 * plain_loss


def test_probabilities() -> None:
    x, y = cloud(4, 3, 16)
    head = fit_head(x, y, names(4))
    p = predict(head, x[:5])
    assert p.shape == (5, 4)
    assert torch.allclose(p.sum(1), torch.ones(5))
    assert predict(head, x[:0]).shape == (0, 4)
    assert torch.allclose(predict(head, x[:5] * 100), p, atol=1e-5)  # length does not count


def test_nearest() -> None:
    x, _ = cloud(4, 3, 16)
    similarity, index = nearest(x, x * 3, 3)
    assert index[:, 0].tolist() == list(range(12))
    assert torch.allclose(similarity[:, 0], torch.ones(12), atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    assert torch.allclose(similarity, cosine.topk(3).values, atol=1e-5)
    assert nearest(x[:2], x, 3)[1].shape == (12, 2)
    same = x[:1].expand(5, -1)
    assert nearest(same, x[:1], 3)[1].tolist() == [[0, 1, 2]]
    assert nearest(torch.zeros(2, 16), x[:1], 1)[0].tolist() == [[0.0]]


def test_hard_inputs() -> None:
    zeros = torch.zeros(6, 8)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    p = predict(fit_head(zeros, y, names(2)), zeros)
    assert torch.allclose(p, torch.full((6, 2), 0.5), atol=1e-4)
    x, y = cloud(10, 20, 24)  # more pictures than dimensions, the page's largest set
    assert fit_head(x.half(), y, names(10)).loo_top1 is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x, y: (x[0], y),
        lambda x, y: (x, y[:-1]),
        lambda x, y: (x.long(), y),
        lambda x, y: (x, y.clamp_max(1)),  # class 2 is empty
        lambda x, y: (x, y + 1),
        lambda x, y: (x.index_fill(0, torch.tensor([1]), float("nan")), y),
        lambda x, y: (x.index_fill(0, torch.tensor([1]), float("inf")), y),
    ],
)
def test_what_makes_no_sense_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    x, y = spoil(*cloud(3, 3, 8))
    with pytest.raises(ValueError, match=r"features|class"):
        fit_head(x, y, names(3))
