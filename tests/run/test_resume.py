"""Runs that are killed, run twice at once, or run by several processes end in the same files.

Most of them run in children of a fork server that has torch and timm imported, so that a kill
hits the work and not the imports; ``torchrun`` itself is tried too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import BaseFileLock, FileLock

from eval.__main__ import main
from eval.common import files as file_locks
from eval.common.distributed import Workers
from eval.common.errors import UserError
from eval.common.files import locked
from eval.features import encode
from eval.results.schema import Result
from eval.results.store import LOCK, read_result
from tests.children import give_up_root
from tests.factories import Cli

ROOT = Path(__file__).resolve().parents[2]
FORKS = multiprocessing.get_context("forkserver")
PRELOAD = [
    __name__,
    "timm",
    "accelerate",
    "eval.run.execute",
    "eval.features.precision",
    "eval.run.cost",
]
PRELOAD += [f"eval.protocols.{name}" for name in ("fewshot", "knn", "linear")]
PATIENCE = 100  # seconds until a process counts as hanging
TIMES = re.compile(rb'"created": "[^"]*"|"seconds": \{[^}]*\}')


@dataclass(frozen=True)
class Child:
    """A running command."""

    process: ForkServerProcess
    log: Path

    def wait(self) -> int:
        """The exit code; a process that hangs is killed and fails the test."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"hangs: {self.log.read_text()}")
        return self.process.exitcode


def _command(
    argv: list[str], log: Path, settings: dict[str, str], shard: int, first: Callable[[], object]
) -> None:
    """In a child: run the command with its output in a file."""
    os.environ.update(settings)
    first()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    encode.SHARD = shard
    # Where the tests run in a shell's background, Ctrl-C is ignored and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(argv))


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Starts with one thread a process, which its children inherit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("TRANSFERZOO_DATA", "TRANSFERZOO_CACHE", "RANK", "WORLD_SIZE"):
            patch.delenv(name, raising=False)
        FORKS.set_forkserver_preload(PRELOAD)
        yield


def start(
    argv: Sequence[str],
    log: Path,
    settings: dict[str, str] | None = None,
    shard: int = 16,
    first: Callable[[], object] = os.getpid,  # called in the child before the command
) -> Child:
    process = FORKS.Process(target=_command, args=(list(argv), log, settings or {}, shard, first))
    process.start()
    return Child(process, log)


def start_ranks(argv: Sequence[str], folder: Path, count: int, shard: int = 16) -> list[Child]:
    """What torchrun does, without its agent: so each process's own exit code is seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    both |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(argv, folder / f"rank{i}.log", both | {"RANK": str(i), "LOCAL_RANK": str(i)}, shard)
        for i in range(count)
    ]


# ---- the run that nothing disturbs


@dataclass(frozen=True)
class Reference:
    """Two tasks, and what one undisturbed process made of them."""

    data: Path
    results: Path
    events: int  # files seen to appear on the way

    def files(self) -> dict[str, bytes]:
        return results_of(self.results)


def arguments(data: Path, folder: Path) -> list[str]:
    """In fp32: which format is fastest is found anew in every fresh cache."""
    return [
        "run", "random:test_resnet", "--task", "eurosat", "dtd", "--data", str(data),
        "--cache", str(folder / "cache"), "--results", str(folder / "results"),
        "--img-size", "32", "--episodes", "20", "--shots", "1", "5", "--precision", "fp32",
        "--batch-size", "8",
    ]  # fmt: skip


def results_of(folder: Path) -> dict[str, bytes]:
    """Every result file's bytes without its two times."""
    return {
        str(p.relative_to(folder)): TIMES.sub(b"", p.read_bytes())
        for p in sorted(folder.rglob("*.json"))
        if not p.name.startswith(".")
    }


