"""Publishing a checkpoint: what lands on the Hub, what is refused, and what a fault leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.hub import commits
from eval.hub.mirror import Mirrored
from tests.factories import let_write, refusal
from tests.hub import LoopbackHub
from tests.zoo.card.made import NAME, PX, make, write_config, write_result
from zoo.__main__ import main
from zoo.card import card
from zoo.card.publish import COLLECTION, TRAILER, publish, stage

TOKEN = "hf_publisherSecretToken0123456789"
OTHER = "hf_somebodyElse9876543210"


# --------------------------------------------------------------------------- a small checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("zoo") / NAME)


@pytest.fixture
def folder(made: Path, tmp_path: Path, lab: LoopbackHub) -> Iterator[Path]:
    """A copy to change at will; the Hub holds none of its large files yet."""
    copy = tmp_path / "mine" / NAME
    shutil.copytree(made, copy)
    kept = {}
    for path in copy.rglob("*"):
        if path.is_file() and (blob := lab.blobs.pop(sha := sha256_file(path), None)):
            kept[sha] = blob
    yield copy
    lab.blobs.update(kept)


# --------------------------------------------------------------------------- the Hub


@pytest.fixture
def lab(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> Iterator[LoopbackHub]:
    """A strict Hub where the token's owner, ada, may write to ada and lab."""
    let_write(
        hub,
        monkeypatch,
        {TOKEN: "ada", OTHER: "bob"},
        orgs={"ada": {"lab", "zoo"}, "bob": {"lab"}},
        strict_auth=True,
    )
    hub.clear_faults()
    yield hub
    hub.clear_faults()


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the Hub lives as long as the session."""
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return f"lab/net-{unique}"


def held(hub: LoopbackHub, repo: str) -> dict[str, bytes]:
    files = hub.repos["model", repo].head.files
    return {name: blob.read() for name, blob in files.items() if name != ".gitattributes"}


def history(hub: LoopbackHub, repo: str) -> list[str]:
    """Commits of main, oldest first."""
    found = hub.repos["model", repo]
    return [commit.sha for commit in found.history(found.head)][::-1]


def staged(folder: Path, repo: str) -> dict[str, bytes]:
    return {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in stage(folder, repo).items()
    }


def writes(hub: LoopbackHub) -> list[tuple[str, str]]:
    return [(method, path) for method, path in hub.requests if method not in ("GET", "HEAD")]


def out_of(spec: str, cache: Path | None = None) -> torch.Tensor:
    net = timm.create_model(spec, pretrained=True, cache_dir=cache and str(cache)).eval()
    noise = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return net(noise)


def command(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``transfer-zoo publish``."""
    capsys.readouterr()
    code = main(["publish", *map(str, argv)])
    said = capsys.readouterr()
    return code, said.out, said.err


# --------------------------------------------------------------------------- what lands


def test_one_commit_holds_exactly_the_staged_files(
    lab: LoopbackHub, repo: str, folder: Path, tmp_path: Path
) -> None:
    done = publish(folder, repo)
    files = staged(folder, repo)
    assert held(lab, repo) == files
    assert {"README.md", "model.safetensors", "config.json", "recipe.toml", "log.jsonl",
            "learning_curve.png", "results/photos.knn.json"} <= set(files)  # fmt: skip
    shas = history(lab, repo)
    assert len(shas) == 2  # the Hub's own first, and ours
    assert done.sha == shas[1]
    assert sorted(done.uploaded) == sorted(files)
    assert (done.removed, done.dry_run, done.url) == ((), False, f"{lab.url}/{repo}")
    assert done.bytes == sum(map(len, files.values()))
    assert not lab.repos["model", repo].private
    assert lab.repos["model", repo].head.author == "ada"
    assert TRAILER in lab.repos["model", repo].head.message
    there = out_of(f"hf-hub:{repo}", tmp_path / "cache")
    assert torch.equal(there, out_of(f"local-dir:{folder}"))


