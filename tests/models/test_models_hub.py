"""Models of the Hub: what a revision means, what is downloaded, what is refused and why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import HfApi
from safetensors.torch import save

from eval.models.backbone import load
from eval.models.facts import declared
from eval.models.resolve import resolve
from eval.results.names import shelf_folder
from eval.results.provenance import objections
from eval.results.receipt import model_info
from eval.sharing.models import unlike_weights
from tests.factories import make_result, refusal
from tests.hub import LoopbackHub
from tests.models.checkpoints import Files


def other_weights(files: Files) -> Files:
    torch.manual_seed(9)
    return files | {
        "model.safetensors": save(timm.create_model("test_resnet", num_classes=7).state_dict())
    }


# --------------------------------------------------------------------------- revisions


def test_a_revision_is_pinned_to_its_commit(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    first = hub.add_model(repo, files)
    hub.tag(repo, "v1")
    assert re.fullmatch("[0-9a-f]{40}", first)
    for text in (repo, f"{repo}@main", f"{repo}@v1", f"{repo}@{first}"):
        model = resolve(f"hf-hub:{text}", cache)
        assert model.revision == first
        assert model.spec == f"hf-hub:{repo}@{first}"
        assert (model.kind, model.id, model.repo) == ("hub", f"hf-hub:{repo}", repo)
        assert resolve(model.spec, cache) == model

    second = hub.add_model(repo, other_weights(files))
    assert second != first
    assert resolve(f"hf-hub:{repo}", cache).revision == second
    assert resolve(f"hf-hub:{repo}@v1", cache).revision == first
    assert resolve(f"hf-hub:{repo}@{first}", cache).revision == first

    old, new = (load(resolve(f"hf-hub:{repo}@{sha}", cache)) for sha in (first, second))
    assert old.weights_sha256 != new.weights_sha256


def test_the_hub_gives_the_same_net_as_the_folder(
    hub: LoopbackHub, repo: str, files: Files, model_dir: Path, cache: Path
) -> None:
    hub.add_model(repo, files)
    ours = load(resolve(f"hf-hub:{repo}", cache))
    local = load(resolve(f"local-dir:{model_dir}", cache))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours.net(images), local.net(images))
    assert ours.weights_sha256 == local.weights_sha256
    assert ours.input_config == local.input_config


def test_only_the_two_files_are_downloaded(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    extra: Files = {
        "pytorch_model.bin": b"pickle",
        "README.md": "# hello",
        "optimizer.pt": b"pickle",
    }
    hub.add_model(repo, files | extra)
    load(resolve(f"hf-hub:{repo}", cache))
    asked = " ".join(path for _, path in hub.requests)
    assert "config.json" in asked
    assert "model.safetensors" in asked
    assert not [name for name in extra if name in asked]


def test_resolving_downloads_no_weights(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    resolve(f"hf-hub:{repo}", cache)
    assert not [path for _, path in hub.requests if "safetensors" in path or "storage" in path]


def test_a_pinned_model_in_the_cache_asks_nobody(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    sha = hub.add_model(repo, files)
    warm = load(resolve(f"hf-hub:{repo}", cache))
    hub.requests.clear()
    again = load(resolve(f"hf-hub:{repo}@{sha}", cache))
    assert hub.requests == []
    assert again.weights_sha256 == warm.weights_sha256


def test_a_pinned_model_in_the_cache_is_still_checked(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    """Another program may have cached a repository that timm cannot load."""
    from huggingface_hub import hf_hub_download

    config = {"model_type": "bert", "architectures": ["BertModel"]}
    sha = hub.add_model(repo, files | {"config.json": json.dumps(config)})
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(repo, name, revision=sha)
    assert "model_type 'bert'" in refusal(lambda: resolve(f"hf-hub:{repo}@{sha}", cache))


def test_timm_names_are_repositories_of_timm(
    hub: LoopbackHub, model_dir: Path, files: Files, cache: Path
) -> None:
    sha = hub.add_model("timm/test_resnet.r160_in1k", files)
    for name in ("test_resnet.r160_in1k", "test_resnet"):
        model = resolve(name, cache)
        assert (model.kind, model.id, model.revision) == ("timm", name, sha)
        assert model.repo == "timm/test_resnet.r160_in1k"
        assert model.spec == f"hf-hub:timm/test_resnet.r160_in1k@{sha}"
        local = load(resolve(f"local-dir:{model_dir}", cache))
        assert load(model).weights_sha256 == local.weights_sha256


def small_clip(files: Files, name: str) -> Files:
    """A repository of CLIP's ViT, much narrowed, whose config.json calls it ``name``."""
    args = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = timm.create_model(name, num_classes=5, **args)
    about = {"input_size": [3, 224, 224], "fixed_input_size": True, "num_classes": 5}
    config = {"architecture": name, "model_args": args, "pretrained_cfg": about}
    return files | {
        "config.json": json.dumps(config),
        "model.safetensors": save(net.state_dict()),
    }


