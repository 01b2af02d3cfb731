"""What a setting may be, said at its field: ``epochs: Annotated[int, Between(1, 100_000)] = 50``.

`eval.settings.assign` asks for it where a user sets a value. Plain dataclasses, as the settings are
imported by every command, ``--help`` included. A field without any of these takes all of its type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Between:
    """The least and the most of a number; in a tuple, of each."""

    low: float
    high: float
    above: bool = False  # the least itself is out
    flag: str = ""  # what the setting is called in the error, where a flag is better known

    def fault(self, value: float) -> str:
        """What is wrong with a value: ``at least 1``, or nothing. NaN is never right."""
        if self.above:
            inside = self.low < value <= self.high
            return "" if inside else f"lie above {self.low:g} and up to {self.high:g}"
        if not value >= self.low:
            return f"be at least {self.low:g}"
        return f"be at most {self.high:g}" if value > self.high else ""


@dataclass(frozen=True)
class OneOf:
    """The words that a text may be."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """A rule about the whole value, in code: raises UserError for what it refuses."""

    rule: Callable[[Any], object]


@dataclass(frozen=True)
class MayBeEmpty:
    """A tuple without values means something: the default, or none."""


@dataclass(frozen=True)
class AnyText:
    """Words that whoever uses them checks, such as the names of a network's layers."""
