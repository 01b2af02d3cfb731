"""Figures: what they show, and that no name in them is read as anything but a name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.estimates import KINDS
from eval.models.objectives import STUDY
from space.figures import plots
from space.figures.style import CSS, LOOKS, OTHER, log_ticks, look, text, told
from space.tables.matrix import grid
from space.tables.objectives import by_domain, differences, mean_difference, shots
from tests.factories import make_result
from tests.space.figures.checks import HOSTILE, check, strings
from tests.space.shelves import FIVE, LINEAR, fewshot, scored, study


def hostile_frames() -> dict[str, pd.DataFrame]:
    random = np.random.RandomState(0)
    results = []
    for task in (HOSTILE, "eurosat"):
        for model in (HOSTILE, f"zoo:a.ce_{HOSTILE}", "hf-hub:o/a.ce_tin100"):
            right = random.uniform(size=60) < 0.5
            results += [make_result(model, task, correct=right)]
            results += [fewshot(model, task, {1: 0.3, 5: 0.5})]
    scores = scored(results)
    one = grid(scores, LINEAR)
    models = list(zip(one.models["label"], one.models["revision"], strict=True))
    return {
        "forest": differences(one, 0, 1), "domains": by_domain(one, [0, 1, 2]),
        "shots": shots(scores, models),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["forest", "domains", "shots"])
def test_hostile_names_stay_names(name: str) -> None:
    frame = hostile_frames()[name]
    assert len(frame)
    more = (HOSTILE, HOSTILE * 5) if name == "forest" else ()
    found = check(getattr(plots, name)(frame, *more))
    assert any("&lt;b&gt;" in line for line in strings(found))
    check(plots.empty(HOSTILE * 3))
    check(plots.forest(frame[:0], HOSTILE, HOSTILE)) if name == "forest" else None


@given(st.text(max_size=80), st.integers(4, 40))
def test_text_is_decoded_to_what_it_was(name: str, most: int) -> None:
    """As plotly reads it: tags are split off first, then known entities are decoded."""
    for shown in (text(name), text(name, most), told(name)):
        assert not re.search(r"[<>$]", shown.replace("<br>", ""))
        assert not re.search(r"&(?!(amp|lt|gt|#36);)", shown)
    entities = {"amp": "&", "lt": "<", "gt": ">", "#36": "$"}
    plain = re.sub(r"&(amp|lt|gt|#36);", lambda m: entities[m[1]], text(name))
    assert plain == " ".join("".join(c if c.isprintable() else " " for c in name).split())
    short = re.sub(r"&(amp|lt|gt|#36);", "x", text(name, most))
    assert len(short) == min(len(plain), most)


def test_the_ends_of_long_names_are_kept() -> None:
    assert text("imagefolder-photos-1a2b3c4d", 12) == "image…2b3c4d"


def test_every_objective_has_its_own_look() -> None:
    assert set(STUDY) <= LOOKS.keys()
    for cue in ("colour", "symbol", "dash"):
        mine = [getattr(LOOKS[name], cue) for name in STUDY]
        assert len(set(mine)) >= len(mine) - (cue == "dash")
    assert look("<b>") is OTHER


def _traces(found: dict[str, Any]) -> dict[str, Any]:
    return {trace["name"]: trace for trace in found["data"] if trace.get("name")}


def _numbers(value: Any) -> list[float]:
    """Plotly's JSON has arrays as base64."""
    if isinstance(value, dict):
        import base64

        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    return list(value)


def test_the_forest_shows_the_table() -> None:
    scores = study({"ce+selfsupcon": {"x": 0.8, "y": 0.4, "z": 0.5},
                    "ce": {"x": 0.5, "y": 0.7, "z": 0.5}})  # fmt: skip
    one = grid(scores, LINEAR)
    place = list(one.models["objective"]).index
    frame = differences(one, place("ce+selfsupcon"), place("ce"))
    figure = plots.forest(frame, "CE+SelfSupCon", "CE", a_objective="ce+selfsupcon",
                          b_objective="ce")  # fmt: skip
    found = check(figure)
    traces = _traces(found)
    assert set(traces) == {"CE+SelfSupCon better", "CE better", "undecided", "mean"}
    won, lost, open_ = (traces[n] for n in ("CE+SelfSupCon better", "CE better", "undecided"))
    assert won["marker"]["color"] == LOOKS["ce+selfsupcon"].colour
    assert lost["marker"]["color"] == LOOKS["ce"].colour
    assert won["marker"]["symbol"] != lost["marker"]["symbol"]
    assert open_["marker"]["symbol"].endswith("-open")
    assert not won["marker"]["symbol"].endswith("-open")
    ticks = dict(
        zip(
            _numbers(found["layout"]["yaxis"]["tickvals"]),
            found["layout"]["yaxis"]["ticktext"],
            strict=True,
        )
    )
    for trace, task in ((won, "x"), (lost, "y"), (open_, "z")):
        row = frame.set_index("task").loc[task]
        assert [ticks[y] for y in _numbers(trace["y"])] == [task]
        (x,) = _numbers(trace["x"])
        assert x == pytest.approx(100 * row["difference"])
        assert x + _numbers(trace["error_x"]["array"])[0] == pytest.approx(100 * row["high"])
        assert x - _numbers(trace["error_x"]["arrayminus"])[0] == pytest.approx(100 * row["low"])
    assert ticks[0.0] == "mean"
    mean, _, high = mean_difference(frame)
    assert _numbers(traces["mean"]["x"])[0] == pytest.approx(100 * mean)
    assert _numbers(traces["mean"]["error_x"]["array"])[0] == pytest.approx(100 * (high - mean))
    low, top = found["layout"]["xaxis"]["range"]
    assert low < min(0, 100 * frame["low"].min())
    assert top > max(0, 100 * frame["high"].max())
    notes = [note["text"] for note in found["layout"]["annotations"]]
    assert {"◀ CE better", "CE+SelfSupCon better ▶"} <= set(notes)


