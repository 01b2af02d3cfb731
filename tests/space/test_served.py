"""What the tests' own served apps are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import LoopbackHub
from tests.space.served import environment


def test_a_served_app_knows_nothing_of_where_the_developer_keeps_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATA", "RESULTS", "QUEUE", "CACHE", "ZOO"):
        monkeypatch.setenv(f"TRANSFERZOO_{name}", str(tmp_path))
    with LoopbackHub() as hub:
        env = environment(tmp_path, hub)
    assert [name for name in env if name.startswith("TRANSFERZOO_")] == []
    asked = "from eval.data.locations import data_from; print(data_from(None))"
    run = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert run.stdout.strip() == "None", run.stderr
