"""Runs on several processes of this machine: killed at any moment, the same command goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from eval.common.errors import Conflict, Unreachable
from eval.engines import lease, local
from eval.engines.drive import drive, key_of
from eval.engines.engine import TRIES, Ended
from eval.engines.lease import Driver, drivers, driving
from eval.engines.local import Local
from eval.engines.placing import portions
from eval.engines.status import status_of
from eval.results.index import Index, Row
from eval.run import attempt
from eval.run.attempt import tries
from eval.run.group import Group, run_group
from eval.stores.front import folder_of
from eval.stores.store import Disk
from tests.children import FORKS
from tests.engines.groups import command_of, make_groups, make_request, undisturbed_results
from tests.factories import Cli, refusal
from tests.run.scored import files
from tests.stores.s3 import s3_server

PATIENCE = 120.0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def undisturbed(work: Path) -> dict[str, bytes]:
    """What one process makes of two models on two tasks."""
    return undisturbed_results(work, models=2, tasks=2)


class Here:
    """An engine in this process: no more than what all engines do."""

    name, slots = "here", 1

    def __init__(self, score: Callable[[Group, str], object] = run_group) -> None:
        self.score, self.got = score, list[Group]()

    def check(self) -> None:
        pass

    def work(self, groups: Sequence[Group], store: str) -> Iterator[Ended | None]:
        for group in groups:
            self.got.append(group)
            self.score(group, store)
            yield None
            yield Ended((group,), "nobody knows why")


# ---- the driver


def test_a_run_by_an_engine(undisturbed: dict[str, bytes], work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    said: list[str] = []
    done = drive(request, Here(), str(request.cache), said.append)
    assert (done.scored, done.reused, done.failures) == (8, 0, [])
    assert files(request.results) == undisturbed
    assert [line.partition("]")[0] for line in said] == [f"[{i}/8" for i in range(1, 9)]
    again = drive(request, Here(), str(request.cache), said.append)
    assert (again.scored, again.reused) == (0, 8)
    assert len(said) == 8
    assert not any(driver.alive for driver in drivers(Disk(tmp_path / "r")).values())


def test_large_sets_are_encoded_by_several_jobs(
    undisturbed: dict[str, bytes], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First their shares, then the groups, which find the images encoded."""
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    engine, cache = Here(), tmp_path / "cache"
    drive(request, engine, str(cache), print, images=45)  # of 90: train's shard and test's
    asked = [(group.share, len(group.cells)) for group in engine.got]
    assert asked == [((0, 2), 0), ((1, 2), 0)] * 4 + [(None, 2)] * 4
    assert len({group.key for group in engine.got}) == 12
    assert files(request.results) == undisturbed
    assert starts(request.results) == 4  # a share has no row in the index, nor is it left running
    assert not list((cache / "partial").iterdir())
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "mine"))
    alone = Here()
    own = dataclasses.replace(request, results=tmp_path / "own")
    drive(own, alone, "", print, images=45)  # each machine has its own cache: nothing is shared
    assert [group.share for group in alone.got] == [None] * 4


def test_what_an_engine_gives_up_is_a_failure(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "r", models=2)
    lost = make_groups(request)[0].key

    def score(group: Group, store: str) -> None:
        if group.key != lost:
            run_group(group, store)

    done = drive(request, Here(score), str(request.cache), lambda text: None)
    assert done.scored == 2
    assert {f.error for f in done.failures} == {"nobody knows why"}
    assert len(done.failures) == 2


