"""Estimates in little room: the means of any models over any tasks are those of whole matrices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates, mean, of_answers, of_resamples
from eval.metrics.ties import ties
from space.tables.kept import Kept, standing


def known(seed: int, models: int, images: int) -> Estimates:
    random = np.random.RandomState(seed)
    hard, skill = random.uniform(size=images), random.uniform(0.3, 0.8, (models, 1))
    return of_answers(hard + random.normal(0, 0.2, (models, images)) < skill)


@st.composite
def boards(draw: st.DrawFn) -> tuple[list[NDArray[np.int64]], list[Estimates], NDArray[np.int64]]:
    """(models of each task, rising; what is known of them; models in view, rising) of 9 models."""
    some = st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True).map(sorted)
    rows = [np.array(draw(some)) for _ in range(draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        rows = [rows[0]] * len(rows)  # as most boards are
    seed = draw(st.integers(0, 10**6))
    found = [known(seed + i, len(r), 60 + 10 * i) for i, r in enumerate(rows)]
    return rows, found, np.array(draw(some))


@given(boards())
@settings(max_examples=60, deadline=None)
def test_standings_are_those_of_whole_matrices(
    board: tuple[list[NDArray[np.int64]], list[Estimates], NDArray[np.int64]],
) -> None:
    rows, found, view = board
    shared = sorted(set(view.tolist()).intersection(*(r.tolist() for r in rows)))
    told = standing([Kept.of(r, f) for r, f in zip(rows, found, strict=True)], view)
    if not shared:
        assert told is None
        return
    assert told is not None
    assert told[0].tolist() == shared
    whole = mean([f.of(np.searchsorted(r, shared)) for r, f in zip(rows, found, strict=True)])
    for name in ("values", "variance", "noise"):
        assert (getattr(told[1], name) == getattr(whole, name)).all()
    off = ~np.eye(len(shared), dtype=bool)
    for name in ("pair_variance", "pair_noise"):
        mine, theirs = getattr(told[1], name), getattr(whole, name)
        assert mine[off] == pytest.approx(theirs[off], rel=1e-6)
        assert (mine == mine.T).all()
    assert told[1].kind == whole.kind


@pytest.mark.parametrize("seed", range(4))
def test_no_decision_changes_by_the_rounding(seed: int) -> None:
    found = [known(10 * seed + t, 150, 400) for t in range(3)]
    rows = np.arange(150)
    told = standing([Kept.of(rows, f) for f in found], rows)
    assert told is not None
    mine, theirs = ties(told[1]), ties(mean(found))
    for field in dataclasses.fields(mine):
        assert (getattr(mine, field.name) == getattr(theirs, field.name)).all()
    assert 3 < mine.group.max() < 150


def test_a_task_takes_four_bytes_twice_a_pair() -> None:
    kept = Kept.of(np.arange(40), known(0, 40, 50))
    assert kept.pair_variance.nbytes + kept.pair_noise.nbytes == 8 * (40 * 39 // 2)
    assert kept.own.pair_variance.size == 0


def test_the_mean_speaks_of_the_chance_of_the_task_that_says_least() -> None:
    rows = np.arange(2)
    random = np.random.RandomState(0)
    answers = random.uniform(size=(2, 50)) < 0.5
    sample = of_answers(answers, random.uniform(0.4, 0.6, (2, 5)))
    boxes = of_resamples(np.array([0.4, 0.5]), random.uniform(0.3, 0.6, (2, 100)))
    one = standing([Kept.of(rows, sample)], rows)
    both = standing([Kept.of(rows, sample), Kept.of(rows, boxes)], rows)
    assert one is not None
    assert both is not None
    assert (one[1].kind, both[1].kind) == ("sample", "test")
