"""What a result's own numbers say against it, in sentences: none for a sound one.

A score is the mean of answers that stand in the same file, its interval lies about it, and the
counts agree with both. No computation breaks these rules; a slip of the hand and a forgery of one
number do. A file that was made up as a whole keeps them: `eval.run.verify` alone finds that out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from eval.metrics.intervals import calibration_error, mean_interval
from eval.metrics.scores import Samples, Score
from eval.protocols import PROTOCOLS
from eval.results.schema import Result

LOSSES = ("nll",)  # scores that are no fractions of one
EXPLAINED = re.compile(r"r2(_\w+)?")  # nor these: a model may be worse than the mean
MOST_NATS = 27.7  # of the NLL, whose probabilities are bounded by 1e-12
# A recorded number has six digits, a recorded confidence is one of 65536.
ROUNDING, ECE_ROUNDING, COUNT = 1.1e-6, 2e-5, 1 / 65535
_PART = re.compile(r"top1_([\d.]+(?:pct|each))(_draws)?")
# Intervals over a few draws, by Student's t, leave 0 to 1: of two draws by 12.7 times their gap.
_FURTHEST = 7.0


def broken(result: Result) -> str:
    """The first sentence against its numbers; empty where there is none."""
    return next(against_numbers(result), "")


def against_numbers(result: Result) -> Iterator[str]:
    """Each thing that the numbers of a result contradict, those of its scores first."""
    names = [score.name for score in result.scores]
    if not names:
        yield "it has no scores"
    if len(set(names)) < len(names):
        yield "it has two scores of one name"
    for name, samples in result.samples.items():
        yield from _samples(name, samples, result)
    for score in result.scores:
        found = list(_range(score, result))
        yield from found
        if not found:  # of a number out of range nothing else is worth saying
            yield from _count(score, result)
            yield from _mean(score, result)
            yield from _composite(score, result)


def _range(score: Score, result: Result) -> Iterator[str]:
    value, low, high = score.value, score.ci_low, score.ci_high
    loss = score.name in LOSSES
    explained = EXPLAINED.fullmatch(score.name) is not None
    lowest = -1 if explained else 0
    if not (math.isfinite(value) and lowest <= value <= (MOST_NATS if loss else 1)):
        kind = f"number of nats from 0 to {MOST_NATS}" if loss else "fraction of one"
        kind = "R2 from -1 to 1" if explained else kind
        yield f"score {score.name!r} is {value}, no {kind}"
        return
    ends = (low, high, *(score.these or ()))
    if not all(map(math.isfinite, ends)):
        yield f"the interval of score {score.name!r} is not finite"
        return
    # A percentile of resamples need not reach the value of the whole: it is held against them.
    free = _resampled(result) or _of_resamples(score, result)
    inside = low <= high and (free or low - ROUNDING <= value <= high + ROUNDING)
    these = score.these is None or (score.these[0] - ROUNDING <= value <= score.these[1] + ROUNDING)
    if not (inside and these):
        about = (low, high) if not inside else score.these
        yield f"score {score.name!r} is {value}, outside of its interval {_shown(about)}"
        return
    least, most = _reach(score, result)
    if not all(least - ROUNDING <= end <= most + ROUNDING for end in ends):
        yield (
            f"the interval {_shown((min(ends), max(ends)))} of score {score.name!r} leaves "
            f"{least:g} to {most:g}"
        )


def _reach(score: Score, result: Result) -> tuple[float, float]:
    """How far an interval of this kind can reach."""
    if score.name in LOSSES:
        return 0.0, MOST_NATS
    if EXPLAINED.fullmatch(score.name):
        return -1.0, 1.0
    samples = result.samples.get(score.name)
    if samples is not None and samples.unit == "episode":
        return -1.0, 2.0  # 1.96 standard errors of one or two episodes
    if _PART.fullmatch(score.name) or not score.kind:
        return -_FURTHEST, 1 + _FURTHEST
    return 0.0, 1.0


def _shown(interval: tuple[float, float] | None) -> str:
    assert interval is not None
    return f"[{interval[0]:g}, {interval[1]:g}]"


def _resampled(result: Result) -> bool:
    known = PROTOCOLS.get(result.protocol.name)
    return known is not None and known.kind == "detection"


def _of_resamples(score: Score, result: Result) -> bool:
    samples = result.samples.get(score.name)
    return samples is not None and samples.unit == "resample"


def _samples(name: str, samples: Samples, result: Result) -> Iterator[str]:
    if samples.n < 1 or samples.of < 1:
        yield f"the samples of {name!r} are {samples.n} of {samples.of}, not one or more"
        return
    if samples.unit == "resample" or not isinstance(samples.correct, str):  # else bits
        values = samples.values()
        values = values[~np.isnan(values)]  # where a resample leaves the score undefined
        least = -1 if EXPLAINED.fullmatch(name) else 0
        if not ((values >= least) & (values <= 1)).all():
            yield f"a sample of {name!r} is no fraction of one"
    if not all(0 <= share <= 1 for share in samples.without or ()):
        yield f"a value of {name!r} with images left out is no fraction of one"
    images = result.task.counts.get("test")
    answers = samples.of if samples.unit == "resample" else samples.n
    if samples.unit != "episode" and images is not None and answers != images:
        yield f"{name!r} has answers of {answers:,} images where the task has {images:,} to test"
    if samples.unit == "episode":
        config = result.protocol.config
        asked = [config.get(key) for key in ("episodes", "n_way", "queries")]
        known = [number for number in asked if type(number) is int]
        if len(known) == 3:
            episodes, n_way, queries = known
            if (samples.n, samples.of) != (episodes, n_way * queries):
                yield (
                    f"{name!r} has {samples.n} episodes of {samples.of} answers where its "
                    f"settings ask for {episodes} of {n_way * queries}"
                )


def _count(score: Score, result: Result) -> Iterator[str]:
    samples = result.samples.get(score.name)
    if score.n < 1:
        yield f"score {score.name!r} has n = {score.n}, not one or more"
    elif samples is not None:
        units = samples.of if samples.unit == "resample" else samples.n
        if score.n != units:
            yield f"score {score.name!r} has n = {score.n} and {units} samples"


def _mean(score: Score, result: Result) -> Iterator[str]:
    """A score against its own samples."""
    samples = result.samples.get(score.name)
    if samples is None:
        return
    values = samples.values()
    if samples.unit == "resample":
        yield from _quantiles(score, values[~np.isnan(values)])
        return
    mean = float(values.mean())
    if not abs(mean - score.value) <= ROUNDING:
        yield f"score {score.name!r} is {score.value} where its samples average {mean:.6f}"
    elif samples.unit == "episode":
        told = mean_interval(values)
        over = (score.ci_low, score.ci_high) if score.kind in ("", "episodes") else score.these
        if over and max(abs(over[0] - told.low), abs(over[1] - told.high)) > ROUNDING:
            yield (
                f"the interval of score {score.name!r} over episodes is {_shown(over)} where its "
                f"samples give {_shown((told.low, told.high))}"
            )


def _quantiles(score: Score, drawn: np.ndarray) -> Iterator[str]:
    if not len(drawn):
        return
    low, high = np.quantile(drawn, [0.025, 0.975])
    if max(abs(low - score.ci_low), abs(high - score.ci_high)) > 2 * ROUNDING:
        yield (
            f"the interval of score {score.name!r} is {_shown((score.ci_low, score.ci_high))} "
            f"where its resamples give {_shown((float(low), float(high)))}"
        )
    if not drawn.min() - ROUNDING <= score.value <= drawn.max() + ROUNDING:
        yield (
            f"score {score.name!r} is {score.value} where its resamples lie within "
            f"{_shown((float(drawn.min()), float(drawn.max())))}"
        )


def _composite(score: Score, result: Result) -> Iterator[str]:
    """A score that is no mean of samples of its own, as far as others tell of it."""
    top1 = result.samples.get("top1")
    hits = top1.values() > 0 if top1 is not None and top1.unit == "image" else None
    told: float | None = None
    near = ROUNDING
    if score.name == "mean_per_class" and hits is not None and (hits.all() or not hits.any()):
        told = float(hits[0])
    elif score.name == "ece" and hits is not None:
        confidence = result.confidences()
        if confidence is not None:
            told = calibration_error(confidence, hits)
            near = ECE_ROUNDING
    elif part := _PART.fullmatch(score.name):
        curve = result.details.get("curve")
        rows = curve if isinstance(curve, list) else []
        mine = [r.get("top1") for r in rows if isinstance(r, dict) and r.get("part") == part[1]]
        shares = [share for share in mine if isinstance(share, int | float)]
        if shares and len(shares) == len(mine):
            told = float(np.mean(shares))
    elif score.name in ("ap", "ap50", "voc07_ap50") and _resampled(result):
        told = _of_classes(score.name, result)
    if told is not None and not abs(told - score.value) <= near:
        others = f"the file's other numbers give {told:.6f}"
        yield f"score {score.name!r} is {score.value} where {others}"
    if score.name == "nll" and hits is not None:
        yield from _least_loss(score, hits, result)


def _of_classes(name: str, result: Result) -> float | None:
    rows = result.details.get("per_class")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    shares = [row[name] for row in rows if isinstance(row.get(name), int | float)]
    return float(np.mean(shares)) if shares else None


def _least_loss(score: Score, hits: np.ndarray, result: Result) -> Iterator[str]:
    """The true class has the probability of the answer where it is right, and at most what is left
    of it where it is wrong: the NLL cannot be less than these."""
    confidence = result.confidences()
    if confidence is None:
        return
    most = np.where(hits, confidence, np.minimum(confidence, 1 - confidence)) + COUNT
    least = float(-np.log(np.minimum(most, 1)).mean())
    if score.value < least - ROUNDING:
        yield f"score 'nll' is {score.value} where its confidences allow no less than {least:.6f}"