def test_groups_of_a_living_process_are_waited_for(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of a driver that died finish what they are at: nothing is started twice."""
    monkeypatch.setattr("eval.engines.drive.POLL", 0.05)
    request = make_request(work, tmp_path / "r", models=2)
    busy, free = make_groups(request)
    engine, looks = Here(), 0
    store = Disk(request.results)

    def end(self: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            context.__exit__(None, None, None)
            run_group(busy, str(request.results))

    from eval.engines.drive import _Drive

    look = _Drive._look
    monkeypatch.setattr(_Drive, "_look", lambda self: (end(self), look(self))[1])
    context = tried(store, busy)
    context.__enter__()
    done = drive(request, engine, str(request.cache), lambda text: None)
    assert [g.key for g in engine.got] == [free.key]
    assert done.scored == 4


def tried(store: Disk, group: Group) -> attempt.tried:  # type: ignore[valid-type]
    return attempt.tried(store, group.key, group.title)


def test_a_store_that_does_not_answer_for_a_while(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh, times = Index.refresh, 0

    def sometimes(self: Index, store: Disk) -> object:
        nonlocal times
        times += 1
        if times == 3:
            raise Unreachable("store 'x' does not answer")
        return refresh(self, store)

    monkeypatch.setattr(Index, "refresh", sometimes)
    request = make_request(work, tmp_path / "r", models=2)
    said: list[str] = []
    done = drive(request, Here(), str(request.cache), said.append)
    assert "store 'x' does not answer" in said
    assert done.scored == 4


# ---- one driver at a time


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    with driving(store, "run", "here"):
        said = refusal(driving(store, "run", "here").__enter__)
        assert said.startswith("another driver works on this run since ")
        assert f"(process {os.getpid()} on " in said
        with driving(store, "other", "here"):  # another run of the same store
            assert len(store.sizes(lease.FOLDER)) == 2
    with driving(store, "run", "here"):
        pass
    assert len(store.sizes(lease.FOLDER)) == 2  # the last of each run


@pytest.mark.slow
def test_the_next_driver_of_a_dead_one(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    child = FORKS.Process(target=os.getpid)
    child.start()
    child.join()
    dead = Driver(os.uname().nodename, child.pid or 0, attempt.now(), attempt.now(), "local")
    store.put(f"{lease.FOLDER}/run.000007.json", json.dumps(dataclasses.asdict(dead)).encode())
    with driving(store, "run", "here"):
        assert sorted(drivers(store, "run")) == [7, 8]


def test_of_two_drivers_that_start_at_once_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw that there is none."""
    store = Disk(tmp_path)
    monkeypatch.setattr(lease, "drivers", lambda store, run: {})
    with driving(store, "run", "here"), pytest.raises(Conflict, match="a moment ago"):
        driving(store, "run", "here").__enter__()


def test_runs_are_told_apart(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path, models=2)
    assert key_of(request) == key_of(dataclasses.replace(request, results=Path("x"), device=None))
    assert key_of(request) != key_of(dataclasses.replace(request, seed=1))
    assert key_of(request) != key_of(dataclasses.replace(request, models=request.models[:1]))


# ---- processes


def starts(folder: Path) -> int:
    """How often a group was begun: tries that ended, and those that left their file behind."""
    index = Index()
    index.refresh(Disk(folder))
    return len(index.attempts - {""}) + len(tries(Disk(folder)))


@pytest.mark.slow
def test_processes_on_this_machine(
    undisturbed: dict[str, bytes], work: Path, tmp_path: Path
) -> None:
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    done = drive(request, Local(2), str(tmp_path / "cache"), lambda text: None, images=45)
    assert (done.scored, done.failures) == (8, [])
    assert files(request.results) == undisturbed
    assert starts(request.results) == 4


def test_a_process_takes_groups_of_its_model() -> None:
    def group(model: str, task: str) -> Group:
        return Group(None, "", "", task, model, f"{model} {task}", 1, ())  # type: ignore[arg-type]

    left = [group("a", "1"), group("a", "2"), group("b", "1"), group("b", "2")]

    def worker(shelf: str) -> local._Worker:
        made = object.__new__(local._Worker)
        made.shelf = shelf
        return made

    assert local._next(left, worker(""), []) is left[0]
    assert local._next(left, worker("b"), [worker("a")]) is left[2]
    assert local._next(left, worker("c"), [worker("a")]) is left[2]
    assert local._next(left, worker("c"), [worker("a"), worker("b")]) is left[0]


def start(
    command: Sequence[str], log: Path, settings: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "eval", *command], stdout=file, stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (settings or {}), start_new_session=True,
        )  # fmt: skip


