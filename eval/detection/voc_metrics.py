"""Which detections are right by the rules of the PASCAL VOC devkit (VOCevaldet.m), as detectron2's
``pascal_voc_evaluation.py`` has them; that is what MoCo's detection results are measured with."""

from __future__ import annotations

import numpy as np

from eval.detection.resample import Flat, Pairs, Verdicts

# From integers, as detectron2: 0.05 steps added up would come out a little too large.
VOC_THRESHOLDS = np.arange(50, 100, 5) / 100
VOC_RECALLS = np.arange(0.0, 1.1, 0.1)


def voc_verdicts(flat: Flat, pairs: Pairs) -> Verdicts:
    """The devkit's matching for V = thresholds; it knows no limit of detections.

    Each detection asks for the one box it overlaps most, ignored boxes included, and more than the
    threshold. An ignored box: not counted. A box that a better detection asked for: wrong. The
    devkit's pixels are inclusive and counted from 1, a box there is x1 + 1, y1 + 1, x2, y2 here;
    with its sides of x2 - x1 + 1 the IoU is the plain one of our boxes. (detectron2 also rounds
    scores to 3 digits and corners to 1, through its text files; we do not.)
    """
    # The box each detection overlaps most; the first of equals, as numpy's argmax.
    order = np.lexsort((pairs.truth, -pairs.iou, pairs.found))
    found, first = np.unique(pairs.found[order], return_index=True)
    best = order[first]
    iou, truth = pairs.iou[best, None], pairs.truth[best]
    over = iou > VOC_THRESHOLDS  # [F, V]
    ignored = over & flat.ignore[truth, None]
    asked = over & ~ignored
    right = np.zeros((len(flat.score), len(VOC_THRESHOLDS)), bool)
    wrong = np.ones_like(right)
    wrong[found] = ~ignored
    by_score = np.argsort(-flat.score[found], kind="stable")
    for column in range(len(VOC_THRESHOLDS)):
        asking = by_score[asked[by_score, column]]
        _, earliest = np.unique(truth[asking], return_index=True)
        right[found[asking[earliest]], column] = True
    return Verdicts(right, wrong & ~right)
