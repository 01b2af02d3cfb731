"""What a study's results say: read back from the file, tested as its plan laid down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from eval.analysis.plots import style
from eval.metrics.contrasts import combined
from eval.metrics.ranks import holm
from eval.results.estimates import measured
from eval.results.store import read_result
from eval.run.group import run_group
from eval.study import show, table
from eval.study.content import associations
from eval.study.figure import figure
from eval.study.table import Checkpoint, read, row, write
from eval.study.verdict import ContrastAt, Verdict, verdict
from tests.engines.groups import make_groups, make_request
from tests.factories import Cli, refusal
from tests.metrics.trainings import Trainings
from tests.study.made import PLAN, answer_row, study_file


def contrast_of(found: Verdict, contrast: str) -> ContrastAt:
    return next(
        t for t in found.tested if (t.score, t.contrast, t.epochs) == ("linear top-1", contrast, 12)
    )


def test_a_row_holds_what_a_result_rests_on(tmp_path: Path) -> None:
    """Of real results: few-shot episodes with their draw, and images."""
    request = make_request(tmp_path, tmp_path / "results")
    for group in make_groups(request):
        run_group(group, str(request.results))
    rows, expected = [], {}
    for path in sorted(request.results.rglob("*.json")):
        result = read_result(path)
        for name in result.samples:
            facts = {"arm": "a", "objective": "ce", "seed": 0, "epochs": 12, "rate": 0.1}
            rows.append(row(result, name, facts))
            expected[name] = measured(result, name)
    plan = PLAN | {"evaluation": {"tasks": [], "shots": [1]}}
    write(tmp_path / "x.parquet", rows, json.dumps(plan))
    found = read(tmp_path / "x.parquet")
    assert {"top1_1shot", "top1"} <= set(expected)
    for name, one in expected.items():
        assert one is not None
        assert list(found.scores[name][Checkpoint("a", 0, 12)].values()) == [one]


def test_a_difference_is_found_and_told(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.8)))
    one = contrast_of(found, "b - a")
    assert (one.word, one.trainings, one.planned, one.tasks) == ("helps", 3, 3, ("one", "two"))
    assert one.found is not None
    # both scores have 2 contrasts at 2 budgets; three of the four are not trained yet
    assert one.p == pytest.approx(4 * one.found.p())
    assert one.level == 0.05 / 4
    assert [t.word for t in found.tested if t is not one] == ["not trained yet"] * 7
    shown = show.render(found, 120)
    assert "toy: 6 of 12 checkpoints trained and scored" in shown
    assert "Is b better than a?" in shown
    assert all(len(line) <= 120 for line in shown.splitlines())
    lines = shown.splitlines()
    (at,) = (
        i
        for i, line in enumerate(lines)
        if line.startswith("No training yet that all arms have, by epochs (linear top-1)")
    )
    assert lines[at].endswith(": b - a at 50; c - a at 12, 50.")
    assert "linear top-1, mean over 2 of 2 data sets, %" in lines
    assert "5-shot top-1, differences in points" not in lines
    assert "b - a: above 0. c - a: none." in shown


def test_the_other_way_round_it_hurts(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.8, arms="ba")))
    assert contrast_of(found, "b - a").word == "hurts"


def test_equal_is_said_of_what_lies_close_to_0_for_sure(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    same = random.random(4000) < 0.7
    rows = [answer_row(Checkpoint(arm, seed, 12), "one", same) for arm in "ab" for seed in range(3)]
    write(tmp_path / "x.parquet", rows, json.dumps(PLAN))
    assert contrast_of(verdict(read(tmp_path / "x.parquet")), "b - a").word == "equal"
    few = [r | {"n": 60, "samples": r["samples"][:8]} for r in rows]
    write(tmp_path / "x.parquet", few, json.dumps(PLAN))
    assert contrast_of(verdict(read(tmp_path / "x.parquet")), "b - a").word == "undecided"


def test_one_training_decides_nothing(tmp_path: Path) -> None:
    one = contrast_of(
        verdict(read(study_file(tmp_path / "x.parquet", better=0.8, trainings=1))), "b - a"
    )
    assert one.found is not None
    assert one.found.over_images().low > 0
    assert (one.word, one.p, one.needed) == ("not tested yet", 1.0, None)


def test_a_contrast_is_tested_when_all_its_trainings_are_there(tmp_path: Path) -> None:
    """Not at a look before, whatever that would find; the others' correction is the same."""
    path = study_file(tmp_path / "x.parquet", better=0.8, arms="acb")
    whole = verdict(read(path))
    rows = [r for r in pq.read_table(path).to_pylist() if (r["arm"], r["seed"]) != ("b", 1)]
    write(path, rows, json.dumps(PLAN))
    found = verdict(read(path))
    early, other = contrast_of(found, "b - a"), contrast_of(found, "c - a")
    assert contrast_of(whole, "b - a").word == "helps"
    assert (early.word, early.trainings, early.p) == ("not tested yet", 2, 1.0)
    assert early.found is not None
    assert early.found.p() < 0.05 / 4
    assert other.word == contrast_of(whole, "c - a").word
    row = next(r for r in show.render(found, None).splitlines() if r.startswith("| b - a at 12 "))
    assert "±" in row
    assert "*" not in row
    line = next(r for r in show.render(found, None).splitlines() if "2 of 3" in r)
    assert [cell.strip() for cell in line.split("|")[-4:-1]] == ["-", "-", "not tested yet"]


