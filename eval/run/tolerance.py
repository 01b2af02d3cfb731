"""How much two runs of one result may differ without being different, and why.

The limits are wider, by two to ten times, than what committed results moved when they were scored
again with another release of Pillow, other instructions of the processor or two threads; README.md
beside this file has the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.models.formats import FORMATS
from eval.results.schema import SAME_CONFIDENCE, Environment

# what computes; the others fetch, store and distribute
COMPUTING = (
    "transferzoo", "torch", "torchvision", "timm", "numpy", "scipy", "pillow", "faster-coco-eval",
    *(package for known in FORMATS for package in known.packages),
)  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """Limits, each up to and including. ``why`` is their cause, a clause."""

    why: str
    few: int = 0  # answers, however few there are
    rate: float = 0.0  # of the answers, where that is more
    confidence: float = SAME_CONFIDENCE  # of one test image
    nll: float = 0.0  # of the value

    @property
    def exact(self) -> bool:
        return self.few == 0

    def answers(self, of: int) -> int:
        """How many of so many answers may change."""
        return max(self.few, math.ceil(self.rate * of)) if self.few else 0

    def one_sided(self, changed: int) -> int:
        """How far right answers may be gained or lost, where so many changed: noise has no side."""
        return min(changed, math.ceil(2 + 3 * math.sqrt(changed)))

    def share(self, n: int) -> float:
        """How far a share of n answers may move."""
        return self.answers(n) / n if n else 0.0

    def __str__(self) -> str:
        if self.exact:
            return f"none: {self.why}"
        return (
            f"{self.few} answers of a score, or {100 * self.rate:g} % where that is more, and ECE "
            f"as a share of so many; a confidence by {self.confidence:g}, NLL by "
            f"{100 * self.nll:g} %: {self.why}"
        )


def tolerance(then: Environment, here: Environment) -> Tolerance:
    """By what was recorded and what differs from it here."""
    changes = tuple(c for c in changed(then, here) if c.computes)
    if not changes:
        if then.instructions is None:
            return Tolerance(
                "versions, device, threads and processes are those recorded (the processor's "
                "instructions are not, and others change last bits too)"
            )
        return Tolerance("versions, device, instructions, threads and processes are those recorded")
    why = ", ".join(str(c) for c in changes)
    if {c.what for c in changes} <= {"threads", "processes"}:
        return Tolerance(why, few=2, rate=0.0002, confidence=0.002, nll=0.0005)
    return Tolerance(why, few=4, rate=0.003, confidence=0.05, nll=0.005)


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was recorded."""

    what: str
    then: str
    here: str

    @property
    def computes(self) -> bool:
        return self.what in (*COMPUTING, "device", "instructions", "threads", "processes")

    def __str__(self) -> str:
        return f"{self.what} {self.here} here, {self.then} recorded"


def changed(then: Environment, here: Environment) -> tuple[Change, ...]:
    """What the result records of its making and is otherwise here, versions first."""
    found = [
        Change(name, old, here.versions.get(name, "absent"))
        for name, old in then.versions.items()
        if here.versions.get(name) != old
    ]
    for what in ("device", "instructions", "threads", "processes"):
        old, new = getattr(then, what), getattr(here, what)
        if old is not None and old != new:
            found.append(Change(what, str(old), str(new)))
    return tuple(found)
