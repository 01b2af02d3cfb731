"""Where a queue lies -> the queue: a directory or a data set repository of the Hub."""

from __future__ import annotations

from pathlib import Path

from eval.common.errors import BadInput
from eval.hub.commits import check_repo_id
from eval.queue.request import Queue


def open_queue(text: str, *, per_day: int = 5) -> Queue:
    """A directory, which is made if need be, or ``hub:ORG/NAME``, a data set repository.

    ``per_day`` is how many models one user may ask for in 24 hours. Raises UserError.
    """
    if per_day < 1:
        raise BadInput(f"a user must be allowed at least 1 request a day, got {per_day}")
    if text.startswith("hub:"):
        from eval.queue.hub import HubQueue

        return HubQueue(check_repo_id(text.removeprefix("hub:"), "queue"), per_day)
    from eval.queue.directory import DirectoryQueue

    if not text.strip():
        raise BadInput("the queue has no name; use a directory or hub:ORG/NAME")
    return DirectoryQueue(Path(text).expanduser(), per_day)
