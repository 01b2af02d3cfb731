"""A folder of a data set repository with several writers, through the real client."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.common.errors import BadInput, NotFound, Unreachable, UserError
from eval.hub import shared_folder
from eval.hub.shared_folder import HubFolder
from tests.factories import refusal
from tests.hub import LoopbackHub
from tests.stores.hub import hub_address

COMMIT = "POST /api/datasets/lab/board/commit"


@pytest.fixture
def folder(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> HubFolder:
    return HubFolder(hub_address(hub, "board", monkeypatch) + "/results")


def commits(hub: LoopbackHub) -> int:
    return len(hub.repos["dataset", "lab/board"].commits)


def test_one_who_looked_before_the_other_wrote(hub: LoopbackHub, folder: HubFolder) -> None:
    """Both find nothing; the other's commit is first, ours is refused and not tried blindly."""
    other = HubFolder(folder.address)
    told: list[bool] = []
    hub.on_next(COMMIT, lambda: told.append(other.create("m/a.json", b"theirs")))
    assert not folder.create("m/a.json", b"ours")
    assert told == [True]
    assert folder.get(["m/a.json"]) == {"m/a.json": b"theirs"}


def test_equal_bytes_of_another_are_the_others(hub: LoopbackHub, folder: HubFolder) -> None:
    other = HubFolder(folder.address)
    hub.on_next(COMMIT, lambda: other.create("a", b"same"))
    assert not folder.create("a", b"same")


def test_a_neighbours_commit_costs_another_turn(hub: LoopbackHub, folder: HubFolder) -> None:
    hub.on_next(COMMIT, lambda: HubFolder(folder.address).create("theirs", b"1"))
    assert folder.create("ours", b"2")
    assert folder.sizes() == {"theirs": 1, "ours": 1}


@pytest.mark.parametrize("data", [b"text", b"\0binary, which the Hub keeps as LFS"])
@pytest.mark.parametrize("status", [503, None])
def test_a_lost_answer(
    hub: LoopbackHub, folder: HubFolder, status: int | None, data: bytes
) -> None:
    """The commit was made: we are the first, and it is made once."""
    before = commits(hub)
    hub.land_then_fail(1, status, COMMIT)
    assert folder.create("a", data)
    assert commits(hub) == before + 1
    assert not folder.create("a", data)


def test_a_branch_and_what_is_beside(hub: LoopbackHub, folder: HubFolder) -> None:
    """A folder sees its own files alone, and what others wrote since."""
    root = HubFolder("hf://datasets/lab/board@main")
    folder.create("a", b"1")
    root.create("b", b"22")
    assert folder.sizes() == {"a": 1}
    assert root.sizes() == {"results/a": 1, "b": 2}
    assert root.sizes("results") == {"results/a": 1}
    root.remove(["results/a", "b", "none"])
    assert folder.sizes() == {}


def test_a_download_leaves_nothing_beside(folder: HubFolder, tmp_path: Path) -> None:
    folder.create("a", b"1")
    assert folder.download("a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert not folder.download("none", tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_many_files_go_in_one_commit(hub: LoopbackHub, folder: HubFolder) -> None:
    folder.create("a", b"1")
    folder.create("b", b"1")
    before = commits(hub)
    folder.remove(["a", "b"])
    folder.remove(["a", "b"])
    folder.remove([])
    assert commits(hub) == before + 1


def test_others_write_all_the_time(
    hub: LoopbackHub, folder: HubFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_folder, "_TURNS", 3)
    hub.fail_next(3, 412, COMMIT)
    with pytest.raises(Unreachable, match="others have written each time, 3 times"):
        folder.create("a", b"1")
    assert folder.create("a", b"1")


def test_what_is_refused(
    hub: LoopbackHub, folder: HubFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="the Hub has no such dataset repository"):
        HubFolder("hf://datasets/lab/none").create("a", b"")
    with pytest.raises(NotFound):
        HubFolder("hf://datasets/lab/none").sizes()
    with pytest.raises(BadInput, match="names no repository"):
        HubFolder("hf://datasets/lab")
    hub.add_dataset("bob/board", {"x": b"1"})
    theirs = HubFolder("hf://datasets/bob/board")
    assert theirs.get(["x", "y"]) == {"x": b"1"}
    assert not theirs.download("y", tmp_path / "y")
    assert "the Hub forbids it" in refusal(theirs.create, "a", b"")
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    with pytest.raises(UserError, match="the Hub does not accept the token") as error:
        folder.create("a", b"")
    assert "hf_nobodys" not in str(error.value)
