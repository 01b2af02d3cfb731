"""The worker: takes requests one by one, lives through what goes wrong with them, and gives back
what it cannot end. Kills and signals hit real processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from eval.common.errors import UserError
from eval.engines.drive import drive
from eval.engines.local import Local
from eval.protocols import PROTOCOLS
from eval.queue import request as requests
from eval.queue.candidate import check
from eval.queue.open import open_queue
from eval.queue.request import Queue, Ticket
from eval.queue.worker import work
from eval.results.store import read_shelf
from eval.run.execute import Report
from eval.run.plan import Request
from tests.hub import LoopbackHub
from tests.models import open_clip_folders, transformers_folders
from tests.queue.script import Script, model, states

FORKS = multiprocessing.get_context("forkserver")
PRELOAD = [
    __name__,
    "timm",
    "accelerate",
    "eval.features.encode",
    "eval.features.precision",
    "eval.queue.directory",
]
PRELOAD += ["eval.protocols.linear", "eval.protocols.knn"]
PATIENCE = 60.0


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(str(tmp_path / "queue"))


def until(true: Callable[[], object], subject: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, subject
        time.sleep(0.02)


def request_on(folder: Path, *models: str) -> Request:
    return Request(
        models=models,
        tasks=[f"parquet:{folder / 'photos'}"],
        protocols={name: PROTOCOLS[name].settings() for name in ("linear", "knn")},
        cache=folder / "cache",
        results=folder / "results",
        precision="fp32",
        device="cpu",
    )


# --------------------------------------------------------------------------- in this process


def test_one_by_one_until_none_is_left(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    script, said = Script(monkeypatch, 12, 1, "it has no head"), []
    for number in range(3):
        queue.add(model(number), "ada")
    assert work(queue, script.request_of, once=True, say=said.append) == 2
    assert script.specs == [model(number).spec for number in range(3)]
    assert states(queue) == [
        ("done", "12 results"), ("done", "1 result"), ("failed", "it has no head")
    ]  # fmt: skip
    assert said[:2] == [f"{model(0).spec}: running", f"{model(0).spec}: done, 12 results"]
    assert work(queue, script.request_of, once=True, say=said.append) == 0


def test_no_request_stops_the_worker(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()
    acts = [
        UserError(f"the folder {home}/x is\n missing"), RuntimeError("Bearer abc hf_abcdefgh1234"),
        MemoryError(), SystemExit(3), RecursionError("deep"), 2,
    ]  # fmt: skip
    script = Script(monkeypatch, *acts)
    monkeypatch.setattr(requests, "MOST_PENDING", 10)
    for number in range(7):
        queue.add(model(number), f"user{number}")

    def refuses(spec: str) -> None:
        if spec == model(6).spec:
            raise UserError("too large by now")

    assert work(queue, script.request_of, once=True, say=print, check=refuses) == 1
    assert states(queue) == [
        ("failed", "the folder ~/x is missing"),
        ("failed", "RuntimeError: [token] [token]"),
        ("failed", "MemoryError: MemoryError"),
        ("failed", "SystemExit: 3"),
        ("failed", "RecursionError: deep"),
        ("done", "2 results"),
        ("failed", "too large by now"),
    ]


def test_a_request_that_cannot_be_made(queue: Queue) -> None:
    queue.add(model(0), "ada")

    def no(spec: str) -> Request:
        raise KeyError(spec)

    assert work(queue, no, once=True, say=print) == 0
    assert states(queue)[0][1].startswith("KeyError: 'hf-hub:org/net0@")


def test_beats_while_it_runs(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent for most of its lease, it is heard before the end: nobody else gets the request."""
    monkeypatch.setattr(requests, "LEASE", 5.0)
    queue.add(model(0), "ada")
    others: list[Ticket | None] = []

    def slowly() -> None:
        (file,) = Path(queue._folder, "running").glob("*.json")  # type: ignore[attr-defined]
        for _ in range(2):
            silent = time.time() - 4
            os.utime(file, (silent, silent))
            until(lambda: file.stat().st_mtime > silent + 1, "it says that it lives")  # noqa: B023
            others.append(queue.take("other"))

    script = Script(monkeypatch, slowly)
    assert work(queue, script.request_of, once=True, say=print) == 1
    assert others == [None] * 2


