"""A real Ray of several nodes: results, a node that is killed, and what is refused."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.engines.drive import drive
from eval.engines.placing import Placing
from eval.engines.ray_cluster import Ray
from eval.results.index import Index
from eval.run.attempt import tries
from eval.stores.store import Disk
from tests.engines.groups import make_request, undisturbed_results
from tests.engines.ray_nodes import RayNodes
from tests.factories import refusal
from tests.run.scored import files

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'transferzoo[ray]'")


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with pytest.MonkeyPatch.context() as patch, RayNodes() as found:
        for name, value in found.settings.items():
            patch.setenv(name, value)
        yield found
        ray.shutdown()


@pytest.mark.slow
def test_a_run_whose_node_is_killed(
    nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed_results(tmp_path, models=3, tasks=2)
    request = make_request(tmp_path, tmp_path / "r", models=3, tasks=2)
    killed = 0

    def said(text: str) -> None:
        nonlocal killed
        if not killed:
            deadline = time.monotonic() + 30
            while not tries(Disk(tmp_path / "r")) and time.monotonic() < deadline:
                time.sleep(0.01)
            killed += nodes.kill_one(random.Random(1))

    done = drive(request, Ray("", Placing()), str(request.cache), said)
    assert done.failures == []
    assert killed == 1
    assert files(request.results) == wanted
    index = Index()
    index.refresh(Disk(tmp_path / "r"))
    assert len(index.attempts - {""}) + len(tries(Disk(tmp_path / "r"))) <= 6 + 1


@pytest.mark.slow
def test_a_signal_is_not_rays(nodes: RayNodes) -> None:
    """A command that is ended says so by its exit code, 143; ray's handler would say 15."""
    before = signal.getsignal(signal.SIGTERM)
    Ray("", Placing()).check()
    assert signal.getsignal(signal.SIGTERM) is before
    ray.shutdown()
    Ray("", Placing()).check()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_more_than_the_cluster_has(nodes: RayNodes) -> None:
    assert "no node has 1 CPUs and 2 GPUs" in refusal(Ray("", Placing(gpus=2)).check)


@pytest.mark.slow
def test_a_cluster_of_another_version(nodes: RayNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.engines.ray_cluster.our_version", lambda: "9.9")
    said = refusal(Ray("", Placing())._check_nodes, ray)
    assert said.endswith("and this machine 9.9; install the same version")


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "nobody answers at 127.0.0.1:9" in refusal(Ray("", Placing()).check)
    assert "nobody answers at ray://127.0.0.1:9" in refusal(
        Ray("ray://127.0.0.1:9", Placing()).check
    )