def test_fewer_data_sets_are_marked_at_a_glance(tmp_path: Path) -> None:
    path = study_file(tmp_path / "x.parquet", better=0.8, arms="acb")
    assert show.FEWER not in show.render(verdict(read(path)), None)
    rows = pq.read_table(path).to_pylist()
    kept = [r for r in rows if (r["arm"], r["seed"], r["task"]) != ("b", 1, "two")]
    write(path, kept, json.dumps(PLAN))
    shown = show.render(verdict(read(path)), None).splitlines()
    assert next(r for r in shown if r.startswith("| b - a at 12 ")).count(show.FEWER) == 1
    assert show.FEWER not in next(r for r in shown if r.startswith("| c - a at 12 "))
    assert any(f"{show.FEWER}: over fewer data sets" in line for line in shown)


def test_an_open_difference_says_how_many_trainings_would_do(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.12)))
    one = contrast_of(found, "b - a")
    assert one.word == "undecided"
    assert one.found is not None
    assert one.needed == one.found.trainings_needed(0.05 / 4)
    assert one.needed is not None
    assert one.needed < 10
    assert f"undecided (~{one.needed})" in show.render(found, None)


def test_only_what_all_have_counts(tmp_path: Path) -> None:
    """Seeds that both arms have, and data sets on which all of these were scored alike."""
    path = study_file(tmp_path / "x.parquet", better=0.8)
    rows = pq.read_table(path).to_pylist()
    kept = [
        r for r in rows
        if (r["arm"], r["seed"]) != ("b", 1) and (r["arm"], r["seed"], r["task"]) != ("a", 2, "two")
    ]  # fmt: skip
    write(path, kept, json.dumps(PLAN))
    found = read(path)
    one = contrast_of(verdict(found), "b - a")
    assert (one.trainings, one.tasks) == (2, ("one",))
    scores = found.scores["top1"]
    values = [
        scores[Checkpoint("b", s, 12)]["one"].value - scores[Checkpoint("a", s, 12)]["one"].value
        for s in (0, 2)
    ]
    assert one.found is not None
    assert one.found.by_training == pytest.approx(values)


def test_levels_are_means_over_sets_and_seeds(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.0)))
    values = {(r["arm"], r["seed"], r["task"]): r["value"]
              for r in pq.read_table(tmp_path / "x.parquet").to_pylist()}  # fmt: skip
    level = next(
        one for one in found.arms if (one.score, one.arm, one.epochs) == ("linear top-1", "a", 12)
    )
    assert level.found is not None
    expected = [np.mean([values["a", s, t] for t in ("one", "two")]) for s in range(3)]
    assert level.found.by_training == pytest.approx(expected)


