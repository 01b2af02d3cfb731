"""Detection metrics against pycocotools, a naive VOC devkit, and known answers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.common.errors import UserError
from eval.data.boxes.objects import BoxPrediction, Objects
from eval.detection import metrics, resample, voc_metrics
from eval.metrics import intervals

COCO_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
Case = tuple[list[BoxPrediction], list[Objects]]


def shown(
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int] | None = None,
    difficult: Sequence[int] = (),
    crowd: Sequence[int] = (),
) -> Objects:
    """Objects; ``difficult`` and ``crowd`` are indices."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2]
    each = np.arange(len(corners))
    return Objects(
        corners,
        np.array(labels if labels is not None else [0] * len(corners), np.int64),
        sides[:, 0] * sides[:, 1],
        np.isin(each, difficult),
        np.isin(each, crowd),
    )


def seen(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int] | None = None
) -> BoxPrediction:
    return BoxPrediction(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels if labels is not None else [0] * len(scores), np.int64),
    )


def scene(seed: int, images: int = 12, classes: int = 3, levels: int = 0) -> Case:
    """Objects of all sizes and detections that often hit them.

    With ``levels`` the scores take that many values and the corners are whole, so that ties abound;
    else all scores differ.
    """
    random = np.random.RandomState(seed)
    found, truth = [], []
    for _ in range(images):
        k = random.randint(0, 7)
        sides = np.exp(random.uniform(np.log(8), np.log(250), (k, 2)))
        corner = random.uniform(0, 250, (k, 2))
        boxes = np.concatenate([corner, corner + sides], 1)
        labels = random.randint(classes, size=k)
        near = random.randint(max(k, 1), size=3 * k)
        moved = boxes[near] + random.randn(3 * k, 4) * 0.07 * np.tile(sides[near], 2)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        stray = random.uniform(0, 200, (random.randint(0, 6), 2))
        stray = np.concatenate([stray, stray + random.uniform(5, 120, stray.shape)], 1)
        places = np.concatenate([moved, stray])
        guess = np.concatenate([labels[near], random.randint(classes, size=len(stray))])
        scores = random.permutation(len(places)) / 100 + random.rand() / 101
        if levels:
            scores = np.floor(scores * levels) / levels
            boxes, places = np.round(boxes / 4) * 4, np.round(places / 4) * 4
        made = shown(boxes.tolist(), labels.tolist())
        area = (made.area * random.uniform(0.4, 1, k)).astype(np.float32)
        crowd, difficult = random.rand(2, k) < 0.12
        truth.append(Objects(made.boxes, made.labels, area, difficult, crowd))
        found.append(seen(places.tolist(), scores.tolist(), guess.tolist()))
    if all(t.ignore.all() for t in truth):
        truth[0] = shown([[0, 0, 40, 40]])
    return found, truth


def oracle(
    found: Sequence[BoxPrediction], truth: Sequence[Objects], classes: int
) -> dict[str, float]:
    """pycocotools' scores, all twelve."""
    shared: dict[str, Any] = {
        "images": [{"id": i} for i in range(len(found))],
        "categories": [{"id": k} for k in range(classes)],
    }
    anns: list[list[dict[str, Any]]] = [[], []]
    for i, (f, t) in enumerate(zip(found, truth, strict=True)):
        for rows, item in ((anns[0], t), (anns[1], f)):
            for j, (x1, y1, x2, y2) in enumerate(item.boxes.tolist()):
                w, h = x2 - x1, y2 - y1
                row: dict[str, Any] = {"id": len(rows) + 1, "image_id": i}
                row["category_id"] = int(item.labels[j])
                row |= {"bbox": [x1, y1, w, h], "area": w * h, "iscrowd": 0}
                if isinstance(item, Objects):
                    row |= {"area": float(item.area[j]), "iscrowd": int(item.ignore[j])}
                else:
                    row["score"] = float(item.scores[j])
                rows.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        both = [COCO(), COCO()]
        for coco, rows in zip(both, anns, strict=True):
            coco.dataset = shared | {"annotations": rows}
            coco.createIndex()
        judge = COCOeval(*both, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip((*COCO_NAMES[:6], "ar1", "ar10", "ar100"), judge.stats, strict=False))