def test_unchanged_files_are_the_folders_own_bytes(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    there = held(lab, repo)
    for name in ("model.safetensors", "config.json", "recipe.toml", "log.jsonl"):
        assert there[name] == (folder / name).read_bytes()
    assert f"hf-hub:{repo}" in there["README.md"].decode()
    assert sha256_file(folder / "model.safetensors") in there["README.md"].decode()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    publish(folder, repo)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_it_is_loaded_back_by_the_commit_with_nothing_cached(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    done = publish(folder, repo)
    loads = [path for _, path in lab.requests if f"/{repo}/resolve/" in path]
    assert loads
    assert all(f"/resolve/{done.sha}/" in path for path in loads)
    weights = sha256_file(folder / "model.safetensors")
    assert [p for m, p in lab.requests if m == "GET" and f"/storage/{weights}" in p]

    out_of(f"hf-hub:{repo}")  # now the user's own cache has the weights
    (folder / "recipe.toml").write_text("# new\n" + (folder / "recipe.toml").read_text())
    lab.requests.clear()
    publish(folder, repo)
    assert [p for m, p in lab.requests if m == "GET" and f"/storage/{weights}" in p]


def test_a_second_publish_makes_no_commit(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish(folder, repo)
    lab.requests.clear()
    code, out, _ = command(capsys, folder, repo)
    assert code == 0
    assert "nothing changed, no commit made" in out
    assert first.sha in out
    assert history(lab, repo)[-1] == first.sha
    assert writes(lab) == []


def test_a_changed_file_makes_a_commit_of_that_file(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    log = folder / "recipe.toml"
    log.write_text("# a remark\n" + log.read_text())
    done = publish(folder, repo)
    assert done.uploaded == ("recipe.toml",)
    assert len(history(lab, repo)) == 3
    commits = lab.repos["model", repo].commits
    old, new = (commits[sha].files for sha in history(lab, repo)[1:])
    assert [name for name in new if new[name] != old.get(name)] == ["recipe.toml"]
    assert held(lab, repo)["recipe.toml"].startswith(b"# a remark\n")


def test_a_file_that_is_gone_here_goes_there(lab: LoopbackHub, repo: str, folder: Path) -> None:
    publish(folder, repo)
    (folder / "results" / "photos.knn.json").unlink()
    card.write(folder)
    done = publish(folder, repo)
    assert "results/photos.knn.json" in done.removed
    assert held(lab, repo) == staged(folder, repo)
    assert "results/photos.knn.json" not in held(lab, repo)
    assert len(history(lab, repo)) == 3
    assert ".gitattributes" in lab.repos["model", repo].head.files


def test_results_on_the_hub_name_no_local_folder(
    lab: LoopbackHub, repo: str, folder: Path, tmp_path: Path
) -> None:
    publish(folder, repo)
    result = json.loads(held(lab, repo)["results/photos.knn.json"])
    assert result["task"]["source"] == "local:photos"
    assert result["model"]["spec"] == f"local-dir:{NAME}"
    for name, content in held(lab, repo).items():
        assert str(tmp_path).encode() not in content, name
        assert b"/home/somebody" not in content, name
    message = lab.repos["model", repo].head.message
    assert str(tmp_path) not in message


def test_private(lab: LoopbackHub, repo: str, folder: Path) -> None:
    publish(folder, repo, private=True)
    assert lab.repos["model", repo].private
    assert held(lab, repo) == staged(folder, repo)


def test_the_command_prints_address_sha_and_the_line_that_loads(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(capsys, folder, repo, "--private")
    assert code == 0
    assert f"{lab.url}/{repo}" in out
    assert history(lab, repo)[1] in out
    assert f'timm.create_model("hf-hub:{repo}", pretrained=True)' in out
    assert lab.repos["model", repo].private


def test_a_renamed_repository_stays_whole(lab: LoopbackHub, repo: str, folder: Path) -> None:
    """The old id redirects: publishing to it again changes nothing."""
    publish(folder, repo)
    lab.rename(repo, f"{repo}-new")
    done = publish(folder, repo)
    assert done.uploaded == ()
    assert ("model", repo) not in lab.repos
    assert len(history(lab, f"{repo}-new")) == 2


def test_a_tree_of_many_pages_is_seen_whole(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, repo)
    monkeypatch.setattr(lab, "page_size", 2)
    assert publish(folder, repo).uploaded == ()
    assert publish(folder, repo).removed == ()


# --------------------------------------------------------------------------- dry runs


def test_a_dry_run_writes_nothing_and_needs_no_token(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = command(capsys, folder, repo, "--dry-run")
    assert (code, ("model", repo) in lab.repos) == (0, False), err
    assert "would upload" in out
    assert "model.safetensors" in out
    assert writes(lab) == []


def test_a_dry_run_of_a_public_repository_says_what_would_change(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first = publish(folder, repo)
    lab.requests.clear()
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = command(capsys, folder, repo, "--dry-run")
    assert code == 0
    assert "nothing would change" in out
    (folder / "results" / "photos.knn.json").unlink()
    (folder / "recipe.toml").write_text("# new\n" + (folder / "recipe.toml").read_text())
    card.write(folder)
    code, out, _ = command(capsys, folder, repo, "--dry-run")
    assert code == 0
    assert "  recipe.toml\n" in out
    assert "removed: results/photos.knn.json" in out
    assert "model.safetensors" not in out
    assert writes(lab) == []
    assert history(lab, repo)[-1] == first.sha


def test_a_dry_run_checks_the_folder(lab: LoopbackHub, repo: str, folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"x")
    assert "extra.bin" in refusal(lambda: publish(folder, repo, dry_run=True))


# --------------------------------------------------------------------------- somebody else's work


def test_a_repository_changed_by_somebody_else_is_left_alone(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(folder, repo)
    theirs = lab.add_model(repo, {"README.md": "their words"})
    lab.requests.clear()
    code, out, err = command(capsys, folder, repo)
    assert (code, out) == (2, "")
    assert theirs[:7] in err
    assert f"--replace {theirs[:12]}" in err
    assert str(folder) in err
    assert writes(lab) == []
    assert held(lab, repo)["README.md"] == b"their words"


def test_replace_names_the_commit_it_replaces(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish(folder, repo)
    theirs = lab.add_model(repo, {"README.md": "their words", "notes.txt": "theirs"})
    for wrong in (first.sha, theirs[:6], "", "f" * 40, theirs + "0"):
        said = refusal(lambda wrong=wrong: publish(folder, repo, replace=wrong))
        assert theirs in said
        assert history(lab, repo)[-1] == theirs
    code, _, err = command(capsys, folder, repo, "--replace", theirs[:12])
    assert code == 0, err
    assert held(lab, repo) == staged(folder, repo)
    assert history(lab, repo)[:-1] == [*history(lab, repo)[:2], theirs]


def test_replace_without_a_repository_makes_none(lab: LoopbackHub, repo: str, folder: Path) -> None:
    with pytest.raises(UserError):
        publish(folder, repo, replace="f" * 40)
    assert ("model", repo) not in lab.repos


def test_two_publishers_at_once(lab: LoopbackHub, repo: str, folder: Path, made: Path) -> None:
    """The other's commit has our mark too; still nothing of it may be lost."""
    publish(folder, repo)
    (folder / "recipe.toml").write_text("# new\n" + (folder / "recipe.toml").read_text())

    def meanwhile() -> None:
        files = {**held(lab, repo), "recipe.toml": b"# theirs"}
        lab.add_model(repo, dict(files))

    lab.on_next(f"POST /api/models/{repo}/preupload/", meanwhile)
    assert "--replace" in refusal(publish, folder, repo)
    assert held(lab, repo)["recipe.toml"] == b"# theirs"


def test_the_same_published_by_another_meanwhile_is_no_quarrel(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    files = staged(folder, repo)
    lab.on_next(f"POST /api/models/{repo}/commit/", lambda: lab.add_model(repo, dict(files)))
    done = publish(folder, repo)
    assert history(lab, repo)[1:] == [done.sha]
    assert held(lab, repo) == files


def test_main_that_moves_while_we_upload(lab: LoopbackHub, repo: str, folder: Path) -> None:
    publish(folder, repo)
    (folder / "recipe.toml").write_text("# new\n" + (folder / "recipe.toml").read_text())
    theirs: list[str] = []
    lab.on_next(
        f"POST /api/models/{repo}/commit/",
        lambda: theirs.append(lab.add_model(repo, {"notes.txt": "theirs"})),
    )
    said = refusal(publish, folder, repo)
    assert theirs[0][:7] in said
    assert "--replace" in said
    assert history(lab, repo)[-1] == theirs[0]
    assert b"# new" not in held(lab, repo)["recipe.toml"]


def test_a_repository_of_somebody_else_is_refused(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    net = timm.create_model("test_resnet", num_classes=3)
    timm.models.push_to_hf_hub(net, repo, token=OTHER, safe_serialization=True)
    head = history(lab, repo)[-1]
    lab.requests.clear()
    said = refusal(publish, folder, repo)
    assert head[:7] in said
    assert writes(lab) == []
    assert history(lab, repo)[-1] == head


def test_an_empty_repository_is_anybodys(lab: LoopbackHub, repo: str, folder: Path) -> None:
    from huggingface_hub import HfApi

    HfApi(token=OTHER).create_repo(repo)
    publish(folder, repo)
    assert held(lab, repo) == staged(folder, repo)


# --------------------------------------------------------------------------- faults

BUSY: dict[str, Callable[[LoopbackHub, str], None]] = {
    "whoami 503": lambda h, r: h.fail_next(2, 503, "GET /api/whoami-v2"),
    "info 429": lambda h, r: h.fail_next(1, 429, f"GET /api/models/{r}", {"Retry-After": "7"}),
    "info 503": lambda h, r: h.fail_next(2, 503, f"GET /api/models/{r}"),
    "info dropped": lambda h, r: h.drop_next(1, f"GET /api/models/{r}"),
    "create 503": lambda h, r: h.fail_next(1, 503, "POST /api/repos/create"),
    "create landed": lambda h, r: h.land_then_fail(1, 503, "POST /api/repos/create"),
    "create unheard": lambda h, r: h.land_then_fail(1, None, "POST /api/repos/create"),
    "tree 503": lambda h, r: h.fail_next(1, 503, f"/api/models/{r}/tree/"),
    "preupload 500": lambda h, r: h.fail_next(1, 500, f"POST /api/models/{r}/preupload"),
    "batch 502": lambda h, r: h.fail_next(1, 502, f"POST /{r}.git/info/lfs"),
    "put 503": lambda h, r: h.fail_next(1, 503, "PUT /storage/"),
    "put dropped": lambda h, r: h.drop_next(1, "PUT /storage/"),
    "verify 503": lambda h, r: h.fail_next(1, 503, f"POST /{r}.git/info/lfs/verify"),
    "commit 429": lambda h, r: h.fail_next(
        1, 429, f"POST /api/models/{r}/commit/", {"Retry-After": "7"}
    ),
    "commit 503": lambda h, r: h.fail_next(2, 503, f"POST /api/models/{r}/commit/"),
    "commit dropped": lambda h, r: h.drop_next(1, f"POST /api/models/{r}/commit/"),
    "commit landed": lambda h, r: h.land_then_fail(1, 503, f"POST /api/models/{r}/commit/"),
    "commit unheard": lambda h, r: h.land_then_fail(1, None, f"POST /api/models/{r}/commit/"),
    "config 503": lambda h, r: h.fail_next(1, 503, f"HEAD /{r}/resolve/"),
    "weights 503": lambda h, r: h.fail_next(1, 503, "GET /storage/"),
    "weights cut": lambda h, r: h.cut_next(1, 1000, "GET /storage/"),
}


@pytest.mark.parametrize("fault", BUSY)
def test_a_fault_that_passes_ends_in_one_commit(
    lab: LoopbackHub, repo: str, folder: Path, sleeps: list[float], fault: str
) -> None:
    BUSY[fault](lab, repo)
    done = publish(folder, repo)
    assert not any(f.left for f in lab._server.faults), "the fault was not met"
    assert len(history(lab, repo)) == 2
    assert history(lab, repo)[1] == done.sha
    assert held(lab, repo) == staged(folder, repo)
    if "429" in fault:
        assert max(sleeps) >= 7  # Retry-After
    assert publish(folder, repo).sha == done.sha


def test_a_landed_update_that_removes_files_is_recognised(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    (folder / "results" / "photos.knn.json").unlink()
    card.write(folder)
    lab.land_then_fail(1, 503, f"POST /api/models/{repo}/commit/")
    done = publish(folder, repo)
    assert len(history(lab, repo)) == 3
    assert done.sha == history(lab, repo)[-1]


@pytest.mark.parametrize(
    "where", ["", "/preupload/", ".git/info/lfs", "PUT /storage/", "/commit/", "/tree/"]
)
def test_a_hub_that_stays_down_keeps_the_old_commit(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    first = publish(folder, repo)
    torch.manual_seed(77)
    net = timm.create_model("test_resnet", num_classes=7)
    save_file(net.state_dict(), folder / "model.safetensors")
    write_result(folder)
    card.write(folder)
    lab.blobs.pop(sha256_file(folder / "model.safetensors"), None)
    lab.fail_next(10_000, 503, where)
    code, out, err = command(capsys, folder, repo)
    lab.clear_faults()
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("transfer-zoo: ")
    assert "try again later" in last
    assert history(lab, repo)[-1] == first.sha
    done = publish(folder, repo)
    assert len(history(lab, repo)) == 3
    assert "model.safetensors" in done.uploaded


@pytest.mark.parametrize(
    "where", ["/preupload/", "/info/lfs/objects/batch", "/storage/", "/commit/"]
)
def test_ctrl_c_keeps_the_old_commit(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], where: str,
) -> None:  # fmt: skip
    from huggingface_hub.utils import get_session

    client = type(get_session())
    send = client.send

    def interrupted(self: Any, request: Any, **options: Any) -> Any:
        if request.method != "GET" and where in str(request.url):
            raise KeyboardInterrupt
        return send(self, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(client, "send", interrupted)
        code, out, _ = command(capsys, folder, repo)
    assert (code, out) == (130, "")
    assert len(history(lab, repo)) == 1
    assert held(lab, repo) == {}
    publish(folder, repo)
    assert len(history(lab, repo)) == 2


@pytest.mark.slow
def test_a_process_killed_while_it_uploads(
    lab: LoopbackHub, repo: str, folder: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "publish", str(folder), repo],
        env=lab.env(tmp_path / "home", TOKEN), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    lab.slow_next(1, 1.0, "PUT /storage/")
    lab.on_next("PUT /storage/", lambda: os.kill(process.pid, signal.SIGINT))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert TOKEN not in err
    assert len(history(lab, repo)) == 1
    lab.clear_faults()
    publish(folder, repo)
    assert held(lab, repo) == staged(folder, repo)
    assert len(history(lab, repo)) == 2


# --------------------------------------------------------------------------- unfit folders


def damage_nan(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    name = next(n for n, value in weights.items() if value.ndim == 4)
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, folder / "model.safetensors")
    write_result(folder)
    card.write(folder)
    return "not finite"


def damage_fit(folder: Path) -> str:
    write_config(folder, architecture="test_resnet", model_args={"channels": [8, 8, 8, 8]})
    write_result(folder)
    card.write(folder)
    return "cannot load"


def damage_architecture(folder: Path) -> str:
    write_config(folder, architecture="no_such_net")
    write_result(folder)
    card.write(folder)
    return "no_such_net"


def damage_head(folder: Path) -> str:
    """A classifier that the config's number of classes does not fit."""
    write_config(folder, num_classes=5)
    write_result(folder)
    card.write(folder)
    return "cannot load"


def damage_head_nan(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    weights["fc.weight"] = torch.full_like(weights["fc.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors")
    write_result(folder)
    card.write(folder)
    return "not finite"


def damage_stale(folder: Path) -> str:
    write_result(folder, value=0.7)
    return "README.md"


def damage_card(folder: Path) -> str:
    readme = folder / "README.md"
    text = readme.read_text()
    assert "40.5" in text
    readme.write_text(text.replace("40.5", "99.9"))
    return "transfer-zoo card"


def damage_weights(folder: Path) -> str:
    damage_nan(folder)
    write_result(folder, weights_sha256="0" * 64)
    return "other weights"


def damage_config(folder: Path) -> str:
    write_result(folder, revision="0" * 40)
    return "another config.json"


def damage_incomplete(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"]["mean"]
    (folder / "config.json").write_text(json.dumps(config))
    return "not a complete config"


def damage_broken(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"no weights")
    return "not a safetensors"


def damage_cut(folder: Path) -> str:
    """The header is whole, half of the tensors are not there."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_result(folder)
    card.write(folder)
    return "cannot load"


def adding(name: str, said: str) -> Callable[[Path], str]:
    def damage(folder: Path) -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
        return said

    return damage


def removing(name: str) -> Callable[[Path], str]:
    def damage(folder: Path) -> str:
        (folder / name).unlink()
        return name

    return damage


DAMAGES: dict[str, Any] = {
    "NaN": damage_nan,
    "misfit": damage_fit,
    "architecture": damage_architecture,
    "stale card": damage_stale,
    "edited card": damage_card,
    "no card": removing("README.md"),
    "no config": removing("config.json"),
    "no weights": removing("model.safetensors"),
    "no recipe": removing("recipe.toml"),
    "other weights": damage_weights,
    "other config": damage_config,
    "incomplete config": damage_incomplete,
    "broken weights": damage_broken,
    "cut weights": damage_cut,
    "pickle": adding("pytorch_model.bin", "run code"),
    "pickle inside": adding("results/weights.pt", "run code"),
    "extra": adding("notes.txt", "'notes.txt'"),
    "hidden extra": adding(".env", "'.env'"),
    "extra folder": adding("more/config.json", "more/config.json"),
    "no result": adding("results/odd.json", "odd.json"),
}


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(damage, id=name) for name, damage in DAMAGES.items()),
        pytest.param(damage_head, id="classifier misfit"),
        pytest.param(damage_head_nan, id="classifier NaN"),
    ],
)
def test_a_folder_that_is_unfit_is_refused_before_anything_is_written(
    lab: LoopbackHub, repo: str, folder: Path, damage: Callable[[Path], str]
) -> None:
    said = damage(folder)
    lab.requests.clear()
    assert said in refusal(publish, folder, repo)
    assert writes(lab) == []
    assert ("model", repo) not in lab.repos


@pytest.mark.parametrize(
    ("limit", "value", "name"),
    [("_REGULAR_LIMIT", 100, "README.md"), ("_LFS_LIMIT", 5000, "model.safetensors")],
)
def test_a_file_that_is_too_large(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    limit: str, value: int, name: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(f"zoo.card.publish.{limit}", value)
    said = refusal(publish, folder, repo)
    assert re.search(r"/(\S+) has \d+\.\d+ MB", said)
    if limit == "_LFS_LIMIT":
        assert name in said or "learning_curve.png" in said
    assert writes(lab) == []


def test_no_such_folder(lab: LoopbackHub, repo: str, tmp_path: Path) -> None:
    assert "is not a folder" in refusal(publish, tmp_path / "nothing", repo)


# --------------------------------------------------------------------------- the proof


def tamper(lab: LoopbackHub, folder: Path) -> Callable[[], None]:
    """Let the Hub hold other weights of the same size under the same name."""
    path = folder / "model.safetensors"
    sha, weights = sha256_file(path), load_file(path)
    name = next(n for n, value in weights.items() if value.ndim == 4)
    data = save(weights | {name: -weights[name]})
    assert len(data) == path.stat().st_size

    def change() -> None:
        lab.blobs[sha] = replace(lab.blobs[sha], data=data)

    return change


def test_weights_that_come_back_different_are_reported(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.on_next("GET /storage/", tamper(lab, folder))
    code, out, err = command(capsys, folder, repo)
    assert (code, out) == (2, "")
    sha = history(lab, repo)[-1]
    assert sha in err
    assert "other features" in err
    assert "do not use it" in err


def test_a_proof_that_failed_is_made_again(lab: LoopbackHub, repo: str, folder: Path) -> None:
    lab.on_next("GET /storage/", tamper(lab, folder))
    refusal(publish, folder, repo)
    assert refusal(publish, folder, repo)  # the Hub still gives other weights


# --------------------------------------------------------------------------- who may


def test_no_token(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    said = refusal(publish, folder, repo)
    assert "HF_TOKEN" in said
    assert "hf auth login" in said
    assert writes(lab) == []


def test_a_token_the_hub_does_not_know(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_revoked12345")
    said = refusal(publish, folder, repo)
    assert "does not accept the token" in said
    assert "hf_revoked12345" not in said
    assert writes(lab) == []


def test_a_token_that_may_only_read(lab: LoopbackHub, repo: str, folder: Path) -> None:
    lab.read_only.add(TOKEN)
    assert "may only read" in refusal(publish, folder, repo)
    assert writes(lab) == []


def test_a_namespace_of_others(lab: LoopbackHub, folder: Path) -> None:
    said = refusal(publish, folder, "strangers/net")
    assert "'strangers'" in said
    assert "ada, lab, zoo" in said
    assert writes(lab) == []


def test_a_right_that_is_taken_away_meanwhile(lab: LoopbackHub, repo: str, folder: Path) -> None:
    """The Hub's own refusal, where ours did not foresee it."""
    publish(folder, repo)
    (folder / "recipe.toml").write_text("# new\n" + (folder / "recipe.toml").read_text())
    lab.on_next("/preupload/", lambda: lab.orgs.clear())
    said = refusal(publish, folder, repo)
    assert "forbids" in said
    assert len(history(lab, repo)) == 2


def test_a_commit_that_the_hub_forbids_is_not_asked_for_again(
    lab: LoopbackHub, repo: str, folder: Path, sleeps: list[float]
) -> None:
    lab.fail_next(1, 403, f"POST /api/models/{repo}/commit/")
    assert "forbids" in refusal(publish, folder, repo)
    assert sleeps == []
    assert len([p for _, p in lab.requests if "/commit/" in p]) == 1


# --------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "where", ["/api/whoami-v2", "/api/repos/create", "/preupload/", "/commit/", "/tree/", "HEAD /"]
)
@pytest.mark.parametrize("status", [400, 403, 503])
def test_a_token_that_the_server_echoes_is_blotted_out(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, where: str, status: int,
) -> None:  # fmt: skip
    echo = {"X-Error-Message": f"your Authorization: Bearer {TOKEN} ({TOKEN}) is odd"}
    lab.fail_next(1000, status, where, echo)
    code, out, err = command(capsys, folder, repo)
    assert code == 2
    assert "Traceback" not in err
    with pytest.raises(UserError) as error:
        publish(folder, f"{repo}-b")
    chain: list[str] = []
    cause: BaseException | None = error.value
    while cause is not None and not (cause is not error.value and cause.__suppress_context__):
        chain.append(repr(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    for text in (out, err, caplog.text, *chain):
        assert TOKEN not in text
        assert TOKEN[3:] not in text


def test_the_token_is_nowhere(
    lab: LoopbackHub, repo: str, folder: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    lab.fail_next(1, 503, f"GET /api/models/{repo}")
    with caplog.at_level("DEBUG"):
        code, out, err = command(capsys, folder, repo)
    assert code == 0
    secret = TOKEN[3:]
    assert secret not in out + err + caplog.text
    found = lab.repos["model", repo]
    for commit in found.commits.values():
        assert secret not in commit.title + commit.message
        for name, blob in commit.files.items():
            assert secret.encode() not in blob.read(), name
    assert not [path for _, path in lab.requests if secret in path]
    for path in folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


# --------------------------------------------------------------------------- the command's words


@pytest.mark.parametrize(
    "argv",
    [[], ["DIR"], ["DIR", "lab/x", "--all", "lab"], ["--all", "lab", "--replace", "a" * 40],
     ["--all", "a--b"], ["--all", ""], ["DIR", "lab"], ["DIR", "lab/a--b"], ["DIR", "a/b/c"]],
)  # fmt: skip
def test_words_that_make_no_sense(
    lab: LoopbackHub, folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    code, out, err = command(capsys, *(str(folder) if a == "DIR" else a for a in argv))
    assert (code, out) == (2, "")
    assert err.startswith("transfer-zoo: ")
    assert err.count("\n") == 1
    assert lab.requests == []


# --------------------------------------------------------------------------- the whole zoo


@pytest.fixture
def zoo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: LoopbackHub) -> Path:
    """Two checkpoints that ship; the Hub has no collection yet."""
    place = tmp_path / "model_cards"
    monkeypatch.setattr("zoo.card.publish.ZOO_FOLDER", place)
    monkeypatch.setattr("eval.models.names.ZOO_FOLDER", place)
    monkeypatch.setattr(lab, "collections", {})
    for name in ("one.ce_made", "two.ce_made"):
        ship(made, place / name)
    return place


def ship(made: Path, folder: Path) -> None:
    shutil.copytree(made, folder)
    write_result(folder)
    (folder / "recipe.toml").write_text(
        (folder / "recipe.toml").read_text().replace('"made"', f'"{folder.name[:3]}"')
    )
    (folder / "README.md").unlink()
    card.write(folder)


@pytest.fixture
def org(request: pytest.FixtureRequest, lab: LoopbackHub) -> str:
    name = "o" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    lab.orgs["ada"].add(name)
    return name


def listed(lab: LoopbackHub) -> list[list[str]]:
    return [[item["id"] for item in c.items] for c in lab.collections.values()]


def test_all_publishes_the_zoo_and_its_collection(
    lab: LoopbackHub, zoo: Path, made: Path, org: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, "--all", org)
    assert code == 0, err
    repos = [f"{org}/one.ce_made", f"{org}/two.ce_made"]
    for repo in repos:
        assert held(lab, repo) == staged(zoo / repo.partition("/")[2], repo)
        assert f'"hf-hub:{repo}"' in out
    assert listed(lab) == [repos]
    (first,) = lab.collections.values()
    assert (first.title, first.owner, first.private) == (COLLECTION, org, False)
    assert f"{lab.url}/collections/{first.slug}" in out

    lab.requests.clear()
    code, out, _ = command(capsys, "--all", org)
    assert code == 0
    assert out.count("nothing changed") == 2
    assert writes(lab) == []
    assert listed(lab) == [repos]

    ship(made, zoo / "three.ce_made")
    code, _, _ = command(capsys, "--all", org)
    assert code == 0
    assert listed(lab) == [[*repos, f"{org}/three.ce_made"]]
    assert list(lab.collections.values()) == [first]
    assert all(len(history(lab, repo)) == 2 for repo in repos)


def test_a_dry_run_of_all_makes_no_collection(
    lab: LoopbackHub, zoo: Path, org: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, "--all", org, "--dry-run")
    assert code == 0, err
    assert out.count("would upload") == 2
    assert writes(lab) == []
    assert lab.collections == {}


def test_all_tells_of_what_it_published_before_it_failed(
    lab: LoopbackHub, zoo: Path, org: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (zoo / "two.ce_made" / "notes.txt").write_text("extra")
    code, out, err = command(capsys, "--all", org)
    assert code != 0
    assert "notes.txt" in err
    assert history(lab, f"{org}/one.ce_made")[-1] in out


@pytest.mark.parametrize("status", [429, 503, None])
def test_a_collection_is_made_once_though_the_answer_is_lost(
    lab: LoopbackHub, zoo: Path, org: str, status: int | None
) -> None:
    from zoo.card.publish import collect, publish_all

    done = list(publish_all(org, private=True))
    lab.land_then_fail(1, status, "POST /api/collections")
    lab.land_then_fail(1, status, "/items")
    lab.fail_next(1, 503, "GET /api/collections")
    address = collect(org, [one.repo for one in done], private=True)
    assert all(isinstance(one, Mirrored) for one in done)
    assert listed(lab) == [[one.repo for one in done]]
    assert next(iter(lab.collections.values())).slug in address
    assert next(iter(lab.collections.values())).private
    assert all(lab.repos["model", one.repo].private for one in done)


def test_a_collection_that_cannot_be_made_is_one_sentence(
    lab: LoopbackHub, zoo: Path, org: str
) -> None:
    from zoo.card.publish import collect

    lab.fail_next(100, 403, "POST /api/collections", {"X-Error-Message": f"no, {TOKEN}"})
    said = refusal(collect, org, [])
    assert org in said
    assert TOKEN not in said


def test_upload_stage_agrees_with_the_hub(lab: LoopbackHub, repo: str, folder: Path) -> None:
    """What `changed` compares is what the Hub answers, for every staged file."""
    from huggingface_hub import HfApi

    publish(folder, repo)
    remote = commits.look(HfApi(), repo, "model")
    assert remote is not None
    assert remote.sha == history(lab, repo)[-1]
    assert commits.changed(stage(folder, repo), remote.digests) == []
