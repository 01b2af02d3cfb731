"""The whole way in one test: publish the zoo, load and score it from the Hub, share the results,
read them on another machine. Once in peace, and once with each fault at every stage.

In peace the whole zoo goes that way and the other machine is a process of its own. With a fault it
is one checkpoint, whose card compares no pairs, and the reader is one without token or cache here:
the requests are the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import zoo.__main__
from eval.models.names import ZOO_FOLDER, zoo_names
from tests.factories import Cli, Ran
from tests.hub import LoopbackHub

ADA, BOB = "hf_adaWritesHere", "hf_bobMayOnlyAsk"
CONTRIBUTION = ("--task", "hue", "--protocol", "knn", "--limit", "40", "--precision", "fp32")

FAULTS: dict[str, Callable[[LoopbackHub], None]] = {
    "in peace": lambda hub: None,
    "429": lambda hub: hub.fail_next(2, 429, headers={"Retry-After": "0"}),
    "503": lambda hub: hub.fail_next(2, 503),
    "cut connection": lambda hub: hub.cut_next(2, 2000),
    "dropped connection": lambda hub: hub.drop_next(2),
    "slow": lambda hub: hub.slow_next(3, 0.3),
    "lost answer": lambda hub: hub.land_then_fail(1, 503, "/commit/"),
}


@pytest.fixture
def org(hub: LoopbackHub, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace of this test's own, which Ada may write to and Bob may not."""
    name = "lab" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    monkeypatch.setattr(hub, "tokens", {ADA, BOB})
    monkeypatch.setattr(hub, "users", {ADA: "ada", BOB: "bob"})
    monkeypatch.setattr(hub, "orgs", {"ada": {name}})
    monkeypatch.setattr(hub, "strict_namespaces", True)
    monkeypatch.setenv("HF_TOKEN", ADA)
    return name


@pytest.fixture
def zoo_cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def run(*argv: str | Path) -> Ran:
        capfd.readouterr()
        code = zoo.__main__.main([str(a) for a in argv])
        return Ran(code, *capfd.readouterr())

    return run


def on_another_machine(hub: LoopbackHub, home: Path, *argv: str) -> Ran:
    """A new process with an empty cache and no token."""
    done = subprocess.run(
        [sys.executable, "-m", "eval", *argv],
        env=hub.env(home), text=True, capture_output=True, check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """A board's rows, whatever the order of the files they came from, without who computed them:
    on a board that others can push to each row says it."""

    def plain(of: dict[str, Any]) -> dict[str, Any]:
        return {
            k: plain(v) if isinstance(v, dict) else v
            for k, v in of.items()
            if k not in ("standing", "verified")
        }

    return sorted(map(plain, table["rows"]), key=lambda row: str(row["model"]))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_from_the_zoo_to_somebody_elses_board(
    fault: str, hub: LoopbackHub, org: str, cli: Cli, zoo_cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    peace = fault == "in peace"
    names = zoo_names() if peace else [n for n in zoo_names() if ".selfsupcon_" in n]
    monkeypatch.setattr("zoo.card.publish.zoo_names", lambda: names)
    trouble = FAULTS[fault]
    said = []

    def ok(done: Ran) -> Ran:
        said.append(done.out + done.err)
        assert done.code == 0, done.err
        return done

    # publish: one commit each, and a collection
    trouble(hub)
    ok(zoo_cli("publish", "--all", org))
    repos = [f"{org}/{name}" for name in names]
    for repo in repos:
        assert len(hub.repos["model", repo].commits) == 2  # the Hub's first, and ours
    (collection,) = [c for c in hub.collections.values() if c.owner == org]
    assert len(collection.items) == len(names)
    assert "nothing changed, no commit made" in ok(zoo_cli("publish", "--all", org)).out

    # load as any user of timm
    hub.clear_faults()
    for name, repo in zip(names, repos, strict=True):
        net = timm.create_model(f"hf-hub:{repo}", pretrained=True, num_classes=0).eval()
        ours = timm.create_model(
            f"local-dir:{ZOO_FOLDER / name}", pretrained=True, num_classes=0
        ).eval()
        images = torch.rand(2, 3, 64, 64)
        assert torch.equal(net(images), ours(images))

    # score from the Hub
    trouble(hub)
    cache, results = tmp_path / "cache", tmp_path / "results"
    run = ("run", *(f"hf-hub:{r}" for r in repos), "--cache", cache, "--results", results)
    report = ok(cli(*run, "--task", "digits", "--protocol", "fewshot", "--episodes", "20",
                    "--limit", "150", "--precision", "fp32", "--json")).json  # fmt: skip
    assert report["scored"] == len(names)
    assert {row["model"] for row in report["boards"][0]["rows"]} == {f"hf-hub:{r}" for r in repos}
    commits = {row["model"].removeprefix("hf-hub:"): row["revision"]
               for row in report["boards"][0]["rows"]}  # fmt: skip
    assert commits == {r: hub.repos["model", r].head.sha for r in repos}

    # share: Ada makes the repository, Bob offers more, Ada merges
    trouble(hub)
    ok(cli("push", results, f"{org}/results"))
    more = tmp_path / "more"
    ok(cli("run", f"hf-hub:{repos[0]}", "--cache", cache, "--results", more, *CONTRIBUTION))
    monkeypatch.setenv("HF_TOKEN", BOB)
    trouble(hub)
    offered = ok(cli("push", more, f"{org}/results"))
    assert "/discussions/1" in offered.out
    assert "/discussions/1" in ok(cli("push", more, f"{org}/results")).out  # not a second one
    monkeypatch.setenv("HF_TOKEN", ADA)
    trouble(hub)
    ok(cli("merge", f"{org}/results", "1"))

    # read on another machine
    hub.clear_faults()
    trouble(hub)
    read = ("leaderboard", "--results", f"hub:{org}/results", "--json")
    if peace:
        board = ok(on_another_machine(hub, tmp_path / "home", *read)).json
    else:
        with monkeypatch.context() as patch:
            patch.delenv("HF_TOKEN")
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home"))
            hub.requests.clear()
            board = ok(cli(*read)).json
            assert hub.requests  # nothing was read from a cache
    fewshot = [t for t in board if t["protocol"] == "fewshot"]
    assert [rows(t) for t in fewshot] == [rows(t) for t in report["boards"]]
    (knn,) = [t for t in board if t["protocol"] == "knn"]
    mine = cli("leaderboard", "--results", more, "--json").json
    assert rows(knn) == rows(mine[0])

    # nothing told a token, nothing names a folder of this machine
    files = hub.repos["dataset", f"{org}/results"].head.files
    assert {"results.parquet", "README.md"} < set(files)
    held = b"".join(blob.read() for blob in files.values())
    for token in (ADA, BOB):
        assert token not in "".join(said)
        assert token.encode() not in held
    assert str(tmp_path).encode() not in held
    assert all(json.loads(files[f].read())["schema_version"] == 1 for f in files if ".json" in f)
