"""The embedded suite `mini`: image tasks that need no download.

It holds scikit-learn's real handwritten digits and nine *factor tasks* drawn by our own code, each
with known ground truth at one level of semantics. This module declares the tasks and writes them as
Parquet; `eval.mini.painters` draws the pixels. Importing it loads neither numpy, pyarrow nor torch.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from uuid import uuid4

from eval.mini.factors import FACTOR_TASKS, FactorTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
Split = Literal["train", "test"]

DIGITS_CLASSES = tuple("0123456789")
DIGITS_TEST_SHARE = 0.3


def draw(task: str, split: Split, label: int, index: int) -> np.ndarray:
    """Return image number `index` of class `label`, [64, 64, 3] uint8 RGB.

    The pixels depend on nothing but MINI_VERSION and the arguments.

    Raises:
        KeyError: `task` is not in FACTOR_TASKS.
        ValueError: `split`, `label` or `index` is out of range.
    """
    facts = _factor_task(task)
    if split not in get_args(Split):
        raise ValueError(f"split {split!r} is unknown; use 'train' or 'test'")
    if not 0 <= label < len(facts.classes):
        raise ValueError(f"label {label} is out of range: {task} has {len(facts.classes)} classes")
    if index < 0:
        raise ValueError(f"index {index} is negative")
    from eval.mini import painters

    return painters.photograph(task, label, painters.random_state(task, split, label, index))


def digits_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train images, train labels, test images and test labels of scikit-learn's digits.

    Images are [n, 8, 8] uint8 grey levels 0..255, labels [n] int64. The 30 % test share is
    stratified; the split is our own and does not move with scikit-learn's version.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    from eval.mini.painters import random_state

    raw = load_digits()
    images = np.rint(raw.images * (255.0 / 16.0)).astype(np.uint8)  # [1797, 8, 8]
    labels = raw.target.astype(np.int64)  # [1797]
    rng = random_state("digits", "split")
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(len(DIGITS_CLASSES)):
        members = np.flatnonzero(labels == digit)
        test[rng.permutation(members)[: round(DIGITS_TEST_SHARE * len(members))]] = True
    return images[~test], labels[~test], images[test], labels[test]


def write_task(name: str, directory: Path) -> None:
    """Write `name` ("digits" or a factor task) as one train and one test Parquet file.

    The files read as Hugging Face data: `image` {bytes: BMP, path} and `label` int64 with class
    names. Rows are shuffled, the same way on every machine. Each file appears whole or not at all.

    Raises:
        KeyError: `name` is not a task of the suite.
    """
    classes = DIGITS_CLASSES if name == "digits" else _factor_task(name).classes
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[Path, Path] = {}  # temporary file -> final file
    try:
        for split in get_args(Split):
            final = directory / f"{split}-00000-of-00001.parquet"
            temporary = directory / f".{final.name}.{uuid4().hex}.tmp"
            written[temporary] = final
            _write_parquet(list(_rows(name, split)), classes, temporary)
        for temporary, final in written.items():
            temporary.replace(final)  # os.replace: atomic within a folder
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)


def encode_bmp(image: np.ndarray) -> bytes:
    """Return `image` ([h, w] grey or [h, w, 3] RGB, uint8) as an uncompressed BMP file.

    PNG bytes change with the version of the encoder; these never do.
    """
    import numpy as np

    height, width = image.shape[:2]
    grey = image.ndim == 2
    levels = np.arange(256, dtype=np.uint8)
    palette = np.stack([levels, levels, levels, 0 * levels], axis=1).tobytes() if grey else b""
    rows = image[::-1] if grey else image[::-1, :, ::-1]  # bottom-up, BGR
    row_bytes = np.ascontiguousarray(rows).reshape(height, -1)
    pixels = np.pad(row_bytes, ((0, 0), (0, -row_bytes.shape[1] % 4))).tobytes()
    offset = 14 + 40 + len(palette)
    return (
        struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
        + struct.pack("<IiiHHI", 40, width, height, 1, 8 if grey else 24, 0)
        + struct.pack("<IiiII", len(pixels), 0, 0, 256 if grey else 0, 0)
        + palette
        + pixels
    )


def _factor_task(name: str) -> FactorTask:
    """Return the facts of `name`; the KeyError lists the names that exist."""
    if name not in FACTOR_TASKS:
        raise KeyError(f"no mini task {name!r}; there are digits, {', '.join(FACTOR_TASKS)}")
    return FACTOR_TASKS[name]


def _rows(name: str, split: Split) -> Iterator[tuple[bytes, str, int]]:
    """Yield (BMP bytes, file name, label) of every image of a split, in shuffled order."""
    from eval.mini.painters import random_state

    shuffle = random_state(name, split, "order").permutation
    if name == "digits":
        parts = digits_split()
        images, labels = parts[:2] if split == "train" else parts[2:]
        for row in shuffle(len(labels)):
            yield encode_bmp(images[row]), f"{split}-{row:04d}.bmp", int(labels[row])
        return
    task = FACTOR_TASKS[name]
    per_class = task.train_per_class if split == "train" else task.test_per_class
    for row in shuffle(len(task.classes) * per_class):
        label, index = divmod(int(row), per_class)
        path = f"{split}-{row:04d}.bmp"
        yield encode_bmp(draw(name, split, label, index)), path, label


def _write_parquet(
    rows: list[tuple[bytes, str, int]], classes: tuple[str, ...], path: Path
) -> None:
    """Write the rows with the schema metadata that `datasets` reads as Image and ClassLabel."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image_type), ("label", pa.int64())],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    images = [{"bytes": data, "path": name} for data, name, _ in rows]
    labels = [label for _, _, label in rows]
    table = pa.table([pa.array(images, image_type), pa.array(labels, pa.int64())], schema=schema)
    pq.write_table(table, path, compression="zstd")
