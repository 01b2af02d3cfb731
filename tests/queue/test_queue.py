"""Submissions: what may be queued, and the queue, in a directory and on the loopback Hub."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.common.errors import UserError
from eval.queue import request as requests
from eval.queue.candidate import Candidate, check, clean
from eval.queue.open import open_queue
from eval.queue.request import STATES, LeaseLost, Queue, Ticket
from eval.queue.request_file import request_id
from tests.factories import let_write, refusal
from tests.hub import LoopbackHub

Files = dict[str, Any]
ADA, BOB, EVE = "hf_ada_keeps_it", "hf_bob_asks_for", "hf_eve_only_reads"
START = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    """The queues' time."""

    def __init__(self) -> None:
        self.time = START

    def on(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(requests, "now", lambda: clock.time)
    return clock


def model(number: int = 0, **changed: Any) -> Candidate:
    sha = hashlib.sha1(str(number).encode()).hexdigest()
    fields = {
        "spec": f"hf-hub:org/net{number}@{sha}", "repo": f"org/net{number}", "sha": sha,
        "architecture": "test_resnet", "params": 7, "bytes": 28, "licence": "mit", "px": 32,
        "gated": False,
    }  # fmt: skip
    return Candidate(**(fields | changed))


@pytest.fixture
def org(request: pytest.FixtureRequest) -> str:
    return "org" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]


