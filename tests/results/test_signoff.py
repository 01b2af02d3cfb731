"""Who computed a result again, and what boards make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.results import board_text, leaderboard
from eval.results.leaderboard import Table, tables
from eval.results.names import portable, shelf_path
from eval.results.own_data import own_columns
from eval.results.schema import Result
from eval.results.signoff import (
    FOLDER,
    SignOffs,
    as_bytes,
    content_of,
    file_of,
    parse,
    sign_offs,
    signed,
    write_sign_off,
)
from eval.results.store import read_shelf, write_result
from eval.tasks.registry import known_splits
from tests.factories import Cli, make_fewshot_result, make_result


def offs(*results: Result, by: str = "ada") -> SignOffs:
    return {content_of(r): signed(r, shelf_path(r), "equal", by) for r in results}


def board(results: Sequence[Result], of: SignOffs | None) -> Table:
    (table,) = tables(results, of)
    return table


# --------------------------------------------------------------------------- the record


def test_it_is_of_the_content_alone(tmp_path: Path) -> None:
    result = make_result("local-dir:net", task="photos")
    moved = result.model_copy(
        update={
            "created": "2026-03-01T00:00:00+00:00", "notes": ["x"], "seconds": {"fit": 9.0},
            "task": result.task.model_copy(update={"source": "/home/ada/photos"}),
        }
    )  # fmt: skip
    assert content_of(result) == content_of(moved) == content_of(portable(moved))
    score = result.scores[0]
    others = [
        result.model_copy(update={"seed": 1}),
        result.model_copy(update={"limit": 9}),
        result.model_copy(update={"scores": [score.model_copy(update={"ci_low": 0.1})]}),
        make_result("local-dir:net", "photos", correct=np.arange(40) >= 20),
        make_result("local-dir:net", "photos", split="t"),
        make_result("local-dir:net", "photos", revision="other"),
        make_result("local-dir:net", "photos", config={"validation": 0.3}),
    ]
    assert len({content_of(r) for r in [result, *others]}) == 1 + len(others)

    path = write_sign_off(tmp_path, signed(result, shelf_path(result), "equal", "ada"))
    assert path == tmp_path / file_of(shelf_path(result))
    assert sign_offs(tmp_path).keys() == {content_of(result)}
    assert parse(path.read_bytes()) == sign_offs(tmp_path)[content_of(result)]
    assert as_bytes(sign_offs(tmp_path)[content_of(result)]) == path.read_bytes()


def test_it_is_no_result(tmp_path: Path) -> None:
    result = make_result()
    write_result(tmp_path / shelf_path(result), result)
    write_sign_off(tmp_path, signed(result, shelf_path(result), "equal", "ada"))
    found = read_shelf(tmp_path)
    assert ([r for _, r in found.results], found.foreign) == ([result], ())


def test_files_that_are_none_do_not_count(tmp_path: Path) -> None:
    result = make_result()
    good = json.loads(as_bytes(signed(result, "a/b/c.json", "equal", "ada")))
    odd = [b"{", b"[]", b"\xff", b"{}", *(json.dumps(good | change).encode() for change in (
        {"verdict": "differs"}, {"signoff_version": 2}, {"when": "today"}, {"by": "x" * 101},
        {"more": 1}, {"by": "a\nb"}, {"by": "\u202eada"}, {"by": "\x1b[2J"}, {"by": ""},
    ))]  # fmt: skip
    for number, data in enumerate(odd):
        assert parse(data) is None
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        (tmp_path / FOLDER / f"{number}.json").write_bytes(data)
    os.mkfifo(tmp_path / FOLDER / "pipe.json")
    assert sign_offs(tmp_path) == {}
    assert sign_offs(tmp_path / "none") == {}


# --------------------------------------------------------------------------- on boards


def test_verified_rows_stand_first_and_lead() -> None:
    liar = make_fewshot_result("hf-hub:bob/best", "hue", p=0.99)
    honest = [make_fewshot_result(m, "hue", p=p, seed=1) for m, p in (("a", 0.5), ("b", 0.6))]
    unmarked = board([liar, *honest], None)
    assert unmarked.models == ("hf-hub:bob/best", "a", "b")
    assert "computed" not in leaderboard.grid(unmarked)[0]

    table = board([liar, *honest], offs(*honest))
    assert table.models == ("a", "b", "hf-hub:bob/best")
    assert [table.mark(r) for r in range(3)] == ["verified", "verified", "self-reported"]
    assert table.leading == [0, 1]
    header, lines = leaderboard.grid(table)
    assert header[-1] == "computed"
    assert [line[-1] for line in lines] == ["verified", "verified", "self-reported"]
    rows = leaderboard.as_json(table)["rows"]
    assert [row["standing"] for row in rows] == ["verified", "verified", "self-reported"]
    assert rows[0]["cells"]["hue"]["verified"]["by"] == "ada"
    assert rows[2]["cells"]["hue"]["verified"] is None
    text = board_text.render([table], width=200)
    when = next(iter(offs(*honest).values())).when
    assert f"Verified: computed again by ada ({when:%Y-%m-%d}); these rows stand first." in text


def test_a_row_that_is_verified_in_part() -> None:
    results = [make_result("a", t) for t in ("hue", "count", "shape")]
    table = board(results, offs(*results[:2]))
    assert table.mark(0) == "2 of 3 verified"
    assert table.leading == [0]
    assert board(results, {}).mark(0) == "self-reported"


def test_seeds_are_as_verified_as_the_least_of_them() -> None:
    results = [make_result("a", "hue", seed=seed) for seed in (0, 1)]
    for known, mark in ((results, "verified"), (results[:1], "self-reported")):
        over = next(t for t in tables(results, offs(*known)) if "seeds" in t.setting)
        assert over.mark(0) == mark


# --------------------------------------------------------------------------- data of one's own


def known(model: str, task: str = "hue", top1: float = 0.5) -> Result:
    """On the images that the declaration knows."""
    (split,) = known_splits(task)
    made = make_result(model, task, top1=top1)
    return made.model_copy(update={"task": made.task.model_copy(update={"split_hash": split})})


def test_an_unknown_split_takes_no_mean_from_others() -> None:
    honest = [known(m, t) for m in ("a", "b") for t in ("hue", "shape")]
    forged = make_result("hf-hub:bob/best", "hue", top1=1.0)
    first, apart = tables([*honest, forged])
    assert (first.models, first.tasks, first.common) == (("a", "b"), ("hue", "shape"), [0, 1])
    assert first.means() is not None
    assert (apart.models, apart.own) == (("hf-hub:bob/best",), True)
    assert apart.title == "linear, top-1, %, on data of their own"
    assert leaderboard.as_json(apart)["own_data"] is True
    # and so do data that no declaration names
    first, apart = tables([*honest, make_result("c", "photos", top1=1.0)])
    assert first.common == [0, 1]
    assert apart.tasks == ("photos",)
    # a board of nothing else is a board
    assert not board([make_result("c", "photos")], None).own


def test_which_split_of_a_task_counts() -> None:
    (hue,) = known_splits("hue")
    column, other, third = ("hue", hue), ("hue", "x"), ("hue", "y")
    assert own_columns([(column, "a"), (other, "b"), (other, "c")]) == {other}
    # of a set whose images nobody declares: those most were scored on, or a verified result's
    rows = [(("voc0712", "x"), "a"), (("voc0712", "x"), "b"), (("voc0712", "y"), "c")]
    assert own_columns(rows) == {("voc0712", "y")}
    assert own_columns(rows, {"y"}) == {("voc0712", "x")}
    assert own_columns(rows[1:]) == frozenset()
    assert own_columns([(third, "a")]) == frozenset()
    assert own_columns([(("photos", "x"), "a"), (("photos", "y"), "a")]) == frozenset()


# --------------------------------------------------------------------------- on the command line


def test_the_board_says_who_computed(tmp_path: Path, cli: Cli) -> None:
    results = [known("b", top1=0.9), known("a", top1=0.5)]
    for result in results:
        write_result(tmp_path / shelf_path(result), result)
    assert "self-reported" not in cli("leaderboard", "--results", tmp_path).out
    write_sign_off(tmp_path, signed(results[1], shelf_path(results[1]), "equal", "ada"))
    ran = cli("leaderboard", "--results", tmp_path)
    rows = [line.split() for line in ran.out.splitlines() if "verified" in line or "self-" in line]
    assert [(row[1], row[-2]) for row in rows[:2]] == [("a", "verified"), ("b", "self-reported")]
    assert ran.err == ""


def test_names_of_signers_are_short() -> None:
    with pytest.raises(ValueError, match="by"):
        signed(make_result(), "a/b/c.json", "equal", "x" * 101)
