"""The few-shot page behind its events: an answer is bound to what it was made of."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from eval.models.names import zoo_names
from space.demo.backbones import Shelf
from space.demo.bounds import WAYS
from space.demo.kept import Kept
from space.demo.uploads import read_pictures
from space.markup import picture, thumbnail
from space.pages.fewshot import FewShot, model_names
from tests.factories import blobs

ZOO = [f"zoo:{name}" for name in zoo_names()]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> FewShot:
    shelf = Shelf(tmp_path_factory.mktemp("cache"))
    with gr.Blocks():
        return FewShot(shelf)


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def gallery(folder: Path, label: int, count: int, first: int = 0) -> list[tuple[str, str]]:
    """Files as a gallery gives them."""
    found = []
    for i, data in list(enumerate(blobs(label, count, seed=label)))[first:]:
        path = folder / f"{label}-{i}.png"
        path.write_bytes(data)
        found.append((str(path), f"picture {label}-{i}"))
    return found


def inputs(galleries: list[Any], queries: Any, models: list[str], names: Any = ()) -> list[Any]:
    """The values of the page's inputs in their order."""
    named = [*names, *[f"class {i + 1}" for i in range(len(names), WAYS[1])]]
    shots = [*galleries, *[None] * (WAYS[1] - len(galleries))]
    return [models, len(galleries), *named, *shots, queries]


def ask(page: FewShot, given: list[Any]) -> dict[str, Any]:
    """What the page shows, by the name of the part."""
    parts = ("stale", "said", "ranks", "notes", "taking", "chosen", "answers", "code", "kept")
    return dict(zip(parts, page.ask(*given), strict=True))


def stale(page: FewShot, kept: Kept | None, given: list[Any]) -> str:
    """What the page says of an answer's age; empty where it is of today."""
    said = page.check(kept, *given)
    return said.get("value", "") if said["visible"] else ""


def test_an_answer_keeps_what_it_was_made_of(page: FewShot, uploads: Path) -> None:
    two = [gallery(uploads, 0, 4), gallery(uploads, 5, 4)]
    queries = gallery(uploads, 5, 5, first=4)
    given = inputs(two, queries, ZOO[:2], ["ash", "birch"])
    found = ask(page, given)
    kept = found["kept"]
    assert stale(page, kept, given) == ""
    # replaced pictures: the old answer stands as it was, and says that it is old
    replaced = inputs([gallery(uploads, 9, 4), two[1]], queries, ZOO[:2], ["ash", "birch"])
    assert "Changed since: the pictures of 'ash'." in stale(page, kept, replaced)
    shown = page.look(kept, found["chosen"]["value"])
    assert shown == found["answers"]
    images = re.findall(r'src="data:image/webp;base64,([^"]+)"', shown)
    given_pictures = read_pictures([p for p, _ in (*queries, *two[0], *two[1])], subject="", most=9)
    evidence = {base64.b64encode(thumbnail(p.image)).decode() for p in given_pictures}
    assert len(images) == 4  # the query and its three neighbours
    assert set(images) <= evidence
    # changed back, it is an answer to the question again
    assert stale(page, kept, given) == ""


def test_an_emptied_gallery_is_one_sentence(page: FewShot, uploads: Path) -> None:
    two = [gallery(uploads, 0, 3), gallery(uploads, 5, 3)]
    queries = gallery(uploads, 5, 4, first=3)
    kept = ask(page, inputs(two, queries, ZOO[:1]))["kept"]
    for nothing in (None, []):
        emptied = inputs([two[0], nothing], queries, ZOO[:1])
        assert "the pictures of 'class 2'" in stale(page, kept, emptied)
        assert page.look(kept, ZOO[0]).count("<li>") == 1
        found = ask(page, emptied)
        assert "no pictures are given for class &#39;class 2&#39;" in found["said"].replace(
            "'", "&#39;"
        )
        assert "\n" not in found["said"]
        assert (found["ranks"], found["answers"], found["kept"]) == ("", "", None)
        assert found["taking"]["visible"] is False
    assert stale(page, None, inputs(two, None, ZOO[:1])) == ""  # nothing was asked yet


