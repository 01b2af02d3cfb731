"""Results on the Hub: push, pull request, merge, fetch, by the real client on the loopback Hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants
from hypothesis import given
from hypothesis import strategies as st

from eval.hub.commits import Moved
from eval.protocols.outcome import Outcome
from eval.queue.candidate import check
from eval.results.leaderboard import setting_label, tables
from eval.results.names import portable, shelf_path
from eval.results.parquet_table import flaw, table_bytes
from eval.results.schema import Result
from eval.results.signoff import as_bytes as as_sign_off
from eval.results.signoff import content_of, file_of, sign_offs, signed, write_sign_off
from eval.results.store import read_result, read_shelf, write_result
from eval.sharing.changes import changes_to_publish, combine, covers, difference
from eval.sharing.push import TABLE, Pushed, fetch, merge, push, table
from eval.sharing.read import marks_at
from eval.sharing.recompute import sampler
from tests.factories import let_write, refusal, run_two_tasks
from tests.factories import make_result as made_result
from tests.hub import LoopbackHub
from tests.hub.store import Blob, Repo

ADA, BOB, EVE = "hf_ada_maintains", "hf_bob_proposes", "hf_eve_only_reads"
CARDS = Path(__file__).resolve().parents[2] / "model_cards"
COMMITTED = sorted(CARDS.glob("*/results/*.json"))
REAL = [
    f"resnet18_narrow.{name}_tin100/results/{file}.json"
    for name in ("ce", "ce_selfsupcon")
    for file in ("dtd.fewshot", "dtd.linear")
]


@pytest.fixture(autouse=True)
def quiet_hub(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[LoopbackHub]:
    """A Hub with three people, where ada keeps lab's repositories; nobody waits long; every test
    has an empty cache."""
    people = {ADA: "ada", BOB: "bob", EVE: "eve"}
    let_write(hub, monkeypatch, people, tokens={*hub.tokens, *people}, read_only={EVE})
    monkeypatch.setattr("eval.hub.client.WAITS", (0.01, 0.01, 0.01))
    sleep = time.sleep  # the client has waits of its own
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    yield hub
    hub.clear_faults()


@pytest.fixture(autouse=True)
def no_token_leaks(quiet_hub: LoopbackHub, repo: str, capfd: Any) -> Iterator[None]:
    """No token in the output, in a pull request's text, or in anything committed."""
    yield
    out, err = capfd.readouterr()
    texts = [out.encode(), err.encode()]
    for found in (r for r in quiet_hub.repos.values() if r.id == repo):
        for commit in found.commits.values():
            texts += [commit.title.encode(), commit.message.encode()]
            texts += [blob.read() for blob in commit.files.values()]
    for token in (ADA, BOB, EVE):
        assert not any(token.encode() in text for text in texts)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """From now on another token, or none."""

    def switch(token: str | None) -> None:
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
        else:
            monkeypatch.setenv("HF_TOKEN", token)

    return switch


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    def use(name: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / name))

    return use


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    return f"lab/{unique}-" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Four results of this project, as a run over data in a folder writes them."""
    for name in REAL:
        target = tmp_path / "real" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (CARDS / name).read_text().replace('"local:', '"/work/data/')
        target.write_text(text)
        assert read_result(target).task.source.startswith("/work/")
    return tmp_path / "real"


def make_result(model: str = "random:resnet18", task: str = "photos", **changes: Any) -> Result:
    """On images of one's own: a declared task's are counted in its declaration."""
    return made_result(model, task, **changes)


def shelf(folder: Path, *results: Result) -> Path:
    for number, result in enumerate(results):
        write_result(folder / f"{number}.json", result)
    return folder


def shots(scores: dict[int, float], **changes: Any) -> Result:
    """A few-shot result with these shot counts."""
    raw = make_result(protocol="fewshot", **changes).model_dump(mode="json")
    made = {k: make_result(protocol="fewshot", top1=v) for k, v in scores.items()}
    raw["scores"] = [r.scores[0].model_dump() | {"name": f"top1_{k}shot"} for k, r in made.items()]
    raw["samples"] = {
        f"top1_{k}shot": r.samples["top1_5shot"].model_dump() for k, r in made.items()
    }
    raw["protocol"]["config"] = {"shots": sorted(scores)}
    return Result.model_validate(raw)


def refused(call: Callable[..., object], *args: object) -> str:
    text = refusal(call, *args)
    assert not any(token in text for token in (ADA, BOB, EVE))
    return text


def at(hub: LoopbackHub, repo: str) -> Repo:
    return hub.repos["dataset", repo]


def main(hub: LoopbackHub, repo: str) -> dict[str, bytes]:
    return {path: blob.read() for path, blob in at(hub, repo).head.files.items()}


def results_on_main(hub: LoopbackHub, repo: str) -> set[str]:
    return {path for path in main(hub, repo) if path.endswith(".json")}


def rows_on_main(hub: LoopbackHub, repo: str, tmp_path: Path) -> set[tuple[str, str, float]]:
    file = tmp_path / "table.parquet"
    file.write_bytes(main(hub, repo)[TABLE])
    return {(r["path"], r["score"], r["value"]) for r in pq.read_table(file).to_pylist()}


def rows_of(*results: Result) -> set[tuple[str, str, float]]:
    return {(shelf_path(r), s.name, s.value) for r in results for s in r.scores}


def json_of(result: Result) -> bytes:
    return json.dumps(result.model_dump(mode="json")).encode()


@pytest.fixture
def held(hub: LoopbackHub, repo: str, tmp_path: Path) -> Result:
    """One result that is on main already, with its table."""
    result = make_result(task="held")
    push(shelf(tmp_path / "held", result), repo)
    return result


# --------------------------------------------------------------------------- the whole way


def test_push_pull_request_merge_fetch(
    hub: LoopbackHub, repo: str, real: Path, tmp_path: Path, held: Result,
    login: Callable[[str | None], None], fresh_cache: Callable[[str], None],
) -> None:  # fmt: skip
    before = main(hub, repo)
    login(BOB)
    (real / "notes.json").write_text('{"hello": 1}')
    pushed = push(real, repo)
    paths = tuple(sorted(shelf_path(read_result(CARDS / name)) for name in REAL))
    assert pushed == Pushed(
        url=f"{hub.url}/datasets/{repo}",
        sha=at(hub, repo).pulls["refs/pr/1"],
        pull_request=f"{hub.url}/datasets/{repo}/discussions/1",
        added=paths,
        held=0,
        table=False,
        skipped=((real / "notes.json", "it has no schema_version"),),
    )
    assert main(hub, repo) == before  # until somebody merges it
    assert at(hub, repo).discussions[1].author == "bob"
    assert re.fullmatch(r"Add 4 results \([0-9a-f]{8}\)", at(hub, repo).discussions[1].title)

    login(ADA)
    merged = merge(repo, 1)
    assert (merged.added, merged.table) == (paths, True)
    assert merged.pull_request == pushed.pull_request
    assert merged.sha == at(hub, repo).head.sha
    assert results_on_main(hub, repo) == {*paths, shelf_path(held)}
    results = [read_result(CARDS / name) for name in REAL]
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, *results)

    login(None)
    fresh_cache("other")
    seen = len(hub.exchanges)
    folder = fetch(f"hub:{repo}")
    assert not any("authorization" in e.request_headers for e in hub.exchanges[seen:])
    assert tmp_path / "other" in folder.parents
    fetched = {str(p.relative_to(folder)): r for p, r in read_shelf(folder).results}
    assert fetched.keys() == {*paths, shelf_path(held)}
    for name in REAL:
        ours = read_result(CARDS / name)
        text = (folder / shelf_path(ours)).read_text()
        # byte for byte, but for the folder the data lay in
        assert text == (real / name).read_text().replace('"/work/data/', '"local:')
        assert fetched[shelf_path(ours)].scores == ours.scores


@pytest.mark.slow
def test_a_subprocess_reads_what_was_pushed(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    code = (
        "import sys; from eval.sharing.push import fetch;"
        "from eval.results.store import read_shelf;"
        "print([r.task.name for _, r in read_shelf(fetch(sys.argv[1])).results])"
    )
    env = hub.env(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", code, f"hub:{repo}"], env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "['held']\n"), done.stderr


def test_direct(hub: LoopbackHub, repo: str, real: Path, held: Result, tmp_path: Path) -> None:
    count = len(at(hub, repo).commits)
    pushed = push(real, repo, direct=True)
    assert (len(pushed.added), pushed.pull_request, pushed.table) == (4, "", True)
    assert pushed.sha == at(hub, repo).head.sha
    assert len(at(hub, repo).commits) == count + 1  # the files and the table are one commit
    results = [read_result(CARDS / name) for name in REAL]
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, *results)
    assert at(hub, repo).discussions == {}


def test_a_repository_is_made_with_a_card(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    folder = shelf(tmp_path / "r", make_result())
    assert push(folder, repo, dry_run=True).added == (shelf_path(make_result()),)
    assert ("dataset", repo) not in hub.repos
    pushed = push(folder, repo, private=True)
    assert (pushed.pull_request, pushed.table) == ("", True)
    assert at(hub, repo).private
    card = huggingface_hub.DatasetCard(main(hub, repo)["README.md"].decode())
    data = card.data.to_dict()
    assert (data["license"], data["tags"]) == ("cc-by-4.0", ["transferzoo"])
    assert data["configs"] == [{"config_name": "default", "data_files": TABLE}]
    assert f"hub:{repo}" in card.text

    hub.add_dataset(repo, {"README.md": "mine"})
    push(shelf(tmp_path / "more", make_result(task="more")), repo, direct=True)
    assert main(hub, repo)["README.md"] == b"mine"


def test_pushing_again_adds_nothing(hub: LoopbackHub, repo: str, real: Path, held: Result) -> None:
    push(real, repo, direct=True)
    commits = len(at(hub, repo).commits)
    for direct in (True, False):
        again = push(real, repo, direct=direct)
        assert (again.added, again.held, again.table, again.pull_request) == ((), 4, False, "")
        assert again.sha == at(hub, repo).head.sha
    assert len(at(hub, repo).commits) == commits
    assert at(hub, repo).discussions == {}


def test_when_and_where_it_was_computed_makes_no_other_result(
    hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    push(shelf(tmp_path / "a", make_result()), repo)
    later = make_result(created="2026-02-01T00:00:00+00:00", notes=["again"])
    assert push(shelf(tmp_path / "b", later), repo).held == 1


def test_a_pull_request_that_is_open_is_reported(
    hub: LoopbackHub, repo: str, real: Path, held: Result, login: Callable[[str | None], None]
) -> None:
    login(BOB)
    first, second = push(real, repo), push(real, repo)
    assert first == second
    assert list(at(hub, repo).discussions) == [1]
    # with other files it is another one
    (real / REAL[0]).unlink()
    assert push(real, repo).pull_request.endswith("/discussions/2")


def test_an_open_pull_request_that_became_another_is_no_push(
    hub: LoopbackHub, repo: str, real: Path, held: Result
) -> None:
    path = push(real, repo).added[0]
    hub.add_repo("dataset", repo, {path: None}, ref="refs/pr/1")
    assert "discussions/1 has the title of this push but other files" in refused(push, real, repo)


def test_the_title_tells_pushes_apart(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    for name, second in (("a", "y"), ("b", "z"), ("c", "y")):
        folder = shelf(tmp_path / name, make_result(task="x"), make_result(task=second))
        push(folder, repo)
    assert list(at(hub, repo).discussions) == [1, 2]


def test_two_pull_requests_of_one_base(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    one, two = make_result(task="one"), make_result(task="two")
    for result in (one, two):
        push(shelf(tmp_path / result.task.name, result), repo)
    for number in (1, 2):
        merge(repo, number)
    assert results_on_main(hub, repo) == {shelf_path(r) for r in (held, one, two)}
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, one, two)
    for number in (1, 2):
        assert (
            refused(merge, repo, number) == f"pull request {number} of {repo!r} is merged already"
        )


def test_a_dry_run_changes_nothing(
    hub: LoopbackHub, repo: str, held: Result, real: Path, tmp_path: Path
) -> None:
    shelf(real / "held", held)
    hub.requests.clear()
    for direct in (True, False):
        would = push(real, repo, direct=direct, dry_run=True)
        assert (len(would.added), would.held, would.sha) == (4, 1, at(hub, repo).head.sha)
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}


# --------------------------------------------------------------------------- the same path


def test_more_shots_extend_the_file(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    small = shots({1: 0.25, 5: 0.5}, notes=["first"]).model_dump(mode="json") | {"review": "ok"}
    path = shelf_path(Result.model_validate(small))
    hub.add_dataset(repo, {path: json.dumps(small)})
    grown = shots({1: 0.25, 5: 0.5, 20: 0.75}, notes=["second"])
    assert push(shelf(tmp_path / "grown", grown), repo).added == (path,)
    merge(repo, 1)
    there = Result.model_validate_json(main(hub, repo)[path])
    assert [s.name for s in there.scores] == ["top1_1shot", "top1_5shot", "top1_20shot"]
    assert there.protocol.config["shots"] == [1, 5, 20]
    assert there.notes == ["second", "first"]
    assert there.model_dump()["review"] == "ok"
    assert rows_on_main(hub, repo, tmp_path) == rows_of(grown)
    # and who has less, or the same, adds nothing
    for result in (Result.model_validate(small), grown):
        assert push(shelf(tmp_path / "less", result), repo).added == ()


def test_other_scores_are_refused(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    before = at(hub, repo).head.sha
    other = make_result(task="held", top1=0.75)
    folder = shelf(tmp_path / "other", other, make_result(task="innocent"))
    for direct in (True, False):
        text = refused(lambda d=direct: push(folder, repo, direct=d))
        assert (
            f"{shelf_path(held)} is in {repo!r} already and top1 is 0.5 there and 0.75 here" in text
        )
        assert f"`transfer-eval verify {folder / '0.json'}`" in text
        assert "--replace" in text
    assert at(hub, repo).head.sha == before
    assert at(hub, repo).discussions == {}

    pushed = push(folder, repo, direct=True, replace=True)
    assert len(pushed.added) == 2
    assert rows_on_main(hub, repo, tmp_path) == rows_of(other, make_result(task="innocent"))


def test_a_replacing_pull_request_is_not_merged(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    before = at(hub, repo).head.sha
    push(shelf(tmp_path / "r", make_result(task="held", top1=0.75)), repo, replace=True)
    text = refused(merge, repo, 1)
    assert f"{shelf_path(held)} is on main already and top1 is 0.5 there and 0.75 here" in text
    assert "--direct --replace" in text
    assert at(hub, repo).head.sha == before


def test_another_data_set_of_the_same_name_is_kept_beside(
    hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    results = [make_result(split=s, top1=t) for s, t in (("a", 0.5), ("b", 0.25), ("c", 0.75))]
    first, second, third = results
    push(shelf(tmp_path / "first", first), repo)
    assert push(shelf(tmp_path / "two", second, third), repo).added == (
        shelf_path(second, by_hash=True),
        shelf_path(third, by_hash=True),
    )
    merge(repo, 1)
    assert results_on_main(hub, repo) == {
        shelf_path(first), shelf_path(second, by_hash=True), shelf_path(third, by_hash=True),
    }  # fmt: skip
    everything = shelf(tmp_path / "all", *results)
    assert push(everything, repo).held == 3
    assert len(read_shelf(fetch(f"hub:{repo}")).results) == 3


def test_another_precision_is_kept_beside(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    """What an earlier version computed in bf16, without saying so in the name, stays published."""
    old, new = make_result(top1=0.5, dtype="bf16-channels_last"), make_result(top1=0.75)
    assert shelf_path(old) == shelf_path(new)
    push(shelf(tmp_path / "old", old), repo)
    beside = shelf_path(new, by_precision=True)
    assert push(shelf(tmp_path / "new", new), repo).added == (beside,)
    merge(repo, 1)
    assert results_on_main(hub, repo) == {shelf_path(old), beside}
    assert push(shelf(tmp_path / "again", new), repo).held == 1
    assert push(shelf(tmp_path / "older", old), repo).held == 1


def test_two_local_files_of_one_path(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    folder = shelf(tmp_path / "r", make_result(), make_result(created="later"))
    assert len(push(folder, repo).added) == 1  # they say the same
    write_result(folder / "9.json", make_result(top1=0.25))
    text = refused(push, folder, repo)
    assert str(folder / "0.json") in text
    assert str(folder / "9.json") in text


def test_nothing_to_push(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    assert "does not exist" in refused(push, tmp_path / "none", repo)
    (tmp_path / "empty").mkdir()
    assert "no results to push" in refused(push, tmp_path / "empty", repo)
    raw = make_result().model_dump(mode="json")
    raw["scores"][0]["value"] = 50.0  # percent
    (tmp_path / "empty" / "x.json").write_text(json.dumps(raw))
    assert "score 'top1' is 50.0, no fraction" in refused(push, tmp_path / "empty", repo)
    write_result(tmp_path / "empty" / "y.json", make_result())
    assert [path.name for path, _ in push(tmp_path / "empty", repo).skipped] == ["x.json"]
    assert hub.repos["dataset", repo].head.files.keys() >= {shelf_path(make_result())}


# --------------------------------------------------------------------------- what merge refuses


def propose(hub: LoopbackHub, repo: str, files: dict[str, bytes | str | None]) -> None:
    """A pull request by other means than a push."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for path, data in files.items():
        data = data.encode() if isinstance(data, str) else data
        operations.append(
            CommitOperationDelete(path) if data is None else CommitOperationAdd(path, data)
        )
    huggingface_hub.HfApi(token=BOB).create_commit(
        repo, operations, repo_type="dataset", commit_message="change", create_pr=True
    )


