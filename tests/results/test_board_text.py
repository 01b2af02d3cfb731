"""Boards on screens of any width: the committed results of the zoo, and names nobody planned."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest

from eval.common.fitted_table import fitted_table, legend, wrapped
from eval.results import board_text, leaderboard
from eval.results.facts import objective_named
from eval.results.leaderboard import Table
from eval.results.model_names import distinct_names
from eval.results.store import read_result
from tests.factories import Cli, made_up_facts, make_result

CARDS = Path(__file__).parents[2] / "model_cards"
WIDTHS = (40, 60, 80, 120, 200, 300)
SHORT = {
    "ce": "CE",
    "ce-strong": "CE (strong aug)",
    "selfsupcon": "SelfSupCon",
    "supcon": "SupCon",
    "ce_selfsupcon": "CE+SelfSupCon",
    "supcon_selfsupcon": "SupCon+SelfSupCon",
}
IDS = {f"zoo:resnet18_narrow.{slug}_tin100": name for slug, name in SHORT.items()}
NUMBERS = re.compile(r"\d+\.\d ±\d+\.\d|(?<= )\d\.\d\d(?= |$)", re.MULTILINE)  # scores and ranks


@pytest.fixture(scope="module")
def boards() -> list[Table]:
    """Six models on every task of the study that the zoo was scored on."""
    results = [read_result(path) for path in sorted(CARDS.glob("*/results/*.json"))]
    found = leaderboard.tables(results)
    assert {len(t.models) for t in found} == {6}
    assert max(len(t.tasks) for t in found) >= 10
    return found


def tables_of(text: str) -> str:
    """What stands before the notes, which begin with what the intervals are."""
    return text.partition("\n±")[0]


def numbers(text: str) -> Counter[str]:
    return Counter(NUMBERS.findall(text))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_on_a_screen_of_any_width(boards: list[Table], width: int) -> None:
    wide = board_text.render(boards)
    text = board_text.render(boards, width=width)
    assert max(map(len, wide.splitlines())) > 200
    whole = {line for line in text.splitlines() if line.strip() in IDS}  # an id stays in one piece
    assert max(len(line) for line in text.splitlines() if line not in whole) <= width
    assert numbers(tables_of(text)) == numbers(tables_of(wide))
    assert sum(numbers(wide).values()) > 200
    if width == 300:
        assert text == wide
        return
    for i, name in IDS.items():
        named = f"^{re.escape(name)}(\n  | +){re.escape(i)}$"
        assert len(re.findall(named, text, re.MULTILINE)) == 1  # one legend for all boards
    # each block repeats its first column: all rows begin with a task or a model
    lines = tables_of(text).splitlines()
    first = {line.split("  ")[0] for line in lines if NUMBERS.search(line)}
    tasks = {
        b.tasks[c] + "*" * b.subsets[c] + "‡" * (c in b.apart) for b in boards
        for c in range(len(b.tasks))
    }  # fmt: skip
    rows = tasks | set(IDS.values()) | {"mean", "mean rank"}
    assert first <= rows


def test_a_board_that_fits_is_left_alone(boards: list[Table]) -> None:
    assert board_text.render(boards, width=400) == board_text.render(boards)
    (table,) = leaderboard.tables([make_result("a", "x"), make_result("b", "x", top1=0.6)])
    assert tables_of(board_text.render([table], width=100)) == tables_of(board_text.render([table]))


def test_markdown_is_not_fitted(boards: list[Table]) -> None:
    markdown = board_text.render(boards, markdown=True)
    assert board_text.render(boards, markdown=True, width=60) == markdown
    assert "| zoo:resnet18_narrow.ce_tin100 |" in markdown


def test_the_board_as_the_readme_shows_it() -> None:
    """With the floor, at 64 pixels: nothing but the legend says it again."""
    models = ["random:resnet18", *IDS]
    results = [
        make_result(m, t, top1=0.5 + i / 40)
        for i, m in enumerate(models)
        for t in ("dtd", "digits", "hue")
    ]
    results = [
        r.model_copy(update={"model": r.model.model_copy(update={"img_size": 64})}) for r in results
    ]
    lines = board_text.render(leaderboard.tables(results), width=80).splitlines()
    assert lines[:5] == [
        "linear, top-1, %",
        "model                      dtd      digits         hue       mean  mean rank",
        "------------------  ----------  ----------  ----------  ---------  ---------",
        "untrained resnet18  50.0 ±10.0  50.0 ±10.0  50.0 ±10.0  50.0 ±9.0       7.00",
        "CE                  52.5 ±10.0  52.5 ±10.0  52.5 ±10.0  52.5 ±9.0       6.00",
    ]
    assert "SupCon+SelfSupCon   zoo:resnet18_narrow.supcon_selfsupcon_tin100 @64px" in lines
    assert "untrained resnet18  random:resnet18 @64px" in lines


def test_models_become_rows_where_that_is_narrower() -> None:
    """Four tasks of three models: tasks run down the page, but the models' names are long."""
    kinds = ("in1k", "in21k", "lvd142m")
    names = [f"hf-hub:organisation/some_rather_long_architecture.{k}" for k in kinds]
    results = [make_result(m, t) for m in names for t in ("dtd", "hue", "count", "svhn")]
    short = [f"...{n[-41:]}" for n in names]
    text = board_text.render(leaderboard.tables(results), width=147)
    assert text.splitlines()[1].split() == ["task", *short]
    lines = board_text.render(leaderboard.tables(results), width=146).splitlines()
    columns = "model dtd hue count svhn mean mean rank tie group place"
    assert lines[1].split() == columns.split()
    assert [line.split()[0] for line in lines[3:6]] == short


