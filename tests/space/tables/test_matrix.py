"""Grids: what shares a table, a row, a column; the numbers are those of
`eval.results.leaderboard`."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.results import leaderboard as boards
from eval.results.schema import Result
from space.tables import matrix
from space.tables.board import build
from space.tables.matrix import DOMAINS, Grid, Key, grid, keys
from space.tables.scores import frame
from space.tables.view import View
from tests.factories import make_result, split_hash
from tests.space.shelves import (
    LINEAR,
    linear,
    part,
    scored,
    shipped,
    shipped_scores,
    without_samples,
    world,
)

# --------------------------------------------------------------------------- as
# eval.results.leaderboard


def test_the_shipped_leaderboards_are_those_of_eval() -> None:
    tables = boards.tables(r for _, r in shipped())
    assert {Key(t.protocol, t.setting, t.score) for t in tables} == set(keys(shipped_scores()))
    detection = ["ap", "ap50", "ap75", "voc07_ap", "voc07_ap50", "voc07_ap75"]
    assert [t.score for t in tables] == [
        "top1_1shot", "top1_5shot", "top1_20shot", "top1", *detection,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "place", range(4), ids=lambda i: str(["1-shot", "5-shot", "20-shot", "linear"][i])
)
def test_a_shipped_grid_agrees_with_the_table_of_eval(place: int) -> None:
    table = boards.tables(r for _, r in shipped())[place]
    made = grid(shipped_scores(), Key(table.protocol, table.setting, table.score))
    assert sorted(made.models["model"]) == sorted(table.models)
    assert sorted(made.tasks["task"]) == sorted(table.tasks)
    assert dict(zip(made.tasks["task"], made.tasks["subset"], strict=True)) == dict(
        zip(table.tasks, table.subsets, strict=True)
    )
    for (m, model), (t, task) in itertools.product(
        enumerate(made.models["model"]), enumerate(made.tasks["task"])
    ):
        cell = table.cells.get((table.models.index(model), table.tasks.index(task)))
        if cell is None:
            assert np.isnan(made.value[m, t])
            assert made.row[m, t] == -1
            continue
        found = (made.value[m, t], made.low[m, t], made.high[m, t], made.kind[m, t])
        assert found == (cell.value, cell.ci_low, cell.ci_high, cell.kind)
        row = made.scores.iloc[made.row[m, t]]
        assert (row["model"], row["task"], row["value"]) == (model, task, cell.value)
    means, places = table.means(), table.mean_ranks()
    assert means is not None
    assert places is not None
    shown = build(made, View(pretraining=True))
    assert sorted(shown.tasks["task"]) == sorted(made.tasks["task"])
    assert [table.tasks[c] for c in table.apart] == list(shown.tasks["task"][~shown.counts])
    assert len(table.common) == int(shown.counts.sum())  # so the means are over the same tasks
    for r, model in enumerate(shown.models["model"]):
        at = table.models.index(model)
        assert shown.mean[r] == pytest.approx(means[at].value, abs=1e-6)  # rounded there
        assert shown.rank[r] == pytest.approx(places[at])
        assert shown.mean_kind[r] == means[at].kind
        half = (means[at].ci_high - means[at].ci_low) / 2
        assert shown.half[r] == pytest.approx(half, abs=1e-6)  # rounded there
        assert (int(shown.group[r]), str(shown.places[r])) == table.ties.get(at, (0, ""))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_any_grid_agrees_with_the_table_of_eval(seed: int, models: int, tasks: int) -> None:
    results = world(seed, models, tasks, missing=0.3)
    if not results:
        return
    (table,) = boards.tables(results)
    made = linear(results)
    cells = {
        (made.models["model"][m], made.tasks["task"][t]): made.value[m, t]
        for m, t in np.argwhere(made.complete)
    }
    assert cells == {
        (table.models[m], table.tasks[t]): cell.value for (m, t), cell in table.cells.items()
    }
    assert (np.isnan(made.value) == ~made.complete).all()


# --------------------------------------------------------------------------- what is unlike


def changed(name: str) -> Result:
    result = make_result("b")
    return {
        "protocol": make_result("b", protocol="knn"),
        "seed": make_result("b", seed=3),
        "limit": make_result("b", limit=10),
        "precision": make_result("b", precision="bf16", dtype="bf16"),
        "config": part(result, "protocol", config={"validation": 0.5}),
    }[name]


@pytest.mark.parametrize("name", ["protocol", "seed", "limit", "precision", "config"])
def test_what_differs_in_how_it_was_made_never_shares_a_table(name: str) -> None:
    scores = scored([make_result("a"), changed(name)])
    assert len(keys(scores)) == 2
    for key in keys(scores):
        made = grid(scores, key)
        assert len(made.models) == 1
        assert made.value.shape == (1, 1)


def test_shots_never_share_a_table() -> None:
    raw = make_result(protocol="fewshot", config={"shots": [1, 5]})
    one = raw.scores[0].model_copy(update={"name": "top1_1shot", "value": 0.25})
    scores = scored([raw.model_copy(update={"scores": [one, *raw.scores]})])
    found = {key.score: grid(scores, key).value[0, 0] for key in keys(scores)}
    assert found == {"top1_1shot": 0.25, "top1_5shot": 0.5}


def test_other_images_are_another_column() -> None:
    made = linear([make_result("a", split="x"), make_result("b", split="y")])
    assert made.value.shape == (2, 2)
    assert made.complete.sum() == 2
    assert sorted(made.tasks["task"]) == sorted(f"dtd~{split_hash('dtd', s)[:8]}" for s in "xy")
    assert np.isnan(build(made, View()).mean).all()


def test_one_model_on_two_splits_has_two_cells() -> None:
    made = linear([make_result(split="x", top1=0.25), make_result(split="y", top1=0.75)])
    assert made.value.tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_of_two_results_of_one_cell_counts(turned: bool) -> None:
    old = make_result(top1=0.25, created="2026-01-01T00:00:00+00:00")
    new = make_result(top1=0.75, created="2026-02-01T00:00:00+00:00")
    made = linear([new, old] if turned else [old, new])
    assert made.value.tolist() == [[0.75]]
    assert made.scores["value"].iloc[made.row[0, 0]] == 0.75


def test_two_revisions_of_one_name_are_two_rows() -> None:
    made = linear([make_result(revision="a" * 40), make_result(revision="b" * 40, top1=0.75)])
    assert list(made.models["model"]) == ["random:resnet18@aaaaaaa", "random:resnet18@bbbbbbb"]
    assert made.value.ravel().tolist() == [0.5, 0.75]


def test_another_input_size_is_another_row() -> None:
    made = linear([make_result(), part(make_result(), "model", img_size=64)])
    assert sorted(made.models["model"]) == ["random:resnet18", "random:resnet18 @64px"]


def test_names_of_rows_and_columns_are_unique() -> None:
    made = linear([
        make_result(revision="seed1000"),
        make_result(revision="seed1001"),
        make_result(split="12345678a"),
        make_result(split="12345678b"),
    ])  # fmt: skip
    assert made.models["model"].is_unique
    assert made.tasks["task"].is_unique


def test_columns_stand_by_domain() -> None:
    made = linear(make_result("a", t) for t in ("mine", "dtd", "omniglot", "isic2018", "eurosat"))
    found = list(made.tasks["domain"])
    assert found == ["satellite", "medical", "texture", "symbols", "your own"]
    everywhere = grid(shipped_scores(), LINEAR).tasks["domain"]
    assert [d for d, _ in itertools.groupby(everywhere)] == list(dict.fromkeys(everywhere))
    assert set(everywhere) <= set(DOMAINS)


def test_the_default_settings_come_first_and_shots_rise() -> None:
    results = [
        make_result(protocol="linear", seed=3),
        make_result(protocol="linear"),
        make_result(protocol="knn"),
        make_result(protocol="fewshot", config={"n_way": 10}),
    ]
    for shot in (20, 1, 5):
        raw = make_result(protocol="fewshot")
        score = raw.scores[0].model_copy(update={"name": f"top1_{shot}shot"})
        results.append(raw.model_copy(update={"scores": [score]}))
    assert [key.text for key in keys(scored(results))] == [
        "fewshot/top1_1shot", "fewshot/top1_5shot", "fewshot/top1_20shot", "knn/top1",
        "linear/top1", "fewshot/top1_5shot/n_way=10", "linear/top1/seed=3",
    ]  # fmt: skip
    assert [key.title for key in keys(scored(results))][-2:] == [
        "Few-shot, 5-shot (n_way=10)", "Linear (seed=3)",
    ]  # fmt: skip


def test_no_scores_make_an_empty_grid() -> None:
    assert keys(frame([])) == []
    made = grid(frame([]), LINEAR)
    assert made.value.shape == (0, 0)
    assert made.standing(()) is None
    assert len(build(made, View()).models) == 0


# --------------------------------------------------------------------------- samples


def compared(made: Grid, *tasks: int) -> list[str]:
    found = made.standing(tasks)
    assert found is not None
    return sorted(made.models["model"].iloc[found[0]])


def test_models_with_samples_on_all_tasks_are_compared() -> None:
    results = [make_result(m, t) for m in "abdc" for t in "xy"][:-1]  # c lacks y
    results[2] = without_samples(results[2])  # b on x
    made = linear(results)
    assert compared(made, 0, 1) == ["a", "d"]
    assert compared(made, 0) == ["a", "c", "d"]
    assert compared(made, 1) == ["a", "b", "d"]
    some = made.standing((0,), np.array([0, 1, 3]))  # rows are a, b, d, c
    assert some is not None
    assert made.models["model"].iloc[some[0]].tolist() == ["a", "c"]
    assert made.standing((0, 1), np.array([3])) is None
    assert made.standing((0,), np.array([], np.int64)) is None


def test_samples_of_another_length_are_not_compared() -> None:
    results = [make_result(m) for m in "abc"]
    results.append(make_result("odd", correct=np.ones(41, bool)))
    assert compared(linear(results), 0) == ["a", "b", "c"]


def test_standings_have_the_means_of_the_scores() -> None:
    made = grid(shipped_scores(), LINEAR)
    found = made.standing(range(len(made.tasks)))
    assert found is not None
    assert len(found[0]) == 6
    assert found[1].values == pytest.approx(made.value[found[0]].mean(1), abs=1e-5)


def test_models_with_samples_are_compared_though_most_have_none() -> None:
    made = linear([*(make_result(m) for m in "ab"), *(
        without_samples(make_result(m)) for m in "cde")])  # fmt: skip
    assert compared(made, 0) == ["a", "b"]


def test_what_a_task_says_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = linear(make_result(m, t) for m in "abc" for t in "xy")
    asked: list[int] = []
    real = matrix.comparable
    monkeypatch.setattr(matrix, "comparable", lambda x: (asked.append(len(x)), real(x))[1])
    for tasks in ((0, 1), (1,), (0,), (1, 0)):
        build(made, View(tasks=tuple(made.tasks["task"].iloc[list(tasks)])))
        made.standing(tasks)
    assert asked == [3, 3]


def test_a_part_of_a_grid_is_of_those_models_alone() -> None:
    made = linear(make_result(m, t, top1=v) for m, v in (("a", 0.3), ("b", 0.5), ("c", 0.9))
                  for t in "xy")  # fmt: skip
    part_of = made.only([2, 0])
    assert list(part_of.models["model"]) == ["c", "a"]
    assert part_of.value.tolist() == made.value[[2, 0]].tolist()
    assert part_of.row.tolist() == made.row[[2, 0]].tolist()
    found = part_of.standing((0, 1))
    assert found is not None
    assert found[1].values.tolist() == [0.9, 0.3]
    assert made.only([]).standing((0,)) is None


def test_a_grid_that_nobody_needs_is_forgotten() -> None:
    made = linear([make_result("a"), make_result("b")])
    assert made.standing((0,)) is not None
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None
