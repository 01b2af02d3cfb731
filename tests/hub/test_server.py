"""The real clients (huggingface_hub, timm, datasets) against the loopback Hub."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import huggingface_hub as hf
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .server import LoopbackHub

TOKEN = "hf_valid"
CARD = """---
library_name: timm
pipeline_tag: image-feature-extraction
license: apache-2.0
datasets: [imagenet-1k]
tags: [ours]
---
# A model
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.tokens.add(TOKEN)
        yield hub


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def writer(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(hf.constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=hub.url, token=TOKEN)


def safetensors(values: int = 6) -> bytes:
    """A safetensors file with one float tensor."""
    end = 4 * values
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, end]}})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(end)


def run(code: str, env: dict[str, str], *args: object) -> Any:
    """Run code in a fresh process; its last line of output, as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- metadata


def test_info_at_main_tag_and_sha(hub: LoopbackHub, api: HfApi) -> None:
    weights = safetensors()
    first = hub.add_model(
        "org/net", {"config.json": b"{}", "model.safetensors": weights, "README.md": CARD}
    )
    hub.tag("org/net", "v1", first)
    second = hub.add_model("org/net", {"config.json": b'{"a": 1}', "sub/x.txt": b"x"})
    assert first != second

    info = api.model_info("org/net")
    assert (info.id, info.sha, info.private, info.gated) == ("org/net", second, False, False)
    assert (info.library_name, info.pipeline_tag) == ("timm", "image-feature-extraction")
    assert info.card_data is not None
    assert info.card_data.license == "apache-2.0"
    assert info.tags is not None
    assert {"timm", "ours", "license:apache-2.0", "dataset:imagenet-1k"} <= set(info.tags)
    assert info.safetensors is not None
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F32": 6}, 6)

    for revision in ("v1", first):
        old = api.model_info("org/net", revision=revision, files_metadata=True)
        assert old.sha == first
        assert old.siblings is not None
        sizes = {s.rfilename: s.size for s in old.siblings}
        assert sizes == {
            "README.md": len(CARD),
            "config.json": 2,
            "model.safetensors": len(weights),
        }
        lfs = {s.rfilename: s.lfs.sha256 for s in old.siblings if s.lfs}
        assert lfs == {"model.safetensors": hashlib.sha256(weights).hexdigest()}

    assert api.model_info("org/net", expand=["sha"]).tags is None
    results = b"- {dataset: {id: org/data, task_id: default}, value: 0.5}"
    third = hub.add_model("org/net", {".eval_results/ours.yaml": results})
    (entry,) = api.model_info("org/net", expand=["evalResults"]).eval_results or []
    assert (entry.dataset_id, entry.value) == ("org/data", 0.5)
    refs = api.list_repo_refs("org/net")
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", first)]
    assert [(b.name, b.target_commit) for b in refs.branches] == [("main", third)]
    assert [c.commit_id for c in api.list_repo_commits("org/net")] == [third, second, first]


def test_a_dataset_and_a_model_may_share_an_id(hub: LoopbackHub, api: HfApi) -> None:
    model = hub.add_model("org/same", {"a.txt": b"model"})
    data = hub.add_dataset("org/same", {"a.txt": b"data"})
    assert (api.model_info("org/same").sha, api.dataset_info("org/same").sha) == (model, data)
    with pytest.raises(RevisionNotFoundError):  # a commit belongs to its repository
        api.dataset_info("org/same", revision=model)
    with pytest.raises(ValueError, match="give kind="):
        hub.tag("org/same", "v1")


def test_trees_and_paths(hub: LoopbackHub, api: HfApi) -> None:
    files = {"a.txt": b"a\n", "b/c/d.bin": b"\0\1", "b/e.txt": b"", "b.txt": b"b"}
    first = hub.add_model("org/net", files)
    second = hub.add_model("org/net", {"a.txt": b"new"})

    flat = [e.path for e in api.list_repo_tree("org/net")]
    assert flat == ["a.txt", "b", "b.txt"]
    assert [e.path for e in api.list_repo_tree("org/net", "b")] == ["b/c", "b/e.txt"]
    assert set(api.list_repo_files("org/net")) == set(files)
    hub.page_size = 2  # pages change nothing
    every: dict[str, Any] = {
        e.path: e for e in api.list_repo_tree("org/net", recursive=True, expand=True)
    }
    assert set(every) == {*files, "b", "b/c"}
    assert every["b/e.txt"].last_commit.oid == first
    assert every["a.txt"].last_commit.oid == second
    found = api.get_paths_info("org/net", ["b", "b/c/d.bin", "nope"], revision=first)
    assert [e.path for e in found] == ["b", "b/c/d.bin"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("org/net", "nope"))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_object_ids_are_those_of_git(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    files = {"a.txt": b"a\n", "b/c/d.bin": b"\0\1", "b/e.txt": b"", "b.txt": b"b", "b-c": b"c"}
    hub.add_model("org/net", files)
    every: list[Any] = list(api.list_repo_tree("org/net", recursive=True))
    ids = {e.path: getattr(e, "blob_id", None) or e.tree_id for e in every}

    sha256 = hashlib.sha256(files["b/c/d.bin"]).hexdigest()  # stands in git as its pointer
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 2\n"
    for path, data in {**files, "b/c/d.bin": text.encode()}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)

    def git(*command: str) -> str:
        quiet = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.check_output(["git", *command], cwd=tmp_path, env=quiet, text=True)

    git("init", "-q")
    git("add", ".")
    lines = git("ls-tree", "-r", "-t", git("write-tree").strip()).splitlines()
    assert ids == {line.split()[3]: line.split()[2] for line in lines}


def test_lists(hub: LoopbackHub, api: HfApi) -> None:
    hub.page_size = 2
    for name in ("one/a", "one/b", "two/a", "two/c"):
        hub.add_model(name, {"README.md": CARD if name.endswith("a") else b"no card"})
    hub.add_model("one/hidden", {}, private=True)
    hub.add_dataset("one/data", {"README.md": b"---\ntask_categories: [image-classification]\n---"})

    assert [m.id for m in api.list_models()] == ["one/a", "one/b", "two/a", "two/c"]
    assert len(list(api.list_models(token=TOKEN))) == 5
    assert [m.id for m in api.list_models(author="one")] == ["one/a", "one/b"]
    assert [m.id for m in api.list_models(search="A", filter=["timm", "ours"])] == [
        "one/a",
        "two/a",
    ]
    assert [m.id for m in api.list_models(sort="created_at", limit=1)] == ["two/c"]
    (card,) = api.list_models(author="two", pipeline_tag="image-feature-extraction", cardData=True)
    assert card.card_data is not None
    assert [d.id for d in api.list_datasets(task_categories="image-classification")] == ["one/data"]
    with pytest.raises(HfHubHTTPError, match="501") as caught:
        list(api.list_models(num_parameters="min:1M"))
    assert "num_parameters" in str(caught.value)


# ---- downloads


def test_download_and_snapshot_hit_no_network_twice(hub: LoopbackHub, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(safetensors())
    sha = hub.add_model("org/net", {"config.json": b"{}", "model.safetensors": weights})
    hub.add_model("org/net", {"config.json": b"newer"})
    options: dict[str, Any] = {"endpoint": hub.url, "revision": sha, "token": TOKEN}

    for _ in range(2):
        path = hf.hf_hub_download("org/net", "model.safetensors", **options, cache_dir=tmp_path)
        assert Path(path).read_bytes() == weights.read_bytes()
        first, hub.requests[:] = list(hub.requests), []
    assert first == []
    stored = [e for e in hub.exchanges if e.path.startswith("/storage/")]
    assert [e.method for e in stored] == ["GET"]
    assert not any("authorization" in e.request_headers for e in stored)

    cache = tmp_path / "snapshots"
    for _ in range(2):
        root = Path(hf.snapshot_download("org/net", **options, cache_dir=cache))
        assert {p.name for p in root.iterdir()} == {"config.json", "model.safetensors"}
        assert (root / "config.json").read_bytes() == b"{}"
        first, hub.requests[:] = list(hub.requests), []
    assert first == []


def test_both_host_names_work_as_endpoint(hub: LoopbackHub, tmp_path: Path) -> None:
    sha = hub.add_model("org/net", {"model.safetensors": safetensors()})
    other = hub.url.replace("127.0.0.1", "localhost")
    path = hf.hf_hub_download(
        "org/net", "model.safetensors", revision=sha, endpoint=other, cache_dir=tmp_path
    )
    assert Path(path).read_bytes() == safetensors()


def test_what_is_hidden_or_missing(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    hub.add_model("org/secret", {"a.txt": b"a"}, private=True)
    gated = hub.add_model("org/gated", {"a.txt": b"a"}, gated=True)

    def get(repo: str, name: str = "a.txt", token: str | bool = False, **more: Any) -> str:
        more |= {"endpoint": hub.url, "token": token, "cache_dir": tmp_path}
        path: str = hf.hf_hub_download(repo, name, **more)
        return path

    for token in (False, "hf_wrong"):
        with pytest.raises(RepositoryNotFoundError) as hidden:
            api.model_info("org/secret", token=token)
        assert hidden.value.response.status_code == 404
        with pytest.raises(RepositoryNotFoundError):
            get("org/secret", token=token)
    assert api.model_info("org/secret", token=TOKEN).private
    assert get("org/secret", token=TOKEN)

    assert (api.model_info("org/gated").gated, api.model_info("org/gated").sha) == ("manual", gated)
    for token in (False, TOKEN):
        with pytest.raises(GatedRepoError) as denied:
            get("org/gated", token=token)
        assert denied.value.response.status_code == 403
        with pytest.raises(GatedRepoError):
            api.auth_check("org/gated", token=token)
    hub.grant(TOKEN, "org/gated")
    api.auth_check("org/gated", token=TOKEN)
    assert Path(get("org/gated", token=TOKEN)).read_bytes() == b"a"

    hub.add_model("org/open", {"a.txt": b"a"})
    with pytest.raises(EntryNotFoundError):
        get("org/open", "b.txt")
    with pytest.raises(RevisionNotFoundError):
        get("org/open", revision="v9")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/open", revision="0" * 40)
    assert not api.repo_exists("org/nothing")
    assert not api.repo_exists("nothing")
    assert (api.file_exists("org/open", "a.txt"), api.file_exists("org/open", "b")) == (True, False)


def test_strict_auth_uses_the_statuses_of_the_real_hub(tmp_path: Path) -> None:
    with LoopbackHub(strict_auth=True) as hub:
        hub.tokens.add(TOKEN)
        hub.add_model("org/gated", {"a.txt": b"a"}, gated=True)
        api = HfApi(endpoint=hub.url)
        for token, status in ((False, 401), (TOKEN, 404)):
            with pytest.raises(RepositoryNotFoundError) as hidden:
                api.model_info("org/nothing", token=token)
            assert hidden.value.response.status_code == status
        for token, status in ((False, 401), (TOKEN, 403)):
            with pytest.raises(GatedRepoError) as denied:
                api.hf_hub_download("org/gated", "a.txt", token=token, cache_dir=tmp_path)
            assert denied.value.response.status_code == status
        with pytest.raises(HfHubHTTPError, match="Invalid credentials") as wrong:
            api.model_info("org/gated", token="hf_wrong")
        assert not isinstance(wrong.value, RepositoryNotFoundError)


def test_whoami(hub: LoopbackHub, api: HfApi) -> None:
    hub.users[TOKEN] = "ada"
    assert api.whoami(token=TOKEN)["name"] == "ada"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_wrong")


def test_ranges_and_resume_of_a_cut_download(hub: LoopbackHub, tmp_path: Path) -> None:
    big = bytes(range(256)) * (12 * 4096)  # 12 MiB: the client keeps whole pieces of 10 MiB
    sha = hub.add_model("org/net", {"big.bin": big, "a.txt": b"0123456789"})

    def ranged(text: str) -> tuple[int, bytes, str | None]:
        url = f"{hub.url}/org/net/resolve/{sha}/a.txt"
        with urlopen(HttpRequest(url, headers={"Range": text})) as answer:
            return answer.status, answer.read(), answer.headers["Content-Range"]

    assert ranged("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert ranged("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert ranged("bytes=-2") == (206, b"89", "bytes 8-9/10")

    hub.cut_next(1, after=11 << 20, match="GET /storage")
    path = hf.hf_hub_download(
        "org/net", "big.bin", revision=sha, endpoint=hub.url, cache_dir=tmp_path
    )
    assert Path(path).read_bytes() == big
    gets = [e for e in hub.exchanges if e.path.startswith("/storage/")]
    assert [(e.status, e.request_headers.get("range")) for e in gets] == [
        (200, None),
        (206, f"bytes={10 << 20}-"),
    ]


def test_faults_reach_the_client(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    sha = hub.add_model("org/net", {"a.txt": b"one", "b.txt": b"b"})
    options: dict[str, Any] = {"endpoint": hub.url, "cache_dir": tmp_path}

    hub.fail_next(1, 418, match="resolve")  # not a status that is tried again
    with pytest.raises(LocalEntryNotFoundError) as caught:
        hf.hf_hub_download("org/net", "a.txt", **options)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 418
    hub.requests.clear()
    hub.fail_next(1, 503, match="resolve")  # with nothing in the cache, a HEAD is tried again
    assert hf.hf_hub_download("org/net", "a.txt", **options)
    assert [method for method, _ in hub.requests] == ["HEAD", "HEAD", "GET"]

    hub.add_model("org/net", {"a.txt": b"two"})
    hub.fail_next(1, 503, match="HEAD /org/net")  # else the stale copy is served without a word
    assert Path(hf.hf_hub_download("org/net", "a.txt", **options)).read_bytes() == b"one"
    hub.fail_next(1, 429, match="GET /org/net", headers={"Retry-After": "0"})
    assert Path(hf.hf_hub_download("org/net", "a.txt", **options)).read_bytes() == b"two"

    hub.fail_next(1, 500, match="/api/models")
    with pytest.raises(HfHubHTTPError, match="Fault injected"):
        api.model_info("org/net")
    assert api.model_info("org/net", revision=sha).sha == sha


def test_what_is_not_implemented_says_so(hub: LoopbackHub, api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="does not implement GET /api/models-tags-by-type"):
        api.get_model_tags()


def test_env_leaves_nothing_of_the_developer(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert {"HF_TOKEN", "HF_HUB_OFFLINE"}.isdisjoint(hub.env(tmp_path))
    assert hub.env(tmp_path, token=TOKEN)["HF_TOKEN"] == TOKEN
    assert set(hub.env(tmp_path)) >= set(hub.settings(tmp_path))


# ---- other clients, in processes of their own


@pytest.mark.slow
def test_timm_pushes_and_loads_pretrained_weights(hub: LoopbackHub, tmp_path: Path) -> None:
    code = """
        import json, timm, torch
        from timm.models import push_to_hf_hub

        torch.manual_seed(0)
        image = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)
        model = timm.create_model("test_resnet", num_classes=0).eval()
        push_to_hf_hub(model, "tester/net", safe_serialization=True)
        loaded = timm.create_model("hf-hub:tester/net", pretrained=True, num_classes=0).eval()
        print(json.dumps([model(image)[0].tolist(), loaded(image)[0].tolist()]))
    """
    env = {**hub.env(tmp_path, token=TOKEN), "OMP_NUM_THREADS": "1"}
    made, loaded = run(code, env)
    assert made == loaded
    files = set(hub.repos["model", "tester/net"].head.files)
    assert files == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    stored = [method for method, path in hub.requests if path.startswith("/storage/")]
    assert stored == ["PUT", "GET"]


def test_datasets_load_images_and_labels(hub: LoopbackHub, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    images = []
    for i in range(4):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": f"{i}.png"})
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    }
    table = pa.table({"image": images, "label": pa.array([0, 1, 0, 1], pa.int64())})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(meta), buffer)
    sha = hub.add_dataset("org/pets", {"data/test-00000-of-00001.parquet": buffer.getvalue()})
    hub.add_dataset("org/pets", {"data/test-00000-of-00001.parquet": None})  # main has moved on

    read = """
        import json, sys
        from datasets import load_dataset
        rows = load_dataset("org/pets", revision=sys.argv[1], split="test")
        names = rows.features["label"].names
        print(json.dumps([[names[r["label"]], r["image"].getpixel((0, 0))[0]] for r in rows]))
    """
    env = hub.env(tmp_path / "home")
    expected = [["cat", 0], ["dog", 60], ["cat", 120], ["dog", 180]]
    assert run(read, env, sha) == expected
    assert hub.requests
    hub.requests.clear()
    assert run(read, {**env, "HF_HUB_OFFLINE": "1"}, sha) == expected
    assert not hub.requests


# ---- writing


def test_publish_a_folder(hub: LoopbackHub, writer: HfApi, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "empty.bin").write_bytes(b"")
    url = writer.create_repo("tester/net", private=True)
    assert url.repo_id == "tester/net"
    assert writer.create_repo("tester/net", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="409"):
        writer.create_repo("tester/net")
    assert not writer.repo_exists("tester/net", token=False)

    done = writer.upload_folder(repo_id="tester/net", folder_path=folder)
    info = writer.model_info("tester/net")
    assert info.sha == done.oid
    assert set(writer.list_repo_files("tester/net")) == {
        ".gitattributes",
        *(p.name for p in folder.iterdir()),
    }
    cache = tmp_path / "cache"
    path = writer.hf_hub_download("tester/net", "model.safetensors", cache_dir=cache)
    assert Path(path).read_bytes() == safetensors()
    again = writer.upload_folder(repo_id="tester/net", folder_path=folder)
    assert again.oid == done.oid  # nothing changed: the client makes no commit

    writer.update_repo_settings("tester/net", private=False, gated="auto")
    assert writer.model_info("tester/net", token=False).gated == "auto"
    writer.create_repo("tester/app", repo_type="space", space_sdk="gradio")
    assert writer.space_info("tester/app").sdk == "gradio"
    with pytest.raises(HfHubHTTPError, match=r"does not implement .*region"):
        writer.create_repo("tester/far", region="eu")
    writer.delete_repo("tester/net")
    assert not writer.repo_exists("tester/net")


def test_large_upload_in_parts(hub: LoopbackHub, writer: HfApi, tmp_path: Path) -> None:
    hub.multipart_size = 1000
    data = bytes(range(250)) * 11
    writer.create_repo("tester/data", repo_type="dataset")
    hub.fail_next(1, 503, match="/part/2")  # tried again
    writer.upload_file(
        repo_id="tester/data", repo_type="dataset", path_or_fileobj=data, path_in_repo="x/a.bin"
    )
    puts = [path for method, path in hub.requests if method == "PUT"]
    assert len(puts) == 4
    path = writer.hf_hub_download("tester/data", "x/a.bin", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == data


def test_commits_refs_and_rights(hub: LoopbackHub, writer: HfApi) -> None:
    first = hub.add_model("tester/net", {"a.txt": b"a", "b/c.txt": b"c", "b/d.txt": b"d"})
    add = [CommitOperationAdd("a.txt", b"new")]
    done = writer.create_commit("tester/net", add, commit_message="one", parent_commit=first)
    with pytest.raises(HfHubHTTPError, match="412"):
        writer.create_commit(
            "tester/net",
            [CommitOperationAdd("a.txt", b"late")],
            commit_message="two",
            parent_commit=first,
        )
    gone = [CommitOperationDelete("b/")]
    writer.create_commit("tester/net", gone, commit_message="three", commit_description="why")
    assert [(c.title, c.message) for c in writer.list_repo_commits("tester/net")][:2] == [
        ("three", "why"),
        ("one", ""),
    ]
    assert writer.list_repo_files("tester/net") == ["a.txt"]

    writer.create_branch("tester/net", branch="dev", revision=first)
    writer.create_tag("tester/net", tag="v1", revision=done.oid)
    with pytest.raises(HfHubHTTPError, match="409"):
        writer.create_tag("tester/net", tag="v1")
    writer.delete_file("a.txt", "tester/net", revision="dev")
    assert set(writer.list_repo_files("tester/net", revision="dev")) == {"b/c.txt", "b/d.txt"}
    assert writer.model_info("tester/net", revision="v1").sha == done.oid
    writer.delete_tag("tester/net", tag="v1")
    writer.delete_branch("tester/net", branch="dev")

    pull = writer.create_commit(
        "tester/net", [CommitOperationAdd("pr.txt", b"x")], commit_message="p", create_pr=True
    )
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    assert "pr.txt" in writer.list_repo_files("tester/net", revision="refs/pr/1")
    assert "pr.txt" not in writer.list_repo_files("tester/net")

    hub.tokens.add("hf_reader")
    hub.read_only.add("hf_reader")
    for token, status in (("hf_reader", 403), ("hf_wrong", 401)):
        with pytest.raises(HfHubHTTPError, match=str(status)):
            writer.create_repo("tester/other", token=token)
    hub.users["hf_reader"] = "ada"
    writer.update_repo_settings("tester/net", gated="manual")
    assert not writer_can_read(writer, "hf_reader")
    writer.grant_access("tester/net", "ada")
    assert writer_can_read(writer, "hf_reader")


def writer_can_read(api: HfApi, token: str) -> bool:
    """Whether a token passes the gate of tester/net."""
    try:
        return api.file_exists("tester/net", "a.txt", token=token)
    except GatedRepoError:
        return False
