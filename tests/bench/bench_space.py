"""The Space at scale: 1,000 models x 12 data sets, few-shot and linear, as files on disk.

    python -m tests.bench.bench_space [--models 1000]

Prints: seconds of the first reading (in the background of a running app), seconds from the source
to the scores with the index of an earlier start, and of each board the seconds until all pairs of
models are known on all data sets (once), the milliseconds of a filter's answer (median of 7), the
memory. Times are of the processor, and in brackets by the wall.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from eval.metrics.scores import Samples
from eval.protocols.episodes import Draw, design
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.store import read_result
from eval.tasks.registry import SUITES
from space.pages.board_html import board_html
from space.pages.leaderboard import costs
from space.source import Source
from space.state import Desk
from space.tables.board import headline
from space.tables.view import View

SHIPPED = Path(__file__).resolve().parents[2] / "model_cards"
OBJECTIVES = ("ce", "selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon")
SHOT, IMAGES, CLASS_IMAGES = "top1_5shot", 1000, (200,) * 10


def write_shelf(folder: Path, models: int) -> int:
    """Made-up results in the shape of real ones: the answers of 600 episodes of 75, or of 1,000
    images, which are easy and hard for all models alike."""
    random = np.random.default_rng(0)
    patterns = {
        name: read_result(path).model_copy(
            update={"samples": {}, "details": {}, "confidence": None}
        )
        for name in ("fewshot", "linear")
        for path in list(SHIPPED.glob(f"*.ce_tin100/results/eurosat.{name}.json"))[:1]
    }
    skills = random.normal(0.6, 0.08, models)
    files = 0
    for task in SUITES["subsets"] + ("tiny_imagenet",):
        split = hashlib.sha256(task.encode()).hexdigest()
        drawn = design(Draw(CLASS_IMAGES, 5, 5, 15, 600, split, 0))
        pool = random.uniform(0, 1.2, drawn.images)
        ease = {
            "fewshot": pool[drawn.query_images].reshape(600, 75),
            "linear": random.uniform(0, 1.2, (IMAGES, 1)),
        }
        for m, skill in enumerate(skills.tolist()):
            for protocol, pattern in patterns.items():
                hard = ease[protocol]
                right = hard + random.normal(0, 0.2, hard.shape) < skill
                made = _made(pattern, m, task, split, protocol, right)
                path = folder / shelf_path(made)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(made.model_dump(mode="json")))
                files += 1
    return files


def _made(
    pattern: Result, m: int, task: str, split: str, protocol: str, right: NDArray[np.bool_]
) -> Result:
    """``pattern`` with these answers and one score."""
    objective = OBJECTIVES[m % len(OBJECTIVES)]
    value = pattern.model_dump(mode="json")
    value["model"] |= {"id": f"zoo:net{m}.{objective}_made", "spec": f"random:net{m}",
                       "revision": f"{m:040x}", "params": int(1e6 * (1 + m % 90)),
                       "multiply_adds": int(1e8 * (1 + m % 70)),
                       "facts": {"objective": objective, "said_in": ["config.json"]}}  # fmt: skip
    value["task"] |= {"name": task, "split_hash": split}
    value["task"]["counts"] |= {"test": IMAGES}
    few = protocol == "fewshot"
    name, mean = SHOT if few else "top1", float(right.mean())
    samples = Samples.of_episodes(right) if few else Samples.of_images(right.ravel())
    value["samples"] = {name: samples.model_dump()}
    value["scores"] = [{"name": name, "value": mean, "ci_low": mean - 0.01, "ci_high": mean + 0.01,
                        "n": samples.n, "kind": "sample" if few else "test"}]  # fmt: skip
    value["details"] = {"class_images": list(CLASS_IMAGES)} if few else {}
    return type(pattern).model_validate(value)


@dataclass(frozen=True)
class Clock:
    """Seconds since it was made: by the wall, and of this process alone, which a busy machine
    changes less."""

    wall: float = field(default_factory=time.perf_counter)
    own: float = field(default_factory=time.process_time)

    def __str__(self) -> str:
        own = time.process_time() - self.own
        return f"{own:.2f} s of the processor ({time.perf_counter() - self.wall:.2f} s)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=1000)
    models = parser.parse_args().models
    with tempfile.TemporaryDirectory() as text:
        shelf, cache = Path(text) / "results", Path(text) / "cache"
        clock = Clock()
        files = write_shelf(shelf, models)
        print(f"{files:,} result files made: {clock}")

        clock = Clock()
        Source(str(shelf), cache).refresh()
        print(f"first reading (in the background): {clock}")

        clock = Clock()
        desk = Desk(Source(str(shelf), cache), cache)
        print(f"start with the index, to {len(desk.snapshot.scores):,} scores: {clock}")
        clock = Clock()
        desk.source.refresh()
        print(f"looking for changes: {clock}")
        for board in ("linear/top1", f"fewshot/{SHOT}"):
            clock = Clock()
            said = headline(desk.board(View(board=board)))
            print(f"{board}, once: {clock}\n  {said}")
            for name, view in VIEWS.items():
                took = [_milliseconds(desk, replace(view, board=board)) for _ in range(7)]
                own, wall = (statistics.median(part) for part in zip(*took, strict=True))
                print(f"  {name}: {own:.0f} ms of the processor ({wall:.0f} ms)")
            print(f"  memory: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


VIEWS = {
    "search": View(search="net12"),
    "objective": View(objectives=("ce", "supcon")),
    "domain": View(domains=("satellite", "texture")),
    "size": View(most_params=60),
    "everything": View(pretraining=True),
    "sort by a data set": View(sort="eurosat"),
}


def _milliseconds(desk: Desk, view: View) -> tuple[float, float]:
    """Of a filter's answer, as the page asks for it: of the processor, and by the wall."""
    own, wall = time.process_time(), time.perf_counter()
    found = desk.board(view)
    headline(found)
    board_html(found, view)
    costs(found)
    return 1000 * (time.process_time() - own), 1000 * (time.perf_counter() - wall)


if __name__ == "__main__":
    main()
