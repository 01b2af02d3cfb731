"""What commands print, in processes of their own: foreign names, closed pipes, poor encodings."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from eval.common.text import escaped, text_table, visible
from eval.results.store import write_result
from tests.factories import make_result

HOSTILE = "a\x1b[2J\x1b]0;owned\x07\u202eb\u200b\u2066c\x9bd\u3164e"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07\u202eb\u200b\u2066c\x9bd\u3164e"


def steers(text: str) -> list[str]:
    """Characters of a command's output that a terminal would act on, or that nobody sees."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_every_character_that_steers_is_an_escape() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    kept = visible(every)
    assert not [c for c in kept if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert set("aÄß漢字é🙂 \u00a0\u3000") <= set(kept)
    assert visible(HOSTILE) == SHOWN
    assert visible("a\nb\tc\r", lines=True) == "a\nb\tc\\r"


def test_a_cell_stays_a_cell() -> None:
    lines = text_table(["m", "t"], [["x|y\n| z | 9 |", HOSTILE]], markdown=True).splitlines()
    assert len(lines) == 3
    assert [line.count("|") for line in lines] == [3, 3, 3]
    assert SHOWN in lines[2]
    assert "\u202e" not in escaped(HOSTILE)


def test_a_narrow_column_of_numbers_is_markdown_too() -> None:
    """A rule of a colon alone makes no table."""
    lines = text_table(["model", "p"], [["a", "-"], ["b", "1"]], markdown=True).splitlines()
    assert lines[1] == "| ----- | -: |"
    assert {len(line) for line in lines} == {len(lines[0])}


def run(
    *argv: str, settings: dict[str, str] | None = None, stdout: int | None = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "eval", *argv], stdout=stdout, stderr=subprocess.PIPE,
        env=os.environ | (settings or {}), timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    write_result(tmp_path / "results" / "x.json", make_result("local-dir:" + HOSTILE, "täsk|one"))
    write_result(tmp_path / "results" / "y.json", make_result("random:b", "täsk|one"))
    return tmp_path / "results"


COMMANDS = {
    "leaderboard": ["leaderboard", "--results"],
    "report": ["report", "--out", "report.html"],
    "compare": ["compare", "local-dir:" + HOSTILE, "random:b", "--results"],
    "verify": ["verify", HOSTILE + ".json"],
    "unknown": ["list", HOSTILE],
    "model": ["run", HOSTILE, "--task", "digits", "--results"],
    "task": ["run", "random:test_resnet", "--task", HOSTILE, "--results"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.slow
def test_foreign_names_steer_no_terminal(
    name: str, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (shelf / f"{HOSTILE}.json").write_text("{}")
    argv = COMMANDS[name]
    place = [] if name in ("verify", "unknown") else [str(shelf)]
    done = run(*argv, *place)
    said = (done.stdout + done.stderr).decode()
    assert SHOWN[:9] in said or name == "report"
    assert steers(said) == []
    assert "Traceback" not in said
    if name == "report":
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "\x1b" not in page
        assert "\u202e" not in page


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_a_poor_encoding_loses_nothing(settings: dict[str, str], shelf: Path) -> None:
    done = run("leaderboard", "--results", str(shelf), settings=settings)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = b"t\xe4sk" if settings.get("PYTHONIOENCODING") == "latin-1" else rb"t\xe4sk"
    assert shown in done.stdout
    assert b"random:b" in done.stdout


@pytest.mark.parametrize("command", ["list models", "list protocols --verbose --json"])
def test_a_reader_that_has_enough_is_no_error(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(*command.split(), stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_is_no_error(tmp_path: Path) -> None:
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    argv = ["-m", "eval", "list", "models"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_cannot_be_written_is_said() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run("list", "models", stdout=full.fileno())
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_token_is_printed(shelf: Path) -> None:
    """Not even where a file's name is one."""
    token = "hf_secretsecretsecret"
    (shelf / f"{token}.json").write_text("{}")
    done = run("leaderboard", "--results", str(shelf), settings={"HF_TOKEN": token})
    assert done.returncode == 0
    assert token.encode() not in done.stdout + done.stderr
    assert b"[token].json" in done.stderr


def test_a_bugs_traceback_holds_no_token() -> None:
    code = (
        "from eval.common.command import Parser, dispatch\n"
        "def fail(args): raise ZeroDivisionError('sent hf_secretsecretsecret')\n"
        "parser = Parser(prog='x'); parser.set_defaults(command='do')\n"
        "dispatch(lambda: parser, {'do': fail}, [], '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert b"ZeroDivisionError: sent [token]" in done.stderr
    assert b"hf_secret" not in done.stderr


def test_results_that_may_not_be_read_are_named(shelf: Path, tmp_path: Path) -> None:
    (shelf / "x.json").chmod(0)
    code = (
        "from tests.children import give_up_root; give_up_root()\n"
        "from eval.__main__ import main; raise SystemExit(main(__import__('sys').argv[1:]))"
    )
    argv = ["leaderboard", "--results", str(shelf)]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0
    assert b"x.json: it cannot be read: Permission denied" in done.stderr
