"""Parts of train: nested, stratified, the same for every model; curves in a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eval.data.sources import HASH_BYTES, FolderSource, image_hash
from eval.data.task_data import Split
from eval.protocols.train_fractions import Part, parts, subset
from eval.settings.protocols import Linear
from tests.factories import Cli, make_task, refusal


def split(rows: list[tuple[int, int]]) -> Split:
    """(picture, label) rows as a split in canonical order; equal pictures have equal bytes."""
    hashes = np.stack([np.frombuffer(image_hash(str(p).encode()), np.uint8) for p, _ in rows])
    labels = np.asarray([label for _, label in rows])
    order = np.lexsort((labels, hashes.view(f"V{HASH_BYTES}").reshape(-1).argsort().argsort()))
    source = FolderSource(Path(), (), ())
    return Split("train", source, labels[order], hashes[order], np.arange(len(rows))[order])


ROWS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=8, max_size=120)


@given(ROWS, st.integers(0, 3), st.integers(0, 2))
def test_parts_are_nested_and_hold_every_class(
    rows: list[tuple[int, int]], seed: int, draw: int
) -> None:
    train = split(rows)
    before: set[int] = set()
    for share in (0.01, 0.1, 0.25, 0.5, 1.0):
        found = subset(train, Part(share=share), seed, draw)
        assert list(found) == sorted(set(found.tolist()))
        assert before <= set(found.tolist())
        before = set(found.tolist())
        assert set(train.labels[found]) == set(train.labels)
        for label in np.unique(train.labels):
            mine = found[train.labels[found] == label]
            different = len({bytes(k) for k in train.hashes[train.labels == label]})
            assert len(mine) == max(1, round(share * different))
            assert len({bytes(k) for k in train.hashes[mine]}) == len(mine)


@given(ROWS, st.integers(0, 3))
def test_images_a_class_are_nested_too(rows: list[tuple[int, int]], seed: int) -> None:
    train = split(rows)
    least = min(len({bytes(k) for k in train.hashes[train.labels == c]})
                for c in np.unique(train.labels))  # fmt: skip
    before: set[int] = set()
    for n in range(1, least + 1):
        found = set(subset(train, Part(each=n), seed, 0).tolist())
        assert before <= found
        assert len(found) == n * len(np.unique(train.labels))
        before = found
    message = refusal(lambda: subset(train, Part(each=least + 1), seed, 0))
    assert f"has only {least} different training images" in message


def test_draws_differ() -> None:
    train = split([(i, i % 2) for i in range(40)])
    found = {tuple(subset(train, Part(share=0.3), 0, d).tolist()) for d in range(5)}
    assert len(found) == 5
    assert subset(train, Part(share=0.3), 1, 0).tolist() not in [list(f) for f in found]


def test_which_parts() -> None:
    asked = Linear(fractions=(0.5, 0.01, 1.0, 0.5), per_class=(5, 1))
    assert [p.label for p in parts(asked)] == ["1pct", "50pct", "1each", "5each"]


def test_curves_in_a_result(cli: Cli, tmp_path: Path) -> None:
    folder = make_task(tmp_path / "photos", classes=3, train=16, test=8)
    ran = cli(
        "run", "random:test_resnet", "--task", f"parquet:{folder}", "--protocol", "linear",
        "--train-fraction", "0.25", "0.5", "1", "--train-per-class", "1", "4", "--img-size", "32",
        "--precision", "fp32", "--cache", tmp_path / "c", "--results", tmp_path / "r", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (file,) = ran.json["files"]
    assert "linear@fractions=0.25+0.5+1,per_class=1+4,precision=fp32" in file
    boards = {b["score"]: b for b in ran.json["boards"]}
    assert set(boards) == {"top1", "top1_25pct", "top1_50pct", "top1_4each"}
    from eval.results.store import read_result

    result = read_result(Path(file))
    curve = result.details["curve"]
    assert [(c["part"], c["draw"], c["train"]) for c in curve] == [
        *[("25pct", d, 12) for d in range(3)], *[("50pct", d, 24) for d in range(3)],
        *[("4each", d, 12) for d in range(3)],
    ]  # fmt: skip
    for name in ("25pct", "50pct", "4each"):
        mean = result.score(f"top1_{name}")
        spread = result.score(f"top1_{name}_draws")
        values = [c["top1"] for c in curve if c["part"] == name]
        assert mean
        assert spread
        assert abs(mean.value - np.mean(values)) < 1e-5
        assert spread.n == 3
    assert any("1each of train is left out" in note for note in result.notes)

    picture = tmp_path / "curves.png"
    drawn = cli("curves", "--results", tmp_path / "r", "--out", picture, "--json")
    assert drawn.code == 0, drawn.err
    ((curve,),) = ([c["points"] for c in drawn.json],)
    assert [p["train"] for p in curve] == [12, 12, 24, 48]  # a quarter, 4 each, half, all
    assert curve[-1]["top1"] == result.scores[0].value
    assert all(p["low"] <= p["top1"] <= p["high"] for p in curve)
    assert Image.open(picture).size > (300, 300)
    wrong = cli("curves", "--results", tmp_path / "r", "--out", tmp_path / "curves.txt")
    assert (wrong.code, "must end in .png or .svg" in wrong.err) == (2, True)
    assert {"ece", "nll", "mean_per_class"} <= {s.name for s in result.scores}
