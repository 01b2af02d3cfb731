"""A study's plan and its queue: refused, ordered, carried out, killed and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.common.files import sha256_file
from eval.results.store import read_result
from tests.factories import refusal
from tests.run.scored import files
from tests.zoo.study.made import TREE, pictures, weights, written
from zoo.checkpoint import read_checkpoint
from zoo.study.cells import Training, Trial, cells, chosen_rate, status
from zoo.study.collect import collect
from zoo.study.plan import Plan, load_plan, plan_names
from zoo.study.progress import Progress, progress
from zoo.study.restore import restore
from zoo.study.runner import rescore
from zoo.study.ship import ship

MODEL_CARDS = Path(__file__).parents[3] / "model_cards"


def check_progress(cut: Progress, whole: Progress) -> None:
    """Of a finished study, killed or not: all of it once, though branches share their runs."""
    for one in (cut, whole):
        assert (one.done, one.cells, one.failed) == (10, 10, ())
        # 4 tuning runs; 2 arms to 2 epochs and to 1, a branch of 1 from 0.6 on, in whole steps
        assert one.planned == pytest.approx(4 * 1 + 2 * (2 + 0.4 + 1))
        assert one.epochs == pytest.approx(one.planned, rel=0.02)
        assert one.images == whole.images
        assert one.hours > 0
        assert one.hours_left == pytest.approx(0, abs=0.01)
        assert str(one).startswith("10 of 10 done, 0 failures. Trained 10.7 of 10.8 epochs in 0.0 ")


def started(plan: Path, data: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "zoo", "study", "run", "--plan", str(plan), "--data", str(data),
            "--out", str(out), "--cache", str(data / "cache"), "--device", "cpu",
        ],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


# ---------------------------------------------------------------- the plan


def test_the_shipped_plan_is_whole() -> None:
    assert plan_names() == ["budget-projector"]
    plan = load_plan("budget-projector")
    arm = plan.arms[0]
    assert plan.budgets_of(arm, 0) == (12, 25, 50, 100)
    assert plan.budgets_of(arm, 1) == plan.budgets_of(arm, 2) == (12, 25, 50)
    for contrast in plan.contrasts:
        assert contrast.prediction
    for arm in plan.arms:  # all differ in the objective and its rate alone
        if arm.epochs:
            continue
        recipe = plan.training(arm, 1, 0.5)
        assert recipe.learning_rate(arm.parsed) == 0.25
        assert (recipe.train.epochs, recipe.train.branches) == (50, (12, 25))
        assert plan.trial(arm, 0.5).train.seed == 1000


def test_the_most_telling_work_comes_first() -> None:
    plan = load_plan("budget-projector")
    order = list(cells(plan))
    waves = (
        ["ce-strong", "ce-mlp", "ce-selfsupcon", "ce-mlp-selfsupcon"],
        ["ce", "selfsupcon"],
        ["supcon", "supcon-selfsupcon"],
    )
    # at 12 epochs alone, at a rate that is not tuned
    checks = (
        ["ce-mlp-rate-0.3", "ce-strong-rate-0.1", "ce-selfsupcon-rate-0.1"], [],
        ["supcon-rate-0.1"],
    )  # fmt: skip
    expected: list[tuple[str, float | int, int]] = []
    # One seed decides nothing: 100 epochs, which have one, wait for all that has three.
    for epochs, seeds in ((12, (0, 1, 2)), (25, (0, 1, 2)), (50, (0, 1, 2)), (100, (0,))):
        for arms, more in zip(waves, checks, strict=True):
            if epochs == 12:  # rates are tuned before they are needed
                expected += [(name, rate, 0) for name in arms for rate in plan.tuning.rates]
            names = [*arms, *more] if epochs == 12 else arms
            expected += [(name, seed, epochs) for seed in seeds for name in names]
    assert [
        (c.arm.name, c.rate, 0) if isinstance(c, Trial) else (c.arm.name, c.seed, c.epochs)
        for c in order
    ] == expected
    (arm,) = (arm for arm in plan.arms if arm.name == checks[0][0])
    assert plan.budgets_of(arm, 0) == (12,)
    assert all(c.last for c in order if isinstance(c, Training) and c.arm == arm)
    recipe = plan.training(arm, 0, 0.3)
    assert (recipe.train.epochs, recipe.train.branches) == (12, ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "No Name"}, "name: String should match"),
        ({"sorcery": 1}, "sorcery: Extra inputs"),
        ({"budgets": [{"epochs": 2, "seeds": [0]}, {"epochs": 1, "seeds": [0]}]}, "[2, 1] must"),
        ({"arms": [TREE["arms"][0]] * 2, "contrasts": []}, "an arm is named twice"),
        ({"arms": [{"name": "a", "objective": "sorcery"}]}, "'late'"),
        (
            {"arms": [{"name": "a", "objective": "cee"}], "contrasts": []},
            "unknown objective 'cee'; did you mean 'ce'",
        ),
        (
            {"contrasts": [{"name": "x", "arms": {"a": 1, "late": 1}, "prediction": ""}]},
            "must add up to 0",
        ),
        (
            {"contrasts": [{"name": "x", "arms": {"a": 1, "latte": -1}, "prediction": ""}]},
            "'latte'; did you mean 'late'",
        ),
        ({"tuning": {"rates": [0.1], "epochs": 1, "seed": 1}}, "the seed of a run that counts"),
        (
            {"arms": [{"name": "a", "objective": "ce", "epochs": [7]}], "contrasts": []},
            "arm 'a' has epochs [7]; budgets are [1, 2]",
        ),
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert reason in refusal(load_plan, str(written(tmp_path, **changes)))


def test_a_plan_that_does_not_exist_is_told_a_near_one() -> None:
    assert "did you mean 'budget-projector'" in refusal(load_plan, "budget-projectr")


# ---------------------------------------------------------------- the queue


@pytest.mark.slow
def test_a_killed_study_ends_in_the_same_weights(tmp_path: Path) -> None:
    """Two processes side by side, killed in the middle, and one that ends it; against one alone."""
    plan, data = written(tmp_path), pictures(tmp_path / "data")
    whole = started(plan, data, tmp_path / "whole")
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    assert "CE-MLP: epoch 2 of 2: validation kNN" in said  # progress where there is no terminal

    pair = [started(plan, data, tmp_path / "cut") for _ in range(2)]
    end = time.monotonic() + 120
    while time.monotonic() < end and len(weights(tmp_path / "cut")) < 3:
        time.sleep(0.05)
    for process in pair:
        process.kill()
        process.communicate()
    assert 3 <= len(weights(tmp_path / "cut")) < len(weights(tmp_path / "whole"))
    rest = started(plan, data, tmp_path / "cut")
    out, said = rest.communicate(timeout=300)
    assert rest.returncode == 0, said
    assert out == f"all of toy is done. Results: {tmp_path / 'cut' / 'results'}\n"

    expected = weights(tmp_path / "whole")
    assert expected == weights(tmp_path / "cut")
    assert sorted(expected) == [
        "runs/a/seed-0", "runs/a/seed-0/epochs-1", "runs/a/seed-1",
        "runs/late/seed-0", "runs/late/seed-0/epochs-1", "runs/late/seed-1",
        "tuning/a/rate-0.1", "tuning/a/rate-0.3", "tuning/late/rate-0.1", "tuning/late/rate-0.3",
    ]  # fmt: skip
    loaded = load_plan(str(plan))
    assert {row["state"] for row in status(loaded, tmp_path / "cut")} == {"done"}
    check_progress(progress(loaded, tmp_path / "cut"), progress(loaded, tmp_path / "whole"))
    for arm in loaded.arms:
        rate = chosen_rate(loaded, tmp_path / "cut", arm)
        assert rate in loaded.tuning.rates
        scored = json.loads(
            (tmp_path / "cut" / "runs" / arm.name / "seed-1" / "scored.json").read_text()
        )
        assert (scored["arm"], scored["seed"], scored["epochs"]) == (arm.name, 1, 1)
        assert scored["failures"] == []
        assert len(scored["results"]) == 3  # linear, few-shot, and linear on what explains
        assert all((tmp_path / "cut" / path).is_file() for path in scored["results"])
    check_collected(loaded, tmp_path / "cut", tmp_path / "found")
    check_rescored(plan, data, tmp_path / "cut")
    check_restored(plan, data, tmp_path / "found", tmp_path / "restored")
    check_not_taken_for_longer(data, tmp_path / "cut")
    check_shipped(plan, tmp_path / "cut", tmp_path / "shipped")


def check_rescored(plan: Path, data: Path, out: Path) -> None:
    """A few-shot result of an earlier version, which had counts alone, and a task that was not
    scored: both are made, the old file is kept, nothing else is touched."""
    before = files(out / "results")
    note = out / "runs" / "a" / "seed-0" / "scored.json"
    facts = json.loads(note.read_bytes())
    few_shot, hue = (
        next(p for p in facts["results"] if word in p) for word in ("fewshot", "hue")
    )  # fmt: skip
    old = json.loads((out / few_shot).read_bytes())
    answers = read_result(out / few_shot).samples["top1_1shot"].answers()
    old["samples"]["top1_1shot"]["correct"] = answers.sum(1).tolist()
    (out / few_shot).write_text(json.dumps(old))
    (out / hue).unlink()
    facts["results"].remove(hue)
    note.write_text(json.dumps(facts))
    command = [
        sys.executable, "-m", "zoo", "study", "rescore", "--plan", str(plan), "--data", str(data),
        "--out", str(out), "--cache", str(data / "cache"), "--device", "cpu",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"1 checkpoint scored again, 0 left: {out / 'results'}\n"
    assert "1 results are outdated, 1 missing" in ran.stderr
    assert files(out / "results") == before
    kept = [p for p in (out / "earlier-results").rglob("*") if p.is_file()]
    assert [json.loads(p.read_bytes()) for p in kept] == [old]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.stdout.startswith("0 checkpoints scored again")


def check_restored(plan: Path, data: Path, found: Path, out: Path) -> None:
    """A folder made of the tables alone: nothing is left to train, and it gives them again. One
    budget more is planned, longer than a run's last one: the run begins anew, and its checkpoint
    that is known has a place of its own now; the others stay as they are."""
    loaded = load_plan(str(plan))
    assert restore(loaded, found, out) == (6, 4)
    ran = started(plan, data, out)
    said, _ = ran.communicate(timeout=300)
    assert said == f"all of toy is done. Results: {out / 'results'}\n"
    assert weights(out) == {}
    assert collect(loaded, out, out / "to") == (6, 6)
    assert tables(found) == tables(out / "to")
    one = progress(loaded, out)
    assert (one.done, one.cells, one.hours_left) == (10, 10, pytest.approx(0, abs=0.01))

    longer = longer_plan(out)
    assert restore(load_plan(str(longer)), found, out) == (2, 0)
    ran = started(longer, data, out)
    _, said = ran.communicate(timeout=300)
    assert ran.returncode == 0, said
    assert collect(load_plan(str(longer)), out, out / "to") == (8, 8)
    results, log = tables(out / "to")
    assert sorted(map(repr, (r for r in results if r["epochs"] < 3))) == sorted(
        map(repr, tables(found)[0])
    )
    # Begun anew, and branched off where it was: the tables have the longer log.
    run = [r for r in log if (r["arm"], r["kind"], r["seed"]) == ("a", "run", 1)]
    assert json.loads(run[-1]["line"])["epoch"] == 3
    assert {r["epochs"] for r in run} == {3}


def longer_plan(folder: Path) -> Path:
    return written(folder, budgets=[*TREE["budgets"], {"epochs": 3, "seeds": [1]}])


def check_not_taken_for_longer(data: Path, out: Path) -> None:
    """A run that ended, where a longer one of a changed plan would lie: told, not taken for it."""
    before = files(out)
    longer = longer_plan(data)
    rows = status(load_plan(str(longer)), out)
    waiting = {row["work"] for row in rows if row["state"] != "done"}
    assert waiting == {f"{arm}, seed 1, {n} epochs" for arm in ("a", "late") for n in (1, 3)}
    ran = started(longer, data, out)
    _, said = ran.communicate(timeout=300)
    assert ran.returncode == 2, said
    assert f"{out / 'runs' / 'a' / 'seed-1'} holds a run of another recipe: recipe.train" in said
    assert files(out) == before


def check_shipped(plan: Path, out: Path, to: Path) -> None:
    """Of both budgets of seed 0 the one that its own log ends best; as a checkpoint's folder is,
    and never over another."""
    expected = {}
    for arm, name in (("a", "ce-mlp"), ("late", "selfsupcon")):
        folders = (out / "runs" / arm / "seed-0" / part for part in ("epochs-1", ""))
        # Of equals the first, which is the shorter.
        expected[f"resnet18_narrow.{name}_tin100"] = max(folders, key=last_knn)
    command = [sys.executable, "-m", "zoo", "study", "ship", "--plan", str(plan)]
    command += ["--out", str(out), "--to", str(to)]
    for _ in range(2):  # again: nothing else
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert f"2 checkpoints, 0.1 MB of weights: {to}" in ran.stdout
        assert {path.name for path in to.iterdir()} == set(expected)
    for name, source in expected.items():
        held = {path.name: path.read_bytes() for path in (to / name).iterdir()}
        assert held == {file: (source / file).read_bytes() for file in held}
        assert read_checkpoint(to / name).weights_sha256 == sha256_file(
            source / "model.safetensors"
        )
        epochs = "1" if source.name == "epochs-1" else "2"
        assert [epochs, f"{last_knn(source):.1f}"] in [
            [cell.strip() for cell in line.split("|")[3:5]]
            for line in ran.stdout.splitlines() if name in line
        ]  # fmt: skip
    (to / name / "model.safetensors").write_bytes(b"of somebody else")
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{to / name} holds other weights; move it away" in ran.stderr
    assert {path: path.read_bytes() for path in to.rglob("*") if path.is_file()} == before


def last_knn(folder: Path) -> float:
    """%, of a run's log."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["knn_top1"] for line in lines if "knn_top1" in line][-1]