def test_blocks_are_the_last_resort_and_take_every_column_in_order() -> None:
    header = ["model", *(f"task{i:02}" for i in range(12))]
    lines = [[f"model{r}", *(f"{r}{c}.0 ±1.0" for c in range(12))] for r in range(12)]
    text = fitted_table(header, lines, 60, "task")
    blocks = text.split("\n\n")
    assert len(blocks) == 3
    heads = [block.splitlines()[0].split() for block in blocks]
    assert [h[0] for h in heads] == ["model"] * 3
    assert [name for h in heads for name in h[1:]] == header[1:]
    assert {len(block.splitlines()) for block in blocks} == {14}
    assert max(map(len, text.splitlines())) <= 60


def test_long_names_of_tasks_make_room() -> None:
    tasks = [f"hub:some-organisation/a-data-set-of-{k}" for k in ("beetles", "mushrooms")]
    results = [make_result(m, t) for m in IDS for t in tasks]
    text = board_text.render(leaderboard.tables(results), width=60)
    short = f"...{tasks[0][-25:]}"
    assert f"{short}\n  {tasks[0]}" in text
    for line in text.splitlines():
        assert len(line) <= 60
    assert len(re.findall(r"\d ±", tables_of(text))) == 6 * 3


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (list(IDS), list(IDS.values())),
        # two of one objective keep their names, without the prefix
        (
            ["zoo:a.ce_x", "zoo:b.ce_x", "zoo:a.supcon_x"],
            ["a.ce_x", "b.ce_x", "SupCon"],
        ),
        # a size that tells models apart is kept
        (["random:vit @64px", "random:vit"], ["untrained vit @64px", "untrained vit"]),
        (["zoo:a.ce_x @64px", "zoo:a.supcon_x @64px"], ["CE", "SupCon"]),
        # ends that are alike are counted
        (
            ["hf-hub:first/resnet50d.ra2_in1k", "hf-hub:second/resnet50d.ra2_in1k", "timm:b"],
            ["...0d.ra2_in1k (1)", "...0d.ra2_in1k (2)", "b"],
        ),
        (["local-dir:m", "zoo:m"], ["m (1)", "m (2)"]),
    ],
)
def test_distinct_names(labels: list[str], names: list[str]) -> None:
    """By the objectives that are declared; what ships is known by name."""
    declared = [
        objective_named(label) or made_up_facts(label).get("objective", "") for label in labels
    ]
    assert distinct_names(labels, 19, declared) == dict(zip(labels, names, strict=True))
    if labels == list(IDS):
        assert distinct_names(labels, 19) == dict(zip(labels, names, strict=True))


def test_a_legend_and_a_note_that_are_too_long_for_a_line() -> None:
    names = {"zoo:resnet18_narrow.ce_tin100": "CE", "zoo:b": "SupCon"}
    assert legend(names, 40) == "CE      zoo:resnet18_narrow.ce_tin100\nSupCon  zoo:b"
    assert legend(names, 30) == "CE\n  zoo:resnet18_narrow.ce_tin100\nSupCon\n  zoo:b"
    note = "- dtd: see /a/long-path/of-some-sort for more"
    assert wrapped(note, 20, "  ").splitlines() == [
        "- dtd: see", "  /a/long-path/of-some-sort", "  for more",
    ]  # fmt: skip


def test_columns_fits_a_pipe_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("leaderboard", "--results", CARDS, "--protocol", "linear")
    monkeypatch.delenv("COLUMNS", raising=False)
    piped = cli(*arguments).out
    assert piped.startswith("linear, top-1, %")
    assert "| zoo:resnet18_narrow.ce_tin100 |" in piped
    for nothing in ("0", "wide"):
        monkeypatch.setenv("COLUMNS", nothing)
        assert cli(*arguments).out == piped
    monkeypatch.setenv("COLUMNS", "80")
    fitted = cli(*arguments).out
    assert max(map(len, fitted.splitlines())) <= 80
    assert numbers(fitted) == numbers(piped.replace("|", " "))


def test_a_terminal_is_asked_for_its_width(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, with a pseudo-terminal of 60 characters for stdout."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 60))
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "eval", "leaderboard", "--results", CARDS, "--protocol", "linear"],
        stdout=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # what a pseudo-terminal raises when the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    lines = said.decode().replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) <= 60
    assert "SupCon+SelfSupCon" in lines
    assert len([line for line in lines if line.startswith("mean rank")]) >= 2
