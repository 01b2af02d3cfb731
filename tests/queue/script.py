"""What tests of the worker share: requests, their states, and an evaluation that does as told."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from eval.queue import worker
from eval.queue.candidate import Candidate
from eval.queue.request import Queue
from eval.run.execute import Failure, Report


def model(number: int = 0) -> Candidate:
    sha = hashlib.sha1(str(number).encode()).hexdigest()
    spec = f"hf-hub:org/net{number}@{sha}"
    return Candidate(spec, f"org/net{number}", sha, "test_resnet", 7, 28, "mit", 32, False)


def states(queue: Queue) -> list[tuple[str, str]]:
    return [(t.state, t.note) for t in queue.tickets()]


class Script:
    """An evaluation that does as told: raises, fails, or scores ``count`` cells."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *acts: Any) -> None:
        self.acts, self.specs = list(acts), []
        monkeypatch.setattr(worker, "plan", lambda request: [])
        monkeypatch.setattr(worker, "execute", self.execute)

    def request_of(self, spec: str) -> Any:
        self.specs.append(spec)
        return spec

    def execute(self, request: Any, cells: list[Any]) -> Report:
        act = self.acts.pop(0) if self.acts else 0
        if isinstance(act, BaseException):
            raise act
        if callable(act):
            act()
            act = 0
        if isinstance(act, str):
            failures = [Failure("a on b", act, True), Failure("a on c", "later", True)]
            return Report(cells, failures=failures)
        cells += [None] * act
        return Report(cells)