GOOD = make_result(task="good")
RAW = GOOD.model_dump(mode="json")
OTHER_MODEL = make_result(model="random:resnet50", task="good")


PLACE = RAW | {"task": RAW["task"] | {"source": "/etc/good"}}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({shelf_path(GOOD): json.dumps(PLACE)}, "names a folder of its author's machine"),
        ({shelf_path(GOOD): "{"}, "is not a result (no readable JSON"),
        ({shelf_path(GOOD): "[" * 10**6}, "is not a result (no readable JSON"),
        ({shelf_path(GOOD): json.dumps(RAW)[:-1] + ', "seed": 1}'}, "says 'seed' twice"),
        ({shelf_path(GOOD): json.dumps(RAW | {"seed": "0"})}, "is not a result (seed: "),
        ({shelf_path(GOOD): json.dumps(RAW | {"seed": False})}, "is not a result (seed: "),
        ({shelf_path(GOOD): json.dumps(RAW | {"seed": "x"})}, "is not a result (seed: "),
        ({shelf_path(GOOD): json.dumps(RAW | {"schema_version": 2})}, "schema_version is 2"),
        ({shelf_path(GOOD): json.dumps(RAW | {"scores": []})}, "it has no scores"),
        ({shelf_path(GOOD): json.dumps(RAW | {"seed": 10**30})}, "out of range"),
        ({shelf_path(GOOD): json.dumps(RAW | {"notes": ["\ud800"]})}, "out of range"),
        ({shelf_path(make_result(task="held")): None}, "deletes"),
        ({"README.md": "# mine"}, "changes 'README.md'"),
        ({TABLE: b"PAR1"}, f"changes '{TABLE}'"),
        ({"good.linear.json": json.dumps(RAW)}, "changes 'good.linear.json'"),
        ({"a/b/c/good.json": json.dumps(RAW)}, "only results"),
        ({".hidden/b/good.json": json.dumps(RAW)}, "only results"),
        ({"a/b/good.linear.json": json.dumps(RAW)}, "is not where its content belongs"),
        ({shelf_path(OTHER_MODEL): json.dumps(RAW)}, "is not where its content belongs"),
        ({shelf_path(GOOD): json.dumps(RAW), "x.py": "import os"}, "changes 'x.py'"),
    ],
)
def test_pull_requests_that_are_not_merged(
    files: dict[str, bytes | str | None], why: str, hub: LoopbackHub, repo: str, held: Result
) -> None:
    propose(hub, repo, files)
    before = at(hub, repo).head.sha
    text = refused(merge, repo, 1)
    assert f"pull request 1 of {repo!r}" in text
    assert why in text
    assert at(hub, repo).head.sha == before
    assert at(hub, repo).discussions[1].status == "open"


