"""The queue of models that somebody asked to be scored: what a request is, and its states.

A request is one JSON file (`eval.queue.request_file`) that lies in ``pending/``, ``running/``,
``done/`` or ``failed/`` of a directory (`eval.queue.directory`) or of a data set repository
(`eval.queue.hub`). What happens to it is decided in `eval.queue.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from eval.queue.candidate import Candidate

State = Literal["pending", "running", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)

LEASE = 600.0  # seconds without a beat after which a worker counts as killed
MOST_PENDING = 200
MOST_DEATHS = 5  # a model that kills its worker as often is not tried again
DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Submission:
    """What was asked, when and by whom. The same model and commit has the same ``id``."""

    id: str
    spec: str  # hf-hub:org/name@sha
    user: str
    asked: str  # ISO time
    licence: str
    params: int | None


@dataclass(frozen=True)
class Ticket:
    """A request and what became of it since ``since`` (ISO time).

    ``note`` is the sentence of a failed one, the worker's name of a running one, the count of
    results of a done one, the address of the pull request that a pending one waits for.
    """

    ask: Submission
    state: State
    note: str
    since: str
    claim: str = field(default="", repr=False)  # tells one take from the next


class LeaseLost(Exception):
    """The request is no longer this worker's: it was silent for too long, another has it."""


class Queue(Protocol):
    """Requests and their states. Every method may raise UserError: the place cannot be used."""

    def add(self, candidate: Candidate, user: str) -> Ticket:
        """Ask for a model: a new pending ticket, or the one there is (a failed one is asked
        anew). Raises UserError for a user's too many requests in a day, and for a full queue."""

    def tickets(self) -> list[Ticket]:
        """All requests, the latest last; a broken file is a failed one with a sentence."""

    def take(self, worker: str) -> Ticket | None:
        """The oldest pending request, now running and this worker's alone; None if there is none.
        Requests of workers that went silent are pending again before."""

    def renew_lease(self, ticket: Ticket) -> None:
        """Say that the worker lives. Raises LeaseLost."""

    def finish(self, ticket: Ticket, state: State, note: str) -> Ticket:
        """End it as done or failed, or put it back as pending. Raises LeaseLost."""


def now() -> datetime:
    return datetime.now(UTC)
