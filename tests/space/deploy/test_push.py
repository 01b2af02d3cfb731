"""A Space from this checkout: what lands on the Hub, that it runs there, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from eval.common.files import sha256_file
from space.deploy import push as module
from space.deploy import wheel as wheel_module
from space.deploy.push import TRAILER, Pushed, push, stage
from space.deploy.wheel import build_wheel, sources
from tests.factories import let_write, refusal
from tests.hub import LoopbackHub

TOKEN = "hf_publisherSecretToken0123456789"
OTHER = "hf_somebodyElse9876543210"
CHECKOUT = Path(__file__).resolve().parents[3]
MODEL = "resnet18_narrow.ce_tin100"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


# --------------------------------------------------------------------------- a checkout


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is now, with one checkpoint, among what a working folder gathers."""
    root = tmp_path_factory.mktemp("push") / "checkout"
    root.mkdir()
    caches = shutil.ignore_patterns("__pycache__")  # other processes write there meanwhile
    for name in ("pyproject.toml", "README.md", "LICENSE", "transferzoo.py"):
        shutil.copy(CHECKOUT / name, root)
    for name in ("eval", "zoo", "space"):
        shutil.copytree(CHECKOUT / name, root / name, ignore=caches)
    shutil.copytree(CHECKOUT / "model_cards" / MODEL, root / "model_cards" / MODEL)
    for stray in (
        ".env", ".git/config", ".venv/lib/x.py", "tests/test_x.py", "shared/data/x.parquet",
        "results/x.json", "build/lib/eval/stale.py", "eval/__pycache__/stale.cpython-311.pyc",
        "eval/.env", "space/secrets.toml", "space/.gradio/certificate.pem", "zoo/notes.txt",
        "space/.ipynb_checkpoints/app-checkpoint.py", "zoo/recipes/mine.toml.orig",
        f"model_cards/{MODEL}/state/last.pt", f"model_cards/{MODEL}/.git/config",
    ):  # fmt: skip
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_text(f"{TOKEN}\n")
    (root / "eval" / "secret.py").symlink_to(root / ".env")
    return root


