"""Boards of pixels, of several labels and of retrieval: results as the evaluator writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.metrics.estimates import KINDS
from eval.results.schema import Result
from eval.results.store import read_result
from space.pages.board_html import board_html
from space.tables import display
from space.tables.board import build
from space.tables.matrix import Key, grid, keys
from space.tables.view import View
from tests.data.masks import pictures
from tests.factories import Cli, blobs
from tests.space.shelves import scored

MODELS = ("random:test_resnet", "random:test_vit")
TITLES = {
    "Retrieval, mAP", "Retrieval, R@1", "Several labels, linear, mAP",
    "Several labels, linear, AUROC", "Segmentation, linear, mIoU (epochs=2, cells=8)",
    "Segmentation, nearest places, mIoU",
}  # fmt: skip


def things(folder: Path) -> str:
    """Four things with four pictures each, half of them queries; each has a tag or two."""
    folder.mkdir()
    rows = [
        {"image": {"bytes": image, "path": None}, "thing": f"t{thing}", "tags": ["odd", "high"]
         if thing == 3 else ["odd"] if thing == 1 else ["high"] if thing == 2 else []}
        for thing in range(4)
        for image in blobs(thing, 8, seed=5)
    ]  # fmt: skip
    for part, begin in (("train", 0), ("test", 1)):
        pq.write_table(pa.Table.from_pylist(rows[begin::2]), folder / f"{part}.parquet")
    return f"parquet:{folder}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Filled by the first test that runs: what a visitor's Space would be started on."""
    return []


@pytest.fixture
def found(results: list[Result], cli: Cli, tmp_path: Path) -> Sequence[Result]:
    if not results:
        scenes = pictures.write_parquet(tmp_path / "scenes", 12, 8)
        text = things(tmp_path / "things")
        for words in (
            ("--task", f"parquet:{scenes}", "--protocol", "segment", "segment-knn", "--set",
             "segment.epochs=2", "segment.cells=8"),
            ("--task", f"{text}?labels=tags", "--protocol", "multilabel"),
            ("--task", f"{text}?instance=thing", "--protocol", "retrieval"),
        ):  # fmt: skip
            places = ("--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results"))
            ran = cli("run", *MODELS, *words, *places, "--img-size", "32", "--json")
            results += [read_result(Path(path)) for path in ran.json["files"]]
    return results


def test_a_board_each_with_its_own_title(found: Sequence[Result]) -> None:
    assert len(found) == 2 * 4
    known = keys(scored(found))
    assert {key.title for key in known} == TITLES
    assert {key.what for key in known} == {"mAP", "R@1", "AUROC", "mIoU"}


def test_numbers_have_intervals_of_a_stated_kind(found: Sequence[Result]) -> None:
    frame = scored(found)
    for key in keys(frame):
        view = View(board=key.text)
        board = build(grid(frame, key), view)
        told = [r for r in found if r.protocol.name == key.protocol]
        expected = {r.model.id: next(s for s in r.scores if s.name == key.score) for r in told}
        assert board.value.shape == (2, 1)
        for row, model in enumerate(board.models["model"]):
            score = next(s for name, s in expected.items() if model.startswith(name))
            assert board.value[row, 0] == pytest.approx(score.value)
            assert (board.low[row, 0], board.high[row, 0]) == (score.ci_low, score.ci_high)
            assert board.kind[row, 0] == score.kind
        assert set(np.unique(board.kind)) == {"test"}
        assert KINDS["test"] in display.chances(board)
        assert display.legend(board).startswith(f"{key.what} in percent.")
        page = board_html(board, view)
        assert page.count("±") >= 2


def test_titles_of_boards_that_were_there() -> None:
    assert Key("detection", "", "ap50").title == "Detection, AP50"
    assert Key("linear", "", "top1").title == "Linear"
    assert Key("fewshot", "", "top1_5shot").title == "Few-shot, 5-shot"
    assert Key("linear", "", "top1_1pct").title.startswith("Linear with 1")
