"""The index of a store: parts are added by many, joined by one, and no row is lost."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from eval.results import index as indexes
from eval.results.index import FOLDER, Index, Row, add_part, row_of
from eval.stores.store import Disk
from tests.factories import make_result, refusal


def row(path: str, planned: str = "", **changes: object) -> Row:
    made = Row(path, planned or path, f"cell {path}", "g", "try", "2026-01-01T00:00:00", "here")
    return dataclasses.replace(made, **changes)


def test_a_result_is_described(tmp_path: Path) -> None:
    result = make_result(dtype="bf16", config={"views": 4})
    made = row_of(
        result, "m/r/dtd.linear@precision=bf16.json", planned="m/r/dtd.linear.json", title="t",
        group="g", attempt="a", when="2026", host="h", size=7,
    )  # fmt: skip
    assert (made.computed, made.images, made.bytes, made.protocol) == ("bf16", 100, 7, "linear")
    assert made.info == result.protocol
    assert made.split_hash == result.task.split_hash
    add_part(Disk(tmp_path), [made])
    index = Index()
    assert index.refresh(Disk(tmp_path)) == [made]
    assert index.planned == {"m/r/dtd.linear.json": "m/r/dtd.linear@precision=bf16.json"}


def test_each_row_is_told_once(tmp_path: Path) -> None:
    store, index = Disk(tmp_path), Index()
    assert index.refresh(store) == []
    add_part(store, [])
    assert store.sizes() == {}
    add_part(store, [row("a"), row("b")])
    assert [r.path for r in index.refresh(store)] == ["a", "b"]
    add_part(store, [row("b"), row("c")])
    assert [r.path for r in index.refresh(store)] == ["c"]
    assert index.refresh(store) == []
    assert index.results.keys() == {"a", "b", "c"}


def test_a_failure_counts_until_there_is_a_result(tmp_path: Path) -> None:
    index = Index()
    index.add([row("", "a", error="no memory", when="1"), row("", "a", error="no disk", when="2")])
    assert [r.error for r in index.failed()] == ["no disk"]
    index.add([row("", "a", error="older", when="0")])
    assert [r.error for r in index.failed()] == ["no disk"]
    index.add([row("a")])
    assert index.failed() == []
    index.add([row("", "a", error="top1 is 1 there", conflict=True, when="3")])
    assert [r.error for r in index.failed()] == ["top1 is 1 there"]  # this one stays


def test_parts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "JOIN", 4)
    store, index = Disk(tmp_path), Index()
    for i in range(3):
        add_part(store, [row(f"{i}"), row("", f"f{i}", error="e")])
    index.refresh(store)
    index.join(store)
    assert len(store.sizes(FOLDER)) == 3  # not worth it
    add_part(store, [row("3")])
    index.refresh(store)
    add_part(store, [row("late")])  # not read yet: it must not go
    index.join(store)
    assert len(store.sizes(FOLDER)) == 2
    assert index.refresh(store) == [row("late")]
    fresh = Index()
    fresh.refresh(store)
    assert fresh.results.keys() == {"0", "1", "2", "3", "late"}
    assert fresh.failures.keys() == {"f0", "f1", "f2"}


def test_no_row_is_lost_while_others_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers, two who join and a reader, all at once."""
    monkeypatch.setattr(indexes, "JOIN", 3)
    store, ended = Disk(tmp_path), threading.Event()
    errors: list[BaseException] = []

    def write(who: str) -> None:
        for i in range(60):
            add_part(store, [row(f"{who}{i}")])

    def join() -> None:
        while not ended.is_set():
            try:
                index = Index()
                index.refresh(store)
                index.join(store)
            except BaseException as error:
                errors.append(error)
                return

    joiners = [threading.Thread(target=join) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(who,)) for who in "ab"]
    for thread in (*joiners, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in joiners:
        thread.join()
    assert not errors
    index = Index()
    index.refresh(store)
    assert index.results.keys() == {f"{who}{i}" for who in "ab" for i in range(60)}


def test_a_part_of_another_version_is_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([dataclasses.asdict(row("a"))])
    table = table.drop_columns(["conflict"]).append_column("new", pa.array([1]))
    (tmp_path / FOLDER).mkdir()
    pq.write_table(table, tmp_path / FOLDER / "x.parquet")
    index = Index()
    assert index.refresh(Disk(tmp_path)) == [row("a")]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "x.parquet").write_bytes(b"PAR1")
    said = refusal(Index().refresh, Disk(tmp_path))
    assert said.startswith(".index/x.parquet of the index cannot be read")
