"""What all stores do: a folder, memory, and the real clients of S3 and of the Hub with servers."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.common.errors import NotFound, Refused, Unreachable, UserError
from eval.stores import front
from eval.stores.front import (
    address_of,
    check_store,
    create,
    fetch,
    fetch_large,
    folder_of,
    give_large,
    local_copy,
    mirror,
    place_of,
    store_of,
)
from eval.stores.remote import Remote
from eval.stores.store import Disk, Store, create_file
from tests.factories import refusal
from tests.stores.hub import hub_address
from tests.stores.s3 import s3_server

KINDS = ("disk", "memory", "s3", "hub")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as settings:
        yield settings


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "disk":
        return Disk(tmp_path / "store")
    if request.param == "memory":
        return Remote(f"memory://{tmp_path.name}")
    if request.param == "hub":
        hub = request.getfixturevalue("hub")
        return store_of(folder_of(hub_address(hub, tmp_path.name, monkeypatch)))
    request.getfixturevalue("server")
    return Remote(f"s3://board/{tmp_path.name}")


def test_the_first_writer_of_a_name_stays(store: Store) -> None:
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.get(["a/b.json", "a/none.json"]) == {"a/b.json": b"first"}


def test_of_many_writers_one_is_the_first(store: Store) -> None:
    """All at once, ten times: exactly one is told that it wrote, and its bytes are there."""
    if store.address.startswith("memory"):
        pytest.xfail("fsspec's memory looks first and writes then")
    for n in range(10):
        told: dict[int, bool] = {}
        gate = threading.Barrier(8)

        def write(i: int, n: int = n, told: dict[int, bool] = told, gate=gate) -> None:
            gate.wait()
            told[i] = store.create(f"cell{n}", str(i).encode() * 1000)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (first,) = [i for i, wrote in told.items() if wrote]
        assert store.get([f"cell{n}"]) == {f"cell{n}": str(first).encode() * 1000}


def test_writers_of_many_names_all_write(store: Store) -> None:
    gate = threading.Barrier(6)
    told: list[bool] = []

    def write(i: int) -> None:
        gate.wait()
        told.append(store.create(f"a/{i}", str(i).encode()))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [True] * 6
    assert store.get(f"a/{i}" for i in range(6)) == {f"a/{i}": str(i).encode() for i in range(6)}


def test_listing_putting_and_removing(store: Store) -> None:
    assert store.sizes() == {}
    assert store.sizes("none") == {}
    store.put("x/one", b"1")
    store.put("x/one", b"22")
    store.create("x/y/two", b"333")
    store.create("z", b"")
    assert store.sizes() == {"x/one": 2, "x/y/two": 3, "z": 0}
    assert store.sizes("x") == {"x/one": 2, "x/y/two": 3}
    store.remove(["x/one", "not/there"])
    assert store.sizes("x") == {"x/y/two": 3}


def test_large_files(store: Store, tmp_path: Path) -> None:
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(os.urandom(7 << 20))  # more than one part of S3
    assert not store.download("banks/x", copy)
    store.upload("banks/x", file)
    assert store.download("banks/x", copy)
    assert copy.read_bytes() == file.read_bytes()


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a" / "b"
    assert create_file(path, b"first")
    assert not create_file(path, b"second")
    path.unlink()
    (path.parent / ".b.claim").touch()  # of another, who is just writing
    assert not create_file(path, b"third")
    assert not path.exists()


def test_nothing_half_stays(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        create_file(tmp_path / "x", "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ---- a folder of this disk before a store


@pytest.fixture
def folder(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    return folder_of(f"s3://board/{tmp_path.name}/results/")


def test_a_plain_folder_is_itself(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path)) == tmp_path
    assert address_of(tmp_path) == ""
    assert place_of(tmp_path) == str(tmp_path)
    assert isinstance(store_of(tmp_path), Disk)


def test_an_address_has_one_folder(folder: Path, tmp_path: Path) -> None:
    address = f"s3://board/{tmp_path.name}/results"
    assert folder == folder_of(address)
    assert folder != folder_of(address + "2")
    assert address_of(folder) == place_of(folder) == address


def test_what_is_written_is_here_and_there(folder: Path) -> None:
    path = folder / "m" / "r" / "a.json"
    assert create(folder, path, b"1")
    assert path.read_bytes() == b"1"
    assert store_of(folder).get(["m/r/a.json"]) == {"m/r/a.json": b"1"}
    path.unlink()
    assert not create(folder, path, b"2")  # a second writer finds the first one's
    assert path.read_bytes() == b"1"


def test_a_mirror_has_what_is_there_and_no_more(folder: Path) -> None:
    store = store_of(folder)
    for name in ("m/r/a.json", "m/r/b.json", "other/r/c.json"):
        store.create(name, name.encode())
    mirror(folder, "m")
    assert (folder / "m/r/a.json").read_bytes() == b"m/r/a.json"
    assert not (folder / "other").exists()
    store.remove(["m/r/a.json"])
    (folder / "m/r/b.json").write_bytes(b"cut")
    neighbour = folder / "m/r/.d.json.0.tmp"
    neighbour.write_bytes(b"on its way")
    mirror(folder, "m")
    assert not (folder / "m/r/a.json").exists()
    assert (folder / "m/r/b.json").read_bytes() == b"m/r/b.json"
    assert neighbour.exists()


def test_what_a_neighbour_writes_while_a_folder_is_mirrored_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tries of a group on one machine: one begins while the other writes its first result."""
    store, path = store_of(folder), folder / "m/r/a.json"
    listing = store.sizes

    def then_another_writes(below: str = "") -> dict[str, int]:
        found = listing(below)
        create(folder, path, b"theirs")
        return found

    monkeypatch.setattr(store, "sizes", then_another_writes)
    mirror(folder, "m")
    assert path.read_bytes() == b"theirs"