def use(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Push from this checkout."""
    monkeypatch.setattr("space.deploy.wheel.ROOT", root)
    monkeypatch.setattr(module, "ZOO_FOLDER", root / "model_cards")
    monkeypatch.setattr("eval.models.names.ZOO_FOLDER", root / "model_cards")


@pytest.fixture(scope="session")
def wheels() -> dict[str, tuple[str, bytes]]:
    return {}


@pytest.fixture
def checkout(
    snapshot: Path, wheels: dict[str, tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The snapshot, to read; the same sources are built once."""
    use(monkeypatch, snapshot)

    def remembered(build: Path) -> tuple[str, bytes]:
        texts = [(wheel_module.ROOT / p).read_bytes() for p in (*sources(), "pyproject.toml")]
        key = hashlib.sha256(b"\0".join(texts)).hexdigest()
        if key not in wheels:
            wheels[key] = build_wheel(build)
        return wheels[key]

    monkeypatch.setattr(module, "build_wheel", remembered)
    return snapshot


@pytest.fixture
def own(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout, to change."""
    root = tmp_path / "own"
    shutil.copytree(checkout, root, symlinks=True)
    use(monkeypatch, root)
    return root


def remark(root: Path) -> str:
    """Change one file that is in no wheel; its path in the Space."""
    recipe = root / "model_cards" / MODEL / "recipe.toml"
    recipe.write_text("# a remark\n" + recipe.read_text())
    return f"model_cards/{MODEL}/recipe.toml"


# --------------------------------------------------------------------------- the Hub


@pytest.fixture
def lab(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, sleeps: list[float], checkout: Path
) -> Iterator[LoopbackHub]:
    """A strict Hub where the token's owner, ada, may write to ada and lab. It has no weights."""
    let_write(
        hub,
        monkeypatch,
        {TOKEN: "ada", OTHER: "bob"},
        orgs={"ada": {"lab"}, "bob": {"lab"}},
        strict_auth=True,
    )
    weights = sha256_file(checkout / "model_cards" / MODEL / "model.safetensors")
    kept = hub.blobs.pop(weights, None)
    hub.clear_faults()
    yield hub
    hub.clear_faults()
    if kept is not None:
        hub.blobs[weights] = kept


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A Space of this test's own: the Hub lives as long as the session."""
    return f"lab/space-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def held(hub: LoopbackHub, repo: str) -> dict[str, bytes]:
    files = hub.repos["space", repo].head.files
    return {name: blob.read() for name, blob in files.items() if name != ".gitattributes"}


def history(hub: LoopbackHub, repo: str) -> list[str]:
    """Commits of main, oldest first."""
    found = hub.repos["space", repo]
    return [commit.sha for commit in found.history(found.head)][::-1]


def writes(hub: LoopbackHub) -> list[tuple[str, str]]:
    return [(method, path) for method, path in hub.requests if method not in ("GET", "HEAD")]


def staged(
    hub: LoopbackHub, repo: str, build: Path, results: str = "", private: bool = False
) -> dict[str, bytes]:
    files = stage(repo, hub.url, results=results, private=private, build=build)
    return {n: c if isinstance(c, bytes) else c.read_bytes() for n, c in files.items()}


def card(content: bytes) -> dict[str, Any]:
    return yaml.safe_load(content.decode().split("---\n", 2)[1])


def wheel_of(files: dict[str, bytes]) -> str:
    (name,) = (name for name in files if name.endswith(".whl"))
    return name


# --------------------------------------------------------------------------- what lands


def test_one_commit_holds_exactly_the_staged_files(
    lab: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    said: list[str] = []
    done = push(repo, say=said.append)
    files = staged(lab, repo, tmp_path)
    assert held(lab, repo) == files
    shas = history(lab, repo)
    assert len(shas) == 2  # the Hub's own first, and ours
    assert done == Pushed(
        repo, f"{lab.url}/spaces/{repo}", shas[1], done.uploaded, (), done.bytes, False, ()
    )
    assert sorted(done.uploaded) == sorted(files)
    assert done.bytes == sum(map(len, files.values()))
    space = lab.repos["space", repo]
    assert (space.sdk, space.private, space.head.author) == ("gradio", False, "ada")
    assert TRAILER in space.head.message
    assert done.url in said[-1]


def test_nothing_else_than_the_named_files_is_uploaded(
    lab: LoopbackHub, repo: str, checkout: Path
) -> None:
    push(repo)
    files = held(lab, repo)
    zoo = {name for name in files if name.startswith("model_cards/")}
    assert set(files) - zoo == {"README.md", "requirements.txt", "app.py", wheel_of(files)}
    folder = checkout / "model_cards" / MODEL
    here = {
        f"model_cards/{MODEL}/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and not {"state", ".git"} & set(path.parts)
    }
    assert zoo == here
    with zipfile.ZipFile(io.BytesIO(files[wheel_of(files)])) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        texts = [wheel.read(name) for name in wheel.namelist()]
    assert inside == set(sources())
    assert all(
        name.endswith((".py", ".typed", ".toml", ".jinja", ".md", ".txt", ".json", ".css", ".js"))
        for name in inside
    )
    data = {name for name in inside if name.endswith(".json")}
    assert data == {"eval/analysis/evidence.json"}
    strays = ("stale", "pycache", "ipynb", "secret", "notes.txt", "certificate", ".env", "test")
    assert not [name for name in (*inside, *files) if any(stray in name for stray in strays)]
    for content in (*texts, *files.values()):
        assert TOKEN.encode() not in content
        assert str(checkout).encode() not in content
        assert str(CHECKOUT).encode() + b"/" not in content


def test_the_real_zoo_ships_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build_wheel", lambda build: ("x.whl", b"x"))
    files = stage("lab/x", "https://huggingface.co", results="", private=False, build=tmp_path)
    zoo = CHECKOUT / "model_cards"
    folders = [p.parent for p in zoo.glob("*/config.json")]
    assert len(folders) >= 6
    shipped = {
        f"model_cards/{p.relative_to(zoo)}" for f in folders for p in f.rglob("*") if p.is_file()
    }
    found = {f"model_cards/{p.relative_to(zoo)}" for p in (zoo / "analyses").rglob("*.json")}
    studies = {f"model_cards/{p.name}" for p in zoo.glob("*.results.parquet")}
    assert len(studies) == 1
    assert {name for name in files if name.startswith("model_cards/")} == shipped | found | studies
    head = card(files["README.md"])  # type: ignore[arg-type]
    assert head["models"] == card((CHECKOUT / "space" / "README.md").read_bytes())["models"]
    assert sorted(head["models"]) == sorted(f"transferzoo/{f.name}" for f in folders)


def test_a_second_push_makes_no_commit(lab: LoopbackHub, repo: str) -> None:
    first = push(repo)
    lab.requests.clear()
    again = push(repo)
    assert (again.sha, again.uploaded, again.removed, again.bytes) == (first.sha, (), (), 0)
    assert writes(lab) == []
    assert len(history(lab, repo)) == 2


def test_a_changed_file_makes_a_commit_of_that_file(lab: LoopbackHub, repo: str, own: Path) -> None:
    push(repo)
    name = remark(own)
    done = push(repo)
    assert (done.uploaded, done.removed) == ((name,), ())
    assert len(history(lab, repo)) == 3
    old, new = (lab.repos["space", repo].commits[sha].files for sha in history(lab, repo)[1:])
    assert [n for n in {*old, *new} if old.get(n) != new.get(n)] == [name]


def test_a_changed_module_changes_the_requirements_too(
    lab: LoopbackHub, repo: str, own: Path
) -> None:
    """A Space's build takes its installed packages from a cache while their file is the same."""
    first = push(repo)
    words = own / "space" / "labels.py"
    words.write_text(words.read_text() + "# a remark\n")
    done = push(repo)
    name = wheel_of(held(lab, repo))
    assert sorted(done.uploaded) == sorted(["requirements.txt", name])
    assert done.sha != first.sha


def test_a_new_version_takes_the_old_wheel_away(lab: LoopbackHub, repo: str, own: Path) -> None:
    push(repo)
    old = wheel_of(held(lab, repo))
    project = own / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))
    done = push(repo)
    assert done.removed == (old,)
    assert wheel_of(held(lab, repo)).startswith("transferzoo-9.")
    assert len(history(lab, repo)) == 3


def test_a_checkpoint_that_is_gone_here_goes_there(
    lab: LoopbackHub, repo: str, own: Path, tmp_path: Path
) -> None:
    other = own / "model_cards" / "resnet18_narrow.other"
    shutil.copytree(own / "model_cards" / MODEL, other)
    push(repo)
    assert f"model_cards/{other.name}/config.json" in held(lab, repo)
    shutil.rmtree(other)
    done = push(repo)
    assert all(other.name in name for name in done.removed)
    assert held(lab, repo) == staged(lab, repo, tmp_path)
    assert len(history(lab, repo)) == 3


def test_results_of_the_hub_are_named_in_the_settings(lab: LoopbackHub, repo: str) -> None:
    done = push(repo, results="hub:lab/results")
    assert json.loads(held(lab, repo)["settings.json"]) == {"results": "hub:lab/results"}
    assert card(held(lab, repo)["README.md"])["datasets"] == ["lab/results"]
    assert "HF_TOKEN" in done.notes[0]
    done = push(repo)
    assert done.removed == ("settings.json",)
    assert done.uploaded == ("README.md",)


@pytest.mark.parametrize("results", ["results", "/tmp/x", "hub:", "hub:x", "hub:a/b/c", "hub:a/b@"])
def test_other_results_are_refused(lab: LoopbackHub, repo: str, results: str) -> None:
    refusal(lambda: push(repo, results=results))
    assert lab.requests == []


def test_a_renamed_space_stays_whole(lab: LoopbackHub, repo: str) -> None:
    push(repo)
    lab.rename(repo, f"{repo}-new", "space")
    assert push(repo).uploaded == ()
    assert ("space", repo) not in lab.repos


# --------------------------------------------------------------------------- private


def test_a_private_space_holds_the_source(
    lab: LoopbackHub, repo: str, tmp_path: Path, checkout: Path
) -> None:
    done = push(repo, private=True)
    assert lab.repos["space", repo].private
    files = held(lab, repo)
    assert files == staged(lab, repo, tmp_path, private=True)
    assert not [name for name in files if name.endswith(".whl")]
    assert {n for n in files if n.startswith(("eval/", "zoo/", "space/", "transferzoo"))} == set(
        sources()
    )
    lines = files["requirements.txt"].decode().splitlines()
    assert "transferzoo" not in files["requirements.txt"].decode()
    assert {"torch>=2.6", "gradio>=6.5.1", "plotly>=6.0", "timm>=1.0.26"} <= set(lines)
    assert "private" in done.notes[0]
    assert len(history(lab, repo)) == 2


def test_a_private_space_stays_private_and_a_published_one_gets_its_wheel(
    lab: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    push(repo, private=True)
    done = push(repo)
    assert (done.uploaded, done.removed) == ((), ())
    assert lab.repos["space", repo].private
    lab.repos["space", repo].private = False
    done = push(repo)
    assert sorted(done.uploaded) == ["requirements.txt", wheel_of(held(lab, repo))]
    assert sorted(done.removed) == sources()
    assert held(lab, repo) == staged(lab, repo, tmp_path)


def test_private_is_not_for_a_public_space(lab: LoopbackHub, repo: str) -> None:
    first = push(repo)
    assert "public already" in refusal(lambda: push(repo, private=True))
    assert history(lab, repo)[-1] == first.sha


@pytest.mark.slow
def test_what_a_private_space_holds_runs(
    lab: LoopbackHub, repo: str, tmp_path: Path, checkout: Path
) -> None:
    push(repo, private=True)
    root = unpack(lab, repo, tmp_path / "app")
    look = "import app, eval.models.names as m; print(m.zoo_names(), m.__file__, app.build)"
    out = python(["-c", look], tmp_path / "home", cwd=root)
    assert MODEL in out
    assert str(root) in out


# --------------------------------------------------------------------------- dry runs


def test_a_dry_run_writes_nothing_and_needs_no_token(
    lab: LoopbackHub, repo: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = push(repo, dry_run=True)
    assert (done.sha, done.dry_run) == ("", True)
    assert "app.py" in done.uploaded
    assert writes(lab) == []
    assert ("space", repo) not in lab.repos
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    first = push(repo)
    monkeypatch.delenv("HF_TOKEN")
    lab.requests.clear()
    name = remark(own)
    (own / "model_cards" / MODEL / "learning_curve.png").unlink()
    done = push(repo, dry_run=True)
    assert (done.sha, done.uploaded) == (first.sha, (name,))
    assert done.removed == (f"model_cards/{MODEL}/learning_curve.png",)
    assert writes(lab) == []
    assert history(lab, repo)[-1] == first.sha


# --------------------------------------------------------------------------- other people


def test_a_change_of_somebody_else_is_left_alone(lab: LoopbackHub, repo: str, own: Path) -> None:
    push(repo)
    theirs = lab.add_repo("space", repo, {"app.py": b"# theirs"})
    lab.requests.clear()
    said = refusal(push, repo)
    assert theirs[:7] in said
    assert f"--replace {theirs[:12]}" in said
    assert theirs[:7] in refusal(lambda: push(repo, dry_run=True))
    assert "not at --replace" in refusal(lambda: push(repo, replace="0" * 12))
    assert "not at --replace" in refusal(lambda: push(repo, replace=theirs[:4]))
    assert writes(lab) == []
    done = push(repo, replace=theirs[:12])
    assert "app.py" in done.uploaded
    assert len(history(lab, repo)) == 4
    remark(own)
    push(repo)  # the last commit is ours again


def test_a_space_of_somebody_else_is_refused(lab: LoopbackHub, repo: str) -> None:
    theirs = lab.add_repo("space", repo, {"README.md": b"theirs", "app.py": b"theirs"})
    assert theirs[:7] in refusal(push, repo)
    assert writes(lab) == []


def test_nothing_to_replace(lab: LoopbackHub, repo: str) -> None:
    assert "nothing to --replace" in refusal(lambda: push(repo, replace="0" * 12))


def test_a_space_that_was_only_made_is_anybodys(lab: LoopbackHub, repo: str) -> None:
    """huggingface.co starts one with a README of its own."""
    lab.add_repo("space", repo, {"README.md": b"---\ntitle: Mine\nsdk: gradio\n---\n"})
    push(repo)
    assert len(history(lab, repo)) == 2
    assert card(held(lab, repo)["README.md"])["title"] == "TransferZoo"


def test_an_edited_readme_is_not_taken_for_a_new_space(lab: LoopbackHub, repo: str) -> None:
    lab.add_repo("space", repo, {"README.md": b"---\ntitle: Mine\nsdk: gradio\n---\n"})
    lab.add_repo("space", repo, {"README.md": b"---\ntitle: Edited\nsdk: gradio\n---\n"})
    assert "--replace" in refusal(push, repo)


def test_main_that_moves_while_we_upload(lab: LoopbackHub, repo: str, own: Path) -> None:
    push(repo)
    remark(own)
    theirs: list[str] = []
    lab.on_next(
        f"POST /api/spaces/{repo}/commit/",
        lambda: theirs.append(lab.add_repo("space", repo, {"notes.txt": b"theirs"})),
    )
    said = refusal(push, repo)
    assert theirs[0][:7] in said
    assert history(lab, repo)[-1] == theirs[0]


def test_the_same_pushed_by_another_meanwhile_is_no_quarrel(
    lab: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    files = staged(lab, repo, tmp_path)
    lab.on_next(
        f"POST /api/spaces/{repo}/commit/", lambda: lab.add_repo("space", repo, dict(files))
    )
    done = push(repo)
    assert history(lab, repo)[1:] == [done.sha]
    assert held(lab, repo) == files


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["space", "a/b/c", "lab/", "/x", "lab/a--b", "lab/..", "lab/a b"])
def test_an_id_that_no_space_can_have(lab: LoopbackHub, name: str) -> None:
    assert "space repository" in refusal(push, name)
    assert lab.requests == []


def test_no_right_no_write(lab: LoopbackHub, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'elsewhere'" in refusal(push, "elsewhere/space")
    lab.read_only |= {TOKEN}
    assert "may only read" in refusal(push, repo)
    monkeypatch.setenv("HF_TOKEN", "hf_unknownToken000000")
    said = refusal(push, repo)
    assert "token" in said
    assert "hf_unknown" not in said
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refusal(push, repo)
    assert writes(lab) == []
    assert ("space", repo) not in lab.repos


def test_a_refusal_repeats_no_token(lab: LoopbackHub, repo: str) -> None:
    lab.fail_next(100, 403, "/commit/", {"X-Error-Message": f"no, {TOKEN}"})
    said = refusal(push, repo)
    assert "forbids" in said
    assert TOKEN not in said


def test_only_from_a_checkout(
    lab: LoopbackHub, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("space.deploy.wheel.ROOT", tmp_path)
    assert "pyproject.toml" in refusal(push, repo)
    assert lab.requests == []


def test_no_checkpoints(
    lab: LoopbackHub, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.models.names.ZOO_FOLDER", tmp_path)
    assert "no checkpoints" in refusal(push, repo)


def test_a_space_that_is_too_large(
    lab: LoopbackHub, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 5_000_000)
    assert "GB" in refusal(push, repo)
    assert writes(lab) == []


def test_a_checkpoint_that_is_unfit(lab: LoopbackHub, repo: str, own: Path) -> None:
    (own / "model_cards" / MODEL / "notes.txt").write_text("x")
    assert "notes.txt" in refusal(push, repo)
    assert writes(lab) == []


def test_a_project_that_cannot_be_built(lab: LoopbackHub, repo: str, own: Path) -> None:
    project = own / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "no version ', 1))
    assert "could not be built" in refusal(push, repo)
    assert writes(lab) == []


# --------------------------------------------------------------------------- faults

BUSY: dict[str, Callable[[LoopbackHub, str], None]] = {
    "whoami 503": lambda h, r: h.fail_next(2, 503, "GET /api/whoami-v2"),
    "info 429": lambda h, r: h.fail_next(1, 429, f"GET /api/spaces/{r}", {"Retry-After": "7"}),
    "info dropped": lambda h, r: h.drop_next(1, f"GET /api/spaces/{r}"),
    "create 503": lambda h, r: h.fail_next(1, 503, "POST /api/repos/create"),
    "create landed": lambda h, r: h.land_then_fail(1, 503, "POST /api/repos/create"),
    "create unheard": lambda h, r: h.land_then_fail(1, None, "POST /api/repos/create"),
    "tree 503": lambda h, r: h.fail_next(1, 503, f"/api/spaces/{r}/tree/"),
    "history 503": lambda h, r: h.fail_next(1, 503, f"/api/spaces/{r}/commits/"),
    "preupload 500": lambda h, r: h.fail_next(1, 500, f"POST /api/spaces/{r}/preupload"),
    "put dropped": lambda h, r: h.drop_next(1, "PUT /storage/"),
    "commit 429": lambda h, r: h.fail_next(
        1, 429, f"POST /api/spaces/{r}/commit/", {"Retry-After": "7"}
    ),
    "commit 503": lambda h, r: h.fail_next(2, 503, f"POST /api/spaces/{r}/commit/"),
    "commit dropped": lambda h, r: h.drop_next(1, f"POST /api/spaces/{r}/commit/"),
    "commit landed": lambda h, r: h.land_then_fail(1, 503, f"POST /api/spaces/{r}/commit/"),
    "commit unheard": lambda h, r: h.land_then_fail(1, None, f"POST /api/spaces/{r}/commit/"),
}


@pytest.mark.parametrize("fault", BUSY)
def test_a_fault_that_passes_ends_in_one_commit(
    lab: LoopbackHub, repo: str, tmp_path: Path, sleeps: list[float], fault: str
) -> None:
    BUSY[fault](lab, repo)
    done = push(repo)
    assert not any(f.left for f in lab._server.faults), "the fault was not met"
    assert history(lab, repo)[1:] == [done.sha]
    assert held(lab, repo) == staged(lab, repo, tmp_path)
    if "429" in fault:
        assert max(sleeps) >= 7  # Retry-After


@pytest.mark.parametrize("where", ["/preupload/", "PUT /storage/", "/commit/"])
def test_a_hub_that_stays_down_leaves_a_space_that_the_next_push_fills(
    lab: LoopbackHub, repo: str, where: str
) -> None:
    lab.fail_next(10_000, 503, where)
    assert "try again later" in refusal(push, repo)
    lab.clear_faults()
    assert len(history(lab, repo)) == 1
    done = push(repo)
    assert history(lab, repo)[1:] == [done.sha]


# --------------------------------------------------------------------------- the wheel


@pytest.mark.slow
def test_the_same_sources_build_the_same_wheel(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later, elsewhere, under another umask, with what an earlier build left."""
    name, first = build_wheel(tmp_path / "one")
    for path in own.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    (own / "build" / "lib" / "space").mkdir(parents=True)
    (own / "build" / "lib" / "space" / "stale.py").write_text("")
    before = sorted(p.relative_to(own) for p in own.rglob("*"))
    mask = os.umask(0o077)
    try:
        assert build_wheel(tmp_path / "two" / "deeper") == (name, first)
    finally:
        os.umask(mask)
    assert sorted(p.relative_to(own) for p in own.rglob("*")) == before  # builds leave nothing
    with zipfile.ZipFile(io.BytesIO(first)) as wheel:
        assert {entry.date_time[0] for entry in wheel.infolist()} == {1980}
        assert wheel.testzip() is None


def test_a_wheel_is_built_without_setuptools_here(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then pip is left to fetch it."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=1, stdout="", stderr=f"ERROR: no {TOKEN}\n\n")

    monkeypatch.setattr("space.deploy.wheel.subprocess.run", run)
    monkeypatch.setattr("space.deploy.wheel.version", lambda name: "76.1")
    said = refusal(build_wheel, tmp_path)
    assert "--no-build-isolation" not in commands[0]
    assert "ERROR: no" in said
    assert TOKEN not in said


def unpack(hub: LoopbackHub, repo: str, folder: Path) -> Path:
    """What a Space's container has in its working folder."""
    for name, content in held(hub, repo).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def python(
    command: list[str], home: Path, *, cwd: Path, path: Path | None = None, zoo: Path | None = None
) -> str:
    """stdout of a Python that has the project from ``path`` (or the folder it is in) alone."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFERZOO_", "PY"))}
    env |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"PYTHONPATH": str(path)} if path else {}
    env |= {"TRANSFERZOO_ZOO": str(zoo)} if zoo else {}
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_space_installs_from_its_own_requirements_and_runs(
    lab: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    """As its build does it: requirements.txt alone, nobody logged in, the wheel by its URL."""
    push(repo)
    root = unpack(lab, repo, tmp_path / "app")
    alone = tmp_path / "build" / "requirements.txt"
    alone.parent.mkdir()
    shutil.copy(root / "requirements.txt", alone)
    installed, home = tmp_path / "site", tmp_path / "home"
    python(["-m", "pip", "install", "-q", "--no-deps", "--no-cache-dir", "--no-compile",
            "--target", str(installed), "-r", str(alone)], home, cwd=alone.parent)  # fmt: skip
    have = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert set(sources()) <= have

    def ran(*command: str) -> str:
        return python(list(command), home, cwd=home, path=installed, zoo=root / "model_cards")

    home.mkdir(exist_ok=True)
    where = ran("-c", "import eval, zoo, space; print(eval.__file__, zoo.__file__, space.__file__)")
    assert all(place.startswith(str(installed)) for place in where.split())
    assert "--port" in ran("-m", "space", "--help")
    assert f"zoo:{MODEL}" in ran("-m", "eval", "list", "models")
    assert "mini_imagenet" in ran("-m", "zoo", "list", "recipes")
    data = (
        "from importlib.resources import files as f;"
        "print(len(f('zoo').joinpath('templates/card.md.jinja').read_text()),"
        "len(f('space').joinpath('README.md').read_text()),"
        "len(f('space').joinpath('requirements.txt').read_text()))"
    )
    assert all(int(size) > 100 for size in ran("-c", data).split())


def test_a_wheel_of_another_push_is_not_installed(
    lab: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    push(repo)
    lines = held(lab, repo)["requirements.txt"].decode().splitlines()
    name = wheel_of(held(lab, repo))
    address, _, digest = lines[1].partition("#")
    needed = "transferzoo[space,transformers,open-clip]"
    assert address == f"{needed} @ {lab.url}/spaces/{repo}/resolve/main/{name}"
    assert digest == f"sha256={hashlib.sha256(held(lab, repo)[name]).hexdigest()}"
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert len(lines) == 2


# --------------------------------------------------------------------------- the card


def test_the_head_of_the_readme_is_a_spaces(lab: LoopbackHub, repo: str) -> None:
    from huggingface_hub import SpaceCard, metadata_load

    push(repo)
    content = held(lab, repo)["README.md"]
    head = card(content)
    assert head["title"] == "TransferZoo"
    assert (head["sdk"], head["sdk_version"]) == ("gradio", version("gradio"))
    assert (head["app_file"], head["pinned"], head["hf_oauth"]) == ("app.py", False, True)
    assert head["python_version"] == "3.11"  # text: 3.10 would be a number
    assert {head["colorFrom"], head["colorTo"]} <= COLOURS
    assert len(head["short_description"]) <= 60
    assert head["license"] == "apache-2.0"
    assert head["models"] == [f"transferzoo/{MODEL}"]
    assert len(head["emoji"]) == 1
    assert lab.repos["space", repo].sdk == "gradio"
    parsed = SpaceCard(content.decode())
    parsed.validate()
    assert parsed.data.to_dict()["sdk"] == "gradio"
    assert "transfer-space --push" in parsed.text
    shipped = CHECKOUT / "space" / "README.md"
    assert metadata_load(shipped)["sdk"] == "gradio"  # type: ignore[index]
    assert list(card(shipped.read_bytes())) == list(head)


def test_the_requirements_that_ship_are_for_a_checkout() -> None:
    lines = (CHECKOUT / "space" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-e .[space]"]