def test_every_interval_that_is_drawn_says_of_which_chance() -> None:
    """In the axis's title and in each hover text: test images, and episodes of older files."""
    values = {"ce": {"eurosat": 0.5, "dtd": 0.6}, "supcon": {"eurosat": 0.7, "dtd": 0.4}}
    one = grid(study(values), LINEAR)
    few = scored(fewshot(m, t, {1: 0.2, 5: 0.5}) for m in "ab" for t in ("eurosat", "dtd"))
    curves = shots(few, [("a", "seed0"), ("b", "seed0")])
    for figure, axis, kind in (
        (plots.forest(differences(one, 0, 1), "a", "b"), "xaxis", "test"),
        (plots.domains(by_domain(one, [0, 1])), "xaxis", "test"),
        (plots.shots(curves), "yaxis", "episodes"),
    ):
        found = check(figure)
        title = found["layout"][axis]["title"]["text"].replace("<br>", " ")
        assert title.endswith(f"intervals: 95 % over {KINDS[kind]}")
        texts = [trace["hovertext"] for trace in found["data"] if trace["hoverinfo"] == "text"]
        lines = [line for each in texts for line in ([each] if isinstance(each, str) else each)]
        assert lines
        assert all(f"95 % over {KINDS[kind]}" in line.replace("<br>", " ") for line in lines)


def test_a_forest_grows_with_its_rows_and_takes_one() -> None:
    many = study({"ce": {f"t{i}": 0.5 for i in range(9)}, "supcon": {f"t{i}": 0.6 for i in
                 range(9)}})  # fmt: skip
    one = grid(many, LINEAR)
    frame = differences(one, 0, 1)
    heights = [plots.forest(frame[:n], "a", "b").layout.height for n in (2, 5, 9)]
    assert heights[2] - heights[1] == 4 * 27
    assert heights[1] - heights[0] == 3 * 27
    single = check(plots.forest(frame[:1], "a", "b"))
    assert single["layout"]["yaxis"]["ticktext"] == ["t0"]  # no mean of one
    same = check(plots.forest(differences(one, 0, 0), "a", "a"))
    low, high = same["layout"]["xaxis"]["range"]
    assert low < 0 < high


def test_lines_have_their_objective_s_look() -> None:
    results = [fewshot(f"zoo:m.{name.replace('+', '_')}_t", task, {1: 0.2 + i / 20, 5: 0.5})
               for i, name in enumerate(STUDY) for task in ("eurosat", "dtd")]  # fmt: skip
    results += [fewshot("zoo:n.ce_t", task, {1: 0.9, 5: 0.95}) for task in ("eurosat", "dtd")]
    scores = scored(results)
    one = grid(scores, FIVE)
    models = list(zip(one.models["label"], one.models["revision"], strict=True))
    six = [m for m in models if ":m." in m[0]]
    for figure in (
        plots.shots(shots(scores, six)),
        plots.domains(by_domain(one, range(6))),
    ):
        traces = _traces(check(figure))
        assert set(traces) == {
            "CE", "CE (strong aug)", "SelfSupCon", "SupCon", "CE+SelfSupCon", "SupCon+SelfSupCon",
        }  # fmt: skip
        assert traces["SupCon+SelfSupCon"]["marker"]["color"] == LOOKS["supcon+selfsupcon"].colour
        assert traces["CE"]["marker"]["symbol"] == LOOKS["ce"].symbol
    twins = _traces(check(plots.shots(shots(scores, models))))
    assert {"m.ce_t", "n.ce_t"} <= twins.keys()
    cues = {(t["marker"]["symbol"], t["line"]["dash"]) for t in twins.values()}
    assert len(cues) == 7


def test_bands_are_the_intervals() -> None:
    scores = scored([fewshot("a", "x", {1: 0.2, 5: 0.5}), fewshot("b", "x", {1: 0.3, 5: 0.4})])
    frame = shots(scores, [("a", "seed0"), ("b", "seed0")])
    found = check(plots.shots(frame))
    bands = [t for t in found["data"] if t.get("fill") == "toself"]
    assert len(bands) == 2
    assert _numbers(bands[0]["y"]) == pytest.approx([22, 52, 48, 18])
    assert _numbers(bands[0]["x"]) == [1, 5, 5, 1]
    check(plots.shots(frame[frame["shot"] == 1]))  # one shot count: points


@given(st.floats(-1, 9), st.floats(0.8, 6))
def test_log_axes_have_some_ticks_but_few(low: float, width: float) -> None:
    values, letters = log_ticks(low, low + width)
    assert 3 <= len(values) <= 7
    assert values == sorted(values)
    assert len(set(letters)) == len(values)
    assert all(low <= np.log10(value) <= low + width for value in values)


def test_empty_states_say_what_to_do() -> None:
    nothing = scored([])
    one = grid(nothing, LINEAR)
    figures = (
        plots.forest(differences(one, 0, 0), "a", "b"), plots.domains(by_domain(one, [])),
        plots.shots(shots(nothing, [])),
    )  # fmt: skip
    for figure in figures:
        found = check(figure)
        assert not found["data"]
        (note,) = found["layout"]["annotations"]
        assert re.search(r"[Cc]hoose|Score", note["text"])
        assert found["layout"]["xaxis"]["visible"] is False


def test_letters_take_the_page_s_colour() -> None:
    assert "var(--body-text-color)" in CSS
    assert ".hoverlayer" not in CSS  # it has a ground of its own
