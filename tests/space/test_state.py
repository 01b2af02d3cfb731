"""The desk: leaderboards by name, and the grids that are kept."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from eval.results.store import write_result
from space import state as desks
from space.pages.leaderboard import Leaderboard
from space.source import Source
from space.state import GRIDS, Desk
from space.tables.board import headline
from space.tables.matrix import Grid, Key
from space.tables.view import View
from tests.factories import make_result, refusal
from tests.space.shelves import CARDS


def desk_of(folder: Path, cache: Path) -> Desk:
    folder.mkdir(exist_ok=True)
    source = Source(str(folder), cache)
    source.refresh()
    return Desk(source, cache)


@pytest.fixture
def desk(tmp_path: Path, cache: Path) -> Desk:
    for i, name in enumerate(("linear", "knn", "fewshot")):
        write_result(tmp_path / "results" / f"{i}.json", make_result(protocol=name))
    return desk_of(tmp_path / "results", cache)


def test_the_first_leaderboard_is_five_shot(desk: Desk, tmp_path: Path) -> None:
    assert [key.text for key in desk.boards()] == ["fewshot/top1_5shot", "knn/top1", "linear/top1"]
    assert desk.key("").text == "fewshot/top1_5shot"
    (tmp_path / "results" / "2.json").unlink()
    desk.source.refresh()
    assert desk.key("").text == "knn/top1"


def test_every_leaderboard_is_found_by_its_text(cache: Path) -> None:
    desk = desk_of(CARDS, cache)
    known = desk.boards()
    for key in known:
        assert desk.key(key.text) == key
        board = desk.board(View(board=key.text))
        assert board.grid.key == key
        assert len(board.models) == 6
        assert "has the highest" in headline(board)
    assert len([key for key in known if key.protocol in ("fewshot", "linear")]) == 4


def test_files_that_are_left_out_are_named(desk: Desk, tmp_path: Path) -> None:
    assert desk.left_out() == ""
    results = tmp_path / "results"
    (results / "broken.json").write_text("{")
    desk.source.refresh()
    said = "broken.json: no readable JSON (JSONDecodeError)"
    assert desk.left_out() == f"1 file is left out, as no results: {said}."
    for i in range(9):
        (results / f"other{i}.json").write_text("[]")
    desk.source.refresh()
    text = desk.left_out()
    assert text.startswith(f"10 files are left out, as no results: {said}; other0.json: ")
    assert text.endswith("; and 7 more.")
    page = Leaderboard.__new__(Leaderboard)
    page.desk = desk
    assert any("broken.json" in str(part) for part in page.restore({}))  # what the page opens with


@pytest.mark.parametrize(
    ("text", "near"),
    [("linear/top", "did you mean 'linear/top1'"), ("fewshot/top1_6shot", "fewshot/top1_5shot"),
     ("x", "fewshot/top1_5shot"), ("<script>", "fewshot/top1_5shot"), ("../..", "fewshot"),
     ("LINEAR/TOP1\n", "no leaderboard")],
)  # fmt: skip
def test_an_unknown_leaderboard_is_refused_with_near_names(
    desk: Desk, text: str, near: str
) -> None:
    found = refusal(desk.board, View(board=text))
    assert near in found
    assert found == refusal(desk.key, text)


def test_no_results_at_all(tmp_path: Path, cache: Path) -> None:
    desk = desk_of(tmp_path / "empty", cache)
    assert desk.boards() == []
    for text in ("", "linear/top1"):
        found = refusal(desk.board, View(board=text))
        assert "no results yet" in found
        assert "transfer-eval run" in found


def test_a_grid_is_made_once_for_each_state(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Key] = []
    real = desks.grid
    monkeypatch.setattr(desks, "grid", lambda scores, key: (made.append(key), real(scores, key))[1])
    key = desk.key("linear/top1")
    first = desk.grid(key)
    assert desk.grid(key) is first
    desk.board(View(board="linear/top1", search="x"))
    desk.source.refresh()  # nothing new
    assert desk.grid(key) is first
    assert len(made) == 1
    write_result(tmp_path / "results" / "new.json", make_result("other"))
    desk.source.refresh()
    assert len(desk.grid(key).models) == 2
    assert len(first.models) == 1
    assert len(made) == 2


def test_the_grids_kept_are_bounded_and_the_latest_used(desk: Desk) -> None:
    keep = desk.key("linear/top1")
    held = desk.grid(keep)
    for i in range(3 * GRIDS):
        desk.grid(Key("linear", f"seed={i}", "top1"))
        assert desk.grid(keep) is held
        assert len(desk._grids) <= GRIDS
    assert len(desk._grids) == GRIDS
    assert (desk.snapshot.version, Key("linear", "seed=0", "top1")) not in desk._grids


def test_many_threads_at_one_desk(desk: Desk) -> None:
    keys, found, wrong = desk.boards(), [], []

    def ask(i: int) -> None:
        try:
            for turn in range(20):
                key = keys[(i + turn) % len(keys)]
                made: Grid = desk.grid(key)
                assert made.key == key
                found.append(made.value.tolist())
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(found) == 120
    assert found.count([[0.5]]) == 120
