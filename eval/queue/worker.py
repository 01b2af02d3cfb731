"""Takes requests from a queue, one by one, and scores them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from eval.common.errors import UserError, one_line
from eval.queue import request as requests
from eval.queue.candidate import clean
from eval.queue.request import LeaseLost, Queue, State, Ticket
from eval.queue.reviewer import Reviewer
from eval.run.execute import Report, execute
from eval.run.plan import Request, plan

Score = Callable[[Request], Report]  # has a run scored, by this process or others
_AGAIN = 2.0  # seconds that an interrupt gets to unwind the evaluation before the next one
_NUDGE = signal.SIGUSR1  # how a thread interrupts the evaluation in the main one


def work(
    queue: Queue,
    request_of: Callable[[str], Request],
    *,
    once: bool = False,
    poll_seconds: float = 30,
    say: Callable[[str], None],
    check: Callable[[str], object] | None = None,
    reviewer: Reviewer | None = None,
    score: Score | None = None,
) -> int:
    """Take requests and score them until SIGINT or SIGTERM; ``once``: until none is pending.

    Returns how many were done; SIGTERM is then handed on to who listened to it before: a command
    says by its exit code that it was ended. ``request_of`` says how a pinned model string is to be
    scored, ``check`` may refuse one by a UserError. What goes wrong with one request is its note,
    and the next one is taken. Stopped, the request goes back to the queue at once; killed, after
    `requests.LEASE` seconds. While the queue is empty the ``reviewer`` computes results of others
    again, unless it is ``once``. ``score`` has a run scored elsewhere than in this process. Raises
    UserError where the queue cannot be used from the start, or, with ``once``, at any time. Signals
    are heard only in the main thread.
    """
    found = _Worker(queue, request_of, say, check, reviewer, score or _scored_here)
    return found.run(once, poll_seconds)


def _scored_here(request: Request) -> Report:
    return execute(request, plan(request))


class _Interrupted(KeyboardInterrupt):
    """The evaluation is to end; `_Worker` knows why."""


class _Worker:
    def __init__(
        self,
        queue: Queue,
        request_of: Callable[[str], Request],
        say: Callable[[str], None],
        check: Callable[[str], object] | None,
        reviewer: Reviewer | None,
        score: Score,
    ) -> None:
        self._queue, self._request_of, self._say, self._check = queue, request_of, say, check
        self._reviewer, self._score = reviewer, score
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = False  # a signal came
        self._stopped_by = 0  # which one
        self._lost = False  # the request is another worker's by now
        self._inside = False  # an evaluation runs, which may be interrupted
        self._raised = 0.0  # when it was interrupted last

    def run(self, once: bool, poll_seconds: float) -> int:
        done, reached = 0, False
        with self._signals():
            while not self._stopping:
                try:
                    ticket = self._queue.take(self._name)
                    reached = True
                except UserError as error:
                    if once or not reached:
                        raise
                    self._say(f"the queue does not answer ({error}); asking again")
                    ticket = None
                if ticket is not None:
                    done += self._serve(ticket)
                elif once:
                    break
                elif not self._review():
                    self._sleep(poll_seconds)
        return done

    def _review(self) -> bool:
        """Whether there was a result to compute again."""
        try:
            self._inside = True
            # A signal just before this line was only noted.
            found = self._reviewer is not None and not self._stopping and self._reviewer.one()
            self._inside = False
        except KeyboardInterrupt:
            self._inside = False
            return True
        return found

    def _serve(self, ticket: Ticket) -> bool:
        """Whether the request is done."""
        spec = ticket.ask.spec
        state: State = "pending"
        note = ""
        self._lost = False
        if not self._stopping:
            self._say(f"{spec}: running")
            with self._beats(ticket):
                try:
                    self._inside = True
                    # A signal just before this line was only noted.
                    if not self._stopping:
                        state, note = self._evaluate(spec)
                    self._inside = False
                except KeyboardInterrupt:
                    self._inside = False
                    state, note = "pending", ""
        try:
            self._queue.finish(ticket, state, note)
        except (LeaseLost, UserError) as error:
            self._say(f"{spec}: not written to the queue ({error})")
            return False
        said = "back in the queue" if state == "pending" else f"{state}, {note}"
        self._say(f"{spec}: {said}")
        return state == "done"

    def _evaluate(self, spec: str) -> tuple[State, str]:
        try:
            if self._check is not None:
                self._check(spec)
            request = self._request_of(spec)
            report = self._score(request)
        except UserError as error:
            return "failed", _note(str(error))
        except (Exception, SystemExit) as error:
            return "failed", _note(f"{type(error).__name__}: {one_line(error)}")
        if report.failures:
            return "failed", _note(report.failures[0].error)
        if self._reviewer is not None:
            for cell in report.cells:
                if not cell.done:
                    self._reviewer.sign(cell.path)
        count = len(report.cells)
        return "done", f"{count} result{'s' if count != 1 else ''}"

    # ---- beats and signals

    @contextmanager
    def _beats(self, ticket: Ticket) -> Iterator[None]:
        """A thread that says we live while the block runs, and repeats interrupts that got lost."""
        over = threading.Event()

        def beat() -> None:
            due = time.monotonic() + requests.LEASE / 5
            while not over.wait(min(requests.LEASE / 20, 0.5)):
                if self._stopping or self._lost:
                    # Python drops an exception that a signal raises inside a callback.
                    self._nudge()
                elif time.monotonic() >= due:
                    due = time.monotonic() + requests.LEASE / 5
                    try:
                        self._queue.renew_lease(ticket)
                    except LeaseLost:
                        self._lost = True
                    except Exception as error:  # the Hub may be back before the lease is over
                        self._say(f"{ticket.ask.spec}: no sign of life sent ({one_line(error)})")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            # Not for ever: it may wait for a busy Hub, and a beat that comes late does nothing.
            thread.join(5)

    def _nudge(self) -> None:
        if self._inside and self._hears:
            signal.pthread_kill(threading.main_thread().ident or 0, _NUDGE)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        self._hears = threading.current_thread() is threading.main_thread()
        kinds = (signal.SIGINT, signal.SIGTERM, _NUDGE) if self._hears else ()
        before = {kind: signal.signal(kind, self._heard) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler or signal.SIG_DFL)
        heard = signal.getsignal(signal.SIGTERM)
        if self._stopped_by == signal.SIGTERM and callable(heard):
            heard(signal.SIGTERM, None)

    def _heard(self, kind: int, frame: FrameType | None) -> None:
        """Ends the evaluation; elsewhere, where a file may be on its way, only notes it."""
        if kind != _NUDGE:
            self._stopping, self._stopped_by = True, kind
        wanted = self._stopping or self._lost
        if wanted and self._inside and time.monotonic() - self._raised > _AGAIN:
            self._raised = time.monotonic()
            raise _Interrupted

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


def _note(text: str) -> str:
    """A failure's sentence, which all will read: on one line, without our home folder."""
    return clean(text.replace(str(Path.home()), "~"), 300)
