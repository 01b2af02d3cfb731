"""An idle worker computes self-reported results again: real ones, on the embedded suite."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.protocols.outcome import Outcome
from eval.queue.open import open_queue
from eval.queue.reviewer import Reviewer
from eval.queue.worker import work
from eval.results.schema import Result
from eval.results.signoff import content_of, sign_offs
from eval.results.store import read_shelf, write_result
from eval.run.plan import Request
from tests.factories import Cli, make_result, run_two_tasks
from tests.queue.script import Script, model, states


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A real run on two tasks."""
    return run_two_tasks(tmp_path_factory.mktemp("run"))


@pytest.fixture
def results(run: Request, tmp_path: Path) -> Path:
    return shutil.copytree(run.results, tmp_path / "results")


def forged(result: Result) -> Result:
    """Consistent with itself, and invented."""
    out = Outcome()
    out.add_top1(np.arange(result.samples["top1"].n) % 20 > 0)
    samples = {name: s.model_dump(mode="json") for name, s in out.samples.items()}
    raw = result.model_dump(mode="json") | {"samples": samples}
    return Result.model_validate(raw | {"scores": [s.model_dump() for s in out.scores]})


@pytest.mark.slow
def test_each_is_looked_at_once_until_it_changes(run: Request, results: Path) -> None:
    (path, honest), (other, second) = read_shelf(results).results
    write_result(path, forged(honest))
    write_result(results / "x" / "y" / "away.json", make_result(task="photos"))
    (results / "x" / "broken.json").write_text("{")
    said: list[str] = []
    reviewer = Reviewer(results, run.cache, None, "ada", said.append)
    while reviewer.one():
        pass
    assert len(said) == 3
    place = {line.partition(": ")[0]: line.partition(": ")[2] for line in said}
    assert place[str(path.relative_to(results))].startswith("differs (")
    assert place[str(other.relative_to(results))] == "equal, signed off"
    assert place["x/y/away.json"].startswith("could not be computed again (")
    assert sign_offs(results).keys() == {content_of(second)}
    assert sign_offs(results)[content_of(second)].by == "ada"
    assert not reviewer.one()

    write_result(path, honest)  # mended
    assert reviewer.one()
    assert sign_offs(results).keys() == {content_of(honest), content_of(second)}
    assert not reviewer.one()
    assert not Reviewer(results / "none", run.cache, None, "ada", said.append).one()


def test_a_worker_reviews_while_its_queue_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = open_queue(str(tmp_path / "queue"))
    script = Script(monkeypatch, 1)
    queue.add(model(0), "ada")
    calls: list[list[str]] = []

    class Counting:
        def one(self) -> bool:
            calls.append([state for state, _ in states(queue)])
            if len(calls) == 2:  # requests go before
                queue.add(model(1), "bob")
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("the signal did not end it")
            return True

        def sign(self, path: Path) -> None:
            raise AssertionError("nothing was computed")

    reviewer: Any = Counting()
    monkeypatch.setattr("eval.queue.worker.execute", lambda request, cells: _report())
    assert work(queue, script.request_of, poll_seconds=60, say=print, reviewer=reviewer) == 2
    assert calls == [["done"], ["done"], ["done", "done"], ["done", "done"]]
    assert work(queue, script.request_of, once=True, say=print, reviewer=reviewer) == 0
    assert len(calls) == 4  # with once it ends


def _report() -> Any:
    from eval.run.execute import Report

    return Report([])


@pytest.mark.slow
def test_verify_signs_off(run: Request, results: Path, cli: Cli) -> None:
    (path, honest), (other, second) = read_shelf(results).results
    common = ["--cache", run.cache, "--sign-off", "--by"]
    ran = cli("verify", path, *common, "ada")
    assert ran.code == 0
    file = results / ".verified" / path.relative_to(results)
    assert ran.out.splitlines()[-1] == f"signed off: {file}"
    assert sign_offs(results).keys() == {content_of(honest)}
    assert cli("verify", other, *common, "bob", "--json").json["sign_off"].endswith(".json")

    write_result(other, forged(second))
    (results / ".verified" / other.relative_to(results)).unlink()
    ran = cli("verify", other, *common, "ada")
    assert (ran.code, "signed off" in ran.out) == (1, False)
    assert sign_offs(results).keys() == {content_of(honest)}

    for name in ("", "x" * 101, "two\nlines", " ada"):
        ran = cli("verify", path, *common, name)
        assert ran.code == 2
        assert "is no name of 1 to 100 printable characters" in ran.err
    # a file that lies on no shelf is signed off beside itself
    alone = results / "alone.json"
    shutil.copy(path, alone)
    assert cli("verify", alone, *common, "ada").code == 0
    assert (results / ".verified" / "alone.json").is_file()
