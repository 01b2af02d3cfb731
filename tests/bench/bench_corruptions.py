"""Images a second of each corruption, one thread, at severity 3.

    python -m tests.bench.bench_corruptions [--rounds 5]

The sizes take turns within one process, on real images (flowers102). Where the package
``imagecorruptions`` is installed, its column beside ours at 224 pixels is on the same images.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from eval.analysis.measures.corruptions import CORRUPTIONS, Pixels, corrupt
from eval.common.images import decode
from tests.bench.common import arguments, in_turn, machine

SIDES = (64, 224)
IMAGES = 4


def photographs(data: Path, side: int) -> list[Pixels]:
    file = pq.ParquetFile(data / "flowers102/test-00000-of-00001.parquet")
    rows = next(file.iter_batches(IMAGES, columns=["image"])).column("image").to_pylist()
    images = [decode(row["bytes"]) for row in rows]
    return [np.asarray(x.resize((side, side), Image.Resampling.BICUBIC)) for x in images]


def ours(images: list[Pixels], name: str) -> None:
    for seed, image in enumerate(images):
        corrupt(image, name, 3, seed)


def theirs(images: list[Pixels], name: str) -> None:
    from imagecorruptions import corrupt as package

    for image in images:
        package(image, 3, name)


def jobs_of(name: str, images: dict[int, list[Pixels]]) -> dict[str, Callable[[], object]]:
    jobs: dict[str, Callable[[], object]] = {
        f"{side} px": functools.partial(ours, images[side], name) for side in SIDES
    }
    if find_spec("imagecorruptions"):
        job = functools.partial(theirs, images[224], name)
        try:
            job()
        except (TypeError, AttributeError):  # it has not followed numpy and scikit-image
            return jobs
        jobs["package, 224 px"] = job
    return jobs


def main() -> None:
    args = arguments(__doc__).parse_args()
    images = {side: photographs(args.data, side) for side in SIDES}
    print(machine("numpy", "scipy", "pillow"))
    print("images/s, median of", args.rounds, "rounds")
    for name in CORRUPTIONS:
        jobs = jobs_of(name, images)
        for job in jobs.values():
            job()  # what is imported or kept at first use
        seconds = in_turn(jobs, args.rounds)
        print(f"{name:18}", *(f"{job} {IMAGES / s:7.1f}" for job, s in seconds.items()), sep="  ")


if __name__ == "__main__":
    main()
