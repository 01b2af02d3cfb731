"""What a run on many machines costs beside the scoring itself.

``python -m tests.bench.bench_engines``: the plan of 1,000 models x 12 tasks x 3 protocols, what a
group costs in the store, and two processes against one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eval.engines.costs import Costs
from eval.engines.drive import drive
from eval.engines.local import Local
from eval.engines.planned import planned_cells
from eval.results.index import Row, add_part
from eval.results.names import plain
from eval.run import group as groups
from eval.run.execute import execute
from eval.run.group import run_group
from eval.run.known import planned_from
from eval.run.plan import Cell, plan
from eval.settings.protocols import Fewshot, Knn, Linear
from eval.stores.front import folder_of, store_of
from tests.bench.common import machine
from tests.engines.groups import make_groups, make_request
from tests.stores.s3 import s3_server

THREE = {"knn": Knn(), "linear": Linear(), "fewshot": Fewshot()}


def timed(what: str, call: Callable[[], object]) -> None:
    """Print a call's time, by the clock and of this process's processor."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(f"{what}: {processor:.2f} s of processor time, {clock:.2f} s by the clock")


def large_plan(folder: Path) -> None:
    """Planned twice: nothing done, and 6,000 of 36,000 done by the index of a bucket."""
    with s3_server():
        results = folder_of("s3://board/large")
        request = make_request(folder, results, models=1000, tasks=12)
        request = dataclasses.replace(request, protocols=THREE)
        # Models and tasks are known, as they are when a run was planned before.
        plan(dataclasses.replace(request, models=request.models[:1]))
        cells: list[Cell] = []
        timed("plan of 36,000 cells, nothing done", lambda: cells.extend(plan(request)))
        rows = []
        for cell in cells[:6000]:
            path = cell.path.relative_to(results).as_posix()
            rows.append(
                Row(
                    path, path, cell.title, "", "", "", "", model=path.rpartition("/")[0],
                    split_hash=cell.task.split_hash, protocol=cell.protocol,
                    config=json.dumps(plain(cell.settings)), computed="fp32", images=90,
                    encode=1.0, fit=1.0,
                )
            )  # fmt: skip
        add_part(store_of(results), rows)

        def hours() -> None:
            cells, index = planned_from(request)
            todo = planned_cells([c for c in cells if not c.done], results)
            left = Costs(index.results.values()).of(todo)
            assert (len(cells), left.cells) == (36_000, 30_000)

        timed("the same with 6,000 done, and the hours of the rest", hours)


def overhead(folder: Path, count: int) -> None:
    """What `run_group` takes beside `execute`, on a folder and on S3 on loopback."""
    inside: list[tuple[float, float]] = []

    def watched(*args: object, **kwargs: object) -> object:
        clock, processor = time.perf_counter(), time.process_time()
        try:
            return execute(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            inside.append((time.perf_counter() - clock, time.process_time() - processor))

    groups.execute = watched  # type: ignore[assignment]
    with s3_server():
        for name, place in (("a folder", str(folder / "r")), ("S3", "s3://board/overhead")):
            request = make_request(folder, folder_of(place), models=count)
            clocks, processors = [], []
            for group in make_groups(request):
                clock, processor = time.perf_counter(), time.process_time()
                assert run_group(group, place).scored == 2
                clocks.append(time.perf_counter() - clock - inside[-1][0])
                processors.append(time.process_time() - processor - inside[-1][1])
            # The first one opens the store. moto's server is in this process, too.
            print(
                f"a group beside its scoring, results in {name}: "
                f"{1e3 * statistics.median(processors[1:]):.0f} ms of processor time, "
                f"{1e3 * statistics.median(clocks[1:]):.0f} ms by the clock (medians of "
                f"{count - 1}; at least {1e3 * min(clocks):.0f})"
            )
    groups.execute = execute


def two_processes(folder: Path, count: int) -> None:
    """Groups of equal cost by one process and by two: how many groups each of two gets, and what a
    group then takes of all processors. Both together say how far the makespan on two free cores is
    from half of one's; the clock of a busy machine says nothing about that."""
    took: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(3):
        for slots in (1, 2):
            used = []
            for models in (slots, count):  # the first ones pay for starting the processes
                results = folder / f"two-{turn}-{slots}-{models}"
                request = make_request(folder, results, models=models)
                before = _children()
                drive(request, Local(slots), str(folder / results.name / "cache"), print_nothing)
                used.append(_children() - before)
            took[slots].append((used[1] - used[0]) / (count - slots))
    one, two = statistics.median(took[1]), statistics.median(took[2])
    print(
        f"a group takes {one:.2f} s of processor time by one process, {two:.2f} s by one of two: "
        f"{two / one:.2f} x (medians of 3, {count} equal groups)"
    )


def print_nothing(text: str) -> None:
    """The lines of a run are not what is measured."""


def _children() -> float:
    """Seconds that processes started here, and ended since, had of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_engines")
    parser.add_argument("--groups", type=int, default=12)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine("torch", "s3fs", "moto", "pyarrow"))
    with tempfile.TemporaryDirectory(prefix="bench-engines-") as name:
        folder = Path(name)
        os.environ["TRANSFERZOO_CACHE"] = str(folder / "home")
        large_plan(folder)
        overhead(folder, args.groups)
        two_processes(folder, args.groups)


if __name__ == "__main__":
    main()