def test_content_counts_apart(tmp_path: Path) -> None:
    """Its tasks are in no mean of transfer, and are corrected on their own."""
    path = study_file(tmp_path / "x.parquet", better=0.8)
    plan = PLAN | {"evaluation": {"tasks": ["one"], "shots": [5], "content": {"low": ["two"]}}}
    write(path, pq.read_table(path).to_pylist(), json.dumps(plan))
    found = verdict(read(path))
    whole = {t.score: t for t in found.tested if (t.contrast, t.epochs) == ("b - a", 12)}
    assert list(whole) == ["linear top-1", "5-shot top-1", "low-level content"]
    assert (whole["linear top-1"].tasks, whole["low-level content"].tasks) == (("one",), ("two",))
    for one in (whole["linear top-1"], whole["low-level content"]):
        assert one.found is not None
        assert one.p == pytest.approx(4 * one.found.p())


def test_trainings_vary_as_those_of_all_arms_do(tmp_path: Path) -> None:
    """And what the contrast's own trainings say stands beside it."""
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.3, arms="cba")))
    one = contrast_of(found, "b - a")
    assert one.found is not None
    assert one.found.spread is not None
    values = {(r["arm"], r["seed"], r["task"]): r["value"]
              for r in pq.read_table(tmp_path / "x.parquet").to_pylist()}  # fmt: skip
    table = np.array(
        [[np.mean([values[a, s, t] for t in ("one", "two")]) for s in range(3)] for a in "abc"]
    )
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    assert one.found.spread.free == 4
    assert one.found.spread.variance == pytest.approx(2 * np.sum(left**2) / 4)
    assert found.spreads == {("linear top-1", 12): one.found.spread.times(0.5)}
    sd = 100 * (np.sum(left**2) / 4) ** 0.5
    own = 100 * table.std(axis=1, ddof=1)
    said = f"{sd:.1f} at 12 epochs (arms {own.min():.1f} to {own.max():.1f})"
    assert f"points; standard deviation of one training {said}" in show.render(found, None)
    alone = [t.found.alone.p() if t.found else 1.0 for t in found.tested if t.score == one.score]
    assert one.p_alone == holm(alone)[0]
    assert one.p < one.p_alone


def test_what_only_the_pooled_spread_decides_is_said_to_be_so(tmp_path: Path) -> None:
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.8)))
    one = contrast_of(found, "b - a")
    for own, mark in ((0.2, " * "), (0.04, " ** ")):
        told = replace(found, tested=(replace(one, p=0.01, p_alone=own),))
        shown = show.render(told, None)
        assert ("helps (pooled only)" in shown) == (own > 0.05)
        assert mark in next(x for x in shown.splitlines() if x.startswith("| b - a "))


def test_content_is_set_beside_transfer(tmp_path: Path) -> None:
    path = study_file(tmp_path / "x.parquet", better=0.8, arms="cba")
    content = {"low": ["two"]}
    plan = PLAN | {"evaluation": {"tasks": ["one"], "shots": [5], "content": content}}
    write(path, pq.read_table(path).to_pylist(), json.dumps(plan))
    found = verdict(read(path))
    (one,) = associations(found)
    assert (one.content, one.score, one.epochs) == ("low-level content", "linear top-1", 12)
    means = {(x.score, x.arm): x.found.value for x in found.arms if x.found}
    pairs = [[means[score, arm] for arm in "abc"] for score in (one.score, one.content)]
    assert one.arms == ("a", "b", "c")
    assert one.correlation == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert f"{one.correlation:+.2f}" in show.render(found, None)
    assert show.as_json(found)["content_beside_transfer"][0]["correlation"] == one.correlation


