"""A real Slurm of two nodes: results, a killed job, a preempted one, and what is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.engines.drive import drive
from eval.engines.placing import Placing
from eval.engines.slurm import Slurm
from eval.engines.slurm_job import Job
from eval.results.index import Index
from eval.run.attempt import tries
from eval.stores.store import Disk
from tests.engines.groups import make_groups, make_request, undisturbed_results
from tests.engines.slurm_nodes import SlurmNodes, slurm_missing
from tests.factories import refusal
from tests.run.scored import files

needs_slurm = pytest.mark.skipif(bool(slurm_missing()), reason=slurm_missing() or "it is here")


@pytest.fixture(scope="module")
def nodes() -> Iterator[SlurmNodes]:
    with SlurmNodes() as found:
        yield found


@needs_slurm
@pytest.mark.slow
def test_a_run_whose_job_is_killed(
    nodes: SlurmNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    wanted = undisturbed_results(tmp_path, models=2, tasks=2)
    request = make_request(tmp_path, tmp_path / "r", models=2, tasks=2)
    killed = 0

    def said(text: str) -> None:
        nonlocal killed
        alive = [one for one in tries(Disk(tmp_path / "r")) if one.alive]
        if not killed and alive:
            os.kill(alive[0].process, signal.SIGKILL)
            killed += 1

    done = drive(request, Slurm(Placing("p", max_jobs=2)), "", said)
    assert done.failures == []
    assert files(request.results) == wanted
    index = Index()
    index.refresh(Disk(tmp_path / "r"))
    assert len(index.attempts - {""}) + len(tries(Disk(tmp_path / "r"))) <= 4 + killed


@needs_slurm
def test_a_partition_that_is_not_there(nodes: SlurmNodes) -> None:
    assert refusal(Slurm(Placing("gpu")).check) == (
        "--on slurm: there is no partition 'gpu'; use p"
    )
    Slurm(Placing("p")).check()


@needs_slurm
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
