"""Objectives against each other: the same numbers as the command line, and as plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.metrics.estimates import KINDS, mean, of_answers
from eval.metrics.ranks import holm
from eval.models.objectives import COMPARED
from eval.results import compare as cli
from eval.results.schema import Result
from eval.results.store import read_shelf
from space.tables import objectives
from space.tables.families import families
from space.tables.matrix import Grid, grid, keys
from space.tables.objectives import (
    ONE_TRAINING,
    by_domain,
    differences,
    mean_difference,
    pair_tasks,
    shots,
    summary,
)
from tests.factories import make_result
from tests.space.shelves import CARDS, FIVE, LINEAR, fewshot, scored, study, zoo


@pytest.fixture(scope="module")
def shipped() -> list[Result]:
    return [result for _, result in read_shelf(CARDS).results]


@pytest.fixture(scope="module")
def scores(shipped: list[Result]) -> pd.DataFrame:
    return scored(shipped)


# ---- differences


def test_agrees_with_the_command_line_on_the_shipped_results(
    shipped: list[Result], scores: pd.DataFrame
) -> None:
    a, b = zoo("ce+selfsupcon"), zoo("ce")
    found = {(c.protocol, c.setting, c.score): c for c in cli.compare(a, b, shipped)}
    assert set(found) == {(k.protocol, k.setting, k.score) for k in keys(scores)}
    for key in keys(scores):
        theirs = found[key.protocol, key.setting, key.score]
        one = grid(scores, key)
        place = list(one.models["model"]).index
        kept, _ = pair_tasks(one, place(a), place(b))
        ours = differences(one, place(a), place(b), kept).set_index("task")
        claimed = [task for task in theirs.tasks if task.kind]  # not those of older few-shot files
        assert sorted(ours.index) == sorted(t.task for t in claimed)
        for task in claimed:
            row = ours.loc[task.task]
            gap = task.difference
            assert (row["a"], row["b"], row["n"], row["unit"]) == (
                task.a, task.b, task.n, task.unit,
            )  # fmt: skip
            assert (row["difference"], row["low"], row["high"]) == (gap.value, gap.low, gap.high)
            assert (row["wins"], row["losses"]) == (task.wins, task.losses)
            assert (row["p"], row["kind"]) == (task.p_value, task.kind)
            assert row["p_holm"] == pytest.approx(task.p_holm, rel=1e-12)
            assert row["verdict"] == {"A": "better", "B": "worse", "tie": "undecided"}[task.verdict]
        if not claimed:
            assert "share no data set" in summary(ours.reset_index(), "CE+SelfSupCon", "CE")
            continue
        better = f"better than CE on {(ours['verdict'] == 'better').sum()} of {len(ours)} data sets"
        text = summary(ours.reset_index(), "CE+SelfSupCon", "CE")
        assert better in text or "No difference" in text
        assert f"Mean difference {100 * ours['difference'].mean():+.1f} points" in text


def test_a_pair_is_tested_once(scores: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    one = grid(scores, LINEAR)
    asked: list[int] = []
    real = objectives.estimates
    monkeypatch.setattr(
        objectives, "estimates", lambda pair: (asked.append(len(pair)), real(pair))[1]
    )
    objectives._tested.cache_clear()
    found = [differences(one, 0, 1) for _ in range(3)]
    assert asked == [2] * len(found[0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 40), st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 10**6),
)
def test_differences_are_naive_loops_and_antisymmetric(
    asked: list[tuple[int, float, float]], seed: int
) -> None:
    random = np.random.RandomState(seed)
    results, truth = [], []
    for i, (n, p, q) in enumerate(asked):
        a, b = random.uniform(size=n) < p, random.uniform(size=n) < q
        truth.append((a, b))
        results += [
            make_result(zoo("ce"), f"t{i}", correct=a),
            make_result(zoo("supcon"), f"t{i}", correct=b),
        ]
    one = grid(scored(results), LINEAR)
    place = list(one.models["objective"]).index
    ab = differences(one, place("ce"), place("supcon"))
    ba = differences(one, place("supcon"), place("ce"))
    assert list(ab["task"]) == [f"t{i}" for i in range(len(asked))] == list(ba["task"])
    tests = [naive_test(a, b) for a, b in truth]
    for (i, row), (a, b), test, p in zip(
        ab.iterrows(), truth, tests, holm([t[3] for t in tests]), strict=True
    ):
        assert row["wins"] == sum(x and not y for x, y in zip(a, b, strict=True))
        assert row["losses"] == sum(y and not x for x, y in zip(a, b, strict=True))
        assert row["difference"] == pytest.approx(a.mean() - b.mean(), abs=1e-12)
        assert row["p_holm"] == pytest.approx(p, abs=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(test[1:3], abs=1e-6)
        assert (row["kind"], row["variance"]) == ("test", pytest.approx(test[0], rel=1e-5))
        other = ba.loc[i]
        for name, mirror in (("difference", "difference"), ("low", "high"), ("high", "low")):
            assert row[name] == pytest.approx(-other[mirror], abs=1e-9)
        assert (row["wins"], row["losses"]) == (other["losses"], other["wins"])
        assert row["p"] == pytest.approx(other["p"], abs=1e-12)
        swapped = {"better": "worse", "worse": "better", "undecided": "undecided"}
        assert row["verdict"] == swapped[other["verdict"]]
    middle, low, high = mean_difference(ab)
    assert middle == pytest.approx(np.mean([a.mean() - b.mean() for a, b in truth]), abs=1e-12)
    expected, _ = mean([of_answers(np.array(pair)) for pair in truth]).difference()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert [-high, -low] == pytest.approx(list(mean_difference(ba)[1:]), abs=1e-12)


def naive_test(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """(variance of the mean difference, its 95 % interval, p) where one image more than was seen is
    answered by one of the two alone."""
    n = len(a)
    delta = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    gap = sum(delta) / n
    variance = sum((d - gap) ** 2 for d in delta) / n**2 + 1 / n**2
    free, error = max(n - 1, 1), variance**0.5
    half = stats.t.ppf(0.975, free) * error
    return variance, gap - half, gap + half, float(2 * stats.t.sf(abs(gap) / error, free))


def test_only_tasks_with_the_same_questions() -> None:
    few, many = np.arange(40) < 20, np.arange(60) < 20
    one = grid(
        scored([
            make_result(zoo("ce"), "x", correct=few),
            make_result(zoo("supcon"), "x", correct=~few),
            make_result(zoo("ce"), "y", correct=few),  # nobody else
            make_result(zoo("ce"), "z", correct=few),  # other images
            make_result(zoo("supcon"), "z", correct=few, split="other"),
            make_result(zoo("ce"), "w", correct=few),  # a forged length
            make_result(zoo("supcon"), "w", correct=many),
            make_result(zoo("ce"), "v", correct=few, samples={}),
            make_result(zoo("supcon"), "v", correct=few),
        ]),
        LINEAR,
    )  # fmt: skip
    found = differences(one, 0, 1)
    assert list(found["task"]) == ["x"]
    assert (found["wins"][0], found["losses"][0], found["difference"][0]) == (20, 20, 0)
    assert found["verdict"][0] == "undecided"


def test_the_tasks_chosen_are_those_corrected_for() -> None:
    one = grid(study({"ce": {f"t{i}": 0.66 for i in range(8)},
                      "supcon": {f"t{i}": 0.6 for i in range(8)}}), LINEAR)  # fmt: skip
    alone = differences(one, 0, 1, [3])
    both = differences(one, 0, 1)
    assert list(alone["task"]) == [one.tasks["task"][3]]
    assert alone["p_holm"][0] == alone["p"][0] == both["p"][3]
    assert both["p_holm"][3] > both["p"][3]


# ---- the sentence


def test_the_sentence_says_what_the_table_says() -> None:
    scores = study({"ce+selfsupcon": {"x": 0.8, "y": 0.4, "z": 0.5},
                    "ce": {"x": 0.5, "y": 0.7, "z": 0.5}})  # fmt: skip
    one = grid(scores, LINEAR)
    joint, plain = (list(one.models["objective"]).index(n) for n in ("ce+selfsupcon", "ce"))
    found = differences(one, joint, plain)
    text = summary(found, "CE+SelfSupCon", "CE")
    assert "CE+SelfSupCon is better than CE on 1 of 3 data sets (x), worse on 1 (y), undecided" in (
        text
    )
    mean, low, high = (100 * v for v in mean_difference(found))
    assert f"{mean:+.1f} points on these data sets, 95 % interval {low:+.1f} to {high:+.1f}" in text
    assert f"(paired tests and intervals over {KINDS['test']}; Holm-corrected p < 0.05)" in text
    assert "as a sample" not in text  # three data sets tell nothing of others
    assert text.endswith(ONE_TRAINING)
    assert ONE_TRAINING not in summary(found, "a", "b", trainings=None)
    several = summary(found, "A", "B", trainings=(3, 1))
    assert several.endswith(
        "There are 3 trainings of A and 1 training of B; the newest of each are compared, and no "
        "interval is over trainings."
    )
    aside = summary(found[:2], "A", "B", apart=found[2:])
    assert aside.endswith(
        f"Apart, as no transfer for them: z ({100 * found['difference'][2]:+.1f} points)."
    )
    same = differences(one, plain, plain)
    assert summary(same, "CE", "CE").startswith("No difference between CE and CE is shown on any")
    nothing = summary(found[:0], "a", "b")
    assert "share no data set" in nothing
    assert "same command" in nothing


# ---- families


def test_families_hold_what_differs_in_the_objective_alone() -> None:
    old, new = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
    names = [
        zoo("ce"), zoo("supcon"), zoo("ce+selfsupcon"), zoo("ce", "in1k"), zoo("ce", "long_tin100"),
        zoo("selfsupcon", maker="hf-hub:eve/"), zoo("ce", maker="hf-hub:eve/"), "resnet50.a1_in1k",
        zoo("selfsupcon", maker="hf-hub:transferzoo/"), "random:resnet18_narrow", "",
    ]  # fmt: skip
    results = [make_result(name, created=old) for name in names]
    results += [
        make_result(zoo("ce"), revision="newer", created=new),
        make_result(zoo("supcon"), revision="older", created="2025-01-01T00:00:00+00:00"),
    ]
    one = grid(scored(results), LINEAR)
    found = families(one)
    assert [list(f.members) for f in found[:2]] == [
        ["ce", "selfsupcon", "supcon", "ce+selfsupcon"], ["ce", "selfsupcon"],
    ]  # fmt: skip
    first = found[0]
    # another recipe on the same data: the label tells them apart
    assert (first.label, first.maker) == ("resnet18_narrow, tiny_imagenet, tin100", "")
    assert {f.label for f in found if f.making == "long_tin100"} == {
        "resnet18_narrow, tiny_imagenet, long_tin100"
    }
    assert first.trainings == {"ce": 2, "selfsupcon": 1, "supcon": 2, "ce+selfsupcon": 1}
    assert found[1].maker == "hf-hub:eve"
    assert one.models["revision"][first.members["ce"]] == "newer"
    assert one.models["revision"][first.members["supcon"]] == "seed0"
    assert {f.making for f in found} == {"tin100", "in1k", "long_tin100"}
    # not the nameless, not a1, not the untrained, not the old two
    assert sum(len(f.members) for f in found) == 8
    pairs = COMPARED
    assert first.pairs(pairs) == [
        ("ce+selfsupcon", "ce"), ("supcon", "ce"), ("selfsupcon", "ce"),
    ]  # fmt: skip
    assert families(grid(scored([]), LINEAR)) == []


def test_the_zoo_is_one_family(scores: pd.DataFrame) -> None:
    (found,) = families(grid(scores, FIVE))
    assert found.label == "resnet18_narrow, tiny_imagenet, 64 px"
    assert len(found.pairs(COMPARED)) == len(COMPARED) == 6


# ---- domains, shots


def _half(one: Grid, row: int, columns: Sequence[int]) -> float:
    """Of a mean of test images' answers, or as the widths say where nothing more is known."""
    found = one.standing(columns)
    if found is None or len(columns) == 1:
        parts = [((one.high[row, t] - one.low[row, t]) / 2) ** 2 for t in columns]
        return float(sum(parts) ** 0.5 / len(columns))
    return float(found[1].half_widths()[found[0].tolist().index(row)])


