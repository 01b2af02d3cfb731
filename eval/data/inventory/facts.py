"""The inventory of one source: everything found is either taken or left out for a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST = 3  # names that are kept of each reason


@dataclass(frozen=True)
class LeftOut:
    """Some of what was found and is not used."""

    why: str  # completes "left out: .."
    count: int
    first: tuple[str, ...]  # at most FIRST names, as they were met
    expected: bool  # nobody would want it: shown by check-task, no warning

    def __str__(self) -> str:
        more = ", .." if self.count > len(self.first) else ""
        return f"{self.why} ({self.count:,}: {', '.join(self.first)}{more})"


@dataclass(frozen=True)
class Inventory:
    """What a source holds. ``taken`` and the counts of ``left_out`` add up to ``found``."""

    unit: str = ""  # what is counted: files, rows; '' where nothing was
    found: int = 0
    taken: int = 0
    left_out: tuple[LeftOut, ...] = ()
    said: tuple[str, ...] = ()  # what was decided that the user could have meant otherwise

    def warnings(self) -> tuple[str, ...]:
        """What a user should know before believing a score, a sentence each."""
        lost = [one for one in self.left_out if not one.expected]
        return (*self.said, *(f"left out: {one}" for one in lost))


NOTHING = Inventory()


@dataclass
class Tally:
    """An inventory while it is counted."""

    unit: str
    found: int = 0
    taken: int = 0
    said: list[str] = field(default_factory=list)
    _left: dict[tuple[str, bool], list[str]] = field(default_factory=dict)
    _counts: dict[tuple[str, bool], int] = field(default_factory=dict)

    def take(self, count: int = 1) -> None:
        self.found += count
        self.taken += count

    def leave(self, why: str, name: str, *, expected: bool = False, count: int = 1) -> None:
        """Count what is not used under its reason; ``name`` stands for it in words."""
        key = why, expected
        self.found += count
        self._counts[key] = self._counts.get(key, 0) + count
        names = self._left.setdefault(key, [])
        if len(names) < FIRST:
            names.append(name)

    def say(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.append(sentence)

    def done(self) -> Inventory:
        left = tuple(
            LeftOut(why, self._counts[why, expected], tuple(names), expected)
            for (why, expected), names in self._left.items()
        )
        return Inventory(self.unit, self.found, self.taken, left, tuple(self.said))
