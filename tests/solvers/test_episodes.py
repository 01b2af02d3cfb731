"""The batched episode solver beside plain loops: scikit-learn, scipy and class means one by one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from eval.solvers import episodes
from eval.solvers.episodes import Classifier, episode_predictions, fit_logreg


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny problems: threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


ALL: tuple[Classifier, ...] = ("logreg", "centroid", "cosine")


def draw(
    n_episodes: int,
    ways: int,
    shots: int,
    queries: int,
    dim: int,
    noise: float = 2.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU-shaped features [N, D] of ways + 2 classes, with support and query rows of episodes.

    No ReLU below 4 dimensions, where it would leave mostly zero vectors, that is, ties.
    """
    g = torch.Generator().manual_seed(seed)
    classes, per = ways + 2, shots + queries + 3
    means = torch.randn(classes, 1, dim, generator=g)
    x = (means + noise * torch.randn(classes, per, dim, generator=g)).view(-1, dim)
    x = x.relu() if dim >= 4 else x
    support, query = [], []
    for _ in range(n_episodes):
        chosen = torch.randperm(classes, generator=g)[:ways]
        rows = torch.stack([w * per + torch.randperm(per, generator=g) for w in chosen])
        support.append(rows[:, :shots])
        query.append(rows[:, shots : shots + queries])
    return x, torch.stack(support), torch.stack(query)


def unit(x: Tensor) -> np.ndarray:
    """The product's normalisation, in float64."""
    x = x.double()
    return (x / x.norm(dim=-1, keepdim=True)).nan_to_num(0).numpy()


def objective(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray, c: float) -> float:
    """scikit-learn's: c * sum CE + penalty; for two ways the penalty is on w1 - w0 only."""
    z = x @ w.T + b
    penalty = ((w[1] - w[0]) ** 2).sum() if len(w) == 2 else (w**2).sum()
    return float(c * (logsumexp(z, axis=1) - z[np.arange(len(y)), y]).sum() + penalty / 2)


def tight(x: np.ndarray, y: np.ndarray, ways: int, c: float) -> tuple[np.ndarray, np.ndarray]:
    """The optimum by scipy in float64, far below any tolerance under test."""
    n, d = x.shape
    one_hot, free = np.eye(ways)[y], 2.0 if ways == 2 else 1.0

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = theta[: ways * d].reshape(ways, d), theta[ways * d :]
        z = x @ w.T + b
        r = c * (softmax(z, axis=1) - one_hot)
        value = c * (logsumexp(z, axis=1) - (z * one_hot).sum(1)).sum() + free * (w**2).sum() / 2
        return value, np.concatenate([(r.T @ x + free * w).ravel(), r.sum(0)])

    options = {"maxiter": 50_000, "maxfun": 100_000, "gtol": 1e-9 * c * n, "ftol": 1e-15}
    theta = minimize(loss, np.zeros(ways * (d + 1)), jac=True, method="L-BFGS-B", options=options).x
    return theta[: ways * d].reshape(ways, d), theta[ways * d :]


def gradient_norm(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray, c: float) -> float:
    """2-norm of the gradient of the objective / (c n), what TOLERANCE bounds."""
    ways, free = len(w), 2.0 if len(w) == 2 else 1.0
    r = c * (softmax(x @ w.T + b, axis=1) - np.eye(ways)[y])
    g = np.concatenate([(r.T @ x + free * w).ravel(), r.sum(0)])
    # Two ways: the solver's own form is the softmax form with c / 2, half of this gradient and
    # of c alike, so the ratio is the same.
    return float(np.linalg.norm(g) / (c * len(x)))


class Looped(NamedTuple):
    way: Tensor  # [E, W * Q] the winner
    lead: Tensor  # [E, W * Q] its score minus the runner-up's

    def agreement(self, got: Tensor, tie: float = 1e-5) -> float:
        """Share of equal predictions, leaving out exact ties, which rounding alone decides.

        Ties come from zero or identical vectors; most queries must remain.
        """
        clear = self.lead > tie
        assert clear.double().mean() > 0.5
        return float((got == self.way)[clear].double().mean())


def looped(scores: list[np.ndarray]) -> Looped:
    """From one [W * Q, W] score matrix per episode."""
    stacked = torch.from_numpy(np.stack(scores))
    top = stacked.topk(2, dim=2)
    return Looped(stacked.argmax(2), top.values[:, :, 0] - top.values[:, :, 1])


