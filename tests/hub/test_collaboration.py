"""Namespaces, renamed repositories, pull requests, collections and faults, by the real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import httpx2
import huggingface_hub as hf
import pytest
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from .server import LoopbackHub

ADA, BOB = "hf_ada", "hf_bob"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(hf.constants, "HF_HUB_DISABLE_XET", True)
    with LoopbackHub(strict_namespaces=True) as hub:
        hub.tokens |= {ADA, BOB}
        hub.users |= {ADA: "ada", BOB: "bob"}
        hub.orgs["ada"] = {"lab"}
        yield hub


@pytest.fixture
def ada(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=ADA)


@pytest.fixture
def bob(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=BOB)


def change(api: HfApi, repo: str, files: dict[str, bytes | None], **options: Any) -> CommitInfo:
    """Commit files; None deletes."""
    work = [
        CommitOperationDelete(path) if data is None else CommitOperationAdd(path, data)
        for path, data in files.items()
    ]
    return api.create_commit(repo, work, **{"commit_message": "change", **options})


@contextmanager
def refused(status: int, text: str = "") -> Iterator[None]:
    """The client raises for this status, with this text."""
    with pytest.raises(HfHubHTTPError) as caught:
        yield
    assert caught.value.response.status_code == status
    assert text in str(caught.value)


# ---- namespaces


def test_only_owners_write_and_others_propose(hub: LoopbackHub, ada: HfApi, bob: HfApi) -> None:
    assert [(org["type"], org["name"]) for org in ada.whoami()["orgs"]] == [("org", "lab")]
    assert bob.whoami()["orgs"] == []
    ada.create_repo("ada/net")
    ada.create_repo("lab/net")
    for kind in ("model", "dataset"):
        text = f'You don\'t have the rights to create a {kind} under the namespace "lab"'
        with refused(403, text):
            bob.create_repo("lab/other", repo_type=kind)
    assert bob.create_repo("lab/net", exist_ok=True).repo_id == "lab/net"  # the client is lenient
    first = change(ada, "lab/net", {"a.txt": b"a"}).oid

    with refused(403, "pass `create_pr=1`"):
        change(bob, "lab/net", {"a.txt": b"b"})
    for action in (
        lambda: bob.update_repo_settings("lab/net", private=True),
        lambda: bob.create_tag("lab/net", tag="v1"),
        lambda: bob.create_branch("lab/net", branch="dev"),
        lambda: bob.delete_repo("lab/net"),
        lambda: bob.move_repo("lab/net", "bob/net"),
        lambda: ada.move_repo("lab/net", "bob/net"),
    ):
        with refused(403):
            action()
    assert ada.model_info("lab/net").sha == first

    files: dict[str, bytes | None] = {"b.txt": b"b", "w.safetensors": bytes(99)}
    done = change(bob, "lab/net", files, create_pr=True)  # an LFS upload too
    assert done.pr_revision == "refs/pr/1"
    change(bob, "lab/net", {"c.txt": b"c"}, revision="refs/pr/1")  # the author may go on
    names = {"a.txt", "b.txt", "c.txt", "w.safetensors", ".gitattributes"}
    assert set(ada.list_repo_files("lab/net", revision="refs/pr/1")) == names
    ada.create_repo("ada/secret", private=True)
    with pytest.raises(RepositoryNotFoundError):
        change(HfApi(endpoint=hub.url, token="hf_wrong"), "ada/secret", {"a": b""}, create_pr=True)
    with refused(401):
        change(HfApi(endpoint=hub.url, token=False), "lab/net", {"a": b""}, create_pr=True)


def test_ids_that_no_repository_can_have(hub: LoopbackHub, ada: HfApi) -> None:
    ada.create_repo("ada/net")
    for name in ("a--b", "a..b", "x" * 97, "-a", "a b", "a.git", "ä", ""):
        body = json.dumps({"name": name, "organization": None}).encode()
        head = {"Authorization": f"Bearer {ADA}", "Content-Type": "application/json"}
        with pytest.raises(HTTPError) as caught:  # the client itself does not send such a name
            urlopen(HttpRequest(f"{hub.url}/api/repos/create", body, head))
        assert caught.value.code == 400
        assert "Invalid repo name" in caught.value.headers["X-Error-Message"]
        caught.value.close()
    with refused(400, "Invalid repo name"):
        ada.move_repo("ada/net", "ada/a--b")
    assert ada.create_repo("ada/" + "x" * 96)


# ---- renamed repositories


def test_a_renamed_repository_is_found(hub: LoopbackHub, ada: HfApi, tmp_path: Path) -> None:
    sha = hub.add_model("ada/old", {"sub/a.txt": b"a", "w.safetensors": bytes(99)})
    hub.add_dataset("ada/old", {"a.txt": b"data"})
    hub.rename("ada/old", "ada/new")
    assert (ada.model_info("ada/old").id, ada.model_info("ada/old").sha) == ("ada/new", sha)
    assert ada.dataset_info("ada/old").id == "ada/old"  # a name of its own
    tree = ada.list_repo_tree("ada/old", recursive=True, revision=sha)
    assert [e.path for e in tree] == ["sub", "sub/a.txt", "w.safetensors"]
    for name in ("sub/a.txt", "w.safetensors"):
        path = ada.hf_hub_download("ada/old", name, cache_dir=tmp_path)
        assert Path(path).read_bytes() == hub.repos["model", "ada/new"].head.files[name].read()
        assert "models--ada--old" in path  # the cache knows the name that was asked for
    answers = [e.status for e in hub.exchanges if e.method == "HEAD"]
    assert answers == [307, 200, 307, 302]

    change(ada, "ada/old", {"b.bin": b"\0b"})  # a commit is sent on too, LFS and all
    assert "b.bin" in ada.list_repo_files("ada/new")
    ada.move_repo("ada/new", "lab/newer")
    assert ada.model_info("ada/old").id == "lab/newer"
    ada.create_repo("ada/old")  # the name is free, and the redirect ends
    assert ada.model_info("ada/old").id == "ada/old"
    with pytest.raises(ValueError, match="ada/nothing"):
        hub.rename("ada/nothing", "ada/b")

    hub.repos["model", "lab/newer"].private = True
    with pytest.raises(RepositoryNotFoundError):
        ada.model_info("ada/new", token=False)


# ---- pull requests


def test_a_pull_request_is_merged(hub: LoopbackHub, ada: HfApi, bob: HfApi) -> None:
    hub.add_model("lab/net", {"keep.txt": b"1", "edit.txt": b"1\n", "gone.txt": b"1"})
    files: dict[str, bytes | None] = {"edit.txt": b"2\n", "new.bin": b"\0", "gone.txt": None}
    pull = change(bob, "lab/net", files, create_pr=True, commit_message="Better")
    change(bob, "lab/net", {"more.txt": b"m"}, revision="refs/pr/1", commit_message="More")
    hub.add_model("lab/net", {"keep.txt": b"2", "main.txt": b"m"})

    (row,) = bob.get_repo_discussions("lab/net")
    assert (row.num, row.title, row.author, row.status) == (1, "Better", "bob", "open")
    details = bob.get_discussion_details("lab/net", 1)
    assert details.is_pull_request
    assert (details.target_branch, details.git_reference) == ("refs/heads/main", "refs/pr/1")
    assert (details.conflicting_files, details.merge_commit_oid) == ([], None)
    assert [(e.type, e.author) for e in details.events] == [("commit", "bob")] * 2
    assert details.events[0].oid == pull.oid  # type: ignore[attr-defined]
    assert details.diff is not None
    assert "-1\n+2\n" in details.diff
    assert "main.txt" not in details.diff

    with refused(403):
        bob.merge_pull_request("lab/net", 1)
    ada.merge_pull_request("lab/net", 1, comment="thanks")
    head = hub.repos["model", "lab/net"].head
    content = {name: blob.read() for name, blob in head.files.items()}
    assert content == {
        "keep.txt": b"2",
        "edit.txt": b"2\n",
        "new.bin": b"\0",
        "more.txt": b"m",
        "main.txt": b"m",
    }
    details = ada.get_discussion_details("lab/net", 1)
    assert (details.status, details.merge_commit_oid) == ("merged", head.sha)
    assert [e.type for e in details.events] == ["commit", "commit", "comment", "status-change"]
    assert (head.title, head.author) == ("Better (#1)", "ada")
    with refused(400, "merged"):
        ada.merge_pull_request("lab/net", 1)


def test_conflicts_are_named_and_refused(hub: LoopbackHub, ada: HfApi, bob: HfApi) -> None:
    start = hub.add_model("lab/net", {"a.txt": b"1", "b.txt": b"1", "c.txt": b"1", "d.txt": b"1"})
    hub.add_model("lab/net", {"a.txt": b"main", "b.txt": None, "c.txt": b"same", "new": b"main"})
    files: dict[str, bytes | None] = {"a.txt": b"pr", "b.txt": b"pr", "c.txt": b"same"}
    files |= {"new": b"pr", "d.txt": b"pr"}
    change(bob, "lab/net", files, create_pr=True, parent_commit=start)  # from an older commit
    head = hub.repos["model", "lab/net"].head.sha
    details = ada.get_discussion_details("lab/net", 1)
    assert details.conflicting_files == ["a.txt", "b.txt", "new"]
    with refused(409, "a.txt, b.txt, new"):
        ada.merge_pull_request("lab/net", 1)
    assert ada.model_info("lab/net").sha == head

    change(bob, "lab/net", {"a.txt": b"main", "b.txt": None, "new": b"main"}, revision="refs/pr/1")
    assert ada.get_discussion_details("lab/net", 1).conflicting_files == []
    ada.merge_pull_request("lab/net", 1)
    assert hub.repos["model", "lab/net"].head.files["d.txt"].read() == b"pr"
    with pytest.raises(RevisionNotFoundError):  # a pull request is for a branch
        change(bob, "lab/net", {"x": b""}, create_pr=True, revision=start)


def test_discussions_share_the_numbers(hub: LoopbackHub, ada: HfApi, bob: HfApi) -> None:
    hub.page_size = 2
    hub.add_dataset("lab/data", {"a.txt": b"a"})
    kind: dict[str, Any] = {"repo_type": "dataset"}
    talk = bob.create_discussion("lab/data", "Why?", description="Tell me", **kind)
    assert (talk.num, talk.is_pull_request, talk.conflicting_files) == (1, False, None)
    assert bob.comment_discussion("lab/data", 1, comment="Well?", **kind).content == "Well?"
    assert ada.rename_discussion("lab/data", 1, new_title="How?", **kind).new_title == "How?"
    draft = bob.create_pull_request("lab/data", "Later", **kind)
    assert (draft.num, draft.status, draft.git_reference) == (2, "draft", "refs/pr/2")
    change(bob, "lab/data", {"b.txt": b"b"}, revision="refs/pr/2", **kind)
    done = change(bob, "lab/data", {"c.txt": b"c"}, create_pr=True, **kind)
    assert done.pr_num == 3

    def listed(**options: Any) -> list[int]:
        return [d.num for d in ada.get_repo_discussions("lab/data", **kind, **options)]

    assert listed() == [3, 2, 1]
    assert listed(discussion_type="pull_request") == [3, 2]
    assert listed(author="ada") == []
    with refused(400, "draft"):
        ada.merge_pull_request("lab/data", 2, **kind)
    carol = HfApi(endpoint=hub.url, token="hf_carol")
    hub.tokens.add("hf_carol")
    with refused(403):
        carol.change_discussion_status("lab/data", 2, new_status="closed", **kind)
    event = bob.change_discussion_status("lab/data", 2, new_status="open", **kind)
    assert (event.author, event.new_status) == ("bob", "open")
    ada.merge_pull_request("lab/data", 2, **kind)
    ada.change_discussion_status("lab/data", 3, new_status="closed", comment="no", **kind)
    assert listed(discussion_status="closed") == [3, 2]
    assert listed(discussion_status="open") == [1]
    with refused(404):
        ada.get_discussion_details("lab/data", 9, **kind)
    refs = ada.list_repo_refs("lab/data", include_pull_requests=True, **kind)
    assert [ref.ref for ref in refs.pull_requests or []] == ["refs/pr/2", "refs/pr/3"]


# ---- collections


def test_collections(hub: LoopbackHub, ada: HfApi, bob: HfApi) -> None:
    for n in range(5):
        hub.add_model(f"lab/net{n}", {"a.txt": b"a"})
    hub.add_dataset("lab/data", {})
    made = ada.create_collection("The Zoo, 2025!", namespace="lab", description="all")
    words, _, number = made.slug.rpartition("-")
    assert (words, len(number)) == ("lab/the-zoo-2025", 24)
    assert ada.create_collection("The Zoo, 2025!", namespace="lab", exists_ok=True) == made
    with refused(409):
        ada.create_collection("The Zoo, 2025!", namespace="lab")
    with refused(403, 'under the namespace "lab"'):
        bob.create_collection("Mine", namespace="lab")

    for n in range(5):
        made = ada.add_collection_item(made.slug, f"lab/net{n}", "model", note=f"n{n}")
    ada.add_collection_item(made.slug, "lab/data", "dataset")
    with refused(409):
        ada.add_collection_item(made.slug, "lab/data", "dataset")
    ada.add_collection_item(made.slug, "lab/data", "dataset", exists_ok=True)
    with refused(404):
        ada.add_collection_item(made.slug, "lab/nothing", "model")
    with refused(403):
        bob.add_collection_item(made.slug, "lab/net0", "model")
    items = bob.get_collection(made.slug).items
    assert [(i.item_id, i.item_type, i.note) for i in items][4:] == [
        ("lab/net4", "model", "n4"),
        ("lab/data", "dataset", None),
    ]

    ada.update_collection_item(made.slug, items[5].item_object_id, note="first", position=0)
    ada.delete_collection_item(made.slug, items[0].item_object_id)
    with refused(404):
        ada.delete_collection_item(made.slug, items[0].item_object_id)
    hub.rename("lab/net1", "lab/renamed")
    names = [(i.item_id, i.position, i.note) for i in ada.get_collection(made.slug).items]
    assert names[:2] == [("lab/data", 0, "first"), ("lab/renamed", 1, "n1")]

    other = bob.create_collection("Mine", private=True)  # in the user's own namespace
    assert other.slug.startswith("bob/mine-")
    assert [c.title for c in ada.list_collections()] == ["Mine", "The Zoo, 2025!"]
    (seen,) = HfApi(endpoint=hub.url, token=False).list_collections()
    assert len(seen.items) == 4  # lists show no more
    assert [c.slug for c in ada.list_collections(owner="lab", limit=1)] == [made.slug]
    assert [c.slug for c in ada.list_collections(item="models/lab/net3")] == [made.slug]
    assert list(ada.list_collections(owner=["nobody"])) == []

    changed = ada.update_collection_metadata(made.slug, title="A Zoo", theme="pink")
    assert (changed.slug, changed.theme) == (f"lab/a-zoo-{number}", "pink")
    assert ada.get_collection(made.slug).slug == changed.slug  # the old one still leads there
    ada.delete_collection(changed.slug)
    with refused(404):
        ada.get_collection(changed.slug)
    ada.delete_collection(changed.slug, missing_ok=True)


# ---- faults


def test_late_and_missing_answers(hub: LoopbackHub, ada: HfApi) -> None:
    sha = hub.add_model("ada/net", {"a.txt": b"a"})
    hub.slow_next(1, 0.3, match="GET /api/models/ada/net")
    with pytest.raises(httpx2.TimeoutException):
        ada.model_info("ada/net", timeout=0.1)
    hub.slow_next(1, 0.1, match="GET /api/models")
    start = time.monotonic()
    assert ada.model_info("ada/net").sha == sha
    assert time.monotonic() - start >= 0.1

    hub.drop_next(1, match="/commit/")
    with pytest.raises(httpx2.RemoteProtocolError):
        change(ada, "ada/net", {"a.txt": b"b"})
    assert ada.model_info("ada/net").sha == sha
    hub.drop_next(9)
    hub.fail_next(9, 500)
    hub.on_next("", lambda: 1 / 0)
    hub.clear_faults()
    assert ada.model_info("ada/net").sha == sha


def test_a_commit_lands_although_the_client_sees_an_error(hub: LoopbackHub, ada: HfApi) -> None:
    first = hub.add_model("ada/net", {"a.txt": b"a"})
    hub.land_then_fail(1, 503, match="/commit/")
    with refused(503, "Fault injected"):
        change(ada, "ada/net", {"a.txt": b"b"}, parent_commit=first)
    assert ada.list_repo_commits("ada/net")[1].commit_id == first
    again = change(ada, "ada/net", {"a.txt": b"b"}, parent_commit=first)
    assert again.oid == ada.model_info("ada/net").sha  # the client finds nothing to do
    hub.land_then_fail(1, None, match="/commit/")
    with pytest.raises(httpx2.RemoteProtocolError):
        change(ada, "ada/net", {"a.txt": b"c"})
    assert len(ada.list_repo_commits("ada/net")) == 3
    with refused(412):
        change(ada, "ada/net", {"a.txt": b"d"}, parent_commit=first)


def test_main_moves_during_a_run(hub: LoopbackHub, ada: HfApi) -> None:
    first = hub.add_model("ada/net", {"a.txt": b"a"})
    moved: list[str] = []
    hub.on_next("POST /api/models/ada/net/commit", lambda: moved.append(change_main()))

    def change_main() -> str:
        return hub.add_model("ada/net", {"b.txt": b"b"})

    with refused(412):
        change(ada, "ada/net", {"a.txt": b"b"}, parent_commit=first)
    assert moved == [ada.model_info("ada/net").sha]
    change(ada, "ada/net", {"a.txt": b"b"}, parent_commit=moved[0])
    assert len(moved) == 1


def test_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hub"]
    root, env = Path(__file__).parents[2], {**os.environ, "HF_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            settings = dict(word.split("=", 1) for word in words[1:])
            api = HfApi(endpoint=settings["HF_ENDPOINT"], token=settings["HF_TOKEN"])
            assert api.whoami()["name"] == "tester"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(timeout=60) == 0
            finally:
                process.kill()
