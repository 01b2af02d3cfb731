"""How long the rest of a run takes, judged by what it has done so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One piece of a run's work."""

    kind: str  # 'load', 'encode' or a protocol; only parts of one kind are compared
    like: str  # what its speed depends on most: a model's id or a task's split hash
    size: float  # its time grows with this: images, or 1 where it does not grow


@dataclass(frozen=True)
class TimeLeft:
    """An estimate; ``at_least`` where it leaves out something that cannot be judged yet."""

    seconds: float
    at_least: bool


def time_left(
    done: Iterable[tuple[Part, float]],
    left: Sequence[Part],
    current: tuple[Part, float] | None = None,
) -> TimeLeft:
    """The time that ``left`` and the rest of ``current`` need.

    ``done`` holds finished parts with their seconds, ``current`` the part in progress with its
    seconds so far. A part takes its size times the mean speed of the finished parts of its kind:
    those of the same ``like`` if there are any, else all. A kind of which nothing is finished, and
    a current part that has outlasted its estimate, count nothing and make the answer ``at_least``.
    """
    spent: dict[tuple[str, str | None], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for part, seconds in done:
        for key in ((part.kind, part.like), (part.kind, None)):
            spent[key][0] += seconds
            spent[key][1] += part.size

    def estimate(part: Part) -> float | None:
        for key in ((part.kind, part.like), (part.kind, None)):
            if key in spent:
                seconds, size = spent[key]
                return seconds / size * part.size
        return None

    whole = [estimate(part) for part in left]
    if current is not None:
        part, so_far = current
        expected = estimate(part)
        rest = None if expected is None or so_far > expected else expected - so_far
        whole.append(rest)
    known = [seconds for seconds in whole if seconds is not None]
    return TimeLeft(sum(known), len(known) < len(whole))
