"""The few-shot page's answer: 5 classes of 5 pictures and 5 queries, with one model and with six.

    python -m tests.bench.bench_fewshot_demo [--rounds 5] [--visitors 20 --seconds 60]

Models are loaded and warm. Cold: no picture was seen before, so all 30 are encoded. One new: one
query is. Cached: none is. Seconds are the processor's. Then, if asked for, that many visitors at
once, each with new pictures. Pictures are noise of 400 x 300 pixels, read from JPEG files as
uploads are.
"""

from __future__ import annotations

import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from eval.models.names import zoo_names
from space.demo.backbones import Shelf
from space.demo.classify import Answer, classify
from space.demo.uploads import Picture, read_pictures
from tests.bench.common import arguments, machine, processor_seconds

WAYS, SHOTS, QUERIES = 5, 5, 5


class Visitors:
    """Each visit uploads pictures that nobody has uploaded before."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf, self.folder, self.numbers = shelf, folder, count()

    def upload(self, pictures: int) -> list[Path]:
        """That many new files."""
        paths = []
        for _ in range(pictures):
            number = next(self.numbers)
            random = np.random.RandomState(number)
            small = Image.fromarray(random.randint(0, 256, (30, 40, 3)).astype(np.uint8))
            out = io.BytesIO()
            small.resize((400, 300), Image.Resampling.BICUBIC).save(out, "JPEG")
            paths.append(self.folder / f"{number}.jpg")
            paths[-1].write_bytes(out.getvalue())
        return paths

    def ask(self, models: list[str], supports: list[list[Path]], queries: list[Path]) -> Answer:
        """From files to the answer, as the page does it."""

        def read(paths: list[Path]) -> list[Picture]:
            return read_pictures(paths, subject="pictures", most=20, allowed_root=self.folder)

        named = [(f"class {i}", read(paths)) for i, paths in enumerate(supports)]
        return classify(self.shelf, models, named, read(queries))

    def supports(self) -> list[list[Path]]:
        return [self.upload(SHOTS) for _ in range(WAYS)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--visitors", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    visitors = Visitors(Shelf(work / "cache"), work)
    shipped = [f"zoo:{name}" for name in zoo_names()]
    supports, queries = visitors.supports(), visitors.upload(QUERIES)
    visitors.ask(shipped, supports, queries)  # warm-up

    turns = args.rounds + 1  # the first warms up
    fresh = [(visitors.supports(), visitors.upload(QUERIES)) for _ in range(2 * turns)]
    single = [[*queries[1:], *visitors.upload(1)] for _ in range(2 * turns)]
    jobs: dict[str, Callable[[], object]] = {}

    def plan(models: list[str]) -> None:
        n = len(models)
        jobs[f"{n}, cold"] = lambda: visitors.ask(models, *fresh.pop())
        jobs[f"{n}, one new"] = lambda: visitors.ask(models, supports, single.pop())
        jobs[f"{n}, cached"] = lambda: visitors.ask(models, supports, queries)

    plan(shipped[:1])
    plan(shipped)
    seconds = processor_seconds(jobs, args.rounds)
    print(f"{WAYS}-way {SHOTS}-shot, {QUERIES} queries, shipped backbones, medians")
    print(machine("torch", "timm", "pillow"))
    print("| models, features | seconds |")
    print("| --- | ---: |")
    for name, s in seconds.items():
        print(f"| {name} | {s:.3f} |")
    if args.visitors:
        crowd(visitors, shipped, args.visitors, args.seconds)
    shutil.rmtree(work)


def crowd(visitors: Visitors, models: list[str], number: int, seconds: float) -> None:
    """Visitors at once, one model each, new pictures each time, until the time is over."""
    taken: list[float] = []
    memory: list[float] = []
    process = psutil.Process()
    end = time.perf_counter() + seconds

    def visit(who: int) -> None:
        while time.perf_counter() < end:
            supports, queries = visitors.supports(), visitors.upload(QUERIES)
            start = time.perf_counter()
            visitors.ask([models[who % len(models)]], supports, queries)
            taken.append(time.perf_counter() - start)
            memory.append(process.memory_info().rss / 1e6)

    before = process.memory_info().rss / 1e6
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(visit, who) for who in range(number)]:
            future.result()
    half = len(memory) // 2
    print(
        f"{number} visitors for {seconds:.0f} s: {len(taken)} answers, median "
        f"{statistics.median(taken):.2f} s, slowest {max(taken):.2f} s; memory {before:.0f} MB "
        f"before, at most {max(memory[:half]):.0f} MB in the first half and "
        f"{max(memory[half:]):.0f} MB in the second"
    )


if __name__ == "__main__":
    main()