# --------------------------------------------------------------------------- whose weights


def of_model(spec: str, sha256: str, model: str = "", *, task: str) -> Result:
    """A sound result that says it is of these weights."""
    made = make_result(task=task)
    repo, _, sha = spec.partition("@")
    facts = {"spec": spec, "id": model or repo, "revision": sha, "weights_sha256": sha256}
    return made.model_copy(update={"model": made.model.model_copy(update=facts)})


@pytest.mark.parametrize("small", [False, True])
def test_the_models_weights_are_those_on_the_hub(
    small: bool, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    weights, file = b"weights", "model.safetensors"
    net = f"bob/{repo.rpartition('/')[2][:40].strip('-')}"
    sha, digest = hub.add_model(net, {file: weights}), hashlib.sha256(weights).hexdigest()
    if small:  # beside the text files, as a repository's .gitattributes may say
        hub.repos["model", net].commits[sha].files[file] = Blob.of(file, weights, lfs=False)
    empty = hub.add_model(net, {"model.safetensors": None, "config.json": "{}"})
    tries = [
        (of_model(f"hf-hub:{net}@{sha}", "f" * 64, task="a"),
         f"names weights of sha256 ffffffffffff where those of {net!r} at {sha[:7]} have "
         f"{digest[:12]}"),
        (of_model(f"hf-hub:{net}@{'a' * 40}", digest, task="b"),
         f"has no commit aaaaaaaaaaaa in {net!r}"),
        (of_model(f"hf-hub:bob/best@{'a' * 40}", digest, task="c"),
         "is of a model that has no repository 'bob/best' on the Hub, or a private one"),
        (of_model(f"hf-hub:{net}@{empty}", digest, task="d"), "has no model.safetensors at "),
    ]  # fmt: skip
    for number, (result, why) in enumerate(tries, 1):
        push(shelf(tmp_path / str(number), result), repo)
        assert why in refused(merge, repo, number)
        assert at(hub, repo).discussions[number].status == "open"
    assert results_on_main(hub, repo) == {shelf_path(held)}

    good = of_model(f"hf-hub:{net}@{sha}", digest, task="e")
    push(shelf(tmp_path / "5", good), repo)
    assert merge(repo, 5).added == (shelf_path(good),)


def test_timms_names_are_timms_weights(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    weights, name = b"weights", "resnet50.a1_in1k"
    digest = hashlib.sha256(weights).hexdigest()
    shas = {
        net: hub.add_model(net, {"model.safetensors": weights})
        for net in (f"timm/{name}", f"bob/{name}")
    }
    for number, model in enumerate((name, "resnet5O.a1_in1k", "test_vit"), 1):
        forged = of_model(
            f"hf-hub:bob/{name}@{shas[f'bob/{name}']}", digest, model, task=f"t{number}"
        )
        push(shelf(tmp_path / str(number), forged), repo)
        assert f"is called {model!r}, which " in refused(merge, repo, number)
    good = of_model(f"hf-hub:timm/{name}@{shas[f'timm/{name}']}", digest, name, task="e")
    push(shelf(tmp_path / "good", good), repo)
    assert merge(repo, 4).added == (shelf_path(good),)


def test_weights_in_several_files_are_those_on_the_hub(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    parts = {f"model-0000{i}-of-00002.safetensors": f"part {i}".encode() for i in (1, 2)}
    index = json.dumps({"weight_map": {"a": min(parts), "b": max(parts)}})
    net = f"bob/{repo.rpartition('/')[2][:40].strip('-')}"
    sha = hub.add_model(net, {**parts, "model.safetensors.index.json": index})
    listed = "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in sorted(parts.items()))
    spec = f"hf-hub:{net}@{sha}"
    push(shelf(tmp_path / "bad", of_model(spec, "f" * 64, task="a")), repo)
    assert "names weights of sha256 ffffffffffff" in refused(merge, repo, 1)
    good = of_model(spec, hashlib.sha256(listed.encode()).hexdigest(), task="b")
    push(shelf(tmp_path / "good", good), repo)
    assert merge(repo, 2).added == (shelf_path(good),)
    lost = hub.add_model(net, {max(parts): None})
    push(shelf(tmp_path / "lost", of_model(f"hf-hub:{net}@{lost}", "f" * 64, task="c")), repo)
    assert f"lacks {max(parts)!r}" in refused(merge, repo, 3)


def test_files_that_are_too_large_together_are_not_downloaded(
    hub: LoopbackHub, repo: str, held: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [make_result(task=f"t{number}") for number in range(20)]
    propose(hub, repo, {shelf_path(result): json_of(result) for result in many})
    monkeypatch.setattr("eval.sharing.review.MOST_TOGETHER", 10_000)
    hub.requests.clear()
    said = refused(merge, repo, 1)
    assert re.search(r"brings 1\d,\d{3} bytes of results, at most 10,000 are read at once", said)
    assert not any("/resolve/" in path for _, path in hub.requests)


@pytest.mark.slow
def test_the_list_of_processes_shows_no_token(
    hub: LoopbackHub, repo: str, real: Path, held: Result, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "eval", "push", str(real), repo]
    process = subprocess.Popen(
        argv, env=hub.env(tmp_path / "home", BOB), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    seen: set[str] = set()
    while process.poll() is None:
        for tree in [process.pid, *descendants(process.pid)]:
            with contextlib.suppress(OSError):
                seen.add(Path(f"/proc/{tree}/cmdline").read_text())
        time.sleep(0.01)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    assert (process.returncode, "4 results offered" in said) == (0, True), said
    assert any("push" in line for line in seen)
    assert not any(BOB in line for line in seen)
    assert BOB not in said


def descendants(pid: int) -> Iterator[int]:
    """Processes that a process began, and those that they began."""
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


def test_a_file_that_is_far_too_large_is_not_downloaded(
    hub: LoopbackHub, repo: str, held: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(hub, repo, {shelf_path(GOOD): json.dumps(RAW) + 40_000 * " "})
    monkeypatch.setattr("eval.sharing.read.MOST_BYTES", 40_000)
    hub.requests.clear()
    said = refused(merge, repo, 1)
    assert re.search(r"is not a result \(it has 4\d,\d{3} bytes, at most 40,000 are read\)", said)
    assert not any(shelf_path(GOOD) in path for _, path in hub.requests)


def test_zoo_models_are_those_that_ship(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    real = read_result(CARDS / REAL[0])
    forged = {
        "does not ship with this version": {"spec": "zoo:best", "id": "zoo:best"},
        "which is not the one shipped": {"revision": "a" * 40},
        "names weights of sha256 ffffffffffff": {"weights_sha256": "f" * 64},
    }
    for number, (why, facts) in enumerate(forged.items(), 1):
        model = real.model.model_copy(update=facts)
        push(shelf(tmp_path / str(number), real.model_copy(update={"model": model})), repo)
        assert why in refused(merge, repo, number)
    push(shelf(tmp_path / "real", real), repo)
    assert merge(repo, 4).added == (shelf_path(real),)


def test_a_pull_request_may_not_drop_or_change_scores(
    hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    both = shots({1: 0.25, 5: 0.5})
    push(shelf(tmp_path / "r", both), repo)
    propose(hub, repo, {shelf_path(both): json_of(shots({1: 0.25}))})
    assert "would drop scores" in refused(merge, repo, 1)
    propose(hub, repo, {shelf_path(both): json_of(shots({1: 0.25, 5: 0.75}))})
    assert "top1_5shot is 0.5 there and 0.75 here" in refused(merge, repo, 2)


def test_a_conflict(hub: LoopbackHub, repo: str, held: Result, tmp_path: Path) -> None:
    for number, scores in enumerate(({1: 0.25}, {5: 0.5})):
        push(shelf(tmp_path / str(number), shots(scores)), repo)
    merge(repo, 1)
    path = shelf_path(shots({1: 0.25}))
    assert f"conflicts with main in {path}" in refused(merge, repo, 2)
    # the way out that it names
    pushed = push(tmp_path / "1", repo)
    assert merge(repo, 3).added == pushed.added == (path,)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, shots({1: 0.25, 5: 0.5}))


def test_numbers_that_are_no_open_pull_request(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    api = huggingface_hub.HfApi(token=BOB)
    api.create_discussion(repo, "talk", repo_type="dataset")
    api.create_pull_request(repo, "draft", repo_type="dataset")
    push(shelf(tmp_path / "r", make_result()), repo)
    huggingface_hub.HfApi().change_discussion_status(repo, 3, "closed", repo_type="dataset")
    assert "is a discussion" in refused(merge, repo, 1)
    assert "is draft" in refused(merge, repo, 2)
    assert "is closed" in refused(merge, repo, 3)
    assert f"{repo!r} has no pull request 4" in refused(merge, repo, 4)
    assert "numbered from 1" in refused(merge, repo, 0)


LATE: dict[str, dict[str, bytes | str | None]] = {
    "deletes": {shelf_path(make_result(task="held")): None, "README.md": None},
    "overwrites": {
        shelf_path(make_result(task="held")): json_of(make_result(task="held", top1=1.0)),
        "README.md": "# mine",
    },
    "adds": {"x.py": "import os", TABLE: b"PAR1"},
}


@pytest.mark.parametrize("what", LATE)
@pytest.mark.parametrize("moment", ["/preupload/main", "/commit/main", "/discussions/1/status"])
def test_what_is_checked_is_what_is_merged(
    what: str, moment: str, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    """Its author pushes to it once more between the check and the merge."""
    push(shelf(tmp_path / "r", make_result()), repo)
    before = main(hub, repo)
    hub.on_next(moment, lambda: hub.add_repo("dataset", repo, LATE[what], ref="refs/pr/1"))
    done = merge(repo, 1)
    assert done.added == (shelf_path(make_result()),)
    after = main(hub, repo)
    assert after.keys() == before.keys() | {shelf_path(make_result())}
    assert all(after[path] == before[path] for path in before if path != TABLE)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result())
    thread = at(hub, repo).discussions[1]
    assert thread.status == "closed"
    said = [event["data"]["latest"]["raw"] for event in thread.events if event["type"] == "comment"]
    assert said[-1].startswith(f"Merged as {done.sha}: the files of ")
    assert done.late == (moment != "/discussions/1/status")
    assert ("push them again" in said[-1]) == done.late


def test_main_that_moves_under_a_merge_is_checked_again(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    push(shelf(tmp_path / "r", make_result()), repo)
    other = make_result(task="other")
    hub.on_next("/commit/main", lambda: hub.add_dataset(repo, {shelf_path(other): json_of(other)}))
    merge(repo, 1)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, other, make_result())

    push(shelf(tmp_path / "s", make_result(task="late", top1=0.75)), repo)
    same = make_result(task="late", top1=0.25)
    hub.on_next("/commit/main", lambda: hub.add_dataset(repo, {shelf_path(same): json_of(same)}))
    assert "is on main already and top1 is 0.25 there" in refused(merge, repo, 2)
    assert at(hub, repo).discussions[2].status == "open"


def test_a_merge_that_the_hub_refuses(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    push(shelf(tmp_path / "r", make_result()), repo)
    hub.fail_next(1, 403, "/commit/main")
    assert "the Hub forbids it" in refused(merge, repo, 1)
    assert results_on_main(hub, repo) == {shelf_path(held)}
    assert at(hub, repo).discussions[1].status == "open"


def test_a_merge_that_was_cut_off_is_completed(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    push(shelf(tmp_path / "r", make_result()), repo)
    hub.fail_next(9, 503, match="/discussions/1/status")
    assert "is merged as commit" in (text := refused(merge, repo, 1))
    assert "but not closed" in text
    hub.clear_faults()
    commits = len(at(hub, repo).commits)
    assert merge(repo, 1).added == ()
    assert len(at(hub, repo).commits) == commits
    assert at(hub, repo).discussions[1].status == "closed"
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result())
    assert "is merged already" in refused(merge, repo, 1)


def test_one_that_was_merged_on_the_hub_gets_its_table(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    push(shelf(tmp_path / "r", make_result()), repo)
    huggingface_hub.HfApi().merge_pull_request(repo, 1, repo_type="dataset")
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held)
    assert merge(repo, 1).table
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result())
    assert "is merged already" in refused(merge, repo, 1)


# --------------------------------------------------------------------------- at the same time


def test_a_direct_push_while_main_moves(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    other = make_result(task="other")
    files = {shelf_path(other): json_of(other)}
    hub.on_next("/commit/main", lambda: hub.add_dataset(repo, files))
    push(shelf(tmp_path / "r", make_result()), repo, direct=True)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, other, make_result())


def test_a_push_that_landed_unheard_before_main_moved(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    """Its answer was lost, and somebody else's table stood there when it was asked again."""
    moves = lambda: hub.add_dataset(repo, {TABLE: b"PAR1 of another"})  # noqa: E731
    hub.on_next("/commit/main", lambda: hub.on_next("/preupload/main", moves))
    hub.land_then_fail(1, 503, "/commit/main")
    pushed = push(shelf(tmp_path / "r", make_result()), repo, direct=True)
    assert (pushed.added, pushed.held) == ((shelf_path(make_result()),), 0)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result())


def test_a_main_that_never_rests(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def moved(*args: object) -> None:
        tries.append(args)
        raise Moved("0" * 40)

    monkeypatch.setattr("eval.sharing.push.commit", moved)
    text = refused(lambda: push(shelf(tmp_path / "r", make_result()), repo, direct=True))
    assert "changes all the time; try again later" in text
    assert len(tries) == 5


def test_direct_pushers_at_once_lose_nothing(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    results = [make_result(task=f"task{n}") for n in range(3)]
    folders = [shelf(tmp_path / r.task.name, r) for r in results]
    start, failures = threading.Barrier(3), []

    def work(folder: Path) -> None:
        start.wait()
        try:
            push(folder, repo, direct=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f,)) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert results_on_main(hub, repo) == {shelf_path(r) for r in (held, *results)}
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, *results)


# --------------------------------------------------------------------------- who may


def test_who_may_push_and_merge(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, login: Callable[[str | None], None]
) -> None:
    folder = shelf(tmp_path / "r", make_result())
    push(folder, repo)
    state = at(hub, repo).head.sha, list(at(hub, repo).discussions)
    login(BOB)
    for call in (lambda: push(folder, repo, direct=True), lambda: merge(repo, 1)):
        assert "namespace 'lab'" in refused(call)
    assert "is not open to 'bob'; it may write to bob" in refused(push, folder, f"{repo}-new")
    login(EVE)
    for call in (lambda: push(folder, repo), lambda: merge(repo, 1)):
        assert "the token of 'eve' may only read" in refused(call)
    login("hf_unknown")
    assert "does not accept the token" in refused(push, folder, repo)
    login(None)
    for call in (lambda: push(folder, repo), lambda: merge(repo, 1)):
        assert "no Hub token here" in refused(call)
    assert (at(hub, repo).head.sha, list(at(hub, repo).discussions)) == state


@pytest.mark.parametrize("name", ["results", "lab/a--b", "lab/-a", "lab/a.git", "a/b/c", "lab/é"])
def test_names_that_no_repository_can_have(name: str, hub: LoopbackHub, tmp_path: Path) -> None:
    folder = shelf(tmp_path / "r", make_result())
    calls = (lambda: push(folder, name), lambda: merge(name, 1), lambda: fetch(f"hub:{name}"))
    for call in calls:
        assert "is not a Hub repository" in refused(call)
    assert hub.requests == []


def test_private_results(
    hub: LoopbackHub, repo: str, tmp_path: Path, login: Callable[[str | None], None],
    fresh_cache: Callable[[str], None],
) -> None:  # fmt: skip
    folder = shelf(tmp_path / "r", make_result())
    sha = push(folder, repo, private=True).sha
    assert len(read_shelf(fetch(f"hub:{repo}")).results) == 1
    login(None)
    fresh_cache("other")
    for text in (f"hub:{repo}", f"hub:{repo}@{sha}"):
        assert f"the Hub has no dataset {repo!r}, or it is private" in refused(fetch, text)


def test_who_asks_for_privacy_does_not_publish(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    folder = shelf(tmp_path / "r", make_result())
    assert "is public already" in refused(lambda: push(folder, repo, private=True))
    assert results_on_main(hub, repo) == {shelf_path(held)}


# --------------------------------------------------------------------------- the Hub has a bad day

FAULTS: dict[str, Callable[[LoopbackHub, str], None]] = {
    "429": lambda hub, match: hub.fail_next(1, 429, match, {"Retry-After": "0"}),
    "503": lambda hub, match: hub.fail_next(2, 503, match),
    "dropped": lambda hub, match: hub.drop_next(1, match),
    "landed, then 503": lambda hub, match: hub.land_then_fail(1, 503, match),
    "landed, no answer": lambda hub, match: hub.land_then_fail(1, None, match),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_done_twice(
    fault: str, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    one, two = make_result(task="one"), make_result(task="two")
    commits = len(at(hub, repo).commits)

    FAULTS[fault](hub, "/commit/main")
    assert push(shelf(tmp_path / "one", one), repo, direct=True).added == (shelf_path(one),)
    assert len(at(hub, repo).commits) == commits + 1

    FAULTS[fault](hub, "create_pr=1")
    pushed = push(shelf(tmp_path / "two", two), repo)
    assert pushed.pull_request.endswith("/discussions/1")
    assert list(at(hub, repo).discussions) == [1]
    assert len(at(hub, repo).commits) == commits + 2

    FAULTS[fault](hub, "/discussions/1/status")
    FAULTS[fault](hub, "/commit/main")
    assert merge(repo, 1).added == (shelf_path(two),)
    assert len(at(hub, repo).commits) == commits + 3  # the files and the table are one commit
    closed = [e for e in at(hub, repo).discussions[1].events if e["type"] == "status-change"]
    assert len(closed) == 1
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, one, two)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "request_", ["whoami", "/tree/", "/discussions/1", "/resolve/", "/commits/"]
)
def test_reading_is_patient(
    fault: str, request_: str, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path,
    fresh_cache: Callable[[str], None],
) -> None:  # fmt: skip
    push(shelf(tmp_path / "r", make_result()), repo)
    fresh_cache("other")
    FAULTS[fault](hub, request_)
    merge(repo, 1)
    fresh_cache("third")
    if request_ in ("/tree/", "/resolve/"):
        FAULTS[fault](hub, request_)
    assert len(read_shelf(fetch(f"hub:{repo}")).results) == 2
    assert all(f.left == 0 for f in hub._server.faults)


def test_a_hub_that_stays_down(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, fresh_cache: Callable[[str], None]
) -> None:
    folder = shelf(tmp_path / "r", make_result())
    calls = {
        "push": lambda: push(folder, repo),
        "merge": lambda: merge(repo, 1),
        "fetch": lambda: fetch(f"hub:{repo}"),
    }
    fresh_cache("other")
    for name, call in calls.items():
        hub.fail_next(99, 503)
        assert "Hub" in refused(call), name
        hub.clear_faults()


def test_a_repository_that_was_renamed(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    hub.rename(repo, f"{repo}-new", "dataset")
    assert len(read_shelf(fetch(f"hub:{repo}")).results) == 1
    push(shelf(tmp_path / "one", make_result()), repo, direct=True)
    push(shelf(tmp_path / "two", make_result(task="two")), repo)
    merge(repo, 1)
    assert len(results_on_main(hub, f"{repo}-new")) == 3


# --------------------------------------------------------------------------- fetch


def test_fetch_of_a_revision_and_without_the_hub(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fresh_cache: Callable[[str], None],
) -> None:  # fmt: skip
    first = at(hub, repo).head.sha
    hub.tag(repo, "v1")
    push(shelf(tmp_path / "r", make_result()), repo, direct=True)
    fresh_cache("other")
    for revision, count in ((first, 1), ("v1", 1), ("main", 2)):
        assert len(read_shelf(fetch(f"hub:{repo}@{revision}")).results) == count
    hub.requests.clear()
    assert len(read_shelf(fetch(f"hub:{repo}@{first}")).results) == 1
    assert hub.requests == []  # a commit never changes
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(read_shelf(fetch(f"hub:{repo}@{first}")).results) == 1
    fresh_cache("third")
    assert "Hub cannot be reached" in refused(fetch, f"hub:{repo}@{first}")


def test_a_half_fetched_commit_is_fetched_again(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, fresh_cache: Callable[[str], None]
) -> None:
    sha = push(shelf(tmp_path / "r", make_result()), repo, direct=True).sha
    fresh_cache("other")
    (fetch(f"hub:{repo}@{sha}") / shelf_path(held)).unlink()
    assert len(read_shelf(fetch(f"hub:{repo}@{sha}")).results) == 2


def test_only_json_is_fetched(hub: LoopbackHub, repo: str, held: Result) -> None:
    hub.add_dataset(repo, {"weights.bin": b"\0" * 100})
    folder = fetch(f"hub:{repo}")
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert names == {Path(shelf_path(held)).name}


def test_one_broken_file_does_not_hide_the_others(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    broken = make_result(task="broken")
    hub.add_dataset(repo, {shelf_path(broken): "{", "a/b/other.json": "[]"})
    found = read_shelf(fetch(f"hub:{repo}"))
    assert [r for _, r in found.results] == [held]
    assert len(found.foreign) == 2
    # pushing others goes on; the broken one is only ever replaced on request
    push(shelf(tmp_path / "r", make_result()), repo, direct=True)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result())
    folder = shelf(tmp_path / "b", broken)
    assert "the one there is no result (no readable JSON" in refused(push, folder, repo)
    push(folder, repo, direct=True, replace=True)
    assert rows_on_main(hub, repo, tmp_path) == rows_of(held, make_result(), broken)
    assert "a/b/other.json" in main(hub, repo)


@pytest.mark.parametrize(
    "path", ["../../../evil.json", "a/../../../../evil.json", "a\\..\\evil.json", "C:/evil.json"]
)
def test_a_hostile_path_is_not_written(
    path: str, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    sha = hub.add_dataset(repo, {path: "{}"})
    for text in (f"hub:{repo}", f"hub:{repo}@{sha}"):
        assert "which leads out of it" in refused(fetch, text)
    folder = shelf(tmp_path / "r", make_result())
    assert "which leads out of it" in refused(lambda: push(folder, repo, direct=True))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "text", ["lab/x", "hub:", "hub:lab/x@", "hub:lab/x@../y", "hub:lab/x@a b", "hf-hub:lab/x"]
)
def test_other_forms_are_no_results(text: str, hub: LoopbackHub) -> None:
    assert refused(fetch, text) == f"results {text!r} are no hub:ORG/NAME or hub:ORG/NAME@REVISION"


def test_what_cannot_be_fetched(
    hub: LoopbackHub, repo: str, login: Callable[[str | None], None]
) -> None:
    assert "the Hub has no dataset" in refused(fetch, f"hub:{repo}")
    sha = hub.add_dataset(repo, {"README.md": "x"})
    for text in (f"hub:{repo}", f"hub:{repo}@{sha}"):
        assert f"{repo!r} holds no results" in refused(fetch, text)
    for revision in ("v9", "f" * 40):
        assert f"has no revision {revision!r}" in refused(fetch, f"hub:{repo}@{revision}")
    hub.add_dataset(repo, {shelf_path(GOOD): json_of(GOOD)}, gated=True)
    assert "is gated; accept its terms" in refused(fetch, f"hub:{repo}")
    sha = at(hub, repo).head.sha
    assert "is gated; accept its terms" in refused(fetch, f"hub:{repo}@{sha}")


# --------------------------------------------------------------------------- what does not travel


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("/home/ada/data/dtd", "local:dtd"),
        ("~/data/dtd/", "local:dtd"),
        (r"C:\Users\ada\dtd", "local:dtd"),
        ("parquet:/home/ada/dtd?image=image&label=label", "local:dtd"),
        ("imagefolder:/home/ada/my photos", "local:my photos"),
        ("hub:org/name?config=a/b", "hub:org/name?config=a/b"),
        ("mini v2", "mini v2"),
    ],
)
def test_folders_do_not_travel(
    source: str, sent: str, hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    result = make_result(model="local-dir:net", revision="ab" * 20)
    task = result.task.model_copy(update={"source": source})
    model = result.model.model_copy(update={"spec": "local-dir:/home/ada/net"})
    push(shelf(tmp_path / "r", result.model_copy(update={"task": task, "model": model})), repo)
    (there,) = (r for _, r in read_shelf(fetch(f"hub:{repo}")).results)
    assert (there.task.source, there.model.spec) == (sent, "local-dir:net")
    # and nothing else was dropped
    assert there.model_copy(update={"task": task}) == result.model_copy(update={"task": task})


def test_no_folder_of_this_machine_is_committed(
    hub: LoopbackHub, repo: str, real: Path, held: Result
) -> None:
    push(real, repo)
    for commit in at(hub, repo).commits.values():
        for blob in commit.files.values():
            assert b"/work/" not in blob.read()


@pytest.mark.parametrize("token", [ADA, "hf_" + "a" * 34])
def test_a_result_with_a_token_is_not_pushed(
    token: str, hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    folder = shelf(tmp_path / "r", make_result(notes=[f"downloaded with {token}"]))
    for direct in (True, False):
        text = refused(lambda d=direct: push(folder, repo, direct=d))
        assert "holds a Hub token" in text
        assert token not in text


# --------------------------------------------------------------------------- the table


def test_the_table_says_what_the_results_say() -> None:
    results = [(shelf_path(r), r) for r in map(read_result, COMMITTED)]
    assert len(results) > 100
    rows = table(results).to_pylist()
    assert len(rows) == sum(len(r.scores) for _, r in results)
    by_path = dict(results)
    assert [r["path"] for r in rows] == sorted(r["path"] for r in rows)
    for row in rows:
        result = by_path[row["path"]]
        score = result.score(row["score"])
        assert score is not None
        columns = ("value", "ci_low", "ci_high", "kind", "n")
        assert score.model_dump(exclude={"these"}) == {
            "name": row["score"], **{k: row[k] for k in columns}
        }  # fmt: skip
        model, task = result.model, result.task
        assert row["model"] == model.id
        assert row["revision"] == model.revision
        assert row["weights_sha256"] == model.weights_sha256
        assert row["params"] == model.params
        assert (row["task"], row["split_hash"]) == (task.name, task.split_hash)
        assert row["subset"] is task.subset
        assert row["protocol"] == result.protocol.name
        assert row["setting"] == setting_label(result)
        assert (row["seed"], row["created"]) == (result.seed, result.created)
    assert {r["objective"] for r in rows} == {
        "ce", "ce-strong", "supcon", "selfsupcon", "ce+selfsupcon", "supcon+selfsupcon",
    }  # fmt: skip


def test_the_same_results_make_the_same_bytes() -> None:
    results = [(shelf_path(r), r) for r in map(read_result, COMMITTED[:20])]
    first = table_bytes(results)
    random.Random(0).shuffle(results)
    assert table_bytes(results) == first
    assert table_bytes(results[1:]) != first


@pytest.mark.parametrize(
    ("model", "facts", "objective"),
    [
        ("hf-hub:alice/my-ssl", {"objective": "ce+selfsupcon"}, "ce+selfsupcon"),
        ("hf-hub:evil/resnet18_narrow.supcon_tin100", {}, ""),  # a name declares nothing
        ("zoo:resnet18_narrow.supcon_tin100", {}, ""),
        ("random:resnet18", {"objective": "untrained"}, "untrained"),
    ],
)
def test_objectives_are_the_declared_ones(
    model: str, facts: dict[str, str], objective: str
) -> None:
    (row,) = table([("x.json", make_result(model, facts=facts))]).to_pylist()
    assert row["objective"] == objective


# --------------------------------------------------------------------------- what counts as new

SCORES = st.dictionaries(st.integers(1, 6), st.sampled_from([0.25, 0.5]), min_size=1)


@given(SCORES, SCORES)
def test_offers_never_lose_a_score(there: dict[int, float], here: dict[int, float]) -> None:
    old, new = shots(there), shots(here)
    path = shelf_path(old)
    local = [(Path("x.json"), new)]
    if any(there[k] != here[k] for k in there.keys() & here.keys()):
        assert difference(old, new)
        assert "--replace" in refused(lambda: changes_to_publish(local, {path: old}, "lab/x"))
        (offer,) = changes_to_publish(local, {path: old}, "lab/x", replace=True)
        assert (offer.kind, offer.result) == ("replaced", new)
        return
    found = changes_to_publish(local, {path: old}, "lab/x")
    if here.keys() <= there.keys():
        assert found == ()
        return
    (offer,) = found
    assert (offer.path, offer.kind) == (path, "more")
    for result in (old, new):
        assert covers(offer.result, result)
        assert not difference(offer.result, result)
        assert changes_to_publish([(Path("x"), result)], {path: offer.result}, "lab/x") == ()
    assert {s.name for s in offer.result.scores} == {f"top1_{k}shot" for k in {*there, *here}}
    assert offer.result.protocol.config["shots"] == sorted({*there, *here})
    assert offer.result == combine(new, old)


def test_data_sets_of_one_name_find_their_places_in_any_order() -> None:
    results = [make_result(split=s, top1=t) for s, t in (("a", 0.5), ("b", 0.25))]
    local = [(Path(f"{n}.json"), r) for n, r in enumerate(results)]
    paths = (shelf_path(results[0]), shelf_path(results[1], by_hash=True))
    for order in (local, local[::-1]):
        found = changes_to_publish(order, {}, "lab/x")
        assert {o.path: o.result for o in found} == dict(zip(paths, results, strict=True))
    # one that lies by its hash stays there
    assert changes_to_publish(local[1:], {paths[1]: results[1]}, "lab/x") == ()


@pytest.mark.parametrize(
    ("where", "change", "what"),
    [
        ("model", {"id": "random:resnet50"}, "model.id: 'random:resnet18' there"),
        ("model", {"weights_sha256": "cd" * 32}, "model.weights_sha256: "),
        ("task", {"name": "other"}, "task.name: 'photos' there, 'other' here"),
        ("task", {"split_hash": "other"}, "task.split_hash: "),
        ("protocol", {"config": {"c": 2.0}}, "the settings: "),
        ("scores", {"value": 0.75}, "top1 is 0.5 there and 0.75 here"),
        ("scores", {"ci_low": 0.1}, "top1 (ci_low) is 0.4 there and 0.1 here"),
        ("scores", {"ci_high": 0.9}, "top1 (ci_high) is "),
        ("scores", {"n": 41}, "top1 (n) is 40 there and 41 here"),
        ("samples", {"correct": "AAAAAAA="}, "the samples of top1 are others"),
    ],
)
def test_differences(where: str, change: dict[str, Any], what: str) -> None:
    there = make_result()
    raw = there.model_dump(mode="json")
    part = raw[where]
    changed = {"scores": 0, "samples": "top1"}.get(where)
    (part if changed is None else part[changed]).update(change)
    assert difference(there, Result.model_validate(raw)).startswith(what)
    assert difference(there, there) == ""


def test_samples_count_as_more() -> None:
    full = make_result()
    bare = full.model_copy(update={"samples": {}})
    assert covers(full, bare)
    assert not covers(bare, full)
    path = shelf_path(full)
    (offer,) = changes_to_publish([(Path("x"), full)], {path: bare}, "lab/x")
    assert offer.kind == "more"
    assert changes_to_publish([(Path("x"), bare)], {path: full}, "lab/x") == ()


def test_local_files_that_each_know_more_are_refused() -> None:
    local = [(Path("a.json"), shots({1: 0.25})), (Path("b.json"), shots({5: 0.25}))]
    text = refused(lambda: changes_to_publish(local, {}, "lab/x"))
    assert text.startswith("a.json and b.json are both ")
    assert "one has scores that the other lacks" in text


def test_every_committed_result_can_be_published() -> None:
    for file in COMMITTED:
        result = read_result(file)
        assert flaw(result) == ""
        assert not difference(result, portable(result))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": float("nan")}, "no fraction"),
        ({"value": 1.5}, "no fraction"),
        ({"value": -0.1}, "no fraction"),
        ({"ci_high": float("inf")}, "not finite"),
        ({"n": 2**63}, "n = 9223372036854775808 and 40 samples"),
    ],
)
def test_flaws(change: dict[str, Any], why: str) -> None:
    result = make_result()
    score = result.scores[0].model_copy(update=change)
    assert why in flaw(result.model_copy(update={"scores": [score]}))
    assert "two scores of one name" in flaw(result.model_copy(update={"scores": [score] * 2}))


# --------------------------------------------------------------------------- who computed it


def signed_shelf(folder: Path, *results: Result) -> Path:
    """Results with a sign-off beside each."""
    for result in results:
        write_result(folder / shelf_path(result), result)
        write_sign_off(folder, signed(result, shelf_path(result), "equal", "ada"))
    return folder


def test_a_pull_request_brings_no_sign_offs_of_its_own(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path, login: Callable[[str | None], None]
) -> None:
    own = make_result(task="own")
    folder = signed_shelf(tmp_path / "own", own)
    login(BOB)
    pushed = push(folder, repo)
    assert not any(path.startswith(".") for path in at(hub, repo).at("refs/pr/1").files
                   if path not in main(hub, repo))  # fmt: skip
    assert pushed.added == (shelf_path(own),)
    for number, result in enumerate((held, own), 2):  # for what is on main already, too
        off = as_sign_off(signed(result, shelf_path(result), "equal", "ada"))
        propose(hub, repo, {shelf_path(own): json_of(own), file_of(shelf_path(result)): off})
        login(ADA)
        assert f"of 'bob' brings the sign-off '.verified/{shelf_path(result)}'" in refused(
            merge, repo, number
        )
        login(BOB)
    login(ADA)
    assert merge(repo, 1).added == (shelf_path(own),)
    folder = fetch(f"hub:{repo}")
    assert sign_offs(folder) == {}
    table = tables([r for _, r in read_shelf(folder).results], marks_at(f"hub:{repo}", folder))[0]
    assert {table.mark(row) for row in range(len(table.models))} == {"self-reported"}


def test_sign_offs_travel_with_a_direct_push(
    hub: LoopbackHub, repo: str, held: Result, tmp_path: Path
) -> None:
    new = make_result(task="new")
    folder = signed_shelf(tmp_path / "mine", held, new)
    # one of a content that nobody has does not
    stale = make_result(task="new", top1=0.75)
    write_sign_off(folder, signed(stale, "a/b/c.json", "equal", "ada"))
    assert push(folder, repo, direct=True).added == (shelf_path(new),)
    assert sign_offs(fetch(f"hub:{repo}")).keys() == {content_of(held), content_of(new)}
    commits = len(at(hub, repo).commits)
    push(folder, repo, direct=True)
    assert len(at(hub, repo).commits) == commits
    # a file that says more is self-reported until somebody computes it again
    both = shots({1: 0.25, 5: 0.5})
    push(signed_shelf(tmp_path / "few", shots({1: 0.25})), repo, direct=True)
    push(shelf(tmp_path / "more", both), repo)
    merge(repo, 1)
    assert content_of(both) not in sign_offs(fetch(f"hub:{repo}"))
    push(signed_shelf(tmp_path / "again", both), repo, direct=True)
    assert content_of(both) in sign_offs(fetch(f"hub:{repo}"))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(cache, results) of a real run on two tasks of the embedded suite."""
    request = run_two_tasks(tmp_path_factory.mktemp("computed"))
    return request.cache, request.results


def nobody(spec: str) -> None:
    """No model of the Hub is asked for."""
    raise AssertionError(spec)


def invented(result: Result) -> Result:
    """A result that is consistent with itself: better answers, and all that follows from them."""
    correct = np.arange(result.samples["top1"].n) % 20 > 0
    out = Outcome()
    out.add_top1(correct, [float(correct.mean())] * 10)
    samples = {name: s.model_dump(mode="json") for name, s in out.samples.items()}
    raw = result.model_dump(mode="json")
    return Result.model_validate(
        raw | {"scores": [s.model_dump() for s in out.scores], "samples": samples}
    )


@pytest.mark.slow
def test_what_is_computed_again_is_merged(
    hub: LoopbackHub, repo: str, held: Result, computed: tuple[Path, Path]
) -> None:
    cache, results = computed
    (_, first), _ = read_shelf(results).results
    assert flaw(first) == ""
    push(results, repo)
    done = merge(repo, 1, sampler(1, cache, None, nobody))
    assert done.sample is not None
    assert len(done.sample.verified) == 1
    assert len(done.added) == 2


@pytest.mark.slow
def test_inventions_are_caught_by_computing_them_again(
    hub: LoopbackHub, repo: str, held: Result, computed: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, results = computed
    forged = [invented(result) for _, result in read_shelf(results).results]
    assert [flaw(result) for result in forged] == ["", ""]
    push(shelf(tmp_path / "forged", *forged), repo)
    before = at(hub, repo).head.sha
    text = refused(merge, repo, 1, sampler(1, cache, None, nobody))
    assert f"pull request 1 of {repo!r} is not merged: random--test_resnet/seed0/" in text
    assert "differs (top1: 0." in text
    assert at(hub, repo).head.sha == before
    assert at(hub, repo).discussions[1].status == "open"
    # nobody looked: it is merged, and is what its author says
    merge(repo, 1)
    folder = fetch(f"hub:{repo}")
    (best, *_) = tables([r for _, r in read_shelf(folder).results], marks_at(f"hub:{repo}", folder))
    assert {best.mark(row) for row in range(len(best.models))} == {"self-reported"}


@pytest.mark.slow
def test_a_strangers_model_is_asked_before_it_is_built(
    hub: LoopbackHub, repo: str, held: Result, computed: tuple[Path, Path], tmp_path: Path
) -> None:
    """By the rules of the queue where it is the Hub's; none is downloaded, none fills memory."""
    cache, results = computed
    (_, honest), _ = read_shelf(results).results
    config = {"architecture": "test_resnet", "model_args": {"checkpoint_path": "/etc/passwd"}}
    net = f"bob/{repo.rpartition('/')[2][:40].strip('-')}"
    sha = hub.add_model(net, {"config.json": json.dumps(config), "model.safetensors": b"weights"})
    spec, digest = f"hf-hub:{net}@{sha}", hashlib.sha256(b"weights").hexdigest()
    huge = "random:vit_giant_patch14_224"
    tries: list[tuple[dict[str, Any], str]] = [
        ({"spec": spec, "id": f"hf-hub:{net}", "revision": sha, "weights_sha256": digest},
         "sets 'checkpoint_path' in 'model_args'"),
        ({"spec": huge, "id": huge}, "random:vit_giant_patch14_224 has 1,"),
        ({"img_size": 100_000}, "its images are of 100,000 px, at most 1,024 are encoded"),
    ]  # fmt: skip
    for number, (facts, why) in enumerate(tries, 1):
        model = honest.model.model_copy(update=facts)
        push(shelf(tmp_path / str(number), honest.model_copy(update={"model": model})), repo)
        hub.requests.clear()
        judge = sampler(1, cache, None, lambda spec: check(spec, cache))
        assert why in refused(merge, repo, number, judge)
        assert not any("resolve" in p and "safetensors" in p for _, p in hub.requests)


@pytest.mark.slow
def test_what_cannot_be_computed_again_is_counted(
    hub: LoopbackHub, repo: str, held: Result, computed: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, results = computed
    elsewhere = [make_result(task=t) for t in ("photos", "trees")]
    elsewhere = [
        r.model_copy(update={"task": r.task.model_copy(update={"source": "local:photos"})})
        for r in elsewhere
    ]
    push(shelf(tmp_path / "away", *elsewhere), repo)
    text = refused(merge, repo, 1, sampler(5, cache, None, nobody))
    assert "none of its results was computed again (2 results could not be, the first " in text
    assert "its data ('local:photos') are its author's own" in text
    real = [result for _, result in read_shelf(results).results]
    push(shelf(tmp_path / "both", *elsewhere, *real), repo)
    done = merge(repo, 2, sampler(5, cache, None, nobody))
    assert done.sample is not None
    assert (len(done.sample.verified), len(done.sample.absent), len(done.added)) == (2, 2, 4)