CLIP = "vit_base_patch32_clip_224"
QUICK = "vit_base_patch32_clip_quickgelu_224"


@pytest.fixture
def clip(hub: LoopbackHub, files: Files) -> str:
    """The commit of the one repository that timm has for two of its networks."""
    return hub.add_model(f"timm/{CLIP}.openai", small_clip(files, CLIP))


def test_two_timm_names_of_one_repository_are_two_networks(clip: str, cache: Path) -> None:
    plain, quick = (load(resolve(f"{name}.openai", cache)) for name in (CLIP, QUICK))
    images = torch.rand(2, 3, 224, 224)
    for backbone, name in ((plain, CLIP), (quick, QUICK)):
        args = {"embed_dim": 32, "depth": 2, "num_heads": 2}
        theirs = timm.create_model(name, num_classes=0, **args).eval()
        theirs.load_state_dict(backbone.net.net.state_dict())  # type: ignore[union-attr]
        with torch.inference_mode():
            assert torch.equal(backbone.net(images), theirs(images))
    assert not torch.equal(plain.net(images), quick.net(images))
    assert plain.notes == ()
    assert quick.notes == (
        f"the network is timm's {QUICK}, as was asked for; config.json of timm/{CLIP}.openai "
        f"names {CLIP!r}",
    )


def test_equal_weights_in_two_networks_are_two_models(clip: str, cache: Path) -> None:
    plain, quick = (resolve(f"{name}.openai", cache) for name in (CLIP, QUICK))
    assert plain.revision == clip != quick.revision
    assert re.fullmatch("[0-9a-f]{40}", quick.revision)
    assert (plain.commit, quick.commit) == (clip, clip)
    assert plain.spec == f"hf-hub:timm/{CLIP}.openai@{clip}"
    assert quick.spec == f"{plain.spec}?arch={QUICK}"
    assert shelf_folder(plain) != shelf_folder(quick)
    one, other = load(plain), load(quick)
    assert one.weights_sha256 == other.weights_sha256
    assert one.construction != other.construction  # by which features are cached
    assert declared(quick).architecture == QUICK


def test_what_a_timm_name_was_resolved_to_can_be_had_again(clip: str, cache: Path) -> None:
    quick = resolve(f"{QUICK}.openai", cache)
    again = resolve(quick.spec, cache)
    assert (again.kind, again.id) == ("hub", f"hf-hub:timm/{CLIP}.openai?arch={QUICK}")
    assert (again.spec, again.revision) == (quick.spec, quick.revision)
    images = torch.rand(1, 3, 224, 224)
    one, other = load(quick), load(again)
    assert torch.equal(one.net(images), other.net(images))
    assert one.weights_sha256 == other.weights_sha256
    for number, backbone in enumerate((one, other)):
        result = make_result(task=f"t{number}").model_copy(update={"model": model_info(backbone)})
        assert not list(objections(result))
        assert unlike_weights(HfApi(), {"a.json": result}) == ""
        for lie in ({"revision": clip}, {"id": f"{CLIP}.openai"}):
            false = result.model.model_copy(update=lie)
            assert list(objections(result.model_copy(update={"model": false})))