def test_domains_are_means_of_complete_ones(scores: pd.DataFrame) -> None:
    one = grid(scores, LINEAR)
    found = by_domain(one, [2, 0])
    assert "natural images" not in set(found["domain"])  # the zoo's own pretraining data
    for row in found.itertuples():
        m = list(one.models["model"]).index(row.model)
        columns = [t for t in range(len(one.tasks)) if one.tasks["domain"][t] == row.domain]
        assert row.value == pytest.approx(np.mean([one.value[m, t] for t in columns]))
        assert row.half == pytest.approx(_half(one, m, columns))
        assert row.tasks == len(columns)
    part = study({"ce": {"eurosat": 0.5, "dtd": 0.5, "resisc45": 0.4}, "supcon": {
        "eurosat": 0.5, "dtd": 0.6}, "selfsupcon": {"svhn": 0.3}})  # fmt: skip
    one = grid(part, LINEAR)
    place = list(one.models["objective"]).index
    found = by_domain(one, [place("ce"), place("supcon")])
    assert set(found["domain"]) == {"texture"}  # one lacks resisc45; svhn is nobody's here
    assert set(by_domain(one, [place("ce")])["domain"]) == {"satellite", "texture"}
    assert len(by_domain(one, [0, 1, 2])) == 0
    assert len(by_domain(one, [])) == 0
    assert len(by_domain(grid(part, FIVE), [])) == 0


