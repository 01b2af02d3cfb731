"""What a run on many machines costs beside the scoring itself.

``python -m tests.bench.bench_engines [plan] [store] [two]``: the plan of 1,000 models x 12 tasks x
3 protocols, what a group costs in the store, and two processes against one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from eval.engines.costs import Costs
from eval.engines.drive import drive
from eval.engines.local import Local
from eval.engines.planned import planned_cells
from eval.results.index import Index, Row, add_part
from eval.results.names import plain
from eval.run import group as groups
from eval.run.execute import execute
from eval.run.group import run_group
from eval.run.known import planned_from
from eval.run.plan import Cell, Request, plan
from eval.settings.protocols import Fewshot, Knn, Linear
from eval.stores.front import folder_of, store_of
from tests.bench.common import machine
from tests.engines.groups import make_groups, make_request
from tests.factories import make_task
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


def equal_groups(folder: Path, results: Path, count: int) -> Request:
    """Groups of equal cost, each long beside what an engine does between two of them."""
    place = folder / "data" / "equal"
    if not place.exists():
        make_task(place, classes=5, train=100, test=60)
    request = make_request(folder, results, models=count)
    return dataclasses.replace(
        request,
        tasks=[f"parquet:{place}"],
        protocols={"knn": Knn(), "fewshot": Fewshot(shots=(1, 5), episodes=600)},
        cache=folder / "caches" / results.name,
    )


def seconds_by_engine(folder: Path, slots: int, count: int) -> float:
    """Seconds of the clock for which each of the groups keeps an engine of so many processes: from
    an end of a group, when all processes have begun, to the last one."""
    results = folder / f"engine-{secrets.token_hex(4)}"
    request = equal_groups(folder, results, count)
    done = drive(request, Local(slots), str(request.cache), print_nothing)
    assert not done.failures, done.failures[0]
    index = Index()
    index.refresh(store_of(results))
    when = {row.group: datetime.fromisoformat(row.when) for row in index.results.values()}
    ends = sorted(when.values())
    assert len(ends) == count
    begun = 2 * slots
    return (ends[-1] - ends[begun - 1]).total_seconds() / (count - begun)


def seconds_apart(folder: Path, processes: int, count: int) -> float:
    """Seconds of the clock for a group where so many processes, of which none knows of the others
    or of an engine, score each as many: what the machine's cores allow. They begin together, each
    after a group that warms it up."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_engines", "alone", str(folder), str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(processes)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    took = [float(child.communicate("go\n")[0]) for child in children]
    return max(took) / (processes * count)


def alone(folder: Path, count: int) -> None:
    """One of the processes of `seconds_apart`."""
    results = folder / f"alone-{secrets.token_hex(4)}"
    first, *rest = make_groups(equal_groups(folder, results, count + 1))
    run_group(first, str(results))
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for group in rest:
        run_group(group, str(results))
    print(time.perf_counter() - start)


def two_processes(folder: Path, count: int, rounds: int) -> None:
    """Groups of equal cost by one process of an engine and by two; beside it what two processes
    gain that nothing disturbs, as two cores may be two threads of one."""
    calls: dict[str, Callable[[], float]] = {
        "one": lambda: seconds_by_engine(folder, 1, count),
        "two": lambda: seconds_by_engine(folder, 2, count),
        "one apart": lambda: seconds_apart(folder, 1, count // 2),
        "two apart": lambda: seconds_apart(folder, 2, count // 2),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    loads = [os.getloadavg()[0]]
    equal_groups(folder, folder / "unused", 1)
    for _ in range(rounds):
        for name, call in calls.items():
            took[name].append(call())
    loads.append(os.getloadavg()[0])
    one, two, one_apart, two_apart = (min(took[name]) for name in calls)
    ours, ceiling = 2 * two / one, 2 * two_apart / one_apart
    print(
        f"{count} equal groups: {one:.3f} s each by one process, {two:.3f} s by two: makespan "
        f"{ours:.2f} x half of one's\n"
        f"without an engine: {one_apart:.3f} s by one process, {two_apart:.3f} s by two: "
        f"{ceiling:.2f} x, the least that this machine allows\n"
        f"the engine's beside that: {ours / ceiling:.2f} x (least of {rounds}; load {loads[0]:.1f} "
        f"before, {loads[1]:.1f} after, of which up to 2 is ours)"
    )


def print_nothing(text: str) -> None:
    """The lines of a run are not what is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_engines")
    parser.add_argument("parts", nargs="*", help="of plan, store, two; default: all")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine("torch", "s3fs", "moto", "pyarrow"))
    with tempfile.TemporaryDirectory(prefix="bench-engines-") as name:
        folder = Path(name)
        os.environ["TRANSFERZOO_CACHE"] = str(folder / "home")
        parts: dict[str, Callable[[], None]] = {
            "plan": lambda: large_plan(folder),
            "store": lambda: overhead(folder, args.groups),
            "two": lambda: two_processes(folder, args.groups, args.rounds),
        }
        for part in args.parts or parts:
            parts[part]()


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        alone(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
