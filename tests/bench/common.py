"""What every benchmark prints: the machine, the versions, medians of alternating runs."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

DATA = Path(os.environ.get("TRANSFERZOO_DATA", Path(__file__).resolve().parents[3] / "shared/data"))


def machine(*packages: str) -> str:
    """One line for the table's caption."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    used = ", ".join(f"{p} {version(p)}" for p in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {used}"


def in_turn(jobs: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each job, the jobs taking turns within this one process."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def processor_seconds(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median of the processor's seconds of each job, which take turns; each once before, to warm
    up. Other work on the machine counts less than by the clock."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if number:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=DATA, help="real image data")
    parser.add_argument("--rounds", type=int, default=5)
    return parser
