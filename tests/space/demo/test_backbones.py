"""The shelf: what may be named, one load for all, bounds on models, bytes and features."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import space.demo.backbones
import space.demo.encoding
from eval.common.errors import UserError
from eval.features.encode import normalised
from eval.models.backbone import Backbone, load
from eval.models.names import zoo_names
from eval.models.resolve import resolve
from space.demo.backbones import Shelf
from tests.factories import refusal
from tests.hub import LoopbackHub

Files = dict[str, bytes | str | Path | None]
ZOO = f"zoo:{zoo_names()[0]}"


def photos(count: int, seed: int = 0, size: int = 40) -> list[Image.Image]:
    random = np.random.RandomState(seed)
    return [
        Image.fromarray(random.randint(0, 256, (size, size + i, 3)).astype(np.uint8))
        for i in range(count)
    ]


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    return f"space/{unique}-" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:50].strip("-")


@pytest.fixture
def files(model_dir: Path) -> Files:
    return {p.name: p.read_bytes() for p in model_dir.iterdir()}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all forward passes."""
    sizes: list[int] = []
    real = space.demo.encoding._forward

    def forward(backbone: Backbone, pixels: np.ndarray[Any, Any]) -> torch.Tensor:
        sizes.append(len(pixels))
        return real(backbone, pixels)

    monkeypatch.setattr(space.demo.encoding, "_forward", forward)
    return sizes


def faked(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf, seconds: Callable[[str], float] = lambda _: 0.0
) -> list[str]:
    """Loading replaced by a tiny backbone after a while; returns the names as they are loaded."""
    backbone = load(resolve("random:test_resnet", shelf.cache))
    calls: list[str] = []

    def build(text: str, name: object) -> Backbone:
        calls.append(text)
        time.sleep(seconds(text))
        return replace(backbone, resolved=replace(backbone.resolved, id=text))

    monkeypatch.setattr(shelf, "_load", build)
    return calls


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "text",
    ["local-dir:/etc", "Local-Dir:.", "random:resnet18", "random:test_resnet@3", "", " zoo:x",
     "ftp:a/b", "org/name", "../../etc", "hf-hub:../..", "hf-hub:a/..", "hf-hub:a/b@../x",
     "hf-hub:a/b@/etc/passwd", "hf-hub:a/b@x y", "zoo:../x", "zoo:nothing", ZOO + "@main",
     "zoo:" + "a" * 300, "hf-hub:a", "no_such_net", "/etc/passwd"],
)  # fmt: skip
def test_names_that_are_refused(text: str, cache: Path, hub: LoopbackHub) -> None:
    shelf = Shelf(cache)
    said = refusal(shelf.get, text)
    assert "/work" not in said
    assert str(cache) not in said
    assert not hub.requests
    assert shelf.loaded() == []


def test_features_are_those_of_the_study(cache: Path) -> None:
    shelf = Shelf(cache)
    backbone = load(resolve(ZOO, cache))
    images = photos(3)
    pixels = np.stack([np.asarray(backbone.transform(i)) for i in images])
    with torch.inference_mode():
        expected = backbone.net(normalised(pixels, backbone))
    found = shelf.encode(ZOO, images)
    assert found.shape == (3, backbone.dim)
    assert not found.is_inference()
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert shelf.encode(ZOO, []).shape == (0, backbone.dim)


# --------------------------------------------------------------------------- the Hub


def test_a_hub_model_at_its_commit(hub: LoopbackHub, repo: str, files: Files, cache: Path) -> None:
    sha = hub.add_model(repo, files)
    shelf = Shelf(cache)
    backbone = shelf.get(f"hf-hub:{repo}")
    assert backbone.resolved.spec == f"hf-hub:{repo}@{sha}"
    hub.requests.clear()
    assert shelf.get(f"hf-hub:{repo}") is backbone
    assert not hub.requests


def test_too_large_is_refused_before_the_download(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, files)
    size = len(files["model.safetensors"])  # type: ignore[arg-type]
    said = refusal(Shelf(cache, max_bytes=size - 1).get, f"hf-hub:{repo}")
    assert "of weights; this page takes at most" in said
    assert not [r for r in hub.requests if "resolve" in str(r)]
    assert Shelf(cache, max_bytes=2 * size).get(f"hf-hub:{repo}").dim > 0


def test_pickles_and_strangers_are_refused(
    hub: LoopbackHub, repo: str, files: Files, cache: Path
) -> None:
    hub.add_model(repo, {"config.json": files["config.json"], "pytorch_model.bin": b"x"})
    assert "pickled" in refusal(Shelf(cache).get, f"hf-hub:{repo}")
    assert "has no model" in refusal(Shelf(cache).get, "hf-hub:nobody/nothing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pretrained_cfg": {"input_size": [3, 20000, 20000]}}, "20000x20000 px"),
        ({"model_args": {"img_size": 5000}}, "sets img_size to 5000"),
        ({"model_args": {"channels": [10**6] * 4}}, "sets channels to [1000000"),
        ({"model_args": {"channels": [16000] * 4}}, "describes a network of 35,339,641,692"),
        ({"model_args": [1]}, "not timm's"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "names a file to load"),
        ({"architecture": "no_such_net"}, "knows no architecture 'no_such_net'"),
        ({"padding": "x" * 2_000_000}, "config.json that is too large"),
    ],
)
def test_hostile_configurations(
    hub: LoopbackHub,
    repo: str,
    files: Files,
    cache: Path,
    change: dict[str, Any],
    said: str,
) -> None:
    config = json.loads(files["config.json"])  # type: ignore[arg-type]
    config["architecture"] = "resnet18"
    hub.add_model(repo, files | {"config.json": json.dumps(config | change)})
    hub.requests.clear()
    text = refusal(Shelf(cache).get, f"hf-hub:{repo}")
    assert said in text
    assert not any("/resolve/" in p and "safetensors" in p for _, p in hub.requests)  # no weights
    assert "/tmp" not in text
    assert str(Path.home()) + "/" not in text


