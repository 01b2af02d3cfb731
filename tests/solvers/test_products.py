"""The fast matrix product against numpy in float64, for every layout that callers have."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.solvers.products import times_rows


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (_drawn(7, 300), _drawn(90, 300)),
        (_drawn(1, 300), _drawn(1, 300)),
        (_drawn(7, 90), _drawn(90, 300).t()),
        (_drawn(300, 7).t(), _drawn(300, 90).t()),
        (_drawn(64, 50).t()[8:24], _drawn(64, 50).t()[8:]),  # neither dense nor transposed dense
        (_drawn(7, 301)[:, :300], _drawn(90, 310)[:, 10:]),
        (_drawn(0, 300), _drawn(90, 300)),
        (_drawn(7, 0), _drawn(90, 0)),
        (_drawn(7, 300).double(), _drawn(90, 300).double()),
    ],
)
def test_products_of_rows(a: Tensor, b: Tensor) -> None:
    found = times_rows(a, b)
    assert found.dtype == a.dtype
    expected = a.double().numpy() @ b.double().numpy().T
    # float32's own rounding of 300 products; bfloat16 would be off by 0.1.
    atol = 1e-4 if a.dtype == torch.float32 else 1e-11
    np.testing.assert_allclose(found.numpy(), expected, atol=atol, rtol=0)