def test_the_best_model_s_predictions_come_first_and_others_on_request(
    page: FewShot, uploads: Path
) -> None:
    two = [gallery(uploads, 0, 4), gallery(uploads, 5, 4)]
    found = ask(page, inputs(two, gallery(uploads, 0, 6, first=4), ZOO))
    kept = found["kept"]
    order = [value for _, value in found["chosen"]["choices"]]
    assert sorted(order) == sorted(ZOO)
    assert found["chosen"]["value"] == kept.choice.taken
    assert found["ranks"].count("<tr ") == len(ZOO)
    assert found["ranks"].count("take this") == 1
    other = next(name for name in ZOO if name != kept.choice.taken)
    for model in (kept.choice.taken, other):
        shown = page.look(kept, model)
        best = kept.answers[model][0].classes[0]
        assert f'<dt class="best">{best[0]}</dt>' in shown
        assert f"{100 * best[1]:.0f} %" in shown


def test_pictures_to_recognise_are_not_needed(page: FewShot, uploads: Path) -> None:
    found = ask(page, inputs([gallery(uploads, 0, 2), gallery(uploads, 5, 2)], None, ZOO[:2]))
    assert found["answers"] == ""
    assert "apart" in found["said"]


def test_the_download_is_of_the_answer(page: FewShot, uploads: Path) -> None:
    two = [gallery(uploads, 0, 4), gallery(uploads, 5, 4)]
    kept = ask(page, inputs(two, None, ZOO[:2], ["ash", "birch"]))["kept"]
    data = base64.b64decode(page.save(kept, ZOO[1]))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert set(archive.namelist()) == {"head.safetensors", "head.json", "README.txt"}
        facts = json.loads(archive.read("head.json"))
    assert (facts["classes"], facts["model"]["spec"]) == (["ash", "birch"], ZOO[1])
    assert page.save(None, ZOO[0]) == ""
    # whatever a visitor sends as a name, the answer's own model is packed
    data = base64.b64decode(page.save(kept, "../../etc/passwd"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        spec = json.loads(archive.read("head.json"))["model"]["spec"]
    assert spec == kept.choice.taken


def test_names_of_strangers_are_text(page: FewShot, uploads: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    two = [gallery(uploads, 0, 2), gallery(uploads, 5, 2)]
    queries = [(path, evil) for path, _ in gallery(uploads, 5, 3, first=2)]
    found = ask(page, inputs(two, queries, ZOO[:1], [evil, "b"]))
    shown = found["answers"] + found["ranks"]
    assert evil not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert set(re.findall(r"<(\w+)", shown)) <= {
        "ol", "li", "img", "dl", "dt", "dd", "i", "b", "div", "span", "figure", "figcaption",
        "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "path", "circle", "wbr",
    }  # fmt: skip


def test_a_picture_of_the_page_is_the_picture_made_small(uploads: Path) -> None:
    (path, name), *_ = gallery(uploads, 3, 1)
    (given,) = read_pictures([path], subject="", most=1)
    shown = picture(thumbnail(given.image), name + '"><b>')
    assert "<b>" not in shown
    assert 'alt="picture 3-0&quot;&gt;&lt;b&gt;"' in shown


def test_objectives_name_models_where_they_tell_them_apart() -> None:
    ce, joint = (f"zoo:resnet18_narrow.{n}_tin100" for n in ("ce", "ce_selfsupcon"))
    assert model_names([ce, joint]) == ["CE", "CE+SelfSupCon"]
    assert model_names([ce, "resnet50.a1_in1k"]) == ["CE (resnet18_narrow)", "resnet50.a1_in1k"]
    assert model_names([ce]) == ["CE (resnet18_narrow)"]
