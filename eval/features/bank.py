"""Feature banks on disk: one safetensors file a (model, task), written once, memory-mapped.

A bank's name is the hash of everything its numbers depend on (``FeatureKey``); its header carries
that key and a checksum of the data. A file whose key or checksum differs is never used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from eval.common.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

_NO_SHA = "0" * 64


@dataclass(frozen=True)
class FeatureKey:
    """What the features depend on."""

    weights_sha256: str
    construction: str  # what makes a network of the weights, a digest
    transform: str  # timm's data config as JSON
    split_hash: str
    precision: str
    layer: str = "pooled"
    versions: str = ""  # of what computes and prepares images, as JSON
    format: int = 2

    @property
    def digest(self) -> str:
        facts = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class FeatureBank:
    """Features of a task's train rows, then its test rows, both in canonical order."""

    features: Tensor  # [N_train + N_test, D] float32 (of maps float16), memory-mapped
    labels: Tensor  # [N_train + N_test] int64
    train_rows: int
    precision: str

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        return self.features[: self.train_rows], self.labels[: self.train_rows]

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        return self.features[self.train_rows :], self.labels[self.train_rows :]


def bank_path(cache: Path, key: FeatureKey) -> Path:
    return cache / "banks" / f"{key.digest}.safetensors"


def open_bank(path: Path, key: FeatureKey) -> FeatureBank | None:
    """The bank, or None when it is absent or its key or checksum does not match."""
    header = read_header(path)
    if header is None:
        return None
    meta = header["__metadata__"]
    if meta.get("key") != json.dumps(dataclasses.asdict(key), sort_keys=True):
        return None
    with path.open("rb") as file:
        if _checksum(file, str(meta.get("sha256"))) != meta.get("sha256"):
            return None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        features = stored.get_tensor("features")
        labels = stored.get_tensor("labels")
    return FeatureBank(features, labels, int(meta["train_rows"]), meta["precision"])


def _checksum(file: IO[bytes], stated: str) -> str:
    """sha256 of header and data, with zeros in the place of the checksum the header states."""
    file.seek(0)
    length = file.read(8)
    header = file.read(int.from_bytes(length, "little"))
    digest = hashlib.sha256(length + header.replace(stated.encode(), _NO_SHA.encode(), 1))
    return hashlib.file_digest(file, lambda: digest).hexdigest()  # type: ignore[arg-type]  # it is a real file


def read_header(path: Path) -> dict[str, Any] | None:
    """A bank's header without its data; None when the file is not a bank."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > 1 << 20:
                return None
            header = json.loads(file.read(length))
        ours = "key" in header["__metadata__"] and len(header["features"]["shape"]) == 2
        return header if ours else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_bank(
    path: Path,
    key: FeatureKey,
    rows: int,
    dim: int,
    train_rows: int,
    labels: bytes,
    pieces: Iterable[tuple[Iterable[int], bytes]],
    facts: dict[str, str],
    *,
    half: bool = False,
) -> None:
    """Write a bank from pieces: (canonical row numbers, their features as bytes), which are of
    float32, or with ``half`` of float16.

    Rows go straight to their place in the file, so memory holds one piece whatever N is. The
    safetensors library wants whole tensors, hence the small writer here; the format is 8 bytes
    of length, a JSON header, the data. ``labels`` are int64 bytes [rows].
    """
    width = dim * (2 if half else 4)
    split = rows * width
    meta = {
        "sha256": _NO_SHA,  # first, so that the first match of these digits is this one
        "key": json.dumps(dataclasses.asdict(key), sort_keys=True),
        "train_rows": str(train_rows),
        "precision": key.precision,
        **facts,
    }
    header = {
        "__metadata__": meta,
        "features": {
            "dtype": "F16" if half else "F32",
            "shape": [rows, dim],
            "data_offsets": [0, split],
        },
        "labels": {"dtype": "I64", "shape": [rows], "data_offsets": [split, split + len(labels)]},
    }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)  # the data must start on a multiple of 8
    with atomic_file(path) as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.flush()
        start = 8 + len(raw)
        for places, data in pieces:
            view = memoryview(data)
            for i, place in enumerate(places):
                os.pwrite(file.fileno(), view[i * width : (i + 1) * width], start + place * width)
        os.pwrite(file.fileno(), labels, start + split)
        digest = _checksum(file, _NO_SHA)
        file.seek(8)
        file.write(raw.replace(_NO_SHA.encode(), digest.encode(), 1))