class Watch:
    """Notices the files that a run makes, shards and temporary ones too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen: set[str] = set()

    def look(self) -> int:
        for folder, _, files in os.walk(self._folder):
            self.seen.update(f"{folder}/{name}" for name in files)
        return len(self.seen)

    def until(self, count: int, child: Child) -> bool:
        """Whether the child got there before it ended."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.look() >= count:
                return True
            if child.process.exitcode is not None:
                return False
        child.process.kill()
        pytest.fail(f"hangs: {child.log.read_text()}")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    from tests.factories import make_task  # not at the top: children import this file

    folder = tmp_path_factory.mktemp("reference")
    for seed, name in enumerate(("eurosat", "dtd")):
        make_task(folder / "data" / name, seed=seed)
    work = folder / "work"
    work.mkdir()
    child = start(arguments(folder / "data", work), folder / "log")
    watch = Watch(work)
    watch.until(sys.maxsize, child)
    assert child.wait() == 0, child.log.read_text()
    made = Reference(folder / "data", work / "results", watch.look())
    assert len(made.files()) == 6
    assert made.events > 30  # 22 shards, two banks, six results and some memos
    return made


def spoil(folder: Path, part: str, row: int) -> None:
    """Cut one image of a task short."""
    from tests.factories import freeze, write_parquet

    path = folder / f"{part}-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    images = [r["image"]["bytes"] for r in rows]
    images[row] = images[row][:100]
    write_parquet(path, images, [r["label"] for r in rows], [f"kind {i}" for i in range(6)])
    freeze(folder)


# ---- killed


@pytest.mark.slow
def test_killed_at_random_moments(reference: Reference, tmp_path: Path) -> None:
    """kill -9 at five moments spread over the run, then the same command to its end."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown when the test fails
    draw = random.Random(seed)
    run, watch, kills = arguments(reference.data, tmp_path), Watch(tmp_path), 0
    for part in range(5):
        child = start(run, tmp_path / "log")
        if watch.until(int(reference.events * (part + draw.random()) / 6) + 1, child):
            time.sleep(draw.random() * 0.02)
            child.process.kill()
            child.process.join()
            kills += child.process.exitcode == -signal.SIGKILL
        for path in (tmp_path / "results").rglob("*.json"):
            read_result(path)  # whole, whenever the kill came
    assert kills >= 3
    last = start(run, tmp_path / "log")
    assert last.wait() == 0, last.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()
    assert not list((tmp_path / "cache" / "partial").glob("*/*"))


@pytest.mark.slow
def test_killed_between_any_two_files(reference: Reference, tmp_path: Path) -> None:
    """After a kill at each tenth new file, what is already there is never made again."""
    run, watch = arguments(reference.data, tmp_path), Watch(tmp_path)
    shards: dict[Path, int] = {}
    for count in range(8, reference.events, 10):
        child = start(run, tmp_path / "log")
        if not watch.until(count, child):
            break
        child.process.kill()
        child.process.join()
        for path in (tmp_path / "cache" / "partial").glob("*/shard*"):
            assert shards.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert shards
    last = start(run, tmp_path / "log")
    assert last.wait() == 0, last.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()


@pytest.mark.parametrize(
    ("kind", "wanted", "how"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.slow
def test_interrupted_by_the_user_or_the_scheduler(
    reference: Reference, tmp_path: Path, kind: signal.Signals, wanted: int, how: str
) -> None:
    """Ctrl-C and SIGTERM say that nothing is lost, in one line."""
    code = 0
    for attempt in range(3):  # Python loses a signal that falls into a callback: then once more
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        run = arguments(reference.data, tmp_path)
        child = start(run, tmp_path / f"log{attempt}")
        if not Watch(tmp_path).until(10, child):
            continue
        os.kill(child.process.pid or 0, kind)
        code = child.wait()
        if code == wanted:
            break
    assert code == wanted
    said = child.log.read_text()
    assert said.splitlines()[-1] == f"{how}; the same command goes on from here"
    assert "Traceback" not in said
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".tmp"]
    last = start(run, tmp_path / "log")
    assert last.wait() == 0
    assert results_of(tmp_path / "results") == reference.files()


# ---- machines that refuse


def only_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.mark.slow
def test_a_complete_cache_that_may_only_be_read_does(reference: Reference, tmp_path: Path) -> None:
    shutil.copytree(reference.results.parent / "cache", tmp_path / "cache")
    run = arguments(reference.data, tmp_path)
    only_read(tmp_path / "cache")
    child = start(run, tmp_path / "log", first=give_up_root)
    assert child.wait() == 0, child.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()


def test_an_incomplete_cache_that_may_only_be_read_is_named(
    reference: Reference, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    only_read(tmp_path / "cache")
    child = start(arguments(reference.data, tmp_path), tmp_path / "log", first=give_up_root)
    assert child.wait() == 2
    *progress, sentence = child.log.read_text().splitlines()
    assert f"features cannot be kept in {tmp_path / 'cache'} (TRANSFERZOO_CACHE)" in sentence
    assert all(line.startswith("[") for line in progress)


def full_disk(most: int) -> None:
    """No file may have more bytes: a write that would go on says so, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_a_full_disk_is_one_sentence_and_old_results_stay(
    reference: Reference, tmp_path: Path
) -> None:
    shutil.copytree(reference.results, tmp_path / "results")
    (gone,) = (tmp_path / "results").rglob("dtd.fewshot*")
    gone.unlink()
    run = arguments(reference.data, tmp_path)
    child = start(run, tmp_path / "log", first=partial(full_disk, 2000))
    said = child.wait(), child.log.read_text()
    assert said[0] == 1, said
    assert "Traceback" not in said[1]
    assert "cannot be kept in" in said[1]
    held = results_of(tmp_path / "results")
    assert held == {k: v for k, v in reference.files().items() if k in held}
    assert len(held) == len(reference.files()) - 1
    last = start(run, tmp_path / "log")
    assert last.wait() == 0, last.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()


