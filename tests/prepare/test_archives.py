"""A download is the same through a folder and every kind of archive; what is unsafe is refused."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.common.errors import UserError
from eval.prepare import containers
from eval.prepare.archives import Damaged, Download
from eval.prepare.containers import MOST_RATIO, is_hidden, safe_name
from tests.prepare.archives import KINDS, folder, make_tar, make_zip

RANDOM = random.Random(0)
FILES = {
    "set/labels.csv": b"name,label\n1.jpg,cat\n",
    "set/train/cat/1.jpg": RANDOM.randbytes(5000),
    "set/train/cat/empty.jpg": b"",
    "set/train/dög/2.jpg": RANDOM.randbytes(700),
    "set/train/dög/" + "long" * 30 + ".jpg": RANDOM.randbytes(20),
}


def refused(source: Path) -> str:
    with pytest.raises(UserError) as error:
        Download.open(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_through_every_kind(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path, FILES)
    download = Download.open(tmp_path)
    assert {entry.name: entry.size for entry in download.entries} == {
        name: len(data) for name, data in FILES.items()
    }
    assert download.containers[0] == tmp_path
    for entry in reversed(download.entries):  # not in the archive's order
        assert download.read(entry) == FILES[entry.name]
    streamed = list(download.stream([*reversed(download.entries), *download.entries]))
    assert {entry.name: data for entry, data in streamed} == FILES
    assert len(streamed) == len(FILES)
    places = [entry.place for entry, _ in streamed]
    assert places == sorted(places)
    assert download.in_one_pass(len(download.containers) - 1) == (
        kind not in ("folder", "zip", "tar")
    )

    sent = pickle.loads(pickle.dumps(replace(download, entries=())))
    assert [sent.read(entry) for entry in download.entries] == [
        FILES[entry.name] for entry in download.entries
    ]
    assert len(pickle.dumps(sent)) < 2000


def test_find_and_one(tmp_path: Path) -> None:
    make_zip(tmp_path / "b.zip", {"x/labels.csv": b"1", "labels.csv": b"2", "mylabels.csv": b""})
    folder(tmp_path, {"a/train/cat/1.jpg": b"j"})
    download = Download.open(tmp_path)
    found = download.find(r"labels\.csv|nothing")
    assert [entry.name for _, entry in found] == ["labels.csv", "x/labels.csv"]
    match, entry = download.find(r"(?P<cls>[^/]+)/(\d+)\.jpg")[0]
    assert match["cls"], match[2] == ("cat", "1")
    assert download.where(entry) == "a/train/cat/1.jpg"
    with pytest.raises(
        UserError, match=r"2 files could be the labels: 'b.zip:labels.csv', 'b.zip:x"
    ):
        download.one(r"labels\.csv", "the labels")
    with pytest.raises(UserError, match=r"^no test\.csv in .*; it holds a/, b\.zip$"):
        download.one(r"test\.csv", "test.csv")
    assert download.read(download.one(r"x/labels\.csv", "x")) == b"1"
    assert download.sources() == {"a/": 1, "b.zip": (tmp_path / "b.zip").stat().st_size}


def test_one_archive_alone_and_archives_in_folders(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "deep/down/a.zip", {"1.jpg": b"1", "inner.zip": b"not opened"})
    alone = Download.open(path)
    assert alone.containers == (path,)
    assert alone.where(alone.entries[0]) == "a.zip:1.jpg"
    assert alone.sources() == {"a.zip": path.stat().st_size}
    above = Download.open(tmp_path)
    assert [above.where(entry) for entry in above.entries] == [
        "deep/down/a.zip:1.jpg",
        "deep/down/a.zip:inner.zip",
    ]


def test_the_last_of_two_members_of_a_name_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("1.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    download = Download.open(tmp_path)
    assert [download.read(entry) for entry in download.entries] == [b"second"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_hidden_files_are_left_out(tmp_path: Path, kind: str) -> None:
    junk = {"__MACOSX/set/._1.jpg": b"", "set/._1.jpg": b"", ".git/config": b"", ".DS_Store": b""}
    KINDS[kind](tmp_path, junk | {"set/1.jpg": b"j"})
    assert [entry.name for entry in Download.open(tmp_path).entries] == ["set/1.jpg"]


# ---- nothing there


def test_nothing_to_open(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "missing")
    assert "holds no file" in refused(tmp_path)
    (tmp_path / "labels.csv").write_text("x")
    assert "neither a folder nor an archive (.zip," in refused(tmp_path / "labels.csv")


def test_rar_alone_and_beside_others(tmp_path: Path) -> None:
    (tmp_path / "NWPU.rar").write_bytes(b"Rar!")
    text = refused(tmp_path)
    assert "`unrar x NWPU.rar`, not `unrar e`" in text
    assert "unrar x" in refused(tmp_path / "NWPU.rar")
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(UserError, match=r"no images in .*it holds NWPU.rar, readme.txt; .*unrar x"):
        Download.open(tmp_path).one("images", "images")
    (tmp_path / "b.zip.crdownload").write_bytes(b"half")
    with pytest.raises(UserError, match=r"b\.zip\.crdownload is an unfinished download"):
        Download.open(tmp_path).one("images", "images")


# ---- links and devices


def test_links_stay_inside(tmp_path: Path) -> None:
    outside = folder(tmp_path / "outside", {"secret.jpg": b"s", "sub/x.jpg": b"x"})
    inside = folder(tmp_path / "in", {"set/1.jpg": b"1", "set/2.jpg": b"2"})
    (inside / "leak.jpg").symlink_to(outside / "secret.jpg")
    (inside / "leaks").symlink_to(outside)
    (inside / "dangling.jpg").symlink_to(inside / "gone.jpg")
    (inside / "set/up").symlink_to(inside)  # would be walked for ever
    (inside / "again.jpg").symlink_to(inside / "set/1.jpg")
    (inside / "same").symlink_to(inside / "set")
    os.mkfifo(inside / "pipe")
    download = Download.open(inside)
    assert {entry.name for entry in download.entries} == {
        *("set/1.jpg", "set/2.jpg", "again.jpg", "same/1.jpg", "same/2.jpg")
    }
    assert download.skipped == 4
    with pytest.raises(UserError, match="left out: 4 links or devices"):
        download.one("x", "x")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_links_in_a_tar_are_not_followed(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
        for i, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        ):
            info = tarfile.TarInfo(f"link{i}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("1.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    download = Download.open(tmp_path)
    assert [entry.name for entry in download.entries] == ["1.jpg"]
    assert download.skipped == 4


def test_links_in_a_zip_are_not_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("1.jpg", b"1")
    download = Download.open(tmp_path)
    assert [entry.name for entry in download.entries] == ["1.jpg"]
    assert download.skipped == 1


# ---- unsafe names

UNSAFE = [
    "/etc/x.jpg",
    "../x.jpg",
    "a/../../x.jpg",
    "C:/x.jpg",
    "./C:/x.jpg",
    "a\\..\\x.jpg",
    "..\\x",
]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_unsafe_names_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    {"zip": make_zip, "tar": make_tar, "tar.gz": make_tar}[kind](
        tmp_path / f"a.{kind}", {"1.jpg": b"1", name: b"2"}
    )
    text = refused(tmp_path)
    assert f"a.{kind}" in text
    assert repr(name) in text
    assert "unsafe name" in text


def test_a_nul_in_a_zip_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"ok.jpgX/../../evil": b"1"})
    path.write_bytes(path.read_bytes().replace(b"ok.jpgX", b"ok.jpg\0"))
    assert "NUL" in refused(tmp_path)


def test_an_empty_zip_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x": b"1"})
    path.write_bytes(path.read_bytes().replace(b"x", b"\0"))
    assert "NUL" in refused(tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab./\\:C\0 é") | st.characters(codec="utf-8"), max_size=12))
def test_a_name_that_passes_stays_inside(name: str) -> None:
    try:
        safe = safe_name(name)
    except ValueError:
        return
    root = Path("/root/of/it")
    landed = Path(os.path.normpath(root / safe))
    assert landed != root
    assert landed.is_relative_to(root)
    assert landed == root / safe
    assert "\\" not in safe
    assert "\0" not in safe
    assert not Path(safe).drive
    assert safe_name(safe) == safe


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.sampled_from("ab./\\:C") | st.characters(codec="utf-8"), max_size=9).filter(
        lambda name: name.split("\0")[0]  # zipfile cuts names there, and stumbles over none
    )
)
def test_archives_and_arbitrary_names(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("names")
    make_zip(path / "a.zip", {name: b"1", "other.jpg": b"2"})
    make_tar(path / "a.tar", {name: b"1", "other.jpg": b"2"})
    for kind in ("zip", "tar"):
        try:
            names = {entry.name for entry in Download.open(path / f"a.{kind}").entries}
        except UserError as error:
            assert "unsafe name" in str(error)  # noqa: PT017
            continue
        assert all(safe_name(n) == n and not is_hidden(n) for n in names)
        assert "other.jpg" in names


# ---- bombs and liars


def test_a_zip_bomb(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"1.jpg": b"1", "zeros.bmp": bytes(20_000_000)})
    text = refused(tmp_path)
    assert "'zeros.bmp' unpacks from" in text
    assert f"over {MOST_RATIO} times" in text


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_tar_bomb_is_stopped_where_it_begins(tmp_path: Path, ending: str) -> None:
    path = make_tar(tmp_path / f"a.tar.{ending}", {"zeros.bmp": bytes(25_000_000)})
    text = refused(tmp_path)
    assert "unpacks from" in text
    assert path.stat().st_size < 100_000


def test_zip_members_that_share_their_bytes(tmp_path: Path) -> None:
    # Each modest (below RATIO_FROM), together 300 times the archive.
    data = bytes(9_000_000)
    make_zip(tmp_path / "a.zip", {f"{i}.bmp": data for i in range(3)})
    assert "unpacks from" in refused(tmp_path)


def test_runs_of_one_byte_in_small_files_are_no_bomb(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"white.bmp": bytes(5_000_000)})
    make_tar(tmp_path / "b.tar.gz", {"white.bmp": bytes(5_000_000)})
    assert len(Download.open(tmp_path).entries) == 2


def test_limits_of_size_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_zip(tmp_path / "a.zip", {f"{i}.jpg": b"12345" for i in range(5)})
    for name, value, text in (
        ("MOST_MEMBER", 4, "of 5 bytes; members of up to 4 bytes"),
        ("MOST_MEMBERS", 4, "more than 4 files"),
        ("MOST_TOTAL", 24, "more than 24 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(containers, name, value)
            containers._listed.cache_clear()
            assert text in refused(tmp_path)


def lie(path: Path, name: bytes, size: int, crc: int | None = None) -> None:
    """Make the zip declare another unpacked size of a member."""
    data = bytearray(path.read_bytes())
    local, central = data.find(name) - 30, data.rfind(name) - 46
    assert data[local : local + 4] == b"PK\x03\x04"
    assert data[central : central + 4] == b"PK\x01\x02"
    struct.pack_into("<I", data, local + 22, size)
    struct.pack_into("<I", data, central + 24, size)
    if crc is not None:
        struct.pack_into("<I", data, central + 16, crc)
    path.write_bytes(data)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("size", [10, 29_999, 30_001, 3_000_000])
def test_a_header_that_lies_about_the_size(tmp_path: Path, size: int, stored: bool) -> None:
    import zlib

    path = tmp_path / "a.zip"
    data = RANDOM.randbytes(30_000)
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("liar.jpg", data)
        archive.writestr("other.jpg", b"fine")
    lie(path, b"liar.jpg", size, zlib.crc32(data[:size]))  # with a checksum to match
    download = Download.open(tmp_path)
    liar = download.one("liar.jpg", "liar")
    assert liar.size == size
    with pytest.raises(UserError, match=r"a\.zip:liar\.jpg cannot be read"):
        download.read(liar)
    streamed = {entry.name: data for entry, data in download.stream(download.entries)}
    assert isinstance(streamed["liar.jpg"], Damaged)
    assert streamed["other.jpg"] == b"fine"


def test_a_bomb_behind_a_lie_stays_small_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = make_zip(tmp_path / "a.zip", {"liar.jpg": bytes(30_000_000)})
    lie(path, b"liar.jpg", 1000)
    download = Download.open(tmp_path)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"Bad CRC|more than the 1,000 bytes"):
        download.read(download.entries[0])
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


# ---- cut off, damaged, something else


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (kind, share)
        for kind in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
        for share in (0.02, 0.3, 0.7, 0.97, 0.9999)
        if (kind, share) != ("tar", 0.9999)  # cuts zeros behind the end mark: nothing is missing
    ],
)
def test_half_downloads_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    KINDS[kind](tmp_path, {f"{i}.jpg": RANDOM.randbytes(20_000) for i in range(20)})
    path = tmp_path / f"a.{kind}"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    text = refused(tmp_path)
    assert str(path) in text
    assert "cut off" in text
    assert "download it again" in text


def test_a_tar_cut_between_members_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {f"{i}.jpg": bytes(512) for i in range(4)})
    whole = path.read_bytes()
    for end in (1024, 2048, 4096):
        path.write_bytes(whole[:end])
        assert "cut off" in refused(tmp_path)
    path.write_bytes(whole[: 4096 + 1024])
    assert len(Download.open(tmp_path).entries) == 4


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_tar_gz_is_refused(tmp_path: Path, place: float) -> None:
    path = make_tar(tmp_path / "a.tar.gz", {f"{i}.jpg": RANDOM.randbytes(9000) for i in range(9)})
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in (text := refused(tmp_path)) or "cut off" in text
    data[int(len(data) * place)] ^= 0xFF
    data[-6] ^= 0xFF  # the checksum at its end
    path.write_bytes(data)
    assert "CRC check failed" in refused(tmp_path)


def test_a_broken_tar_header_does_not_end_the_list(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {f"{i}.jpg": bytes(512) for i in range(4)})
    data = bytearray(path.read_bytes())
    data[2048] ^= 0xFF
    path.write_bytes(data)
    assert "damaged (broken header" in refused(tmp_path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_what_is_no_archive(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert "is empty (0 bytes); download it again" in refused(tmp_path)
    path.write_bytes(b"\n <!DOCTYPE html><html>Quota exceeded</html>" * 50)
    text = refused(tmp_path)
    assert "it is a web page" in text
    assert str(path) in text
    path.write_bytes(RANDOM.randbytes(3000))
    assert f"is no {'zip' if name == 'a.zip' else 'tar'} archive" in refused(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["zip", "tar", "tar.gz"]), st.integers(0, 10**6), st.binary(max_size=40))
def test_arbitrary_damage_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"a.{kind}"
    files = {f"{i}.jpg": bytes([i]) * 900 for i in range(5)}
    (make_zip if kind == "zip" else make_tar)(path, files)
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    try:
        download = Download.open(path)
    except UserError:
        return
    for _, got in download.stream(download.entries):
        assert isinstance(got, bytes | Damaged)


def test_a_tar_gz_that_a_browser_unpacked(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", FILES)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    download = Download.open(tmp_path)
    assert len(download.entries) == len(FILES)
    assert not download.in_one_pass(1)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.jpg": b"1"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "a.zip is encrypted ('1.jpg' needs a password)" in refused(tmp_path)


def test_a_compression_that_python_does_not_know(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.jpg": b"1"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.rfind(b"PK\x01\x02") + 10, 9)
    path.write_bytes(data)
    assert "method 9 (Deflate64)" in refused(tmp_path)


def test_a_wrong_checksum_damages_one_member(tmp_path: Path) -> None:
    files = {f"{i}.jpg": RANDOM.randbytes(1000) for i in range(3)}
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(files["1.jpg"][:9], b"x" * 9))
    download = Download.open(tmp_path)
    got = {entry.name: data for entry, data in download.stream(download.entries)}
    assert isinstance(got.pop("1.jpg"), Damaged)
    assert got == {name: files[name] for name in ("0.jpg", "2.jpg")}
    with pytest.raises(UserError, match=r"a\.zip:1\.jpg cannot be read: Bad CRC-32"):
        download.read(download.one(r"1\.jpg", "x"))


def test_what_changes_while_it_is_read(tmp_path: Path) -> None:
    folder(tmp_path, {"1.jpg": b"1", "2.jpg": b"2", "3.jpg": b"3"})
    make_zip(tmp_path / "a.zip", {"4.jpg": b"4"})
    download = Download.open(tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"longer")
    (tmp_path / "2.jpg").unlink()
    got = {entry.name: data for entry, data in download.stream(download.entries)}
    assert isinstance(got["1.jpg"], Damaged)
    assert isinstance(got["2.jpg"], Damaged)
    assert (got["3.jpg"], got["4.jpg"]) == (b"3", b"4")
    make_zip(tmp_path / "a.zip", {"4.jpg": b"44"})
    with pytest.raises(UserError, match="was changed while it was read"):
        list(download.stream(download.entries))


def test_names_of_another_encoding(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"caf\udce9/1.jpg": b"1"})
    (tmp_path / "b\udce9.jpg").write_bytes(b"2")
    download = Download.open(tmp_path)
    assert [entry.name for entry in download.entries] == ["café/1.jpg"]
    assert download.read(download.entries[0]) == b"1"
    assert download.skipped == 1


def test_the_listing_of_a_tar_gz_is_remembered(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", FILES)
    containers._listed.cache_clear()
    first = Download.open(tmp_path)
    assert Download.open(tmp_path) == first
    assert containers._listed.cache_info().hits == 1
    make_tar(path, {"new.jpg": b"1"})
    assert [entry.name for entry in Download.open(tmp_path).entries] == ["new.jpg"]
