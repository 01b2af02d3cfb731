"""The protocols that train, through the command line: run, board, verify, a plan, a second run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.results.store import read_result
from eval.settings.protocols import LinearSgd
from eval.training.setup import Point, milestones, points, rate
from tests.factories import Cli, make_task

SHORT = {
    "linear-sgd": ["--set", "linear-sgd.tune_epochs=2", "linear-sgd.epochs=3"],
    "finetune": [
        "--set",
        "finetune.tune_epochs=1",
        "finetune.epochs=3",
        "finetune.lrs=[0.05,0.01]",
    ],
}


def test_the_schedule_of_the_study() -> None:
    assert (milestones(20), milestones(50)) == ((10, 15), (25, 37))
    assert (milestones(1), milestones(2), milestones(3)) == ((), (1,), (1, 2))
    point = Point(0.1, 32, 0.0)
    assert [round(rate(point, e, 4), 6) for e in range(4)] == [0.1, 0.1, 0.01, 0.001]
    assert rate(point, 0, 1) == 0.1
    grid = points(LinearSgd())
    assert len(grid) == len(set(grid)) == 12


@pytest.mark.parametrize("protocol", SHORT)
def test_run_verify_and_run_again(protocol: str, cli: Cli, tmp_path: Path) -> None:
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    base = [
        "run", "random:test_resnet", "--task", f"parquet:{data}", "--protocol", protocol,
        "--grid", "small", *SHORT[protocol], "--img-size", "24", "--precision", "fp32",
        "--cache", tmp_path / "c", "--results", tmp_path / "r",
    ]  # fmt: skip
    ran = cli(*base)
    assert ran.code == 0, ran.err
    assert f"{protocol}, top-1, % (" in ran.out
    (file,) = (tmp_path / "r").rglob("*.json")
    first = file.read_bytes()
    result = read_result(file)
    names = [s.name for s in result.scores]
    assert names == ["top1", "mean_per_class", "ece", "nll"]
    assert result.protocol.config["batch_sizes"] == [32]
    assert result.samples["top1"].n == 24
    assert result.details["chosen"]["batch_size"] == 32
    again = cli(*base)
    assert "0 scored, 1 already there, 0 failed" in again.out
    assert file.read_bytes() == first
    verified = cli("verify", file, "--cache", tmp_path / "c")
    assert (verified.code, verified.out.splitlines()[0]) == (0, "equal"), verified.out


@pytest.mark.parametrize("protocol", SHORT)
def test_a_result_of_reduced_images_keeps_its_place(
    protocol: str, cli: Cli, tmp_path: Path
) -> None:
    """As versions before there was the setting wrote it: under the default's name of today."""
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    base = [
        "run", "random:test_resnet", "--task", f"parquet:{data}", "--protocol", protocol,
        "--grid", "small", "--img-size", "24", "--precision", "fp32",
        "--cache", tmp_path / "c", "--results", tmp_path / "r", *SHORT[protocol],
    ]  # fmt: skip
    assert cli(*base, f"{protocol}.crops_from=reduced").code == 0
    (file,) = (tmp_path / "r").rglob("*.json")
    written = json.loads(file.read_bytes())
    assert written["protocol"]["config"].pop("crops_from") == "reduced"
    old = file.with_name(file.name.replace(",crops_from=reduced", ""))
    assert old != file
    file.unlink()
    old.write_text(json.dumps(written))

    ran = cli(*base)
    assert "1 scored, 0 already there, 0 failed" in ran.out
    files = sorted((tmp_path / "r").rglob("*.json"))
    (new,) = set(files) - {old}
    assert read_result(new).protocol.config["crops_from"] == "originals"
    assert json.loads(old.read_bytes()) == written
    assert "0 scored, 1 already there, 0 failed" in cli(*base).out
    board = cli("leaderboard", "--results", tmp_path / "r").out
    assert board.count(f"{protocol}, top-1, % (") == 2
    assert board.count("crops_from=reduced") == 1
    verified = cli("verify", old, "--cache", tmp_path / "c")
    assert (verified.code, verified.out.splitlines()[0]) == (0, "equal"), verified.out


def test_cached_views_are_a_protocol_of_their_own(cli: Cli, tmp_path: Path) -> None:
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    for views in ([], ["--views", "2"]):
        ran = cli(
            "run", "random:test_resnet", "--task", f"parquet:{data}", "--protocol", "linear-sgd",
            "--grid", "small", *SHORT["linear-sgd"], *views, "--img-size", "24",
            "--precision", "fp32", "--cache", tmp_path / "c", "--results", tmp_path / "r",
        )  # fmt: skip
        assert ran.code == 0, ran.err
    board = cli("leaderboard", "--results", tmp_path / "r").out
    assert "linear-sgd, top-1, % (" in board
    assert "linear-sgd@2, top-1, % (" in board


def test_a_grid_that_diverges_everywhere_is_one_failed_cell(cli: Cli, tmp_path: Path) -> None:
    data = make_task(tmp_path / "photos", classes=3, train=12, test=8)
    ran = cli(
        "run", "random:test_resnet", "--task", f"parquet:{data}", "--protocol", "linear-sgd", "knn",
        "--set", "linear-sgd.lrs=[1e5, 1e6]", "linear-sgd.tune_epochs=9", "linear-sgd.epochs=9",
        "linear-sgd.weight_decays=[1e5]", "--img-size", "24", "--precision", "fp32",
        "--cache", tmp_path / "c", "--results", tmp_path / "r",
    )  # fmt: skip
    assert ran.code == 1
    assert "1 scored, 0 already there, 1 failed" in ran.out
    assert "diverge" in ran.err
    assert "Traceback" not in ran.err
