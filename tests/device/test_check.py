"""The prepared check of a GPU, run small on the CPU: it must be ready when there is a GPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.protocols import PROTOCOLS
from tests.device.check import Row

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_dry_run() -> None:
    """As it is typed, on the CPU: every protocol has a row, and the CPU agrees with itself."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "tests/device/run.sh", "--device", "cpu", "--dry-run"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    for protocol in PROTOCOLS:
        assert any(protocol in line for line in table), protocol
    for what in ("encode, decoding", "bare forward", "pretraining step", "detection step"):
        assert any(what in line and "images/s" in line for line in table), what
    assert not any("NO" in line for line in table)
    assert all(line.count("|") == 5 for line in table)


def test_rows_outside_their_bound_are_told() -> None:
    assert Row("score", 0.5, 0.504, 0.005).fine
    wrong = Row("score", 0.5, 0.506, 0.005)
    assert not wrong.fine
    assert "NO" in wrong.line()
    assert not Row("score", 0.5, math.nan, 0.005).fine
    assert not Row("speed", math.nan, 0.0).fine
