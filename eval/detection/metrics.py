"""How well a detector finds: COCO's average precision, PASCAL VOC's, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.data.boxes.objects import BoxPrediction, Objects
from eval.detection import resample, voc_metrics
from eval.detection.resample import Bools, Curve, Flat, Floats, Ints, Pairs, Verdicts
from eval.metrics.intervals import Interval

if TYPE_CHECKING:
    from faster_coco_eval import COCOeval_faster

SIZES = ("ap_small", "ap_medium", "ap_large")  # after all, the order of resample.RANGES
COCO_MAIN = ("ap", "ap50", "ap75")
VOC_MAIN = ("voc07_ap", "voc07_ap50", "voc07_ap75")


@dataclass(frozen=True)
class Measured:
    """What ``measure`` finds; scores are fractions of 1."""

    scores: dict[str, Interval]
    resampled: dict[str, Floats]  # [DRAWS] each main score in each resample of the test images
    per_class: list[dict[str, Any]]  # one a class: class, boxes (counted), ap, ap50, voc07_ap50


@dataclass(frozen=True)
class Rule:
    """A way to match and to score, for A kinds of objects at T thresholds."""

    verdicts: Verdicts  # [D, A x T]
    asked: Bools  # [G, A] the boxes to find
    score: Callable[[int, Iterable[Curve]], dict[str, Floats]]  # kind, its T curves to [B] each


def measure(
    found: Sequence[BoxPrediction],
    truth: Sequence[Objects],
    classes: int,
    seed: int,
    *,
    voc: bool = False,
) -> Measured:
    """Score detections ``found`` in images that show ``truth``; both are in order of the images.

    ``ap`` (mean over IoU .50:.05:.95), ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``,
    ``ap_large`` and ``ar100`` by COCO's rules, from faster-coco-eval; where the test images have no
    object of a size, its score is left out. Difficult and crowd objects are ignored as COCO's
    crowds. At most 100 detections of a class count in an image. With ``voc`` also ``voc07_ap``,
    ``voc07_ap50``, ``voc07_ap75`` (11 points) and ``voc_ap50`` (all points) by VOC's rules.

    Intervals are percentile bootstraps over the images; the draws depend on the number of images
    and the seed alone, so two models' ``resampled`` are paired. A resample without any box of a
    score gives NaN.

    Raises UserError if there is no box to find, ValueError if the input is not sound.
    """
    _check(found, truth, classes)
    flat = resample.flatten(found, truth)
    values, per_class = coco_point(found, truth, classes)
    rules = both_rules(flat, resample.pair(found, truth), voc)
    if voc:
        ones = np.ones((len(found), 1), np.float32)
        own = [_class_scores(flat, rules[1:], *m, ones) for m in _members(flat, classes)]
        values |= {name: float(value[0]) for name, value in _class_mean(own).items()}
        for row, score in zip(per_class, own, strict=True):
            row["voc07_ap50"] = float(score["voc07_ap50"][0]) if row["boxes"] else None
    drawn = bootstrap(flat, rules, classes, seed)
    main = COCO_MAIN + (VOC_MAIN if voc else ())
    return Measured(
        scores={name: _interval(value, drawn[name]) for name, value in values.items()},
        resampled={name: drawn[name] for name in main},
        per_class=per_class,
    )


def coco_judge(
    found: Sequence[BoxPrediction], truth: Sequence[Objects], classes: int
) -> COCOeval_faster:
    """faster-coco-eval's evaluator after its work, in memory and without a word; ``stats`` holds
    COCO's twelve numbers, -1 for one that is undefined."""
    from faster_coco_eval import COCO, COCOeval_faster

    shared = {
        "images": [{"id": i} for i in range(len(found))],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
    }
    boxes = COCO(shared | {"annotations": list(_annotated(truth))}, print_function=_silent)
    detections = COCO(shared | {"annotations": list(_detected(found))}, print_function=_silent)
    judge = COCOeval_faster(boxes, detections, "bbox", print_function=_silent)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge


def coco_point(
    found: Sequence[BoxPrediction], truth: Sequence[Objects], classes: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """COCO's scores (fractions of 1) and those of each class, from the maintained evaluator."""
    judge = coco_judge(found, truth, classes)
    stats = dict(zip((*COCO_MAIN, *SIZES), judge.stats, strict=False))
    stats["ar100"] = judge.stats[8]
    precision = judge.eval["precision"][:, :, :, 0, -1].mean(1)  # [thresholds, classes]
    counts = np.zeros(classes, np.int64)
    for t in truth:
        np.add.at(counts, t.labels[~t.ignore], 1)
    per_class = [
        {
            "class": k,
            "boxes": int(counts[k]),
            "ap": float(precision[:, k].mean()) if counts[k] else None,
            "ap50": float(precision[0, k]) if counts[k] else None,
        }
        for k in range(classes)
    ]
    return {name: float(value) for name, value in stats.items() if value > -1}, per_class


def both_rules(flat: Flat, pairs: Pairs, voc: bool) -> list[Rule]:
    """COCO's rule and, if asked for, that of VOC."""
    asked = ~flat.ignore[:, None] & ~resample.out_of_range(flat.truth_size)
    rules = [Rule(resample.coco_verdicts(flat, pairs), asked, _coco_scores)]
    if voc:
        verdicts = voc_metrics.voc_verdicts(flat, pairs)
        rules.append(Rule(verdicts, ~flat.ignore[:, None], _voc_scores))
    return rules


def bootstrap(flat: Flat, rules: Sequence[Rule], classes: int, seed: int) -> dict[str, Floats]:
    """[DRAWS] of every score of the rules; NaN where a resample leaves it undefined."""
    most = max(flat.images, int(np.bincount(flat.truth_label).max()))
    step = max(1, resample.BUDGET // (8 * most))
    parts = [
        weighted(flat, rules, classes, weights)
        for weights in resample.draws(flat.images, seed, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def weighted(
    flat: Flat, rules: Sequence[Rule], classes: int, weights: NDArray[np.float32]
) -> dict[str, Floats]:
    """[B] of every score, each image counted as often as its row in weights [images, B] says."""
    members = _members(flat, classes)
    return _class_mean(_class_scores(flat, rules, *m, weights) for m in members)


def _members(flat: Flat, classes: int) -> list[tuple[Ints, Ints]]:
    """Of each class the detections in falling order of score, and the boxes.

    Equal scores keep the order of the images, as COCO's mergesort leaves them.
    """
    order = np.lexsort((-flat.score, flat.label))
    cuts = np.searchsorted(flat.label[order], np.arange(1, classes))
    truth = np.argsort(flat.truth_label, kind="stable")
    truth_cuts = np.searchsorted(flat.truth_label[truth], np.arange(1, classes))
    return list(zip(np.split(order, cuts), np.split(truth, truth_cuts), strict=True))


def _class_scores(
    flat: Flat, rules: Sequence[Rule], of: Ints, boxes: Ints, weights: NDArray[np.float32]
) -> dict[str, Floats]:
    """[B] of every score for one class, from its detections ``of`` and its ``boxes``."""
    image, truth_image = flat.image[of], flat.truth_image[boxes]
    scores: dict[str, Floats] = {}
    for rule in rules:
        right, wrong, asked = rule.verdicts.right[of], rule.verdicts.wrong[of], rule.asked[boxes]
        kinds = asked.shape[1]
        per = right.shape[1] // kinds
        for kind in range(kinds):
            there = weights[truth_image[asked[:, kind]]].sum(0, dtype=np.float64)  # [B]
            curves = (
                resample.curve(weights, image, right[:, v], wrong[:, v], there)
                for v in range(kind * per, (kind + 1) * per)
            )
            scores |= rule.score(kind, curves)
    return scores


def _coco_scores(kind: int, curves: Iterable[Curve]) -> dict[str, Floats]:
    precisions, recalls = [], []
    for c in curves:  # one at a time: a curve of a common class is large
        precisions.append(resample.interpolated(c, resample.RECALLS))
        recalls.append(resample.final_recall(c))
    mean: Floats = np.mean(precisions, axis=0)
    if kind > 0:
        return {SIZES[kind - 1]: mean}
    ap50, ap75 = precisions[0], precisions[5]
    return {"ap": mean, "ap50": ap50, "ap75": ap75, "ar100": np.mean(recalls, axis=0)}


def _voc_scores(_kind: int, curves: Iterable[Curve]) -> dict[str, Floats]:
    precisions: list[Floats] = []
    scores: dict[str, Floats] = {}
    for c in curves:
        precisions.append(resample.interpolated(c, voc_metrics.VOC_RECALLS))
        if not scores:  # the first threshold, .50
            scores["voc_ap50"] = resample.area_under(c)
    mean: Floats = np.mean(precisions, axis=0)
    return dict(zip(VOC_MAIN, (mean, precisions[0], precisions[5]), strict=True)) | scores


def _class_mean(per_class: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """[B] mean of every score over the classes that have a box in the draw; NaN if none has."""
    total: dict[str, Floats] = {}
    defined: dict[str, Floats] = {}
    for scores in per_class:
        for name, values in scores.items():
            total[name] = total.get(name, 0.0) + np.nan_to_num(values)
            defined[name] = defined.get(name, 0.0) + np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return {name: total[name] / defined[name] for name in total}


def _interval(value: float, drawn: Floats) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):  # too rare to be in any resample
        return Interval(value, value, value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _annotated(truth: Sequence[Objects]) -> Iterator[dict[str, Any]]:
    """COCO's annotations; ids from 1, as 0 means unmatched to the evaluator."""
    number = 0
    for i, t in enumerate(truth):
        columns = (t.labels.tolist(), _xywh(t.boxes), t.area.tolist(), t.ignore.tolist())
        for label, box, area, ignored in zip(*columns, strict=True):
            number += 1
            yield {
                "id": number, "image_id": i, "category_id": label, "bbox": box, "area": area,
                "iscrowd": int(ignored),
            }  # fmt: skip


def _detected(found: Sequence[BoxPrediction]) -> Iterator[dict[str, Any]]:
    number = 0
    for i, f in enumerate(found):
        columns = (f.labels.tolist(), _xywh(f.boxes), f.scores.tolist())
        for label, box, score in zip(*columns, strict=True):
            number += 1
            yield {
                "id": number, "image_id": i, "category_id": label, "bbox": box, "score": score,
                "area": box[2] * box[3], "iscrowd": 0,
            }  # fmt: skip


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    boxes = boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes.tolist()


def _silent(*_: object) -> None:
    """In place of the evaluator's printing."""


def _check(found: Sequence[BoxPrediction], truth: Sequence[Objects], classes: int) -> None:
    if len(found) != len(truth):
        raise ValueError(f"detections of {len(found)} images, objects of {len(truth)}")
    if all(t.ignore.all() for t in truth):
        raise BadInput("the test part has no box to find")
    for i, (f, t) in enumerate(zip(found, truth, strict=True)):
        if not (np.isfinite(f.scores).all() and np.isfinite(f.boxes).all()):
            raise ValueError(f"image {i}: a detection with a score or box that is not finite")
        for labels in (f.labels, t.labels):
            if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
                raise ValueError(f"image {i}: a label that is not within 0..{classes - 1}")
