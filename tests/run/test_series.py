"""Checkpoints of one run, scored by one pattern and drawn as one line."""

from __future__ import annotations

from pathlib import Path

import pytest

import eval
from eval.analysis.step_curves import step_curves
from eval.models.names import expand
from tests.factories import refusal
from tests.models.checkpoints import checkpoint


def test_a_pattern_is_its_folders_by_their_numbers(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        (tmp_path / f"run/step-{step}").mkdir(parents=True)
    (tmp_path / "run/step-7.txt").write_text("no folder")
    found = expand(f"local-dir:{tmp_path}/run/step-*")
    assert found == [f"local-dir:{tmp_path}/run/step-{n}" for n in (9, 10, 100)]
    (tmp_path / "odd[1]").mkdir()
    assert expand(f"local-dir:{tmp_path}/odd[1]") == [f"local-dir:{tmp_path}/odd[1]"]
    assert "no folder fits" in refusal(expand, f"local-dir:{tmp_path}/none-*")


@pytest.mark.slow
def test_a_series_is_scored_and_is_one_curve(tmp_path: Path) -> None:
    for step in (5, 20):
        checkpoint(tmp_path / f"photos/checkpoint-{step}", classes=step)
    results = eval.evaluate(
        [f"local-dir:{tmp_path}/photos/checkpoint-*"], tasks=["digits"], protocols=["knn"],
        results=tmp_path / "results", cache=tmp_path / "cache", limit=60, progress=False,
    )  # fmt: skip
    assert {(r.model.id, r.model.step) for r in results} == {
        ("local-dir:photos@5", 5),
        ("local-dir:photos@20", 20),
    }
    (curve,) = step_curves(results)
    assert curve.model == "local-dir:photos"
    assert [reading.step for reading in curve.readings] == [5, 20]