def test_arms_stand_beside_each_other_on_the_same_sets(tmp_path: Path) -> None:
    """One arm lacks a data set: it counts for none; no seed is lost over another's gap."""
    path = study_file(tmp_path / "x.parquet", better=0.3)
    rows = pq.read_table(path).to_pylist()
    write(path, [r for r in rows if (r["arm"], r["task"]) != ("b", "two")], json.dumps(PLAN))
    found = verdict(read(path))
    assert {one.tasks for one in found.arms if one.found} == {("one",)}
    # seed 2 of each arm was scored on one set, and not the same
    gap = {("a", 2, "two"), ("b", 2, "one")}
    kept = [r for r in rows if (r["arm"], r["seed"], r["task"]) not in gap]
    write(path, kept, json.dumps(PLAN))
    one = contrast_of(verdict(read(path)), "b - a")
    assert (one.trainings, one.tasks) == (2, ("one", "two"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"contrasts": [{"name": "x", "arms": {"a": 0}, "prediction": ""}]}, "add up to 0"),
        ({"contrasts": [{"name": "x", "arms": {"a": 1}, "prediction": ""}]}, "add up to 0"),
        (
            {"contrasts": [{"name": "x", "arms": {"a": 1, "z": -1}, "prediction": ""}]},
            "a contrast names 'z', which is not an arm",
        ),
        ({"budgets": [{"epochs": 12, "seeds": [0]}] * 2}, "a budget is there twice"),
        ({"budgets": [{"epochs": 12, "seeds": []}]}, "at least 1 item"),
    ],
)
def test_a_plan_that_cannot_be_tested_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    write(tmp_path / "x.parquet", [], json.dumps(PLAN | changes))
    assert reason in refusal(table.read, tmp_path / "x.parquet")


def test_an_arm_of_one_budget_is_tested_there_alone(tmp_path: Path) -> None:
    """It is not waited for at the others, and does not count in the correction."""
    path = study_file(tmp_path / "x.parquet", better=0.8)
    arms = [arm | {"epochs": [12] if arm["name"] == "b" else []} for arm in PLAN["arms"]]
    write(path, pq.read_table(path).to_pylist(), json.dumps(PLAN | {"arms": arms}))
    found = verdict(read(path))
    linear = [(t.contrast, t.epochs) for t in found.tested if t.score == "linear top-1"]
    assert linear == [("b - a", 12), ("c - a", 12), ("c - a", 50)]
    assert len(found.table.plan.checkpoints) == 3 * 3 + 2
    one = contrast_of(found, "b - a")
    assert one.found is not None
    assert one.p == pytest.approx(3 * one.found.p())


def test_two_arms_correlate_with_nothing(tmp_path: Path) -> None:
    path = study_file(tmp_path / "x.parquet", better=0.8)
    content = {"low": ["two"]}
    plan = PLAN | {"evaluation": {"tasks": ["one"], "shots": [5], "content": content}}
    write(path, pq.read_table(path).to_pylist(), json.dumps(plan))
    found = verdict(read(path))
    assert list(associations(found)) == []
    assert "Correlation over the arms" not in show.render(found, None)


def test_the_glance_marks_what_is_decided(tmp_path: Path) -> None:
    """Two stars: by the pooled spread and by its own; one training has no interval."""
    for trainings, stars, bounds in ((3, 2, 1), (1, 0, 0)):
        path = study_file(tmp_path / "x.parquet", better=0.8, trainings=trainings)
        lines = show.render(verdict(read(path)), None).splitlines()
        glance = next(line for line in lines if line.startswith("| b - a "))
        assert (glance.count("*"), glance.count("±")) == (stars, bounds)


def test_what_was_changed_is_said(tmp_path: Path) -> None:
    path = study_file(tmp_path / "x.parquet", better=0.8)
    noted = PLAN | {"notes": ["1 May:\nanother   test."]}
    write(path, pq.read_table(path).to_pylist(), json.dumps(noted))
    said = show.render(verdict(read(path)), None)
    assert said.endswith("Changed after the first run. 1 May: another test.")