def little_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))


def test_too_little_memory_is_one_sentence(reference: Reference, tmp_path: Path) -> None:
    """A batch of 700 px a side does not fit; the next run, with fewer, does."""
    run = arguments(reference.data, tmp_path)
    run[run.index("--img-size") + 1 : run.index("--img-size") + 2] = ["700"]
    run[run.index("--batch-size") + 1] = "168"
    child = start(run, tmp_path / "log", first=little_memory)
    assert child.wait() in (1, 2)
    said = child.log.read_text()
    assert "memory ran out; use a smaller --batch-size" in said
    assert "Traceback" not in said


# ---- two at once


def test_two_runs_at_once(reference: Reference, tmp_path: Path) -> None:
    run = arguments(reference.data, tmp_path)
    both = [start(run, tmp_path / f"log{i}") for i in range(2)]
    assert [c.wait() for c in both] == [0, 0], [c.log.read_text() for c in both]
    assert results_of(tmp_path / "results") == reference.files()
    said = [re.search(r"(\d+) images encoded", c.log.read_text()) for c in both]
    encoded = [int(found[1]) for found in said if found]
    assert sum(encoded) == 2 * 168  # each image by one of them alone
    assert len(list((tmp_path / "cache" / "banks").iterdir())) == 2
    assert not list((tmp_path / "cache" / "partial").glob("*/*"))


@pytest.mark.parametrize("shots", [("1", "5"), ("5", "1"), ("1", "1 5")])
@pytest.mark.slow
def test_two_runs_of_other_shots_lose_none(
    reference: Reference, tmp_path: Path, shots: tuple[str, str]
) -> None:
    """Both have scored when the first one writes: the second finds what it did not know of."""
    results = tmp_path / "results"
    results.mkdir()
    shutil.copytree(reference.results.parent / "cache", tmp_path / "cache")

    def run(few: str) -> list[str]:
        argv = arguments(reference.data, tmp_path)
        argv[argv.index("--shots") + 1 : argv.index("--precision")] = few.split()
        return [*argv, "--protocol", "fewshot"]

    with FileLock(results / LOCK):
        signs = [tmp_path / f"waits{few}" for few in shots]
        both = [
            start(run(few), tmp_path / f"log{few}", first=partial(tell_of_waiting, sign))
            for few, sign in zip(shots, signs, strict=True)
        ]
        deadline = time.monotonic() + PATIENCE
        while not all(sign.exists() for sign in signs) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert all(sign.exists() for sign in signs), [child.log.read_text() for child in both]
    assert [c.wait() for c in both] == [0, 0], [c.log.read_text() for c in both]
    wanted = {k: v for k, v in reference.files().items() if ".fewshot" in k}
    assert len(wanted) == 2
    assert results_of(results) == wanted


