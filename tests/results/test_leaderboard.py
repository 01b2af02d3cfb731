"""Boards: what may share a column, what the mean is over, what the text shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from eval.results import board_text, leaderboard
from tests.factories import make_result


def test_one_table_a_protocol_setting_and_score() -> None:
    results = [
        make_result(protocol="linear"),
        make_result(protocol="knn"),
        make_result(protocol="fewshot", config={"shots": [5], "n_way": 5}),
        make_result(protocol="fewshot", config={"shots": [5], "n_way": 10}),
        make_result(protocol="linear", seed=3),
        make_result(protocol="linear", limit=10),
    ]
    found = [(t.protocol, t.setting) for t in leaderboard.tables(results)]
    assert found == [
        ("fewshot", ""),
        ("fewshot", "n_way=10"),
        ("knn", ""),
        ("linear", ""),
        ("linear", "limit=10"),
        ("linear", "seed=3"),
        ("linear", "seeds=0+3"),
    ]


def test_other_images_are_another_column() -> None:
    (table,) = leaderboard.tables([make_result(split="a"), make_result(split="b", model="m")])
    assert len(table.tasks) == 2
    assert all(t.startswith("dtd~") for t in table.tasks)
    assert table.common == []
    assert table.means() is None


def test_revisions_and_sizes_are_rows_of_their_own() -> None:
    small = make_result()
    small = small.model_copy(update={"model": small.model.model_copy(update={"img_size": 64})})
    found = leaderboard.tables(
        [make_result(revision="a" * 40), make_result(revision="b" * 40), small]
    )
    (table,) = found
    assert table.models == (
        "random:resnet18@aaaaaaa",
        "random:resnet18@bbbbbbb",
        "random:resnet18 @64px",
    )


def test_mean_and_rank_are_over_common_tasks() -> None:
    (table,) = leaderboard.tables(
        [
            make_result("a", "x", top1=0.5),
            make_result("b", "x", top1=0.75),
            make_result("a", "y", top1=0.8),
            make_result("b", "y", top1=0.7),
            make_result("a", "z", top1=1.0),
        ]
    )
    assert [table.tasks[c] for c in table.common] == ["x", "y"]
    means = table.means()
    assert means is not None
    assert [m.value for m in means] == pytest.approx([0.65, 0.725])
    assert table.mean_ranks() == [1.5, 1.5]
    # without samples two independent intervals of +-0.1 give a mean of +-0.1 * sqrt(2) / 2
    untold = dataclasses.replace(table, evidence={}).means()
    assert untold is not None
    for mean, other in zip(means, untold, strict=True):
        assert (mean.value, mean.kind, mean.n) == (other.value, other.kind, other.n)
        assert other.ci_high - other.value == pytest.approx(0.1 / 2**0.5, abs=1e-6)
    # with them the mean's own variance counts, and its degrees of freedom (Welch, Satterthwaite)
    for mean, right in zip(means, ((20, 32), (30, 28)), strict=True):
        shares = [(k + 1) / 42 for k in right]
        parts = [share * (1 - share) / 40 / 4 for share in shares]
        free = 39 * sum(parts) ** 2 / sum(part**2 for part in parts)
        half = stats.t.ppf(0.975, free) * sum(parts) ** 0.5
        assert mean.ci_high - mean.value == pytest.approx(half, abs=2e-6)
        assert mean.value - mean.ci_low == pytest.approx(half, abs=2e-6)


def test_a_mean_of_one_task_has_that_task_s_interval() -> None:
    (table,) = leaderboard.tables([make_result("a"), make_result("b", top1=0.6)])
    means = table.means()
    assert means is not None
    assert [m.ci_low for m in means] == pytest.approx([0.4, 0.5])
    assert [m.ci_high for m in means] == pytest.approx([0.6, 0.7])


def test_markdown_and_terminal_text() -> None:
    subset = make_result("a", "x")
    subset = subset.model_copy(update={"task": subset.task.model_copy(update={"subset": True})})
    tables = leaderboard.tables([subset, make_result("b", "y")])
    text = board_text.render(tables, markdown=True)
    assert "| model | " in text
    assert "x*" in text
    assert "subset" in text
    assert "50.0 ±10.0" in text
    assert "| " not in board_text.render(tables).splitlines()[1]


def test_many_tasks_run_down_the_page() -> None:
    tables = leaderboard.tables([make_result("a", t) for t in ("x", "y", "z")])
    header, lines = leaderboard.grid(tables[0])
    assert header == ["task", "a"]
    assert [line[0] for line in lines] == ["x", "y", "z", "mean"]


def test_json_has_what_the_text_has() -> None:
    (table,) = leaderboard.tables([make_result("a", "x"), make_result("b", "x", top1=0.6)])
    data = leaderboard.as_json(table)
    assert data["rows"][1]["cells"]["x"]["value"] == pytest.approx(0.6)
    assert data["rows"][1]["mean_rank"] == 1.0
    assert data["common_tasks"] == ["x"]


def test_several_seeds_give_a_mean_and_its_spread() -> None:
    values = {0: 0.5, 1: 0.6, 2: 0.7}
    results = [make_result("a", "x", top1=v, seed=s) for s, v in values.items()]
    results += [make_result("b", "x", top1=0.4, seed=s) for s in (0, 1)]
    results += [make_result("b", "y", top1=0.4)]
    over = {t.setting: t for t in leaderboard.tables(results) if "seeds=" in t.setting}
    assert set(over) == {"seeds=0+1+2", "seeds=0+1"}
    score = over["seeds=0+1+2"].cells[0, 0]
    assert (score.value, score.n) == (0.6, 3)
    # Student's t over the three, and the test images that are the same in all of them
    own = np.var([0.5, 0.6, 0.7], ddof=1) / 3
    images = np.mean([(40 * v + 1) / 42 * (1 - (40 * v + 1) / 42) / 40 for v in values.values()])
    free = (own + images) ** 2 / (own**2 / 2 + images**2 / 39)
    half = stats.t.ppf(0.975, free) * (own + images) ** 0.5
    assert score.ci_high - score.value == pytest.approx(half, abs=1e-5)
    assert score.kind == "draws"
    same = over["seeds=0+1"].cells[0, 0]
    assert same.ci_low < 0.4 < same.ci_high  # no spread over the draws, but over images
    text = board_text.render(list(leaderboard.tables(results)))
    assert "± of linear: 95 % over other draws." in text


def test_no_board_mixes_precisions() -> None:
    """Of an earlier version, which chose by time and recorded no choice: told by what was used."""
    fast = make_result("random:a", top1=0.5, dtype="bf16-channels_last")
    exact = make_result("random:a", top1=0.6, dtype="fp32-channels_last")
    plain = make_result("random:b", top1=0.7)
    asked = make_result("random:c", top1=0.8, precision="fp32")
    boards = {t.setting: t for t in leaderboard.tables([fast, exact, plain, asked])}
    assert set(boards) == {"", "precision=bf16"}
    assert boards["precision=bf16"].models == ("random:a",)
    assert [s.value for s in boards["precision=bf16"].cells.values()] == [0.5]
    assert boards[""].models == ("random:a", "random:b", "random:c")
    assert [s.value for s in boards[""].cells.values()] == [0.6, 0.7, 0.8]