def at_ones(found: list[BoxPrediction], truth: list[Objects], classes: int) -> dict[str, float]:
    """The resampling machinery's scores where each image counts once."""
    flat = resample.flatten(found, truth)
    rules = metrics.both_rules(flat, resample.pair(found, truth), voc=True)
    once = np.ones((len(found), 1), np.float32)
    return {n: float(v[0]) for n, v in metrics.weighted(flat, rules, classes, once).items()}


def value(found: BoxPrediction, truth: Objects, name: str, classes: int = 1) -> float:
    return metrics.measure([found], [truth], classes, 0, voc=True).scores[name].value


# COCO


def check_against_oracle(found: list[BoxPrediction], truth: list[Objects], classes: int) -> None:
    expected = oracle(found, truth, classes)
    values, _ = metrics.coco_point(found, truth, classes)
    machinery = at_ones(found, truth, classes)
    for name in COCO_NAMES:
        if expected[name] < 0:  # pycocotools' mark for undefined
            assert name not in values
            assert np.isnan(machinery[name])
        else:
            assert values[name] == pytest.approx(expected[name], abs=1e-9), name
            assert machinery[name] == pytest.approx(values[name], abs=1e-9), name


@pytest.mark.parametrize("levels", [0, 7], ids=["distinct scores", "ties"])
@pytest.mark.parametrize("seed", range(8))
def test_evaluator_and_machinery_equal_pycocotools(seed: int, levels: int) -> None:
    check_against_oracle(*scene(seed, levels=levels), 3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0, 2, 5])
)  # fmt: skip
def test_small_cases_equal_pycocotools(seed: int, images: int, classes: int, levels: int) -> None:
    check_against_oracle(*scene(seed, images, classes, levels), classes)


def test_more_than_100_detections_of_a_class_are_cut_as_in_pycocotools() -> None:
    random = np.random.RandomState(0)
    truth = shown([[10 * i, 0, 10 * i + 9, 9] for i in range(30)])
    boxes = np.tile(truth.boxes, (5, 1)) + random.uniform(-2, 2, (150, 4)).astype(np.float32)
    found = seen(boxes.tolist(), random.permutation(150).tolist())
    check_against_oracle([found], [truth], 1)


def test_perfect_is_one() -> None:
    _, truth = scene(3)
    found = [BoxPrediction(t.boxes, np.linspace(0.9, 0.5, len(t), dtype=np.float32), t.labels)
             for t in truth]  # fmt: skip
    for name, interval in metrics.measure(found, truth, 3, 0, voc=True).scores.items():
        assert interval.value == pytest.approx(1), name
        assert interval.low == pytest.approx(1), name


