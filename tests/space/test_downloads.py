"""Files for visitors: each by itself, and none for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from space import downloads


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(downloads.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_two_downloads_of_one_name(here: Path) -> None:
    one, two = downloads.saved("a.csv", "1"), downloads.saved("a.csv", "2")
    assert [Path(p).read_text() for p in (one, two)] == ["1", "2"]
    assert {Path(p).name for p in (one, two)} == {"a.csv"}
    assert all(Path(p).is_relative_to(here) for p in (one, two))


def test_those_of_an_hour_ago_are_gone_at_the_next(here: Path) -> None:
    old, fresh = downloads.folder(), downloads.folder()
    (old / "deep").mkdir()
    (old / "deep/file").write_text("x")
    foreign = here / "somebody-else"
    foreign.mkdir()
    link = here / f"{downloads.PREFIX}link"
    link.symlink_to(foreign)
    past = time.time() - downloads.KEPT - 1
    for path in (old, foreign):
        os.utime(path, (past, past))
    downloads.folder()
    assert not old.exists()
    assert fresh.is_dir()
    assert foreign.is_dir()
    assert link.is_symlink()
