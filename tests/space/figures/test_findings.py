"""Findings as figures: every analysis, strange names, and files of another form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from eval.analysis import ANALYSES, analysis_named, recommend
from eval.analysis.finding import Finding, read_findings, write_finding
from eval.analysis.module import module_of
from eval.analysis.plots import saved
from eval.models.names import zoo_folder
from eval.models.resolve import folder_revision
from eval.results.facts import facts_of, objective_named
from eval.tasks import registry
from space.figures.findings import cka_map, pictures, title, views
from space.pages.analyses import Analyses
from space.source import Source
from space.state import Desk
from tests.factories import refusal
from tests.space.findings import LAYERS, every, made, picture
from tests.space.served import CARDS, HOSTILE_MODELS, HOSTILE_TASKS, MODELS

TASKS = ("eurosat", "dtd")


def page(results: Path, cache: Path) -> Analyses:
    """The page without its components: the functions behind its events."""
    found = Analyses.__new__(Analyses)
    found.desk = Desk(Source(str(results), cache), cache)
    return found


@pytest.mark.parametrize("finding", every(MODELS, TASKS), ids=list(ANALYSES))
def test_every_view_is_a_figure(finding: Finding) -> None:
    known = views(finding)
    assert known
    for draw in known.values():
        text = draw().to_json()
        assert '"data":[{' in text
    assert title(finding).startswith(f"{finding.analysis}: ")


@pytest.mark.parametrize("finding", every(HOSTILE_MODELS, HOSTILE_TASKS), ids=list(ANALYSES))
def test_strangers_names_are_only_names(finding: Finding, tmp_path: Path) -> None:
    """On pages and in drawn pictures alike."""
    for draw in views(finding).values():
        text = draw().to_json()
        for evil in ("<img", "<script", "<b on", "$d$"):
            assert evil not in text
    module = module_of(analysis_named(finding.analysis))
    drawn = saved(partial(module.figure, finding), tmp_path / "x.svg").read_text()
    assert "<script>window" not in drawn
    assert "<img" not in drawn
    if "$d$" in drawn:  # as it was written, not as a formula
        assert "\\$" not in drawn
    assert module.sentence(finding)
    assert module.table(finding)[1]


def test_numbers_are_those_of_the_finding() -> None:
    (heat,) = cka_map(made("cka", MODELS)).data
    assert list(heat.z[0])[:2] == [1.0, 0.5]
    lines = views(made("profile", MODELS, TASKS))["dtd"]().data
    assert [line.name for line in lines] == ["CE", "CE+SelfSupCon"]
    assert list(lines[1].y) == pytest.approx([20.0] * len(LAYERS))
    # intervals 20 points wide of two tasks, of which the mean's is narrower
    (one,) = views(made("profile", MODELS, ("hue",)))["low"]().data[:1]
    assert list(one.error_y.array) == pytest.approx([10.0] * len(LAYERS))
    (two,) = views(made("profile", MODELS, ("hue", "frequency")))["low"]().data[:1]
    assert list(two.error_y.array) == pytest.approx([10 * 2**0.5 / 2] * len(LAYERS))
    known = views(made("robustness", MODELS))
    both = known["clean and corrupted"]().data[0]
    assert list(both.y) == pytest.approx([60, 40])
    assert list(both.error_y.array) == pytest.approx([10, 10])
    assert not known["accuracy by severity"]().data[0].error_y.visible
    assert list(known["accuracy by severity"]().data[0].y) == pytest.approx([60, 50, 30])
    assert list(known["calibration by severity"]().data[0].y) == pytest.approx([10, 10, 20])
    assert known["by corruption"]().data[0].z[1][0] == pytest.approx(45)
    points = views(made("predictors", MODELS, TASKS))["LogME"]().data
    assert [len(p.x) for p in points] == [2, 2]
    assert list(points[1].y) == pytest.approx([5.0, 5.0])  # points above the mean of two


SHIPPED = read_findings(CARDS)


def test_the_page_answers_from_the_first_start(tmp_path: Path) -> None:
    names = list(page(CARDS, tmp_path).findings())
    assert len(names) == len(SHIPPED) + 1  # and the evidence behind `recommend`
    assert names[-1] == recommend.SHIPPED
    assert {f.analysis for _, f in SHIPPED} >= {"cka", "geometry", "profile", "robustness"}
    assert sum(path.stat().st_size for path, _ in SHIPPED) < 1_000_000


@pytest.mark.parametrize("finding", [f for _, f in SHIPPED], ids=lambda f: title(f))
def test_findings_that_ship_are_of_the_checkpoints_that_ship(finding: Finding) -> None:
    for model in finding.models:
        assert model.revision == folder_revision(zoo_folder(model.id.removeprefix("zoo:")))
        assert facts_of(model).objective == objective_named(model.id) != ""
    assert all(task.source == f"local:{task.name}" or registry.TASKS[task.name].embedded
               for task in finding.tasks)  # fmt: skip
    for draw in views(finding).values():
        drawn = draw()
        assert drawn.data
        for axis in (drawn.layout.xaxis, drawn.layout.yaxis):  # whole on a phone, too
            assert all(len(line) <= 30 for line in str(axis.title.text or "").split("<br>"))


def test_pictures_are_small_pngs_or_none() -> None:
    finding = made("reconstruction", MODELS)
    found = pictures(finding)
    assert [caption for _, caption in found][:2] == ["original 1", "CE: layer1, decoded 1"]
    assert len(found) == 5
    foreign = ["javascript:1", "data:image/svg+xml;base64,AAAA", "data:image/png;base64,@@", 7,
               picture()[:-40], "data:image/png;base64," + "A" * 2**19]  # fmt: skip
    evil = finding.model_copy(update={"values": finding.values | {"originals": foreign}})
    assert len(pictures(evil)) == 4
    assert pictures(made("cka", MODELS)) == []


@pytest.mark.parametrize("name", ANALYSES)
def test_a_finding_of_another_form_is_refused(name: str) -> None:
    for values in ({}, {"models": {}}, {"models": {"a": 3}}, {"cka": [["x"]], "layers_a": 1}):
        odd = made(name, MODELS).model_copy(update={"values": values})

        def show(odd: Finding = odd) -> None:
            for draw in views(odd).values():
                draw()

        assert "this finding is" in refusal(show)
    strange = made(name, MODELS).model_copy(update={"analysis": "astrology"})
    assert "no analysis 'astrology'" in refusal(views, strange)


def test_the_page_s_choices(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for finding in every(MODELS, TASKS):
        write_finding(results, finding)
    here = page(results, tmp_path / "cache")
    names = list(here.findings())
    assert [n.split("/")[1] for n in names] == list(ANALYSES)  # in the registry's order
    picks, view, said, figure, images, table, left_out = here.open("", "")
    assert left_out == ""
    assert picks["value"] == names[0]
    assert view["value"] == "map"
    assert "What cka shows" in said
    assert figure.data[0].type == "heatmap"
    assert not images["visible"]
    assert table["data"][0][0] == "act1"
    (rebuilt,) = (n for n in names if "reconstruction" in n)
    assert here.open(rebuilt, "SSIM")[4]["visible"]
    # one that was changed by hand since
    path = results / names[1]
    held = json.loads(path.read_text())
    path.write_text(json.dumps(held | {"values": {"models": {}}}))
    assert "of this version" in here.open(names[1], "")[2]
    # one that is none is named
    (results / "analyses/cka/broken.json").write_text("{")
    assert here.open("", "")[6].startswith("skipped analyses/cka/broken.json: it is not valid JSON")
    # a shelf without findings shows what ships
    (tmp_path / "bare").mkdir()
    alone = page(tmp_path / "bare", tmp_path / "cache").open("x", "y")
    assert "On 21 tasks with measured results the order by LogME" in alone[2]
    assert len(alone[5]["data"]) == 7 * 21
