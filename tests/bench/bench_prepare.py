"""prepare: images a second from a folder, a zip and a tar.gz, with one and two processes.

    python -m tests.bench.bench_prepare [--data ../shared/data] [--rounds 3]

EuroSAT in its official layout and at its official size: 27,000 files, whose contents are the real
images at hand, over and over. No rival reads these archives; what is compared is containers,
processes and --decode, in turn in one process run. All must give the same split hash, and the
members that the declaration froze (else prepare refuses).
"""

import argparse
import itertools
import shutil
import statistics
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow.parquet as pq

from eval.prepare.prepare import prepare
from eval.tasks.registry import TASKS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        measure(args.data, args.rounds, Path(temp))


def make(data: Path, out: Path) -> None:
    """The three downloads."""
    files = sorted((data / "eurosat").glob("*.parquet"))
    images = itertools.cycle(
        row["bytes"]
        for f in files
        for row in pq.read_table(f, columns=["image"])["image"].to_pylist()
    )
    task = TASKS["eurosat"]
    for cls, count in zip(task.class_names, task.per_class, strict=True):
        folder = out / "folder" / "2750" / cls
        folder.mkdir(parents=True)
        for n in range(1, count + 1):
            (folder / f"{cls}_{n}.jpg").write_bytes(next(images))
    for name in ("zip", "tar.gz"):
        (out / name).mkdir()
    with zipfile.ZipFile(out / "zip" / "EuroSAT.zip", "w") as archive:
        for path in sorted((out / "folder").rglob("*.jpg")):
            archive.write(path, path.relative_to(out / "folder"))
    with tarfile.open(out / "tar.gz" / "EuroSAT.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(out / "folder" / "2750", "2750")


def measure(data: Path, rounds: int, temp: Path) -> None:
    make(data, temp)
    jobs = [(kind, processes, decode) for kind in ("folder", "zip", "tar.gz")
            for processes in (1, 2) for decode in (False, True)]  # fmt: skip
    seconds: dict[tuple[str, int, bool], list[float]] = {job: [] for job in jobs}
    hashes = set()
    for _ in range(rounds):
        for kind, processes, decode in jobs:
            start = time.perf_counter()
            done = prepare("eurosat", temp / kind, temp / "out", processes=processes, decode=decode)
            seconds[kind, processes, decode].append(time.perf_counter() - start)
            hashes.add(done.manifest.splits["study"].split_hash)
            shutil.rmtree(temp / "out")
    assert len(hashes) == 1, hashes
    print("| download | processes | --decode | seconds | images/s |\n|---|---|---|---|---|")
    for (kind, processes, decode), values in seconds.items():
        middle = statistics.median(values)
        print(f"| {kind} | {processes} | {decode} | {middle:.1f} | {27_000 / middle:,.0f} |")


if __name__ == "__main__":
    main()