@pytest.fixture
def people(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoopbackHub:
    """A Hub where ada keeps the repositories of lab, bob may ask and eve may read."""
    people = {ADA: "ada", BOB: "bob", EVE: "eve"}
    let_write(hub, monkeypatch, people, tokens={*hub.tokens, *people}, read_only={EVE})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return hub


@pytest.fixture(params=["directory", "hub"])
def queue(
    request: pytest.FixtureRequest, tmp_path: Path, org: str, clock: Clock
) -> Iterator[Queue]:
    """Either kind: they keep the same promises."""
    if request.param == "directory":
        yield open_queue(str(tmp_path / "queue"))
        return
    hub = request.getfixturevalue("people")
    hub.orgs["ada"] = {"lab", org}
    hub.add_dataset(f"{org}/queue", {"README.md": "# queue"})
    yield open_queue(f"hub:{org}/queue")
    for commit in hub.repos["dataset", f"{org}/queue"].commits.values():
        texts = [commit.title.encode(), *(blob.read() for blob in commit.files.values())]
        assert not any(token.encode() in text for token in (ADA, BOB, EVE) for text in texts)


def states(queue: Queue) -> dict[str, str]:
    return {t.ask.spec.split("@")[0].removeprefix("hf-hub:org/"): t.state for t in queue.tickets()}


# --------------------------------------------------------------------------- what may be queued


@pytest.fixture
def files(model_dir: Path) -> Files:
    return {p.name: p.read_bytes() for p in model_dir.iterdir()}


def config_with(files: Files, **changed: Any) -> Files:
    config = json.loads(files["config.json"])
    for key, value in changed.items():
        part = config["pretrained_cfg"] if key in ("input_size",) else config
        part[key] = value
    return files | {"config.json": json.dumps(config)}


@pytest.mark.parametrize(
    "form",
    ["{}", "  {}\n", "hf-hub:{}", "{}@main", "hf-hub:{}@v1", "{}@SHA", "https://huggingface.co/{}",
     "https://huggingface.co/{}/", "https://huggingface.co/{}/tree/v1",
     "https://huggingface.co/{}/tree/main/"],
)  # fmt: skip
def test_a_model_that_may_be_queued(
    form: str, hub: LoopbackHub, org: str, files: Files, cache: Path
) -> None:
    sha = hub.add_model(f"{org}/net", files | {"README.md": "---\nlicense: mit\n---\n"})
    hub.tag(f"{org}/net", "v1")
    hub.requests.clear()
    found = check(form.format(f"{org}/net").replace("SHA", sha), cache)
    assert found.spec == f"hf-hub:{org}/net@{sha}"
    assert (found.repo, found.sha, found.architecture) == (f"{org}/net", sha, "test_resnet")
    assert (found.licence, found.px, found.gated) == ("mit", 32, False)
    assert found.bytes == len(files["model.safetensors"])
    assert found.params is not None
    assert 100_000 < found.params < found.bytes
    assert not [path for _, path in hub.requests if "safetensors" in path]  # not a byte of them


@pytest.mark.parametrize(
    "text",
    ["", " ", "net", "/etc/passwd", "./org/net", "~/net", "../org/net", "C:\\net", "a/b/c",
     "local-dir:org/net", "zoo:org/net", "random:resnet18", "zoo:all", "hub:org/net", "org/net@",
     "org/net@../x", "org/net@a..b", "org/net@a b", "org/n\x00et", "org/n\u202eet", "örg/net",
     "org/net;rm", "org/<b>", "org/net\nother/net", "datasets/org", "spaces/x",
     "https://huggingface.co/datasets/org/net", "https://huggingface.co/org/net/blob/main/x",
     "https://evil.example/org/net", "https://huggingface.co.evil.example/org/net",
     "https://huggingface.co/org/net?x=1", "https://huggingface.co/org", "org--x/net", "a/b.git",
     "x" * 90 + "/" + "y" * 90, "org/net@" + "r" * 300],
)  # fmt: skip
def test_texts_that_name_no_model(text: str, hub: LoopbackHub, cache: Path) -> None:
    said = refusal(check, text, cache)
    assert len(said) < 500
    assert said.isprintable()
    assert not hub.requests


def test_models_that_may_not_be_queued(
    hub: LoopbackHub, org: str, files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(name: str, content: Files, **options: Any) -> str:
        hub.add_model(f"{org}/{name}", content, **options)
        hub.requests.clear()
        text = refusal(lambda: check(f"{org}/{name}", cache))
        assert len(text) <= 400
        assert text.isprintable()
        assert not [p for method, p in hub.requests if "resolve" in p and "config" not in p]
        return text

    assert "has no model" in refusal(check, f"{org}/none", cache)
    weights = files["model.safetensors"]
    pickled = {"config.json": files["config.json"], "pytorch_model.bin": weights}
    assert "only pickled weights (pytorch_model.bin)" in said("pickle", pickled)
    assert "no config.json" in said("bare", {"model.safetensors": weights})
    assert "is not valid JSON" in said("torn", files | {"config.json": b"{"})
    assert "larger than 1,000,000" in said("long", files | {"config.json": b" " * 1_000_001})
    bert = files | {"config.json": json.dumps({"model_type": "bert\x1b[2J\u202e" + "x" * 5000})}
    assert "is of model_type" in said("bert", bert)
    assert "knows no architecture 'nonet'" in said("arch", config_with(files, architecture="nonet"))
    odd = config_with(files, model_args={"embed_dim": 8})
    assert "timm cannot build 'test_resnet'" in said("args", odd)
    four = config_with(files, input_size=[4, 32, 32], model_args={"in_chans": 4})
    assert "takes 4 channels; networks for RGB (3) or grey images (1)" in said("four", four)
    wide = config_with(files, input_size=[3, 32, 30_000])
    assert "asks for images of 32x30000 px and 3 channels" in said("wide", wide)
    many = config_with(files, num_classes=10**9)
    assert "has num_classes 1000000000; it must be" in said("many", many)
    large = config_with(files, model_args={"channels": [16_000] * 4})
    assert "describes a network of " in said("large", large)
    for name, args in {"d": {"layers": [9999, 1]}, "w": {"width": 10**9}, "n": [0] * 300}.items():
        assert "'model_args'" in said(f"args{name}", config_with(files, model_args=args))
    assert "is gated; accept its terms" in said("gate", files, gated=True)
    hub.tokens.add(ADA)
    monkeypatch.setenv("HF_TOKEN", ADA)
    assert "or it is private; only public models" in said("hidden", files, private=True)
    hub.grant(ADA, f"{org}/gate")
    assert check(f"{org}/gate", cache).gated
    hub.add_model(f"{org}/good", files)
    assert "has no revision 'v9'" in refusal(check, f"{org}/good@v9", cache)
    size = len(weights)
    assert check(f"{org}/good", cache).bytes == size
    large = refusal(lambda: check(f"{org}/good", cache, max_bytes=size - 1))
    assert "is too large: model.safetensors has 0.00 GB" in large
    assert check(f"{org}/good", cache, max_bytes=size).bytes == size
    with monkeypatch.context() as patch:  # the loopback Hub cannot read such a file itself
        patch.setattr("eval.queue.candidate.resolve", Mock(side_effect=RecursionError))
        assert "nested too deeply" in refusal(check, f"{org}/good", cache)
    hub.fail_next(50, 503, f"/{org}/good")
    assert "cannot be reached" in refusal(check, f"{org}/good", cache)


def test_what_a_card_says_is_shown_short_and_clean(
    hub: LoopbackHub, org: str, files: Files, cache: Path
) -> None:
    def licence(card: str) -> str:
        hub.add_model(f"{org}/net", files | {"README.md": f"---\n{card}\n---\n"})
        return check(f"{org}/net", cache).licence

    assert licence("tags: [x]") == ""
    assert licence("license: [mit, apache-2.0]") == "mit, apache-2.0"
    assert licence("license: other\nlicense_name: mine") == "mine"
    assert licence("license: {a: b}") == ""
    assert licence('license: "a\\u202e\\e[31m\\nb<script>"') == "a [31m b<script>"
    assert len(licence(f"license: {'x' * 9999}")) == 80
    assert clean("\x00a\u2028b\u200b", 9) == "a b"


def test_a_renamed_model_is_one_request(
    hub: LoopbackHub, org: str, files: Files, cache: Path
) -> None:
    sha = hub.add_model(f"{org}/old", files)
    hub.rename(f"{org}/old", f"{org}/new")
    assert check(f"{org}/old@{sha}", cache).spec == f"hf-hub:{org}/new@{sha}"


# --------------------------------------------------------------------------- both queues


def test_the_life_of_a_request(queue: Queue, clock: Clock) -> None:
    assert queue.tickets() == []
    assert queue.take("w") is None
    first = queue.add(model(1), "ada")
    assert (first.state, first.note, first.ask.user) == ("pending", "", "ada")
    assert first.ask.asked == first.since == START.isoformat()
    assert (first.ask.licence, first.ask.params) == ("mit", 7)
    clock.on(5)
    queue.add(model(2), "bob")
    assert queue.add(model(1), "bob") == first  # the same one
    clock.on(5)
    taken = queue.take("worker 7")
    assert taken is not None
    assert (taken.ask, taken.state, taken.note) == (first.ask, "running", "worker 7")
    assert taken.since == clock.time.isoformat()
    assert queue.add(model(1), "bob").state == "running"
    assert states(queue) == {"net1": "running", "net2": "pending"}
    queue.renew_lease(taken)
    done = queue.finish(taken, "done", "12 results")
    assert queue.tickets()[0] == done
    assert (done.state, done.note) == ("done", "12 results")
    assert queue.add(model(1), "bob").state == "done"
    second = queue.take("worker 7")
    assert second is not None
    failed = queue.finish(second, "failed", "it\ndoes\x1b not load" + "!" * 999)
    assert failed.note.startswith("it does not load!!!")
    assert len(failed.note) == 400
    assert queue.take("w") is None
    again = queue.add(model(2), "bob")
    assert (again.state, again.note) == ("pending", "")
    assert states(queue) == {"net1": "done", "net2": "pending"}
    other = model(1, spec=f"hf-hub:org/net1@{'f' * 40}", sha="f" * 40)
    assert queue.add(other, "ada").ask.id != first.ask.id  # another commit is another request


def test_put_back_and_lost(queue: Queue, clock: Clock) -> None:
    queue.add(model(1), "ada")
    one = queue.take("one")
    assert one is not None
    back = queue.finish(one, "pending", "")
    assert back.state == "pending"
    with pytest.raises(LeaseLost, match="no longer this worker's"):
        queue.finish(one, "done", "")
    one = queue.take("same name")
    assert one is not None
    clock.on(requests.LEASE - 1)
    assert queue.take("two") is None
    clock.on(2)
    two = queue.take("same name")
    assert two is not None
    assert two.ask == one.ask
    with pytest.raises(LeaseLost):
        queue.finish(one, "done", "1 result")
    with pytest.raises(LeaseLost):
        queue.finish(one, "pending", "")
    with pytest.raises(ValueError, match="does not end as running"):
        queue.finish(two, "running", "")
    assert states(queue) == {"net1": "running"}
    assert queue.finish(two, "done", "1 result").state == "done"
    with pytest.raises(LeaseLost):
        queue.finish(two, "failed", "")


def test_beats_keep_a_request(queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.queue.hub.BEAT", 0.0)
    queue.add(model(1), "ada")
    one = queue.take("one")
    assert one is not None
    for _ in range(3):
        clock.on(requests.LEASE * 0.9)
        queue.renew_lease(one)
        assert queue.take("two") is None
    assert queue.tickets()[0].since == one.since  # of the state, not of the beat
    clock.on(requests.LEASE + 1)
    assert queue.take("two") is not None
    with pytest.raises(LeaseLost):
        queue.renew_lease(one)


def test_a_model_that_kills_its_workers(queue: Queue, clock: Clock) -> None:
    queue.add(model(1), "ada")
    for _ in range(requests.MOST_DEATHS):
        assert queue.take("victim") is not None
        clock.on(requests.LEASE + 1)
    assert queue.take("victim") is None
    (ticket,) = queue.tickets()
    assert ticket.state == "failed"
    assert "its worker died 5 times" in ticket.note
    assert queue.add(model(1), "ada").state == "pending"
    assert queue.take("brave") is not None


def test_a_user_may_ask_so_often_a_day(queue: Queue, clock: Clock) -> None:
    for number in range(5):
        queue.add(model(number), "Ada")
        clock.on(60)
    said = refusal(queue.add, model(9), "ada")
    assert "5 models in 24 hours and may for 5; come back after 2026-01-03 12:00:00 UTC" in said
    assert queue.add(model(3), "ada").state == "pending"  # there already: no new one
    assert queue.add(model(9), "bob").state == "pending"
    clock.time = START + timedelta(hours=24)
    queue.add(model(10), "ada")
    assert "come back after 2026-01-03 12:01:00" in refusal(queue.add, model(11), "ada")
    assert "log in first" in refusal(queue.add, model(12), " \u200b")


def test_asking_anew_for_what_failed_counts(queue: Queue, clock: Clock) -> None:
    for _ in range(5):
        queue.add(model(1), "ada")
        taken = queue.take("w")
        assert taken is not None
        queue.finish(taken, "failed", "no")
    assert "come back after" in refusal(queue.add, model(1), "ada")
    queue.add(model(1), "bob")
    assert "come back after" in refusal(queue.add, model(2), "ada")
    clock.on(24 * 3600)
    queue.add(model(2), "ada")


def test_a_full_queue(queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_PENDING", 3)
    for number in range(3):
        queue.add(model(number), f"user{number}")
    assert "3 requests are waiting, as many" in refusal(queue.add, model(4), "ada")
    assert queue.add(model(1), "ada").ask.user == "user1"
    queue.take("w")
    queue.add(model(4), "ada")


# --------------------------------------------------------------------------- the directory


def file_of(queue: Any, ticket: Ticket, state: str | None = None) -> Path:
    return queue._folder / (state or ticket.state) / f"{ticket.ask.id}.json"


def test_hostile_files(tmp_path: Path, clock: Clock) -> None:
    queue: Any = open_queue(str(tmp_path / "queue"))
    good = queue.add(model(1), "ada")
    content = json.loads(file_of(queue, good).read_text())
    pending = tmp_path / "queue" / "pending"
    name = f"org--net2--{'a' * 40}"
    own = content | {"id": name, "spec": f"hf-hub:org/net2@{'a' * 40}"}
    bad: dict[str, Any] = {
        "empty": b"", "torn": b'{"id":', "binary": bytes(range(256)), "list": [], "null": None,
        "deep": b"[" * 100_000, "long": b" " * 90_000, "other": content,
        "nan": own | {"params": float("nan")},
        "spec": own | {"spec": "local-dir:/etc"},
        "spec2": own | {"spec": f"hf-hub:../x@{'a' * 40}"},
        "id": own | {"id": "../../x"}, "time": own | {"asked": "yesterday"},
        "naive": own | {"asked": "2026-01-01T00:00:00"}, "user": own | {"user": ["x"]},
        "claim": own | {"claim": "../x"}, "params": own | {"params": 10**400},
        "early": own | {"asked": "0001-01-01T00:00:00+23:59"}, "since": own | {"since": {}},
    }  # fmt: skip
    for value in bad.values():
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        (pending / f"{name}.json").write_bytes(raw)
        by_state = {t.state: t for t in queue.tickets()}
        assert by_state["failed"].note.startswith(
            f"the file pending/{name}.json is not a request: "
        )
        assert by_state["failed"].note.isprintable()
        assert by_state["pending"] == good
    (pending / f"{name}.json").unlink()

    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(own))
    (pending / f"{name}.json").symlink_to(secret)
    os.mkfifo(pending / f"org--p--{'b' * 40}.json")
    (pending / f"org--d--{'c' * 40}.json").mkdir()
    for odd in ("notes.txt", "x.json", "\x1b[2J\n.json", "<b>.json", "x--" + "A" * 40 + ".json"):
        (pending / odd).write_text(json.dumps(own))
    Path(os.fsdecode(os.fsencode(pending) + b"/\xff\xfe.json")).write_text("{}")
    notes = [t for t in queue.tickets() if t.state == "failed"]
    assert len(notes) == 9
    for ticket in notes:
        text = ticket.ask.id + ticket.note
        assert text.isprintable()
        text.encode()
    assert queue.add(model(3), "bob").state == "pending"
    assert queue.take("w").ask == good.ask
    assert queue.take("w").ask.spec == model(3).spec
    assert queue.take("w") is None
    assert json.loads(secret.read_text()) == own
    assert sorted(p.name for p in tmp_path.iterdir()) == ["queue", "secret.json"]
    # as they are, out of the way of who takes requests, and still told of
    assert [*pending.iterdir()] == []
    assert len([*(tmp_path / "queue" / "failed").iterdir()]) == 9
    assert len([t for t in queue.tickets() if t.state == "failed"]) == 9


def test_a_broken_file_replaces_no_request_that_failed(tmp_path: Path, clock: Clock) -> None:
    queue: Any = open_queue(str(tmp_path / "queue"))
    queue.add(model(1), "ada")
    failed = queue.finish(queue.take("w"), "failed", "it is so")
    broken = file_of(queue, failed, "pending")
    broken.write_text("{")
    assert queue.take("w") is None
    assert not broken.exists()
    assert json.loads(file_of(queue, failed).read_text())["note"] == "it is so"
    kept = [p for p in (tmp_path / "queue" / "failed").iterdir() if p.name != broken.name]
    assert [p.read_text() for p in kept] == ["{"]


@pytest.mark.parametrize("state", STATES)
def test_a_queue_behind_a_link(state: str, tmp_path: Path, clock: Clock) -> None:
    """The queue itself may be one; a folder of it may not, as files are moved out of that."""
    real = tmp_path / "real"
    open_queue(str(real)).add(model(1), "ada")
    (tmp_path / "queue").symlink_to(real)
    queue = open_queue(str(tmp_path / "queue"))
    taken = queue.take("w")
    assert taken is not None
    queue.finish(taken, "done", "")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("to nobody")
    shutil.rmtree(real / state)
    (real / state).symlink_to(mine)
    assert f"{state}/ of queue" in refusal(queue.take, "w")
    assert [p.name for p in mine.iterdir()] == ["letter.txt"]


def test_times_of_a_wrong_clock(tmp_path: Path, clock: Clock) -> None:
    """They shut out nobody for longer than a day, and hold no request for ever."""
    queue: Any = open_queue(str(tmp_path / "queue"), per_day=1)
    ticket = queue.add(model(1), "ada")
    path = file_of(queue, ticket)
    content = json.loads(path.read_text()) | {"asked": "9999-12-31T23:59:59Z"}
    path.write_text(json.dumps(content))
    assert "come back after 2026-01-03 12:00" in refusal(queue.add, model(2), "ada")
    taken = queue.take("w")
    future = clock.time.timestamp() + 10**6
    os.utime(file_of(queue, taken), (future, future))
    assert queue.take("x") is not None


def test_a_beat_is_the_running_files_time(tmp_path: Path) -> None:
    queue: Any = open_queue(str(tmp_path / "queue"))
    queue.add(model(1), "ada")
    taken = queue.take("one")
    path = file_of(queue, taken)
    assert abs(path.stat().st_mtime - time.time()) < 30
    os.utime(path, (1, 1))
    queue.renew_lease(taken)
    assert abs(path.stat().st_mtime - time.time()) < 30
    assert queue.take("two") is None
    old = time.time() - requests.LEASE - 1
    os.utime(path, (old, old))
    assert queue.take("two") is not None


def test_a_second_file_of_a_running_request(tmp_path: Path, clock: Clock) -> None:
    queue: Any = open_queue(str(tmp_path / "queue"))
    queue.add(model(1), "ada")
    taken = queue.take("one")
    file_of(queue, taken, "pending").write_bytes(file_of(queue, taken).read_bytes())
    assert queue.take("two") is None
    assert states(queue) == {"net1": "running"}
    assert queue.finish(taken, "done", "1 result").state == "done"


def test_places_that_cannot_be_a_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub
) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used: " in refusal(open_queue, str(tmp_path / "file"))
    assert "has no name" in refusal(open_queue, " ")
    assert "is not a Hub repository" in refusal(open_queue, "hub:x")
    assert "at least 1 request" in refusal(lambda: open_queue(str(tmp_path / "q"), per_day=0))
    assert "no data set repository" in refusal(open_queue("hub:nobody/none").tickets)
    queue: Any = open_queue(str(tmp_path / "queue"))
    monkeypatch.setattr("eval.queue.directory._PATIENCE", 0.1)
    from filelock import FileLock

    with FileLock(tmp_path / "queue" / ".lock"):
        assert "was locked for" in refusal(queue.tickets)


# --------------------------------------------------------------------------- many at once

FORKS = multiprocessing.get_context("forkserver")


def _take_all(folder: str, name: str, log: str) -> None:
    queue = open_queue(folder)
    while ticket := queue.take(name):
        with Path(log).open("a") as file:
            file.write(f"{ticket.ask.id} {name}\n")
        queue.finish(ticket, "done", "1 result")


def _take_one(folder: str, name: str, log: str) -> None:
    ticket = open_queue(folder).take(name)
    with Path(log).open("a") as file:
        file.write(f"{ticket.ask.id if ticket else '-'} {name}\n")


def _add(folder: str, name: str, log: str) -> None:
    queue = open_queue(folder)
    for number in range(4):
        queue.add(model(number), "ada")


def in_processes(target: Callable[..., None], count: int, folder: Path, log: Path) -> None:
    FORKS.set_forkserver_preload([__name__, "eval.queue.directory"])
    started = [
        FORKS.Process(target=target, args=(str(folder), f"w{i}", str(log))) for i in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0


def test_one_of_many_processes_wins(tmp_path: Path) -> None:
    folder, log = tmp_path / "queue", tmp_path / "log"
    queue: Any = open_queue(str(folder), per_day=100)
    for number in range(20):
        queue.add(model(number), "ada")
    in_processes(_take_all, 6, folder, log)
    taken = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(taken) == sorted(t.ask.id for t in queue.tickets())
    assert {t.state for t in queue.tickets()} == {"done"}


def test_many_processes_find_a_silent_worker(tmp_path: Path) -> None:
    folder, log = tmp_path / "queue", tmp_path / "log"
    queue: Any = open_queue(str(folder))
    for number in range(2):
        queue.add(model(number), "ada")
        os.utime(file_of(queue, queue.take("dead")), (1, 1))
    in_processes(_take_one, 6, folder, log)
    taken = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(t for t in taken if t != "-") == sorted(t.ask.id for t in queue.tickets())
    assert len(taken) == 6


def test_many_processes_ask(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    in_processes(_add, 4, folder, tmp_path / "log")
    assert len(list(folder.glob("*/*"))) == 4


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "beat", "done", "failed", "pending", "wait", "kill"]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_sequence_of_operations(steps: list[tuple[str, int]]) -> None:
    """No request is lost, none runs twice at once, and only the allowed steps are made."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "now", lambda: clock.time)
        check_steps(open_queue(folder, per_day=1000), clock, steps)


ALLOWED = {
    "add": {(None, "pending"), ("failed", "pending")},
    "take": {("pending", "running"), ("running", "pending"), ("running", "failed")},
    "done": {("running", "done")},
    "failed": {("running", "failed")},
    "pending": {("running", "pending")},
}


def check_steps(queue: Queue, clock: Clock, steps: list[tuple[str, int]]) -> None:
    held: dict[int, Ticket] = {}  # what each of four workers believes to have
    beats: dict[str, datetime] = {}  # claim -> the last sign of life
    before: dict[str, str] = {}
    for step, number in steps:
        clock.on(1)
        mine = held.get(number)
        alive = mine is not None and any(t.claim == mine.claim for t in queue.tickets())
        if step == "add":
            queue.add(model(number), "ada")
        elif step == "wait":
            clock.on(requests.LEASE * (number + 1) / 3)
        elif step == "kill":
            held.pop(number, None)
        elif step == "take" and mine is None:
            if ticket := queue.take(f"w{number}"):
                for other in held.values():  # another may have it only after a silence
                    if other.ask.id == ticket.ask.id:
                        silence = clock.time - beats[other.claim]
                        assert silence.total_seconds() > requests.LEASE
                held[number], beats[ticket.claim] = ticket, clock.time
        elif step == "beat" and mine is not None:
            if alive:
                queue.renew_lease(mine)
                beats[mine.claim] = clock.time
            else:
                with pytest.raises(LeaseLost):
                    queue.renew_lease(mine)
        elif step in ("done", "failed", "pending") and mine is not None:
            if alive:
                queue.finish(mine, step, step)  # type: ignore[arg-type]
            else:
                with pytest.raises(LeaseLost):
                    queue.finish(mine, step, step)  # type: ignore[arg-type]
            del held[number]
        tickets = queue.tickets()
        after = {t.ask.id: t.state for t in tickets}
        assert len(after) == len(tickets)
        assert before.keys() <= after.keys()
        for name, state in after.items():
            if before.get(name) != state:
                assert (before.get(name), state) in ALLOWED.get(step, set())
        claims = [t.claim for t in tickets if t.state == "running"]
        assert len(set(claims)) == len(claims)
        assert all(claims)
        before = after


# --------------------------------------------------------------------------- the Hub


@pytest.fixture
def shared(people: LoopbackHub, org: str) -> str:
    """A queue's repository that ada keeps."""
    people.orgs["ada"] = {"lab", org}
    people.add_dataset(f"{org}/queue", {"README.md": "# queue"})
    return f"hub:{org}/queue"


def repo_of(hub: LoopbackHub, queue: str) -> Any:
    return hub.repos["dataset", queue.removeprefix("hub:")]


def test_each_step_is_one_commit_with_its_parent(people: LoopbackHub, shared: str) -> None:
    queue = open_queue(shared)
    count = len(repo_of(people, shared).commits)

    def paths() -> list[str]:
        return sorted(p for p in repo_of(people, shared).head.files if p.endswith(".json"))

    ticket = queue.add(model(1), "ada")
    assert paths() == [f"pending/{ticket.ask.id}.json"]
    taken = queue.take("w")
    assert taken is not None
    assert paths() == [f"running/{ticket.ask.id}.json"]
    queue.renew_lease(taken)  # too soon after the last one for a commit
    queue.finish(taken, "done", "3 results")
    assert paths() == [f"done/{ticket.ask.id}.json"]
    assert len(repo_of(people, shared).commits) == count + 3
    people.requests.clear()
    assert [t.note for t in open_queue(shared).tickets()] == ["3 results"]
    assert [m for m, _ in people.requests if m not in ("GET", "HEAD")] == []


@pytest.mark.parametrize("moment", ["/resolve/", "/commit/main"])
def test_two_workers_at_the_same_moment(moment: str, people: LoopbackHub, shared: str) -> None:
    """The second one commits while the first one reads the requests, or is about to commit."""
    one, two = open_queue(shared), open_queue(shared)
    for number in (1, 2):
        one.add(model(number), "ada")
    others: list[Ticket | None] = []
    people.on_next(moment, lambda: others.append(two.take("two")))
    mine = one.take("one")
    assert mine is not None
    assert others[0] is not None
    assert mine.ask != others[0].ask
    assert states(one) == {"net1": "running", "net2": "running"}


def test_threads_of_workers(people: LoopbackHub, shared: str) -> None:
    keeper = open_queue(shared)
    for number in range(4):
        keeper.add(model(number), "ada")
    taken: list[str] = []

    def serve(name: str) -> None:
        queue = open_queue(shared)
        while ticket := queue.take(name):
            taken.append(ticket.ask.id)
            queue.finish(ticket, "done", "1 result")

    threads = [threading.Thread(target=serve, args=(f"w{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(t.ask.id for t in keeper.tickets())
    assert set(states(keeper).values()) == {"done"}


@pytest.mark.parametrize("fault", ["busy", "landed", "unheard"])
def test_a_busy_hub(fault: str, people: LoopbackHub, shared: str) -> None:
    """A commit that landed although its answer was lost is not made twice, nor forgotten."""
    queue = open_queue(shared)

    def trouble() -> None:
        if fault == "busy":
            people.fail_next(2, 503, "/commit/main")
        else:
            people.land_then_fail(1, 503 if fault == "landed" else None, "/commit/main")

    trouble()
    queue.add(model(1), "ada")
    trouble()
    taken = queue.take("w")
    assert taken is not None
    trouble()
    assert queue.finish(taken, "done", "1 result").state == "done"
    assert states(queue) == {"net1": "done"}


def test_who_may_not_write_asks_by_a_pull_request(
    people: LoopbackHub, shared: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    keeper = open_queue(shared, per_day=2)
    monkeypatch.setenv("HF_TOKEN", BOB)
    queue = open_queue(shared, per_day=2)
    first = queue.add(model(1), "bob")
    assert first.state == "pending"
    assert "/discussions/1" in first.note
    (talk,) = HfApi().get_repo_discussions(shared.removeprefix("hub:"), repo_type="dataset")
    clock.time = talk.created_at  # this Hub has a time of its own
    assert states(queue) == {}  # main has it only once it is merged
    assert queue.add(model(1), "bob").note == first.note
    queue.add(model(2), "somebody else")
    said = refusal(queue.add, model(3), "yet another")
    assert "'bob' has asked for 2 models" in said
    clock.on(2 * 24 * 3600)
    assert "/discussions/3" in queue.add(model(3), "bob").note
    assert "not open to 'bob'" in refusal(queue.take, "w")
    monkeypatch.setenv("HF_TOKEN", EVE)
    assert "may only read" in refusal(open_queue(shared).add, model(4), "eve")
    monkeypatch.delenv("HF_TOKEN")
    assert "no Hub token" in refusal(open_queue(shared).add, model(4), "eve")
    monkeypatch.setenv("HF_TOKEN", ADA)
    HfApi().merge_pull_request(shared.removeprefix("hub:"), 1, repo_type="dataset")
    assert states(keeper) == {"net1": "pending"}
    taken = keeper.take("w")
    assert taken is not None
    assert taken.ask.user == "bob"


def test_hostile_files_on_the_hub(people: LoopbackHub, shared: str) -> None:
    queue = open_queue(shared)
    queue.add(model(1), "ada")
    repo, name = shared.removeprefix("hub:"), f"org--x--{'a' * 40}.json"
    people.add_dataset(
        repo,
        {
            f"pending/{name}": "[" * 100_000,
            "pending/x.json": "{}",
            f"pending/deeper/{name}": "{}",
            f"done/{name}": "{}",
            "model/abc/eurosat.linear.json": "{}",
        },
    )
    people.requests.clear()
    found = queue.tickets()
    read = [path.rpartition("/")[2] for _, path in people.requests if "/resolve/" in path]
    # of all those files, what is named as a request
    assert set(read) == {name, f"{request_id(model(1).spec)}.json"}
    assert len([t for t in found if t.state == "failed" and "is not a request" in t.note]) == 4
    people.add_dataset(repo, {"README.md": "# main moves"})
    people.requests.clear()
    assert len(queue.tickets()) == len(found)
    assert len(people.requests) == 2  # the commit and its tree; what is known is not read again
    taken = queue.take("w")
    assert taken is not None
    assert taken.ask.spec == model(1).spec
    assert queue.take("w") is None
    held = people.repos["dataset", repo].head.files
    assert not [path for path in held if path.startswith("pending/")]
    note = json.loads(held[f"failed/{name}"].read())
    assert note["not_a_request"].startswith("it has 100,000 bytes")
    assert note["held_at"].startswith(f"pending/{name}@")
    assert len([t for t in queue.tickets() if "is not a request" in t.note]) == 4


def test_no_token_in_a_sentence(people: LoopbackHub, shared: str) -> None:
    queue = open_queue(shared)
    queue.add(model(1), f"ada {ADA}")
    taken = queue.take("w")
    assert taken is not None
    done = queue.finish(taken, "failed", f"the Hub said Bearer {ADA}")
    assert ADA not in done.note
    people.fail_next(50, 500, shared.removeprefix("hub:"))
    assert ADA not in refusal(queue.tickets)


def test_states_are_the_folders() -> None:
    assert STATES == ("pending", "running", "done", "failed")
    with pytest.raises(UserError):
        open_queue("")