def loop_sklearn(x: Tensor, support: Tensor, query: Tensor, k: int, c: float, tol: float) -> Looped:
    """One scikit-learn fit after the other."""
    rows, ways, out = unit(x), support.shape[1], []
    y = np.repeat(np.arange(ways), k)
    # A tight tol may end on scipy's rounding message.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        for s, q in zip(support, query, strict=True):
            model = LogisticRegression(C=c, max_iter=1000, tol=tol)
            model.fit(rows[s[:, :k].reshape(-1)], y)
            score = model.decision_function(rows[q.reshape(-1)])
            out.append(np.stack([-score / 2, score / 2], 1) if ways == 2 else score)
    return looped(out)


def loop_means(x: Tensor, support: Tensor, query: Tensor, k: int, name: Classifier) -> Looped:
    """Explicit distances to explicit means."""
    rows, out = unit(x), []
    for s, q in zip(support.numpy(), query.numpy(), strict=True):
        means = np.stack([rows[way[:k]].mean(0) for way in s])
        scores = np.empty((q.size, len(means)))
        for i, row in enumerate(rows[q.reshape(-1)]):
            for w, m in enumerate(means):
                norm = np.linalg.norm(m)
                if name == "centroid":
                    scores[i, w] = -np.linalg.norm(row - m)
                else:
                    scores[i, w] = row @ m / norm if norm > 0 else 0.0
        out.append(scores)
    return looped(out)


# ways, largest shots, dim: K = 1, W = 2, W = 20, n > D, D = 3 and D = 2 are all here.
SHAPES = [(5, 5, 64), (2, 5, 32), (2, 1, 3), (20, 2, 128), (5, 1, 256), (5, 20, 16), (3, 30, 2)]


@pytest.mark.parametrize(("ways", "shots", "dim"), SHAPES)
@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
def test_logreg_predicts_what_sklearn_predicts(ways: int, shots: int, dim: int, c: float) -> None:
    x, support, query = draw(12, ways, shots, 10, dim)
    got = episode_predictions(x, support, query, [shots], ["logreg"], c)[shots, "logreg"]
    want = loop_sklearn(x, support, query, shots, c, tol=1e-8)
    assert want.agreement(got) >= 0.995
    # At its default tolerance scikit-learn is off its own optimum by this much; we are not further.
    loose = loop_sklearn(x, support, query, shots, c, tol=1e-4)
    assert loose.agreement(got) >= loose.agreement(want.way) - 0.005


@pytest.mark.parametrize("shots", [5, 20])
def test_logreg_agrees_with_the_default_call_on_wide_features(shots: int) -> None:
    """The claim users read: at least 99 % identical to LogisticRegression(max_iter=1000)."""
    x, support, query = draw(20, 5, shots, 15, 1024, noise=5.0)
    got = episode_predictions(x, support, query, [shots], ["logreg"])[shots, "logreg"]
    assert loop_sklearn(x, support, query, shots, 1.0, tol=1e-4).agreement(got, tie=0) >= 0.99


def test_logreg_is_hard_to_guess() -> None:
    """The agreement above means something only when the episodes are neither easy nor noise."""
    x, support, query = draw(40, 5, 5, 15, 64)
    got = episode_predictions(x, support, query, [5], ["logreg"])[5, "logreg"]
    accuracy = (got == torch.arange(5).repeat_interleave(15)).double().mean()
    assert 0.35 < accuracy < 0.85


@pytest.mark.parametrize(("ways", "shots", "dim"), SHAPES)
@pytest.mark.parametrize("c", [1e-6, 0.1, 1.0, 30.0, 1e4])
def test_fit_reaches_the_tight_optimum(ways: int, shots: int, dim: int, c: float) -> None:
    x, support, _ = draw(4, ways, shots, 1, dim, seed=1)
    rows = unit(x)[support.reshape(4, -1).numpy()]  # [4, n, D]
    y = np.repeat(np.arange(ways), shots)
    weights, bias = fit_logreg(
        torch.from_numpy(rows).float(), torch.from_numpy(y).expand(4, -1), ways, c
    )
    assert weights.shape == (4, ways, dim)
    assert bias.shape == (4, ways)
    for own, w, b in zip(rows, weights.double().numpy(), bias.double().numpy(), strict=True):
        best = objective(own, y, *tight(own, y, ways, c), c)
        got = objective(own, y, w, b, c)
        # 1e-4 of the scaled gradient squared, times the flattest curvature the penalty leaves.
        assert got - best <= 2e-6 * best + 0.5 * (1e-4 * c * len(y)) ** 2
        assert gradient_norm(own, y, w, b, c) <= 1.1 * episodes.TOLERANCE + 1e-6


