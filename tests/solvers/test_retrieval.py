"""Rankings against torchmetrics, scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import retrieval_hit_rate

from eval.solvers.retrieval import average_precision, ranked, recalled


def data(n: int = 60, m: int = 17, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randn(n, 5, generator=generator)
    queries = torch.randn(m, 5, generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    asked = torch.randint(0, 4, (m,), generator=generator)
    return gallery, labels, queries, asked


@pytest.mark.parametrize("budget", [128 << 20, 1, 12 * 60 * 5])
def test_sklearn_and_torchmetrics_agree(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.solvers.retrieval._BUDGET", budget)
    gallery, labels, queries, asked = data()
    similarity = F.normalize(queries) @ F.normalize(gallery).t()
    seen = 0
    for some, order in ranked(gallery, queries):
        relevant = labels[order] == asked[some, None]
        precision, hits = average_precision(relevant), recalled(relevant, (1, 5, 10))
        for i, query in enumerate(range(len(queries))[some]):
            truth = labels == asked[query]
            known = average_precision_score(truth.numpy(), similarity[query].numpy())
            assert float(precision[i]) == pytest.approx(known)
            for place, k in enumerate((1, 5, 10)):
                hit = retrieval_hit_rate(similarity[query], truth, top_k=k)
                assert bool(hits[i, place]) == bool(hit)
            seen += 1
    assert seen == 17


def test_rows_that_do_not_count_leave_no_trace() -> None:
    """As if they were not in the gallery."""
    random = np.random.RandomState(0)
    relevant = torch.from_numpy(random.rand(9, 30) < 0.3)
    counted = torch.from_numpy(random.rand(9, 30) < 0.6)
    precision = average_precision(relevant, counted)
    hits = recalled(relevant, (1, 3, 30), counted)
    for row in range(9):
        short = relevant[row][counted[row]][None]
        assert float(precision[row]) == pytest.approx(float(average_precision(short)[0]))
        assert hits[row].tolist() == recalled(short, (1, 3, 30))[0].tolist()


def test_without_a_relevant_row_all_is_zero() -> None:
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    assert average_precision(nothing).tolist() == [0.0, 0.0]
    assert not recalled(nothing, (1, 100)).any()


def test_equal_similarities_are_ordered_by_row() -> None:
    gallery = torch.ones(6, 3)
    [(_, order)] = list(ranked(gallery, torch.ones(1, 3)))
    assert order.tolist() == [[0, 1, 2, 3, 4, 5]]
