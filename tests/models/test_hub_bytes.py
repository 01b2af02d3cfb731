"""Weights of a commit are the bytes that the Hub has there, or nothing is scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load as read
from safetensors.torch import load_file, save, save_file

from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.queue.candidate import check
from tests.factories import refusal
from tests.hub import LoopbackHub
from tests.models.checkpoints import Files


def cached(repo: str, sha: str, name: str = "model.safetensors") -> Path:
    found = try_to_load_from_cache(repo, name, revision=sha)
    assert isinstance(found, str)
    return Path(found)


def changed(data: bytes) -> bytes:
    """As many bytes, another network."""
    return data[:-4] + bytes(4)


@pytest.mark.parametrize("pinned", [False, True], ids=["main", "commit"])
@pytest.mark.parametrize("how", ["bytes", "file"])
def test_a_cache_that_holds_other_bytes(
    how: str, pinned: bool, hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    sha = hub.add_model(repo, files)
    text = f"hf-hub:{repo}@{sha}" if pinned else f"hf-hub:{repo}"
    load(resolve(text, cache))
    place = cached(repo, sha)
    data = changed(place.read_bytes())
    if how == "file":  # in place of the link to the blob
        place.unlink()
    place.write_bytes(data)
    message = refusal(lambda: load(resolve(text, cache)))
    assert f"model.safetensors of {repo!r} at commit {sha[:12]} is not the Hub's: sha256" in message
    assert message.endswith("there; remove it there and run again")


def test_a_cache_that_leads_to_another_commits_bytes(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    first = hub.add_model(repo, files)
    other = changed(files["model.safetensors"])  # type: ignore[arg-type]
    second = hub.add_model(repo, files | {"model.safetensors": other})
    for sha in (first, second):
        load(resolve(f"hf-hub:{repo}@{sha}", cache))
    place = cached(repo, second)
    target = cached(repo, first).readlink()
    place.unlink()
    place.symlink_to(target)
    message = refusal(lambda: load(resolve(f"hf-hub:{repo}", cache)))
    assert f"at commit {second[:12]} is not the Hub's" in message


def test_a_hub_that_serves_other_bytes_than_it_names(
    hub: LoopbackHub, repo: str, files: Files, cache: Path, tmp_path: Path
) -> None:
    data = files["model.safetensors"]
    assert isinstance(data, bytes)
    (tmp_path / "weights").write_bytes(data)
    hub.add_model(repo, files | {"model.safetensors": tmp_path / "weights"})
    (tmp_path / "weights").write_bytes(changed(data))
    assert "is not the Hub's" in refusal(lambda: load(resolve(f"hf-hub:{repo}", cache)))


def test_a_copied_cache_without_links_is_compared_with_the_hub(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    """As where links cannot be made. The Hub is asked; if it cannot be, the copy serves."""
    sha = hub.add_model(repo, files)
    seen = load(resolve(f"hf-hub:{repo}@{sha}", cache)).weights_sha256
    place = cached(repo, sha)
    data = place.read_bytes()
    place.unlink()
    place.write_bytes(data)
    hub.requests.clear()
    assert load(resolve(f"hf-hub:{repo}@{sha}", cache)).weights_sha256 == seen
    assert len(hub.requests) == 1
    hub.fail_next(99, 503, match=repo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eval.hub.client.WAITS", ())
        assert load(resolve(f"hf-hub:{repo}@{sha}", cache)).weights_sha256 == seen


def sharded(files: Files) -> Files:
    data = files["model.safetensors"]
    assert isinstance(data, bytes)
    state = read(data)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {key: names[i % 2] for i, key in enumerate(state)}
    parts: Files = {n: save({k: v for k, v in state.items() if index[k] == n}) for n in names}
    listing = json.dumps({"weight_map": index})
    return files | parts | {"model.safetensors": None, "model.safetensors.index.json": listing}


def test_weights_in_several_files_of_a_repository(
    hub: LoopbackHub, repo: str, files: Files, model_dir: Path, cache: Path
) -> None:
    sha = hub.add_model(repo, sharded(files))
    model = resolve(f"hf-hub:{repo}", cache)
    assert not [p for _, p in hub.requests if "resolve" in p and p.endswith(".safetensors")]
    backbone = load(model)
    images = torch.rand(2, 3, 32, 32)
    local = load(resolve(f"local-dir:{model_dir}", cache))
    assert torch.equal(backbone.net(images), local.net(images))
    found = check(f"{repo}@{sha}", cache)
    assert found.bytes > len(files["model.safetensors"]) * 0.9  # type: ignore[arg-type]

    hub.requests.clear()  # all of it lies in the cache
    again = load(resolve(f"hf-hub:{repo}@{sha}", cache))
    assert hub.requests == []
    assert again.weights_sha256 == backbone.weights_sha256

    place = cached(repo, sha, "model-00002-of-00002.safetensors")
    state = load_file(place)
    save_file({k: v * 2 for k, v in state.items()}, place)
    assert "model-00002-of-00002.safetensors of" in refusal(
        lambda: load(resolve(f"hf-hub:{repo}@{sha}", cache))
    )
