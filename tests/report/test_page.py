"""The page: right numbers, harmless whatever the names, alone, the same again, and printable."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.analysis.finding import Finding, write_finding
from eval.metrics.intervals import calibration_error
from eval.models.names import ZOO_FOLDER
from eval.report.blocks import sheet
from eval.report.gather import gather
from eval.report.page import render
from eval.report.short_names import renaming, short_names
from eval.results.compare import compare
from eval.results.facts import facts_of
from eval.results.leaderboard import grid, tables
from eval.results.names import shelf_path
from eval.results.schema import Result, pack_confidence
from eval.results.store import read_shelf, write_result
from tests.factories import Cli, make_result

ZOO = ("resnet18_narrow.ce_tin100", "resnet18_narrow.ce_selfsupcon_tin100")
HOSTILE = "<script>alert('1')</script>$x^2$\"--><img src=http://evil/x>\u202e\ud800 $\\frac"
VOID = {"meta", "wbr", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What stands in a page, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"h2", "h3"} & set(self.open):
            self.headings[-1] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.replace("\u00a0", " ")

    @property
    def sections(self) -> list[str]:
        return [str(a["id"]) for tag, a in self.tags if tag == "section"]


def alone(text: str) -> Page:
    """The page, which asks nobody for anything."""
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in {"src", "href", "xlink:href", "srcset", "data"} & set(attributes):
            assert re.match(r"#|data:image/png;base64,", attributes[name] or ""), (tag, attributes)
    assert not re.search(r"url\((?!#)", re.sub(r">[^<]*<", "><", text))
    assert "@import" not in text
    policy = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {a["xlink:href"] for tag, a in page.tags if tag == "use"}
    assert {str(u)[1:] for u in used} <= set(ids)
    return page


def finding(analysis: str, values: dict[str, Any], result: Result, **changes: Any) -> Finding:
    return Finding.model_validate(
        {
            "analysis": analysis,
            "models": [result.model],
            "tasks": [result.task],
            "config": {"kernel": "linear"},
            "values": values,
            "sentence": "not ours",
            "environment": result.environment,
            "seed": 0,
            "seconds": {},
            "created": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )


def cka(result: Result) -> Finding:
    """Of two layers, one of them with a name that is given."""
    values = {
        "layers_a": ["one", result.model.id],
        "layers_b": ["one", result.model.id],
        "cka": [[1.0, 0.25], [0.25, 1.0]],
        "error": [[0.0, None], [None, 0.0]],
        "images": 1234,
        "batches": 5,
    }
    return finding("cka", values, result)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that ship, with findings."""
    folder = tmp_path_factory.mktemp("report") / "measured"
    for name in ZOO:
        for path in sorted((ZOO_FOLDER / name / "results").glob("*.json")):
            if "linear" in path.name or path.name[0] in "cd":  # the rest takes long to resample
                (folder / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name)
    (_, result), *_ = read_shelf(folder).results
    write_finding(folder, cka(result))
    layers = {"a": [0.5, 0.4, 0.6], "b": [0.25, 0.2, 0.3]}
    probes = {m: {"hue": layers, "shape": layers} for m in ZOO}
    write_finding(folder, finding("profile", {"models": probes}, result))
    return folder


@pytest.fixture(scope="module")
def text(shelf: Path) -> str:
    """The page of these."""
    said: list[str] = []
    page = render(gather([str(shelf)], said.append), said.append, made="today")
    assert said == []
    return page


@pytest.mark.slow
def test_the_page_stands_alone_and_has_what_there_is(text: str) -> None:
    page = alone(text)
    assert page.sections == [
        "short",
        "boards",
        "differences",
        "calibration",
        "cka",
        "profile",
        "receipts",
    ]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in page.sections]
    pictures = [tag for tag, _ in page.tags if tag == "svg"]
    assert len(pictures) == 6  # one pair needs no overview; calibration has three
    assert "two views of one image" in text  # objectives in words