def tell_of_waiting(sign: Path) -> None:
    """In a child: make a file when it comes to ask for the lock of the results."""
    acquire = file_locks._acquire

    def told(lock: BaseFileLock, path: Path, patience: float) -> None:
        if path.name == LOCK:
            sign.touch()
        acquire(lock, path, patience)

    file_locks._acquire = told


def test_a_dead_or_stopped_process_holds_no_run_up(reference: Reference, tmp_path: Path) -> None:
    """Killed with the lock of the results in its hands, it leaves the lock free."""
    code = (
        f"from filelock import FileLock; FileLock({str(tmp_path / 'results' / LOCK)!r}).acquire()"
    )
    (tmp_path / "results").mkdir()
    code += "; print('held', flush=True); import time; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with locked(tmp_path / "results" / LOCK, 0.1):  # stopped: not for ever
            pass
        holder.kill()
        holder.wait()
    shutil.copytree(reference.results.parent / "cache", tmp_path / "cache")
    last = start(arguments(reference.data, tmp_path), tmp_path / "log")
    assert last.wait() == 0, last.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()


@pytest.mark.slow
def test_two_first_runs_of_an_embedded_task(tmp_path: Path) -> None:
    """Both draw the task's data in the same empty cache."""
    run = [
        "run", "random:test_resnet", "--task", "digits", "--protocol", "knn", "--limit", "60",
        "--img-size", "24", "--cache", str(tmp_path / "cache"),
        "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    both = [start(run, tmp_path / f"log{i}") for i in range(2)]
    assert [c.wait() for c in both] == [0, 0], [c.log.read_text() for c in both]
    (path,) = (tmp_path / "results").rglob("*.json")
    assert read_result(path).task.counts["train"] == 60
    assert len(list((tmp_path / "cache" / "banks").iterdir())) == 1
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix == ".tmp"]


# ---- several processes


def answers(result: Result) -> dict[str, Any]:
    """What must not depend on who computed it."""
    return result.model_dump(exclude={"environment", "seconds", "created"})


def check_same_answers(results: Path, reference: Reference, processes: int) -> None:
    paths = {str(p.relative_to(results)): p for p in results.rglob("*.json")}
    assert paths.keys() == reference.files().keys()
    for name, path in paths.items():
        result = read_result(path)
        assert answers(result) == answers(read_result(reference.results / name))
        assert result.environment.processes == processes


