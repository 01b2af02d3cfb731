"""Average precision when the test images are drawn again: match once, then count under weights.

Which detection finds which box never depends on the other images, so a bootstrap resample only
changes how often each image counts. Rules are those of pycocotools' ``COCOeval`` (evaluateImg,
accumulate); at weights of one the results are its own. Detections of one image that share a score
count together in all copies of it, which is all that differs from a list of copied images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from eval.data.boxes.objects import BoxPrediction, Objects
from eval.metrics.intervals import DRAWS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# linspace and not arange, whose steps come out a little too large (as COCO's params say)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# square pixels: the areas of all, small, medium and large objects, both ends included
RANGES = np.array([(0, 1e5**2), (0, 32**2), (32**2, 96**2), (96**2, 1e5**2)])
MOST = 100  # detections of a class in an image that COCO looks at

BUDGET = 64 << 20  # bytes of one array of weights or counts; about six live at a time


@dataclass(frozen=True)
class Flat:
    """The detections (D) and boxes (G) of all images in one table each."""

    images: int
    image: Ints  # [D], in order of the images
    label: Ints  # [D]
    score: Floats  # [D]
    size: Floats  # [D] square pixels
    truth_image: Ints  # [G], in order of the images
    truth_label: Ints  # [G]
    truth_size: Floats  # [G] square pixels, as the authors give it
    ignore: Bools  # [G]


@dataclass(frozen=True)
class Pairs:
    """Detections and boxes of one class in one image that overlap by half or more; [P] each, in
    order of the detections, then of the boxes."""

    found: Ints
    truth: Ints
    iou: Floats
    crowd_iou: Floats  # the IoU; for ignored boxes the share of the detection that lies within


@dataclass(frozen=True)
class Verdicts:
    """What each of D detections counts as under each of V rules; neither is: not counted."""

    right: Bools  # [D, V]
    wrong: Bools  # [D, V]


@dataclass(frozen=True)
class Curve:
    """The precision-recall curve of a class at its J right detections, best first, in B draws."""

    right: Floats  # [J, B] right detections so far
    counted: Floats  # [J, B] right and wrong ones so far
    boxes: Floats  # [B] boxes to find


def flatten(found: Sequence[BoxPrediction], truth: Sequence[Objects]) -> Flat:
    def joined(parts: list[NDArray], kind: type) -> NDArray:
        return np.concatenate(parts).astype(kind)

    boxes = joined([f.boxes.reshape(-1, 4) for f in found], np.float64)
    each = np.arange(len(found))
    return Flat(
        images=len(found),
        image=np.repeat(each, [len(f.labels) for f in found]),
        label=joined([f.labels for f in found], np.int64),
        score=joined([f.scores for f in found], np.float64),
        size=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        truth_image=np.repeat(each, [len(t) for t in truth]),
        truth_label=joined([t.labels for t in truth], np.int64),
        truth_size=joined([t.area for t in truth], np.float64),
        ignore=joined([t.ignore for t in truth], np.bool_),
    )


def overlaps(
    boxes: NDArray[np.float32], others: NDArray[np.float32], ignore: Bools
) -> tuple[Floats, Floats]:
    """IoU of [D, 4] and [G, 4] boxes, and the same with COCO's rule for crowds: [D, G] each."""
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    sides = np.maximum(sides, 0)
    shared = sides[..., 0] * sides[..., 1]
    own = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    union = own + (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) - shared
    touch = shared > 0  # boxes without a surface overlap nothing
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=touch)
    whole = np.where(ignore, own, union)
    return iou, np.divide(shared, whole, out=np.zeros_like(shared), where=touch)