def test_fit_takes_unbalanced_labels_and_raw_features() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(3, 40, 10, generator=g) * 7 + 3
    y = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 120, True, generator=g).view(3, 40)
    weights, bias = fit_logreg(x, y, 3)
    for i in range(3):
        own, label = x[i].double().numpy(), y[i].numpy()
        best = objective(own, label, *tight(own, label, 3, 1.0), 1.0)
        got = objective(own, label, weights[i].double().numpy(), bias[i].double().numpy(), 1.0)
        assert got <= best * (1 + 1e-5)


def test_tighter_tolerance_comes_closer() -> None:
    x, support, _ = draw(6, 5, 5, 1, 64)
    rows = unit(x)[support.reshape(6, -1).numpy()]
    y = np.repeat(np.arange(5), 5)
    norms = []
    for tolerance in (1e-2, 1e-5, 1e-9):
        w, b = fit_logreg(
            torch.from_numpy(rows), torch.from_numpy(y).expand(6, -1), 5, tolerance=tolerance
        )
        norms.append(
            max(gradient_norm(rows[i], y, w[i].numpy(), b[i].numpy(), 1.0) for i in range(6))
        )
        assert norms[-1] <= tolerance * 1.001
    assert norms[0] > 1e-5  # the loose run did stop early


@pytest.mark.parametrize("name", ["centroid", "cosine"])
@pytest.mark.parametrize(("ways", "shots", "dim"), SHAPES)
def test_means_match_plain_loops(name: Classifier, ways: int, shots: int, dim: int) -> None:
    x, support, query = draw(6, ways, shots, 8, dim)
    for k in {1, shots}:
        got = episode_predictions(x.double(), support, query, [k], [name])[k, name]
        assert loop_means(x, support, query, k, name).agreement(got, tie=1e-12) == 1


def test_centroid_and_cosine_differ() -> None:
    x, support, query = draw(30, 5, 5, 15, 16)
    out = episode_predictions(x, support, query, [5])
    assert not torch.equal(out[5, "centroid"], out[5, "cosine"])


@pytest.mark.parametrize("dim", [64, 12])  # 12: one shot count fits the Gram route, one does not
def test_nested_shots_equal_separate_calls(dim: int) -> None:
    x, support, query = draw(10, 5, 10, 8, dim)
    x = x.double()
    together = episode_predictions(x, support, query, [10, 1, 2])
    assert set(together) == {(k, name) for k in (1, 2, 10) for name in ALL}
    for k in (1, 2, 10):
        for name in ALL:
            alone = episode_predictions(x, support[:, :, :k], query, [k], [name])[k, name]
            assert torch.equal(together[k, name], alone)


@pytest.mark.parametrize("dim", [64, 12])
def test_chunks_do_not_matter(dim: int) -> None:
    x, support, query = draw(23, 5, 5, 8, dim)
    x = x.double()
    whole = episode_predictions(x, support, query, [1, 5])
    for solve, gather in [(1, 1), (40_000, 1), (10**9, 30_000)]:
        parts = episode_predictions(
            x, support, query, [1, 5], solve_bytes=solve, gather_bytes=gather
        )
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    alone = episode_predictions(x, support[7:8], query[7:8], [1, 5])
    assert all(torch.equal(whole[key][7:8], alone[key]) for key in whole)


@pytest.mark.parametrize("dim", [3, 64])
def test_duplicates_and_zero_vectors(dim: int) -> None:
    x, support, query = draw(8, 4, 5, 6, dim)
    zero = len(x)
    x = torch.cat([x, torch.zeros(1, dim)])
    support[0] = zero  # a whole support of zeros
    support[1, :, 1:] = support[1, :, :1]  # one image five times per way
    support[2] = support[2, 0, 0]  # one image for every way: nothing to learn
    support[3, 0, 0] = query[3] = zero
    out = episode_predictions(x.double(), support, query, [1, 5])
    for (k, name), got in out.items():
        assert got.shape == (8, 24)
        assert int(got.min()) >= 0
        assert int(got.max()) < 4
        if name == "logreg":
            want = loop_sklearn(x, support[4:], query[4:], k, 1.0, tol=1e-9)
            assert want.agreement(got[4:]) >= 0.99
    want = loop_sklearn(x, support[1:2], query[1:2], 5, 1.0, tol=1e-9)
    assert want.agreement(out[5, "logreg"][1:2]) >= 0.95


