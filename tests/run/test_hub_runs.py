"""``transfer-eval run`` on models of the Hub, as a user meets them: private, gated, renamed, gone,
moving, many at once, and a Hub that is busy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from eval.models.search import find_models
from eval.results.schema import Result
from eval.results.store import read_shelf
from tests.factories import Cli, Ran, refusal
from tests.hub import LoopbackHub

TOKEN = "hf_secretOfTheTest"
Files = dict[str, bytes | str | Path | None]


@pytest.fixture
def org(request: pytest.FixtureRequest) -> str:
    """A namespace of this test's own: the Hub and its cache live as long as the session."""
    return "org" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]


@pytest.fixture
def files(model_dir: Path) -> Files:
    """What a timm checkpoint's repository holds."""
    return {p.name: p.read_bytes() for p in model_dir.iterdir()}


@pytest.fixture
def run(cli: Cli, task_dir: Path, cache: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Scores models on a made-up task."""

    def with_models(*models: str) -> Ran:
        return cli(
            "run", *models, "--task", f"parquet:{task_dir}", "--protocol", "linear",
            "--precision", "fp32", "--cache", cache, "--results", tmp_path / "results",
        )  # fmt: skip

    return with_models


def scored(tmp_path: Path) -> list[Result]:
    return [result for _, result in read_shelf(tmp_path / "results").results]


def other_weights(files: Files) -> Files:
    torch.manual_seed(5)
    net = timm.create_model("test_resnet", num_classes=7)
    return files | {"model.safetensors": save(net.state_dict())}


def test_a_private_model_needs_a_token(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sha = hub.add_model(f"{org}/hidden", files, private=True)
    without = run(f"hf-hub:{org}/hidden")
    assert without.code == 2
    assert "or it is private" in without.err
    assert "hf auth login" in without.err
    assert not (tmp_path / "results").exists()
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = run(f"hf-hub:{org}/hidden")
    assert done.code == 0
    (result,) = scored(tmp_path)
    assert (result.model.id, result.model.revision) == (f"hf-hub:{org}/hidden", sha)
    assert TOKEN not in done.out + done.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]


def test_a_gated_model_needs_its_terms_accepted(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub.add_model(f"{org}/gate", files, gated=True)
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    before = run(f"hf-hub:{org}/gate")
    assert before.code == 2
    assert f"'{org}/gate' is gated; accept its terms" in before.err
    hub.grant(TOKEN, f"{org}/gate")
    assert run(f"hf-hub:{org}/gate").code == 0
    assert len(scored(tmp_path)) == 1


def test_a_renamed_model_is_scored_under_its_name_of_today(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path
) -> None:
    sha = hub.add_model(f"{org}/old", files)
    hub.rename(f"{org}/old", f"{org}/new")
    assert run(f"hf-hub:{org}/old").code == 0
    (result,) = scored(tmp_path)
    assert result.model.id == f"hf-hub:{org}/new"
    assert result.model.spec == f"hf-hub:{org}/new@{sha}"
    # by either name it is the same row: nothing is scored twice
    assert "0 scored, 1 already there" in run(f"hf-hub:{org}/old", f"hf-hub:{org}/new").out


def test_a_hub_that_answers_for_another_place_is_not_believed(
    hub: LoopbackHub, org: str, files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    from eval.models.resolve import resolve

    hub.add_model(f"{org}/good", files)
    honest = HfApi.model_info

    def evil(self: HfApi, *args: object, **kwargs: object) -> object:
        info = honest(self, *args, **kwargs)  # type: ignore[arg-type]
        info.id = "../../etc"
        return info

    monkeypatch.setattr(HfApi, "model_info", evil)
    assert resolve(f"hf-hub:{org}/good", cache).repo == f"{org}/good"

    def elsewhere(self: HfApi, *args: object, **kwargs: object) -> object:
        info = honest(self, *args, **kwargs)  # type: ignore[arg-type]
        info.sha = "../../../outside"
        return info

    monkeypatch.setattr(HfApi, "model_info", elsewhere)
    assert "calls its commit '../../../outside'" in refusal(
        lambda: resolve(f"hf-hub:{org}/never-seen" if False else f"hf-hub:{org}/good@main", cache)
    )


def test_a_model_that_is_deleted_while_it_is_fetched(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path
) -> None:
    hub.add_model(f"{org}/goes", files)
    hub.add_model(f"{org}/stays", files)
    hub.on_next(
        f"/{org}/goes/resolve", lambda: None
    )  # config.json is read first: the repository goes away after it
    hub.on_next(f"GET /{org}/goes/resolve", lambda: hub.repos.pop(("model", f"{org}/goes"), None))
    done = run(f"hf-hub:{org}/goes", f"hf-hub:{org}/stays")
    assert done.code in (1, 2)
    assert "Traceback" not in done.err
    assert f"{org}/goes" in done.err
    later = run(f"hf-hub:{org}/goes")
    assert later.code == 2
    assert f"the Hub has no model '{org}/goes'" in later.err


def test_main_moves_during_the_run_and_the_pinned_commit_holds(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path
) -> None:
    first = hub.add_model(f"{org}/moving", files)
    moved = other_weights(files)
    hub.on_next(
        f"/{org}/moving/resolve/{first}/model.safetensors",
        lambda: hub.add_model(f"{org}/moving", moved),
    )
    assert run(f"hf-hub:{org}/moving").code == 0
    (result,) = scored(tmp_path)
    assert result.model.revision == first
    weights = files["model.safetensors"]
    assert isinstance(weights, bytes)
    assert result.model.weights_sha256 == hashlib.sha256(weights).hexdigest()
    # the next run sees the new commit: another row, the old one stays
    assert run(f"hf-hub:{org}/moving").code == 0
    assert len({r.model.revision for r in scored(tmp_path)}) == 2


def test_offline_a_stated_commit_is_read_from_the_cache(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sha = hub.add_model(f"{org}/kept", files)
    assert run(f"hf-hub:{org}/kept").code == 0
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = run(f"hf-hub:{org}/kept@{sha}")
    assert again.code == 0
    assert "1 already there" in again.out
    assert not hub.requests
    other = run(f"hf-hub:{org}/kept@{'0' * 40}")
    assert other.code == 2
    assert "cannot be reached" in other.err


FAULTS: dict[str, Callable[[LoopbackHub, str], None]] = {
    "429": lambda hub, match: hub.fail_next(2, 429, match, {"Retry-After": "0"}),
    "503": lambda hub, match: hub.fail_next(2, 503, match),
    "cut": lambda hub, match: hub.cut_next(1, 1000, match),
    "dropped": lambda hub, match: hub.drop_next(2, match),
    "slow": lambda hub, match: hub.slow_next(1, 0.3, match),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/api/models/", "HEAD", "model.safetensors", "/storage/"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_busy_hub_is_waited_for(
    fault: str, where: str, hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran],
    tmp_path: Path,
) -> None:  # fmt: skip
    hub.add_model(f"{org}/busy", files)
    FAULTS[fault](hub, where)
    done = run(f"hf-hub:{org}/busy")
    assert done.code == 0, done.err
    assert len(scored(tmp_path)) == 1


# --------------------------------------------------------------------------- many at once


def card(*tags: str) -> str:
    return "---\ntags:\n" + "".join(f"- {tag}\n" for tag in tags) + "---\n"


def test_all_models_of_an_author_and_of_a_tag(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path
) -> None:
    hub.add_model(f"{org}/a", files | {"README.md": card("objective:supcon", "timm")})
    hub.add_model(f"{org}/b", other_weights(files) | {"README.md": card("objective:ce", "timm")})
    hub.add_model(f"{org}/language", {"config.json": '{"model_type": "bert"}'})
    hub.add_model(f"{org}x/a", files)
    done = run("--author", org)
    assert done.code == 0
    assert "skipped: Hub repository" in done.err
    assert f"{org}/language" in done.err
    assert {r.model.id for r in scored(tmp_path)} == {f"hf-hub:{org}/a", f"hf-hub:{org}/b"}
    one = run("--author", org, "--filter", "objective:supcon")
    assert one.code == 0
    assert "0 scored, 1 already there" in one.out
    both = run("random:test_resnet", "--filter", "objective:supcon", "timm", "--author", org)
    assert "1 scored, 1 already there" in both.out


def test_a_collection(
    hub: LoopbackHub, org: str, files: Files, run: Callable[..., Ran], tmp_path: Path
) -> None:
    from huggingface_hub import HfApi

    hub.tokens.add(TOKEN)
    api = HfApi(token=TOKEN)
    hub.add_model(f"{org}/a", files)
    hub.add_model(f"{org}/b", other_weights(files))
    hub.add_dataset(f"{org}/data", {"README.md": "# data"})
    slug = api.create_collection(f"Of {org}", namespace=org).slug
    for item, kind in ((f"{org}/b", "model"), (f"{org}/data", "dataset"), (f"{org}/a", "model")):
        api.add_collection_item(slug, item, kind)  # type: ignore[arg-type]
    assert run("--collection", slug).code == 0
    assert [r.model.id for r in scored(tmp_path)] == [f"hf-hub:{org}/a", f"hf-hub:{org}/b"]
    address = f"https://huggingface.co/collections/{slug}"
    assert "2 already there" in run("--collection", address).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--author", "nobody-at-all"], "fits no model that timm can load"),
        (["--filter", "no-such-tag-anywhere"], "fits no model that timm can load"),
        (["--collection", "x"], "is not a collection; give its address or ORG/TITLE-ID"),
        (["--collection", "../../etc/passwd"], "is not a collection"),
        (["--collection", "org/none-0123456789abcdef01234567"], "the Hub has no collection"),
        (["--collection", "org/x", "--author", "org"], "leave --author and --filter out"),
        ([], "no MODEL given"),
    ],
)
def test_searches_that_cannot_be(
    arguments: list[str], said: str, hub: LoopbackHub, run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_search_that_names_too_many(
    hub: LoopbackHub, org: str, files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.models.search.MOST", 2)
    for name in "abc":
        hub.add_model(f"{org}/{name}", files)
    assert "fits more than 2 models" in refusal(lambda: find_models(cache, author=org))
    hub.repos.pop(("model", f"{org}/c"))
    found = find_models(cache, author=org)
    assert len(found.models) == 2
    assert all(re.search(r"@[0-9a-f]{40}$", model) for model in found.models)


@pytest.mark.parametrize("name", ["org/x@../../../etc", "org/x@a..b", "org/x@/etc/passwd"])
def test_a_revision_that_leaves_the_cache(name: str, cache: Path) -> None:
    from eval.models.resolve import resolve

    assert "no revision has '..'" in refusal(lambda: resolve(f"hf-hub:{name}", cache))


@pytest.mark.parametrize("name", ["../..", "org/..", "../x"])
def test_a_name_that_leaves_the_cache(name: str, cache: Path) -> None:
    from eval.models.resolve import resolve

    assert "names no Hub repository" in refusal(lambda: resolve(f"hf-hub:{name}", cache))


def test_a_config_nested_without_end(hub: LoopbackHub, org: str, files: Files, cache: Path) -> None:
    from eval.models.resolve import resolve

    hub.add_model(f"{org}/deep", files | {"config.json": "[" * 100_000})
    assert "config.json" in refusal(lambda: resolve(f"hf-hub:{org}/deep", cache))


# --------------------------------------------------------------------------- what is asked for


def test_the_worker_scores_what_is_asked_for(
    hub: LoopbackHub, org: str, files: Files, cli: Cli, task_dir: Path, cache: Path, tmp_path: Path
) -> None:
    from eval.queue.candidate import check
    from eval.queue.open import open_queue

    sha = hub.add_model(f"{org}/asked", files)
    queue = open_queue(str(tmp_path / "queue"))
    queue.add(check(f"{org}/asked", cache), "ada")
    moved = hub.add_model(f"{org}/asked", other_weights(files))
    assert moved != sha
    done = cli(
        "worker", "--queue", tmp_path / "queue", "--once", "--task", f"parquet:{task_dir}",
        "--protocol", "knn", "--precision", "fp32", "--cache", cache,
        "--results", tmp_path / "results",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "1 request served" in done.out
    (ticket,) = queue.tickets()
    assert (ticket.state, ticket.note) == ("done", "1 result")
    (result,) = scored(tmp_path)
    assert result.model.revision == sha  # the commit that was asked for
    wrong = cli("worker", "--queue", "hub:x", "--once")
    assert wrong.code == 2
    assert "not a Hub repository" in wrong.err