def tables(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    results, log = (
        pq.read_table(path).to_pylist()
        for path in (next(folder.glob("*.results.parquet")), next(folder.glob("*.log.parquet")))
    )
    return results, log


def check_collected(plan: Plan, out: Path, to: Path) -> None:
    """Both tables hold all that the files say, samples and every line of every log."""
    assert collect(plan, out, to) == (6, 6)
    rows = pq.read_table(to / "toy.results.parquet").to_pylist()
    assert len(rows) == 18
    for row in rows:
        cell = next(
            c
            for c in cells(plan)
            if isinstance(c, Training)
            and (c.arm.name, c.seed, c.epochs) == (row["arm"], row["seed"], row["epochs"])
        )
        assert (
            row["weights_sha256"]
            == read_result(
                out / json.loads((cell.folder(out) / "scored.json").read_text())["results"][0]
            ).model.weights_sha256
        )
        raw = np.frombuffer(row["samples"], np.uint8)
        values = np.unpackbits(raw, count=row["n"] * (row["of"] if row["unit"] == "episode" else 1))
        assert values.mean() == pytest.approx(row["value"], abs=1e-6)
    lines = pq.read_table(to / "toy.log.parquet").to_pylist()
    folders = [*out.glob("tuning/*/*"), *out.glob("runs/*/*")]
    expected = [line for f in folders for line in (f / "log.jsonl").read_text().splitlines()]
    assert sorted(r["line"] for r in lines if r["kind"] != "budget") == sorted(expected)
    ends = [json.loads(r["line"]) for r in lines if r["kind"] == "budget"]
    assert {line["epoch"] for line in ends if "knn_top1" in line} == {1}


@pytest.mark.slow
def test_a_rate_that_diverges_is_noted_and_not_chosen(tmp_path: Path) -> None:
    plan = written(
        tmp_path,
        tuning={"rates": [0.1, 1e30], "epochs": 1, "seed": 99},
        arms=TREE["arms"][:1],
        contrasts=[],
        budgets=[{"epochs": 1, "seeds": [0]}],
    )
    ran = started(plan, pictures(tmp_path / "data"), tmp_path / "out")
    _, said = ran.communicate(timeout=300)
    assert ran.returncode == 0, said
    assert "a, tuning at rate 1e+30: failed: the loss is not a number" in said
    loaded = load_plan(str(plan))
    assert [row["state"] for row in status(loaded, tmp_path / "out")] == ["done", "failed", "done"]
    assert chosen_rate(loaded, tmp_path / "out", loaded.arms[0]) == 0.1
    (failure,) = progress(loaded, tmp_path / "out").failed
    assert failure.startswith("a, tuning at rate 1e+30: the loss is not a number")
    assert failure in str(progress(loaded, tmp_path / "out"))


# ---------------------------------------------------------------- a folder that was lost


def test_the_shipped_tables_make_a_folder_that_gives_them_again(tmp_path: Path) -> None:
    plan = load_plan("budget-projector")
    known = tables(MODEL_CARDS)
    checkpoints = {(r["arm"], r["seed"], r["epochs"]) for r in known[0]}
    tuned = {
        (r["arm"], r["rate"]) for r in known[1]
        if r["kind"] == "tuning" and json.loads(r["line"]).items() >= {"epoch": 3}.items()
        and "knn_top1" in r["line"]  # it ended: one that was under way is begun again
    }  # fmt: skip
    assert restore(plan, MODEL_CARDS, tmp_path) == (len(checkpoints), len(tuned))
    assert restore(plan, MODEL_CARDS, tmp_path) == (0, 0)
    assert collect(plan, tmp_path, tmp_path / "to")[0] == len(checkpoints)
    again = tables(tmp_path / "to")
    for before, after in zip(known, again, strict=True):
        assert sorted(map(repr, before)) == sorted(map(repr, after))
    for arm in plan.arms:  # as it was chosen
        rates = {r["rate"] for r in known[0] if r["arm"] == arm.name}
        if rates:
            assert rates == {chosen_rate(plan, tmp_path, arm)}
    far = progress(plan, tmp_path)
    assert far.done == len(checkpoints) + len(tuned)
    assert far.images == pytest.approx(far.epochs * 30_000, rel=0.01)


def test_a_checkpoint_without_weights_is_not_scored_again(tmp_path: Path) -> None:
    plan = load_plan("budget-projector")
    restore(plan, MODEL_CARDS, tmp_path)
    before = files(tmp_path)
    said: list[str] = []
    assert rescore(plan, tmp_path, tmp_path, tmp_path, "cpu", said.append) == (0, 0)
    assert files(tmp_path) == before
    assert "ce-mlp, seed 2, 25 epochs: known from the tables alone" in " ".join(said)


def test_without_weights_nothing_ships(tmp_path: Path) -> None:
    plan = load_plan("budget-projector")
    restore(plan, MODEL_CARDS, tmp_path / "out")
    assert "has no weights of seed 0" in refusal(ship, plan, tmp_path / "out", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_what_was_collected_is_not_lost(tmp_path: Path) -> None:
    """By collecting from a new folder over the tables of another."""
    plan = load_plan("budget-projector")
    restore(plan, MODEL_CARDS, tmp_path / "old")
    count, _ = collect(plan, tmp_path / "old", tmp_path)
    before = files(tmp_path)
    said = refusal(collect, plan, tmp_path / "new", tmp_path)
    assert f"holds {count} checkpoints that {tmp_path / 'new'} does not, such as " in said
    assert said.endswith("`transfer-zoo study restore` them first, or give another --to")
    assert files(tmp_path) == before
    assert restore(plan, tmp_path, tmp_path / "new")[0] == count
    assert collect(plan, tmp_path / "new", tmp_path)[0] == count


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "toy.results.parquet' is not a file; `transfer-zoo study collect` writes it"),
        ({"settings": ["train.batch_size=8"]}, "is of a plan with another 'settings'"),
        ({"evaluation": {"tasks": ["digits"], "shots": [5]}}, "with another 'evaluation'"),
        (
            {"arms": [{**TREE["arms"][0], "rate": 0.2}, TREE["arms"][1]]},
            "has another arm 'a' than the plan",
        ),
    ],
)
def test_tables_of_another_plan_are_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    plan = load_plan(str(written(tmp_path)))
    collect(plan, tmp_path / "out", tmp_path)
    if not changes:
        (tmp_path / "toy.results.parquet").unlink()
    other = load_plan(str(written(tmp_path, **changes)))
    assert reason in refusal(restore, other, tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tables_of_a_plan_that_was_probed_and_saved_at_other_times(tmp_path: Path) -> None:
    plan = load_plan(str(written(tmp_path)))
    collect(plan, tmp_path / "out", tmp_path)
    seldom = [*TREE["settings"], "probe.every_epochs=7", "save.every_minutes=5"]
    other = load_plan(str(written(tmp_path, settings=seldom)))
    assert other.settings != plan.settings
    assert restore(other, tmp_path, tmp_path / "new") == (0, 0)
    assert (tmp_path / "new" / "restored" / "toy.results.parquet").is_file()


def test_what_holds_no_plan_is_refused(tmp_path: Path) -> None:
    plan = load_plan(str(written(tmp_path)))
    collect(plan, tmp_path / "out", tmp_path)
    (tmp_path / "toy.results.parquet").write_bytes(b"no table")
    assert "holds no plan of a study" in refusal(restore, plan, tmp_path, tmp_path / "new")


def test_a_failed_tuning_run_is_restored_as_failed(tmp_path: Path) -> None:
    plan = load_plan(str(written(tmp_path)))
    trial = Trial(plan.arms[0], 0.3)
    trial.folder(tmp_path / "out").mkdir(parents=True)
    (trial.folder(tmp_path / "out") / "failed.json").write_text('{"error": "no number"}')
    collect(plan, tmp_path / "out", tmp_path)
    assert restore(plan, tmp_path, tmp_path / "new") == (0, 1)
    assert trial.failed(tmp_path / "new")
    (reason,) = progress(plan, tmp_path / "new").failed
    assert reason == "a, tuning at rate 0.3: no number"
    collect(plan, tmp_path / "new", tmp_path / "to")
    assert tables(tmp_path / "to") == tables(tmp_path)


def test_a_study_that_has_not_begun(tmp_path: Path) -> None:
    plan = load_plan("budget-projector")
    said = progress(plan, tmp_path)
    assert (said.done, said.cells, said.epochs, said.hours_left) == (0, 116, 0, None)
    # 24 tuning runs of 3 epochs; a run of 100 epochs and two of 50 an arm, with their branches
    # each; and twelve of 12 that check rates
    arm = 100 + 2 * 50 + 0.1 * (87 + 2 * 37)
    assert said.planned == pytest.approx(24 * 3 + 8 * arm + 12 * 12)
    assert str(said) == "0 of 116 done, 0 failures."


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_in_a_new_folder_says_what_is_known(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.__main__ import main

    monkeypatch.setattr("zoo.study.runner.run", lambda *args: None)
    if begun:
        restore(load_plan("budget-projector"), MODEL_CARDS, tmp_path)
    command = ["study", "run", "--plan", "budget-projector", "--data", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path), "--from", str(MODEL_CARDS)]) == 0
    said = capsys.readouterr().err
    assert ("`transfer-zoo study restore` would take them as done" in said) is not begun


@pytest.mark.parametrize("data", [[], ["--data", "nowhere"]])
def test_a_run_needs_its_data(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.__main__ import main

    code = main(["study", "run", "--plan", "budget-projector", "--out", str(tmp_path), *data])
    assert code == 2
    assert "is not a directory; study run needs one" in capsys.readouterr().err