def torchrun(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with subprocess.Popen(
        [*command, "--nproc_per_node", "2", "-m", "eval", *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()  # not kill: it must end its workers
            out, err = process.communicate()
            pytest.fail(f"hangs: {out}\n{err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.slow
def test_torchrun(reference: Reference, tmp_path: Path) -> None:
    done = torchrun(arguments(reference.data, tmp_path))
    assert done.returncode == 0, done.stderr
    check_same_answers(tmp_path / "results", reference, processes=2)
    assert done.stdout.count("6 scored, 0 already there, 0 failed; 336 images encoded") == 1
    assert len(list((tmp_path / "cache" / "banks").iterdir())) == 2


@pytest.mark.slow
def test_torchrun_ends_when_an_image_cannot_be_read(reference: Reference, tmp_path: Path) -> None:
    """One that only the second process meets; the first would wait for its features."""
    from tests.factories import make_task

    make_task(tmp_path / "data" / "eurosat")
    spoil(tmp_path / "data" / "eurosat", "test", 41)
    run = arguments(tmp_path / "data", tmp_path)
    run.remove("dtd")
    done = torchrun(run)
    assert done.returncode != 0
    assert done.stdout == ""
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("transfer-eval: "))
    assert "row 41 of eurosat/test-00000-of-00001.parquet" in said
    assert re.search(r"exitcode\s*:\s*2\b", done.stderr)  # the agent's own code is always 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("count", "shard"), [(3, 16), (2, 1000)])
@pytest.mark.slow
def test_any_number_of_processes(
    count: int, shard: int, reference: Reference, tmp_path: Path
) -> None:
    """More shards than processes, and as many."""
    ranks = start_ranks(arguments(reference.data, tmp_path), tmp_path, count, shard)
    assert [r.wait() for r in ranks] == [0] * count, [r.log.read_text() for r in ranks]
    check_same_answers(tmp_path / "results", reference, processes=count)
    for rank in ranks[1:]:
        assert rank.log.read_text() == ""
    before = results_of(tmp_path / "results")
    again = start_ranks(arguments(reference.data, tmp_path), tmp_path, count, shard)
    assert [r.wait() for r in again] == [0] * count
    assert "0 scored, 6 already there" in again[0].log.read_text()
    assert results_of(tmp_path / "results") == before


def test_processes_save_what_can_be_scored(reference: Reference, tmp_path: Path) -> None:
    """torchrun ends all processes once one exits with an error: only the main one may, and it
    does so after the other tasks are saved."""
    from tests.factories import make_task

    make_task(tmp_path / "data" / "eurosat")
    spoil(tmp_path / "data" / "eurosat", "test", 20)  # in a shard of the second process
    make_task(tmp_path / "data" / "dtd", seed=1)
    ranks = start_ranks(arguments(tmp_path / "data", tmp_path), tmp_path, 2)
    assert [r.wait() for r in ranks] == [1, 0], [r.log.read_text() for r in ranks]
    dtd = {name: data for name, data in reference.files().items() if "/dtd." in name}
    found = {
        name: read_result(tmp_path / "results" / name) for name in results_of(tmp_path / "results")
    }
    assert found.keys() == dtd.keys()
    for name, result in found.items():
        assert result.scores == read_result(reference.results / name).scores
    assert "row 20 of eurosat/test-00000-of-00001.parquet" in ranks[0].log.read_text()
    assert ranks[1].log.read_text() == ""


@pytest.mark.slow
def test_one_process_goes_on_where_several_were_killed(
    reference: Reference, tmp_path: Path
) -> None:
    run, watch = arguments(reference.data, tmp_path), Watch(tmp_path)
    ranks = start_ranks(run, tmp_path, 2)
    assert watch.until(reference.events // 3, ranks[0])
    for rank in ranks:
        rank.process.kill()
        rank.process.join()
    last = start(run, tmp_path / "log")
    assert last.wait() == 0, last.log.read_text()
    assert results_of(tmp_path / "results") == reference.files()


@pytest.mark.parametrize("argv", [["run"], ["run", "random:x", "--shots", "one"], ["runn"]])
def test_other_processes_leave_mistakes_to_the_main_one(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert capfd.readouterr().err.startswith("transfer-eval: ")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # main turns it off; put it back afterwards
    assert main(argv) == 0
    assert capfd.readouterr() == ("", "")


def test_processes_that_do_not_find_each_other_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each would take itself for the only one and do all of the work.

    accelerate joins nothing on a device it cannot share, which no test machine has: here it has
    joined one process before it could know of a second.
    """
    assert Workers("cpu").count == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started, but they cannot share"):
        Workers("cpu")


def test_result_files_are_the_same_bytes(reference: Reference) -> None:
    """What is compared above is nearly the whole file."""
    for path in reference.results.rglob("*.json"):
        raw = path.read_bytes()
        assert len(raw) - len(TIMES.sub(b"", raw)) < 200
        value = json.loads(raw)
        assert value["scores"]
        assert value["samples"]


def test_a_data_set_named_in_two_ways_is_scored_once(
    cli: Cli, task_dir: Path, tmp_path: Path
) -> None:
    again = f"parquet:{task_dir.parent}/../{task_dir.parent.name}/{task_dir.name}"
    done = cli(
        "run", "random:test_resnet", "--task", f"parquet:{task_dir}", again, "--protocol", "knn",
        "--img-size", "32", "--cache", str(tmp_path / "cache"), "--json",
        "--results", str(tmp_path / "results"),
    ).json  # fmt: skip
    assert (done["scored"], done["failures"], len(done["files"])) == (1, [], 1)
