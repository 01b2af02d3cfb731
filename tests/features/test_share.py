"""A bank that several jobs encode: however it is divided, and whoever did what, its bytes are the
same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features import encode as module
from eval.features.encode import Encoded, encode, encode_share
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.stores.front import folder_of, store_of
from tests.factories import make_task
from tests.hub import LoopbackHub
from tests.stores.hub import hub_address

FP32, IMAGES, SHARD, BATCH = Precision(), 60, 8, 4


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


@pytest.fixture(scope="module")
def backbone(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve(f"local-dir:{model_dir}", tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    folder = make_task(tmp_path_factory.mktemp("data"), classes=4, train=9, test=6)
    return load_task(f"parquet:{folder}", tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", SHARD)  # five of train, three of test


@pytest.fixture(scope="module")
def undivided(
    backbone: Backbone, task: TaskData, workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The file of a bank that one job made."""
    with patch.object(module, "SHARD", SHARD):
        return whole(backbone, task, tmp_path_factory.mktemp("cache"), workers)[0]


def whole(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> tuple[bytes, Encoded]:
    found = encode(backbone, task, cache, workers, FP32, BATCH)
    (path,) = (cache / "banks").iterdir()
    return path.read_bytes(), found


def shards(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "partial").glob("*/*"))


@pytest.mark.slow
@settings(max_examples=20)
@given(data=st.data())
def test_any_division_gives_the_same_bank(
    data: st.DataObject, backbone: Backbone, task: TaskData, workers: Workers, undivided: bytes
) -> None:
    """Any number of shares, in any order, some twice, some by nobody, on machines that have a store
    in common and no disk."""
    many = data.draw(st.integers(1, 12), "shares")
    done: Sequence[tuple[int, int]] = data.draw(
        st.lists(st.tuples(st.integers(0, many - 1), st.integers(0, 2)), max_size=8), "(share, by)"
    )
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as there:
        address = f"memory://{Path(name).name}/cache"

        def machine(number: int) -> Path:
            there.setenv("TRANSFERZOO_CACHE", f"{name}/machine{number}")
            return folder_of(address)

        images = 0
        for share, by in done:
            images += encode_share(
                backbone, task, machine(by), workers, FP32, BATCH, (share, many)
            )  # fmt: skip
        last = machine(3)
        made, _ = whole(backbone, task, last, workers)
        assert made == undivided
        assert images <= IMAGES  # none twice
        names = store_of(last).sizes()
        assert [n.partition("/")[0] for n in names] == ["banks"]  # the shares are cleared away
        store_of(last).remove(list(names))


def test_shares_are_about_equal_and_none_is_left_out(
    backbone: Backbone, task: TaskData, workers: Workers, tmp_path: Path
) -> None:
    took = [
        encode_share(backbone, task, tmp_path, workers, FP32, BATCH, (i, 3)) for i in range(3)
    ]  # fmt: skip
    assert sum(took) == IMAGES
    assert max(took) <= IMAGES // 3 + SHARD
    assert len(shards(tmp_path)) == 8
    before = shards(tmp_path)
    with patch.object(module, "forward", side_effect=AssertionError("it is there")):
        assert encode_share(backbone, task, tmp_path, workers, FP32, BATCH, (1, 3)) == 0
        encode(backbone, task, tmp_path, workers, FP32, BATCH)
        assert encode_share(backbone, task, tmp_path, workers, FP32, BATCH, (1, 3)) == 0
    assert before
    assert shards(tmp_path) == []


def test_shards_of_a_killed_try_reach_the_store(
    backbone: Backbone, task: TaskData, workers: Workers, tmp_path: Path,
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, undivided: bytes,
) -> None:  # fmt: skip
    """It was killed when shards lay here and not there yet; a Hub is the store."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "one"))
    cache = folder_of(hub_address(hub, "shares", monkeypatch))
    with patch.object(module, "give_large"):
        assert encode_share(backbone, task, cache, workers, FP32, BATCH, (0, 2)) > 0
    store = store_of(cache)
    assert store.sizes() == {}
    assert encode_share(backbone, task, cache, workers, FP32, BATCH, (0, 2)) == 0
    assert len(store.sizes("partial")) == len(shards(cache)) == 4
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "two"))
    other = folder_of("hf://datasets/lab/shares")
    assert other != cache
    with patch.object(module, "forward", wraps=module.forward) as forward:
        assert whole(backbone, task, other, workers)[0] == undivided
    assert sum(len(call.args[1]) for call in forward.call_args_list) < IMAGES
    assert [name.partition("/")[0] for name in store.sizes()] == ["banks"]
