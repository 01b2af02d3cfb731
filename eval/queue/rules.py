"""What happens to requests, decided from what the folders of a queue hold.

Each ``decide_`` is pure but for the clock: it returns the files to move and the caller's answer.
The queues call it on what they read and carry the moves out, both as one step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from eval.common.errors import BadInput, Refused
from eval.queue import request
from eval.queue.candidate import Candidate, clean
from eval.queue.request import STATES, LeaseLost, State, Submission, Ticket
from eval.queue.request_file import Asker, Record, request_id

T = TypeVar("T")


@dataclass
class Board:
    """What (some of) the folders hold. ``broken`` maps (state, file name) to (why, since when)."""

    records: dict[State, dict[str, Record]] = field(
        default_factory=lambda: {state: {} for state in STATES}
    )
    broken: dict[tuple[State, str], tuple[str, datetime]] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A request's file enters ``target``, from ``source`` or new, with this content."""

    source: State | None
    target: State
    record: Record


Decision = tuple[list[Move], T]
Decide = Callable[[Board], Decision[T]]


def decide_add(board: Board, candidate: Candidate, user: str, per_day: int) -> Decision[Ticket]:
    """A new request, a failed one once more, or the ticket there is."""
    user = clean(user, 100)
    if not user:
        raise BadInput("nobody is named as the one who asks; log in first")
    name = request_id(candidate.spec)
    for state in ("running", "pending", "done"):
        if found := board.records[state].get(name):
            return [], found.ticket(state)
    everything = [r for records in board.records.values() for r in records.values()]
    times = [a.asked for r in everything for a in (r, *r.earlier) if _same(a.user, user)]
    check_rate(user, times, per_day)
    if len(board.records["pending"]) >= request.MOST_PENDING:
        raise Refused(
            f"{len(board.records['pending'])} requests are waiting, as many as the queue takes; "
            "come back when some are done"
        )
    failed = board.records["failed"].get(name)
    earlier: list[Asker] = []
    if failed is not None:
        asked = (Asker(user=failed.user, asked=failed.asked), *failed.earlier)
        earlier = [a for a in asked if request.now() - a.asked < request.DAY][:100]
    record = Record(
        id=name,
        spec=candidate.spec,
        user=user,
        asked=request.now(),
        licence=candidate.licence,
        params=candidate.params,
        since=request.now(),
        earlier=tuple(earlier),
    )
    return [Move("failed" if failed else None, "pending", record)], record.ticket("pending")


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def check_rate(user: str, asked: Iterable[datetime], per_day: int) -> None:
    """Raises UserError where the user has asked for ``per_day`` models in the last 24 hours."""
    # a time to come is somebody's wrong clock: it must not shut anybody out for longer
    at = request.now()
    recent = sorted(min(when, at) for when in asked if at - when < request.DAY)
    if len(recent) >= per_day:
        free = recent[len(recent) - per_day] + request.DAY
        raise BadInput(
            f"{user!r} has asked for {len(recent)} models in 24 hours and may for {per_day}; "
            f"come back after {free:%Y-%m-%d %H:%M:%S} UTC"
        )


def decide_take(board: Board, worker: str) -> Decision[Ticket | None]:
    """Silent workers' requests go back, then the oldest pending one is taken."""
    moves: list[Move] = []
    pending = dict(board.records["pending"])
    running = dict(board.records["running"])
    for name, record in sorted(board.records["running"].items()):
        if not _silent(record):
            continue
        back = record.moved().model_copy(update={"deaths": record.deaths + 1})
        del running[name]
        if back.deaths >= request.MOST_DEATHS:
            why = f"its worker died {back.deaths} times over it, perhaps for want of memory"
            moves.append(Move("running", "failed", back.moved(why)))
        else:
            moves.append(Move("running", "pending", back))
            pending[name] = back
    # Where somebody put a second file by hand, the running one holds.
    free = [r for name, r in pending.items() if name not in running]
    if not free:
        return moves, None
    first = min(free, key=lambda r: (r.asked, r.id))
    taken = first.moved(clean(worker, 100), uuid.uuid4().hex)
    moves.append(Move("pending", "running", taken))
    return moves, taken.ticket("running")


def _silent(record: Record) -> bool:
    # A beat from the future is a wrong clock, which must not hold the request for ever.
    return (
        not record.claim
        or record.beat is None
        or abs((request.now() - record.beat).total_seconds()) > request.LEASE
    )


def decide_renewal(board: Board, ticket: Ticket) -> Decision[None]:
    held = _held(board, ticket)
    return [Move("running", "running", held.model_copy(update={"beat": request.now()}))], None


def decide_finish(board: Board, ticket: Ticket, state: State, note: str) -> Decision[Ticket]:
    """Done, failed, or back to pending."""
    if state == "running":
        raise ValueError("a request does not end as running")
    update = {"deaths": 0} if state != "pending" else {}
    ended = _held(board, ticket).moved(note).model_copy(update=update)
    return [Move("running", state, ended)], ended.ticket(state)


def _held(board: Board, ticket: Ticket) -> Record:
    held = board.records["running"].get(ticket.ask.id)
    if held is None or not ticket.claim or held.claim != ticket.claim:
        raise LeaseLost(f"{ticket.ask.spec} is no longer this worker's")
    return held


def decide_tickets(board: Board) -> Decision[list[Ticket]]:
    """Each request once, the latest last, and the broken files as failed ones."""
    found: dict[str, Ticket] = {}
    order: tuple[State, ...] = ("failed", "done", "pending", "running")  # the last one holds
    for state in order:
        found |= {name: r.ticket(state) for name, r in board.records[state].items()}
    out = list(found.values())
    for (state, name), (why, when) in board.broken.items():
        shown, since = clean(name.removesuffix(".json"), 150), when.isoformat()
        note = f"the file {state}/{clean(name, 150)} is not a request: {why}"
        out.append(Ticket(Submission(shown, "", "", since, "", None), "failed", note, since))
    return [], sorted(out, key=lambda t: (t.ask.asked, t.ask.id))


def outcome(moves: Iterable[Move]) -> Mapping[str, Record | None]:
    """path -> what lies there after all moves, None where nothing does any more."""
    after: dict[str, Record | None] = {}
    for move in moves:
        if move.source:
            after[f"{move.source}/{move.record.id}.json"] = None
        after[f"{move.target}/{move.record.id}.json"] = move.record
    return after