def test_shots_are_over_tasks_common_to_all_points() -> None:
    results = [
        fewshot("a", "x", {1: 0.3, 5: 0.5, 20: 0.7}), fewshot("a", "y", {1: 0.4, 5: 0.6}),
        fewshot("a", "z", {1: 0.2, 5: 0.4, 20: 0.6, 50: 0.9}),
        fewshot("a", "tiny_imagenet", {1: 0.9, 5: 0.9, 20: 0.9}),
        fewshot("b", "x", {1: 0.1, 5: 0.3, 20: 0.5}), fewshot("b", "y", {1: 0.9}),
        fewshot("b", "z", {1: 0.3, 5: 0.5, 20: 0.5, 50: 0.7}),
        fewshot("b", "tiny_imagenet", {1: 0.1, 5: 0.1, 20: 0.1}),
        fewshot("c", "x", {2: 0.1}),
    ]  # fmt: skip
    scores = scored(results)
    models = [("a", "seed0"), ("b", "seed0")]
    found = shots(scores, models).set_index(["model", "shot"])
    assert list(found.index) == [(m, k) for k in (1, 5, 20) for m in "ab"]  # 50: one task of three
    assert set(found["tasks"]) == {2}  # y has no 20 shots
    assert found["value"]["a", 1] == pytest.approx(0.25)
    assert found["value"]["b", 20] == pytest.approx(0.5)
    assert found["half"]["a", 5] == pytest.approx(0.02 * 2**0.5 / 2)
    with_it = shots(scores, models, pretraining=True).set_index(["model", "shot"])
    assert with_it["value"]["a", 1] == pytest.approx((0.3 + 0.2 + 0.9) / 3)
    assert list(shots(scores, [("a", "seed0")])["shot"]) == [1, 5, 20]
    for none in ([], [("c", "other")], [("a", "seed0"), ("c", "seed0")]):
        assert len(shots(scores, none)) == 0
    assert len(shots(scored([]), models)) == 0
    assert len(shots(scores, models, setting="seed=1")) == 0
