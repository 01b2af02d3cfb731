"""kNN against scikit-learn, a plain loop, and itself under other chunk sizes."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from eval.solvers import knn


def blobs(n: int, d: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=generator)
    centres = torch.randn(n_classes, d, generator=generator)
    return centres[y] + 1.5 * torch.randn(n, d, generator=generator), y


def exact_neighbours(bank: Tensor, queries: Tensor, k: int) -> np.ndarray:
    """Indices by a full stable sort of float64 similarities."""
    b, q = bank.double().numpy(), queries.double().numpy()
    b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-300)
    q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-300)
    return np.argsort(-(q @ b.T), axis=1, kind="stable")[:, :k]


def test_neighbours_equal_a_full_sort() -> None:
    bank, _ = blobs(1500, 24, 5, seed=0)
    queries, _ = blobs(70, 24, 5, seed=1)
    similarity, index = knn.nearest(bank, queries, 40)
    # No two float64 similarities of these rows are within float32 rounding of each other at a
    # rank boundary except by chance; compare similarities everywhere, indices nearly everywhere.
    expected = exact_neighbours(bank, queries, 40)
    cosine = torch.nn.functional.cosine_similarity(
        queries.double()[:, None], bank.double()[torch.from_numpy(expected)], dim=2
    )
    torch.testing.assert_close(similarity.double(), cosine, rtol=0, atol=1e-6)
    assert (index.numpy() == expected).mean() > 0.999
    assert (similarity.diff(dim=1) <= 0).all()


def test_float64_is_kept() -> None:
    bank, _ = blobs(300, 8, 3, seed=0)
    similarity, index = knn.nearest(bank.double(), bank.double()[:9], 30)
    assert similarity.dtype == torch.float64
    np.testing.assert_array_equal(index.numpy(), exact_neighbours(bank, bank[:9], 30))


# Few distinct rows: duplicates everywhere, so ties inside and across the cut at rank k.
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 2600),
    m=st.integers(1, 150),
    distinct=st.integers(1, 40),
    share=st.floats(0, 1),
    chunk=st.sampled_from([1, 300_000, 1_000_000, 3_000_000, 10_000_000]),
    seed=st.integers(0, 10_000),
)
def test_chunks_and_ties(
    n: int, m: int, distinct: int, share: float, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(distinct, 7, generator=generator)
    kind = torch.randint(distinct, (n,), generator=generator)
    bank, queries = kinds[kind], torch.randn(m, 7, generator=generator)
    k = max(1, math.ceil(share * min(n, 60)))
    similarity, index = knn.nearest(bank, queries, k)
    again_similarity, again = knn.nearest(bank, queries, k, chunk_bytes=chunk)
    assert torch.equal(index, again)
    assert torch.equal(similarity, again_similarity)
    # Order by lower index: within one kind of row, the lowest indices come, in order.
    for row in index.tolist():
        assert len(set(row)) == k
        for which in set(kind[row].tolist()):
            mine = [i for i in row if kind[i] == which]
            assert mine == (kind == which).nonzero().view(-1)[: len(mine)].tolist()


def test_integer_ties_follow_a_stable_sort() -> None:
    """Rows on the axes have exact similarities: the order is known to the last tie."""
    generator = torch.Generator().manual_seed(3)
    bank = torch.eye(4)[torch.randint(4, (2300,), generator=generator)]
    queries = torch.eye(4)
    for chunk in (1, 2**22, 2**28):
        for k in (1, 7, 700, 2300):
            index = knn.nearest(bank, queries, k, chunk)[1]
            np.testing.assert_array_equal(index.numpy(), exact_neighbours(bank, queries, k))


def test_zero_and_huge_rows() -> None:
    bank = torch.tensor([[0.0, 0.0], [3e30, 0.0], [0.0, 2e-30], [-1.0, 0.0]])
    similarity, index = knn.nearest(bank, torch.tensor([[1e25, 0.0], [0.0, 0.0]]), 4)
    assert index.tolist() == [[1, 0, 2, 3], [0, 1, 2, 3]]
    assert similarity.tolist() == [[1, 0, 0, -1], [0, 0, 0, 0]]


@pytest.mark.parametrize("k", [1, 5, 21])
def test_majority_equals_sklearn(k: int) -> None:
    bank, y = blobs(900, 16, 6, seed=4)
    queries, _ = blobs(300, 16, 6, seed=5)
    similarity, index = knn.nearest(bank, queries, 50)
    scores = knn.vote(similarity, y[index], [k], 6, None)[0]
    counts = scores.floor().sort(dim=1, descending=True).values
    clear = (counts[:, 0] > counts[:, 1]).numpy()  # sklearn breaks ties by class number
    assert clear.mean() > 0.7
    rival = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    rival.fit(bank.double().numpy(), y.numpy())
    expected = rival.predict(queries.double().numpy())
    np.testing.assert_array_equal(knn.predict(scores).numpy()[clear], expected[clear])
    share = rival.predict_proba(queries.double().numpy())
    np.testing.assert_allclose(scores.floor().numpy() / k, share, atol=1e-6)


@pytest.mark.parametrize("temperature", [None, 0.07, 1.0])
def test_scores_equal_a_plain_loop(temperature: float | None) -> None:
    bank, y = blobs(400, 10, 7, seed=6)
    queries, _ = blobs(50, 10, 7, seed=7)
    similarity, index = knn.nearest(bank, queries, 30)
    ks = (20, 1, 30, 5)  # any order
    scores = knn.vote(similarity, y[index], ks, 7, temperature)
    assert scores.shape == (4, 50, 7)
    for place, k in enumerate(ks):
        for q in range(50):
            expected = [0.0] * 7
            for r in range(k):
                sim = float(similarity[q, r])
                weight = 1.0 if temperature is None else math.exp(sim / temperature)
                expected[int(y[index[q, r]])] += weight
            got = scores[place, q]
            got = got.floor() if temperature is None else got
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=0)
            assert [v == 0 for v in scores[place, q].tolist()] == [v == 0 for v in expected]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=25), st.data())
def test_tied_majority_goes_to_the_class_met_first(labels: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(labels)))
    similarity = torch.linspace(1, 0, len(labels))[None]
    scores = knn.vote(similarity, torch.tensor([labels]), [k], 5, None)
    heard = labels[:k]
    top = max(heard.count(label) for label in heard)
    expected = next(label for label in heard if heard.count(label) == top)
    assert knn.predict(scores).tolist() == [[expected]]


def test_predict_prefers_the_lowest_class() -> None:
    assert knn.predict(torch.tensor([[1.0, 3, 3], [2, 2, 2]])).tolist() == [1, 0]


def test_bad_arguments_say_what_would_work() -> None:
    x, y = blobs(5, 3, 2, seed=8)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5"):
        knn.nearest(x, x, 6)
    with pytest.raises(ValueError, match=r"\[5, 3\] and \[5, 2\]"):
        knn.nearest(x, x[:, :2], 1)
    similarity, index = knn.nearest(x, x, 3)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        knn.vote(similarity, y[index], [4], 2, None)
    with pytest.raises(ValueError, match="temperature"):
        knn.vote(similarity, y[index], [1], 2, 0.0)


@pytest.mark.parametrize("temperature", [None, 0.07])
@pytest.mark.parametrize("length", [12, 20, 90])
def test_answers_without_a_group_are_those_of_the_smaller_bank(
    length: int, temperature: float | None
) -> None:
    """With lists that are long enough, too short for some queries, and of the whole bank."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(90, 6, generator=generator, dtype=torch.float64)
    queries = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    labels, groups = torch.arange(90) % 3, torch.arange(90) // 3 % 4
    similarity, index = knn.nearest(bank, queries, length)
    found = knn.predict_without(
        bank, queries, similarity, index, labels, groups, 4, 12, 3, temperature
    )
    for g in range(4):
        rest = groups != g
        near, where = knn.nearest(bank[rest], queries, 12)
        naive = knn.predict(knn.vote(near, labels[rest][where], [12], 3, temperature))[0]
        assert torch.equal(found[g], naive)


def test_a_group_of_the_whole_bank_is_refused() -> None:
    bank, labels = torch.randn(5, 3), torch.arange(5)
    similarity, index = knn.nearest(bank, bank, 2)
    with pytest.raises(ValueError, match="all 5 rows"):
        knn.predict_without(
            bank, bank, similarity, index, labels, torch.zeros(5).long(), 1, 2, 5, None
        )
