"""The sign of a try in the store: it goes with the try, wherever a signal cuts in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from eval.run import attempt
from eval.run.attempt import tried, tries
from eval.stores.store import Disk


class Cut(BaseException):
    """What a handler of a signal raises."""


def cut_at(step: int) -> Any:
    """A trace function that raises Cut before the given line that `tried` runs, counted from 0."""
    left = step

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "line":
            if left == 0:
                raise Cut
            left -= 1
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        ours = frame.f_code.co_filename == attempt.__file__
        return line if ours and frame.f_code.co_name in ("tried", "end") else None

    return call


def enter(store: Disk, seen: list[bool]) -> None:
    with tried(store, "group", "a on b"):
        seen.append(bool(tries(store)))


def test_no_sign_is_left_behind_by_a_signal_at_any_line(tmp_path: Path) -> None:
    cuts, inside, step = 0, 0, 0
    while True:
        store, seen = Disk(tmp_path / str(step)), list[bool]()
        before = sys.gettrace()
        sys.settrace(cut_at(step))
        try:
            enter(store, seen)
        except Cut:
            cuts, inside = cuts + 1, inside + len(seen)
        else:
            break
        finally:
            sys.settrace(before)
        assert tries(store) == [], f"cut at line {step}"
        step += 1
    assert seen == [True]
    assert inside >= 8  # in the end of a try
    assert cuts - inside >= 8  # and in its beginning


def test_a_failure_in_the_block_is_raised_as_it_is(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    with pytest.raises(ValueError, match=r"^of the block$"), tried(store, "group", "a on b"):
        raise ValueError("of the block")
    assert tries(store) == []
