"""Files are whole or absent; JSON stays JSON, with each list of numbers on one line."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.common import files
from eval.common.files import (
    atomic_file,
    clear_left,
    default_cache,
    locked,
    sha256_file,
    write_json,
)


class Interrupted(Exception):
    pass


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(p.name for p in folder.iterdir())


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_file(path) as file:
        file.write(b"half of the new")
        file.flush()
        raise error


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "bank.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["bank.bin"]


def test_an_exception_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write_half(tmp_path / "new.bin", Interrupted)
    assert names(tmp_path) == []


def test_the_name_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    with atomic_file(path) as file:
        file.write(b"whole")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["file"]


def test_the_file_can_be_sought_and_read_while_it_is_written(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "f") as file:
        file.write(b"....tail")
        file.seek(0)
        file.write(b"head")
        file.seek(0)
        assert file.read() == b"headtail"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_others_may_read_as_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_file(tmp_path / "f") as file:
            file.write(b"x")
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
        assert os.umask(mask) == mask  # asking for the mask left it alone
    finally:
        os.umask(before)


def test_a_folder_in_the_way_is_an_error_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"), atomic_file(tmp_path / "taken") as file:
        file.write(b"x")
    assert names(tmp_path) == ["taken"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    contents = [bytes([i]) * 200_000 for i in (65, 66)]
    path.write_bytes(contents[0])

    def write(content: bytes) -> None:
        for _ in range(15):
            with atomic_file(path) as file:
                file.write(content)

    writers = [threading.Thread(target=write, args=(c,)) for c in contents]
    for writer in writers:
        writer.start()
    seen = 0
    while any(w.is_alive() for w in writers):
        assert path.read_bytes() in contents
        seen += 1
    assert seen > 0
    assert names(tmp_path) == ["shared"]


# --------------------------------------------------------------------------- JSON

_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text() | st.sampled_from(["[1, 2]", "[\n 1,\n 2\n]", '"', "\\", "1,2", "[", "]", "\n"])
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(_NUMBERS, max_size=6)
        | st.dictionaries(_TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_VALUES)
def test_any_json_value_comes_back(value: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "value.json")
        write_json(path, value)
        text = path.read_text()
    back = json.loads(text)
    assert back == value
    assert json.dumps(back) == json.dumps(value)  # 1 is not 1.0, 0.0 not -0.0, keys in order
    assert text.endswith("\n")


def test_each_list_of_numbers_is_one_line(tmp_path: Path) -> None:
    value = {
        "samples": [0.5, -1, 2e-07, 1e22],
        "text": "[\n 1,\n 2\n]",
        "nested": [[1, 2], [3], []],
        "words": ["a", "b"],
        "digits": ["1,2", "3"],
        "after": 1,
    }
    write_json(tmp_path / "v.json", value)
    lines = [line.strip() for line in (tmp_path / "v.json").read_text().splitlines()]
    assert '"samples": [0.5, -1, 2e-07, 1e+22],' in lines
    assert "[1, 2]," in lines
    assert "[3]," in lines
    assert '"words": [' in lines
    assert json.loads((tmp_path / "v.json").read_text()) == value


def test_json_is_readable_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", {"name": "Schmetterlingsblütler 蝶"})
    assert "Schmetterlingsblütler 蝶" in (tmp_path / "v.json").read_text("utf-8")


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "v.json", {"path": tmp_path})
    assert json.loads((tmp_path / "v.json").read_text()) == 1
    assert names(tmp_path) == ["v.json"]


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TRANSFERZOO_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/transferzoo"),
        ({"TRANSFERZOO_CACHE": "", "HOME": "/h"}, "/h/.cache/transferzoo"),
        ({"HOME": "/h"}, "/h/.cache/transferzoo"),
    ],
)
def test_where_the_cache_lies(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("TRANSFERZOO_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache() == Path(expected)


# ---------------------------------------------------------------- locks

HOLDER = """
import sys, time
from pathlib import Path
from eval.common import files
files._BEAT = 0.05
with files.locked(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock until it is told a line."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_living_holder_is_waited_for(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Much longer than a silent one would be."""
    monkeypatch.setattr(files, "SILENCE", 1.0)
    monkeypatch.setattr(files, "_BEAT", 0.05)
    assert holder.stdin is not None
    timer = threading.Timer(3, holder.communicate, ["go\n"])
    begin = time.monotonic()
    timer.start()
    with locked(tmp_path / "lock") as ours:
        assert ours
        assert time.monotonic() - begin > 2.9
    timer.join()


def test_a_stopped_holder_is_not_waited_for(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-Z, or a node that counts as dead: who replaces it would wait for ever."""
    monkeypatch.setattr(files, "SILENCE", 0.5)
    monkeypatch.setattr(files, "_BEAT", 0.05)
    os.kill(holder.pid, signal.SIGSTOP)
    with locked(tmp_path / "lock") as ours:
        assert not ours
    os.kill(holder.pid, signal.SIGCONT)
    holder.communicate("go\n")
    with locked(tmp_path / "lock") as ours:  # it is free again
        assert ours


def test_no_lock_is_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with locked(tmp_path / "file" / "lock") as ours:
        assert not ours


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    for name in ("a.bin", ".a.bin.12ab.tmp", ".b.bin.12ab.tmp"):
        (tmp_path / name).write_text("")
    clear_left(tmp_path / "a.bin")
    assert names(tmp_path) == [".b.bin.12ab.tmp", "a.bin"]
