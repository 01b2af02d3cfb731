"""What a job of Slurm runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.engines.process import score_groups
from eval.run.group import Group


@dataclass(frozen=True)
class Job:
    """What a job runs; made again as it is when its time is over."""

    groups: tuple[Group, ...]
    store: str
    folder: str
    driver: str

    def __call__(self) -> str:
        return score_groups(self.groups, self.store, self.folder, self.driver)

    def checkpoint(self) -> Any:
        """What submitit queues on USR2: the same, as what is done is not done again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
