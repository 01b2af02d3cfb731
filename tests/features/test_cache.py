"""Listing and removing cached features."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from eval.__main__ import main
from eval.common.errors import UserError
from eval.features.bank import FeatureKey, bank_path, open_bank, write_bank
from eval.features.cache import entries, remove

Make = Callable[[str, str, int], Path]


@pytest.fixture
def make(cache: Path) -> Make:
    """Writes a bank of 10 x 3 zeros for a model and a task; ``made`` orders them in time."""

    def make(model: str, task: str, made: int) -> Path:
        key = FeatureKey(model, "made", "{}", task, "bf16")
        path = bank_path(cache, key)
        write_bank(
            path, key, 10, 3, 6, bytes(80), [(range(10), bytes(120))],
            {"model": model, "task": task},
        )  # fmt: skip
        os.utime(path, (1_700_000_000 + made,) * 2)
        return path

    return make


@pytest.fixture
def three(make: Make) -> list[Path]:
    return [make("random:a", "dtd", 3), make("random:b", "dtd", 1), make("random:a", "svhn", 2)]


def left(cache: Path) -> set[str]:
    return {p.name for p in (cache / "banks").glob("*")}


def test_entries_say_what_is_there(cache: Path, three: list[Path]) -> None:
    found = entries(cache)
    assert [(e.model, e.task) for e in found] == [
        ("random:b", "dtd"),
        ("random:a", "svhn"),
        ("random:a", "dtd"),
    ]  # oldest first
    newest = found[-1]
    assert (newest.rows, newest.dim, newest.precision) == (10, 3, "bf16")
    assert newest.path == three[0]
    assert newest.key == three[0].stem
    assert newest.megabytes == three[0].stat().st_size / 1e6


def test_a_cache_that_does_not_exist_is_empty(cache: Path) -> None:
    assert entries(cache) == []
    assert remove(cache, [], None, None, everything=True) == []
    assert not cache.exists()


def test_foreign_files_are_not_listed(cache: Path, three: list[Path]) -> None:
    folder = cache / "banks"
    (folder / "notes.safetensors").write_text("not a bank")
    (folder / "README.md").write_text("hello")
    save_file({"x": torch.zeros(3)}, folder / "weights.safetensors", {"format": "pt"})
    save_file({"x": torch.zeros(3)}, folder / "bare.safetensors")
    (folder / "cut.safetensors").write_bytes(three[0].read_bytes()[:50])
    assert {e.path for e in entries(cache)} == set(three)


@pytest.mark.parametrize(
    ("model", "task", "kept"),
    [
        ("random:a", None, {1}),
        (None, "dtd", {2}),
        ("random:a", "dtd", {1, 2}),
        ("random:c", None, {0, 1, 2}),
    ],
)
def test_remove_by_model_and_task(
    model: str | None, task: str | None, kept: set[int], cache: Path, three: list[Path]
) -> None:
    gone = remove(cache, [], model, task, everything=False)
    assert left(cache) == {three[i].name for i in kept}
    assert {e.path for e in gone} == {p for i, p in enumerate(three) if i not in kept}


def test_remove_by_key(cache: Path, three: list[Path]) -> None:
    assert (
        len(remove(cache, [three[0].stem[:12], three[2].stem], None, None, everything=False)) == 2
    )
    assert left(cache) == {three[1].name}


@pytest.mark.parametrize("key", ["zzzz", "../banks", "*"])
def test_an_unknown_key_removes_nothing(key: str, cache: Path, three: list[Path]) -> None:
    with pytest.raises(UserError, match="no cached features with key"):
        remove(cache, [three[0].stem, key], None, None, everything=False)
    assert left(cache) == {p.name for p in three}


def test_nothing_named_removes_nothing(cache: Path, three: list[Path]) -> None:
    with pytest.raises(UserError, match="needs keys, --model, --task or --all"):
        remove(cache, [], None, None, everything=False)
    assert left(cache) == {p.name for p in three}


def test_remove_everything_takes_what_broken_runs_left(cache: Path, three: list[Path]) -> None:
    """Shards and temporary files of killed runs, a bank whose header cannot be read, and the speeds
    that earlier versions measured."""
    (cache / "probes").mkdir()
    (cache / "probes" / "0123.json").write_text('{"choice": "bf16"}')
    (cache / "partial" / "abc").mkdir(parents=True)
    (cache / "partial" / "abc" / "shard-00000.safetensors").write_bytes(bytes(100))
    (cache / "banks" / f".{three[0].name}.x1.tmp").write_bytes(bytes(100))
    (cache / "banks" / f"{'ab' * 20}.safetensors").write_bytes(b"\xff" * 100)
    (cache / "splits").mkdir()
    (cache / "splits" / "memo.npz").write_bytes(b"x")
    (cache / "splits" / ".memo.npz.x2.tmp").write_bytes(b"x")
    (cache / "mini" / "v1" / "digits").mkdir(parents=True)
    (cache / "mini" / "v1" / "digits" / ".train-00000-of-00001.parquet.x3.tmp").write_bytes(b"x")
    assert len(remove(cache, [], None, None, everything=True)) == 3
    assert {p.name for p in cache.iterdir()} == {"splits"}
    # a memo of the data, not of features
    assert [path.name for path in (cache / "splits").iterdir()] == ["memo.npz"]


def test_a_removed_bank_stays_readable_for_who_holds_it(cache: Path, make: Make) -> None:
    path = make("random:a", "dtd", 0)
    bank = open_bank(path, FeatureKey("random:a", "made", "{}", "dtd", "bf16"))
    assert bank is not None
    remove(cache, [], "random:a", None, everything=False)
    assert bank.features.sum() == 0


# ---- the command


def test_ls(cache: Path, three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls", "--cache", str(cache)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for path in three:
        assert path.stem[:12] in out
    assert "3 feature banks, 0.0 MB in " + str(cache) in out


def test_ls_json(cache: Path, three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls", "--cache", str(cache), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {e["path"] for e in listed} == {str(p) for p in three}
    assert {e["rows"] for e in listed} == {10}


def test_ls_of_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls", "--cache", str(cache)]) == 0
    assert "0 feature banks" in capsys.readouterr().out
    assert main(["cache", "ls", "--cache", str(cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_environment_names_the_cache(
    cache: Path,
    three: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(cache))
    assert main(["cache", "ls", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_rm(cache: Path, three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--cache", str(cache)]
    assert main(["cache", "rm", three[0].stem[:12], *at]) == 0
    assert capsys.readouterr().out.startswith("removed 1 feature bank")
    assert left(cache) == {three[1].name, three[2].name}
    assert main(["cache", "rm", "--task", "svhn", *at]) == 0
    assert left(cache) == {three[1].name}
    capsys.readouterr()
    for wrong in ([], ["feed"]):
        assert main(["cache", "rm", *wrong, *at]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
    assert left(cache) == {three[1].name}
    assert main(["cache", "rm", "--all", *at]) == 0
    assert left(cache) == set()
