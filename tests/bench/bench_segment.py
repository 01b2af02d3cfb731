"""Segmentation: the whole grid in one pass, against a plain torch loop over its points.

    python tests/bench/bench_segment.py [--epochs 10] [--rounds 1] [--model zoo:..]

On the stored maps of camvid (468 + 233 frames) at 224 px. The rival is what one would write
(`tests.protocols.segmentation`): features of all layers enlarged to the finest map and put side by
side, BatchNorm, a 1 x 1 convolution, logits enlarged to the masks, cross-entropy at every pixel,
AdamW; one point of the grid after the other. Both train every point on all of train for the same
number of steps and are scored at every pixel of test. Printed are seconds, for each point both mIoU
and their difference; of the last point also the loop with its images in another order, and with our
statistics and order in place of the BatchNorm and its own, where what is left is that our loss is
taken at cells. Take epochs enough (20 of 468 images are 600 steps) that both have converged, as one
of few steps says little.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.masks.mask_data import SegmentationData
from eval.features.precision import Precision
from eval.metrics.segmentation import confusion, mean_iou
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols.segment import SegmentFit
from eval.protocols.segment_maps import read_maps
from eval.settings.protocols import Segment
from eval.training.context import Context
from tests.bench.common import arguments, in_turn, machine
from tests.protocols.segmentation import PlainProbe, Standardised, fit, miou, pixel_labels


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", default="zoo:resnet18_narrow.ce_tin100")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument(
        "--points", type=int, default=8, help="that the rival trains, the last ones"
    )
    parser.add_argument("--limit", type=int, help="images of each part")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    cache = args.cache or Path(tempfile.mkdtemp())
    task = load_task("camvid", cache, args.data, args.limit)
    assert isinstance(task, SegmentationData)
    backbone = load(resolve(args.model, cache, args.img_size))
    context = Context(backbone, task, None, Workers("cpu"), Precision(), cache, 0)
    settings = Segment(epochs=args.epochs)
    mapped = read_maps(context, settings)
    ours = SegmentFit(context, settings, mapped)
    every = torch.arange(len(task.train))
    labels = [pixel_labels(part) for part in (task.train, task.test)]
    rivals = ours.points[-args.points :]
    found: dict[str, object] = {}

    def one_pass() -> None:
        statistics = mapped.statistics(every)
        found["ours"] = ours.trained(ours.points, every, statistics), statistics

    def plain() -> None:
        found["plain"] = [
            fit(mapped.layout, mapped.bank.train[0], labels[0], 11, lr, decay, args.epochs, 16)
            for lr, decay in rivals
        ]

    seconds = in_turn({"one pass": one_pass, "plain loop": plain}, args.rounds)
    print(machine("torch", "timm"))
    print({name: round(value, 1) for name, value in seconds.items()})
    scaled = seconds["plain loop"] * len(ours.points) / len(rivals)
    print(f"ratio {scaled / seconds['one pass']:.1f}, with {len(rivals)} points scaled up to all")
    probes, statistics = found["ours"]  # type: ignore[misc]
    plains: list[PlainProbe] = found["plain"]  # type: ignore[assignment]
    matrices = np.zeros((len(ours.points), 11, 11), np.int64)
    for i in range(len(task.test)):
        parts = ours.prepared(mapped.test(torch.tensor([i])), statistics)
        truth = labels[1][i].numpy().astype(np.uint8)
        for point in range(len(ours.points)):
            answer = probes.enlarged(parts, truth.shape, point)[0].argmax(0).numpy()
            matrices[point] += confusion(truth, answer, 11)
    theirs = [100 * miou(p, mapped.layout, mapped.bank.test[0], labels[1], 11) for p in plains]
    apart = []
    for (lr, decay), other in zip(rivals, theirs, strict=True):
        own = 100 * float(mean_iou(matrices[ours.points.index((lr, decay))]))
        apart.append(own - other)
        print(
            f"lr {lr:g}, decay {decay:g}: mIoU {own:.2f}, plain loop {other:.2f}, "
            f"difference {own - other:+.2f}"
        )
    print(f"furthest apart: {max(apart, key=abs):+.2f} points of mIoU")
    lr, decay = rivals[-1]
    again = fit(
        mapped.layout, mapped.bank.train[0], labels[0], 11, lr, decay, args.epochs, 16, seed=1
    )
    moved = 100 * miou(again, mapped.layout, mapped.bank.test[0], labels[1], 11)
    print(f"the plain loop in another order (lr {lr:g}, decay {decay:g}): {moved:.2f}")
    same = fit(
        mapped.layout, mapped.bank.train[0], labels[0], 11, lr, decay, args.epochs, 16,
        norm=Standardised(statistics), order=lambda epoch: ours.order(epoch, every),
    )  # fmt: skip
    value = 100 * miou(same, mapped.layout, mapped.bank.test[0], labels[1], 11)
    print(f"with our statistics and order: {value:.2f}")


if __name__ == "__main__":
    main()
