"""Files read back as they were given, and are the same however the work was done."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.data.sources import ParquetSource, image_hash
from eval.prepare.archives import Download
from eval.prepare.listing import Box, Item
from eval.prepare.write import STATE, Row, Schema, Written, forget, plan, write_shards
from tests.prepare.archives import KINDS, folder, make_tar, make_zip

NAMES = ("ant", "bee", "cat")
REPOSITORY = Path(__file__).parents[2]


def png(seed: int, size: int = 12) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {f"set/{i:03d}.png": png(i) for i in range(60)}


def rows_of(download: Download) -> list[Row]:
    """The official list is in an order of its own; every fourth image is for testing."""
    entries = [entry for _, entry in download.find(r".*\.png")]
    entries.sort(key=lambda entry: hashlib.sha256(entry.name.encode()).digest())
    return [
        Row(Item(entry.name, i % 3, "", entry), "test" if i % 4 == 0 else "train", i)
        for i, entry in enumerate(entries)
    ]


def prepare(source: Path, out: Path, **options: object) -> Written:
    download = Download.open(source)
    settings = {"shard_bytes": 5000, **options}
    return write_shards(download, rows_of(download), out, Schema(NAMES), **settings)  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(out.glob("*.parquet"))}


@pytest.mark.parametrize(
    ("kind", "processes"), [("folder", 1), ("zip", 1), ("tar", 1), ("tar.gz", 1), ("zip", 2)]
)
def test_the_same_files_however_they_come(
    tmp_path: Path, kind: str, processes: int, reference: tuple[Written, dict[str, str]]
) -> None:
    KINDS[kind](tmp_path / "in", dict(sorted(FILES.items())))
    written = prepare(tmp_path / "in", tmp_path / "out", processes=processes)
    assert digests(tmp_path / "out") == reference[1]
    assert written == reference[0]
    assert {name: facts.sha256 for name, facts in written.files.items()} == reference[1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, dict[str, str]]:
    path = tmp_path_factory.mktemp("reference")
    folder(path / "in", FILES)
    return prepare(path / "in", path / "out"), digests(path / "out")


def test_read_back_by_datasets_and_by_the_loader(tmp_path: Path) -> None:
    from datasets import ClassLabel, load_dataset
    from datasets import Image as ImageFile

    make_zip(tmp_path / "in/a.zip", FILES)
    out = tmp_path / "out"
    written = prepare(tmp_path / "in", out)
    rows = {row.position: row for row in rows_of(Download.open(tmp_path / "in"))}
    assert len(written.files) > 4
    assert sum(facts.rows for facts in written.files.values()) == len(FILES)
    for part in ("train", "test"):
        files = sorted(out.glob(f"{part}-*.parquet"))
        data = load_dataset(
            "parquet", data_files=[str(f) for f in files], cache_dir=str(tmp_path / "hf")
        )["train"]
        assert data.features["label"] == ClassLabel(names=list(NAMES))
        assert isinstance(data.features["image"], ImageFile)
        assert data[0]["image"].size == (12, 12)
        raw = data.cast_column("image", ImageFile(decode=False))
        source = ParquetSource(tuple(files))
        scan = source.scan()
        assert scan.names == NAMES
        assert len(raw) == sum(row.part == part for row in rows.values())
        images = dict(source.images(np.arange(len(raw))))
        for i, row in enumerate(raw):
            item = rows[row["position"]].item
            assert row["image"]["path"] == item.name
            assert row["image"]["bytes"] == images[i] == FILES[item.name]
            assert row["label"] == scan.labels[i] == item.label
            assert written.hashes[row["position"]] == image_hash(FILES[item.name])
            assert bytes(scan.hashes[i]) == written.hashes[row["position"]]


def test_groups(tmp_path: Path) -> None:
    folder(tmp_path / "in", FILES)
    download = Download.open(tmp_path / "in")
    rows = [
        Row(Item(e.name, 0, "", e, group="lesion" if i else ""), "train", i)
        for i, e in enumerate(download.entries)
    ]
    write_shards(download, rows, tmp_path / "out", Schema(NAMES, group=True))
    table = pq.read_table(tmp_path / "out/train-00000-of-00001.parquet")
    assert table.column_names == ["image", "label", "position", "group"]
    assert table["group"].to_pylist() == ["", *["lesion"] * (len(FILES) - 1)]


@pytest.mark.parametrize("flag", ["", "difficult", "iscrowd"])
def test_detection(tmp_path: Path, flag: str) -> None:
    from datasets import load_dataset

    folder(tmp_path / "in", FILES)
    download = Download.open(tmp_path / "in")
    boxes = (Box(1, 2, 3.5, 4, 2, 14.0, difficult=True), Box(0, 0, 1, 1, 0, 0.5, crowd=True))
    rows = [
        Row(Item(e.name, -1, "", e, boxes=boxes if i % 2 == 0 else ()), "test", i)
        for i, e in enumerate(download.entries)
    ]
    schema = Schema(NAMES, detection=True, flag=flag)  # type: ignore[arg-type]
    write_shards(download, rows, tmp_path / "out", schema)
    data = load_dataset(
        "parquet", data_files=str(tmp_path / "out/*.parquet"), cache_dir=str(tmp_path / "hf")
    )["train"]
    assert data.column_names == ["image", "objects", "position"]
    assert data.features["objects"]["category"].feature.names == list(NAMES)
    expected = {"bbox": [[1, 2, 3.5, 4], [0, 0, 1, 1]], "category": [2, 0], "area": [14, 0.5]}
    if flag:
        expected[flag] = [True, False] if flag == "difficult" else [False, True]  # type: ignore[list-item]
    assert data[0]["objects"] == expected
    assert set(map(len, data[1]["objects"].values())) == {0}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_rows_of_an_array(tmp_path: Path, kind: str) -> None:
    from scipy.io import savemat

    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 20), np.uint8)
    buffer = io.BytesIO()
    savemat(buffer, {"X": pixels, "y": np.ones((20, 1))}, do_compression=True)
    KINDS[kind](tmp_path / "in", {"train_32x32.mat": buffer.getvalue(), "x.png": png(0)})
    download = Download.open(tmp_path / "in")
    entry = download.one(r"train_32x32\.mat", "train")
    rows = [
        Row(Item(f"train/{i}.png", 0, "", entry, row=i), "test" if i % 3 == 0 else "train", i)
        for i in range(20)
    ]
    shards = plan(download, rows, 20_000)
    assert {shard.pass_ for shard in shards} == {
        (1,) if kind == "tar.gz" else (entry.container, entry.place)
    }
    written = write_shards(
        download, rows, tmp_path / "out", Schema(NAMES), shard_bytes=20_000, decode=True
    )
    assert len(written.files) > 2
    seen = 0
    for path in (tmp_path / "out").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            got = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
            np.testing.assert_array_equal(got, pixels[..., row["position"]])
            seen += 1
    assert seen == 20
    beyond = [Row(Item("train/20.png", 0, "", entry, row=20), "train", 0)]
    with pytest.raises(UserError, match=r"holds 20 images; train/20\.png should be number 21"):
        write_shards(download, beyond, tmp_path / "other", Schema(NAMES))


def test_what_is_no_array(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"X": np.zeros((3, 3))})
    (tmp_path / "b.mat").write_bytes(b"junk" * 99)
    download = Download.open(tmp_path)
    for name, text in (("a", "X is float64 of shape"), ("b", "b.mat is not a MATLAB file")):
        entry = download.one(rf"{name}\.mat", name)
        with pytest.raises(UserError, match=text):
            write_shards(
                download,
                [Row(Item("1", 0, "", entry, row=0), "train", 0)],
                tmp_path / name,
                Schema(NAMES),
            )


@pytest.mark.parametrize("processes", [1, 2])
def test_unreadable_images_are_left_out_and_named(tmp_path: Path, processes: int) -> None:
    files = dict(sorted(FILES.items()))
    files["set/007.png"] = files["set/007.png"][:-30]
    files["set/008.png"] = b""
    files["set/009.png"] = b"<html>"
    path = make_zip(tmp_path / "in/a.zip", files)
    inside = files["set/010.png"][50:80]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(inside, bytes(30)))  # a wrong CRC
    written = prepare(tmp_path / "in", tmp_path / "out", processes=processes)
    names = {row.position: row.item.name for row in rows_of(Download.open(tmp_path / "in"))}
    why = {names[position]: text for position, text in written.unreadable.items()}
    assert set(why) == {f"set/{i:03d}.png" for i in (7, 8, 9, 10)}
    assert "empty" in why["set/008.png"]
    assert "web page" in why["set/009.png"]
    assert "CRC" in why["set/010.png"]
    assert sum(facts.rows for facts in written.files.values()) == len(written.hashes) == 56
    assert prepare(tmp_path / "in", tmp_path / "out") == written  # all taken over


def test_decoding_finds_what_markers_do_not(tmp_path: Path) -> None:
    data = png(0)
    start, end = data.index(b"IDAT"), data.index(b"IEND") - 8
    junk = b"IDAT" + bytes(end - start - 4)  # no pixels, under a checksum that is right
    cheat = data[:start] + junk + struct.pack(">I", zlib.crc32(junk)) + data[end + 4 :]
    folder(tmp_path / "in", {"a.png": cheat})
    assert not prepare(tmp_path / "in", tmp_path / "one").unreadable
    assert prepare(tmp_path / "in", tmp_path / "two", decode=True).unreadable


# ---- the plan


def test_files_do_not_mix_passes(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar.gz", {f"a{i}.png": png(i) for i in range(9)})
    make_tar(tmp_path / "b.tar.gz", {f"b{i}.png": png(i) for i in range(9)})
    folder(tmp_path, {f"c/{i}.png": png(i) for i in range(9)})
    make_zip(tmp_path / "d.zip", {f"d{i}.png": png(i) for i in range(9)})
    download = Download.open(tmp_path)
    shards = plan(download, rows_of(download), 1500)
    passes = {shard.pass_ for shard in shards}
    assert passes == {(), (1,), (2,)}
    for shard in shards:
        containers = {row.entry.container for row in shard.rows}
        assert containers == set(shard.pass_) if shard.pass_ else containers <= {0, 3}
        assert shard.bytes <= 1500 + 700
    names = [shard.name for shard in shards]
    assert names == sorted(set(names))
    assert sorted(r.position for s in shards for r in s.rows) == list(range(36))


def test_a_tar_gz_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.prepare import containers

    make_tar(tmp_path / "in/a.tar.gz", FILES)
    seeks = []
    plain = containers._TarBytes.seek
    monkeypatch.setattr(
        containers._TarBytes,
        "seek",
        lambda self, to: (seeks.append(to - self.at), plain(self, to)),
    )
    written = prepare(tmp_path / "in", tmp_path / "out")
    assert len(written.files) > 4
    assert min(seeks) >= 0


# ---- other preparations, and other processes


def test_another_preparation_is_left_alone(tmp_path: Path) -> None:
    folder(tmp_path / "in", FILES)
    out = tmp_path / "out"
    prepare(tmp_path / "in", out)
    before = digests(out)
    for options in ({"decode": True}, {"shard_bytes": 20_000}):
        with pytest.raises(UserError, match=r"holds another preparation \(t.*parquet\); remove it"):
            prepare(tmp_path / "in", out, **options)
    forget(out)
    assert not (out / STATE).exists()
    with pytest.raises(UserError, match="another preparation"):
        prepare(tmp_path / "in", out)
    assert digests(out) == before
    folder(tmp_path / "new", {"validation.parquet": b"mine"})
    with pytest.raises(UserError, match="another preparation"):
        prepare(tmp_path / "in", tmp_path / "new")
    assert (tmp_path / "new/validation.parquet").read_bytes() == b"mine"


def test_a_file_that_is_gone_is_written_again(tmp_path: Path) -> None:
    folder(tmp_path / "in", FILES)
    out = tmp_path / "out"
    written = prepare(tmp_path / "in", out)
    before = digests(out)
    first, second, *_ = sorted(out.glob("*.parquet"))
    kept = second.stat().st_mtime_ns
    first.unlink()
    assert prepare(tmp_path / "in", out) == written
    assert digests(out) == before
    assert second.stat().st_mtime_ns == kept
    second.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{second.name} was changed since it was written"):
        prepare(tmp_path / "in", out)
    assert second.read_bytes() == b"mine"


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    from filelock import FileLock

    folder(tmp_path / "in", FILES)
    (tmp_path / "out" / STATE).mkdir(parents=True)
    with (
        FileLock(tmp_path / "out" / STATE / "lock"),
        pytest.raises(UserError, match="another process"),
    ):
        prepare(tmp_path / "in", tmp_path / "out")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.prepare import write

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder(tmp_path / "in", FILES)
    monkeypatch.setattr(write, "write_json", full)
    with pytest.raises(UserError, match=r"cannot be written: .*No space left"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert [p for p in (tmp_path / "out").iterdir() if p.name != STATE] == []


# ---- killed

SCRIPT = """
import sys
from pathlib import Path

