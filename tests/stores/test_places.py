"""An address in the place of a results directory: every command that reads or writes results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import eval as transferzoo
from eval.analysis.finding import write_finding
from eval.common.errors import Conflict
from eval.results.names import shelf_path
from eval.results.store import create_result, dump_result
from eval.stores.front import folder_of, store_of
from space.source import Source
from tests.factories import Cli, make_fewshot_result, make_result
from tests.hub import LoopbackHub
from tests.space.findings import made
from tests.stores.s3 import s3_server


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of this process with results of two models, and an empty cache to read them with."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "writer"))
    place = f"memory://{tmp_path.name}/board"
    folder = folder_of(place)
    for seed, name in enumerate("ab"):
        for result in (
            make_result(f"random:{name}", correct=np.arange(40) % (seed + 2) > 0),
            make_fewshot_result(f"random:{name}", p=0.4 + seed / 5, seed=seed),
        ):
            assert create_result(folder, folder / shelf_path(result), result)
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "reader"))
    return place


def test_boards_and_comparisons(place: str, cli: Cli) -> None:
    board = cli("leaderboard", "--results", place)
    assert board.code == 0, board.err
    assert "| random:a " in board.out
    assert "5-shot top-1" in board.out
    compared = cli("compare", "random:a", "random:b", "--results", place)
    assert compared.code == 0, compared.err
    assert "random:b" in compared.out
    assert len(transferzoo.read_results(place)) == 4


def test_a_report_and_the_space(place: str, cli: Cli, tmp_path: Path) -> None:
    made = cli("report", place, "--out", tmp_path / "page.html")
    assert made.code == 0, made.err
    assert place in (tmp_path / "page.html").read_text()
    source = Source(place, tmp_path / "space")
    assert source.refresh().scores["model"].nunique() == 2
    more = make_result("random:c")
    store_of(folder_of(place)).create(shelf_path(more), dump_result(more))
    assert source.refresh().scores["model"].nunique() == 3  # seen without a restart


def test_ties_of_a_file(place: str, cli: Cli) -> None:
    lines = [
        "model,item,score",
        *(f"{m},{i},{(i + (m == 'b')) % 2}" for m in "ab" for i in range(8)),
    ]
    store_of(folder_of(place)).put("scores.csv", "\n".join(lines).encode())
    told = cli("ties", f"{place}/scores.csv")
    assert told.code == 0, told.err
    assert "tie group" in told.out
    lost = cli("ties", f"{place}/none.csv")
    assert (lost.code, lost.err) == (2, f"transfer-eval: '{place}/none.csv' is not there\n")


def test_what_was_taken_back_is_gone(place: str) -> None:
    assert len(transferzoo.read_results(place)) == 4
    store = store_of(folder_of(place))
    store.remove([name for name in store.sizes() if "fewshot" in name])
    assert len(transferzoo.read_results(place)) == 2


def test_a_finding_is_written_once(place: str) -> None:
    folder, finding = folder_of(place), made("geometry", ["random:a"])
    path = write_finding(folder, finding)
    assert write_finding(folder, finding) == path  # the same again
    other = finding.model_copy(update={"values": {"other": 1}})
    with pytest.raises(Conflict, match="is there with other values, and stays as it is"):
        write_finding(folder, other)


@pytest.fixture
def server() -> Iterator[dict[str, str]]:
    with s3_server() as settings:
        yield settings


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://nowhere/x", "store 's3://nowhere/x': there is no 'nowhere'; make it first"),
        ("none://x", "store 'none://x' cannot be opened"),
    ],
)
@pytest.mark.parametrize("command", ["run", "status", "leaderboard"])
def test_places_that_are_refused(
    command: str, place: str, said: str, server: dict[str, str], cli: Cli, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path))
    what = ["random:test_resnet", "--task", "digits", "--on", "local:1"] if command == "run" else []
    ran = cli(command, *what, "--results", place)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    # Python may collect an event loop of an earlier test's client just now, and say so.
    lines = [line for line in ran.err.splitlines() if not line.startswith("ResourceWarning")]
    assert len(lines) == 1


def test_a_data_set_repository_by_its_address(
    hub: LoopbackHub, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``hf://`` is one of fsspec's, too."""
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path))
    result = make_result()
    hub.add_dataset("lab/board", {shelf_path(result): dump_result(result)})
    board = cli("leaderboard", "--results", "hf://datasets/lab/board")
    assert board.code == 0, board.err
    assert "random:resnet18" in board.out