def test_an_architecture_that_config_json_names_anyway_changes_nothing(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    assert resolve(f"hf-hub:{repo}?arch=test_resnet", cache) == resolve(f"hf-hub:{repo}", cache)
    said = refusal(lambda: resolve(f"hf-hub:{repo}?arch=test_resnett", cache))
    assert "unknown model 'test_resnett'; did you mean 'test_resnet" in said
    other = resolve(f"hf-hub:{repo}?arch=test_vit", cache)
    assert "do not load into its architecture" in refusal(lambda: load(other))


def test_a_timm_name_whose_repository_holds_another_library_s_network(
    hub: LoopbackHub, files: Files, cache: Path
) -> None:
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"timm_model_name": "vitamin_small_224"}}}
    held: Files = {
        "open_clip_config.json": json.dumps(config | {"preprocess_cfg": {}}),
        "open_clip_model.safetensors": files["model.safetensors"],
    }
    hub.add_model("jienengchen/ViTamin-S", held)
    said = refusal(lambda: resolve("vitamin_small_224.datacomp1b_clip", cache))
    assert "holds a network of open_clip's, which is not timm's 'vitamin_small_224'" in said
    assert said.endswith("use 'hf-hub:jienengchen/ViTamin-S' for the one that it holds")


def test_an_older_name_of_timm_s_is_told_the_new_one(cache: Path) -> None:
    for old, now in (
        ("tv_densenet121", "densenet121.tv_in1k"),
        ("tv_resnet50", "resnet50.tv_in1k"),
    ):
        assert repr(now) in refusal(lambda: resolve(old, cache))  # noqa: B023


def test_a_zoo_model_that_did_not_ship_is_sought_on_the_hub(
    hub: LoopbackHub, files: Files, cache: Path
) -> None:
    sha = hub.add_model("transferzoo/later.ce", files)
    hub.tag("transferzoo/later.ce", "v2")
    for text in ("zoo:later.ce", "zoo:later.ce@v2"):
        model = resolve(text, cache)
        assert (model.repo, model.revision) == ("transferzoo/later.ce", sha)
    message = refusal(lambda: resolve("zoo:never", cache))
    assert "zoo model 'never' does not ship here" in message
    assert "the Hub has no model 'transferzoo/never'" in message


# --------------------------------------------------------------------------- refusals


def test_a_repository_that_does_not_exist(hub: LoopbackHub, repo: str, cache: Path) -> None:
    message = refusal(lambda: resolve(f"hf-hub:{repo}", cache))
    assert f"the Hub has no model {repo!r}, or it is private" in message
    assert "hf auth login" in message


def test_a_data_set_is_no_model(hub: LoopbackHub, repo: str, cache: Path) -> None:
    hub.add_dataset(repo, {"README.md": "x"})
    assert "the Hub has no model" in refusal(lambda: resolve(f"hf-hub:{repo}", cache))


def test_a_private_repository(hub: LoopbackHub, repo: str, files: Files, cache: Path) -> None:
    hub.add_model(repo, files, private=True)
    assert "or it is private" in refusal(lambda: resolve(f"hf-hub:{repo}", cache))


def test_a_gated_repository(hub: LoopbackHub, repo: str, files: Files, cache: Path) -> None:
    """Its metadata are public: only the download is denied."""
    sha = hub.add_model(repo, files, gated=True)
    for text in (repo, f"{repo}@{sha}"):
        message = refusal(resolve, f"hf-hub:{text}", cache)
        assert f"{repo!r} is gated; accept its terms on its Hub page" in message
    assert ("GET", f"/api/models/{repo}?blobs=true") in hub.requests


