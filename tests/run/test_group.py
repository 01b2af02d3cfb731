"""The unit of a run can be done twice, at once or late, and by another machine."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.common.errors import BadInput
from eval.results.index import Index
from eval.results.store import read_result, write_result
from eval.run import attempt, execute
from eval.run.attempt import tried, tries
from eval.run.group import Group, GroupReport, groups_of, in_shares, run_group
from eval.run.known import planned_from
from eval.run.plan import Request, plan
from eval.settings.protocols import Fewshot, LowLevel
from eval.stores.front import folder_of, store_of
from eval.stores.store import Disk
from tests.children import FORKS, finish
from tests.engines.groups import make_groups, make_request
from tests.factories import refusal
from tests.run.scored import files
from tests.stores.hub import TOKEN, hub_address
from tests.stores.s3 import s3_server


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def scored(request: Request) -> dict[str, bytes]:
    for group in make_groups(request):
        report = run_group(group, str(request.results))
        assert not report.failures, report.failures
    return files(request.results)


def test_a_group_writes_what_a_run_writes(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "plain", tasks=2)
    done = execute.execute(request, plan(request))
    assert done.exit_code == 0
    grouped = dataclasses.replace(request, results=tmp_path / "groups")
    assert scored(grouped) == files(tmp_path / "plain")
    assert len(files(tmp_path / "plain")) == 4


def test_a_group_can_be_sent(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "r", models=2, tasks=2)
    groups = make_groups(request)
    assert pickle.loads(pickle.dumps(groups)) == groups
    assert len({group.key for group in groups}) == 4
    assert [g.shelf for g in groups] == sorted(g.shelf for g in groups)  # a model's together
    again = make_groups(dataclasses.replace(request, results=tmp_path / "other"))
    assert [g.key for g in again] == [g.key for g in groups]  # wherever it is written
    other = dataclasses.replace(request, seed=1)
    assert not {g.key for g in make_groups(other)} & {g.key for g in groups}


def test_a_second_try_finds_what_is_done(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "r")
    (group,) = make_groups(request)
    first = run_group(group, str(request.results))
    assert (first.scored, first.reused) == (2, 0)
    before = {p: p.stat().st_mtime_ns for p in request.results.rglob("*.json")}
    next(p for p in before if "fewshot" in p.name).unlink()
    assert run_group(group, str(request.results)).scored == 1
    assert run_group(group, str(request.results)) == GroupReport(reused=2, seconds=0.0)
    assert make_groups(request) == []
    index = Index()
    index.refresh(store_of(request.results))
    assert len(index.results) == 2
    assert tries(store_of(request.results)) == []


def test_results_that_nobody_told_of_are_told(work: Path, tmp_path: Path) -> None:
    """Its writer died between the result and the index."""
    request = make_request(work, tmp_path / "r")
    (group,) = make_groups(request)
    run_group(group, str(request.results))
    for part in (tmp_path / "r" / ".index").iterdir():
        part.unlink()
    run_group(group, str(request.results))
    index = Index()
    index.refresh(Disk(tmp_path / "r"))
    assert sorted(index.planned) == sorted(path for path, _, _ in group.cells)
    assert index.attempts == {""}  # nothing was scored for that


def test_other_scores_are_reported_and_nothing_is_overwritten(work: Path, tmp_path: Path) -> None:
    """A result that came meanwhile, and says something else."""
    request = make_request(work, tmp_path / "r")
    (group,) = make_groups(request)
    run_group(group, str(request.results))
    path = next(p for p in (tmp_path / "r").rglob("*.json") if "knn" in p.name)
    held = read_result(path)
    first = held.scores[0].model_copy(update={"value": 0.125})
    other = held.model_copy(update={"scores": [first, *held.scores[1:]]})
    write_result(path, other)
    before = path.read_bytes()
    cells = [dataclasses.replace(c, done=False) for c in plan(request)]
    report = execute.execute(request, cells)
    assert [f.conflict for f in report.failures] == [True]
    assert "is there with other scores, and stays as it is: top1 is 0.125 there" in (
        report.failures[0].error
    )
    assert report.exit_code == 1
    assert path.read_bytes() == before


def test_a_cell_that_fails_is_in_the_index(work: Path, tmp_path: Path) -> None:
    request = make_request(work, tmp_path / "r")
    (group,) = make_groups(request)
    gone = dataclasses.replace(group, revision="another")
    report = run_group(gone, str(tmp_path / "r"))
    assert {f.error for f in report.failures} == {
        "random:test_resnet was at revision another when the run was planned and is at seed0 now; "
        "start the run again"
    }
    index = Index()
    index.refresh(Disk(tmp_path / "r"))
    assert [row.title for row in index.failed()] == [title for _, title, _ in group.cells]
    other = dataclasses.replace(group, split_hash="ab" * 32)
    assert "has other images here" in run_group(other, str(tmp_path / "r")).failures[0].error
    run_group(group, str(tmp_path / "r"))
    index.refresh(Disk(tmp_path / "r"))
    assert index.failed() == []


def test_a_share_of_the_images_is_encoded_and_nothing_is_scored(work: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(make_request(work, tmp_path / "r"), cache=tmp_path / "cache")
    (group,) = make_groups(request)
    first, second = in_shares([group], 45)
    assert (first.share, second.share, first.cells) == ((0, 2), (1, 2), ())
    assert first.title.endswith(", share 1 of 2")
    assert in_shares([group], 90) == [group]
    reports = [run_group(one, str(request.results)) for one in (first, second, second)]
    assert [report.images for report in reports] == [50, 40, 0]
    assert files(request.results) == {}
    index = Index()
    index.refresh(store_of(request.results))
    assert (index.results, index.attempts) == ({}, set())
    done = run_group(group, str(request.results))
    assert (done.scored, done.failures) == (2, ())
    other = dataclasses.replace(group.request, protocols={"low-level": LowLevel()})
    whole = dataclasses.replace(group, request=other)
    assert in_shares([whole], 45) == [whole]  # it takes no features


def test_a_share_that_fails_is_the_groups_failure(work: Path, tmp_path: Path) -> None:
    """Told once, by the group: the share says it in its report alone."""
    (group,) = make_groups(make_request(work, tmp_path / "r"))
    lost = dataclasses.replace(group, revision="0" * 40, share=(0, 2), cells=())
    report = run_group(lost, str(tmp_path / "r"))
    assert [f.user_mistake for f in report.failures] == [True]
    assert "start the run again" in report.failures[0].error
    index = Index()
    index.refresh(store_of(tmp_path / "r"))
    assert index.failed() == []
    assert tries(store_of(tmp_path / "r")) == []


def test_networks_in_memory_cannot_be_sent(tmp_path: Path) -> None:
    from eval.models.backbone import load
    from eval.models.resolve import resolve

    network = load(resolve("random:test_resnet", tmp_path, 32))
    request = dataclasses.replace(make_request(tmp_path, tmp_path), models=[network])
    assert "network in memory" in refusal(groups_of, request, [], "")
    with pytest.raises(BadInput):
        groups_of(request, [], "")


# ---- signs of life


def test_a_try_shows_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "BEAT", 0.05)
    store = Disk(tmp_path)
    with tried(store, "key", "a model on a task") as one:
        (seen,) = tries(store)
        assert (seen.name, seen.title, seen.alive) == (one.name, "a model on a task", True)
        deadline = time.monotonic() + 20
        while tries(store)[0].beat == seen.beat and time.monotonic() < deadline:
            time.sleep(0.02)
        assert tries(store)[0].beat > seen.beat
    assert tries(store) == []


def test_the_dead_are_known(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    with tried(store, "key", "title") as one:
        silent = dataclasses.replace(one, beat="2026-01-01T00:00:00+00:00")
        assert not silent.alive
        child = FORKS.Process(target=os.getpid)
        child.start()
        child.join()
        assert not dataclasses.replace(one, process=child.pid).alive  # at once, on this machine
        assert dataclasses.replace(one, process=child.pid, host="elsewhere").alive
    (tmp_path / attempt.FOLDER / "x.json").write_text(json.dumps({"of": "another version"}))
    assert tries(store) == []


# ---- a process that was stopped, replaced and revived


def _score(group: Group, store: str, settings: dict[str, str], told: Path) -> None:
    os.environ.update(settings)
    report = run_group(group, store)
    told.write_text(json.dumps([report.scored, [f.error for f in report.failures]]))


@pytest.fixture(params=["folder", "s3", "hub"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, str]]]:
    if request.param == "folder":
        yield str(tmp_path / "r"), {}
        return
    if request.param == "hub":
        address = hub_address(request.getfixturevalue("hub"), "woken", monkeypatch)
        monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "here"))
        yield f"{address}/r", {"HF_TOKEN": TOKEN}
        return
    with s3_server() as settings:
        monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "here"))
        yield "s3://board/r", settings


def test_a_process_that_woke_up_overwrites_nothing(
    place: tuple[str, dict[str, str]], work: Path, tmp_path: Path
) -> None:
    """As seen on a real Slurm: a node counted as dead, its job ran elsewhere, and then it wrote."""
    store, settings = place
    request = make_request(work, folder_of(store), tasks=1)
    (group,) = make_groups(request)
    elsewhere = settings | {"TRANSFERZOO_CACHE": str(tmp_path / "there")}
    first = FORKS.Process(target=_score, args=(group, store, elsewhere, tmp_path / "first"))
    first.start()
    back = store_of(folder_of(store))
    deadline = time.monotonic() + 60
    while not tries(back) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid or 0, signal.SIGSTOP)
    held = back.sizes(group.shelf)
    report = run_group(group, store)  # who replaces it
    before = back.get(back.sizes(group.shelf))
    assert len(before) == 2
    assert report.scored == 2 - len(held)
    os.kill(first.pid or 0, signal.SIGCONT)
    assert finish(first) == 0
    assert back.get(back.sizes(group.shelf)) == before
    assert json.loads((tmp_path / "first").read_text())[1] == []  # equal: no conflict
    assert tries(back) == []


# ---- on a store, where nothing is ever written over


def test_more_shots_lie_beside(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server():
        monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "here"))
        request = make_request(work, folder_of("s3://board/shots"))
        (group,) = make_groups(request)
        run_group(group, "s3://board/shots")
        more = dataclasses.replace(
            request, protocols={"fewshot": Fewshot(shots=(1, 2), episodes=10, queries=5)}
        )
        (wider,) = make_groups(more)
        assert [path.rpartition("/")[2] for path, _, _ in wider.cells] == [
            f"{wider.cells[0][0].rpartition('/')[2].partition('.')[0]}"
            ".fewshot@queries=5,episodes=10,precision=fp32,shots=1+2.json"
        ]
        assert run_group(wider, "s3://board/shots").scored == 1
        assert make_groups(more) == []
        cells, index = planned_from(more)
        assert [c.done for c in cells] == [True]
        assert len(index.results) == 3
