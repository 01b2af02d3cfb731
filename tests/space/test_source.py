"""Where results come from: reading once, noticing changes, and the Hub."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eval.common.errors import UserError
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.signoff import signed, write_sign_off
from eval.results.store import dump_result, read_result, write_result
from space import source as sources
from space.receipts import receipt
from space.source import Snapshot, Source
from space.tables.scores import COLUMNS
from tests.factories import make_result, refusal
from tests.hub import LoopbackHub
from tests.space.shelves import CARDS, part, shipped_scores


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read as JSON."""
    names: list[str] = []

    def counted(path: Path) -> Result:
        names.append(path.name)
        return read_result(path)

    monkeypatch.setattr(sources, "read_result", counted)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A shelf of three models."""
    root = tmp_path / "results"
    for name in "abc":
        write_result(root / name / "r" / f"{name}.json", make_result(name))
    return root


def values(snapshot: Snapshot) -> dict[str, float]:
    assert snapshot.scores.index.is_unique
    assert snapshot.scores["path"].is_unique
    return dict(zip(snapshot.scores["model"], snapshot.scores["value"], strict=True))


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    order = ["path", "score"]
    pd.testing.assert_frame_equal(
        a.sort_values(order, ignore_index=True), b.sort_values(order, ignore_index=True)
    )


# --------------------------------------------------------------------------- a directory


def test_the_shipped_results(cache: Path) -> None:
    source = Source(str(CARDS), cache)
    assert (source.snapshot().version, len(source.snapshot().scores)) == (0, 0)
    found = source.refresh()
    assert found is source.snapshot()
    assert (found.waiting, found.problems, found.where) == (0, (), str(CARDS))
    same(found.scores, shipped_scores())
    same(Source(str(CARDS), cache).snapshot().scores, shipped_scores())
    assert source.root() == CARDS


def test_a_second_start_reads_no_result(folder: Path, cache: Path, reads: list[str]) -> None:
    first = Source(str(folder), cache).refresh()
    assert sorted(reads) == ["a.json", "b.json", "c.json"]
    assert len(list((cache / "space").iterdir())) == 1
    reads.clear()
    again = Source(str(folder), cache)
    same(again.snapshot().scores, first.scores)  # there at once
    version = again.snapshot().version
    assert again.refresh().version == version
    assert reads == []
    again.refresh()
    assert reads == []


def test_changes_are_noticed_and_only_they_are_read(
    folder: Path, cache: Path, reads: list[str]
) -> None:
    source = Source(str(folder), cache)
    before = source.refresh()
    held = before.scores.copy()
    reads.clear()
    write_result(folder / "a" / "r" / "a.json", make_result("a", top1=0.75))
    write_result(folder / "d" / "r" / "d.json", make_result("d", top1=0.25))
    shutil.rmtree(folder / "b")
    after = source.refresh()
    assert values(after) == {"a": 0.75, "c": 0.5, "d": 0.25}
    assert sorted(reads) == ["a.json", "d.json"]
    assert after.version > before.version
    pd.testing.assert_frame_equal(before.scores, held)
    reads.clear()
    fresh = Source(str(folder), cache)
    assert values(fresh.refresh()) == values(after)
    assert reads == []


def test_changes_between_two_starts_are_noticed(
    folder: Path, cache: Path, reads: list[str]
) -> None:
    Source(str(folder), cache).refresh()
    reads.clear()
    write_result(folder / "a" / "r" / "a.json", make_result("a", top1=0.75))
    shutil.rmtree(folder / "b")
    assert values(Source(str(folder), cache).refresh()) == {"a": 0.75, "c": 0.5}
    assert reads == ["a.json"]


def test_a_file_of_the_same_size_with_another_time_is_read(
    folder: Path, cache: Path, reads: list[str]
) -> None:
    source = Source(str(folder), cache)
    source.refresh()
    reads.clear()
    os.utime(folder / "c" / "r" / "c.json", ns=(1, 1))
    source.refresh()
    assert reads == ["c.json"]


def damage(kind: str, index: Path) -> None:
    data = index.read_bytes()
    if kind == "cut":
        index.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        index.write_bytes(b"")
    elif kind == "text":
        index.write_text("no parquet")
    elif kind == "folder":
        index.unlink()
        index.mkdir()
    elif kind == "columns":
        pd.read_parquet(index).drop(columns=["samples"]).to_parquet(index)
    elif kind == "no version":
        pd.read_parquet(index).drop(columns=["index_version"]).to_parquet(index)
    elif kind == "version":
        pd.read_parquet(index).assign(index_version=999).to_parquet(index)
    elif kind == "flipped":
        index.write_bytes(data[:200] + bytes(b ^ 255 for b in data[200:300]) + data[300:])


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "empty",
        "text",
        "folder",
        "no version",
        "version",
        "flipped",
        pytest.param(
            "columns",
        ),
    ],
)
def test_a_damaged_index_costs_time_only(
    folder: Path, cache: Path, reads: list[str], kind: str
) -> None:
    Source(str(folder), cache).refresh()
    (index,) = (cache / "space").iterdir()
    damage(kind, index)
    reads.clear()
    source = Source(str(folder), cache)
    assert source.snapshot().version == 0
    assert values(source.refresh()) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert len(reads) == 3
    if kind != "folder":
        reads.clear()
        Source(str(folder), cache).refresh()
        assert reads == []


def test_an_unwritable_cache_is_no_obstacle(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert len(Source(str(folder), tmp_path / "file").refresh().scores) == 3


def test_broken_files_are_reported_and_not_fatal(folder: Path, cache: Path) -> None:
    (folder / "bad.json").write_text("{")
    (folder / "list.json").write_text("[]")
    (folder / "a" / "r" / "later.json").write_text('{"schema_version": 2}')
    (folder / "config.json").write_text("{}")  # timm's
    (folder / "notes.txt").write_text("x")
    source = Source(str(folder), cache)
    found = source.refresh()
    assert len(found.scores) == 3
    assert [p.partition(":")[0] for p in found.problems] == [
        "a/r/later.json", "bad.json", "list.json",
    ]  # fmt: skip
    assert all("\n" not in p for p in found.problems)
    assert source.refresh() is found  # not read again and again
    write_result(folder / "bad.json", make_result("d"))
    (folder / "list.json").unlink()
    mended = source.refresh()
    assert [p.partition(":")[0] for p in mended.problems] == ["a/r/later.json"]
    assert set(values(mended)) == set("abcd")
    again = Source(str(folder), cache)
    assert again.refresh().problems == mended.problems


def test_a_result_that_breaks_is_taken_off_the_board(folder: Path, cache: Path) -> None:
    source = Source(str(folder), cache)
    source.refresh()
    (folder / "a" / "r" / "a.json").write_text("{")
    found = source.refresh()
    assert set(values(found)) == {"b", "c"}
    assert len(found.problems) == 1


def odd(kind: str) -> Result:
    result = make_result("odd")
    return {
        "size": part(result, "model", input={"input_size": 224}),
        "short size": part(result, "model", input={"input_size": [3]}),
        "words as size": part(result, "model", input={"input_size": ["a", "b", "c"]}),
        "params": part(result, "model", params=2**70),
        "seed": result.model_copy(update={"seed": 2**70}),
    }[kind]


@pytest.mark.parametrize("kind", ["size", "short size", "words as size", "params", "seed"])
def test_an_odd_result_is_not_fatal(folder: Path, cache: Path, kind: str) -> None:
    write_result(folder / "odd.json", odd(kind))
    assert {"a", "b", "c"} <= set(values(Source(str(folder), cache).refresh()))


def test_a_lone_surrogate_is_not_fatal(folder: Path, cache: Path) -> None:
    text = dump_result(make_result("oddname")).replace(b"oddname", b"\\ud800")
    (folder / "odd.json").write_bytes(text)
    assert {"a", "b", "c"} <= set(values(Source(str(folder), cache).refresh()))


def test_a_dangling_link_is_not_fatal(folder: Path, cache: Path) -> None:
    (folder / "gone.json").symlink_to(folder / "nowhere")
    assert len(Source(str(folder), cache).refresh().scores) == 3


def test_a_directory_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        with pytest.raises(UserError, match=name):
            Source(str(tmp_path / name), cache)


def test_a_directory_that_vanishes_and_comes_back(folder: Path, cache: Path) -> None:
    source = Source(str(folder), cache)
    before = source.refresh()
    folder.rename(folder.with_name("away"))
    assert "results" in refusal(source.refresh)
    assert source.snapshot() is before
    folder.with_name("away").rename(folder)
    assert source.refresh() is before


def test_an_empty_directory(tmp_path: Path, cache: Path) -> None:
    found = Source(str(tmp_path), cache).refresh()
    assert len(found.scores) == 0
    assert list(found.scores) == list(COLUMNS)


def test_the_last_result_goes(folder: Path, cache: Path) -> None:
    source = Source(str(folder), cache)
    source.refresh()
    for name in "abc":
        shutil.rmtree(folder / name)
    assert len(source.refresh().scores) == 0
    assert len(Source(str(folder), cache).snapshot().scores) == 0
    write_result(folder / "a.json", make_result("a"))
    assert values(source.refresh()) == {"a": 0.5}


def test_the_same_words_in_another_place_are_other_results(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("x", "y"):
        write_result(tmp_path / place / "results" / f"{place}.json", make_result(place))
    monkeypatch.chdir(tmp_path / "x")
    Source("results", cache).refresh()
    monkeypatch.chdir(tmp_path / "y")
    assert values(Source("results", cache).snapshot()) == {}


# --------------------------------------------------------------------------- snapshots, threads


def test_a_snapshot_cannot_be_changed(folder: Path, cache: Path) -> None:
    found = Source(str(folder), cache).refresh()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.version = 5  # type: ignore[misc]


def test_a_long_reading_is_seen_step_by_step(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        write_result(folder / f"{i}.json", make_result(f"m{i}"))
    monkeypatch.setattr(sources, "STEP", 3)
    source = Source(str(folder), cache)
    seen: list[Snapshot] = []

    def looking(path: Path) -> Result:
        seen.append(source.snapshot())
        return read_result(path)

    monkeypatch.setattr(sources, "read_result", looking)
    last = source.refresh()
    assert [s.waiting for s in seen] == [7, 7, 7, 4, 4, 4, 1]
    assert [len(s.scores) for s in seen] == [0, 0, 0, 3, 3, 3, 6]
    versions = [s.version for s in [*seen, last]]
    assert versions == sorted(versions)
    assert len(set(versions)) == 4
    assert (last.waiting, len(last.scores)) == (0, 7)
    assert seen[3] is not last
    assert len(seen[3].scores) == 3  # a snapshot stays as it was


def test_a_reader_is_not_blocked_by_a_refresh(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(str(folder), cache)
    before = source.refresh()
    held = before.scores.copy(deep=True)
    reading, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> Result:
        reading.set()
        assert go_on.wait(20)
        return read_result(path)

    monkeypatch.setattr(sources, "read_result", slow)
    write_result(folder / "new.json", make_result("new", top1=1.0))
    thread = threading.Thread(target=source.refresh)
    thread.start()
    assert reading.wait(20)
    now = source.snapshot()
    assert now.waiting == 1
    assert set(values(now)) == {"a", "b", "c"}
    pd.testing.assert_frame_equal(before.scores, held)
    go_on.set()
    thread.join(20)
    assert set(values(source.snapshot())) == {"a", "b", "c", "new"}
    pd.testing.assert_frame_equal(before.scores, held)


def test_several_threads_refresh_at_once(folder: Path, cache: Path, reads: list[str]) -> None:
    source = Source(str(folder), cache)
    found: list[Any] = []

    def turn() -> None:
        try:
            found.append(source.refresh())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=turn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f is source.snapshot() for f in found)
    assert len(found) == 8
    assert sorted(reads) == ["a.json", "b.json", "c.json"]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_watching_goes_on_after_trouble(folder: Path, cache: Path) -> None:
    source, told = Source(str(folder), cache), list[str]()
    away = folder.with_name("away")
    thread = source.watch(0.02, told.append)
    assert thread.daemon
    until(lambda: len(source.snapshot().scores) == 3)
    folder.rename(away)
    until(lambda: bool(told))
    assert "were not refreshed" in told[0]
    write_result(away / "new.json", make_result("new"))
    away.rename(folder)
    until(lambda: len(source.snapshot().scores) == 4)
    assert thread.is_alive()


# --------------------------------------------------------------------------- the Hub

REPO = "lab/space-source-results"


def offered(*models: str) -> dict[str, bytes]:
    results = [make_result(f"random:{model}", "photos") for model in models]
    return {shelf_path(r): dump_result(r) for r in results}


def names(snapshot: Snapshot) -> set[str]:
    return {model.removeprefix("random:") for model in values(snapshot)}


@pytest.fixture
def remote(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """A repository with two results, and a Hub cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    hub.repos.pop(("dataset", REPO), None)
    hub.add_dataset(REPO, {**offered("a", "b"), "README.md": "text"})
    return hub


