"""COCO's numbers for 5,000 images, 100 detections each, 80 classes: ours and pycocotools.

    python -m tests.bench.bench_detection_metrics [--images 5000] [--rounds 5]

Both get the same arrays and build their own input within their time, in turns in one process;
before that all twelve numbers of the two are compared. Then our whole ``measure``, with its 1,000
bootstrap resamples, is timed once with and once without VOC's scores. The objects and detections
are drawn at random: 7 objects an image, each hit by about 3 detections, the rest stray.
"""

from __future__ import annotations

import contextlib
import io
import resource
import time

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.data.boxes.objects import BoxPrediction, Objects
from eval.detection.metrics import coco_judge, coco_point, measure
from tests.bench.common import arguments, in_turn, machine

SIDE, OBJECTS = 640, 7


def strays(random: np.random.RandomState, n: int) -> NDArray[np.float64]:
    """[n, 4] boxes of all sizes anywhere in the image."""
    sides = np.exp(random.uniform(np.log(8), np.log(300), (n, 2)))
    corner = random.rand(n, 2) * (SIDE - sides)
    return np.concatenate([corner, corner + sides], 1)


def scene(images: int, detections: int, classes: int) -> tuple[list[BoxPrediction], list[Objects]]:
    random = np.random.RandomState(0)
    found, truth = [], []
    for _ in range(images):
        k = random.poisson(OBJECTS)
        boxes, labels = strays(random, k), random.randint(classes, size=k)
        sides = boxes[:, 2:] - boxes[:, :2]
        area = (0.7 * sides[:, 0] * sides[:, 1]).astype(np.float32)
        crowd = random.rand(k) < 0.02
        truth.append(Objects(boxes.astype(np.float32), labels, area, np.zeros(k, bool), crowd))
        near = random.randint(max(k, 1), size=min(3 * k, detections // 2))
        hits = boxes[near] + 0.08 * random.randn(len(near), 4) * np.tile(sides[near], 2)
        hits[:, 2:] = np.maximum(hits[:, 2:], hits[:, :2] + 1)
        rest = detections - len(near)
        guesses = np.where(random.rand(len(near)) < 0.8, labels[near], 0)
        guesses = np.concatenate([guesses, random.randint(classes, size=rest)])
        scores = np.concatenate([random.beta(2, 2, len(near)), random.beta(1, 6, rest)])
        best = np.argsort(-scores)
        places = np.concatenate([hits, strays(random, rest)])[best].astype(np.float32)
        found.append(BoxPrediction(places, scores[best].astype(np.float32), guesses[best]))
    return found, truth


def pycocotools(
    found: list[BoxPrediction], truth: list[Objects], classes: int
) -> NDArray[np.float64]:
    """The twelve numbers, the detections given as its loadRes takes arrays: [N, 7]."""

    def rows(item: BoxPrediction | Objects) -> NDArray[np.float64]:
        boxes = item.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes

    annotations = [
        {"image_id": i, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for i, t in enumerate(truth)
        for label, box, area, crowd in zip(
            t.labels.tolist(), rows(t).tolist(), t.area.tolist(), t.ignore.tolist(), strict=True
        )
    ]
    table = np.concatenate(
        [
            np.column_stack([np.full(len(f.labels), i), rows(f), f.scores, f.labels])
            for i, f in enumerate(found)
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):
        boxes = COCO()
        boxes.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": [a | {"id": n} for n, a in enumerate(annotations, 1)],
        }
        boxes.createIndex()
        judge = COCOeval(boxes, boxes.loadRes(table), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="an image")
    parser.add_argument("--classes", type=int, default=80)
    args = parser.parse_args()
    case = (*scene(args.images, args.detections, args.classes), args.classes)
    gap = np.abs(coco_judge(*case).stats[:12] - pycocotools(*case)).max()
    print(f"largest difference of the twelve numbers: {gap:.1e}")
    if gap > 1e-9:
        raise SystemExit("the two disagree")
    jobs = {"ours": lambda: coco_point(*case), "pycocotools": lambda: pycocotools(*case)}
    seconds = in_turn(jobs, args.rounds)
    print(f"\n{args.images:,} images x {args.detections} detections, {args.classes} classes\n")
    print(f"| what | seconds, median of {args.rounds} |\n| --- | ---: |")
    for name, value in seconds.items():
        print(f"| {name}, COCO's numbers | {value:.2f} |")
    for voc in (False, True):
        start = time.perf_counter()
        measure(*case, 0, voc=voc)
        also = " and VOC" if voc else ""
        print(f"| ours, COCO{also} with intervals, once | {time.perf_counter() - start:.2f} |")
    print(f"\npycocotools / ours: {seconds['pycocotools'] / seconds['ours']:.1f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    print(machine("numpy", "scipy", "faster-coco-eval", "pycocotools"))


if __name__ == "__main__":
    main()
