"""One number under one name: every surface that shows a mean or a difference of the results that
ship shows the same."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.models.objectives import COMPARED
from eval.report.boards import block
from eval.report.pairs import compared
from eval.report.pairs import mean_difference as report_difference
from eval.results.compare import compare
from eval.results.leaderboard import as_json, tables
from eval.results.leaderboard import grid as text_grid
from space.source import Source
from space.state import Desk
from space.tables import display
from space.tables.board import build
from space.tables.comparison import compare as space_compare
from space.tables.families import families
from space.tables.matrix import Key, grid
from space.tables.objectives import differences, mean_difference, pair_tasks, shots
from space.tables.view import View
from tests.space.shelves import CARDS, FIVE, LINEAR, shipped, shipped_scores, zoo

APART = "tiny_imagenet"
RESULTS = [result for _, result in shipped()]


def naive_means(key: Key) -> dict[str, float]:
    """In plain loops, from the files: over all sets but the one that the zoo was trained on."""
    values: dict[str, list[float]] = {}
    for result in RESULTS:
        score = result.score(key.score)
        if score and result.protocol.name == key.protocol and result.task.name != APART:
            values.setdefault(result.model.id, []).append(score.value)
    counts = {len(v) for v in values.values()}
    assert len(counts) == 1
    return {model: float(np.mean(v)) for model, v in values.items()}


@pytest.mark.parametrize("key", [FIVE, LINEAR], ids=str)
def test_one_mean_everywhere(key: Key, tmp_path: Path) -> None:
    wanted = naive_means(key)
    one = grid(shipped_scores(), key)
    table = next(t for t in tables(RESULTS) if (t.protocol, t.score) == (key.protocol, key.score))
    means = table.means()
    assert means is not None
    found: dict[str, dict[str, float]] = {
        "leaderboard": {m: s.value for m, s in zip(table.models, means, strict=True)},
        "leaderboard --json": {r["model"]: r["mean"]["value"] for r in as_json(table)["rows"]},
    }
    for name, view in (("board", View()), ("board with sets apart", View(pretraining=True))):
        board = build(one, view)
        found[name] = dict(zip(board.models["model"], board.mean, strict=True))
        rows = json.loads(display.as_json(board, view))["rows"]
        found[f"{name}, JSON"] = {r["model"]: r["mean"] / 100 for r in rows}
    if key is FIVE:
        labels = list(one.models[["label", "revision"]].itertuples(index=False, name=None))
        curve = shots(one.scores, labels)
        common = set(curve[curve["shot"] == 5]["tasks"])
        assert common == {9}  # of the ten, one has too few images for 20 shots
    for surface, shown in found.items():
        assert shown == pytest.approx(wanted, abs=1.1e-6), surface  # the files have six digits
    # as text: the command line's board, and the report's
    shown_means = [f"{100 * s.value:.1f}" for s in means]
    for header, lines in (text_grid(table), _cells(block(table))):
        turned = dict(zip(header, zip(*lines, strict=True), strict=True))
        cells = turned["mean"] if "mean" in turned else next(
            line[1:] for line in lines if line[0] == "mean"
        )  # fmt: skip
        assert [cell.partition(" ")[0] for cell in cells] == shown_means


def _cells(shown: Any) -> tuple[list[str], list[list[str]]]:
    (sheet,) = shown.sheets
    return list(sheet.header), [list(line) for line in sheet.lines]


@pytest.mark.parametrize("pair", COMPARED, ids="-".join)
@pytest.mark.parametrize("key", [FIVE, LINEAR], ids=str)
def test_one_difference_everywhere(key: Key, pair: tuple[str, str]) -> None:
    a, b = map(zoo, pair)
    means = naive_means(key)
    wanted = means[a] - means[b]
    one = grid(shipped_scores(), key)
    (family,) = families(one)
    rows = [family.members[name] for name in pair]
    page = differences(one, *rows, pair_tasks(one, *rows)[0])  # the page Objectives
    match = next(m for m in space_compare(shipped_scores(), a, b).matches if m.key == key)
    cli = next(c for c in compare(a, b, RESULTS) if _is(c, key))
    found = {
        "Objectives": mean_difference(page)[0],
        "Compare": mean_difference(match.frame)[0],
        "transfer-eval compare": float(np.mean([t.difference.value for t in cli.tasks])),
        "report": report_difference(_of_report(pair, key))[0],
    }
    for surface, value in found.items():
        assert value == pytest.approx(wanted, abs=3e-6), surface
    for sentence in (match.sentence, cli.sentence):
        assert f"{100 * wanted:+.1f} points" in sentence
        assert "Apart, as no transfer" in sentence
        assert APART in sentence.partition("Apart")[2]
        assert APART not in sentence.partition("Apart")[0]
    verdicts = {t.task: {"A": "better", "B": "worse", "tie": "undecided"}[t.verdict]
                for t in cli.tasks}  # fmt: skip
    for frame in (page, match.frame):
        assert dict(zip(frame["task"], frame["verdict"], strict=True)) == verdicts


_PAIRS: list[Any] = []


def _of_report(pair: tuple[str, str], key: Key) -> Any:
    if not _PAIRS:
        _PAIRS.extend(compared(RESULTS, lambda text: None))
    held = next(p for p in _PAIRS if p.objectives == pair)
    return next(c for c in held.comparisons if _is(c, key))


def _is(comparison: Any, key: Key) -> bool:
    return (comparison.protocol, comparison.score) == (key.protocol, key.score)


def test_the_api_says_the_same(tmp_path: Path) -> None:
    source = Source(str(CARDS), tmp_path)
    source.refresh()
    desk = Desk(source, tmp_path)
    board = desk.board(View())
    assert dict(zip(board.models["model"], board.mean, strict=True)) == pytest.approx(
        naive_means(FIVE), abs=1.1e-6
    )
    assert set(board.mark) == {f"‡ trained on {APART}"}
    text = display.as_csv(board, View())
    assert re.search(r"^model,.*training_data", text)


def test_every_pair_of_models_that_ships() -> None:
    """Not the study's alone: whoever is compared, the mean difference is that of the means."""
    means = naive_means(LINEAR)
    for a, b in itertools.combinations(means, 2):
        (cli,) = [c for c in compare(a, b, RESULTS) if c.protocol == "linear"]
        gap = float(np.mean([t.difference.value for t in cli.tasks]))
        assert gap == pytest.approx(means[a] - means[b], abs=3e-6)
