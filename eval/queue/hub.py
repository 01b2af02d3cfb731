"""A queue in a data set repository of the Hub: the folders of a directory queue, moved by commits.

A commit names the one it was decided on, and the Hub refuses it where main has moved since: so no
two workers ever take the same request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

from eval.common.errors import NotFound, Unreachable, UserError
from eval.common.files import dump_json
from eval.hub.client import with_retries
from eval.hub.commits import Account, Moved, Remote, account, check_rights, commit, look, refusal
from eval.queue import request
from eval.queue.candidate import Candidate
from eval.queue.request import STATES, State, Ticket
from eval.queue.request_file import Broken, Record, is_name, parse
from eval.queue.rules import (
    Board,
    Decide,
    T,
    check_rate,
    decide_add,
    decide_finish,
    decide_renewal,
    decide_take,
    decide_tickets,
    outcome,
)
from eval.sharing.read import contents

_TRIES = 10  # main may move under a change as often
BEAT = 180.0  # seconds between two beats that become commits
_TITLE = "Ask for "  # of a pull request; the model's spec follows


class HubQueue:
    """See `eval.queue.request.Queue`. Reading needs no token where the repository is public.

    Who may not write to the repository asks by a pull request, which its keepers merge.
    """

    def __init__(self, repo: str, per_day: int) -> None:
        from huggingface_hub import HfApi

        self._repo, self._per_day = repo, per_day
        self._api = HfApi()
        self._known: dict[tuple[str, str], Record | str] = {}  # (path, digest) -> content or flaw
        self._beats: dict[str, float] = {}  # claim -> when the last beat was

    def add(self, candidate: Candidate, user: str) -> Ticket:
        try:
            self._check_rights()
        except UserError:
            return self._propose(candidate, user)
        return self._transact(
            lambda b: decide_add(b, candidate, user, self._per_day), f"Ask for {candidate.spec}"
        )

    def tickets(self) -> list[Ticket]:
        return decide_tickets(self._board(self._look(), STATES))[1]

    def take(self, worker: str) -> Ticket | None:
        self._check_rights()
        taken = self._transact(
            lambda b: decide_take(b, worker), "Take a request", _OPEN, set_aside=True
        )
        if taken is not None:
            self._beats[taken.claim] = time.monotonic()
        return taken

    def renew_lease(self, ticket: Ticket) -> None:
        """As in every queue, but most calls do nothing: a beat is a commit."""
        if time.monotonic() - self._beats.get(ticket.claim, -BEAT) < BEAT:
            return
        self._transact(lambda b: decide_renewal(b, ticket), "Still running", ("running",))
        self._beats[ticket.claim] = time.monotonic()

    def finish(self, ticket: Ticket, state: State, note: str) -> Ticket:
        done = self._transact(
            lambda b: decide_finish(b, ticket, state, note), f"Now {state}", ("running",)
        )
        self._beats.pop(ticket.claim, None)
        return done

    @cached_property
    def _who(self) -> Account:
        return account(self._api)

    def _check_rights(self) -> None:
        check_rights(self._who, self._repo)

    def _look(self) -> Remote:
        remote = look(self._api, self._repo, "dataset")
        if remote is None:
            raise NotFound(
                f"the Hub has no data set repository {self._repo!r} for a queue, or it is private "
                "to others"
            )
        return remote

    def _transact(
        self,
        decide: Decide[T],
        title: str,
        states: Sequence[State] = STATES,
        *,
        set_aside: bool = False,
    ) -> T:
        """Read main, decide, commit; once more where somebody else was faster. ``set_aside``: what
        is no request leaves pending/ in the same commit."""
        for _ in range(_TRIES):
            remote = self._look()
            board = self._board(remote, states)
            moves, answer = decide(board)
            aside = _aside(board, remote) if set_aside else {}
            if not moves and not aside:
                return answer
            after = outcome(moves)
            files = {path: record.dump() for path, record in after.items() if record is not None}
            gone = [p for p, record in after.items() if record is None and p in remote.digests]
            for path, (place, note) in aside.items():
                files[place] = note
                gone.append(path)
            try:
                commit(self._api, self._repo, "dataset", files, gone, remote.sha, title)
            except Moved:
                continue
            return answer
        raise Unreachable(f"queue 'hub:{self._repo}' changes all the time; try again later")

    def _board(self, remote: Remote, states: Sequence[State]) -> Board:
        """The folders at one commit. Only what is named as a request is downloaded, once."""
        board = Board()
        wanted: list[tuple[State, str, str]] = []  # state, name, path
        for path in sorted(remote.digests):
            folder, _, name = path.partition("/")
            for state in states:
                if folder != state or name.startswith("."):
                    continue
                if not is_name(name):
                    board.broken[state, name] = "its name is not that of a request", request.now()
                elif len(remote.digests[path]) == 64:
                    board.broken[state, name] = "it is stored as a large file", request.now()
                else:
                    wanted.append((state, name, path))
        known = {key: v for key, v in self._known.items() if remote.digests.get(key[0]) == key[1]}
        new = [path for _, _, path in wanted if (path, remote.digests[path]) not in known]
        for path, raw in contents(self._repo, remote, new).items():
            known[path, remote.digests[path]] = _parsed(path, raw)
        self._known = known
        for state, name, path in wanted:
            found = known[path, remote.digests[path]]
            if isinstance(found, Record):
                board.records[state][found.id] = found
            else:
                board.broken[state, name] = found, request.now()
        return board

    # ---- by pull request

    def _propose(self, candidate: Candidate, user: str) -> Ticket:
        """A pull request with the request's file; the one that is open already, if there is."""
        # a token that only reads opens no pull request
        check_rights(self._who, f"{self._who.name}/any")
        remote = self._look()
        moves, ticket = decide_add(self._board(remote, STATES), candidate, user, self._per_day)
        if not moves:
            return ticket
        title = _TITLE + candidate.spec
        open_one, asked = self._proposals(title)
        if open_one is None:
            # The file names who asked, but the Hub knows who opened the pull request.
            check_rate(self._who.name, asked, self._per_day)
            after = outcome(moves)
            files = {path: record.dump() for path, record in after.items() if record is not None}
            gone = [path for path, record in after.items() if record is None]
            open_one = commit(
                self._api, self._repo, "dataset", files, gone, remote.sha, title, pull_request=True
            ).pull_request
        return Ticket(ticket.ask, "pending", open_one, ticket.since)

    def _proposals(self, title: str) -> tuple[str | None, list[datetime]]:
        """(the address of the open one of this title, when this account opened others)."""

        def ask() -> list[tuple[str, str, str, datetime]]:
            found = self._api.get_repo_discussions(
                self._repo,
                repo_type="dataset",
                discussion_type="pull_request",
                discussion_status="open",
            )
            return [(talk.title, talk.url, talk.author, talk.created_at) for talk in found]

        try:
            talks = with_retries(ask)
        except Exception as error:
            raise refusal(error, "pull requests of", self._repo) from None
        address = next((url for name, url, _, _ in talks if name == title), None)
        mine = [
            when
            for name, _, author, when in talks
            if name.startswith(_TITLE) and author == self._who.name
        ]
        return address, mine


def _aside(board: Board, remote: Remote) -> dict[str, tuple[str, bytes]]:
    """{path in pending/: (path in failed/, what is written there)} of files that are no requests.
    What they held stays in the repository's history."""
    found = {}
    for (state, name), (why, _) in board.broken.items():
        if state == "pending":
            path, place = f"pending/{name}", f"failed/{name}"
            if place in remote.digests:  # a request's own file, perhaps
                place = f"failed/{remote.sha[:8]}.{name}"
            note = {"not_a_request": why, "held_at": f"{path}@{remote.sha}"}
            found[path] = place, dump_json(note)
    return found


_OPEN: tuple[State, ...] = ("pending", "running")


def _parsed(path: str, raw: bytes) -> Record | str:
    try:
        return parse(path.partition("/")[2], raw)
    except Broken as why:
        return str(why)
