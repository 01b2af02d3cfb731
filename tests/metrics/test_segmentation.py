"""IoU against torchmetrics and plain loops; resamples against images that are really drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from eval.metrics.intervals import DRAWS
from eval.metrics.segmentation import confusion, iou, mean_iou, pixel_accuracy, resampled

CLASSES = 4


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(masks with void, answers), [count, 6, 7] each; half of the answers are right."""
    random = np.random.RandomState(seed)
    truth = random.randint(0, CLASSES, (count, 6, 7)).astype(np.uint8)
    answer = np.where(
        random.rand(*truth.shape) < 0.5, truth, random.randint(0, CLASSES, truth.shape)
    )
    truth[random.rand(*truth.shape) < 0.1] = 255
    return truth, answer


def test_torchmetrics_agrees() -> None:
    truth, answer = pictures(5)
    metric = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=255)
    known = metric(torch.from_numpy(answer), torch.from_numpy(truth.astype(np.int64)))
    matrix = confusion(truth, answer, CLASSES)
    assert iou(matrix) == pytest.approx(known.numpy(), abs=1e-6)
    assert mean_iou(matrix) == pytest.approx(float(known.mean()), abs=1e-6)
    scored = truth != 255
    assert pixel_accuracy(matrix) == pytest.approx((truth == answer)[scored].mean())


def test_a_class_that_nowhere_occurs_has_no_iou() -> None:
    truth, answer = np.array([[0, 0, 1]], np.uint8), np.array([[0, 1, 1]])
    found = iou(confusion(truth, answer, 3))
    assert found[:2].tolist() == [0.5, 0.5]
    assert np.isnan(found[2])
    assert mean_iou(confusion(truth, answer, 3)) == 0.5
    assert np.isnan(mean_iou(np.zeros((2, 2))))
    only_answered = confusion(truth, np.array([[0, 2, 1]]), 3)
    assert iou(only_answered).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("together", [1, 3])
def test_resamples_are_those_of_drawn_images(together: int) -> None:
    """Matrices that are weighted are those of images (or groups of them) drawn with replacement."""
    truth, answer = pictures(12)
    images = np.stack([confusion(t, a, CLASSES) for t, a in zip(truth, answer, strict=True)])
    units = np.arange(12) // together
    found = resampled(images, units, seed=5)
    random = np.random.RandomState(5)
    count = 12 // together
    drawn = random.randint(count, size=(DRAWS, count))
    for name, plain in (("miou", mean_iou), ("pixel_accuracy", pixel_accuracy)):
        interval, values = found[name]
        assert interval.value == pytest.approx(float(plain(images.sum(0))))
        for draw in (0, 17, DRAWS - 1):
            rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn[draw]])
            whole = confusion(truth[rows], answer[rows], CLASSES)
            assert values[draw] == pytest.approx(float(plain(whole)), abs=1e-6)
        assert [interval.low, interval.high] == np.quantile(values, [0.025, 0.975]).tolist()
        assert interval.low < interval.value < interval.high