def test_crowd_absorbs_several_detections() -> None:
    truth = shown([[0, 0, 10, 10], [100, 100, 300, 300]], crowd=[1])
    inside = [[100 + 20 * i, 100, 120 + 20 * i, 120] for i in range(4)]
    found = seen([*inside, [0, 0, 10, 10]], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert value(found, truth, "ap") == pytest.approx(1)
    lone = shown([[0, 0, 10, 10]])
    assert value(found, lone, "ap") == pytest.approx(0.2)  # without the crowd all four are wrong


def test_difficult_is_neither_asked_for_nor_punished() -> None:
    truth = shown([[0, 0, 50, 50], [100, 100, 200, 200]], difficult=[1])
    found = seen([[100, 100, 200, 200], [100, 100, 200, 199], [0, 0, 50, 50]], [0.9, 0.8, 0.7])
    for name in ("ap", "voc07_ap", "voc_ap50"):
        assert value(found, truth, name) == pytest.approx(1), name
        assert value(seen([[0, 0, 50, 50]], [0.7]), truth, name) == pytest.approx(1), name


def test_duplicate_is_a_false_positive() -> None:
    truth = shown([[0, 0, 50, 50], [100, 100, 200, 200]])
    found = seen([[0, 0, 50, 50], [0, 0, 50, 50], [100, 100, 200, 200]], [0.9, 0.8, 0.7])
    # Precision 1 up to recall .5, then 2/3: 51 and 50 of 101 points, 6 and 5 of 11, half and half.
    assert value(found, truth, "ap") == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert value(found, truth, "voc07_ap50") == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert value(found, truth, "voc_ap50") == pytest.approx((1 + 2 / 3) / 2)


def test_area_ranges_follow_the_given_area() -> None:
    boxes = [[0, 0, 30, 30], [50, 0, 110, 60], [0, 100, 200, 300]]
    truth = shown(boxes)
    scores = metrics.measure([seen(boxes[:2], [0.9, 0.8])], [truth], 1, 0).scores
    assert scores["ap_small"].value == pytest.approx(1)
    assert scores["ap_medium"].value == pytest.approx(1)
    assert scores["ap_large"].value == 0
    # a mask much smaller than its box: all three are small, and one of them is not found
    masks = Objects(
        truth.boxes, truth.labels, np.full(3, 900, np.float32), truth.difficult, truth.crowd
    )
    scores = metrics.measure([seen(boxes[:2], [0.9, 0.8])], [masks], 1, 0).scores
    assert scores["ap_small"].value == pytest.approx(67 / 101)
    assert "ap_large" not in scores
    assert "ap_medium" not in scores


# VOC


def devkit(
    found: Sequence[BoxPrediction],
    truth: Sequence[Objects],
    label: int,
    threshold: float,
    old: bool,
) -> float:
    """VOCevaldet.m as it reads, for one class, in the devkit's inclusive pixels from 1."""
    lines = []
    for i, f in enumerate(found):
        for (x1, y1, x2, y2), score, kind in zip(
            f.boxes.tolist(), f.scores.tolist(), f.labels.tolist(), strict=True
        ):
            if kind == label:
                lines.append((score, i, (x1 + 1, y1 + 1, x2, y2)))
    lines.sort(key=lambda line: -line[0])  # stable
    boxes = [
        [
            (x1 + 1, y1 + 1, x2, y2, bool(t.ignore[j]))
            for j, (x1, y1, x2, y2) in enumerate(t.boxes.tolist())
            if t.labels[j] == label
        ]
        for t in truth
    ]
    npos = sum(not box[4] for image in boxes for box in image)
    taken = set()
    tp: list[float] = []
    fp: list[float] = []
    for _, i, (x1, y1, x2, y2) in lines:
        most, which = -np.inf, -1
        for j, (a1, b1, a2, b2, _) in enumerate(boxes[i]):
            w = min(x2, a2) - max(x1, a1) + 1
            h = min(y2, b2) - max(y1, b1) + 1
            if w > 0 and h > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - w * h
                if w * h / union > most:
                    most, which = w * h / union, j
        hit = most > threshold
        difficult = hit and boxes[i][which][4]
        first = hit and (i, which) not in taken
        if hit and not difficult:
            taken.add((i, which))
        tp.append(float(hit and not difficult and first))
        fp.append(float(not difficult and not (hit and first)))
    right, wrong = np.cumsum(tp), np.cumsum(fp)
    recall = right / npos
    precision = right / np.maximum(right + wrong, 1e-12)
    if old:
        return float(
            sum(max(precision[recall >= r], default=0.0) for r in np.arange(0, 1.1, 0.1)) / 11
        )
    mrec = np.concatenate([[0], recall, [1]])
    mpre = np.concatenate([[0], precision, [0]])
    for k in range(len(mpre) - 2, -1, -1):
        mpre[k] = max(mpre[k], mpre[k + 1])
    return float(sum((mrec[k + 1] - mrec[k]) * mpre[k + 1] for k in range(len(mrec) - 1)))


@pytest.mark.parametrize("levels", [0, 7], ids=["distinct scores", "ties"])
@pytest.mark.parametrize("seed", range(6))
def test_voc_equals_the_devkit(seed: int, levels: int) -> None:
    found, truth = scene(seed, levels=levels)
    counted = [k for k in range(3) if any((t.labels[~t.ignore] == k).any() for t in truth)]
    machinery = at_ones(found, truth, 3)

    def mean(threshold: float, old: bool = True) -> float:
        return float(np.mean([devkit(found, truth, k, threshold, old) for k in counted]))

    assert machinery["voc07_ap50"] == pytest.approx(mean(0.5), abs=1e-9)
    assert machinery["voc07_ap75"] == pytest.approx(mean(0.75), abs=1e-9)
    ten = [mean(t / 100) for t in range(50, 100, 5)]
    assert machinery["voc07_ap"] == pytest.approx(np.mean(ten), abs=1e-9)
    assert machinery["voc_ap50"] == pytest.approx(mean(0.5, old=False), abs=1e-9)


def test_voc_asks_for_more_than_the_threshold_and_coco_for_as_much() -> None:
    truth = shown([[0, 0, 10, 10]])
    half = seen([[0, 0, 10, 5]], [0.9])
    assert value(half, truth, "voc07_ap50") == 0
    assert value(half, truth, "ap50") == pytest.approx(1)


def test_voc_detection_may_not_take_its_second_best_box() -> None:
    truth = shown([[0, 0, 10, 10], [0, 0, 10, 8]])
    found = seen([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8])
    assert value(found, truth, "voc_ap50") == pytest.approx(0.5)
    assert value(found, truth, "ap50") == pytest.approx(1)


def test_voc_knows_no_limit_of_100() -> None:
    truth = shown([[0, 0, 10, 10]])
    stray = [[50, 50, 60, 60]] * 110
    found = seen([*stray, [0, 0, 10, 10]], [*np.linspace(0.9, 0.5, 110), 0.1])
    assert value(found, truth, "voc_ap50") == pytest.approx(1 / 111)
    assert value(found, truth, "ap50") == 0


# Resamples


def copied(found: list[BoxPrediction], truth: list[Objects], weights: NDArray[np.float32]) -> Case:
    """Each image as often as its weight says."""
    which = np.repeat(np.arange(len(found)), weights.astype(int))
    return [found[i] for i in which], [truth[i] for i in which]


def test_a_resample_equals_the_evaluator_on_copied_images() -> None:
    found, truth = scene(5, images=15)
    flat = resample.flatten(found, truth)
    rules = metrics.both_rules(flat, resample.pair(found, truth), voc=True)
    weights = next(resample.draws(15, 0, 8))
    drawn = metrics.weighted(flat, rules, 3, weights)
    result = metrics.measure(found, truth, 3, 0, voc=True)
    for b in range(8):
        again = copied(found, truth, weights[:, b])
        values, _ = metrics.coco_point(*again, 3)
        values |= {n: v for n, v in at_ones(*again, 3).items() if n.startswith("voc")}
        for name, series in drawn.items():
            if name in values:
                assert series[b] == pytest.approx(values[name], abs=1e-9), name
            else:
                assert np.isnan(series[b])
        for name, series in result.resampled.items():
            assert series[b] == pytest.approx(values[name], abs=1e-9), name


def test_draws_are_those_of_the_other_intervals_whatever_the_step() -> None:
    marks: list[NDArray[np.float64]] = []

    def keep(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        marks.append(weights)
        return weights[:, 0]

    intervals.bootstrap(keep, 9, 4)
    expected = np.concatenate(marks[:-1])  # the last are the ones
    for step in (1000, 7):
        np.testing.assert_array_equal(np.concatenate([*resample.draws(9, 4, step)], 1).T, expected)


def test_two_models_are_resampled_alike_and_chunks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, truth = scene(6)
    one = metrics.measure(found, truth, 3, 1, voc=True)
    assert set(one.resampled) == {*metrics.COCO_MAIN, *metrics.VOC_MAIN}
    assert all(v.shape == (intervals.DRAWS,) for v in one.resampled.values())
    assert all(i.low <= i.value <= i.high for i in one.scores.values())
    # A model that is the same but in the scale of its scores differs in no draw.
    scaled = [BoxPrediction(f.boxes, f.scores / np.float32(2), f.labels) for f in found]
    monkeypatch.setattr(resample, "BUDGET", 8 * 12 * 300)
    other = metrics.measure(scaled, truth, 3, 1, voc=True)
    for name in one.resampled:
        np.testing.assert_allclose(one.resampled[name], other.resampled[name], atol=1e-12)
    different = metrics.measure(found, truth, 3, 2).resampled["ap"]
    assert not np.array_equal(one.resampled["ap"], different)


def test_interpolation_counts_exact_recalls_as_numpy_does() -> None:
    for grid in (resample.RECALLS, voc_metrics.VOC_RECALLS):
        for boxes in (1, 7, 10, 29, 100, 1000):
            right = np.arange(1.0, boxes + 1)[:, None]
            counted = right + np.arange(boxes)[:, None] // 2
            curve = resample.Curve(right, counted, np.array([float(boxes)]))
            precision = np.append(resample.envelope(curve)[:, 0], 0)
            place = np.searchsorted(right[:, 0] / boxes, grid, side="left")
            got = resample.interpolated(curve, grid)
            assert got == pytest.approx(precision[place].mean(), abs=1e-12)


# Edges


def test_nothing_detected_is_zero() -> None:
    result = metrics.measure([seen([], [])] * 2, [shown([[0, 0, 9, 9]])] * 2, 2, 0, voc=True)
    for name in ("ap", "ap50", "ap75", "ap_small", "ar100", "voc07_ap", "voc_ap50"):
        assert result.scores[name] == intervals.Interval(0, 0, 0), name
    assert "ap_large" not in result.scores
    assert result.per_class == [
        {"class": 0, "boxes": 2, "ap": 0.0, "ap50": 0.0, "voc07_ap50": 0.0},
        {"class": 1, "boxes": 0, "ap": None, "ap50": None, "voc07_ap50": None},
    ]


def test_no_box_to_find() -> None:
    for objects in ([], [shown([])], [shown([[0, 0, 9, 9]], crowd=[0])]):
        with pytest.raises(UserError, match=r"^the test part has no box to find$"):
            metrics.measure([seen([[0, 0, 9, 9]], [0.5])] * len(objects), objects, 1, 0)


def test_detections_in_an_empty_image_are_false_positives() -> None:
    truth = [shown([[0, 0, 50, 50]]), shown([])]
    found = [seen([[0, 0, 50, 50]], [0.5]), seen([[0, 0, 50, 50]], [0.9])]
    scores = metrics.measure(found, truth, 1, 0, voc=True).scores
    assert scores["ap"].value == pytest.approx(0.5)
    assert scores["voc07_ap"].value == pytest.approx(0.5)


def test_class_that_is_never_detected_counts_as_zero() -> None:
    truth = shown([[0, 0, 50, 50], [0, 0, 50, 50]], [0, 1])
    result = metrics.measure([seen([[0, 0, 50, 50]], [0.5])], [truth], 3, 0)
    assert result.scores["ap"].value == pytest.approx(0.5)
    assert [row["boxes"] for row in result.per_class] == [1, 1, 0]
    assert [row["ap"] for row in result.per_class] == [pytest.approx(1), 0.0, None]


def test_one_image_collapses_the_interval() -> None:
    found, truth = scene(1, images=1)
    for interval in metrics.measure(found, truth, 3, 0, voc=True).scores.values():
        assert interval.low == pytest.approx(interval.value, abs=1e-12)
        assert interval.high == pytest.approx(interval.value, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unsound_input_is_refused(bad: float) -> None:
    truth = [shown([[0, 0, 9, 9]])]
    with pytest.raises(ValueError, match="not finite"):
        metrics.measure([seen([[0, 0, 9, 9]], [bad])], truth, 1, 0)
    with pytest.raises(ValueError, match="not finite"):
        metrics.measure([seen([[0, 0, 9, bad]], [0.5])], truth, 1, 0)
    with pytest.raises(ValueError, match="not within"):
        metrics.measure([seen([[0, 0, 9, 9]], [0.5], [1])], truth, 1, 0)
    with pytest.raises(ValueError, match="2 images"):
        metrics.measure([seen([[0, 0, 9, 9]], [0.5])] * 2, truth, 1, 0)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    metrics.measure(*scene(0), 3, 0, voc=True)
    assert capfd.readouterr() == ("", "")
