"""Two runs of one result side by side: equal, equal within the tolerance, or different.

Answers decide, not scores: the samples say how many answers changed, and a score that its own
samples give needs no limit of its own. A recorded score that the recorded samples do not give was
not computed from them, whatever the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eval.metrics import intervals
from eval.metrics.estimates import of_answers
from eval.metrics.intervals import Interval, mean_interval
from eval.metrics.scores import Samples, Score
from eval.protocols.episodes import design
from eval.results.estimates import estimates, measured
from eval.results.schema import SAME_CONFIDENCE, Result, confidence_gap
from eval.run.tolerance import Tolerance

# what protocols choose on a part of train; last bits can tip a choice, and then much changes
CHOSEN = ("c", "chosen")
LATER = ("nll",)  # scores that earlier results of this schema do not have
# a recorded number is rounded to six digits, a recorded confidence to 1 / 65535
ROUNDING, ECE_ROUNDING = 1.1e-6, 2e-5

Word = Literal["equal", "within tolerance", "differs"]


@dataclass(frozen=True)
class Difference:
    """One number that did not come out again, and whether the tolerance allows it."""

    text: str
    allowed: bool = False


@dataclass(frozen=True)
class Verdict:
    """What came out. ``differences`` are about the numbers, ``context`` about their making.

    ``tolerance`` is None where nothing was scored, because the inputs are other ones.
    """

    differences: tuple[Difference, ...]
    context: tuple[str, ...]
    tolerance: Tolerance | None = None

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def word(self) -> Word:
        if self.equal:
            return "equal"
        return "within tolerance" if all(d.allowed for d in self.differences) else "differs"


def differences(
    old: Result, new: Result, tolerance: Tolerance, labels: NDArray[np.int64] | None = None
) -> tuple[Difference, ...]:
    """What ``new`` has otherwise than ``old``, in the order of the scores.

    ``labels`` are the [N_test] true classes, by which ``mean_per_class`` follows from the samples.
    """
    out = []
    answered_alike = old.samples.keys() == new.samples.keys() and all(
        _same_answers(samples, new.samples[name]) for name, samples in old.samples.items()
    )
    for score in old.scores:
        again = new.score(score.name)
        if again is None:
            out.append(Difference(f"{score.name}: recorded, but not found now"))
            continue
        alike = _numbers(again, score.kind) == _numbers(score, score.kind)
        if alike and (answered_alike or tolerance.exact):
            continue
        found = _score(old, new, score, again, tolerance, labels)
        if not (alike and found.allowed):  # the same score of other answers may be anybody's
            out.append(found)
    missing = [s.name for s in new.scores if old.score(s.name) is None and s.name not in LATER]
    missing += [name for name in new.samples if name not in old.samples]
    out += [Difference(f"{n}: found now, but not recorded") for n in dict.fromkeys(missing)]
    for name, samples in old.samples.items():
        if name not in new.samples:
            out.append(Difference(f"{name}: samples recorded, but not found now"))
        elif not _same_answers(samples, new.samples[name]):
            out.append(_answers(name, samples, new.samples[name], tolerance))
    gap = confidence_gap(old, new)  # results of earlier versions have none
    if gap > SAME_CONFIDENCE:
        text = f"confidence: up to {gap:.4f} off at an image"
        out.append(Difference(text, gap <= tolerance.confidence))
    return tuple(out)


def choices(old: Result, new: Result) -> tuple[str, ...]:
    """What was chosen on a part of train otherwise than it was recorded."""
    pairs = [
        (name, old.details[name], new.details.get(name)) for name in CHOSEN if name in old.details
    ]
    return tuple(f"{name} {b} here, {a} recorded" for name, a, b in pairs if a != b)


def _numbers(score: Score, kind: str) -> tuple[object, ...]:
    """What must come out again. Intervals of before kinds were said are computed otherwise now."""
    if not kind:
        return score.value, score.n
    return score.value, score.ci_low, score.ci_high, score.n, score.these, score.kind


def _same_answers(old: Samples, new: Samples) -> bool:
    if isinstance(old.correct, str) == isinstance(new.correct, str):
        return old.correct == new.correct
    alike = (old.unit, old.n, old.of) == (new.unit, new.n, new.of)  # one has counts an episode
    return alike and bool(np.allclose(old.values(), new.values(), rtol=0, atol=1e-9))


def _score(
    old: Result,
    new: Result,
    score: Score,
    again: Score,
    tolerance: Tolerance,
    labels: NDArray[np.int64] | None,
) -> Difference:
    text = (
        f"{score.name}: {again.value} [{again.ci_low}, {again.ci_high}] where "
        f"{score.value} [{score.ci_low}, {score.ci_high}] was recorded"
    )
    if tolerance.exact or score.n != again.n:
        return Difference(text)
    if _agrees(given(new, again, labels), again):  # else the protocol has a rule of its own
        recorded = given(old, score, labels)
        if _agrees(recorded, score):
            return Difference(text, allowed=True)  # as far as the answers are
        if recorded is not None:
            return Difference(f"{text}, and the recorded answers give {recorded.value:.6f}")
    limit = _limit(score, tolerance)
    off = abs(again.value - score.value)
    ends = max(abs(again.ci_low - score.ci_low), abs(again.ci_high - score.ci_high))
    if not score.kind:  # another kind of interval
        ends = 0.0
    # a quantile of the resamples moves further than their mean
    return Difference(text, off <= limit + ROUNDING and ends <= 2 * limit + ROUNDING)


def _limit(score: Score, tolerance: Tolerance) -> float:
    """For a score that no samples give; 0 where nothing is known of it."""
    if score.name == "nll":
        return tolerance.nll * abs(score.value)
    if score.name.startswith("top1") or score.name in ("mean_per_class", "ece"):
        return tolerance.share(score.n)
    return 0.0


def _agrees(found: Interval | None, score: Score) -> bool:
    if found is None:
        return False
    near = ECE_ROUNDING if score.name == "ece" else ROUNDING
    pairs = ((found.value, score.value), (found.low, score.ci_low), (found.high, score.ci_high))
    return all(abs(a - b) <= near for a, b in pairs)


def given(result: Result, score: Score, labels: NDArray[np.int64] | None = None) -> Interval | None:
    """The score by the result's own samples; None where they do not give it.

    The interval of an image score of before kinds were said is taken as it is: how it was drawn is
    no longer known.
    """
    name = score.name
    own, images = result.samples.get(name), result.samples.get("top1")
    if own is not None and own.unit == "episode":
        values = own.values()
        return _of_episodes(result, name) if score.kind == "sample" else mean_interval(values)
    found = None
    if own is not None and own.unit == "image":
        right = own.values() > 0
        without = None if own.without is None else np.array([own.without])
        found = intervals.accuracy(right)
        if without is not None:
            found = of_answers(right[None], without).share(0, own.n)
    elif images is not None and images.unit == "image":
        right = images.values() > 0
        confidence = result.confidences() if name == "ece" else None
        if name == "mean_per_class" and labels is not None and len(labels) == images.n:
            found = intervals.mean_per_class(right, labels)
        elif confidence is not None:
            found = intervals.expected_calibration_error(confidence, right, result.seed)
    if found is None or score.kind:
        return found
    return Interval(found.value, score.ci_low, score.ci_high)


def _of_episodes(result: Result, name: str) -> Interval | None:
    held = measured(result, name)
    told = estimates([held]) if held is not None else None
    if held is None or held.draw is None or told is None:
        return None
    return told.share(0, design(held.draw).images)


def _answers(name: str, old: Samples, new: Samples, tolerance: Tolerance) -> Difference:
    said = f"{name}: other episodes or images are answered right"
    if old.unit == "resample" or (old.unit, old.n, old.of) != (new.unit, new.n, new.of):
        return Difference(said)
    # [n] right answers gained; within an episode gains and losses cancel
    gained = np.rint((new.values() - old.values()) * old.of).astype(int)
    changed, net = int(np.abs(gained).sum()), int(gained.sum())
    total = old.n * old.of
    limit, side = tolerance.answers(total), tolerance.one_sided(changed)
    text = f"{said}: {changed:,} of {total:,} answers changed, {net:+,} in all"
    if tolerance.exact:
        return Difference(text)
    if changed > limit:
        return Difference(f"{text}; at most {limit:,} may")
    if abs(net) > side:
        return Difference(f"{text}; noise changes both ways, at most {side:+,} in all")
    return Difference(text, allowed=True)