def test_episodes_without_answers_are_counted_and_left_out(tmp_path: Path) -> None:
    old = answer_row(
        Checkpoint("a", 0, 12), "one", np.ones(8, bool), unit="episode", of=75, score="top1_5shot"
    )
    write(tmp_path / "x.parquet", [old], json.dumps(PLAN))
    found = read(tmp_path / "x.parquet")
    assert found.without_answers == 1
    assert "1 score left out, whose files have no single answers" in show.render(verdict(found), 99)


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    path = study_file(tmp_path / "x.parquet", better=0.8)
    ran = cli("study", path, "--out", tmp_path / "curves.svg")
    assert ran.code == 0, ran.err
    assert ran.out.strip() == show.render(verdict(read(path)), None)
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    said = cli("study", path, "--json").json
    assert said["checkpoints"] == {"scored": 6, "planned": 12}
    first = said["contrasts"][0]
    assert (first["contrast"], first["verdict"], len(first["by_training"])) == ("b - a", "helps", 3)
    low, high = first["intervals"]["images_and_trainings"]
    assert 0 < low < first["value"] < high


def test_the_curves_end_where_training_did(tmp_path: Path) -> None:
    """Budgets that are planned and not trained take no room."""
    found = verdict(read(study_file(tmp_path / "x.parquet", better=0.8)))
    drawn = figure(found)
    (axis,) = drawn.axes
    assert axis.get_xticks().tolist() == [12]
    assert [text.get_text() for text in drawn.legends[0].texts] == ["a", "b"]


def test_many_arms_are_told_apart() -> None:
    looks = [tuple(style(i).values()) for i in range(40)]
    assert len(set(looks)) == 40


def test_the_shipped_study_is_read(cli: Cli) -> None:
    """What is committed is what the command reads: the plan beside the results, nothing else."""
    shipped = Path(__file__).parents[2] / "model_cards" / "budget-projector.results.parquet"
    found = read(shipped)
    assert found.plan.name == "budget-projector"
    assert len(found.plan.checkpoints) == 92
    assert found.scored >= 4
    for by_checkpoint in found.scores.values():
        for by_task in by_checkpoint.values():
            assert set(by_task) <= {t for q in found.plan.questions for t in q.tasks}
    assert cli("study", shipped).code == 0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "is not a file; `transfer-zoo study collect`"),
        (lambda p: p.write_text("no"), "is not a Parquet file"),
        (lambda p: pq.write_table(pa.table({"arm": ["a"]}), p), "has no column 'objective'"),
        (lambda p: write(p, [], "{}"), "its plan does not hold: name: Field required"),
        (
            lambda p: write(
                p,
                [
                    answer_row(Checkpoint("a", 0, 12), "one", np.ones(8, bool), split_hash=s)
                    for s in "xy"
                ],
                json.dumps(PLAN),
            ),
            "checkpoints were scored on two splits of one",
        ),
        (
            lambda p: write(
                p, [answer_row(Checkpoint("a", 0, 12), "one", np.ones(8, bool), n=80)],
                json.dumps(PLAN),
            ),
            "1 bytes for 80 x 1 answers",
        ),
        (
            lambda p: write(
                p, [answer_row(Checkpoint("a", 0, 12), "one", np.ones(8, bool), without=[0.5])],
                json.dumps(PLAN),
            ),
            "one value of fits that leave a group out",
        ),
        (
            lambda p: write(
                p,
                [
                    answer_row(Checkpoint("a", s, 12), "one", np.ones(8, bool), rate=0.1 + s)
                    for s in range(2)
                ],
                json.dumps(PLAN),
            ),
            "checkpoints of a were trained at two rates",
        ),
        (
            lambda p: write(
                p, [answer_row(Checkpoint("a", 3, 12), "one", np.ones(8, bool))], json.dumps(PLAN)
            ),
            "its plan has no a, seed 3, 12 epochs",
        ),
    ],
)  # fmt: skip
def test_what_is_no_such_table_is_refused(make: Any, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.parquet")
    assert reason in refusal(table.read, tmp_path / "x.parquet")


def test_the_plan_s_factors_are_those_that_count() -> None:
    """A contrast of four arms, from the same sets that `combined` is given."""
    sets = Trainings(ways=4).drawn(np.random.default_rng(0))
    whole = combined(sets, np.array([1.0, -1.0, -1.0, 1.0]))
    parts = [combined(sets, np.array(f)) for f in ([1.0, -1, 0, 0], [0, 0, 1.0, -1])]
    assert whole.value == pytest.approx(parts[0].value - parts[1].value)
