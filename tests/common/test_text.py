"""Numbers in words: a p-value and the verdict beside it."""

from __future__ import annotations

import numpy as np
import pytest

from eval.common.text import p_value
from eval.results.compare import SIGNIFICANT


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (1.0, "1"),
        (0.31234, "0.31"),
        (0.0312, "0.031"),
        (0.0496, "0.0496"),
        (0.0504, "0.0504"),
        (0.04999, "0.04999"),
        (0.050001, "0.050001"),
        (0.05, "0.05"),
        (0.00012, "0.00012"),
        (3e-7, "<0.0001"),
        (0.0, "<0.0001"),
    ],
)
def test_a_p_value_in_digits(p: float, shown: str) -> None:
    assert p_value(p) == shown


def test_no_p_value_speaks_against_its_verdict() -> None:
    near = SIGNIFICANT + np.concatenate([np.linspace(-0.002, 0.002, 4001), [-1e-9, 1e-9]])
    beside = [np.nextafter(SIGNIFICANT, side) for side in (0, 1)]
    for p in map(float, (*near, *beside)):
        assert (float(p_value(p)) < SIGNIFICANT) == (p < SIGNIFICANT), p