def test_results_of_the_hub_are_seen_and_followed(
    remote: LoopbackHub, cache: Path, reads: list[str]
) -> None:
    source = Source(f"hub:{REPO}", cache)
    first = source.refresh()
    assert names(first) == {"a", "b"}
    assert source.refresh() is first
    assert len(reads) == 2
    remote.add_dataset(REPO, offered("c"))
    assert names(source.refresh()) == {"a", "b", "c"}
    gone = next(iter(offered("a")))
    remote.add_dataset(REPO, {gone: None})
    assert names(source.refresh()) == {"b", "c"}
    reads.clear()
    assert names(Source(f"hub:{REPO}", cache).snapshot()) == {"b", "c"}
    assert reads == []


def test_a_commit_that_is_named_stays(remote: LoopbackHub, cache: Path) -> None:
    sha = remote.add_dataset(REPO, offered("c"))
    source = Source(f"hub:{REPO}@{sha}", cache)
    source.refresh()
    remote.add_dataset(REPO, offered("d"))
    assert names(source.refresh()) == {"a", "b", "c"}


def test_trouble_with_the_hub_keeps_what_is_there(remote: LoopbackHub, cache: Path) -> None:
    source = Source(f"hub:{REPO}", cache)
    before = source.refresh()
    remote.fail_next(50, 500)
    refusal(source.refresh)
    assert source.snapshot() is before
    remote.clear_faults()
    assert source.refresh() is before