def pair(found: Sequence[BoxPrediction], truth: Sequence[Objects]) -> Pairs:
    """All pairs that any rule could match; the rest can only be wrong."""
    parts = []
    first = first_truth = 0
    for f, t in zip(found, truth, strict=True):
        if len(f.labels) and len(t):
            iou, crowd_iou = overlaps(f.boxes, t.boxes, t.ignore)
            near = np.maximum(iou, crowd_iou) >= THRESHOLDS[0]
            d, g = np.nonzero(near & (f.labels[:, None] == t.labels))
            parts.append((d + first, g + first_truth, iou[d, g], crowd_iou[d, g]))
        first += len(f.labels)
        first_truth += len(t)
    if not parts:
        none, nothing = np.zeros(0, np.int64), np.zeros(0)
        return Pairs(none, none, nothing, nothing)
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def places(flat: Flat) -> Ints:
    """[D] place of each detection by score among those of its class in its image, from 0."""
    order = np.lexsort((-flat.score, flat.label, flat.image))
    key = (flat.image * (1 + flat.label.max(initial=0)) + flat.label)[order]
    begins = np.flatnonzero(np.diff(key, prepend=-1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    return place


def out_of_range(size: Floats) -> Bools:
    """[N] sizes to [N, ranges]."""
    return (size[:, None] < RANGES[:, 0]) | (size[:, None] > RANGES[:, 1])


def coco_verdicts(flat: Flat, pairs: Pairs) -> Verdicts:
    """COCO's matching for V = ranges x thresholds, the threshold changing fastest.

    In each image and class the detections choose in order of score: the best free counted box, or
    else the best ignored one; of equals the last. All images take their turn at once.
    """
    place = places(flat)
    seen = place < MOST
    rules = (len(RANGES), len(THRESHOLDS))
    skip = np.repeat(flat.ignore[:, None] | out_of_range(flat.truth_size), rules[1], axis=1)
    taken = np.zeros((len(flat.ignore), rules[0] * rules[1]), bool)
    bar = np.tile(np.minimum(THRESHOLDS, 1 - 1e-10), rules[0])
    right = np.zeros((len(flat.score), rules[0] * rules[1]), bool)
    matched = np.zeros_like(right)
    columns = np.arange(rules[0] * rules[1])
    turns = place[pairs.found]
    by_turn = np.argsort(turns, kind="stable")
    ends = np.searchsorted(turns[by_turn], np.arange(1, MOST + 1))
    for chosen in np.split(by_turn, ends)[:MOST]:
        if not len(chosen):
            continue
        truth, iou = pairs.truth[chosen], pairs.crowd_iou[chosen, None]  # [P], [P, 1]
        free = ~taken[truth] | flat.ignore[truth, None]  # a crowd takes any number of detections
        # A quarter is exact and puts every ignored box behind every counted one.
        value = np.where(free & (iou >= bar), np.where(skip[truth], iou / 4, iou), 0.0)  # [P, V]
        begins = np.flatnonzero(np.diff(pairs.found[chosen], prepend=-1))
        lengths = np.diff(begins, append=len(chosen))
        best = np.maximum.reduceat(value, begins, axis=0)  # [d, V]
        tie = (value > 0) & (value == np.repeat(best, lengths, axis=0))
        row = np.where(tie, np.arange(len(chosen))[:, None], -1)
        pick = np.maximum.reduceat(row, begins, axis=0)  # [d, V]
        found = pairs.found[chosen[begins]]
        matched[found] = pick >= 0
        right[found] = best >= THRESHOLDS[0]
        hit, column = np.nonzero(pick >= 0)
        taken[truth[pick[hit, column]], columns[column]] = True
    outside = np.repeat(out_of_range(flat.size), rules[1], axis=1)
    return Verdicts(right, seen[:, None] & ~matched & ~outside)


def draws(images: int, seed: int, step: int) -> Iterator[NDArray[np.float32]]:
    """How often each image is drawn, [images, b] for up to ``step`` of the ``DRAWS`` resamples;
    the stream is that of ``stats.bootstrap`` whatever the step. Exact: counts are small."""
    random = np.random.RandomState(seed)
    for begin in range(0, DRAWS, step):
        size = min(step, DRAWS - begin)
        drawn = random.randint(images, size=(size, images)) + images * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        yield np.ascontiguousarray(weights.T, np.float32)


def running(rows: Floats, function: np.ufunc) -> Floats:
    """``function.accumulate`` down the rows, in place. By rows it is four times faster."""
    for above, row in pairwise(rows):
        function(above, row, out=row)
    return rows


def curve(
    weights: NDArray[np.float32], image: Ints, right: Bools, wrong: Bools, boxes: Floats
) -> Curve:
    """A class's curve under weights [images, B]; its [D] detections in order of falling score."""
    counted = np.flatnonzero(right | wrong)
    stops = np.flatnonzero(right)
    # Row j sums what is counted after right detection j-1, up to and with j.
    cuts = np.concatenate([[0], np.searchsorted(counted, stops, side="right")])
    columns = image[counted[: cuts[-1]]]
    ones = np.ones(len(columns), np.float32)
    steps = sparse.csr_matrix((ones, columns, cuts), (len(stops), len(weights))) @ weights
    return Curve(
        running(weights[image[stops]].astype(np.float64), np.add),
        running(steps.astype(np.float64), np.add),
        boxes,
    )


def envelope(c: Curve) -> Floats:
    """[J, B] the best precision at each right detection or at any later one."""
    precision = c.right / (c.counted + np.spacing(1))
    return running(precision[::-1], np.maximum)[::-1]


def recall(c: Curve) -> Floats:
    """[J, B]; NaN where a draw has no box of the class."""
    with np.errstate(invalid="ignore"):
        return c.right / c.boxes


def interpolated(c: Curve, recalls: Floats) -> Floats:
    """[B] mean over R evenly spaced recalls, 0 to 1, of the best precision at that recall or more.

    With 101 recalls it is COCO's average precision, with 11 that of VOC 2007.
    """
    if not len(c.right):
        return np.where(c.boxes > 0, 0.0, np.nan)
    reached = np.nan_to_num(recall(c))
    # R times the recall tells the next listed recall up to rounding; the list itself decides.
    near = (reached * (len(recalls) - 1) + 1e-6).astype(np.int64)
    passed = near + (reached >= recalls[near])  # [J, B] listed recalls reached
    new = passed.astype(np.float64)
    new[1:] -= passed[:-1]
    total = np.einsum("jb,jb->b", envelope(c), new) / len(recalls)
    return np.where(c.boxes > 0, total, np.nan)


def area_under(c: Curve) -> Floats:
    """[B] area under the curve with all its points (VOC 2010 and later)."""
    if not len(c.right):
        return np.where(c.boxes > 0, 0.0, np.nan)
    rise = recall(c)
    rise[1:] -= rise[:-1].copy()
    return np.einsum("jb,jb->b", envelope(c), rise)


def final_recall(c: Curve) -> Floats:
    """[B] share of the boxes found by any detection."""
    return recall(c)[-1] if len(c.right) else np.where(c.boxes > 0, 0.0, np.nan)
