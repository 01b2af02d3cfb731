"""Anybody's scores: read, paired by item, ranked with ties; what is left out is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import eval as library
from eval.results.item_scores import item_scores, read_items, render, ties_of
from tests.factories import Cli, refusal


def rows(models: dict[str, float], tasks: int = 2, items: int = 200, seed: int = 0) -> list[Any]:
    """Right or wrong answers, each model right with its probability; items hard for all or none."""
    found = []
    for t in range(tasks):
        random = np.random.default_rng([seed, t])
        hard = random.normal(size=items)
        for model, p in models.items():
            right = (hard + random.normal(size=items)) / 2**0.5 < stats.norm.ppf(p)
            found += [
                {"model": model, "task": f"t{t}", "item": str(i), "score": int(r)}
                for i, r in enumerate(right)
            ]
    return found


def write_csv(path: Path, found: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    return path


def test_a_better_model_leads_and_equal_ones_tie() -> None:
    whole, first, second = library.ties(rows({"b": 0.6, "best": 0.9, "c": 0.6}))
    assert (whole.tasks, whole.items) == (("t0", "t1"), 400)
    assert whole.models[0] == "best"
    assert whole.ties.group.tolist() == [1, 2, 2]
    assert [whole.ties.places(i) for i in range(3)] == ["1", "2-3", "2-3"]
    assert (first.tasks, second.tasks) == (("t0",), ("t1",))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files(kind: str, tmp_path: Path, cli: Cli) -> None:
    found = rows({"a": 0.8, "b": 0.5}, tasks=1)
    path = tmp_path / f"scores.{kind}"
    if kind == "csv":
        write_csv(path, found)
    else:
        pq.write_table(pa.Table.from_pylist(found), path)
    done = cli("ties", path)
    assert done.code == 0, done.err
    assert "|     1 | a     |" in done.out
    assert "95 % over other items of the same kind" in done.out
    (board,) = cli("ties", path, "--json").json
    assert [m["model"] for m in board["models"]] == ["a", "b"]
    assert board["models"][0]["better_than"] == ["b"]
    assert board["models"][1]["places"] == [2, 2]
    assert json.dumps(board) == json.dumps(cli("ties", path, "--json", "--tasks").json[0])
    assert read_items(path) == item_scores(found)


def test_two_models_over_seeds_are_a_paired_t_test() -> None:
    found = [
        {"model": m, "seed": s, "score": v}
        for m, values in (("a", (0.71, 0.74, 0.72)), ("b", (0.70, 0.71, 0.70)))
        for s, v in enumerate(values)
    ]
    (board,) = library.ties(found)
    p = stats.ttest_rel((0.71, 0.74, 0.72), (0.70, 0.71, 0.70)).pvalue
    assert board.estimates.difference()[1] == pytest.approx(p)
    assert board.ties.group.tolist() == [1, 1]  # p = 0.095
    assert board.items == 3


def test_what_is_left_out_is_named() -> None:
    found = rows({"a": 0.8, "b": 0.5})
    short = [r for r in found if not (r["model"] == "b" and r["item"] == "7")]
    short += [{"model": "c", "task": "t0", "item": str(i), "score": 1} for i in range(200)]
    short += [{"model": "a", "task": "alone", "item": "0", "score": 1}]
    whole, boards = ties_of(item_scores(short))
    assert whole is not None
    assert set(whole.left_out) == {
        "task 'alone' is left out: 1 model with 1 item in common",
        "task 't0': 1 item that some model lacks",
        "task 't1': 1 item that some model lacks",
        "model 'c' is left out: it lacks a task",
    }
    assert whole.items == 398
    assert "left out: model 'c' is left out" in render([whole])
    assert len(boards[0].models) == 3


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "has no rows"),
        ([{"model": "a", "item": 1}], "no column 'score'"),
        ([{"models": "a", "item": 1, "score": 1}], "did you mean 'models'"),
        ([{"model": "a", "score": 1}], "no column 'item'"),
        ([{"model": "a", "item": 1, "score": "good"}], "row 1 has score 'good'"),
        ([{"model": "a", "item": 1, "score": "inf"}], "not a finite number"),
        ([{"model": "", "item": 1, "score": 1}], "row 1 has no model or no item"),
        ([{"model": "a", "item": 1, "score": 1}] * 2, "has item '1' of task '' twice"),
        ([{"model": "a", "item": 1, "score": 1}], "no task has two models with two items"),
    ],
)
def test_mistakes(found: list[dict[str, Any]], words: str) -> None:
    assert words in refusal(library.ties, found)


def test_files_that_are_none(tmp_path: Path, cli: Cli) -> None:
    done = cli("ties", tmp_path / "no.csv")
    assert (done.code, done.out) == (2, "")
    assert "does not exist" in done.err
    for name, content in (("a.csv", b"\xff\xfe\x00"), ("b.parquet", b"no parquet")):
        (tmp_path / name).write_bytes(content)
        done = cli("ties", tmp_path / name)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
