"""Backbone x task -> feature bank: the right numbers, whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from eval.common.distributed import Workers
from eval.common.errors import UserError
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features import encode as module
from eval.features.encode import Encoded, encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from tests.factories import blobs, write_parquet

FP32 = Precision()


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


@pytest.fixture(scope="module")
def backbone(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve(f"local-dir:{model_dir}", tmp_path_factory.mktemp("cache")))


@pytest.fixture
def task(task_dir: Path, cache: Path) -> TaskData:
    """96 train and 72 test images."""
    return load_task(f"parquet:{task_dir}", cache)


def rows_of(folder: Path, part: str) -> list[tuple[bytes, int]]:
    """(image bytes, label) of all rows of a Parquet task, as pyarrow reads them."""
    table = pq.read_table(folder / f"{part}-00000-of-00001.parquet")
    images = [cell["bytes"] for cell in table["image"].to_pylist()]
    return list(zip(images, table["label"].to_pylist(), strict=True))


def canonical(rows: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Rows sorted by the hash of their image."""
    return sorted(rows, key=lambda row: hashlib.sha256(row[0]).digest())


def leftovers(folder: Path) -> list[str]:
    """Temporary files, and files of no length, below a folder."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    empty = [p for p in files if p.stat().st_size == 0 and p.suffix != ".lock"]
    return [str(p) for p in {*empty, *(p for p in files if ".tmp" in p.name)}]


def banks(cache: Path) -> list[Path]:
    return sorted(p for p in (cache / "banks").glob("*"))


def shards(cache: Path) -> list[Path]:
    return sorted((cache / "partial").glob("*/*"))


@contextmanager
def counted(net: nn.Module, fail_after: int | None = None) -> Iterator[list[int]]:
    """Sizes of the batches that pass through a network; optionally breaks it after some."""
    batches: list[int] = []

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if fail_after is not None and len(batches) == fail_after:
            raise RuntimeError("the power went out")
        batches.append(len(args[0]))

    handle = net.register_forward_pre_hook(hook)
    try:
        yield batches
    finally:
        handle.remove()


# ---- the numbers


def plain_loop(net: nn.Module, rows: list[tuple[bytes, int]]) -> Tensor:
    """What a user would write: timm's own transform, one image at a time, fp32."""
    config = resolve_data_config({"img_size": 32}, model=net)
    transform = create_transform(**config, is_training=False)
    out = []
    with torch.no_grad():
        for data, _ in rows:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            out.append(net(transform(image)[None])[0])
    return torch.stack(out)


@pytest.mark.parametrize("which", ["resnet", "vit"])
def test_equals_a_plain_loop(
    which: str, model_dir: Path, task: TaskData, task_dir: Path, cache: Path, workers: Workers
) -> None:
    if which == "resnet":
        ours = load(resolve(f"local-dir:{model_dir}", cache))
        net = timm.create_model(f"local-dir:{model_dir}", pretrained=True)
    else:
        ours = load(resolve("random:test_vit@3", cache, img_size=32))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            net = timm.create_model("test_vit", img_size=32)
    net.reset_classifier(0)
    expected = {p: canonical(rows_of(task_dir, p)) for p in ("train", "test")}
    encoded = encode(ours, task, cache, workers, FP32)
    bank = encoded.bank
    assert encoded.images == 168
    assert bank.features.dtype == torch.float32
    assert bank.features.shape == (168, ours.dim)
    for part, (features, labels) in (("train", bank.train), ("test", bank.test)):
        want = plain_loop(net.eval(), expected[part])
        assert want.std(0).max() > 1e-3  # else the comparison would say nothing
        torch.testing.assert_close(features, want, atol=1e-5, rtol=1e-5)
        assert labels.tolist() == [label for _, label in expected[part]]
    assert leftovers(cache) == []
    assert shards(cache) == []


