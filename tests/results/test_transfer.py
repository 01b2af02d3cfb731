"""What is transfer for a model: decided once, against plain loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eval.results.board_text import apart, render
from eval.results.compare import as_json as pair_json
from eval.results.compare import compare
from eval.results.compare import render as render_pair
from eval.results.leaderboard import as_json, tables
from eval.results.schema import Result
from eval.results.transfer import counted, mark, pair_counts, pretrains, seen
from tests.factories import make_result

BOARDS = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(bool, shape), hnp.arrays(bool, shape), hnp.arrays(bool, shape[1:])
    )
)


@given(BOARDS)
def test_counted_is_plain_loops(
    board: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    present, own, shipped = board
    found = counted(present, own, shipped)
    models, tasks = present.shape
    away = []
    for t in range(tasks):
        scored = [m for m in range(models) if present[m, t]]
        most_have_seen_it = len([m for m in scored if own[m, t]]) > len(scored) / 2
        away.append(not shipped[t] and not most_have_seen_it)
    if not any(away):
        assert found.columns.all()
        assert (found.cells == present).all()
        return
    assert found.columns.tolist() == away
    for m in range(models):
        for t in range(tasks):
            assert found.cells[m, t] == (away[t] and present[m, t] and not own[m, t])


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(*[hnp.arrays(bool, n)] * 3)))
def test_a_pair_counts_what_neither_has_seen(
    sets: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    a, b, shipped = sets
    new = [not (x or y or z) for x, y, z in zip(a, b, shipped, strict=True)]
    assert pair_counts(a, b, shipped).tolist() == (new if any(new) else [True] * len(new))
    assert (pair_counts(a, b, shipped) == pair_counts(b, a, shipped)).all()


def world(**data: list[str]) -> list[Result]:
    """Models with the training data that they declare, on three tasks and tiny_imagenet."""
    random = np.random.RandomState(0)
    hard = {t: random.uniform(size=60) for t in ("dtd", "eurosat", "svhn", "tiny_imagenet")}
    return [
        make_result(f"hf-hub:lab/{name}", task, correct=chance < 0.4 + 0.1 * i,
                    facts={"data": sets, "objective": "mae"})
        for i, (name, sets) in enumerate(data.items())
        for task, chance in hard.items()
    ]  # fmt: skip


def test_a_set_of_the_zoo_s_stands_apart_for_everybody() -> None:
    (table,) = tables(world(a=["imagenet-1k"], b=["cropdisease"]))
    assert [table.tasks[c] for c in table.apart] == ["tiny_imagenet"]
    assert [table.tasks[c] for c in table.common] == ["dtd", "eurosat", "svhn"]
    assert table.trained_on(0) == "‡ trained on tiny_imagenet"
    assert table.trained_on(1) == ""
    means = table.means()
    assert means is not None
    assert means[0].value == pytest.approx(np.mean([table.cells[0, c].value for c in range(3)]))
    found = as_json(table)
    assert found["apart_tasks"] == ["tiny_imagenet"]
    assert found["rows"][0]["seen"] == {
        "tiny_imagenet": "pretrained on imagenet-1k, of which tiny_imagenet is a part"
    }
    text = render([table], markdown=True)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:7] == ["dtd", "eurosat", "svhn", "tiny_imagenet‡", "mean"]  # behind the others
    assert "‡ no transfer: tiny_imagenet holds images that models here were pretrained on" in text


@pytest.mark.parametrize(
    ("task", "why", "shipped"),
    [
        ("dtd", "pretrained on dtd", False),
        ("dtd@study", "pretrained on dtd", False),
        ("eurosat-on-dtd", "pretrained on dtd", False),
        ("dtd-on-photos", "", False),  # one of the two is nobody's that is known here
        ("tiny_imagenet-on-sketch", "", True),
        ("sketch-on-tiny_imagenet", "", True),
        ("eurosat", "", False),
    ],
)
def test_both_sets_of_a_shift_count(task: str, why: str, shipped: bool) -> None:
    model = make_result("hf-hub:a/b", facts={"data": ["tanganke/dtd"]}).model
    assert seen(model, task) == why
    assert pretrains(task) is shipped


def test_who_declares_a_set_as_his_own_takes_it_from_nobody_s_mean_but_his() -> None:
    (table,) = tables(world(a=["imagenet-1k"], b=["imagenet-1k"], c=["timm/eurosat-rgb"]))
    assert [table.tasks[c] for c in table.apart] == ["tiny_imagenet"]
    assert (2, table.tasks.index("eurosat")) in table.seen
    assert [table.tasks[c] for c in table.common] == ["dtd", "svhn"]  # what all have
    (told,) = [line for line in apart([table]) if "counts nowhere" in line]
    assert "hf-hub:lab/c (pretrained on eurosat); its score on eurosat" in told
    (line,) = (line for line in render([table]).splitlines() if line.startswith("eurosat "))
    assert line.count("‡") == 1


def test_where_all_sets_are_known_to_the_models_they_count() -> None:
    results = [r for r in world(a=["imagenet-1k"], b=[]) if r.task.name == "tiny_imagenet"]
    (table,) = tables(results)
    assert table.apart == []
    assert table.common == [0]
    (pair,) = compare("hf-hub:lab/a", "hf-hub:lab/b", results)
    assert [t.task for t in pair.tasks] == ["tiny_imagenet"]


def test_rows_say_what_nobody_knows() -> None:
    (table,) = tables(world(a=[], b=["laion-2b"], c=["imagenet-1k"]))
    assert [table.trained_on(r) for r in range(3)] == [
        "not declared", "never listed", "‡ trained on tiny_imagenet",
    ]  # fmt: skip
    said = " ".join(apart([table]))
    assert "Training data not declared: hf-hub:lab/a." in said
    assert "never listed: hf-hub:lab/b." in said
    assert mark([], "untrained", []) == ""


def test_a_comparison_leaves_out_what_one_of_them_has_seen() -> None:
    results = world(a=["dtd"], b=["cropdisease"])
    (pair,) = compare("hf-hub:lab/a", "hf-hub:lab/b", results)
    assert [t.task for t in pair.tasks] == ["eurosat", "svhn"]
    assert {t.task: t.seen for t in pair.apart} == {
        "dtd": "pretrained on dtd", "tiny_imagenet": "checkpoints that ship were pretrained on it",
    }  # fmt: skip
    gaps = [t.difference.value for t in pair.tasks]
    assert f"mean difference {100 * np.mean(gaps):+.1f} points on these. Apart" in pair.sentence
    assert re.search(r"^\| dtd‡ +\|", render_pair([pair]), re.MULTILINE)
    assert [t["task"] for t in pair_json(pair)["apart"]] == ["dtd", "tiny_imagenet"]
    (back,) = compare("hf-hub:lab/b", "hf-hub:lab/a", results)
    assert [t.task for t in back.tasks] == [t.task for t in pair.tasks]
