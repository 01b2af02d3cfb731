"""Boards: what may share a column, what the mean is over, what the text shows."""

from __future__ import annotations

import pytest

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
    # two independent intervals of +-0.1 give a mean of +-0.1 * sqrt(2) / 2
    assert means[0].ci_high - means[0].value == pytest.approx(0.1 / 2**0.5)
    assert table.mean_ranks() == [1.5, 1.5]


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
    half = 1.96 * 0.08164966 / 3**0.5  # population standard deviation of the three
    assert score.ci_high - score.value == pytest.approx(half, abs=1e-6)
    assert over["seeds=0+1"].cells[0, 0].ci_low == 0.4
    text = board_text.render(list(leaderboard.tables(results)))
    assert "Over seeds: the mean and 1.96 standard errors of it over the seeds." in text