if __name__ == "__main__":  # not in the processes that it starts
    import tests.prepare.test_write as t

    source, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    t.prepare(source, out, processes=processes, decode=True, shard_bytes=200_000)
"""


def start(tmp_path: Path, processes: int) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "out"), str(processes)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def until(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("how", "processes"), [("kill", 1), ("kill", 2), ("interrupt", 2)])
@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path, how: str, processes: int) -> None:
    many = {f"{i:04d}.png": png(i % 7, 60) + bytes([i % 251]) * (i % 5) for i in range(600)}
    half = dict(list(many.items())[:300])
    make_tar(tmp_path / "in/a.tar.gz", half)
    make_zip(tmp_path / "in/b.zip", {name: many[name] for name in many.keys() - half.keys()})
    out = tmp_path / "out"
    undisturbed = prepare(tmp_path / "in", tmp_path / "whole", decode=True, shard_bytes=200_000)

    child = start(tmp_path, processes)
    until(lambda: any(out.glob("*.parquet")) or child.poll() is not None)
    family = psutil.Process(child.pid).children(recursive=True)
    if how == "kill":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert "spawn_main" not in errors  # a worker's traceback
    psutil.wait_procs(family, timeout=60)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert child.returncode != 0
    left = set(digests(out))
    assert 0 < len(left) < len(undisturbed.files)
    times = {name: (out / name).stat().st_mtime_ns for name in left}

    again = prepare(tmp_path / "in", out, decode=True, shard_bytes=200_000)
    assert again == undisturbed
    assert digests(out) == digests(tmp_path / "whole")
    assert {name: (out / name).stat().st_mtime_ns for name in left} == times
    assert not [p.name for p in out.iterdir() if p.name.endswith(".tmp")]


def test_workers_import_no_torch() -> None:
    code = "import sys, eval.prepare.write, eval.prepare.archives; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path: Path) -> None:
    data = png(0, 400)  # half a megabyte
    folder(tmp_path / "in", {f"{i}.png": data for i in range(300)})
    code = f"""
import resource, sys
from pathlib import Path
import tests.prepare.test_write as t
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
t.Schema(t.NAMES).arrow()
before = peak()
t.prepare(Path({str(tmp_path / "in")!r}), Path({str(tmp_path / "out")!r}), shard_bytes=1 << 28)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE
    )
    assert 300 * len(data) > 140e6
    assert float(done.stdout) < 125  # MB: a few row groups
