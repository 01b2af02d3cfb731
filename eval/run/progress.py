"""What a run says while it runs, where nobody sees its progress bars: one line a finished cell.

In a log (Slurm, CI, ``| tee``) `LogProgress` also says what it is at when nothing has been finished
for a while; at a terminal the bars show that, and `TerminalProgress` writes its lines above them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from eval.common.text import duration
from eval.protocols import PROTOCOLS
from eval.results.leaderboard import main_scores, score_text, score_title
from eval.results.names import shelf_folder
from eval.run.eta import Part, TimeLeft, time_left
from eval.settings.protocols import Detection, Fewshot

if TYPE_CHECKING:
    from pathlib import Path

    from eval.models.resolve import ResolvedModel
    from eval.results.schema import Result
    from eval.run.plan import Cell

QUIET = 10.0  # seconds without a line after which the run says what it is at
QUIETEST = 600.0  # each time it waits twice as long, up to this
MOST_SCORES = 3  # in one line


def run_progress() -> Progress:
    """Lines on stderr, as fits a terminal or a log."""
    return TerminalProgress() if sys.stderr.isatty() else LogProgress()


class Progress:
    """What `execute` tells of its course, in this order: for each model ``loading``, for each of
    its tasks ``encoding`` and for each cell ``scoring`` and then ``scored``. ``failed`` ends all
    the given cells. This one keeps it to itself."""

    @contextmanager
    def over(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Around the run of these cells."""
        yield

    def loading(self, model: ResolvedModel) -> None:
        """A model's weights are read."""

    def encoding(self, cell: Cell) -> None:
        """The images of the cell's task go through its model, or come from the cache."""

    def scoring(self, cell: Cell) -> None:
        """The cell's protocol starts."""

    def scored(self, cell: Cell, result: Result) -> None:
        """The cell is done, its result is written."""

    def failed(self, cells: Sequence[Cell], error: str) -> None:
        """These cells will have no result, all for one reason."""


class LogProgress(Progress):
    """Lines on stderr, each written at once.

    A log that cannot be written any more (``2>&1 | head``) costs no cell: it is left alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # events come from the run, `still` from a thread beside it
        self._total = 0
        self._left: dict[Path, Cell] = {}  # by the result's file
        self._done: list[tuple[Part, float]] = []  # with seconds
        self._begun: set[Hashable] = set()
        self._current: tuple[Part, str, float] | None = None  # part, in words, since when
        self._spoke = 0.0
        self._patience = QUIET
        self._broken = False

    @contextmanager
    def over(self, cells: Sequence[Cell]) -> Iterator[None]:
        self._total, self._left = len(cells), {cell.path: cell for cell in cells}
        self._spoke = self._clock()
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1.0):
                self.still()

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def loading(self, model: ResolvedModel) -> None:
        self._begin(_load(model), f"{model.id}: loading")

    def encoding(self, cell: Cell) -> None:
        images = len(cell.task.train) + len(cell.task.test)
        words = f"{cell.model.id} on {cell.task.name}: encoding {images:,} images"
        self._begin(_encode(cell), words)

    def scoring(self, cell: Cell) -> None:
        self._begin(_score(cell), cell.title)

    def scored(self, cell: Cell, result: Result) -> None:
        with self._lock:
            seconds = self._end()
            del self._left[cell.path]
            shown = [f"{score_title(s.name)} {score_text(s)}" for s in main_scores(result)]
            more = [f"{len(shown) - MOST_SCORES} more"] if len(shown) > MOST_SCORES else []
            found = ", ".join([*shown[:MOST_SCORES], *more, duration(seconds)])
            self._say(f"{cell.title}: {found}{self._outlook()}")
            self._patience = QUIET

    def failed(self, cells: Sequence[Cell], error: str) -> None:
        with self._lock:
            self._current = None  # its time tells nothing about others
            for cell in cells:
                del self._left[cell.path]
            if not self._left:  # the run ends now, and lists what failed
                return
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            self._say(f"{cells[0].title}{more}: failed: {error}")
            self._patience = QUIET

    def still(self) -> None:
        """Say what the run is at, if nothing has been said for a while."""
        with self._lock:
            now = self._clock()
            if self._current is None or now - self._spoke < self._patience:
                return
            _, words, since = self._current
            self._say(f"{words}, {duration(now - since)} so far{self._outlook()}")
            self._patience = min(2 * self._patience, QUIETEST)

    def _begin(self, step: _Step, words: str) -> None:
        with self._lock:
            self._end()
            self._begun.add(step.key)
            self._current = step.part, words, self._clock()

    def _end(self) -> float:
        """Seconds of the part that ends now."""
        with self._lock:
            if self._current is None:
                return 0.0
            part, _, since = self._current
            self._current = None
            seconds = self._clock() - since
            self._done.append((part, seconds))
            return seconds

    def _outlook(self) -> str:
        """``; about 2 min left``, or nothing where nothing is left or can be said."""
        now = None
        if self._current is not None:
            part, _, since = self._current
            now = part, self._clock() - since
        steps = [step for cell in self._left.values() for step in _steps(cell)]
        left = {step.key: step.part for step in steps if step.key not in self._begun}
        return outlook(time_left(self._done, list(left.values()), now))

    def _say(self, text: str) -> None:
        self._spoke = self._clock()
        if self._broken:
            return
        try:
            done = self._total - len(self._left)
            self._write(f"[{done}/{self._total}] {text}")
        except OSError:
            self._broken = True

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class TerminalProgress(LogProgress):
    """The same lines above the progress bars, which show what is going on meanwhile."""

    def still(self) -> None:
        """The bars say it."""

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)


def outlook(left: TimeLeft) -> str:
    """The end of a line: ``; about 2 min left``, in steps of five seconds as no estimate is more
    exact. Nothing where nothing is left, or nothing of it can be judged."""
    if left.seconds <= 0:
        return ""
    rounded = max(5.0, 5 * round(left.seconds / 5))
    return f"; {'at least' if left.at_least else 'about'} {duration(rounded)} left"


@dataclass(frozen=True)
class _Step:
    """A part of the run; steps of one key are one and the same, done once."""

    key: Hashable
    part: Part


def _steps(cell: Cell) -> list[_Step]:
    """All that must happen before the cell is scored."""
    encode = [_encode(cell)] if PROTOCOLS[cell.protocol].features else []
    return [_load(cell.model), *encode, _score(cell)]


def _load(model: ResolvedModel) -> _Step:
    return _Step(("load", model), Part("load", shelf_folder(model), 1.0))


def _encode(cell: Cell) -> _Step:
    tokens = PROTOCOLS[cell.protocol].reads == "tokens"
    key = ("encode", cell.model, cell.task.split_hash, tokens)
    return _Step(key, Part("encode", shelf_folder(cell.model), _images(cell)))


def _score(cell: Cell) -> _Step:
    """Few-shot episodes take the same time on any data set, and a detector's schedule is a number
    of steps; the rest grows with the images. What trains a network depends on the network most,
    what works on features on the task."""
    size = 1.0 if isinstance(cell.settings, Fewshot | Detection) else _images(cell)
    trains = PROTOCOLS[cell.protocol].trains and cell.task.kind == "classification"
    like = shelf_folder(cell.model) if trains else cell.task.split_hash
    return _Step(cell.path, Part(cell.protocol, like, size))


def _images(cell: Cell) -> float:
    return float(len(cell.task.train) + len(cell.task.test))
