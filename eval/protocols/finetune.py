"""The study's full-network transfer (paper.md 3.2), scored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.finetune.grid import fit as finetuned
from eval.finetune.saved_model import Keeper
from eval.protocols import trained
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Finetune
from eval.training.checkpoint import forget_answer, key
from eval.training.setup import Answer, Setup


def score(setup: Setup, settings: Finetune) -> Outcome:
    """Answers are kept on disk until all parts of train that were asked for are there: a run
    killed in the last of them repeats none of the others."""
    digests: list[str] = []

    def fit(setup: Setup, settings: Finetune, rows: NDArray[np.int64]) -> Answer:
        whole = not digests  # all of train comes first; no network of its parts is kept
        digests.append(key(setup, settings, rows))
        keeper = Keeper(setup, settings, setup.keep) if setup.keep and whole else None
        return finetuned(setup, settings, rows, keeper)

    out = trained.score(setup, settings, fit)
    if setup.workers.main:
        for digest in digests:
            forget_answer(setup.cache, digest)
    return out
