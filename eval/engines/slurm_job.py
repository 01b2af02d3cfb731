"""What a job of Slurm runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from eval.engines.process import score_groups
from eval.run.group import Group


class Stopped(BaseException):
    """SIGTERM came: from scancel, or from Slurm before it gives the node to somebody else."""


@dataclass(frozen=True)
class Job:
    """What a job runs; made again as it is when its time is over."""

    groups: tuple[Group, ...]
    store: str
    folder: str
    driver: str

    def __call__(self) -> str | None:
        """What `score_groups` says; None where the job was told to stop, with the cells that were
        done by then in the store."""
        try:
            with stopped_by_sigterm():
                return score_groups(self.groups, self.store, self.folder, self.driver)
        except Stopped:
            return None

    def checkpoint(self) -> Any:
        """What submitit queues on USR2: the same, as what is done is not done again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raises Stopped in the block at the first SIGTERM. submitit ignores it, and the process would
    be killed half a minute later with its sign of life left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # slurmd and srun both send it
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
