"""Retrieval: each test image asks the training images for others of its class, or, where the data
are queries and a gallery, each query asks that for its instance.

A ranking is by cosine similarity, over the whole gallery, exact. R@k is the share of queries with
a right image among the first k, mAP the mean over queries of the average precision over all of the
gallery. With ``gallery = "test"`` each test image asks the other test images, as metric learning
does (Recall@K of Oh Song et al., CVPR 2016); queries then share a gallery that they are part of,
and the intervals take it as given. A query whose class the gallery lacks finds nothing and counts
as a miss. A query whose instance the gallery lacks was left out before, and is counted.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from eval.common.errors import BadInput
from eval.data.groups import GROUPS, training_groups
from eval.data.instances.instance_data import InstanceData
from eval.data.task_data import TaskData
from eval.metrics import intervals
from eval.metrics.scores import Samples
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Retrieval
from eval.solvers.knn import nearest, predict_without
from eval.solvers.retrieval import average_precision, ranked, recalled
from eval.training.context import Context

NAMED = 100  # instances without a match that a result names


def score(context: Context[TaskData], settings: Retrieval) -> Outcome:
    """R@k and mAP over the test images. Raises UserError where no query has a match, or the gallery
    is one image."""
    task, bank = context.task, context.features
    out = Outcome()
    start = time.perf_counter()
    queries, asked = bank.test
    own = settings.gallery == "test"
    instances = isinstance(task, InstanceData)
    gallery, labels = bank.test if own else bank.train
    if len(gallery) < 1 + own:
        raise BadInput(f"retrieval on task {task.name!r}: the gallery is empty")
    matches = torch.bincount(labels, minlength=len(task.classes))[asked] - int(own)
    without_match = int((matches == 0).sum())
    if without_match == len(asked):
        raise BadInput(
            f"retrieval on task {task.name!r}: none of the {len(asked):,} queries has an image of "
            f"its class in the gallery ({settings.gallery}); give a gallery with the same classes"
        )
    if without_match:
        out.notes.append(
            f"{without_match:,} of {len(asked):,} queries have no image of their class in the "
            "gallery: they count as misses"
        )
    hits, precision = answers(gallery, labels, queries, asked, settings.ks, own=own)
    out.fit_seconds = time.perf_counter() - start
    n = len(asked)
    for place, k in enumerate(settings.ks):
        name, right = f"recall_at_{k}", hits[:, place].numpy()
        # other training images are another draw; a gallery of instances is what it is
        drawn_anew = k == 1 and not own and not instances
        out.add_shares(name, right, _without(context) if drawn_anew else None)
    values = precision.numpy()
    drawn = intervals.resamples(lambda w: w @ values / w.sum(1), n, context.seed)
    drawn = drawn.astype("<f4").astype(np.float64)  # as files keep them
    low, high = np.quantile(drawn, [0.025, 0.975])
    out.add("map", intervals.Interval(float(values.mean()), float(low), float(high)), n)
    out.samples["map"] = Samples.of_resamples(drawn, n)
    out.details = {"gallery": len(gallery) - own, "queries_without_match": without_match}
    if isinstance(task, InstanceData):
        lost = sorted(set(task.lost))
        out.details |= {"instances": len(task.classes), "queries_left_out": len(task.lost),
                        "instances_left_out": lost[:NAMED]}  # fmt: skip
    return out


def answers(
    gallery: Tensor,
    labels: Tensor,
    queries: Tensor,
    asked: Tensor,
    ks: tuple[int, ...],
    *,
    own: bool = False,
) -> tuple[Tensor, Tensor]:
    """([M, len(ks)] hits, [M] average precision). With ``own`` query i is the gallery's row i, and
    is left out of its own ranking."""
    hits = torch.empty(len(queries), len(ks), dtype=torch.bool)
    precision = torch.empty(len(queries), dtype=torch.float64)
    for some, order in ranked(gallery, queries):
        relevant = labels[order] == asked[some, None]
        counted = None
        if own:
            counted = order != torch.arange(some.start, some.start + len(order))[:, None]
        hits[some] = recalled(relevant, ks, counted)
        precision[some] = average_precision(relevant, counted)
    return hits, precision


def _without(context: Context[TaskData]) -> list[float]:
    """R@1 with each group of training images left out: it is the top-1 of one neighbour."""
    bank, task = context.features, context.task
    (x, y), (x_test, y_test) = bank.train, bank.test
    groups = torch.from_numpy(training_groups(task, context.seed))
    similarity, index = nearest(x, x_test, min(len(x), 12))
    others = predict_without(
        x, x_test, similarity, index, y, groups, GROUPS, 1, len(task.classes), None
    )  # [G, M]
    return (others == y_test).double().mean(1).tolist()
