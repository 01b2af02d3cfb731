"""Parts of train, for curves of accuracy against the number of labelled images.

Parts of one seed are nested: the tenth holds the hundredth, 5 images a class hold 1. They are
drawn from the images' hashes, so every model is given the same ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import TooFew
from eval.data.task_data import Split
from eval.metrics import intervals
from eval.protocols.outcome import Outcome


@dataclass(frozen=True)
class Part:
    """A share of each class, or a number of images a class."""

    share: float = 0.0
    each: int = 0

    @property
    def label(self) -> str:
        """As in the names of scores: 10pct, 0.1pct, 5each."""
        return f"{self.each}each" if self.each else f"{100 * self.share:g}pct"


def parts(settings: Any) -> list[Part]:
    """The parts that a protocol's settings ask for, the whole left out, smallest first."""
    shares = [Part(share=s) for s in sorted(set(settings.fractions)) if s < 1]
    return shares + [Part(each=n) for n in sorted(set(settings.per_class))]


def shares(settings: Any, train: int) -> list[float]:
    """The share of ``train`` images in each training, the whole first: for a plan, which takes a
    task to have ten classes."""
    return [1.0] + [
        p.share or min(1.0, p.each * 10 / train) for p in parts(settings)
        for _ in range(settings.subsets)
    ]  # fmt: skip


def subset(train: Split, part: Part, seed: int, draw: int) -> NDArray[np.int64]:
    """Ascending rows of a part of ``train``: at least one image of every class.

    Raises TooFew where a class has fewer images than are asked for.
    """
    kept = []
    for label in np.unique(train.labels).tolist():
        rows = np.flatnonzero(train.labels == label)
        words = np.frombuffer(
            hashlib.sha256(f"{train.hash}:{seed}:{draw}:{label}".encode()).digest(), "<u4"
        )
        order = rows[np.random.RandomState(words.tolist()).permutation(len(rows))]
        # an image that stands more than once is drawn once
        different = order[np.sort(np.unique(train.keys[order], return_index=True)[1])]
        count = part.each or max(1, round(part.share * len(different)))
        if count > len(different):
            raise TooFew(
                f"--train-per-class {part.each}: class {label} has only {len(different)} different "
                "training images; ask for fewer"
            )
        kept.append(different[:count])
    return np.sort(np.concatenate(kept))


def add(out: Outcome, part: Part, correct: NDArray[np.bool_]) -> None:
    """Two scores of a part. ``correct`` is [draws, N_test].

    ``top1_PART`` is the mean over draws; its interval takes in other draws of the part and other
    test images. ``top1_PART_draws`` is the same mean with the first of these alone.
    """
    n = correct.shape[1]
    if len(correct) == 1:
        out.add(f"top1_{part.label}", intervals.accuracy(correct[0]), n)
        return
    values = correct.mean(1, dtype=np.float64)
    images = float(correct.mean(0, dtype=np.float64).var(ddof=1)) / n if n > 1 else 0.0
    both = intervals.runs_interval(values, images, n - 1)
    out.add(f"top1_{part.label}", both, n, "sample")
    out.add(f"top1_{part.label}_draws", intervals.runs_interval(values), len(values), "draws")
