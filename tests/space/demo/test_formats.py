"""Models of transformers and open_clip on the page: by name, with the library's own features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from eval.models.backbone import load
from eval.models.resolve import resolve
from space.demo.backbones import Shelf
from tests.factories import refusal
from tests.hub import LoopbackHub
from tests.models import open_clip_folders, transformers_folders


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    return "visitor" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8] + "/net"


@pytest.mark.parametrize("make", [transformers_folders.folder, open_clip_folders.folder])
def test_a_model_of_another_library(
    make: Callable[[Path], Path], hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "net")
    sha = hub.add_model(repo, _files(folder))
    shelf = Shelf(tmp_path / "cache")
    pictures = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green", "white")]
    found = shelf.encode(f"hf-hub:{repo}", pictures)
    assert shelf.get(f"hf-hub:{repo}").resolved.spec == f"hf-hub:{repo}@{sha}"
    here = load(resolve(f"local-dir:{folder}", tmp_path / "cache"))
    expected = Shelf(tmp_path / "cache").features(here, pictures)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("make", [transformers_folders.folder, open_clip_folders.folder])
def test_too_large_is_refused_before_the_download(
    make: Callable[[Path], Path], hub: LoopbackHub, repo: str, tmp_path: Path
) -> None:
    hub.add_model(repo, _files(make(tmp_path / "net")))
    hub.requests.clear()
    said = refusal(Shelf(tmp_path / "cache", max_bytes=10_000).get, f"hf-hub:{repo}")
    assert "of weights; this page takes at most" in said
    assert not [path for _, path in hub.requests if "/resolve/" in path and "safetensors" in path]


def test_code_of_the_repository_is_not_run(hub: LoopbackHub, repo: str, tmp_path: Path) -> None:
    files = _files(transformers_folders.folder(tmp_path / "net"))
    own = files["config.json"].replace(b"{", b'{"auto_map": {"AutoModel": "net.Net"},', 1)
    hub.add_model(repo, files | {"config.json": own, "net.py": b"raise SystemExit(7)"})
    assert "auto_map" in refusal(Shelf(tmp_path / "cache").get, f"hf-hub:{repo}")
