"""Readings arrive in the trackers, under their step: each is asked with its own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import refusal

VALUES = [(2, {"probe/digits/knn/top1": 0.25}), (4, {"probe/digits/knn/top1": 0.5})]
WANTED = [(2, 0.25), (4, 0.5)]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from eval.probe.sinks.tensorboard import tensorboard_sink

    sink = tensorboard_sink(tmp_path / "runs")
    for step, values in VALUES:
        sink(step, values)
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("probe/digits/knn/top1")] == WANTED


@pytest.mark.slow
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind the training's own step, which wandb would drop: the axis is one of its own."""
    wandb = pytest.importorskip("wandb")
    from eval.probe.sinks.wandb import wandb_sink

    assert "call wandb.init(...) before it" in refusal(wandb_sink)
    run = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        run.log({"loss": 1.0}, step=1000)
        sink = wandb_sink()
        seen = []
        for step, values in VALUES:
            sink(step, values)
            seen.append((run.summary["probe/step"], run.summary["probe/digits/knn/top1"]))
    finally:
        run.finish()
    assert seen == WANTED


@pytest.mark.slow
def test_trackio(tmp_path: Path) -> None:
    """In a process of its own: trackio reads where it writes to when it is imported."""
    pytest.importorskip("trackio")
    code = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage\n"
        "from eval.probe.sinks.trackio import trackio_sink\n"
        "trackio.init(project='p', name='r', embed=False, auto_log_cpu=False)\n"
        "sink = trackio_sink()\n"
        f"for step, values in {VALUES!r}: sink(step, values)\n"
        "trackio.finish()\n"
        "print(json.dumps(SQLiteStorage.get_logs('p', 'r')), flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1",
             "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [(row["step"], row["probe/digits/knn/top1"]) for row in rows] == WANTED
