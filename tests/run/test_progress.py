"""The lines of a run in a log, by a clock of the test's own."""

from __future__ import annotations

import io
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eval.common.text import duration
from eval.run.eta import TimeLeft
from eval.run.plan import Cell
from eval.run.progress import LogProgress, TerminalProgress, outlook, run_progress
from eval.settings.protocols import Detection, Finetune, Linear
from tests.factories import make_result

SETTINGS = {"linear": Linear(), "finetune": Finetune(), "detection": Detection()}


@dataclass(frozen=True)
class Model:
    """What progress asks of a model."""

    id: str
    revision: str = "r"
    img_size: int | None = None


def cell(model: str, task: str, protocol: str, images: int = 1000) -> Cell:
    kind = "detection" if protocol == "detection" else "classification"
    data = SimpleNamespace(
        name=task, split_hash=task, kind=kind, train=range(images - 100), test=range(100)
    )
    path = Path(model, f"{task}.{protocol}.json")
    return Cell(
        cast("Any", Model(model)), cast("Any", data), protocol, SETTINGS[protocol], path, False
    )


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_run_from_its_first_line_to_its_last(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [
        cell(m, t, p)
        for m in ("zoo:a", "zoo:b")
        for t in ("dtd", "eurosat")
        for p in ("linear", "finetune")
    ]
    progress = LogProgress(clock)
    with progress.over(cells):
        progress.loading(cells[0].model)
        clock.now += 2
        progress.encoding(cells[0])
        clock.now += 20
        progress.scoring(cells[0])
        clock.now += 5
        progress.scored(cells[0], make_result(top1=0.75))
        progress.scoring(cells[1])
        clock.now += 300
        progress.scored(cells[1], make_result(top1=0.8))
    assert capsys.readouterr().err.splitlines() == [
        # 1 load, 3 encodings, 3 linear; nobody knows what finetune takes
        "[1/8] zoo:a on dtd, linear: top-1 75.0 ±10.0, 5 s; at least 75 s left",
        # and 3 of finetune
        "[2/8] zoo:a on dtd, finetune: top-1 80.0 ±10.0, 5 min; about 16 min left",
    ]


def test_the_last_line_leaves_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    (only,) = cells = [cell("zoo:a", "dtd", "linear")]
    progress = LogProgress(clock)
    with progress.over(cells):
        progress.loading(only.model)
        progress.encoding(only)
        progress.scoring(only)
        clock.now += 0.25
        progress.scored(only, make_result(top1=0.5))
    assert capsys.readouterr().err == "[1/1] zoo:a on dtd, linear: top-1 50.0 ±10.0, 0.2 s\n"


def test_a_long_silence_is_broken_ever_more_rarely(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell("zoo:a", t, "linear", images=5640) for t in ("dtd", "eurosat")]
    progress = LogProgress(clock)
    with progress.over(cells):
        progress.loading(cells[0].model)
        clock.now += 1
        progress.encoding(cells[0])
        for _ in range(100):
            clock.now += 1
            progress.still()
        clock.now += 20
        progress.scoring(cells[0])
        progress.still()
        clock.now += 10
        progress.scored(cells[0], make_result())
        progress.encoding(cells[1])
        for _ in range(31):
            clock.now += 1
            progress.still()
    lines = capsys.readouterr().err.splitlines()
    encoding = "[0/2] zoo:a on dtd: encoding 5,640 images, {} s so far"
    # 10, 20 and 40 s after the start, the first and the second line; 1 s went into loading
    assert lines[:3] == [encoding.format(s) for s in (9, 29, 69)]
    assert lines[3:] == [
        "[1/2] zoo:a on dtd, linear: top-1 50.0 ±10.0, 10 s; about 2 min left",
        "[1/2] zoo:a on eurosat: encoding 5,640 images, 10 s so far; about 2 min left",
        "[1/2] zoo:a on eurosat: encoding 5,640 images, 30 s so far; about 2 min left",
    ]


def test_failures_are_told_while_the_run_goes_on(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for cells that fail together; those that end the run are in the list after it."""
    cells = [cell("zoo:a", t, p) for t in ("dtd", "pets") for p in ("linear", "finetune")]
    progress = LogProgress(clock)
    with progress.over(cells):
        progress.loading(cells[0].model)
        progress.encoding(cells[0])
        clock.now += 7
        progress.failed(cells[:2], "row 30 cannot be read")
        progress.encoding(cells[2])
        progress.scoring(cells[2])
        progress.failed(cells[2:3], "out of memory")
        progress.scoring(cells[3])
        progress.failed(cells[3:], "out of memory")
    assert capsys.readouterr().err.splitlines() == [
        "[2/4] zoo:a on dtd, linear and 1 more: failed: row 30 cannot be read",
        "[3/4] zoo:a on pets, linear: failed: out of memory",
    ]


def test_detection_encodes_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell("zoo:a", t, "detection") for t in ("voc2007", "bccd")]
    progress = LogProgress(clock)
    with progress.over(cells):
        progress.loading(cells[0].model)
        progress.scoring(cells[0])
        clock.now += 7200
        progress.scored(cells[0], make_result())
    assert capsys.readouterr().err.endswith(" 2.0 h; about 2.0 h left\n")


def test_a_log_that_is_gone_stops_no_run(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        calls = 0

        def write(self, text: str) -> int:
            Gone.calls += 1
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    cells = [cell("zoo:a", t, "linear") for t in ("dtd", "pets")]
    progress = LogProgress(clock)
    with progress.over(cells):
        for one in cells:
            progress.scoring(one)
            progress.scored(one, make_result())
    assert Gone.calls == 1


def test_the_watch_ends_with_the_run() -> None:
    def interrupted() -> None:
        with LogProgress().over([]):
            assert "progress" in {t.name for t in threading.enumerate()}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "progress" not in {t.name for t in threading.enumerate()}


def test_a_terminal_gets_the_lines_but_no_news_of_waiting(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    (only,) = cells = [cell("zoo:a", "dtd", "linear")]
    progress = TerminalProgress(clock)
    with progress.over(cells):
        progress.loading(only.model)
        progress.encoding(only)
        clock.now += 1000
        progress.still()
        progress.scoring(only)
        clock.now += 0.25
        progress.scored(only, make_result(top1=0.5))
    assert capsys.readouterr().err == "[1/1] zoo:a on dtd, linear: top-1 50.0 ±10.0, 0.2 s\n"


def test_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, kind in ((True, TerminalProgress), (False, LogProgress)):
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda t=terminal: t))
        assert type(run_progress()) is kind


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (TimeLeft(0, False), ""),
        (TimeLeft(0, True), ""),
        (TimeLeft(0.3, False), "; about 5 s left"),
        (TimeLeft(42, False), "; about 40 s left"),
        (TimeLeft(42, True), "; at least 40 s left"),
        (TimeLeft(130, False), "; about 2 min left"),
        (TimeLeft(9000, True), "; at least 2.5 h left"),
    ],
)
def test_outlook(left: TimeLeft, text: str) -> None:
    assert outlook(left) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (0.42, "0.4 s"), (4.0, "4 s"), (9.97, "10 s"), (89.4, "89 s"),
     (90.0, "2 min"), (5399.0, "90 min"), (5400.0, "1.5 h"), (180_000.0, "50.0 h")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