def test_a_repository_that_became_gated_after_it_was_resolved(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    model = resolve(f"hf-hub:{repo}", cache)
    hub.add_model(repo, {}, gated=True)
    assert f"{repo!r} is gated" in refusal(lambda: load(model))


@pytest.mark.parametrize("revision", ["v9", "f" * 40, "feature/x"])
def test_a_revision_that_does_not_exist(
    revision: str, hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    message = refusal(lambda: resolve(f"hf-hub:{repo}@{revision}", cache))
    assert f"{repo!r} has no revision {revision!r}" in message


@pytest.mark.parametrize("name", ["org/a--b", "org/-a", "org/a.git", "org/a..b", "örg/a"])
def test_a_name_that_no_repository_can_have(name: str, hub: LoopbackHub, cache: Path) -> None:
    message = refusal(lambda: resolve(f"hf-hub:{name}", cache))
    assert f"model 'hf-hub:{name}'" in message
    assert "cannot be reached" not in message
    assert hub.requests == []


def test_pickles_only(hub: LoopbackHub, repo: str, files: Files, cache: Path) -> None:
    held = files | {"pytorch_model.bin": b"pickle", "model.safetensors": None}
    hub.add_model(repo, held)
    message = refusal(lambda: resolve(f"hf-hub:{repo}", cache))
    assert f"Hub repository {repo!r} offers only pickled weights (pytorch_model.bin)" in message
    assert [method for method, _ in hub.requests] == ["GET"]  # the metadata, nothing else


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model.safetensors": None}, "has no model.safetensors"),
        ({"config.json": None}, "has no config.json"),
        ({"config.json": "{"}, "is not valid JSON"),
        ({"config.json": '{"model_type": "bert"}'}, "is of model_type 'bert'"),
        ({"config.json": '{"model_type": "vit"}'}, "no preprocessor_config.json"),
        (
            {"config.json": '{"model_type": "vit", "auto_map": {"AutoModel": "m.M"}}'},
            "has 'auto_map'",
        ),
    ],
)
def test_repositories_refused_before_weights_are_downloaded(
    changes: Files, why: str, hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files | changes)
    message = refusal(lambda: resolve(f"hf-hub:{repo}", cache))
    assert why in message
    assert repo in message
    assert not [path for _, path in hub.requests if "safetensors" in path]


def test_weights_of_the_hub_that_do_not_fit(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files | {"model.safetensors": save({"fc.weight": torch.zeros(7, 96)})})
    model = resolve(f"hf-hub:{repo}", cache)
    assert f"the weights of hf-hub:{repo} do not load" in refusal(lambda: load(model))


# --------------------------------------------------------------------------- the Hub is down


def test_without_the_hub_and_without_a_cache(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    hub.fail_next(99, 503, match=repo)
    message = refusal(lambda: resolve(f"hf-hub:{repo}", cache))
    assert f"the Hub cannot be reached and {repo!r} is not in the local cache (" in message
    assert "503" in message


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_without_the_hub_the_commit_last_seen_serves(
    revision: str, hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    sha = hub.add_model(repo, files)
    hub.tag(repo, "v1")
    seen = load(resolve(f"hf-hub:{repo}{revision}", cache))
    hub.fail_next(99, 503, match=repo)
    again = resolve(f"hf-hub:{repo}{revision}", cache)
    assert again == seen.resolved
    assert again.revision == sha
    assert load(again).weights_sha256 == seen.weights_sha256
    unseen = refusal(lambda: resolve(f"hf-hub:{repo}@v2", cache))
    assert "not in the local cache" in unseen


def test_without_the_hub_a_cache_that_lacks_the_weights_does_not_serve(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    resolve(f"hf-hub:{repo}", cache)  # fetches config.json only
    hub.fail_next(99, 503, match=repo)
    assert "not in the local cache" in refusal(lambda: resolve(f"hf-hub:{repo}", cache))


def test_a_download_that_fails(hub: LoopbackHub, repo: str, files: Files, cache: Path) -> None:
    hub.add_model(repo, files)
    model = resolve(f"hf-hub:{repo}", cache)
    hub.fail_next(1, 400, match=f"/{repo}/resolve/{model.revision}/model.safetensors")
    assert f"download of {repo!r} failed" in refusal(lambda: load(model))
    assert load(model).dim == 96  # and the next try works