def test_half_precision_and_memory_maps(tmp_path: object) -> None:
    x, support, query = draw(10, 5, 5, 10, 64)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = x.to(dtype)
        got = episode_predictions(rounded, support, query, [5])
        want = episode_predictions(rounded.float(), support, query, [5])
        assert all(torch.equal(got[key], want[key]) for key in want)
    path = f"{tmp_path}/x.npy"
    np.save(path, x.numpy())
    mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
    got, want = (episode_predictions(t, support, query, [5]) for t in (mapped, x))
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_extreme_c_and_large_episodes_stay_finite() -> None:
    x, support, query = draw(4, 5, 10, 5, 8, noise=0.1)  # separable
    for c in (1e-8, 1e8):
        got = episode_predictions(x, support, query, [1, 10], ["logreg"], c)
        assert (got[10, "logreg"] == torch.arange(5).repeat_interleave(5)).double().mean() > 0.9
    x, support, query = draw(2, 100, 5, 1, 32, noise=0.3)
    got = episode_predictions(x, support, query, [5], ["logreg"])
    want = loop_sklearn(x, support, query, 5, 1.0, tol=1e-8)
    assert want.agreement(got[5, "logreg"]) >= 0.99


def test_line_search_backtracks_to_a_decrease() -> None:
    """A direction thirty times too long must be cut, not taken."""
    y = torch.eye(2, dtype=torch.float64)[None]
    a = torch.zeros_like(y)
    p, value = episodes._loss(a, a, y, 1.0)
    r = a + p - y
    d, active = -30 * r, torch.ones(1, 1, 1, dtype=torch.bool)
    a_next, _, _, next_value, moved = episodes._line_search(
        a, a, y, 1.0, d, d, episodes._dot(r, d), p, value, active
    )
    assert moved.all()
    assert float(next_value) < float(value)
    assert not torch.equal(a_next, d)


@settings(max_examples=40, deadline=None)
@given(
    ways=st.integers(2, 7),
    shots=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    queries=st.integers(1, 4),
    dim=st.integers(2, 40),
    n_episodes=st.integers(1, 5),
    c=st.sampled_from([0.01, 1.0, 100.0]),
    seed=st.integers(0, 2**16),
)
def test_any_shape(
    ways: int, shots: Sequence[int], queries: int, dim: int, n_episodes: int, c: float, seed: int
) -> None:
    """Any shape gives every key; means match the loops; logreg is a near-optimum of its problem."""
    x, support, query = draw(n_episodes, ways, max(shots), queries, dim, seed=seed)
    x = x.double()
    out = episode_predictions(x, support, query, shots, c=c)
    assert set(out) == {(k, name) for k in shots for name in ALL}
    for k in set(shots):
        means = loop_means(x, support, query, k, "centroid")
        clear = means.lead > 1e-9
        assert torch.equal(out[k, "centroid"][clear], means.way[clear])
        rows = unit(x)
        own = rows[support[:, :, :k].reshape(n_episodes, -1).numpy()]
        y = np.repeat(np.arange(ways), k)
        w, b = fit_logreg(
            torch.from_numpy(own), torch.from_numpy(y).expand(n_episodes, -1), ways, c
        )
        asked = torch.from_numpy(rows[query.reshape(n_episodes, -1).numpy()])
        scores = asked @ w.transpose(1, 2) + b[:, None]
        # Equal up to exact ties (identical zero rows), which rounding may break either way.
        chosen = scores.gather(2, out[k, "logreg"][:, :, None])[:, :, 0]
        assert torch.all(chosen >= scores.amax(2) - 1e-9)
        for i in range(n_episodes):
            norm = gradient_norm(own[i], y, w[i].numpy(), b[i].numpy(), c)
            assert norm <= 1.01 * episodes.TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": [6]}, "shots must be 1..5"),
        ({"shots": [0]}, "shots must be 1..5"),
        ({"shots": []}, "shots must be 1..5"),
        ({"classifiers": ["svm"]}, "svm"),
        ({"c": 0.0}, "c must be above 0"),
        ({"features": torch.zeros(3, dtype=torch.int64)}, "features must be"),
        ({"query": torch.zeros(3, 5, 2, dtype=torch.int64)}, "same E and W"),
        ({"features": torch.full((100, 4), float("nan"))}, "NaN"),
    ],
)
def test_errors_name_what_was_wrong(change: dict[str, object], message: str) -> None:
    x, support, query = draw(2, 5, 5, 2, 4)
    good = {"features": x, "support": support, "query": query, "shots": [5]}
    with pytest.raises(ValueError, match=message):
        episode_predictions(**(good | change))  # type: ignore[arg-type]
