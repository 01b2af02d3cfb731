"""What ``--on`` and the flags beside it say, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.engines.local import Local
from eval.engines.named import engine_named
from eval.engines.placing import Placing, placing_from
from tests.factories import Cli, refusal


def test_flags_stand_above_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gpu.toml"
    file.write_text('partition = "gpu"\ngpus = 2\nmax-jobs = 8\n[slurm]\naccount = "lab"\n')
    found = placing_from(file, {"gpus": 1, "time": None})
    assert found == Placing("gpu", gpus=1, max_jobs=8, slurm={"account": "lab"})
    assert placing_from(None, {}) == Placing()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("12:00:00", 720), ("0:30", 30), ("00:00:01", 1), ("2-00:00", 2880), ("1-01:01:01", 1502)],
)
def test_times(text: str, minutes: int) -> None:
    assert Placing(time=text).minutes == minutes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitions = 'x'", "has the key 'partitions'; did you mean 'partition'?"),
        ("gpus = 'two'", "gpus must be a number of at least 0, got 'two'"),
        ("cpus = 0", "cpus must be a number of at least 1, got 0"),
        ("max-jobs = 0", "max_jobs must be a number of at least 1, got 0"),
        ("partition = 3", "partition must be text, got 3"),
        ("slurm = 'x'", "slurm must be a table, got 'x'"),
        ("time = 'soon'", "--time 'soon' is no time; use HH:MM:SS or DAYS-HH:MM"),
        ("gpus = ", "is no TOML that can be read"),
    ],
)
def test_files_that_cannot_be(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    assert said in refusal(placing_from, file, {})


def test_engines_by_name(tmp_path: Path) -> None:
    engine = engine_named("local:3", Placing())
    assert isinstance(engine, Local)
    assert engine.slots == 3
    assert engine_named("slurm", Placing(max_jobs=5)).slots == 5
    assert engine_named("ray://head:10001", Placing()).name == "ray"
    for text in ("local", "local:0", "local:x", "slurmy", "", "ray:x"):
        assert "names no engine; use local:N, slurm, ray or ray://HEAD:PORT" in refusal(
            engine_named, text, Placing()
        )
    assert "does not exist" in refusal(placing_from, tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--on", "cloud"], "--on 'cloud' names no engine"),
        (["--gpus", "1"], "--gpus has no effect without --on"),
        (["--max-jobs", "3"], "--max-jobs has no effect without --on"),
        (["--images-per-job", "3"], "--images-per-job has no effect without --on"),
        (
            ["--images-per-job", "0", "--on", "local:1"],
            "images_per_job must be a number of at least 1, got 0",
        ),
        (["--on", "local:2", "--keep-model"], "--keep-model keeps folders on one machine"),
        (["--on", "local:2", "--engine", "none.toml"], "--engine 'none.toml' does not exist"),
        (["--on", "local:2", "--time", "soon"], "--time 'soon' is no time"),
        (["--results", "nope://x"], "store 'nope://x' cannot be opened"),
    ],
)
def test_command_lines_that_cannot_work(
    argv: list[str], said: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    ran = cli("run", "random:test_resnet", "--task", "digits", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_not_under_torchrun(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = cli("run", "random:test_resnet", "--task", "digits", "--on", "local:2")
    assert ran.code == 2
    assert "--on starts processes of its own; leave torchrun out" in ran.err


def test_a_worker_wants_a_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path))
    ran = cli("worker", "--queue", tmp_path / "q", "--results", f"memory://{tmp_path.name}")
    assert ran.code == 2
    assert "a worker signs results off in a directory" in ran.err
