"""The Space at scale: 1,000 models x 12 data sets x 4 protocols, as files on disk.

    python -m tests.bench.bench_space [--models 1000]

Prints: seconds of the first reading (in the background of a running app), seconds from the source
to the first board with the index of an earlier start, milliseconds of a filter's answer, memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from eval.results.names import shelf_path
from eval.results.store import read_result
from eval.tasks.registry import SUITES
from space.source import Source
from space.state import Desk
from space.tables import display
from space.tables.board import headline
from space.tables.view import View

SHIPPED = Path(__file__).resolve().parents[2] / "model_cards"
OBJECTIVES = ("ce", "selfsupcon", "supcon", "ce_selfsupcon", "supcon_selfsupcon")
PROTOCOLS = (("fewshot", {}), ("fewshot", {"n_way": 10}), ("knn", {}), ("linear", {}))


def write_shelf(folder: Path, models: int) -> int:
    """Made-up results in the shape of real ones: samples of 600 episodes, or of 600 images."""
    random = np.random.default_rng(0)
    patterns = {
        name: read_result(next(SHIPPED.glob(f"*.ce_tin100/results/eurosat.{name}.json")))
        for name in ("fewshot", "linear")
    }
    files = 0
    for m in range(models):
        objective = OBJECTIVES[m % len(OBJECTIVES)]
        skill = random.normal(0.6, 0.08)
        for task in SUITES["subsets"] + ("tiny_imagenet",):
            hard = random.normal(0, 0.02)
            for protocol, changes in PROTOCOLS:
                result = patterns["fewshot" if protocol == "fewshot" else "linear"]
                value = result.model_dump(mode="json")
                value["model"] |= {"id": f"zoo:net{m}.{objective}_made", "spec": f"random:net{m}"}
                value["model"] |= {"revision": f"{m:040x}", "params": int(1e6 * (1 + m % 90))}
                value["task"] |= {"name": task, "split_hash": f"{hash(task) % 16**8:08x}" * 8}
                value["protocol"]["name"] = protocol
                value["protocol"]["config"] |= changes
                if protocol == "knn":
                    value["protocol"]["config"] = {}
                for score in value["scores"]:
                    if score["name"] not in value["samples"]:
                        continue
                    share = float(np.clip(skill + hard, 0.05, 0.98))
                    if protocol == "fewshot":
                        hits = random.binomial(75, share, 600)
                        value["samples"][score["name"]]["correct"] = hits.tolist()
                        mean = hits.mean() / 75
                    else:
                        mean = share
                    score |= {"value": mean, "ci_low": mean - 0.01, "ci_high": mean + 0.01}
                made = type(result).model_validate(value)
                path = folder / shelf_path(made)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(value))
                files += 1
    return files


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=1000)
    models = parser.parse_args().models
    with tempfile.TemporaryDirectory() as text:
        shelf, cache = Path(text) / "results", Path(text) / "cache"
        start = time.perf_counter()
        files = write_shelf(shelf, models)
        print(f"{files:,} result files made in {time.perf_counter() - start:.0f} s")

        start = time.perf_counter()
        Source(str(shelf), cache).refresh()
        print(f"first reading (in the background): {time.perf_counter() - start:.1f} s")

        start = time.perf_counter()
        desk = Desk(Source(str(shelf), cache), cache)
        view = View()
        board = desk.board(view)
        table = display.table(board, view)
        print(
            f"start with the index: {time.perf_counter() - start:.2f} s to the first board of "
            f"{len(table['data']):,} rows"
        )
        print(headline(board))
        start = time.perf_counter()
        desk.source.refresh()
        print(f"looking for changes: {time.perf_counter() - start:.2f} s")

        views = {
            "search": View(search="net12"),
            "objective": View(objectives=("ce", "supcon")),
            "domain": View(domains=("satellite", "texture")),
            "size": View(most_params=30),
            "everything": View(),
            "sort by a data set": View(sort="eurosat"),
        }
        for name, choice in views.items():
            took = []
            for _ in range(5):
                start = time.perf_counter()
                found = desk.board(choice)
                headline(found)
                display.table(found, choice)
                took.append(1000 * (time.perf_counter() - start))
            print(f"filter by {name}: {statistics.median(took):.0f} ms (first {took[0]:.0f})")
        print(f"memory: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
