"""From results to estimates: what a score rests on, and what that says of other images.

`Measured` is a score with its samples in few bytes; scores of one `Measured.question` were asked
the same and can be compared. Files of before the answers of few-shot episodes were kept say nothing
of other images: nothing is claimed from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics.estimates import Estimates, of_answers, of_episodes, of_items, of_resamples
from eval.metrics.intervals import jeffreys
from eval.metrics.scores import Samples, Score
from eval.protocols.episodes import Draw, design
from eval.results.schema import Result

OLD_EPISODES = (
    "its file has no single answers of episodes, as those of before the intervals over other "
    "images; score it again"
)
MOST_CLASSES, MOST_IMAGES = 100_000, 10_000_000  # of a foreign file; both take memory


@dataclass(frozen=True)
class Measured:
    """A score and its samples."""

    value: float
    unit: str  # as in `Samples`, or share: right answers of each image, of more than one
    n: int
    of: int
    packed: bytes  # bits, little-endian float32 of resamples, or a byte an image of shares
    without: tuple[float, ...] = ()
    draw: Draw | None = None

    @property
    def question(self) -> tuple[Any, ...]:
        """Equal for scores on the same images that can be compared."""
        defined = b""
        if self.unit == "resample":  # the same resamples leave a score undefined for all models
            defined = np.isnan(np.frombuffer(self.packed, "<f4")).tobytes()
        return self.unit, self.n, self.of, len(self.without), self.draw, defined


def measured(result: Result, name: str) -> Measured | None:
    """A score of a result with what it rests on; None where the file does not hold that."""
    score, samples = result.score(name), result.samples.get(name)
    if score is None or samples is None or not isinstance(samples.correct, str):
        return None
    draw = None
    if samples.unit == "episode":
        draw = _draw(result, name, samples)
        if draw is None:
            return None
    without = tuple(samples.without or ())
    if len(without) == 1 or not np.isfinite(without).all():
        return None
    return Measured(
        score.value, samples.unit, samples.n, samples.of, samples.packed(), without, draw
    )


def _draw(result: Result, name: str, samples: Samples) -> Draw | None:
    """The episodes of a few-shot score, as its file describes them; None where that is unsound."""
    shot = re.match(r"top1_(\d+)shot", name)
    sizes, config = result.details.get("class_images"), result.protocol.config
    facts = [config.get(k) for k in ("n_way", "queries", "episodes")]
    if shot is None or not isinstance(sizes, list) or not len(sizes) <= MOST_CLASSES:
        return None
    if not all(type(n) is int and 0 <= n < 2**31 for n in [*sizes, *facts]):
        return None
    n_way, queries, episodes = (int(n or 0) for n in facts)
    if episodes != samples.n or n_way * queries != samples.of or sum(sizes) > MOST_IMAGES:
        return None
    draw = Draw(
        tuple(sizes), int(shot[1]), n_way, queries, episodes, result.task.split_hash, result.seed
    )
    return draw if len(draw.eligible) >= n_way > 0 else None


def alike(a: Measured, b: Measured) -> list[Measured]:
    """The two by what both files tell: without the training sample's part where one lacks it; none
    where they were not asked the same."""
    if len(a.without) != len(b.without):
        a, b = (replace(one, without=()) for one in (a, b))
    return [a, b] if a.question == b.question else []


def estimates(found: Sequence[Measured]) -> Estimates | None:
    """Of scores of one question; None for none, and where they tell nothing of other images."""
    if not found:
        return None
    first = found[0]
    if first.unit == "resample":
        values = np.array([m.value for m in found])
        resamples = np.stack([np.frombuffer(m.packed, "<f4") for m in found])
        try:
            return of_resamples(values, resamples.astype(np.float64))
        except ValueError:
            return None
    if first.unit == "share":
        right = np.frombuffer(b"".join(m.packed for m in found), np.uint8)
        shares = right.reshape(len(found), first.n) / first.of
        return replace(of_items(shares), kind="test") if first.n > 1 else None
    answers = _answers(found)
    if first.draw is None:
        without = np.array([m.without for m in found]) if first.without else None
        return of_answers(answers, without)
    try:
        drawn = design(first.draw)
        return of_episodes(answers.reshape(len(found), *drawn.query.shape), drawn)
    except ValueError:
        return None


def _answers(found: Sequence[Measured]) -> NDArray[np.bool_]:
    count = found[0].n * found[0].of
    packed = np.frombuffer(b"".join(m.packed for m in found), np.uint8)
    bits = np.unpackbits(packed.reshape(len(found), -1), axis=1, count=count)
    return bits.view(np.bool_)


def stated(result: Result, score: Score) -> Score:
    """The score with its interval and that interval's kind. Those of files of before kinds were
    said are stated as they would be today, as far as the file allows."""
    if score.kind:
        return score
    samples = result.samples.get(score.name)
    if samples is not None and samples.unit == "episode":
        return score.model_copy(update={"kind": "episodes", "these": (score.ci_low, score.ci_high)})
    if samples is not None and samples.unit == "image":
        low, high = jeffreys(score.value, samples.n)
        return score.model_copy(update={"kind": "test", "ci_low": low, "ci_high": high})
    return score.model_copy(update={"kind": "draws" if score.name.endswith("_draws") else "test"})


def comparable(
    found: Mapping[int, Measured | None],
) -> tuple[NDArray[np.int64], Estimates] | None:
    """(rows, their estimates) of the scores of a column that share its most common question."""
    by_question: dict[tuple[Any, ...], list[int]] = {}
    for row, one in found.items():
        if one is not None:
            by_question.setdefault(one.question, []).append(row)
    if not by_question:
        return None
    rows = max(by_question.values(), key=len)
    values = [one for row in rows if (one := found[row]) is not None]
    told = estimates(values)
    return None if told is None else (np.array(rows, np.int64), told)