def test_what_is_here_is_not_fetched_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(folder)
    store.create("a", b"there")
    fetch(folder, ["a", "none"])
    asked: list[str] = []
    get = Remote.get
    monkeypatch.setattr(Remote, "get", lambda self, names: asked.extend(names) or get(self, names))
    fetch(folder, ["a", "none"])
    assert asked == ["none"]


def test_large_files_of_others(folder: Path, tmp_path: Path) -> None:
    bank = folder / "banks" / "b"
    assert not fetch_large(folder, bank)
    bank.parent.mkdir(parents=True, exist_ok=True)
    bank.write_bytes(b"bank")
    give_large(folder, bank)
    bank.unlink()
    assert fetch_large(folder, bank)
    assert bank.read_bytes() == b"bank"
    assert not fetch_large(tmp_path, tmp_path / "x")  # a plain folder has nothing behind it


def test_a_file_by_its_address(folder: Path, tmp_path: Path) -> None:
    store_of(folder).create("scores.csv", b"model,item,score")
    address = f"{address_of(folder)}/scores.csv"
    assert local_copy(address).read_bytes() == b"model,item,score"
    store_of(folder).put("scores.csv", b"other")
    assert local_copy(address).read_bytes() == b"other"
    assert "is not there" in refusal(local_copy, f"{address_of(folder)}/none.csv")
    assert local_copy(str(tmp_path)) == tmp_path


# ---- what is refused


def test_a_bucket_that_is_not_there(folder: Path) -> None:
    other = folder_of("s3://nowhere/results")
    said = refusal(check_store, other)
    assert said == (
        "store 's3://nowhere/results': there is no 'nowhere'; make it first, or name another"
    )
    with pytest.raises(NotFound):
        store_of(other).sizes()
    check_store(folder)
    assert store_of(folder).sizes() == {}  # nothing is left of the check


def test_a_server_that_knows_no_condition(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As s3rver 3.7.1 does: 200 for both of two writers, and the second one's bytes stay."""
    import s3fs

    call = s3fs.S3FileSystem._call_s3

    async def unconditional(self: object, method: str, *args: object, **kwargs: object) -> object:
        kwargs.pop("IfNoneMatch", None)
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", unconditional)
    assert "writes over a file that is there although it is asked not to" in (
        refusal(check_store, folder)
    )
    assert store_of(folder).sizes() == {}


def test_no_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    front._opened.cache_clear()
    with pytest.raises(Refused, match="needs credentials and there are none here; set AWS_"):
        check_store(folder)
    front._opened.cache_clear()


def test_wrong_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto checks no keys unless told; its 403 is S3's."""
    import botocore.exceptions

    async def forbidden(*args: object, **kwargs: object) -> None:
        from s3fs.errors import translate_boto_error

        raise translate_boto_error(
            botocore.exceptions.ClientError(
                {"Error": {"Code": "SignatureDoesNotMatch", "Message": "token=abcdef is wrong"}},
                "PutObject",
            )
        )

    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", forbidden)
    with pytest.raises(UserError, match=r"store 's3://board/.*token=\[hidden\]") as error:
        check_store(folder)
    assert "\n" not in str(error.value)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    front._opened.cache_clear()
    with pytest.raises(Unreachable, match="does not answer"):
        check_store(folder_of("s3://board/x"))
    front._opened.cache_clear()


@pytest.mark.parametrize("place", ["nope://x/y", "gs://bucket/x", "s3a2://x"])
def test_schemes_that_cannot_be_opened(place: str) -> None:
    said = refusal(folder_of, place)
    assert place in said