def test_a_lost_request_is_given_up(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has it: the evaluation ends, its end is not written, the next one is taken."""
    monkeypatch.setattr(requests, "LEASE", 1.0)
    for number in range(2):
        queue.add(model(number), "ada")
    theirs: list[Ticket | None] = []

    def robbed() -> None:
        (file,) = Path(queue._folder, "running").glob("*.json")  # type: ignore[attr-defined]
        os.utime(file, (1, 1))
        theirs.append(queue.take("other"))
        monkeypatch.setattr(requests, "LEASE", 600.0)
        for _ in range(1000):
            time.sleep(0.01)
        pytest.fail("went on")

    said: list[str] = []
    script = Script(monkeypatch, robbed, 3)
    assert work(queue, script.request_of, once=True, say=said.append) == 1
    assert theirs[0] is not None
    assert states(queue) == [("running", "other"), ("done", "3 results")]
    assert any("not written to the queue" in line and "no longer" in line for line in said)
    assert queue.finish(theirs[0], "done", "by the other").state == "done"


class Unsteady:
    """A queue whose calls fail as planned."""

    def __init__(self, queue: Queue, **plans: list[bool]) -> None:
        self._queue, self._plans = queue, plans

    def __getattr__(self, name: str) -> Any:
        plan = self._plans.get(name, [])
        if plan and plan.pop(0):
            raise UserError("the Hub answered 503")
        return getattr(self._queue, name)


def test_a_queue_that_cannot_be_used(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, 1, 1)
    for number in range(2):
        queue.add(model(number), "ada")
    for once in (True, False):
        with pytest.raises(UserError, match="503"):
            work(Unsteady(queue, take=[True]), script.request_of, once=once, say=print)
    said: list[str] = []
    unsteady: Any = Unsteady(queue, take=[False, True, False], finish=[True])

    def stop(line: str) -> None:
        said.append(line)
        if "net1" in line and "done" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    assert work(unsteady, script.request_of, poll_seconds=0.01, say=stop) == 1
    assert "not written to the queue (the Hub answered 503)" in said[1]
    assert "the queue does not answer (the Hub answered 503); asking again" in said[2]
    assert [state for state, _ in states(queue)] == ["running", "done"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was


def test_in_a_thread(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, 1)
    queue.add(model(0), "ada")
    done: list[int] = []
    thread = threading.Thread(
        target=lambda: done.append(work(queue, script.request_of, once=True, say=print))
    )
    thread.start()
    thread.join(PATIENCE)
    assert done == [1]


@pytest.mark.parametrize("kind", ["timm", "transformers", "open_clip"])
def test_from_the_paste_to_the_results(
    kind: str, hub: LoopbackHub, queue: Queue, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """The commit that was pinned is scored, though main has moved."""
    org = "org" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
    if kind == "transformers":
        model_dir = transformers_folders.folder(tmp_path / "net", "dinov2")
    elif kind == "open_clip":
        model_dir = open_clip_folders.folder(tmp_path / "net")
    files: Any = {p.name: p.read_bytes() for p in model_dir.iterdir()}
    sha = hub.add_model(f"{org}/net", files)
    candidate = check(f"https://huggingface.co/{org}/net", tmp_path / "cache")
    queue.add(candidate, "ada")
    weights = next(name for name in files if name.endswith(".safetensors"))
    hub.add_model(f"{org}/net", {weights: b"other"})
    assert task_dir == tmp_path / "photos"
    assert work(queue, lambda spec: request_on(tmp_path, spec), once=True, say=print) == 1
    assert states(queue) == [("done", "2 results")]
    found = [result for _, result in read_shelf(tmp_path / "results").results]
    assert {(r.model.spec, r.model.revision) for r in found} == {(candidate.spec, sha)}


@pytest.mark.slow
def test_scored_by_an_engine(
    hub: LoopbackHub, queue: Queue, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    """``worker --on``: requests and leases stay as they are, other processes score."""
    org = "org" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]
    hub.add_model(f"{org}/net", {p.name: p.read_bytes() for p in model_dir.iterdir()})
    queue.add(check(f"{org}/net", tmp_path / "cache"), "ada")
    said: list[str] = []
    request_of = partial(request_on, tmp_path)

    def score(request: Request) -> Report:
        return drive(request, Local(1), str(request.cache), said.append)

    assert work(queue, request_of, once=True, say=print, score=score) == 1
    assert states(queue) == [("done", "2 results")]
    assert [line.partition(" ")[0] for line in said] == ["[1/2]", "[2/2]"]
    assert len(read_shelf(tmp_path / "results").results) == 2


# --------------------------------------------------------------------------- other processes


def _child(folder: str, model_dir: str, hold: str, log: str) -> None:
    """A worker whose evaluation of net0 stops after the first result that it writes."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import eval.run.execute

    place = Path(folder)
    create = eval.run.execute.create_result

    def then_wait(folder: Path, path: Path, result: Any) -> bool:
        written = create(folder, path, result)
        if hold == "swallow":  # as Python does where a signal falls into a callback
            try:
                (place / "reached").touch()
                time.sleep(100)
            except KeyboardInterrupt:
                (place / "swallowed").touch()
        if hold:
            (place / "reached").touch()
            time.sleep(100)
        return written

    eval.run.execute.create_result = then_wait  # type: ignore[assignment]
    if hold == "short":  # the lease
        requests.LEASE = 2.0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    done = work(
        open_queue(str(place / "queue")),
        lambda spec: request_on(place, f"local-dir:{model_dir}"),
        poll_seconds=0.05,
        say=lambda line: print(line, flush=True),
    )
    print(f"ended after {done}", flush=True)
    sys.exit(0)


@pytest.fixture
def start(
    tmp_path: Path, task_dir: Path, model_dir: Path, queue: Queue
) -> Callable[..., ForkServerProcess]:
    def run(hold: str = "") -> ForkServerProcess:
        FORKS.set_forkserver_preload(PRELOAD)
        arguments = (str(tmp_path), str(model_dir), hold, str(tmp_path / "log"))
        process = FORKS.Process(target=_child, args=arguments, daemon=True)
        process.start()
        return process

    return run


def results(tmp_path: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}


def finish_here(queue: Queue, tmp_path: Path, model_dir: Path) -> int:
    def request_of(spec: str) -> Request:
        return request_on(tmp_path, f"local-dir:{model_dir}")

    return work(queue, request_of, once=True, say=print)


@pytest.mark.parametrize(
    ("kind", "hold"),
    [(signal.SIGINT, "long"), (signal.SIGTERM, "long"), (signal.SIGTERM, "swallow")],
)
@pytest.mark.slow
def test_a_stopped_worker_gives_its_request_back(
    kind: signal.Signals, hold: str, start: Any, queue: Queue, tmp_path: Path, model_dir: Path
) -> None:
    ticket = queue.add(model(0), "ada")
    process = start(hold)
    until((tmp_path / "reached").exists)
    assert queue.tickets()[0].state == "running"
    os.kill(process.pid, kind)
    process.join(PATIENCE)  # less than it would stay
    assert process.exitcode == 0
    assert queue.tickets() == [ticket] or states(queue) == [("pending", "")]
    log = (tmp_path / "log").read_text()
    assert "back in the queue\nended after 0" in log
    assert "Traceback" not in log
    assert (tmp_path / "swallowed").exists() == (hold == "swallow")
    before = results(tmp_path)
    assert len(before) == 1
    assert finish_here(queue, tmp_path, model_dir) == 1  # at once, without waiting for the lease
    assert states(queue) == [("done", "2 results")]
    assert before.items() <= results(tmp_path).items()


@pytest.mark.slow
def test_a_killed_workers_request_is_taken_again(
    start: Any, queue: Any, tmp_path: Path, model_dir: Path
) -> None:
    queue.add(model(0), "ada")
    process = start("long")
    until((tmp_path / "reached").exists)
    process.kill()
    process.join()
    before = results(tmp_path)
    assert len(before) == 1
    assert finish_here(queue, tmp_path, model_dir) == 0  # its lease is not over
    (file,) = (tmp_path / "queue" / "running").glob("*.json")
    old = time.time() - requests.LEASE - 1
    os.utime(file, (old, old))
    assert finish_here(queue, tmp_path, model_dir) == 1
    assert states(queue) == [("done", "2 results")]
    assert before.items() <= results(tmp_path).items()  # what was done is not done again
    assert len(results(tmp_path)) == 2


@pytest.mark.slow
def test_a_paused_worker_loses_its_request(start: Any, queue: Queue, tmp_path: Path) -> None:
    queue.add(model(0), "ada")
    process = start("short")
    until((tmp_path / "reached").exists)
    assert queue.take("me") is None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        (file,) = (tmp_path / "queue" / "running").glob("*.json")
        old = time.time() - requests.LEASE - 1
        os.utime(file, (old, old))
        mine = queue.take("me")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert mine is not None
    log = tmp_path / "log"
    until(lambda: "not written to the queue" in log.read_text(), "it goes on with it")
    assert queue.finish(mine, "done", "2 results").note == "2 results"
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert states(queue) == [("done", "2 results")]


def test_an_idle_worker_waits_for_requests(start: Any, queue: Queue, tmp_path: Path) -> None:
    workers = [start(), start()]
    for number in range(3):
        queue.add(model(number), "ada")
    until(lambda: [s for s, _ in states(queue)] == ["done"] * 3, str(states(queue)))
    for process in workers:
        os.kill(process.pid, signal.SIGTERM)
    for process in workers:
        process.join(PATIENCE)
        assert process.exitcode == 0
    log = (tmp_path / "log").read_text()
    assert log.count(": running\n") == 3  # each by one of them alone
    counts = [int(line.split()[-1]) for line in log.splitlines() if line.startswith("ended")]
    assert sum(counts) == 3