def test_whatever_a_library_raises_is_a_sentence(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RecursionError("deep JSON")

    monkeypatch.setattr(space.demo.backbones, "resolve", fails)
    assert refusal(Shelf(cache).get, ZOO) == f"model {ZOO!r} cannot be loaded (RecursionError)"


# --------------------------------------------------------------------------- many visitors


def test_one_load_for_all_who_ask(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(cache)
    calls = faked(monkeypatch, shelf, lambda _: 0.2)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(shelf.get, [ZOO] * 20))
    assert calls == [ZOO]
    assert len({id(b) for b in found}) == 1


def test_a_load_holds_up_nobody_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(cache)
    slow, fast = "hf-hub:a/slow", "hf-hub:a/fast"
    begun, go_on = threading.Event(), threading.Event()

    def seconds(text: str) -> float:
        if text == slow:
            begun.set()
            assert go_on.wait(60)
        return 0.0

    faked(monkeypatch, shelf, seconds)
    thread = threading.Thread(target=shelf.get, args=(slow,))
    thread.start()
    assert begun.wait(60)
    shelf.encode(fast, photos(2))
    shelf.get(fast)
    assert shelf.loaded() == [fast]
    go_on.set()
    thread.join()
    assert shelf.loaded() == [fast, slow]


def test_a_failed_load_fails_all_who_waited_and_can_be_tried_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(cache)
    build = shelf._load
    tries: list[str] = []

    def fails(text: str, name: object) -> Backbone:
        tries.append(text)
        time.sleep(0.2)
        raise UserError("out of reach")

    monkeypatch.setattr(shelf, "_load", fails)
    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(lambda _: refusal(shelf.get, ZOO), range(5)))
    assert said == ["out of reach"] * 5
    assert tries == [ZOO]
    monkeypatch.setattr(shelf, "_load", build)
    assert shelf.get(ZOO).dim > 0


def test_the_least_recently_used_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(cache, models=3)
    calls = faked(monkeypatch, shelf)
    a, b, c, d = (f"hf-hub:a/{x}" for x in "abcd")
    for text in (a, b, c, a, d):
        shelf.get(text)
    assert shelf.loaded() == [c, a, d]
    shelf.get(b)
    assert calls == [a, b, c, d, b]
    held = sum(p.numel() * 4 for p in shelf.get(a).net.state_dict().values())
    small = Shelf(cache, models=9, max_bytes=int(2.5 * held))
    faked(monkeypatch, small)
    for text in (a, b, c, d):
        small.get(text)
    assert small.loaded() == [c, d]


def test_batches_run_a_few_at_a_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(cache, slots=2)
    running, most, sizes = 0, 0, []
    lock = threading.Lock()

    def forward(backbone: Backbone, pixels: np.ndarray[Any, Any]) -> torch.Tensor:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            sizes.append(len(pixels))
        time.sleep(0.02)
        with lock:
            running -= 1
        return torch.zeros(len(pixels), backbone.dim)

    monkeypatch.setattr(space.demo.encoding, "_forward", forward)
    monkeypatch.setattr(space.demo.encoding, "default_batch_size", lambda *_: 4)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda i: shelf.encode(ZOO, photos(6, seed=i)), range(20)))
    assert most == 2
    assert max(sizes) == 4
    assert sum(sizes) == 120


# --------------------------------------------------------------------------- cached features


def test_one_more_query_encodes_one_picture(cache: Path, counted: list[int]) -> None:
    shelf = Shelf(cache)
    images = photos(6)
    first = shelf.encode(ZOO, images[:5])
    again = shelf.encode(ZOO, images)
    assert counted == [5, 1]
    assert torch.equal(first, again[:5])
    other = f"zoo:{zoo_names()[1]}"
    assert not torch.equal(shelf.encode(other, images), again)  # another model, other features
    assert counted == [5, 1, 6]


def test_equal_pixels_have_equal_features(cache: Path, counted: list[int]) -> None:
    images = photos(4)
    found = Shelf(cache).encode(ZOO, [images[0], images[1], images[0].copy(), images[0]])
    assert counted == [2]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])
    assert not torch.equal(found[0], found[1])


def test_cached_features_are_bounded(cache: Path, counted: list[int]) -> None:
    shelf = Shelf(cache, feature_bytes=10_000)  # about five rows
    images = photos(12)
    found = shelf.encode(ZOO, images)
    kept = shelf._at_work()[1].kept
    assert 0 < kept.bytes <= 10_000
    assert torch.equal(shelf.encode(ZOO, images[-2:]), found[-2:])
    assert counted == [12]
    assert torch.allclose(shelf.encode(ZOO, images), found, atol=1e-4)
    assert kept.bytes <= 10_000
    none = Shelf(cache, feature_bytes=0)
    none.encode(ZOO, images[:2])
    assert none._at_work()[1].kept.bytes == 0


def test_features_that_are_not_finite(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(cache)
    backbone = shelf.get(ZOO)
    next(backbone.net.parameters()).fill_(float("nan"))
    assert "not finite" in refusal(shelf.encode, ZOO, photos(1))
