"""A real Slurm of two nodes: results, jobs that are disturbed, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from eval.engines.drive import drive
from eval.engines.placing import Placing
from eval.engines.slurm import Slurm
from eval.engines.slurm_job import Job
from eval.results.index import Index
from eval.run.attempt import Try, tries
from eval.stores.store import Disk
from tests.engines.groups import make_groups, make_request, undisturbed_results
from tests.engines.slurm_nodes import SlurmNodes, slurm_missing
from tests.factories import refusal
from tests.run.scored import files

PATIENCE = 600.0  # a busy machine takes a minute to start a process

needs_slurm = pytest.mark.skipif(bool(slurm_missing()), reason=slurm_missing() or "it is here")


@pytest.fixture(scope="module")
def nodes() -> Iterator[SlurmNodes]:
    with SlurmNodes() as found:
        yield found


class Disturber(threading.Thread):
    """Does one thing after another to jobs that are in the midst of a group."""

    def __init__(self, store: Path, deeds: Sequence[Callable[[Try, str], None]]) -> None:
        super().__init__(daemon=True)
        self._store, self._deeds = Disk(store), deeds
        self.victims: list[Try] = []

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE
        for deed in self._deeds:
            while not self._disturbed(deed) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _disturbed(self, deed: Callable[[Try, str], None]) -> bool:
        """Whether a job that was not disturbed before is at a group; it is held meanwhile."""
        met = {one.process for one in self.victims}
        for one in tries(self._store):
            if one.process in met or not one.alive:
                continue
            try:
                os.kill(one.process, signal.SIGSTOP)
                if one.name in {still.name for still in tries(self._store)}:
                    deed(one, number_of(one.process))
                    self.victims.append(one)
                    return True
            except ProcessLookupError:
                pass
            finally:
                with suppress(ProcessLookupError):
                    os.kill(one.process, signal.SIGCONT)
        return False


def number_of(process: int) -> str:
    """The job of a process, as scancel takes it."""
    settings = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{process}/environ").read_text().split("\0")
        if "=" in pair
    )
    return settings["SLURM_JOB_ID"]


def killed(one: Try, number: str) -> None:
    os.kill(one.process, signal.SIGKILL)


def out_of_time(one: Try, number: str) -> None:
    """What Slurm sends a minute before a job's time is over."""
    subprocess.run(["scancel", "--signal=USR2", number], check=True)


def preempted(one: Try, number: str) -> None:
    """Somebody with the right to it wants both nodes: SIGCONT, SIGTERM, and later SIGKILL."""
    urgent = ["sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{one.process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@needs_slurm
@pytest.mark.slow
def test_a_run_whose_jobs_are_disturbed(
    nodes: SlurmNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two make way for an urgent one, one is killed, and one is out of time."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    wanted = undisturbed_results(tmp_path, models=3, tasks=1)
    request = make_request(tmp_path, tmp_path / "r", models=3, tasks=1)
    deeds = (preempted, killed, out_of_time)
    disturber = Disturber(tmp_path / "r", deeds)
    disturber.start()
    done = drive(request, Slurm(Placing("p", max_jobs=2)), "", lambda text: None)
    disturber.join()
    assert done.failures == []
    assert len(disturber.victims) == len(deeds)
    assert files(request.results) == wanted
    index = Index()
    index.refresh(Disk(tmp_path / "r"))
    left = tries(Disk(tmp_path / "r"))
    logs = [log.read_text() for log in (tmp_path / "cache/slurm").rglob("*.out")]
    errors = [log.read_text() for log in (tmp_path / "cache/slurm").rglob("*.err")]
    said = "\n".join(map(str, (*disturber.victims, *left, *logs, *errors)))
    # the others took theirs along
    assert [one.name for one in left] == [disturber.victims[1].name], said
    assert len(index.attempts - {""}) + len(left) <= 3 + len(deeds) + 1
    assert sum("Requeued job" in log for log in logs) == 1
    assert sum(log.count("Starting with") for log in logs) >= 3 + len(deeds)


@needs_slurm
@pytest.mark.slow
def test_a_partition_that_is_not_there(nodes: SlurmNodes) -> None:
    assert refusal(Slurm(Placing("gpu")).check) == (
        "--on slurm: there is no partition 'gpu'; use p, urgent"
    )
    Slurm(Placing("p")).check()


@needs_slurm
@pytest.mark.slow
def test_what_sbatch_refuses(nodes: SlurmNodes, tmp_path: Path) -> None:
    groups = make_groups(make_request(tmp_path, tmp_path / "r"))
    engine = Slurm(Placing("p", slurm={"constraint": "nothing-has-this"}))
    with pytest.raises(Exception, match="sbatch refuses the jobs"):
        list(engine.work(groups, str(tmp_path / "r")))


@needs_slurm
@pytest.mark.slow
def test_jobs_that_no_node_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm would hold them for ever: here its own socket has too long a path."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("eval.engines.slurm.TRIES", 1)
    (group,) = make_groups(make_request(tmp_path, tmp_path / "r"))
    with SlurmNodes(prefix="tz-slurm-" + "x" * 90):
        ends = [e for e in Slurm(Placing("p")).work([group], str(tmp_path / "r")) if e]
    assert [end.groups for end in ends] == [(group,)]
    assert "ended" in ends[0].error


@needs_slurm
@pytest.mark.slow
def test_jobs_of_an_earlier_driver_are_waited_for(
    nodes: SlurmNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    request = make_request(tmp_path, tmp_path / "r")
    (group,) = make_groups(request)
    first = Slurm(Placing("p"))
    left = first._submit([(group,)], str(tmp_path / "r"), "tz-run")
    assert list(Slurm(Placing("p")).work([group], str(tmp_path / "r")))[-1] is None
    assert len(files(tmp_path / "r")) == 2
    ((job, _),) = left.values()
    assert job.result() == ""


def test_no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(Slurm(Placing()).check) == (
        "--on slurm: there is no sbatch on this machine; use a login node"
    )


def test_slurm_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'Unable to contact\n controller' >&2; exit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    said = refusal(Slurm(Placing()).check)
    assert said == "--on slurm: sinfo says 'Unable to contact controller'"


def test_a_job_whose_time_is_over_is_the_same_job(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    job = Job((), str(tmp_path), str(tmp_path), "0")
    again = job.checkpoint()
    assert again.function is job
    assert (again.args, again.kwargs) == ((), {})


def test_a_job_that_is_told_to_stop_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def score(*args: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        return ""

    monkeypatch.setattr("eval.engines.slurm_job.score_groups", score)
    assert Job((), "", "", "")() is None
    assert signal.getsignal(signal.SIGTERM) is before