@pytest.mark.parametrize("text", ["hub:", "hub:lab/nowhere-at-all", "hub:../x", "hub:a/b@../c"])
def test_a_repository_that_is_not_there(remote: LoopbackHub, cache: Path, text: str) -> None:
    said = refusal(Source, text, cache)
    assert (text.removeprefix("hub:") or text) in said


def test_a_result_of_the_hub_has_a_receipt(remote: LoopbackHub, cache: Path) -> None:
    source = Source(f"hub:{REPO}", cache)
    for path in source.refresh().scores["path"]:
        assert receipt(source.root(), path).content["seed"] == 0


def test_a_sign_off_is_seen_without_reading_results_again(
    folder: Path, cache: Path, reads: list[str]
) -> None:
    source = Source(str(folder), cache)
    assert set(source.refresh().scores["computed"]) == {""}
    result, path = make_result("a"), "a/r/a.json"
    sign_off = signed(result, path, "equal", "ada")
    file = write_sign_off(folder, sign_off)
    reads.clear()
    for scores in (source.refresh().scores, Source(str(folder), cache).snapshot().scores):
        said = dict(zip(scores["model"], scores["computed"], strict=True))
        assert said == {"a": sign_off.text, "b": "self-reported", "c": "self-reported"}
    assert reads == []
    file.unlink()
    assert set(source.refresh().scores["computed"]) == {""}