def until(what: Callable[[], object], why: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            pytest.fail(f"nothing happened: {why()}")
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver(
    undisturbed: dict[str, bytes], work: Path, tmp_path: Path
) -> None:
    """A worker at each of two groups, then the driver: no group begins once more than there were
    kills of workers, as those of the dead driver finish theirs."""
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    command = [*command_of(request), "--results", str(request.results), "--on", "local:2"]
    driver, store, log = start(command, tmp_path / "log"), Disk(request.results), tmp_path / "log"
    killed: set[int] = set()
    for _ in range(2):
        until(lambda: [t for t in tries(store) if t.process not in killed], log.read_text)
        (victim, *_) = [t for t in tries(store) if t.process not in killed]
        os.kill(victim.process, signal.SIGKILL)
        killed.add(victim.process)
    until(lambda: [t for t in tries(store) if t.alive], log.read_text)
    driver.kill()
    driver.wait()
    last = start(command, log)
    assert last.wait(PATIENCE) == 0, log.read_text()
    assert files(request.results) == undisturbed
    assert starts(request.results) <= 4 + len(killed)
    status = status_of(request.results)
    assert (status.cells, status.done, status.running, status.failed) == (8, 8, (), ())


def test_a_group_that_nobody_survives(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(work, tmp_path / "r")
    monkeypatch.setattr(local, "_MAIN", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = drive(request, Local(1), str(request.cache), lambda text: None)
    assert {f.error.partition(": ")[2] for f in done.failures} == {
        f"the process that scored it ended {TRIES} times without a result, the last time by "
        "signal 9; less memory is needed with a smaller --batch-size"
    }


@pytest.mark.slow
def test_a_stopped_worker_is_replaced_and_may_go_on(
    undisturbed: dict[str, bytes], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of which nobody has heard loses its group to another; revived, it overwrites nothing."""
    quick = "from eval.run import attempt; attempt.BEAT = 0.2; " + local._MAIN
    monkeypatch.setattr(local, "_MAIN", quick)
    monkeypatch.setattr(local, "_LOOK", 0.5)
    monkeypatch.setattr(attempt, "STALE", 8.0)
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    store = Disk(request.results)
    stopped: list[attempt.Try] = []
    written: dict[str, bytes] = {}

    def stop_and_revive() -> None:
        until(lambda: tries(store))
        one = tries(store)[0]
        os.kill(one.process, signal.SIGSTOP)
        stopped.append(one)
        until(lambda: any(row.group == one.group for row in rows(store)))
        written.update(store.get(n for n in store.sizes() if n.endswith(".json") and n[0] != "."))
        os.kill(one.process, signal.SIGCONT)

    beside = threading.Thread(target=stop_and_revive)
    beside.start()
    done = drive(request, Local(2), str(request.cache), lambda text: None)
    beside.join()
    (one,) = stopped
    until(lambda: not attempt._runs(one.process))
    assert (done.failures, files(request.results)) == ([], undisturbed)
    assert store.get(written) == written
    assert [row for row in rows(store) if row.error] == []


def rows(store: Disk) -> list[Row]:
    index = Index()
    index.refresh(store)
    return [*index.results.values(), *index.failures.values()]


@pytest.mark.slow
def test_ended_workers_go_with_the_driver(work: Path, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM of the driver end its processes; the same command goes on."""
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    command = [*command_of(request), "--results", str(request.results), "--on", "local:2"]
    log = tmp_path / "log"
    driver = start(command, log)
    until(lambda: tries(Disk(request.results)), log.read_text)
    workers = [one.process for one in tries(Disk(request.results))]
    driver.terminate()
    assert driver.wait(PATIENCE) == 143
    assert log.read_text().splitlines()[-1] == "terminated; the same command goes on from here"
    until(lambda: not any(attempt._runs(pid) for pid in workers))
    assert start(command, log).wait(PATIENCE) == 0


@pytest.mark.slow
def test_on_s3_without_a_shared_disk(
    undisturbed: dict[str, bytes], work: Path, tmp_path: Path, cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Results and features in a bucket: the driver's machine has nothing that the workers need."""
    with s3_server():
        monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
        request = make_request(work, tmp_path, models=2, tasks=2)
        command = command_of(request)
        at = command.index("--cache")
        command[at + 1] = "s3://board/features"
        ran = cli(*command, "--results", "s3://board/r", "--on", "local:2")
        assert ran.code == 0, ran.err
        assert "8 scored, 0 already there, 0 failed" in ran.out
        folder = folder_of("s3://board/r")
        assert files(folder) == undisturbed
        elsewhere = tmp_path / "elsewhere"
        monkeypatch.setenv("TRANSFERZOO_CACHE", str(elsewhere))
        again = cli(*command, "--results", "s3://board/r")
        assert "0 scored, 8 already there, 0 failed; 0 images encoded" in again.out
        assert files(folder_of("s3://board/r")) == undisturbed
        board = cli("leaderboard", "--results", "s3://board/r")
        assert board.code == 0
        assert "random:test_resnet@1" in board.out
        status = cli("status", "--results", "s3://board/r")
        assert status.out.splitlines() == ["8 of 8 cells are done.", "Nothing is left to score."]


# ---- how groups are handed out


def test_portions() -> None:
    def group(model: str, task: int) -> Group:
        return Group(None, "", "", str(task), model, "", 1, ())  # type: ignore[arg-type]

    groups = [group(m, t) for m in "abc" for t in range(12)]
    found = list(portions(groups, 1))
    assert [len(p) for p in found] == [9, 3] * 3
    assert all(len({g.shelf for g in portion}) == 1 for portion in found)
    assert [g for portion in found for g in portion] == groups
    assert [len(p) for p in portions(groups, 64)] == [1] * 36
    many = [group(str(m), t) for m in range(1000) for t in range(12)]
    assert [len(p) for p in portions(many, 64)] == [12] * 1000
