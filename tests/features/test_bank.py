"""Feature banks on disk: what is written is read back, and nothing else is trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval.features.bank import (
    FeatureBank,
    FeatureKey,
    bank_path,
    open_bank,
    read_header,
    write_bank,
)

ROWS, DIM, TRAIN = 7, 5, 4
KEY = FeatureKey("ab" * 32, "12" * 20, '{"input_size": [3, 8, 8]}', "cd" * 32, "fp32-channels_last")


def made_up() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(ROWS, DIM, generator=random)
    return features, torch.tensor([3, 0, 2, 1, 0, 3, 2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bank written in two pieces whose rows are scattered, as shards are."""
    features, labels = made_up()
    path = bank_path(tmp_path, KEY)
    pieces = [(rows, features[rows].numpy().tobytes()) for rows in ([6, 0, 3], [5, 1, 4, 2])]
    write_bank(
        path,
        KEY,
        rows=ROWS,
        dim=DIM,
        train_rows=TRAIN,
        labels=labels.numpy().astype("<i8").tobytes(),
        pieces=pieces,
        facts={"model": "random:größe", "task": "photos"},
    )
    return path


def opened(path: Path, key: FeatureKey = KEY) -> FeatureBank:
    bank = open_bank(path, key)
    assert bank is not None
    return bank


def test_round_trip(path: Path) -> None:
    features, labels = made_up()
    bank = opened(path)
    assert torch.equal(bank.features, features)
    assert torch.equal(bank.labels, labels)
    assert (bank.train_rows, bank.precision) == (TRAIN, "fp32-channels_last")
    for (x, y), rows in ((bank.train, slice(0, TRAIN)), (bank.test, slice(TRAIN, ROWS))):
        assert torch.equal(x, features[rows])
        assert torch.equal(y, labels[rows])


def test_safetensors_reads_the_same(path: Path) -> None:
    """The writer is our own, so the format's own library says whether it is the format."""
    bank, stored = opened(path), load_file(path)
    assert set(stored) == {"features", "labels"}
    assert torch.equal(stored["features"], bank.features)
    assert torch.equal(stored["labels"], bank.labels)
    assert (stored["features"].dtype, stored["labels"].dtype) == (torch.float32, torch.int64)
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    assert json.loads(meta["key"])["split_hash"] == KEY.split_hash
    assert (meta["model"], meta["task"]) == ("random:größe", "photos")


def test_only_the_bank_is_there(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir()] == [f"{KEY.digest}.safetensors"]


def test_a_flipped_bit_in_any_byte_is_noticed(path: Path) -> None:
    """Length, header, features and labels alike: a changed split point is as bad as a feature."""
    good = path.read_bytes()
    trusted = []
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        if open_bank(path, KEY) is not None:
            trusted.append(place)
    assert trusted == []


@pytest.mark.parametrize("left", [0, 7, 8, 100, -1, -8, -60])
def test_truncated(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    assert open_bank(path, KEY) is None


def test_longer_than_it_should_be(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_bank(path, KEY) is None


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, weights_sha256="ef" * 32),
        replace(KEY, transform='{"input_size": [3, 9, 9]}'),
        replace(KEY, split_hash="ef" * 32),
        replace(KEY, precision="bf16"),
        replace(KEY, layer="layer3"),
        replace(KEY, format=1),
        replace(KEY, construction="34" * 20),
        replace(KEY, versions='{"torch": "2.16"}'),
    ],
    ids=["weights", "transform", "split", "precision", "layer", "format", "network", "versions"],
)
def test_another_key(path: Path, tmp_path: Path, other: FeatureKey) -> None:
    assert other.digest != KEY.digest
    assert open_bank(bank_path(tmp_path, other), other) is None  # another name
    assert open_bank(path, other) is None  # under the wrong name, the header tells


def test_foreign_safetensors(path: Path) -> None:
    features, labels = made_up()
    save_file({"features": features, "labels": labels}, path, {"format": "pt"})
    assert open_bank(path, KEY) is None
    save_file({"features": features, "labels": labels}, path)
    assert open_bank(path, KEY) is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x10",
        bytes(8),
        b"\xff" * 64,
        b"not a bank at all, but long enough",
        (3).to_bytes(8, "little") + b"nul",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        (21).to_bytes(8, "little") + b'{"__metadata__": "x"}',
        (1 << 40).to_bytes(8, "little") + b"{}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_garbage_has_no_header(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(garbage)
    assert read_header(path) is None
    assert open_bank(path, KEY) is None


def test_no_file_and_a_directory(tmp_path: Path) -> None:
    assert read_header(tmp_path / "absent.safetensors") is None
    assert read_header(tmp_path) is None
    assert open_bank(tmp_path, KEY) is None


def test_header_says_what_is_inside(path: Path) -> None:
    header = read_header(path)
    assert header is not None
    assert header["features"]["shape"] == [ROWS, DIM]
    assert header["__metadata__"]["train_rows"] == str(TRAIN)


def test_a_failing_piece_leaves_nothing(tmp_path: Path) -> None:
    features, labels = made_up()

    def pieces():  # type: ignore[no-untyped-def]
        yield [0], features[0].numpy().tobytes()
        raise OSError("shard is gone")

    path = bank_path(tmp_path, KEY)
    with pytest.raises(OSError, match="shard is gone"):
        write_bank(path, KEY, ROWS, DIM, TRAIN, labels.numpy().tobytes(), pieces(), {})
    assert list(path.parent.iterdir()) == []


def test_a_second_write_replaces_the_first(path: Path) -> None:
    features, labels = made_up()
    doubled = (features * 2).numpy().tobytes()
    old = opened(path)
    write_bank(
        path, KEY, ROWS, DIM, TRAIN, labels.numpy().tobytes(), [(range(ROWS), doubled)], {}
    )  # fmt: skip
    assert torch.equal(opened(path).features, features * 2)
    assert torch.equal(old.features, features)  # still mapped: a reader keeps what it opened
