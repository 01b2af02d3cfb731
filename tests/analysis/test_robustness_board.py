"""`transfer-eval leaderboard`: findings of robustness as a board, from files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from eval.analysis.finding import Finding, read_findings, write_finding
from eval.analysis.robustness_board import boards
from eval.results import board_text
from eval.results.leaderboard import Table, as_json, grid
from eval.results.store import write_result
from tests.factories import Cli, make_result

CARDS = Path(__file__).parents[2] / "model_cards"
KINDS = ["fog", "gaussian_noise"]


@pytest.fixture(scope="module")
def shipped() -> Finding:
    """On eurosat: 15 corruptions at 5 severities."""
    found = [finding for _, finding in read_findings(CARDS, "robustness")]
    return next(f for f in found if f.tasks[0].name == "eurosat")


def one_by_one(finding: Finding) -> list[Finding]:
    """The same, as if each model had been measured alone."""
    return [
        finding.model_copy(
            update={"models": [model], "values": finding.values | {"models": {name: found}}}
        )
        for model, (name, found) in zip(
            finding.models, finding.values["models"].items(), strict=True
        )
    ]


def made_up(right: Mapping[str, list[int]], **changes: Any) -> Finding:
    """Of one model: on each task how many of 4 conditions each image is answered rightly under."""
    result = make_result(changes.pop("model", "random:resnet18"))
    found: dict[str, Any] = {}
    for task, hits in right.items():
        top1 = float(np.mean(hits)) / 4
        found[task] = {
            "clean": {"top1": 0.9, "low": 0.8, "high": 0.95},
            "corrupted": {
                "top1": round(top1, 6), "low": max(top1 - 0.1, 0), "high": min(top1 + 0.1, 1),
            },
            "hits": base64.b64encode(bytes(hits)).decode(),
        }  # fmt: skip
    tasks = [
        result.task.model_copy(
            update={
                "name": task, "split_hash": f"{task}-images",
                "counts": {"classes": 2, "train": 60, "test": len(hits)},
            }
        )
        for task, hits in right.items()
    ]  # fmt: skip
    config = {"corruptions": KINDS, "severities": [1, 5], "img_size": None, "limit": None}
    return Finding(
        analysis="robustness",
        models=[result.model],
        tasks=tasks,
        config=config | changes.pop("config", {}),
        values={"models": {result.model.id: found}, "severities": [1, 5], "corruptions": KINDS},
        sentence="Made up.",
        environment=result.environment,
        seed=0,
        seconds={},
        created=changes.pop("created", "2026-01-01T00:00:00+00:00"),
    ).model_copy(update=changes)


def board_of(*findings: Finding) -> list[Table]:
    said: list[str] = []
    found = boards([(Path(f"{i}.json"), f) for i, f in enumerate(findings)], said.append)
    assert said == []
    return found


def test_clean_stands_beside_corrupted_with_the_findings_intervals(shipped: Finding) -> None:
    (table,) = board_of(shipped)
    assert table.title == "robustness, top-1 under corruptions, %"
    header, lines = grid(table)
    assert header[:3] == ["model", "eurosat* clean", "eurosat* corrupted"]
    for line, (name, tasks) in zip(lines, shipped.values["models"].items(), strict=True):
        clean, corrupted = tasks["eurosat"]["clean"], tasks["eurosat"]["corrupted"]
        assert line[:3] == [
            name,
            *(
                f"{100 * part['top1']:.1f} ±{50 * (part['high'] - part['low']):.1f}"
                for part in (clean, corrupted)
            ),
        ]
    assert "15 corruptions at 5 severities" in board_text.render([table])


def test_pairs_are_compared_on_the_same_images(shipped: Finding) -> None:
    """Against scipy's paired t-test of each image's share of right answers."""
    (table,) = board_of(shipped)
    assert table.standing is not None
    _, found = table.standing
    hits = [
        np.frombuffer(base64.b64decode(tasks["eurosat"]["hits"]), np.uint8) / 75
        for tasks in shipped.values["models"].values()
    ]
    for a in range(len(hits)):
        for b in range(a):
            gap, p = found.difference(a, b)
            told = stats.ttest_rel(hits[a], hits[b])
            interval = told.confidence_interval()
            np.testing.assert_allclose([gap.low, gap.high, p], [*interval, told.pvalue], rtol=1e-6)
    assert found.kind == "test"


def test_models_measured_one_by_one_share_the_board(shipped: Finding, tmp_path: Path) -> None:
    for finding in one_by_one(shipped):
        write_finding(tmp_path, finding)
    held = [f for _, f in read_findings(tmp_path, "robustness")]
    assert len(held) == 6
    (together,), (alone,) = board_of(shipped), board_of(*held)
    rows = {row["model"]: row for row in as_json(together)["rows"]}
    assert {row["model"]: row for row in as_json(alone)["rows"]} == rows
    assert {row["tie_group"] for row in rows.values()} == {1, 2, 3, 4}


def test_what_was_measured_otherwise_is_another_board_or_row() -> None:
    hits = {"dtd": [4, 2, 1]}
    plain = made_up(hits)
    bf16 = plain.environment.model_copy(update={"dtype": "bf16-channels_last"})
    (model,) = plain.models
    small = [model.model_copy(update={"img_size": 64})]
    found = board_of(
        plain,
        made_up(hits, config={"severities": [2]}),
        made_up(hits, config={"limit": 3}),
        made_up(hits, seed=1),
        made_up(hits, environment=bf16),
        made_up(hits, config={"img_size": 64}, models=small),
    )
    kinds = "corruptions=fog+gaussian_noise"
    assert {t.setting: len(t.models) for t in found} == {
        f"{kinds}, severities=1+5": 2,
        f"{kinds}, severities=2": 1,
        f"{kinds}, severities=1+5, limit=3": 1,
        f"{kinds}, severities=1+5, seed=1": 1,
        f"{kinds}, severities=1+5, precision=bf16": 1,
    }


def test_the_newest_of_a_model_counts() -> None:
    old = made_up({"dtd": [0, 0, 1]}, created="2026-01-01T00:00:00+00:00")
    new = made_up({"dtd": [4, 4, 1]}, created="2026-02-01T00:00:00+00:00")
    for order in ((old, new), (new, old)):
        (table,) = board_of(*order)
        assert table.cells[0, 0].value == pytest.approx(0.75)


def test_means_and_ranks_are_of_corrupted() -> None:
    first = made_up({"dtd": [4, 4, 3], "eurosat": [1, 0, 4]})
    second = made_up({"dtd": [4, 2, 3], "eurosat": [0, 0, 4]}, model="random:resnet50")
    (table,) = board_of(first, second)
    header, lines = grid(table)
    assert header[1:7] == [
        "dtd clean", "dtd corrupted", "eurosat clean", "eurosat corrupted", "mean corrupted",
        "mean rank",
    ]  # fmt: skip
    assert lines[0][5].startswith(f"{100 * (11 / 12 + 5 / 12) / 2:.1f} ±")
    assert [line[6] for line in lines] == ["1.00", "2.00"]
    (alone,) = board_of(first)  # more tasks than models: they run down the page
    assert [line[0] for line in grid(alone)[1]][:2] == ["dtd clean", "dtd corrupted"]


@pytest.mark.parametrize(
    ("part", "value", "why"),
    [
        ("hits", base64.b64encode(bytes([4, 2])).decode(), "not those of its test images"),
        ("hits", base64.b64encode(bytes([5, 1, 1])).decode(), "not those of its test images"),
        ("hits", base64.b64encode(bytes([4, 2, 4])).decode(), "not those of its top-1"),
        ("hits", "", "not those of its test images"),
        ("hits", "no base64", "base64"),
        ("corrupted", {"top1": float("nan"), "low": 0.1, "high": 0.9}, "no share"),
        ("corrupted", {"top1": 7 / 12, "low": 0.9, "high": 0.6}, "no share"),
        ("clean", {"top1": 1.5, "low": 0.6, "high": 2.0}, "no share"),
        ("clean", None, "NoneType"),
    ],
)
def test_a_finding_that_contradicts_itself_is_named_and_left_out(
    part: str, value: object, why: str
) -> None:
    forged, sound = made_up({"dtd": [4, 2, 1]}), made_up({"dtd": [4, 4, 1]}, model="random:a")
    forged.values["models"]["random:resnet18"]["dtd"][part] = value
    said: list[str] = []
    (table,) = boards([(Path("forged.json"), forged), (Path("b.json"), sound)], said.append)
    assert table.models == ("random:a",)
    (line,) = said
    assert line.startswith("skipped forged.json: ")
    assert why in line


@pytest.mark.parametrize("part", ["severities", "corruptions", "models"])
def test_a_finding_of_another_form_is_named(part: str) -> None:
    for value in ([], None, 3):
        odd = made_up({"dtd": [4, 2, 1]})
        odd = odd.model_copy(update={"values": odd.values | {part: value}})
        said: list[str] = []
        assert boards([(Path("odd.json"), odd)], said.append) == []
        assert len(said) == 1


def test_the_command_shows_findings_behind_results(cli: Cli, tmp_path: Path) -> None:
    write_finding(tmp_path, made_up({"dtd": [4, 2, 1]}))
    place = ["--results", str(tmp_path), "--json"]
    assert [t["protocol"] for t in cli("leaderboard", *place).json] == ["robustness"]
    write_result(tmp_path / "m" / "r" / "dtd.linear.json", make_result())
    assert [t["protocol"] for t in cli("leaderboard", *place).json] == ["linear", "robustness"]
    for wanted in ("linear", "robustness"):
        (table,) = cli("leaderboard", *place, "--protocol", wanted).json
        assert table["protocol"] == wanted
    (cell,) = (row["cells"]["dtd"] for row in table["rows"])
    assert cell["value"] == pytest.approx(7 / 12, abs=1e-6)
    assert cell["clean"]["value"] == 0.9
    text = cli("leaderboard", "--results", str(tmp_path)).out
    assert "2 corruptions at 2 severities" in text
    assert "90.0 ±7.5" in text


def test_nothing_is_still_said(cli: Cli, tmp_path: Path) -> None:
    write_result(tmp_path / "m" / "r" / "dtd.linear.json", make_result())
    ran = cli("leaderboard", "--results", str(tmp_path), "--protocol", "robustness")
    assert (ran.code, ran.out) == (2, "")
    assert "no results in" in ran.err


def test_rows_say_that_their_author_computed_them_where_others_do() -> None:
    (table,) = boards([(Path("a"), made_up({"dtd": [4, 2]}))], print, marked=True)
    header, (line,) = grid(table)
    assert dict(zip(header, line, strict=True))["computed"] == "self-reported"
