"""Boards: filters, order, means, ranks and ties, and what the headline says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.stats import rankdata

from eval.common.text import escaped, visible
from eval.metrics.intervals import jeffreys
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.signoff import content_of, signed
from space.labels import shown_objective
from space.tables import display
from space.tables.board import ONE_TRAINING, Board, build, headline
from space.tables.matrix import Grid, grid, keys
from space.tables.objectives import differences, pair_tasks
from space.tables.scores import computed
from space.tables.view import View
from tests.factories import make_result
from tests.space.shelves import (
    HOSTILE_NAMES,
    gaps,
    linear,
    mixed,
    scored,
    shipped_grid,
    without_kinds,
    without_samples,
    world,
)
from tests.space.table_html import seen_board
from tests.space.tables.naive_standing import naive_standing

EVERY = View(pretraining=True)


def names(board: Board) -> list[str]:
    return list(board.models["model"])


# --------------------------------------------------------------------------- numbers


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.sampled_from([0.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_means_ranks_and_groups_are_the_naive_ones(
    seed: int, models: int, tasks: int, missing: float
) -> None:
    results = world(seed, models, tasks, missing, n=150)
    results[::2] = map(without_kinds, results[::2])
    made = linear(results)
    board = build(made, View())
    cells = {(r.model.id, r.task.name): r for r in results}
    columns = list(board.tasks["task"])
    assert set(names(board)) == {m for m, _ in cells}
    whole = [m for m in names(board) if all((m, t) in cells for t in columns)]
    values = {m: [cells[m, t].scores[0].value for t in columns] for m in whole}
    ranked = [rankdata([-values[m][t] for m in whole]) for t in range(len(columns))]
    samples = [
        np.array([cells[m, t].samples["top1"].values() for m in whole], bool) for t in columns
    ]
    for r, model in enumerate(names(board)):
        for t, task in enumerate(columns):
            held = cells.get((model, task))
            assert np.isnan(board.value[r, t]) == (held is None)
            if held is not None:
                score = held.scores[0]
                assert board.value[r, t] == score.value
                interval = (score.ci_low, score.ci_high)
                assert (board.low[r, t], board.high[r, t]) == (
                    interval if score.kind else jeffreys(score.value, 150)
                )
                assert board.kind[r, t] == "test"
                assert made.scores["model"].iloc[board.row[r, t]] == model
        if model not in whole:
            assert np.isnan([board.mean[r], board.half[r], board.rank[r]]).all()
            assert (board.group[r], board.places[r], board.mean_kind[r]) == (0, "", "")
            continue
        assert board.mean[r] == pytest.approx(sum(values[model]) / len(columns))
        assert board.mean_kind[r] == "test"
        at = whole.index(model)
        assert board.rank[r] == pytest.approx(sum(column[at] for column in ranked) / len(columns))
    assert names(board)[: len(whole)] == whole  # those with a gap stand below
    count = len(whole)
    if len({round(m, 9) for m in board.mean[:count]}) < count or count < 2:
        return
    naive = naive_standing(samples)
    half = (board.high - board.low)[:count, 0] / 2 if len(columns) == 1 else naive.half
    assert board.half[:count] == pytest.approx(half, rel=1e-5)
    if naive.margin > 0.01:  # Wallace's approximation of the normal distribution's quantile
        assert board.group[:count].tolist() == naive.group
        assert board.places[:count].tolist() == naive.places


def test_a_model_that_lacks_a_task_is_left_out_of_means_but_shown_below() -> None:
    results = [make_result(m, t, top1=0.5) for m in "ab" for t in "xy"]
    board = build(linear([*results, make_result("best", "x", top1=1.0)]), View())
    assert names(board) == ["a", "b", "best"]
    assert board.rank[:2].tolist() == [1.5, 1.5]  # the third has no place among them
    assert np.isnan(board.mean[2])
    assert board.value[2, 0] == 1.0
    alone = build(board.grid, View(tasks=("x",)))
    assert names(alone)[0] == "best"
    assert alone.rank.tolist() == [1.0, 2.5, 2.5]


def test_a_model_with_nothing_on_the_chosen_tasks_is_not_shown() -> None:
    made = linear([make_result("a", "x"), make_result("b", "y")])
    assert names(build(made, View(tasks=("x",)))) == ["a"]


def test_models_without_comparable_samples_are_in_no_group() -> None:
    results = [make_result(m) for m in "abc"]
    results += [make_result("odd", correct=np.ones(41, bool)), without_samples(make_result("no"))]
    board = build(linear(results), View())
    groups = dict(zip(names(board), board.group.tolist(), strict=True))
    assert groups == {"odd": 0, "a": 1, "b": 1, "c": 1, "no": 0}
    places = dict(zip(names(board), board.places.tolist(), strict=True))
    assert places == {"odd": "", "a": "1-3", "b": "1-3", "c": "1-3", "no": ""}
    assert not np.isnan(board.mean).any()


# --------------------------------------------------------------------------- filters


FILTERS: dict[str, tuple[Any, Any, Any]] = {  # value, keeps the model, keeps the task
    "search": ("RESNET ce", lambda m: "resnet" in m["text"] and "ce" in m["text"], None),
    "objectives": (("ce", "untrained"), lambda m: m["objective"] in ("ce", "untrained"), None),
    "most_params": (6.0, lambda m: m["params"] <= 6e6, None),
    "domains": (("texture", "medical"), None, lambda t: t["domain"] in ("texture", "medical")),
    "tasks": (("dtd", "mine"), None, lambda t: t["task"] in ("dtd", "mine")),
    "whole": (True, None, lambda t: not t["subset"]),
}
SUBSETS = [c for n in range(len(FILTERS) + 1) for c in itertools.combinations(FILTERS, n)]


@pytest.mark.parametrize("pretraining", [False, True])
def test_filters_alone_and_together(pretraining: bool) -> None:
    made = linear(mixed())
    models = made.models.to_dict("records")
    for m in models:
        m["text"] = f"{m['model']} {m['architecture']} {m['objective']}".lower()
    tasks = made.tasks.to_dict("records")
    seen = set()
    for chosen in SUBSETS:
        view = View(pretraining=pretraining, **{n: FILTERS[n][0] for n in chosen})
        rows = {m["model"] for m in models
                if all(FILTERS[n][1](m) for n in chosen if FILTERS[n][1])}  # fmt: skip
        columns = [
            t["task"] for t in tasks
            if all(FILTERS[n][2](t) for n in chosen if FILTERS[n][2])
            and (t["task"] != "mine" or {"tasks", "domains"} & {*chosen})  # data of one's own
        ]  # fmt: skip
        # what the zoo was trained on: behind the others, and shown where it is asked for
        away = [c for c in columns if c != "tiny_imagenet"]
        columns = away + ["tiny_imagenet"] * ("tiny_imagenet" in columns and (
            pretraining or "tasks" in chosen or not away))  # fmt: skip
        board = build(made, view)
        assert list(board.tasks["task"]) == columns
        assert set(names(board)) == (rows if columns else set())
        assert board.value.shape == (len(board.models), len(columns))
        if columns and rows:
            at = [list(made.tasks["task"]).index(c) for c in away or columns]
            for name, mean in zip(names(board), board.mean, strict=True):
                row = list(made.models["model"]).index(name)
                assert mean == pytest.approx(made.value[row, at].mean())
        seen.add((len(rows), len(columns)))
    assert len(seen) > 8


@pytest.mark.parametrize("text", ["[", "(", "\\", ".*", "%", "<script>", "a" * 200])
def test_search_is_for_plain_text(text: str) -> None:
    assert len(build(linear(mixed()), View(search=text)).models) == 0


def test_unknown_choices_show_nothing_and_raise_nothing() -> None:
    made = linear(mixed())
    for view in (View(tasks=("?",)), View(domains=("?",)), View(objectives=("?",))):
        board = build(made, view)
        assert len(board.models) == 0
        assert headline(board).startswith("No model")
    assert names(build(made, View(sort="?"))) == names(build(made, View()))


def test_where_all_data_sets_are_of_pretraining_they_are_shown() -> None:
    board = build(linear([make_result("a", "tiny_imagenet")]), View())
    assert list(board.tasks["task"]) == ["tiny_imagenet"]


def test_a_data_set_that_is_chosen_by_name_is_shown() -> None:
    board = build(linear(mixed()), View(tasks=("tiny_imagenet",)))
    assert list(board.tasks["task"]) == ["tiny_imagenet"]


# --------------------------------------------------------------------------- order


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("column", ["", "mean", "mean rank", "t0", "t1", "t2"])
def test_sort_by_numbers_with_the_missing_last_both_ways(column: str, rising: bool) -> None:
    board = build(gaps(), View(sort=column, rising=rising))
    by = {"t0": board.value[:, 0], "t1": board.value[:, 1], "t2": board.value[:, 2],
          "mean rank": -board.rank}.get(column, board.mean)  # fmt: skip
    there = ~np.isnan(by)
    assert len(by) == 7
    count = int(there.sum())
    assert count == {"t1": 7, "t0": 6, "t2": 6}.get(column, 5)
    assert there[:count].all()
    steps = np.diff(by[:count])
    assert (steps >= 0).all() if rising else (steps <= 0).all()
    assert steps.any()


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("column", ["model", "objective", "architecture", "data", "params"])
def test_sort_by_what_a_model_is(column: str, rising: bool) -> None:
    board = build(linear(mixed()), View(sort=column, rising=rising))
    found = list(board.models[column])
    largest_first = not rising if column == "params" else rising  # texts from A to Z
    assert found == sorted(found, reverse=largest_first)
    assert len(set(found)) > 2


@pytest.mark.parametrize("rising", [False, True])
def test_models_whose_multiply_adds_are_unknown_come_last_in_their_order(rising: bool) -> None:
    costs = {"a": None, "b": 5, "c": 7, "d": 2}
    made = [make_result(name, "dtd") for name in costs]
    told = [
        result.model_copy(update={"model": result.model.model_copy(
            update={"multiply_adds": costs[result.model.id]})})
        for result in made
    ]  # fmt: skip
    board = build(linear(told), View(sort="multiply_adds", rising=rising))
    known = ["d", "b", "c"] if rising else ["c", "b", "d"]
    assert names(board) == [*known, "a"]


def test_sorting_moves_whole_rows() -> None:
    plain = build(gaps(), View())
    held = {
        name: (plain.value[r].tolist(), plain.mean[r], plain.half[r], plain.rank[r],
               plain.group[r], plain.places[r], plain.row[r].tolist(), plain.low[r].tolist(),
               plain.kind[r].tolist(), plain.mean_kind[r])
        for r, name in enumerate(names(plain))
    }  # fmt: skip
    for column in ("model", "params", "t1", "mean rank"):
        board = build(plain.grid, View(sort=column, rising=True))
        assert names(board) != names(plain) or column == "params"
        for r, name in enumerate(names(board)):
            found = (board.value[r].tolist(), board.mean[r], board.half[r], board.rank[r],
                     board.group[r], board.places[r], board.row[r].tolist(),
                     board.low[r].tolist(), board.kind[r].tolist(),
                     board.mean_kind[r])  # fmt: skip
            assert repr(found) == repr(held[name])


# --------------------------------------------------------------------------- the headline


TEST = "other test images, the same training"


def test_a_clear_winner() -> None:
    right = np.arange(40) < 36
    made = linear([make_result("good", correct=right), make_result("bad", correct=~right)])
    assert headline(build(made, View())) == (
        "good has the highest score on this data set: 90.0 % ±10.0 among the 2 models in view, "
        f"80.0 points before bad (interval and paired tests over {TEST}, all pairs at once, "
        "p < 0.05)."
    )


def test_a_tie_is_told_with_the_names() -> None:
    result = [make_result(m, correct=np.arange(40) < n) for m, n in
              (("a", 21), ("b", 20), ("c", 20), ("d", 20), ("e", 20), ("f", 1))]  # fmt: skip
    board = build(linear(result), View())
    assert board.group.tolist() == [1, 1, 1, 1, 1, 2]
    assert board.places.tolist() == ["1-5"] * 5 + ["6"]
    assert headline(board).endswith(
        ", but paired tests cannot tell it from b, c, d and 1 more (interval and tests over "
        f"{TEST}, all pairs at once, p >= 0.05)."
    )


def test_five_data_sets_are_also_a_sample_of_data_sets() -> None:
    results = [make_result(m, f"t{t}", correct=np.arange(40) < 20 + d + t)
               for t in range(5) for m, d in (("a", 12 + (t == 0) * 5), ("b", 0))]  # fmt: skip
    board = build(linear(results), View())
    # differences of 17, 12, 12, 12, 12 of 40 images: a mean of 32.5 points, of which the standard
    # error is 2.5, and 2.776 of these make 95 % with four degrees of freedom
    assert headline(board).endswith(
        " With the data sets as a sample of data sets it is 32.5 ±6.9 points before b."
    )
    assert " Set by set against b: higher on 5 of 5, better on 5, worse on 0, undecided on 0" in (
        headline(board)
    )
    four = build(board.grid, View(tasks=("t0", "t1", "t2", "t3")))
    assert "as a sample" not in headline(four)


def test_a_split_verdict_is_told_as_one() -> None:
    """The mean is decided, and one data set says the opposite."""
    n = np.arange(400)
    pairs = {"t0": (380, 100), "t1": (160, 240)}
    results = [make_result(m, t, correct=n < right) for t, both in pairs.items()
               for m, right in zip("ab", both, strict=True)]  # fmt: skip
    found = headline(build(linear(results), View()))
    assert "25.0 points before b, but the data sets disagree (interval" in found
    assert (
        "Set by set against b: higher on 1 of 2, better on 1, worse on 1, undecided on 0" in found
    )
    alone = headline(build(linear(results), View(tasks=("t0",))))
    assert "disagree" not in alone
    assert "Set by set" not in alone


def test_set_by_set_is_what_a_comparison_says() -> None:
    board = build(shipped_grid(), View())
    rows = [list(board.grid.models["model"]).index(m) for m in board.models["model"].iloc[:2]]
    frame = differences(board.grid, *rows, pair_tasks(board.grid, *rows)[0])
    better, worse = ((frame["verdict"] == v).sum() for v in ("better", "worse"))
    assert f"better on {better}, worse on {worse}, undecided on {10 - better - worse}" in (
        headline(board)
    )
    assert headline(board).endswith(ONE_TRAINING)


def test_what_a_model_was_trained_on_counts_in_no_mean_of_its_own() -> None:
    made = linear([
        *(make_result(m, t, facts={"data": ["cropdisease"]}) for m in "ab"
          for t in ("dtd", "eurosat", "tiny_imagenet")),
        *(make_result("c", t, top1=0.9, facts={"data": ["dtd", "imagenet-1k"]})
          for t in ("dtd", "eurosat", "tiny_imagenet")),
    ])  # fmt: skip
    board = build(made, View())
    assert list(board.tasks["task"]) == ["eurosat", "dtd"]
    assert names(board)[-1] == "c"  # though its scores are the highest
    assert np.isnan(board.mean).tolist() == [False, False, True]
    assert board.mark.tolist() == ["", "", "‡ trained on tiny_imagenet, dtd"]
    assert "c" not in headline(board).partition(" has the highest")[0]
    assert "1 model has no mean, having been pretrained on one of these sets" in headline(board)
    shown = build(made, View(pretraining=True))
    assert list(shown.tasks["task"]) == ["eurosat", "dtd", "tiny_imagenet"]
    assert shown.counts.tolist() == [True, True, False]
    assert (shown.mean[:2] == board.mean[:2]).all()
    assert "Apart, as models in view were pretrained on it: tiny_imagenet." in headline(shown)
    table = seen_board(shown)
    assert table.heads[-1] == "tiny_imagenet‡"
    cells = table.body[2]
    assert [cell.endswith("‡") for cell in cells[-3:]] == [False, True, False]


def test_one_model_nothing_complete_and_nothing_tested() -> None:
    one = headline(build(linear([make_result("a"), make_result("a", "hue")]), View()))
    assert one.startswith("a has the highest mean on these 2 data sets: 50.0 % ±")
    assert one.endswith(f"(95 % over {TEST}). It is the only model in view.")
    none = headline(build(linear([make_result("a", "x"), make_result("b", "y")]), View()))
    assert none == "No model has a number on every data set that is chosen; choose fewer."
    untested = [without_samples(make_result(m, top1=v)) for m, v in (("a", 0.9), ("b", 0.2))]
    found = headline(build(linear(untested), View()))
    assert found.endswith(f"(95 % over {TEST}), 70.0 points before b (not tested).")


def test_the_headline_is_of_the_mean_whatever_the_table_is_sorted_by() -> None:
    made = shipped_grid()
    assert len({headline(build(made, View(sort=s, rising=r))) for s, r in
                itertools.product(("", "model", "params", "dtd"), (False, True))}) == 1  # fmt: skip


def test_the_headline_of_the_shipped_results_is_true() -> None:
    board = build(shipped_grid(), View())
    best = int(np.nanargmax(board.mean))
    assert best == 0
    found = headline(board)
    mine = shown_objective(board.models["objective"].iloc[0])
    start = f"{mine} has the highest mean on these {len(board.tasks)} data sets: "
    assert found.startswith(f"{start}{100 * board.mean[0]:.1f} %")
    assert "among the 6 models in view" in found
    if not board.group[0]:  # files of before the answers of episodes were kept
        assert "(not tested)" in found
        assert "95 % over other episodes of these images" in found
    else:
        assert ("cannot tell it from" in found) == ((board.group == 1).sum() > 1)
        assert "over another sample of the data set" in found


def test_an_objective_that_two_models_share_names_neither() -> None:
    models = ("zoo:a.ce_tin100", "zoo:b.ce_tin100")
    found = headline(build(linear(make_result(m) for m in models), View()))
    assert "CE" not in found
    assert all(m in found for m in models)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_in_the_headline_is_shown_as_it_is(name: str) -> None:
    made = linear([make_result(name, top1=0.9), make_result("b", top1=0.1)])
    board = build(made, View())
    assert board.value.shape == (2, 1)
    text = headline(board)
    assert " ".join(name.split()) in " ".join(text.split())
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    tokens = parser.parse(f"### {escaped(text)}")
    assert [t.type for t in tokens] == ["heading_open", "inline", "heading_close"]
    children = tokens[1].children or []
    assert {t.type for t in children} <= {"text", "text_special"}
    assert "".join(t.content for t in children) == " ".join(text.split())


@given(st.text(max_size=60))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).parse(f"### x{escaped(text)}x")
    assert [t.type for t in tokens] == ["heading_open", "inline", "heading_close"]
    shown = "".join(t.content for t in tokens[1].children or [])
    assert shown == f"x{visible(' '.join(text.split()))}x"  # what is not seen is written out


@pytest.mark.parametrize(("name", "shown"), [
    ("ce+selfsupcon", "CE+SelfSupCon"), ("", ""), ("untrained", "untrained"), ("<b>", "<b>"),
])  # fmt: skip
def test_objectives_are_written_as_the_paper_does(name: str, shown: str) -> None:
    assert shown_objective(name) == shown


# --------------------------------------------------------------------------- who computed


def marked(results: list[Result], verified: list[Result]) -> Grid:
    """The grid of scores of which some were signed."""
    offs = {content_of(r): signed(r, shelf_path(r), "equal", "ada") for r in verified}
    scores = computed(scored(results), offs)
    return grid(scores, keys(scores)[0])


def test_verified_rows_stand_first_and_make_the_headline() -> None:
    liar = [make_result("liar", t, top1=1.0) for t in ("hue", "count")]
    honest = [make_result(m, t, top1=v) for m, v in (("a", 0.5), ("b", 0.6))
              for t in ("hue", "count")]  # fmt: skip
    made = marked([*liar, *honest], honest)
    board = build(made, View())
    assert names(board) == ["b", "a", "liar"]
    assert board.computed.tolist() == ["verified", "verified", "self-reported"]
    assert headline(board).startswith("b has the highest mean on these 2 data sets: 60.0 %")
    assert headline(board).endswith(" Verified rows alone; 1 more are not, or not wholly.")
    assert names(build(made, View(sort="model"))) == ["a", "b", "liar"]
    assert [row[1] for row in seen_board(board).body] == [
        "b ?✓ verified", "a ?✓ verified", "liar ?self-reported",
    ]  # fmt: skip
    assert display.plain(board, View())["computed"].tolist() == board.computed.tolist()

    part = build(marked([*liar, *honest], [honest[0]]), View())
    assert dict(zip(names(part), part.computed.tolist(), strict=True)) == {
        "a": "1 of 2 verified", "b": "self-reported", "liar": "self-reported"
    }  # fmt: skip
    assert names(part)[0] == "liar"  # nobody is verified wholly
    assert "computed" not in display.plain(build(linear(honest), View()), View())


def test_data_of_ones_own_take_no_mean_from_others() -> None:
    honest = [make_result(m, t) for m in "ab" for t in ("hue", "count")]
    forged = make_result("liar", "hue", split="forged", top1=1.0)
    for other in (forged, make_result("liar", "photos", top1=1.0)):
        board = build(linear([*honest, other]), View())
        assert len(board.tasks) == 2
        assert names(board) == ["a", "b"]
        assert not np.isnan(board.mean).any()
        whole = build(board.grid, View(tasks=tuple(board.grid.tasks["task"])))
        assert "liar" in names(whole)