@pytest.mark.parametrize(
    ("shard", "batch"), [(512, 512), (512, 7), (5, 3), (7, 64), (1, 1)], ids=str
)
def test_independent_of_shards_and_batches(
    shard: int,
    batch: int,
    backbone: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reference = encode(backbone, task, cache, workers, FP32).bank
    monkeypatch.setattr(module, "SHARD", shard)
    with counted(backbone.net) as batches:
        bank = encode(backbone, task, tmp_path / "other", workers, FP32, batch).bank
    assert sum(batches) == 168
    assert max(batches) == min(shard, batch, 96)
    torch.testing.assert_close(bank.features, reference.features, atol=1e-5, rtol=1e-5)
    assert torch.equal(bank.labels, reference.labels)


def test_independent_of_row_order_and_files(
    backbone: Backbone,
    task: TaskData,
    task_dir: Path,
    cache: Path,
    workers: Workers,
    tmp_path: Path,
) -> None:
    """A mirror with the rows reversed and in three files: same key, same bank."""
    mirror = tmp_path / "mirror"
    for part in ("train", "test"):
        rows = rows_of(task_dir, part)[::-1]
        for i in range(3):
            piece = rows[i * len(rows) // 3 : (i + 1) * len(rows) // 3]
            write_parquet(
                mirror / f"{part}-0000{i}-of-00003.parquet",
                [data for data, _ in piece],
                [label for _, label in piece],
                [f"kind {i}" for i in range(6)],
            )
    other_cache = tmp_path / "other"
    other = load_task(f"parquet:{mirror}", other_cache)
    assert other.split_hash == task.split_hash
    here = encode(backbone, task, cache, workers, FP32).bank
    there = encode(backbone, other, other_cache, workers, FP32).bank
    assert [p.name for p in banks(cache)] == [p.name for p in banks(other_cache)]
    torch.testing.assert_close(there.features, here.features, atol=1e-5, rtol=1e-5)
    assert torch.equal(there.labels, here.labels)
    # and with one cache for both, the second is not encoded at all
    assert encode(backbone, other, cache, workers, FP32).images == 0


def test_a_limited_task_is_encoded_alone(
    backbone: Backbone, task_dir: Path, task: TaskData, cache: Path, workers: Workers
) -> None:
    few = load_task(f"parquet:{task_dir}", cache, limit=20)
    full = encode(backbone, task, cache, workers, FP32).bank
    with counted(backbone.net) as batches:
        bank = encode(backbone, few, cache, workers, FP32).bank
    assert sum(batches) == 40
    rows = [task.train.keys.tolist().index(key) for key in few.train.keys.tolist()]
    torch.testing.assert_close(bank.train[0], full.train[0][rows], atol=1e-5, rtol=1e-5)


# ---- the cache


def test_second_call_encodes_nothing(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    first = encode(backbone, task, cache, workers, FP32)
    assert first.seconds > 0
    with counted(backbone.net) as batches:
        second = encode(backbone, task, cache, workers, FP32)
    assert batches == []
    assert (second.images, second.seconds) == (0, 0.0)
    assert torch.equal(second.bank.features, first.bank.features)


@pytest.mark.parametrize("damage", ["flip", "truncate", "another key"])
def test_a_damaged_bank_is_made_again(
    damage: str, backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    first = encode(backbone, task, cache, workers, FP32)
    features = first.bank.features.clone()  # the mapping below is about to change
    (path,) = banks(cache)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-3000] ^= 1
    elif damage == "truncate":
        del data[-100:]
    else:
        data = bytearray(bytes(data).replace(task.split_hash.encode(), b"0" * 64))
    path.unlink()
    path.write_bytes(data)
    again = encode(backbone, task, cache, workers, FP32)
    assert again.images == 168
    assert torch.equal(again.bank.features, features)
    assert encode(backbone, task, cache, workers, FP32).images == 0


def interrupted(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers, batches: int
) -> None:
    """Encode until the network breaks at the given batch."""
    with (
        counted(backbone.net, fail_after=batches),
        pytest.raises(RuntimeError, match="the power went out"),
    ):
        encode(backbone, task, cache, workers, FP32, batch_size=4)
    assert leftovers(cache) == []
    assert banks(cache) == []


def test_goes_on_at_the_next_shard(
    backbone: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = encode(backbone, task, tmp_path / "other", workers, FP32, batch_size=4).bank
    monkeypatch.setattr(module, "SHARD", 8)  # two batches of four make a shard
    interrupted(backbone, task, cache, workers, batches=11)  # five shards, and half of the sixth
    assert len(shards(cache)) == 5
    interrupted(backbone, task, cache, workers, batches=6)
    assert len(shards(cache)) == 8
    with counted(backbone.net) as batches:
        bank = encode(backbone, task, cache, workers, FP32, batch_size=4).bank
    assert sum(batches) == 168 - 8 * 8
    torch.testing.assert_close(bank.features, whole.features, atol=1e-5, rtol=1e-5)
    assert shards(cache) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "garbage", "empty"])
def test_a_damaged_shard_is_encoded_again(
    damage: str,
    backbone: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = encode(backbone, task, tmp_path / "other", workers, FP32, batch_size=4).bank
    monkeypatch.setattr(module, "SHARD", 8)
    interrupted(backbone, task, cache, workers, batches=10)
    broken = shards(cache)[2]
    data = bytearray(broken.read_bytes())
    if damage == "flip":
        data[-7] ^= 0x40
    broken.write_bytes(
        {"flip": data, "truncate": data[:-9], "garbage": b"x" * 500, "empty": b""}[damage]
    )
    with counted(backbone.net) as batches:
        bank = encode(backbone, task, cache, workers, FP32, batch_size=4).bank
    assert sum(batches) == 168 - 5 * 8 + 8
    torch.testing.assert_close(bank.features, whole.features, atol=1e-5, rtol=1e-5)


def test_shards_of_a_finished_bank_are_cleared_away(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """A kill may come between the bank and the removal of its shards."""
    encode(backbone, task, cache, workers, FP32)
    (path,) = banks(cache)
    for order in ("0123", "4567"):  # begun on two mirrors
        shard = cache / "partial" / f"{path.stem}-{order}" / "shard-00000.safetensors"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"features")
    other = cache / "partial" / f"{'ab' * 20}-0123"
    other.mkdir()
    assert encode(backbone, task, cache, workers, FP32).images == 0
    assert list((cache / "partial").iterdir()) == [other]


def test_a_whole_bank_is_read_while_another_has_its_lock(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """Who was stopped with the lock in its hands holds nobody up who needs nothing of it."""
    encode(backbone, task, cache, workers, FP32)
    (path,) = banks(cache)
    with FileLock(cache / "locks" / f"{path.stem}.lock", is_singleton=False, timeout=0):
        assert encode(backbone, task, cache, workers, FP32).images == 0


def test_half_a_bank_is_cleared_away(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """No code of ours runs after kill -9, so the next run cleans."""
    encode(backbone, task, cache, workers, FP32)
    (path,) = banks(cache)
    path.rename(path.with_name(f".{path.name}.abc123.tmp"))
    other = path.with_name(f".{'ab' * 20}.safetensors.abc123.tmp")
    other.write_bytes(b"another bank that is being written right now")
    assert encode(backbone, task, cache, workers, FP32).images == 168
    assert banks(cache) == sorted([path, other])


def test_shards_of_another_row_order_are_not_taken(
    backbone: Backbone,
    task_dir: Path,
    cache: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same images in another order give the same bank, but their shards differ."""
    mirror = tmp_path / "mirror"
    for part in ("train", "test"):
        rows = rows_of(task_dir, part)[::-1]
        write_parquet(
            mirror / f"{part}.parquet",
            [data for data, _ in rows],
            [label for _, label in rows],
            [f"kind {i}" for i in range(6)],
        )
    monkeypatch.setattr(module, "SHARD", 8)
    task, other = (load_task(f"parquet:{d}", cache) for d in (task_dir, mirror))
    interrupted(backbone, task, cache, workers, batches=10)
    bank = encode(backbone, other, cache, workers, FP32, batch_size=4).bank
    fresh = encode(backbone, task, tmp_path / "other", workers, FP32, batch_size=4).bank
    torch.testing.assert_close(bank.features, fresh.features, atol=1e-5, rtol=1e-5)


def test_another_model_transform_or_precision_is_another_bank(
    backbone: Backbone, model_dir: Path, task: TaskData, cache: Path, workers: Workers
) -> None:
    larger = load(resolve(f"local-dir:{model_dir}", cache, img_size=40))
    other = load(resolve("random:test_resnet", cache, img_size=32))
    made: list[Encoded] = [
        encode(backbone, task, cache, workers, FP32),
        encode(backbone, task, cache, workers, Precision("bf16")),
        encode(larger, task, cache, workers, FP32),
        encode(other, task, cache, workers, FP32),
    ]
    assert [e.images for e in made] == [168] * 4
    assert len(banks(cache)) == 4
    assert [e.bank.precision for e in made] == ["fp32", "bf16", "fp32", "fp32"]
    for i, a in enumerate(made):
        for b in made[:i]:
            assert not torch.equal(a.bank.features, b.bank.features)


# ---- what cannot be encoded


@pytest.mark.parametrize(("part", "row"), [("train", 3), ("train", 60), ("test", 41)], ids=str)
@pytest.mark.parametrize("precision", [FP32, None], ids=["given", "probed"])
def test_an_unreadable_image_is_named(
    part: str,
    row: int,
    precision: Precision | None,
    backbone: Backbone,
    task_dir: Path,
    cache: Path,
    workers: Workers,
) -> None:
    rows = rows_of(task_dir, part)
    data, label = rows[row]
    rows[row] = (data[: len(data) // 2], label)
    write_parquet(
        task_dir / f"{part}-00000-of-00001.parquet",
        [data for data, _ in rows],
        [label for _, label in rows],
        [f"kind {i}" for i in range(6)],
    )
    task = load_task(f"parquet:{task_dir}", cache)
    with pytest.raises(UserError) as caught:
        encode(backbone, task, cache, workers, precision)
    message = str(caught.value)
    assert f"row {row} of photos/{part}-00000-of-00001.parquet" in message
    assert task.name in message
    assert "cannot be read as an image" in message
    assert "\n" not in message
    assert banks(cache) == []
    assert leftovers(cache) == []


def checkpoint(folder: Path, model_dir: Path, change: Any) -> Path:
    """A copy of the tiny checkpoint with other weights."""
    folder.mkdir()
    (folder / "config.json").write_text((model_dir / "config.json").read_text())
    state = load_file(model_dir / "model.safetensors")
    save_file({name: change(name, t) for name, t in state.items()}, folder / "model.safetensors")
    return folder


def overflowing(name: str, tensor: Tensor) -> Tensor:
    """Finite weights, as others are refused when they are loaded, of infinite sums."""
    return torch.full_like(tensor, 3e38) if name == "conv1.0.weight" else tensor


@pytest.mark.parametrize("precision", [FP32, None], ids=["given", "probed"])
def test_features_that_are_not_finite(
    precision: Precision | None,
    model_dir: Path,
    task: TaskData,
    cache: Path,
    workers: Workers,
    tmp_path: Path,
) -> None:
    backbone = load(
        resolve(f"local-dir:{checkpoint(tmp_path / 'large', model_dir, overflowing)}", cache)
    )
    with pytest.raises(UserError, match="not finite") as caught:
        encode(backbone, task, cache, workers, precision)
    message = str(caught.value)
    assert "local-dir:large" in message
    assert task.name in message
    assert "row 0 of photos/train-00000-of-00001.parquet" in message
    assert banks(cache) == []
    assert leftovers(cache) == []


def test_only_the_image_with_bad_features_is_named(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    seen = 0

    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        nonlocal seen
        for i in range(len(out)):
            if seen + i == 42:
                out[i, 5] = float("inf")
        seen += len(out)
        return out

    handle = backbone.net.register_forward_hook(hook)
    try:
        with pytest.raises(UserError, match=r"not finite .* for row 42 of photos/train"):
            encode(backbone, task, cache, workers, FP32)
    finally:
        handle.remove()


def test_constant_features(
    model_dir: Path, task: TaskData, cache: Path, workers: Workers, tmp_path: Path
) -> None:
    def zero(_: str, tensor: Tensor) -> Tensor:
        return torch.zeros_like(tensor)

    backbone = load(resolve(f"local-dir:{checkpoint(tmp_path / 'zero', model_dir, zero)}", cache))
    for _ in range(2):  # the second time nothing of the first may make it pass
        with pytest.raises(UserError, match="gives the same features for all 168 images") as caught:
            encode(backbone, task, cache, workers, None)
        assert "local-dir:zero" in str(caught.value)
        assert task.name in str(caught.value)
        assert banks(cache) == []
        assert leftovers(cache) == []


def test_nearly_constant_features_are_features(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """One dimension of one image differs: poor, but not what the error claims."""
    seen = 0

    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        nonlocal seen
        out = torch.ones_like(out)
        if seen == 0:
            out[0, 0] = 2.0
        seen += 1
        return out

    handle = backbone.net.register_forward_hook(hook)
    try:
        assert encode(backbone, task, cache, workers, FP32).images == 168
    finally:
        handle.remove()


# ---- memory

# VmHWM, reset before each task: ru_maxrss would start at the peak of the process that forked us.
MEMORY = """
import sys
from pathlib import Path
import torch
from eval.data.load import load_task
from eval.features.encode import encode
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.features.precision import Precision
from eval.common.distributed import Workers

torch.set_num_threads(1)
cache = Path(sys.argv[1])
backbone = load(resolve("random:test_resnet", cache, img_size=24))
workers = Workers("cpu")
for folder in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")
    task = load_task("parquet:" + folder, cache)
    encoded = encode(backbone, task, cache, workers, Precision())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").open())
    print(encoded.images, int(status["VmHWM"].split()[0]) // 1024, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """300 images, then 3,000 in the same process, 64 kB each: 173 MB more to read.

    Readers fill their buffers (256 rows, 16 MB each) with more of the first 1,000 images.
    """
    folders = []
    for name, train in (("few", 300), ("many", 3000)):
        folder = tmp_path / name
        folder.mkdir()
        for part, count, seed in (("train", train, 1), ("test", 10, 2)):
            pictures = [blobs(label, 1, seed)[0] for label in (0, 1)]
            # A decoder stops at the end of the picture: what follows makes the file large.
            images = [{"bytes": pictures[i % 2] + os.urandom(64_000)} for i in range(count)]
            table = pa.table({"image": images, "label": [i % 2 for i in range(count)]})
            # Row groups as `datasets` writes them: a reader must hold one page at least.
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=100)
        folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "cache"), *folders],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(module.__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    (few, peak_few), (many, peak_many) = (
        map(int, line.split()) for line in done.stdout.splitlines()
    )
    assert (few, many) == (310, 3010)
    assert peak_many - peak_few < 60, f"{peak_few} MB for 300 images, {peak_many} MB for 3,000"


def test_facts_in_the_bank(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """A key anyone can check by hand."""
    encode(backbone, task, cache, workers, FP32)
    (path,) = banks(cache)
    raw = path.read_bytes()
    meta = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    key = json.loads(meta["key"])
    assert key["weights_sha256"] == backbone.weights_sha256
    assert key["split_hash"] == task.split_hash
    assert json.loads(key["transform"])["input_size"] == [3, 32, 32]
    assert meta["train_rows"] == "96"
