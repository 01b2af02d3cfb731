"""What is no file under a file's name never holds a command up: it is named and left out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eval.common.files import MOST_JSON, read_plain
from eval.results.schema import ANALYSES
from eval.results.store import read_shelf, write_result
from tests.factories import make_result


@contextmanager
def obstacles(folder: Path) -> Iterator[set[str]]:
    """Puts one of each kind there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.json")
    (folder / "device.json").symlink_to("/dev/zero")
    (folder / "nowhere.json").symlink_to("nothing")
    (folder / "round.json").symlink_to("round.json")
    with (folder / "huge.json").open("wb") as file:
        file.truncate(MOST_JSON + 1)  # sparse
    with socket.socket(socket.AF_UNIX) as ear:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket may have some hundred bytes
        ear.bind("socket.json")
        os.chdir(here)
        yield {f"{n}.json" for n in ("pipe", "device", "nowhere", "round", "huge", "socket")}


def test_a_shelf_names_each(tmp_path: Path) -> None:
    write_result(tmp_path / "x.json", make_result())
    (tmp_path / "folder.json").mkdir()
    write_result(tmp_path / "folder.json" / "y.json", make_result("random:b"))
    with obstacles(tmp_path) as names:
        shelf = read_shelf(tmp_path)
    assert {path.name for path, _ in shelf.foreign} == names
    assert len(shelf.results) == 2
    why = {path.name: why for path, why in shelf.foreign}
    assert why["pipe.json"] == "it cannot be read: it is not a regular file"
    assert "at most 268,435,456 are read" in why["huge.json"]


COMMANDS = {
    "leaderboard": ["leaderboard", "--results", "results"],
    "report": ["report", "results"],
    "compare": ["compare", "random:a", "random:b", "--results", "results"],
    "export": ["export", "out", "--results", "results"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_waits_for_one(name: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for model in ("random:a", "random:b"):
        write_result(results / f"{model[-1]}.json", make_result(model))
    with obstacles(results) as names, obstacles(results / ANALYSES / "cka") as findings:
        done = subprocess.run(
            [sys.executable, "-m", "eval", *COMMANDS[name]], capture_output=True, text=True,
            timeout=120, cwd=tmp_path, check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for file in names:
        assert f"{file}: it cannot be read" in done.stderr
    assert name != "report" or all(f"cka/{f}: it cannot be read" in done.stderr for f in findings)


@pytest.mark.parametrize(
    "argv",
    [
        "verify pipe.json",
        "verify device.json",
        "run random:test_resnet --task pipe.toml",
        "run random:test_resnet --task imagefolder:images",
        "run random:test_resnet --task parquet:tables",
        "check-task csv:pipe.csv?image=a&label=b",
        "ties pipe.csv",
        "ties pipe.json",
        "leaderboard --results pipe.json",
    ],
)
def test_what_is_named_and_is_no_file_is_one_sentence(argv: str, tmp_path: Path) -> None:
    for name in ("pipe.json", "pipe.toml", "pipe.csv"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "device.json").symlink_to("/dev/zero")
    for part in ("train", "test"):
        (tmp_path / "images" / part / "one").mkdir(parents=True)
        os.mkfifo(tmp_path / "images" / part / "one" / "x.png")
        (tmp_path / "tables").mkdir(exist_ok=True)
        os.mkfifo(tmp_path / "tables" / f"{part}-0.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "eval", *argv.split()], capture_output=True, text=True,
        timeout=120, cwd=tmp_path, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_links_to_files_are_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert read_plain(tmp_path / "b", 1) == b"x"
    with pytest.raises(OSError, match="at most 0 are read"):
        read_plain(tmp_path / "b", 0)
