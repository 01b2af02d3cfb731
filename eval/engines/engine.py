"""What an engine is: it places groups somewhere, tries again where one died, and says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.run.group import Group

TRIES = 6  # of one group, before it counts as one that kills whoever scores it


@dataclass(frozen=True)
class Ended:
    """Groups that will not be tried any more; ``error`` says why, where they did not just end."""

    groups: tuple[Group, ...]
    error: str = ""
    mistake: bool = False  # of the user


class Engine(Protocol):
    """One way to have groups scored. Made anew for each drive."""

    name: str
    slots: int  # groups that can be at work at once; 0 where nobody knows

    def check(self) -> None:
        """Raises UserError where there is no such engine here; before anything is written."""

    def work(self, groups: Sequence[Group], store: str) -> Iterator[Ended | None]:
        """Have all of them scored. Each group is in one `Ended`; None comes every second or so, for
        whoever wants to look around. Closed early, it leaves no process of its own behind.

        Results and failures are in the store: what is said here is only that there will be no
        further try.
        """


def died(title: str, why: str) -> str:
    """The sentence for a group that nobody survives."""
    return (
        f"{title}: the process that scored it ended {TRIES} times without a result, the last time "
        f"{why}; less memory is needed with a smaller --batch-size"
    )
