"""Fixtures shared by all tests: a loopback Hub, small made-up data sets, the real data.

``huggingface_hub`` reads HF_ENDPOINT once, when it is imported, so the loopback Hub is started
before any test module is.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.data.load import load_task
from eval.data.manifest import FileFacts, Manifest, PartFacts, SplitFacts, write_manifest
from eval.tasks.registry import TASKS
from tests.hub import LoopbackHub

CHROMIUM = "/usr/bin/chromium"
_REQUIRED = os.environ.get("TRANSFERZOO_REQUIRE_ALL") == "1"  # set by .ci/run: nothing may skip
_HUB = LoopbackHub()
_HOME = tempfile.TemporaryDirectory(prefix="transferzoo-test-hf-")


# Files that take longest, first: with several workers none is left alone with one at the end.
LONG = (
    "space/test_browser", "run/test_resume", "run/test_round_trip", "zoo/train/test_learning",
    "finetune/test_finetune", "zoo/test_checkpoints", "detection/test_overfit",
    "zoo/train/test_pretrain",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(tests).with_suffix("").as_posix()
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)  # stable: else as collected


def pytest_configure() -> None:
    _HUB.__enter__()
    os.environ.update(_HUB.settings(Path(_HOME.name)))


def pytest_unconfigure() -> None:
    _HUB.__exit__(None, None, None)
    _HOME.cleanup()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The loopback Hub of this session; ``huggingface_hub`` in this process talks to it.

    A test's planned faults end with it, and nobody waits long for a busy Hub.
    """
    monkeypatch.setattr("eval.hub.client.WAITS", (0.01, 0.02, 0.04))
    _HUB.requests.clear()
    yield _HUB
    _HUB.clear_faults()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for a busy Hub: by us, or by the client itself. None passes."""
    waited: list[float] = []
    clock = SimpleNamespace(**{k: getattr(time, k) for k in dir(time) if not k.startswith("_")})
    clock.sleep = waited.append
    monkeypatch.setattr("eval.hub.client.time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    return waited


def let_write(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, people: Mapping[str, str], **settings: object
) -> None:
    """A Hub that is strict about namespaces, with ``people`` by token; the first is logged in here,
    and may write to lab. ``settings`` are more of the hub's own."""
    first, *_ = people
    known = {
        "tokens": set(people),
        "users": dict(people),
        "orgs": {people[first]: {"lab"}},
        "read_only": set(),
        "strict_namespaces": True,
    }
    for name, value in (known | settings).items():
        monkeypatch.setattr(hub, name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", first)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image data. Absent: skip, or fail where everything is required."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TRANSFERZOO_DATA", default))
    if not (folder / "eurosat").is_dir():
        reason = f"real image data are not at {folder} (set TRANSFERZOO_DATA)"
        if _REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Cli:
    """Runs a command here. Warnings and log lines, which pytest keeps from stderr, count as it."""

    import eval.__main__

    def run(*argv: str | Path) -> Ran:
        capfd.readouterr()
        caplog.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                code = eval.__main__.main([str(a) for a in argv])
            except SystemExit as stop:  # argparse after --help
                code = int(stop.code or 0)
        out, err = capfd.readouterr()
        err += "".join(f"{w.category.__name__}: {w.message}\n" for w in caught)
        logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
        return Ran(code, out, err + "".join(f"{r.name}: {r.getMessage()}\n" for r in logged))

    return run


def refusal(call: Callable[..., object], *args: object) -> str:
    """The one sentence a call fails with."""
    with pytest.raises(UserError) as error:
        call(*args)
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def png(pixels: np.ndarray) -> bytes:
    """[H, W] or [H, W, 3] uint8 as PNG bytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def blobs(label: int, count: int, seed: int, size: int = 24) -> list[bytes]:
    """``count`` different noisy pictures whose brightness and stripes tell their label."""
    random = np.random.RandomState([seed, label])
    stripes = np.sin(np.arange(size) * (label + 1) * 0.5)[:, None, None]
    pictures = []
    for _ in range(count):
        noise = random.normal(0, 40, (size, size, 3))
        pixels = 128 + 40 * stripes + 12 * (label - 2) + noise
        pictures.append(png(np.clip(pixels, 0, 255).astype(np.uint8)))
    return pictures


def write_parquet(
    path: Path, images: list[bytes], labels: list[int], names: list[str] | None = None
) -> None:
    """A Parquet file in the Hugging Face layout; ``names`` declare a ClassLabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": b, "path": None} for b in images],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array(labels),
        }
    )
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            "label": {"names": names, "_type": "ClassLabel"},
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)


def make_task(
    folder: Path, classes: int = 6, train: int = 16, test: int = 12, seed: int = 0
) -> Path:
    """A small learnable data set: folder/train-*.parquet and test-*.parquet.

    Under a declared name it says that it is a part of that set, as `prepare --partial` does.
    """
    names = [f"kind {i}" for i in range(classes)]
    for part, count, offset in (("train", train, 0), ("test", test, 1000)):
        images = [b for c in range(classes) for b in blobs(c, count, seed + offset)]
        labels = [c for c in range(classes) for _ in range(count)]
        order = np.random.RandomState(seed).permutation(len(labels))
        write_parquet(
            folder / f"{part}-00000-of-00001.parquet",
            [images[i] for i in order],
            [labels[i] for i in order],
            names,
        )
    if folder.name in TASKS:
        freeze(folder)
    return folder


def freeze(folder: Path) -> None:
    """Write the manifest of a made-up part of a declared data set."""
    with tempfile.TemporaryDirectory() as cache:
        data = load_task(f"parquet:{folder}", Path(cache))
    parts = {
        part.name: PartFacts(
            images=len(part),
            per_class=np.bincount(part.labels, minlength=len(data.classes)).tolist(),
        )
        for part in (data.train, data.test)
    }
    name = TASKS[folder.name].splits[0].name
    split = SplitFacts(parts=parts, members="0" * 64, split_hash=data.split_hash)
    manifest = Manifest(
        manifest_version=1, task=folder.name, classes=list(data.classes), default=name,
        splits={name: split}, partial=True,
        files={f.name: FileFacts(rows=0, sha256=sha256_file(f)) for f in folder.glob("*.parquet")},
    )  # fmt: skip
    write_manifest(folder, manifest)


@pytest.fixture
def task_dir(tmp_path: Path) -> Path:
    """A made-up six-class data set in Parquet."""
    return make_task(tmp_path / "photos")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny timm checkpoint as it lies on the Hub: config.json and model.safetensors."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    torch.manual_seed(1)
    net = timm.create_model("test_resnet", num_classes=7)
    save_file(net.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_resnet",
        "num_classes": 7,
        "num_features": net.num_features,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 7,
            "classifier": "fc",
            "first_conv": "conv1.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium. Absent: skip, or fail where everything is required."""
    reason = ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        reason = "playwright is not installed"
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if not reason and not path:
        reason = f"no browser at {CHROMIUM}"
    if reason:
        if _REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
