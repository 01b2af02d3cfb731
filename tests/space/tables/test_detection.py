"""The page of detectors: standings, paired tests, classes, boxes, and foreign details."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.metrics.estimates import KINDS
from eval.metrics.scores import Samples
from eval.metrics.ties import range_p
from eval.models.objectives import STUDY
from eval.results import compare as cli
from eval.results.schema import Result
from eval.results.store import write_result
from space.api import Api
from space.examples_detection import SIDE, Album
from space.figures import plots
from space.pages import detection as page
from space.receipts import command
from space.source import Source
from space.state import Desk
from space.tables.detection import (
    NOTHING,
    Place,
    class_table,
    examples,
    headline,
    places,
    score_names,
    standing,
)
from space.tables.matrix import Key, grid, keys
from space.tables.objectives import differences, summary
from space.tables.scores import rows
from space.tables.view import View
from tests.factories import make_result, refusal, split_hash
from tests.space.detectors import (
    COCO,
    IMAGES,
    RESAMPLES,
    VOC,
    detector,
    example,
    real_examples,
    resampled,
    task_of,
)
from tests.space.figures.checks import HOSTILE, check
from tests.space.shelves import scored, shipped_scores, without_samples

A, B, C = (f"zoo:resnet18_narrow.{name}_tin100" for name in ("ce_selfsupcon", "ce", "supcon"))
SETTING = "schedule=short:600"


def place_of(scores: pd.DataFrame) -> Place:
    return next(iter(places(scores)))


def three() -> list[Result]:
    return [detector(B, 0.40, seed=1), detector(A, 0.46, seed=2), detector(C, 0.458, seed=3)]


# ---------------------------------------------------------------- the table of scores, the boards


def test_resamples_are_kept_as_they_are() -> None:
    result = detector(A, 0.4, names=(*COCO, *VOC))
    made = rows("p", result)
    assert [row["score"] for row in made] == [*COCO, *VOC]
    for row in made:
        assert (row["unit"], row["of"], row["setting"]) == ("resample", IMAGES, SETTING)
        back = np.frombuffer(row["samples"], "<f4")
        assert back.tolist() == result.samples[row["score"]].values().tolist()
    nan = resampled(0.4)
    nan[3] = np.nan
    assert rows("p", with_values(result, nan))[0]["unit"] == "resample"
    for bad in (1.5, -0.1, np.inf):
        nan[3] = bad
        assert rows("p", with_values(result, nan))[0]["samples"] == b""


def with_values(result: Result, values: np.ndarray, score: str = "ap") -> Result:
    return result.model_copy(
        update={"samples": result.samples | {score: Samples.of_resamples(values, IMAGES)}}
    )


def test_a_detection_board_has_its_own_title_and_no_other_protocol() -> None:
    scores = scored([*three(), make_result(A, "bccd"), detector(A, 0.5, schedule="voc-24k")])
    titles = [key.title for key in keys(scores) if key.protocol == "detection"]
    assert titles == [
        f"Detection, {name} (schedule={schedule})"
        for schedule in ("short:600", "voc-24k") for name in ("AP", "AP50", "AP75")
    ]  # fmt: skip
    key = Key("detection", SETTING, "ap50")
    assert (key.what, Key("linear", "", "top1").what) == ("AP50", "accuracy")
    one = grid(scores, key)
    assert len(one.models) == 3
    assert set(one.scores.iloc[one.row.ravel()]["protocol"]) == {"detection"}


def test_differences_agree_with_the_command_line() -> None:
    results = three()
    scores = scored(results)
    found = {c.score: c for c in cli.compare(A, B, results)}
    for name in COCO:
        one = grid(scores, Key("detection", SETTING, name))
        at = list(one.models["model"]).index
        (ours,) = differences(one, at(A), at(B)).itertuples()
        (theirs,) = found[name].tasks
        assert (ours.a, ours.b, ours.n, ours.unit) == (theirs.a, theirs.b, theirs.n, "resample")
        gap = theirs.difference
        assert (ours.difference, ours.low, ours.high) == (gap.value, gap.low, gap.high)
        assert (ours.p, ours.wins, ours.losses) == (theirs.p_value, theirs.wins, theirs.losses)
        assert (ours.n, ours.kind, theirs.kind) == (RESAMPLES, "test", "test")
        # the spread of the difference over the resamples is its standard error as it is
        expected = np.var(resampled_of(results[1], name) - resampled_of(results[0], name), ddof=1)
        assert ours.variance == pytest.approx(expected)
        assert ours.high - ours.difference == pytest.approx(1.959964 * expected**0.5)
    frame = differences(grid(scores, Key("detection", SETTING, "ap")), 0, 1)
    assert "over other test images, the same training" in summary(frame, "A", "B")


def resampled_of(result: Result, score: str) -> np.ndarray:
    return result.samples[score].values()


def test_undefined_resamples_do_not_count() -> None:
    values = resampled(0.4)
    values[:10] = np.nan
    results = [with_values(detector(A, 0.46, seed=2), values + 0.06),
               with_values(detector(B, 0.4, seed=1), values)]  # fmt: skip
    one = grid(scored(results), Key("detection", SETTING, "ap"))
    (row,) = differences(one, 0, 1).itertuples()
    assert row.wins + row.losses == RESAMPLES - 10
    found = one.standing((0,))
    assert found is not None
    assert np.isfinite(found[1].pair_variance).all()
    nothing = [with_values(r, np.full(RESAMPLES, np.nan)) for r in results]
    empty = grid(scored(nothing), Key("detection", SETTING, "ap"))
    assert not len(differences(empty, 0, 1))
    assert empty.standing((0,)) is None
    # one whose resamples lack others was resampled otherwise: it leaves the rest as they are
    odd = detector(C, 0.3, seed=5)
    mixed = grid(scored([*results, odd]), Key("detection", SETTING, "ap"))
    held = mixed.standing((0,))
    assert held is not None
    assert len(held[0]) == 2


def test_the_board_takes_the_resamples_spread_as_it_is() -> None:
    results = three()
    one = grid(scored(results), Key("detection", SETTING, "ap"))
    found = one.standing((0,))
    assert found is not None
    told = found[1]
    assert told.values.tolist() == [0.4, 0.46, 0.458]  # the scores, no means of resamples
    values = np.stack([resampled_of(r, "ap") for r in results])
    assert told.variance == pytest.approx(np.var(values, axis=1, ddof=1), rel=1e-5)
    gap = values[1] - values[2]
    assert told.pair_variance[1, 2] == pytest.approx(np.var(gap, ddof=1), rel=1e-5)
    assert told.kind == "test"
    assert told.difference(1, 0)[1] < 0.01
    assert told.difference(1, 2)[1] > 0.5
    # with another data set: the mean's variance is a quarter of the sum
    other = [detector(r.model.id, 0.5, "voc2007", seed=7 + i) for i, r in enumerate(results)]
    both = grid(scored([*results, *other]), Key("detection", SETTING, "ap")).standing((0, 1))
    assert both is not None
    more = np.stack([resampled_of(r, "ap") for r in other])
    expected = (np.var(gap, ddof=1) + np.var(more[1] - more[2], ddof=1)) / 4
    assert both[1].pair_variance[1, 2] == pytest.approx(expected, rel=1e-5)


def test_the_command_makes_the_same_setting() -> None:
    result = detector(A, schedule="short:600")
    config = result.protocol.config | {"sides": [192, 224], "lr": 0.01, "neck": "fpn"}
    changed = result.model_copy(
        update={"protocol": result.protocol.model_copy(update={"config": config})}
    )
    line = command(changed)
    assert "--set detection.schedule=short:600" in line
    assert "--set 'detection.sides=[192, 224]'" in line
    assert "--set detection.lr=0.01" in line
    assert "neck" not in line


# -------------------------------------------------------------------------------- the standing


def test_places_have_titles_and_the_fullest_is_first() -> None:
    scores = scored([*three(), detector(A, 0.5, "voc2007"), detector(A, 0.5, split_hash="other"),
                     make_result(A, "bccd")])  # fmt: skip
    found = places(scores)
    assert list(found.values()) == [
        f"bccd~{split_hash('bccd')[:8]} ({SETTING})", f"bccd~other ({SETTING})",
        f"voc2007 ({SETTING})",
    ]  # fmt: skip
    assert len({place.text for place in found}) == 3
    assert places(scored([make_result()])) == places(scored([])) == {}
    assert score_names(scores, next(iter(found))) == list(COCO)
    voc = scored([detector(A, names=(*VOC, *COCO))])
    assert score_names(voc, place_of(voc)) == [*COCO, *VOC]


def test_the_standing_is_tested_against_the_first() -> None:
    results = three()
    scores = scored(results)
    table = standing(scores, place_of(scores))
    assert list(table["model"]) == [A, C, B]
    assert list(table["verdict"]) == ["first", "tied", "worse"]
    assert table["subset"].all()
    assert set(table["kind"]) == {"test"}
    assert list(table["d_kind"]) == ["", "test", "test"]
    by_model = {r.model.id: r for r in results}
    first = resampled_of(by_model[A], "ap")
    for i, model in enumerate((C, B), 1):
        row = table.iloc[i]
        gap = 0.46 - by_model[model].scores[0].value
        error = np.std(first - resampled_of(by_model[model], "ap"), ddof=1)
        assert row["difference"] == pytest.approx(gap)
        assert row["d_low"] == pytest.approx(gap - 1.959964 * error)
        assert row["d_high"] == pytest.approx(gap + 1.959964 * error)
        # all three pairs at once, by the range of three
        assert row["p"] == pytest.approx(range_p(2**0.5 * gap / error, 3), abs=1e-4)
    assert table["ap50"].tolist() == pytest.approx([0.76, 0.758, 0.7])
    assert (table["ap50_low"] < table["ap50"]).all()
    assert table["value"].tolist() == table["ap"].tolist()
    names = ["A", "C", "B"]
    over = f"paired tests over {KINDS['test']}, all pairs at once"
    assert headline(table, "ap", names) == (
        f"A has the highest AP here, 46.0 %, but cannot be told from C ({over}, p >= 0.05)."
    )
    assert headline(table.iloc[[0, 2]], "ap", ["A", "B"]) == (
        f"A has the highest AP here, 46.0 %, and is ahead of 1 other ({over}, p < 0.05)."
    )
    assert "only model" in headline(table[:1], "ap", names)
    assert headline(table[:0], "ap", [])
    fifty = standing(scores, place_of(scores), "ap50")
    assert fifty["value"].tolist() == fifty["ap50"].tolist()


def test_what_was_asked_otherwise_is_not_tested() -> None:
    results = [detector(A, 0.46), without_samples(detector(B, 0.40)),
               with_values(detector(C, 0.3), resampled(0.3)[:500])]  # fmt: skip
    scores = scored(results)
    table = standing(scores, place_of(scores))
    assert list(table["verdict"]) == ["first", "", ""]
    assert table["p"].isna().all()
    assert table["d_low"].isna().all()
    assert not any(table["d_kind"])
    assert "not tested" in headline(table, "ap", ["a", "b", "c"])


def test_the_newer_of_two_results_counts_and_twins_are_told_apart() -> None:
    results = [
        detector(A, 0.3, created="2026-01-01T00:00:00+00:00"),
        detector(A, 0.5, created="2026-02-01T00:00:00+00:00"),
        detector(A, 0.4, revision="0123456789"),
    ]
    scores = scored(results)
    table = standing(scores, place_of(scores))
    assert table["value"].tolist() == [0.5, 0.4]
    assert list(table["model"]) == [f"{A}@seed0", f"{A}@0123456"]
    assert len(standing(scores, Place("bccd", "x", ""))) == 0


def test_a_model_without_a_score_has_a_gap() -> None:
    scores = scored([detector(A, 0.4, names=(*COCO, *VOC)), detector(B, 0.5)])
    table = standing(scores, place_of(scores))
    assert table["voc07_ap50"].isna().tolist() == [True, False]
    assert len(standing(scores, place_of(scores), "voc07_ap50")) == 1


# --------------------------------------------------------------------- details, however foreign


def test_classes_of_two_models() -> None:
    table = class_table(detector(A, 0.4), detector(B, 0.3))
    assert list(table["name"]) == ["RBC", "WBC", "Platelets"]
    assert list(table["boxes"]) == [300, 200, 100]
    assert table["a"].tolist() == pytest.approx([0.6, 0.7, 0.8])
    assert table["b"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert class_table(detector(A))["b"].isna().all()
    odd: list[Any] = [
        7, None, {}, {"name": 5, "boxes": 1}, {"name": "x", "boxes": -1},
        {"name": "y", "boxes": 1e9},
        {"name": "z", "boxes": 3, "ap50": None}, {"name": "w", "boxes": 2, "ap50": "0.5"},
        {"name": "v", "boxes": 1, "ap50": 2}, {"name": "u", "boxes": True, "ap50": 0.1},
    ]  # fmt: skip
    found = class_table(detector(A, per_class=odd))
    assert list(found["name"]) == ["z", "w", "v"]
    assert found["a"].isna().all()
    assert not len(class_table(make_result()))


@pytest.mark.parametrize(
    "bad",
    [
        7, {}, {"row": 0}, example(-1), example(True), example(0, scores=[0.5, 0.5]),
        example(0, boxes=[(1, 2, 3)]), example(0, scores=["x"]), example(0, scores=[1.5]),
        example(0, scores=[math.nan]), example(0, boxes=[(1, 2, 3, math.inf)]),
        example(0, labels=[-1]), example(0, labels=[None]), example(0, labels=[1e400]),
        example(0, boxes=[(1, 2, 3, "x")]), example(0, hash=5), {"row": 0, "boxes": 3},
        example(0, boxes=[(1, 2, 3, 10**400)]),
    ],
)  # fmt: skip
def test_malformed_examples_are_left_out(bad: Any) -> None:
    good = example(4, boxes=[(1, 2, 3, 4), (5, 6, 7, 8)], labels=[1, 2])
    found = examples(detector(A, examples=[bad, good]))
    assert list(found) == [4]
    assert found[4].found.labels.tolist() == [1, 2]
    assert found[4].found.boxes.dtype == np.float32


def test_an_image_without_boxes_is_an_example() -> None:
    (one,) = examples(detector(A, examples=[example(2, boxes=[])])).values()
    assert one.found.boxes.shape == (0, 4)


# -------------------------------------------------------------------------------------- boxes


def shelf(folder: Path, results: Sequence[Result]) -> Path:
    for i, result in enumerate(results):
        write_result(folder / f"{i}.json", result)
    return folder


def test_pictures_of_real_images(real_data: Path, tmp_path: Path) -> None:
    task = task_of(real_data, tmp_path)
    pair = [
        detector(name, split_hash=task.split_hash, task_split=task.split,
                 examples=real_examples(task, seed))
        for seed, name in enumerate((A, B))
    ]  # fmt: skip
    album = Album(real_data, tmp_path)
    shown = album.pictures(pair, 0.5, most=3)
    assert [(s.row, s.model) for s in shown] == [(r, m) for r in range(3) for m in (0, 1)]
    assert all(max(s.image.size) <= SIDE for s in shown)
    for each in shown:
        scores = np.array(pair[each.model].details["examples"][each.row]["scores"])
        assert each.count == (scores >= 0.5).sum()
    held = dict(album._held)
    more = album.pictures(pair, 0.2, most=3)
    assert dict(album._held) == held  # read once
    assert sum(s.count for s in more) > sum(s.count for s in shown)
    other = detector(C, split_hash="other", examples=real_examples(task, 3))
    assert "are not those of the result" in refusal(lambda: album.pictures([other]))
    wrong = [e | {"hash": "00" * 16} for e in real_examples(task, 3)]
    moved = detector(C, split_hash=task.split_hash, task_split=task.split, examples=wrong)
    assert "is not in the data" in refusal(lambda: album.pictures([moved]))
    assert "no example images in common" in refusal(lambda: album.pictures([pair[0], moved]))


def test_what_is_not_at_hand_is_one_sentence(tmp_path: Path) -> None:
    one = detector(A, examples=[example(0)])
    album = Album(None, tmp_path)
    assert "a visitor's click downloads nothing" in refusal(lambda: album.pictures([one]))
    own = detector(A, task="/etc", examples=[example(0)])
    assert "none of the suite's" in refusal(lambda: album.pictures([own]))
    assert "no example images" in refusal(lambda: album.pictures([detector(A)]))
    digits = detector(A, task="digits", examples=[example(0)])
    assert "are not those of the result" in refusal(lambda: album.pictures([digits]))
    missing = Album(tmp_path, tmp_path)
    assert "has no folder 'bccd'" in refusal(lambda: missing.pictures([one]))


# ------------------------------------------------------------------------- the page and the API


def desk_of(folder: Path, data: Path | None = None) -> Desk:
    source = Source(str(folder), folder.parent / "cache")
    source.refresh()
    return Desk(source, folder.parent / "cache", data)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return desk_of(shelf(tmp_path / "shelf", three()))


def opened(desk: Desk, *choices: str) -> dict[str, Any]:
    with page.gr.Blocks():
        one = page.Detection(desk)
    names = (
        "body",
        "place",
        "score",
        "a",
        "b",
        "said",
        "table",
        "plot",
        "classes",
        "told",
        "boxes",
    )
    return dict(zip(names, one.open(*(choices or ("", "", "", ""))), strict=True))


def test_the_page_shows_the_standing(desk: Desk) -> None:
    found = opened(desk)
    assert found["body"]["visible"] is True
    assert found["place"]["choices"][0][0] == f"bccd ({SETTING})"
    assert [c[1] for c in found["score"]["choices"]] == list(COCO)
    assert found["said"].startswith("CE+SelfSupCon has the highest AP here, 46.0 %")
    table = found["table"]["value"]
    assert table["headers"] == [
        "model", "AP", "against the first", "AP50", "AP75"
    ]  # fmt: skip
    assert [row[0] for row in table["data"]] == ["CE+SelfSupCon*", "SupCon*", "CE*"]
    assert table["data"][0][2] == "first"
    assert table["data"][1][2].startswith("not told apart: -0.2 [")
    assert table["data"][2][2].startswith("behind: -6.0 [-")
    assert (found["a"]["value"], found["b"]["value"]) == (A, C)
    assert found["classes"]["value"]["headers"] == [
        "class", "test boxes", "A: CE+SelfSupCon", "B: SupCon", "A - B"
    ]  # fmt: skip
    assert found["classes"]["value"]["data"][0] == ["RBC", 300, "66.0", "65.8", "+0.2"]
    again = opened(desk, found["place"]["value"], "ap50", B, B)
    assert "AP50" in again["said"]
    assert again["classes"]["value"]["headers"] == ["class", "test boxes", "A: CE"]
    nonsense = opened(desk, "<b>", "x", "y", "z")
    assert nonsense["said"] == found["said"]


def test_the_page_without_detectors_says_what_to_run(tmp_path: Path) -> None:
    folder = shelf(tmp_path / "shelf", [make_result()])
    found = opened(desk_of(folder))
    assert found["said"] == NOTHING
    assert found["body"]["visible"] is False  # no controls of nothing
    assert "transfer-eval run zoo:all --suite detection --data DIR" in NOTHING
    with page.gr.Blocks():
        one = page.Detection(desk_of(folder))
    told, gallery = one.look("", "", "", 0.5)
    assert "choose a data set" in told
    assert gallery["visible"] is False


def test_detectors_that_ship_are_whole_columns() -> None:
    """All six, asked alike, on every data set that is there."""
    scores = shipped_scores()
    found = places(scores)
    assert found
    for place in found:
        for score in score_names(scores, place):
            table = standing(scores, place, score)
            assert set(table["objective"]) == set(STUDY)
            assert len(table) == 6
            assert set(table["verdict"]) <= {"first", "tied", "worse"}


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    found = [page._points(value, "+") for value in (-0.0004, 0.0004, -0.0, 0.016, -0.016, math.nan)]
    assert found == ["0.0", "0.0", "0.0", "+1.6", "-1.6", "-"]


def test_hostile_names_stay_names_on_the_page(tmp_path: Path) -> None:
    results = [
        detector(HOSTILE.replace("\x00", ""), 0.4),
        detector(f"zoo:a.ce_{HOSTILE[:20]}", 0.3),
    ]
    desk = desk_of(shelf(tmp_path / "shelf", results))
    found = opened(desk)
    assert "<" not in found["said"]
    check(found["plot"])
    with page.gr.Blocks():
        one = page.Detection(desk)
    place = found["place"]["value"]
    told, _ = one.look(place, *(c[1] for c in found["a"]["choices"]), 0.5)
    assert "<" not in told
    assert "no example images" in told
    assert one.by_class(place, "nobody", "")[0] is None


def test_boxes_on_the_page(real_data: Path, tmp_path: Path) -> None:
    task = task_of(real_data, tmp_path / "cache")
    results = [
        detector(name, 0.5 - seed / 10, split_hash=task.split_hash, task_split=task.split,
                 examples=real_examples(task, seed))
        for seed, name in enumerate((A, B))
    ]  # fmt: skip
    folder = shelf(tmp_path / "shelf", results)
    found = opened(desk_of(folder, real_data))
    with page.gr.Blocks():
        one, bare = page.Detection(desk_of(folder, real_data)), page.Detection(desk_of(folder))
    choices = [found[name]["value"] for name in ("place", "a", "b")]
    told, gallery = one.look(*choices, 0.5)
    assert told == "6 test images, boxes of at least 50 %."
    captions = [caption for _, caption in gallery["value"]]
    assert len(captions) == 12
    assert captions[0].startswith("CE+SelfSupCon: ")
    assert captions[1].startswith("CE: ")
    told, gallery = one.look(choices[0], choices[1], choices[1], 0.95)
    assert len(gallery["value"]) == 6
    told, gallery = bare.look(*choices, 0.5)
    assert "Start with `--data DIR`" in told
    (folder / "0.json").unlink()
    assert "is gone" in one.look(*choices, 0.5)[0]


def test_the_plot_shows_the_table() -> None:
    scores = scored(three())
    found = check(plots.standing(standing(scores, place_of(scores)), "AP"))
    assert found["layout"]["yaxis"]["ticktext"] == ["CE+SelfSupCon", "SupCon", "CE"]
    symbols = [trace["marker"]["symbol"] for trace in found["data"]]
    assert [s.endswith("-open") for s in symbols] == [False, False, True]
    assert [trace["x"][0] for trace in found["data"]] == pytest.approx([46.0, 45.8, 40.0])
    last = [trace["hovertext"][0].split("<br>")[-1] for trace in found["data"]]
    assert last == ["first", "not told apart from the first", "behind the first"]
    for said in (found["layout"]["xaxis"]["title"]["text"],
                 *(trace["hovertext"][0] for trace in found["data"])):  # fmt: skip
        assert f"95 % over {KINDS['test']}" in said.replace("<br>", " ")
    check(plots.standing(standing(scores, Place("", "", "")), "AP"))


def test_the_endpoint_says_what_the_page_shows(desk: Desk, tmp_path: Path) -> None:
    api = Api(desk)
    said = api.detection()
    assert said["data_set"] == f"bccd ({SETTING})"
    shown = opened(desk)["said"].replace("&#62;", ">")
    assert shown == f"{said['headline']}\n\nIntervals are 95 % over {KINDS['test']}."
    assert [row["model"] for row in said["rows"]] == [A, C, B]
    assert [row["verdict"] for row in said["rows"]] == ["first", "tied", "worse"]
    json.dumps(said, allow_nan=False)
    assert api.detection(score="ap50")["rows"][0]["value"] == pytest.approx(0.76)
    assert "no data set 'x' here" in api.detection("x")["error"]
    assert "did you mean 'ap75' or 'ap50'" in api.detection(score="ap5")["error"]
    (tmp_path / "none").mkdir()
    assert Api(desk_of(tmp_path / "none")).detection()["error"] == NOTHING


def test_the_leaderboard_of_detectors(desk: Desk) -> None:
    board = desk.board(View(board=f"detection/ap50/{SETTING}"))
    assert list(board.models["objective"]) == ["ce+selfsupcon", "supcon", "ce"]
    assert board.group.tolist() == [1, 1, 2]
