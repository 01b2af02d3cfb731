"""Five people finish what they came for: by hand as they would, on a desktop and on a phone.

With TRANSFERZOO_SCREENSHOTS=DIR what each of them saw is kept there, to look at.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.space.pages_seen import address_has, downloaded, headline, upload
from tests.space.served import App, add_tiny

pytestmark = pytest.mark.slow  # served apps and a browser

SCREENS = pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])


def kept(seen: Any, who: str, width: int, dark: bool, step: int) -> None:
    """A picture of what the person sees, from the top of the page to its end."""
    seen.page.wait_for_timeout(500)  # plots move into place
    assert not seen.overflows(), f"{who}, step {step}"
    seen.keep(f"visit-{who}-{width}-{'dark' if dark else 'light'}-{step}")


@SCREENS
def test_a_newcomer_reads_the_board(app: App, visit: Any, width: int, dark: bool) -> None:
    """What does it say, can I trust it, what is behind a number?"""
    seen = visit(app, width, dark).open()
    page = seen.page
    assert "has the highest mean" in headline(seen)
    assert len(seen.models()) == 6
    kept(seen, "newcomer", width, dark, 1)
    page.locator("#board td.cell button").first.click()
    page.locator("#receipt").filter(has_text="transfer-eval run").wait_for()
    kept(seen, "newcomer", width, dark, 2)
    page.get_by_role("button", name="Close").click()
    page.locator("#receipt").wait_for(state="hidden")
    link = page.locator("#board td.name a").first
    assert link.get_attribute("href").startswith("https://huggingface.co/transferzoo/")
    if width > 600:  # all ten data sets at once, and no number behind the edge
        table = page.locator(".board-wrap")
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
        assert page.locator("#board thead th[data-task], #board thead th button").count() >= 13


@SCREENS
def test_a_student_compares_objectives(app: App, visit: Any, width: int, dark: bool) -> None:
    """Does adding self-supervision help, under linear too? A plot and a link for the thesis."""
    seen = visit(app, width, dark).open()
    page = seen.page
    seen.tab("Objectives")
    said = page.locator("#objectives-said")
    said.filter(has_text="CE+SelfSupCon").wait_for()
    page.locator("#forest .tools").wait_for()
    kept(seen, "student", width, dark, 1)
    few = said.inner_text()
    seen.pick("Protocol", "Linear")
    page.wait_for_function(
        "was => document.querySelector('#objectives-said').innerText != was", arg=few
    )
    address_has(seen, "objectives.protocol=linear")
    kept(seen, "student", width, dark, 2)
    with page.expect_download() as waiting:
        page.locator("#forest .tools button", has_text="PNG").click()
    with Image.open(waiting.value.path()) as image:
        assert image.width >= 2 * min(width - 60, 600)
    link = page.evaluate("location.search")
    other = visit(app, width, dark).open(link)
    other.page.locator("#objectives-said").filter(has_text=re.compile(r"Mean diff")).wait_for()
    other.page.wait_for_function(
        "was => document.querySelector('#objectives-said').innerText == was",
        arg=said.inner_text(),
    )


def leaves(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Nine photographs of leaves: three each of two kinds to learn from, and three to recognise."""
    table = pq.read_table(folder / "cropdisease" / "train-00000-of-00001.parquet")
    rows = table.to_pylist()
    kinds = sorted({row["label"] for row in rows})[:2]
    out: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds:
        mine = [row["image"]["bytes"] for row in rows if row["label"] == kind][:5]
        out[str(kind)] = [
            {"name": f"leaf-{kind}-{i}.jpg", "mimeType": "image/jpeg", "buffer": data}
            for i, data in enumerate(mine)
        ]
    return out


@SCREENS
def test_an_engineer_asks_which_model_with_six_photographs(
    app: App, visit: Any, real_data: Path, width: int, dark: bool
) -> None:
    """Six pictures of leaves: which model should I take, and may I have it?"""
    first, second = leaves(real_data).values()
    seen = visit(app, width, dark).open("?tab=fewshot")
    page = seen.page
    page.get_by_label("Name of class 1").fill("healthy")
    page.get_by_label("Name of class 2").fill("spotted")
    upload(seen, "Pictures 1", first[:3], 3)
    upload(seen, "Pictures 2", second[:3], 3)
    upload(seen, "Pictures to recognise", [first[3], second[3]], 2)
    kept(seen, "engineer", width, dark, 1)
    page.locator("#classify").click()
    page.locator("#answers li").nth(1).wait_for(timeout=90_000)
    said = page.inner_text("#said")
    assert re.match(r"6 pictures cannot tell (these 6|\d of these 6) models apart", said.strip())
    assert page.locator("#ranks tbody tr").count() == 6
    kept(seen, "engineer", width, dark, 2)
    name, content = downloaded(seen, "Download this classifier")
    assert name == "classifier.zip"
    assert content[:2] == b"PK"
    page.get_by_text("from space.demo.head_file import Classifier").wait_for()


@SCREENS
def test_an_author_submits_a_model(
    app: App, visit: Any, model_dir: Path, width: int, dark: bool
) -> None:
    """My model is on the Hub: have it scored, and see where it stands."""
    name = f"author/net-{width}"
    add_tiny(app.hub, name, model_dir)
    seen = visit(app, width, dark).open()
    page = seen.page
    seen.tab("Submit")
    page.locator("#submission textarea, #submission input").first.fill(name)
    page.get_by_role("button", name="Submit", exact=True).click()
    page.locator("#submitted").filter(has_text="Its request is pending.").wait_for()
    page.locator("#requests").filter(has_text=name).wait_for()
    assert page.inner_text("#requests").count(name) == 1
    kept(seen, "author", width, dark, 1)


@SCREENS
def test_a_maintainer_of_sixty_models(sixty: App, visit: Any, width: int, dark: bool) -> None:
    """Which of ours are good for satellites, what do they cost, and hand it on."""
    seen = visit(sixty, width, dark).open()
    page = seen.page
    assert len(seen.models()) == 50
    kept(seen, "maintainer", width, dark, 1)
    page.get_by_role("button", name="Next").click()
    page.get_by_text("models 51 to 60 of 60").wait_for()
    assert len(seen.models()) == 10
    address_has(seen, "page=2")
    page.get_by_text("Filters, columns and sorting").click()
    page.get_by_label("satellite", exact=True).check()
    page.get_by_label("Search models").fill("vision-lab")
    page.wait_for_function("document.querySelectorAll('#board tbody tr').length == 15")
    page.wait_for_function("!location.search.includes('page=')")
    if width > 600:
        page.locator("#board th button", has_text="eurosat").click()
        address_has(seen, "sort=eurosat")
        best = [float(text.split()[0]) for text in
                page.locator("#board td.cell:nth-of-type(6)").all_inner_texts()]  # fmt: skip
        assert best == sorted(best, reverse=True)
    kept(seen, "maintainer", width, dark, 2)
    name, content = downloaded(seen, "Download CSV")
    assert name == "leaderboard.csv"
    assert len(io.StringIO(content.decode()).readlines()) == 16