def test_its_numbers_are_the_boards_and_the_comparisons(text: str, shelf: Path) -> None:
    page = Page(text)
    results = [r for _, r in gather([str(shelf)], print).results]
    boards = tables(results)
    assert len(boards) == 4
    for board in boards:
        header, lines = grid(board)
        objectives = {r.model.id: facts_of(r.model).objective for r in results}
        header = list(map(renaming(short_names(objectives)), header))
        assert header[1:] == ["CE", "CE+SelfSupCon"]
        assert header in page.rows
        for line in lines:
            assert line in page.rows
    declared = {row[0]: row[3] for row in page.rows if len(row) == 6 and row[0].startswith("zoo:")}
    assert declared[f"zoo:{ZOO[0]}"] == "CE, resnet18_narrow, tiny_imagenet (recipe.toml)"
    (linear,) = (
        c for c in compare(f"zoo:{ZOO[1]}", f"zoo:{ZOO[0]}", results) if c.protocol == "linear"
    )
    for task in linear.tasks:
        d = task.difference
        cell = f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        assert any(cell in row[-1] for row in page.rows if row[0] == task.task)
    won = sum(t.verdict == "A" for t in linear.tasks)
    assert [t.task for t in linear.apart] == ["tiny_imagenet"]
    said = f"in linear top-1 better on {won} of 11 tasks"
    assert f"CE+SelfSupCon against CE: {said}" in text


def test_the_best_of_a_column_is_bold() -> None:
    from eval.report.boards import block

    results = [make_result(m, t, top1=v) for m, t, v in (
        ("a", "x", 0.5), ("b", "x", 0.6), ("a", "y", 0.7), ("b", "y", 0.7), ("c", "x", 0.55),
    )]  # fmt: skip
    (board,) = tables(results)
    (shown,) = block(board).sheets
    marked = {(shown.lines[r][0], shown.header[c]) for r, c in shown.bold}
    # c lacks y, so the mean is over x alone
    assert marked == {("b", "x"), ("a", "y"), ("b", "y"), ("b", "mean of 1 common"),
                      ("b", "mean rank")}  # fmt: skip


def test_the_same_input_gives_the_same_page(tmp_path: Path, cli: Cli) -> None:
    result = make_result()
    for name in ("a", "b"):
        write_result(tmp_path / name / shelf_path(result), result)
        write_finding(tmp_path / name, cka(result))
    first, second = (
        render(gather([str(tmp_path / "a")], print), print, made="then") for _ in range(2)
    )
    assert first == second
    out = tmp_path / "page.html"
    ran = cli("report", tmp_path / "a", tmp_path / "b", "--out", out, "--title", "Ours & theirs")
    assert (ran.code, ran.err) == (0, "left out 2 files whose like was read, as new or newer\n")
    assert f"{out} (0." in ran.out
    assert "<h1>Ours &amp; theirs</h1>" in out.read_text()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["page.html"]


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    said: list[str] = []
    for i, (model, task) in enumerate([(HOSTILE, HOSTILE), ("b", HOSTILE), ("b", "$y$")]):
        notes, config = [HOSTILE, "}} {{ 7 * 7 }}"], {"odd": HOSTILE}
        result = make_result(model, task, top1=0.5 + i / 10, notes=notes, config=config)
        curve = [{"part": "1pct", "train": 6, "top1": 0.2, "fraction": 0.1}]
        result = result.model_copy(update={"details": {"curve": curve}})
        path = tmp_path / f"{i}.json"
        path.write_bytes(json.dumps(result.model_dump(mode="python")).encode())
        file = tmp_path / "analyses" / "cka" / f"{i}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(cka(result).model_dump(mode="python")))
    page = render(gather([str(tmp_path)], said.append), said.append, made="now", title=HOSTILE)
    assert said == []
    assert alone(page.encode("utf-8", "replace").decode()).sections == [
        "short", "boards", "differences", "curves", "cka", "receipts"
    ]  # fmt: skip
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert ">$y$, linear</text>" in drawn  # a panel of the curves; no formula
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert "<script>alert('1')</script>$x^2$\"--><img src=http://evil/x>" in shown
    assert "{{ 7 * 7 }}" in page
    assert "\u202e" not in page.partition("<main>")[2]


def test_files_that_are_no_findings_are_named(tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "analyses" / "cka"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text('{"analysis": "cka"}')
    for name, odd in (
        ("c", finding("cka", {"cka": []}, make_result(), config={})),
        ("d", finding("sorcery", {}, make_result())),
        ("e", cka(make_result())),
    ):
        (folder / f"{name}.json").write_text(odd.model_dump_json())
    ran = cli("report", tmp_path, "--out", tmp_path / "r.html")
    assert ran.code == 0
    assert [f"{n}.json" in ran.err for n in "abcde"] == [True, True, True, True, False]
    page = alone((tmp_path / "r.html").read_text())
    assert page.sections == ["short", "cka", "receipts"]  # findings alone make a page
    assert "not ours" not in (tmp_path / "r.html").read_text()  # sentences are made anew


def test_no_folder_of_this_machine_is_on_the_page(tmp_path: Path) -> None:
    result = make_result()
    secret = str(tmp_path / "secret" / "photos")
    model = result.model.model_copy(update={"spec": f"local-dir:{secret}"})
    task = result.task.model_copy(update={"source": f"imagefolder:{secret}"})
    result = result.model_copy(update={"model": model, "task": task})
    write_result(tmp_path / "shelf" / shelf_path(result), result)
    write_finding(tmp_path / "shelf", cka(result))
    page = render(gather([str(tmp_path / "shelf")], print), print, made="now")
    assert str(tmp_path) not in page
    assert "local:<wbr>photos" in page
    assert "transfer-eval verify shelf/" in page.replace("<wbr>", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "does not exist"),
        (["empty"], "no results and no findings in 'empty'"),
        (["empty", "--out", "x.pdf"], "must end in .html"),
        ([], "see transfer-eval report --help"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    ran = cli("report", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert [p.name for p in Path().iterdir()] == ["empty"]


def test_a_wide_table_goes_on_below() -> None:
    header = ["model", *(f"t{i}" for i in range(20))]
    parts = sheet(header, [["m", *map(str, range(20))]], bold=frozenset({(0, 20)}))
    assert [len(p.header) for p in parts] == [8, 8, 7]
    assert [c for p in parts for c in p.header[1:]] == header[1:]
    assert all(p.lines[0][0] == "m" for p in parts)
    assert [sorted(p.bold) for p in parts] == [[], [], [(0, 6)]]


@pytest.fixture
def printed(text: str, browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page in Chromium, as wide as A4 within its margins."""
    file = tmp_path / "page.html"
    file.write_text(text)
    page = browser.new_page(viewport={"width": 688, "height": 1000})
    page.emulate_media(media="print")
    page.goto(f"file://{file}")
    yield page
    page.close()


@pytest.mark.slow
def test_it_prints_on_a4_without_a_cut(printed: Any) -> None:
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert printed.evaluate(wide)
    pdf = printed.pdf(prefer_css_page_size=True)
    assert max(map(int, re.findall(rb"/Count (\d+)", pdf))) > 3
    assert re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)[0][0].startswith(b"59")  # A4
    # folded away by a reader, the numbers are printed all the same
    printed.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    assert printed.locator("details table").first.is_visible()


def test_confidences_are_drawn_as_reliability(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 40)
    confidence, correct = pack_confidence(values), np.arange(40) < 20
    ece = calibration_error(values, correct)
    scores = [
        {"name": name, "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 40}
        for name, value in (("top1", 0.5), ("ece", ece))
    ]
    for model in "ab":
        for task in "vwxyz":
            result = make_result(model, task, scores=scores, confidence=confidence)
            write_result(tmp_path / shelf_path(result), result)
    said: list[str] = []
    page = alone(render(gather([str(tmp_path)], said.append), said.append, made="now"))
    assert said == []
    assert "calibration" in page.sections
    assert sum(row[1:3] == ["v, linear", f"{100 * ece:.1f} ±10.0"] for row in page.rows) == 2


def test_a_short_name_stands_for_a_whole_id_alone() -> None:
    ids = {"zoo:a.ce_x": "ce", "zoo:a.ce_selfsupcon_x": "ce+selfsupcon",
           "random:resnet18": "untrained", "zoo:b.supcon_x": "supcon", "zoo:c.supcon_x": "supcon",
           "hf-hub:o/n": ""}  # fmt: skip
    names = short_names(ids)
    assert names == {"zoo:a.ce_x": "CE", "zoo:a.ce_selfsupcon_x": "CE+SelfSupCon",
                     "random:resnet18": "untrained resnet18"}  # fmt: skip
    rename = renaming(names)
    for text, wanted in (
        ("zoo:a.ce_x and zoo:a.ce_selfsupcon_x.", "CE and CE+SelfSupCon."),
        ("zoo:a.ce_x @64px", "CE @64px"),
        ("zoo:a.ce_x2, zoo:a.ce_x@1234567, x/zoo:a.ce_x, zoo:a.ce_x.y", ""),
        ("random:resnet18; zoo:b.supcon_x", "untrained resnet18; zoo:b.supcon_x"),
    ):
        assert rename(text) == (wanted or text)
    assert renaming({})("zoo:a.ce_x") == "zoo:a.ce_x"
