"""The named endpoints, from scripts: what the pages show, and nothing for the hostile."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest
from gradio_client import Client, handle_file
from pydantic import TypeAdapter

from eval.analysis import ANALYSES
from eval.models.names import zoo_names
from space import answers
from space.pages.about import _TEXT
from space.source import Source
from space.state import Desk
from space.tables import display
from space.tables.board import headline
from space.tables.view import View
from tests.space.questions import photos, question
from tests.space.served import CARDS, MODELS, App, add_tiny

NAMES = ("/leaderboard", "/leaderboard_csv", "/objectives", "/compare", "/detection", "/findings",
         "/requests", "/submit", "/classify")  # fmt: skip
SECRETS = ("root:x:", "root:", "daemon:", "[build-system]", "Traceback", 'File "', "line ")


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app.url, verbose=False)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The same results in this process."""
    cache = tmp_path_factory.mktemp("desk")
    source = Source(str(CARDS), cache)
    source.refresh()
    return Desk(source, cache)


def call(app: App, name: str, data: Any) -> str:
    """What the server says to exactly this, without the client's checks."""
    asked = httpx.post(f"{app.url}/gradio_api/call{name}", json={"data": data}, timeout=60)
    if asked.status_code != 200:
        return asked.text
    event = asked.json()["event_id"]
    answer = httpx.get(f"{app.url}/gradio_api/call{name}/{event}", timeout=60)
    return answer.text


def harmless(app: App, answer: str) -> str:
    assert app.process.poll() is None
    for secret in SECRETS[:5]:
        assert secret not in answer, answer
    return answer


def test_endpoints_are_named(client: Client) -> None:
    found = client.view_api(return_format="dict", print_info=False)
    assert set(NAMES) <= set(found["named_endpoints"])
    assert found["unnamed_endpoints"] == {}


def test_endpoints_are_there_once(client: Client) -> None:
    found = client.view_api(return_format="dict", print_info=False)
    assert set(found["named_endpoints"]) == set(NAMES)


def test_arguments_are_named(client: Client) -> None:
    found = client.view_api(return_format="dict", print_info=False)
    names = [
        p["parameter_name"]
        for name, endpoint in found["named_endpoints"].items()
        for p in endpoint["parameters"]
    ]
    assert names
    assert not [name for name in names if name.startswith("param_")]


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(board="linear/top1"),
        View(board="linear/top1", search="supcon", objectives=("supcon+selfsupcon",)),
        View(domains=("satellite",), sort="model", rising=True),
    ],
)
def test_the_board_is_the_page_s(client: Client, desk: Desk, view: View) -> None:
    named = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(view).items()
        if value != getattr(View(), name)
    }
    said = client.predict(**named, api_name="/leaderboard")
    board = desk.board(view)
    assert said["headline"] == headline(board)
    assert said["rows"] == json.loads(display.as_json(board, view))["rows"]
    assert said["view"] == view.query()


@pytest.mark.slow
def test_the_example_of_the_about_page(client: Client) -> None:
    """As it stands there, but for the address."""
    (block,) = re.findall(r"```python\n(.*?)```", _TEXT.format(protocols=""), re.DOTALL)
    lines = block.splitlines()
    assert len(lines) == 10
    told: list[tuple[Any, ...]] = []
    given = {"print": lambda *words: told.append(words)}
    exec(block.replace('Client("URL")', "client").replace("from gradio_client import Client", ""),
         {"client": client, **given})  # fmt: skip
    said = client.predict(board="linear/top1", api_name="/leaderboard")
    assert said["view"] == "board=linear%2Ftop1"
    assert told[0] == (said["headline"],)
    assert [row[0] for row in told[1:7]] == [row["model"] for row in said["rows"]]
    assert {row[0] for row in told[7:]} >= {"linear/top1", "fewshot/top1_5shot"}


def test_the_board_as_csv(client: Client, desk: Desk) -> None:
    models = list(desk.board(View(board="linear/top1")).models["model"])
    text = client.predict(board="linear/top1", api_name="/leaderboard_csv")
    assert [row["model"] for row in csv.DictReader(text.splitlines())] == models
    assert client.predict(board="x", api_name="/leaderboard_csv").startswith("error: no leaderb")


TYPES = {
    "/leaderboard": answers.BoardAnswer, "/objectives": answers.ObjectivesAnswer,
    "/compare": answers.CompareAnswer, "/detection": answers.DetectionAnswer,
    "/findings": answers.FindingsAnswer, "/requests": answers.RequestsAnswer,
    "/submit": answers.SubmitAnswer, "/classify": answers.ClassifyAnswer,
}  # fmt: skip
# of each endpoint: a good question where there is one, and one that cannot be answered
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/leaderboard", {}), ("/leaderboard", {"board": "linear/top1", "pretraining": True}),
    ("/leaderboard", {"board": "psychic"}), ("/objectives", {}), ("/objectives", {"joint": "x"}),
    ("/compare", {"a": MODELS[0], "b": MODELS[1]}), ("/compare", {}),
    ("/detection", {}), ("/detection", {"data_set": "none"}), ("/detection", {"score": "none"}),
    ("/findings", {}), ("/findings", {"name": "none"}), ("/requests", {}),
    ("/submit", {"model": "nonsense"}), ("/classify", {"classes": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "asked"), ASKED, ids=str)
def test_every_answer_is_of_its_type(client: Client, name: str, asked: dict[str, Any]) -> None:
    """All of its names, right or wrong, and no others; strictly of the types that are promised."""
    said = client.predict(**asked, api_name=name)
    TypeAdapter(TYPES[name]).validate_python(said, strict=True)
    assert set(said) == set(get_type_hints(TYPES[name]))
    jsonschema = answers.schema(TYPES[name])
    assert "$ref" not in json.dumps(jsonschema)
    assert set(jsonschema["required"]) == set(said)


def test_types_and_openapi_are_the_same(client: Client, app: App) -> None:
    found = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    document = httpx.get(f"{app.url}/gradio_api/openapi.json").json()
    assert document["openapi"].startswith("3.")
    for name, answer in TYPES.items():
        (returned,) = found[name]["returns"]
        assert returned["type"] == answers.schema(answer)
        shown = document["paths"][f"/gradio_api/call/v2{name}"]["post"]["description"]
        for part in get_type_hints(answer):
            assert part in returned["python_type"]["type"]
            assert part in shown


def test_objectives_and_comparison(client: Client) -> None:
    said = client.predict(api_name="/objectives")
    assert (said["a"], said["b"]) == ("ce+selfsupcon", "ce")
    assert "CE+SelfSupCon is better" in said["sentence"]
    other = client.predict(joint="supcon+selfsupcon", plain="supcon", api_name="/objectives")
    assert len(other["tasks"]) == len(said["tasks"])
    assert [row["task"] for row in said["apart"]] == ["tiny_imagenet"]
    assert (
        "differ in x alone" in client.predict(joint="x", plain="y", api_name="/objectives")["error"]
    )
    found = client.predict(a=MODELS[0], b=MODELS[1], api_name="/compare")
    assert "is better than" in str(found)
    assert MODELS[0] in client.predict(api_name="/compare")["models"]


def test_requests_and_submissions(client: Client, app: App, model_dir: Path) -> None:
    none = client.predict("nonsense", api_name="/submit")
    assert "names no model of the Hub" in none["error"]
    assert none["state"] == ""
    sha = add_tiny(app.hub, "lab/api-net", model_dir)
    said = client.predict("lab/api-net", api_name="/submit")
    assert (said["error"], said["model"], said["commit"]) == ("", "lab/api-net", sha)
    assert (said["state"], said["architecture"]) == ("pending", "test_resnet")
    assert said["bytes"] > 0
    asked = client.predict(api_name="/requests")["requests"]
    assert [row["state"] for row in asked if row["model"] == "lab/api-net"] == ["pending"]
    client.predict("lab/api-net", api_name="/submit")
    assert client.predict(api_name="/requests")["requests"] == asked
    assert [row["commit"] for row in asked if row["model"] == "lab/api-net"] == [sha]


def test_a_missing_model_is_a_sentence(client: Client, app: App) -> None:
    said = client.predict("lab/is-not-there", api_name="/submit")["error"]
    assert "lab/is-not-there" in said
    assert "\n" not in said


def test_classify(client: Client, tmp_path: Path) -> None:
    supports = [photos(tmp_path, label, 4) for label in (0, 5)]
    queries = [handle_file(tmp_path / f"{label}-3.png") for label in (0, 5, 0)]
    said = client.predict(*question(supports, queries, models=None), api_name="/classify")
    TypeAdapter(answers.ClassifyAnswer).validate_python(said, strict=True)
    assert (said["error"], said["classes"]) == ("", ["kind 0", "kind 1"])
    names = [f"zoo:{name}" for name in zoo_names()]
    assert sorted(model["model"] for model in said["models"]) == sorted(names)
    assert said["take"] in names
    for model in said["models"]:
        assert model["pictures"] == 8
        assert 0 <= model["low"] <= model["right"] / 8 <= model["high"] <= 1
        assert [p["picture"] for p in model["predictions"]] == ["0-3.png", "5-3.png", "0-3.png"]
        for prediction, expected in zip(model["predictions"], (0, 1, 0), strict=True):
            chances = prediction["probabilities"]
            assert set(chances) == {"kind 0", "kind 1"}
            assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
            assert max(chances, key=chances.__getitem__) == f"kind {expected}"
    told = [model["right"] for model in said["models"]]
    assert told == sorted(told, reverse=True)


def test_classify_without_queries_ranks_alone(client: Client, tmp_path: Path) -> None:
    supports = [photos(tmp_path, label, 3) for label in (0, 5)]
    said = client.predict(*question(supports, None, models=tuple(MODELS)), api_name="/classify")
    assert [model["predictions"] for model in said["models"]] == [[], []]
    assert said["sentence"]


# --------------------------------------------------------------------------------- the hostile


def meta(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.mark.parametrize(
    "gallery",
    [
        [meta("/etc/passwd")],
        [{"path": "/etc/passwd"}],
        [{"image": {"path": "/etc/passwd"}, "caption": None}],
        [meta("../../../../../../etc/passwd")],
        [meta(str(CARDS.parent / "pyproject.toml"))],
        [meta("/etc/passwd", url="/etc/passwd", orig_name="a.png", mime_type="image/png")],
        [meta("x.png", url="file:///etc/passwd")],
        [meta("x.png", url="http://127.0.0.1:9/x.png")],
        [meta("/dev/zero", orig_name="a.png")],
        [meta("a\0b.png")],
        [meta("x" * 100_000)],
        "/etc/passwd",
        ["/etc/passwd"],
        [["/etc/passwd", None]],
        {"path": "/etc/passwd"},
        [None],
        [[]],
        7,
    ],
    ids=lambda gallery: str(gallery)[:40],
)  # fmt: skip
def test_paths_of_the_server_are_no_pictures(app: App, gallery: Any) -> None:
    for data in (question([gallery, gallery], gallery), question([gallery, []], [])):
        answer = harmless(app, call(app, "/classify", data))
        assert "log_me" not in answer


@pytest.mark.parametrize(
    "models",
    [
        "x" * 100_000, [{"a": 1}], [], None, ["hf-hub:../../etc"], ["/etc/passwd"],
        ["zoo:../../x"], [MODELS[0]] * 3, [7], {"a": 1}, [MODELS[0]] * 1000,
    ],
    ids=lambda models: str(models)[:40],
)  # fmt: skip
def test_strange_questions(app: App, models: Any) -> None:
    answer = harmless(app, call(app, "/classify", question([[], []], [], models)))
    assert '"error": ""' not in answer
    assert "log_me" not in answer


@pytest.mark.parametrize(
    "classes",
    [None, "x", [], ["/etc/passwd"], {"a": "x", "b": 7}, {"a": [], "b": []}, {"a": {}}, 5,
     {f"k{i}": [] for i in range(1000)}],
    ids=lambda classes: str(classes)[:40],
)  # fmt: skip
def test_strange_classes(app: App, classes: Any) -> None:
    answer = harmless(app, call(app, "/classify", [classes, [], None]))
    assert '"error": ""' not in answer
    assert "log_me" not in answer


VIEW = ["", "", [], [], [], 0, False, False, ["objective", "params"], "mean", False, True]
STRANGE: tuple[Any, ...] = (
    None, 5, -1e300, "x" * 200_000, {"a": 1}, ["x"], [{"a": 1}], [["a"]], "../../etc/passwd",
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
)  # fmt: skip


@pytest.mark.slow
def test_strange_views(app: App) -> None:
    for place in range(len(VIEW)):
        for strange in (STRANGE[place % len(STRANGE)], STRANGE[-1]):
            data = [*VIEW[:place], strange, *VIEW[place + 1 :]]
            harmless(app, call(app, "/leaderboard", data))
            if place % 4 == 0:
                harmless(app, call(app, "/leaderboard_csv", data))
    for name in NAMES:
        for data in ([], [None] * 3, ["../../etc/passwd"] * 3, {"a": 1}, "x"):
            harmless(app, call(app, name, data))
    for strange in STRANGE:
        answer = harmless(app, call(app, "/submit", [strange]))
        assert "pending" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../../../etc/passwd",
        "/gradio_api/file=/tmp/../etc/passwd",
        "/gradio_api/file=%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/gradio_api/file={root}/pyproject.toml",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=log",
        "/gradio_api/file={app}/log",
        "/gradio_api/file={app}/queue",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/file=/etc/passwd",
    ],
)
def test_no_file_of_the_server_is_served(app: App, path: str) -> None:
    text = path.format(root=CARDS.parent, app=app.log.parent)
    answer = httpx.get(app.url + text)
    assert answer.status_code in (400, 403, 404)
    harmless(app, answer.text)


def test_uploads_are_bounded(app: App) -> None:
    small = {"files": ("a.png", b"x" * 1000)}
    assert httpx.post(f"{app.url}/gradio_api/upload", files=small).status_code == 200
    large = {"files": ("a.png", b"x" * 11_000_000)}
    answer = httpx.post(f"{app.url}/gradio_api/upload", files=large, timeout=60)
    assert answer.status_code == 413
    assert "Traceback" not in answer.text


def test_an_uploaded_name_leads_nowhere(app: App) -> None:
    name = "../../../<img src=x onerror=window.owned=1>.png"
    answer = httpx.post(f"{app.url}/gradio_api/upload", files={"files": (name, b"x")})
    assert answer.status_code == 200
    path = Path(answer.json()[0])
    assert path.resolve().is_relative_to((app.log.parent / "uploads").resolve())
    gallery = [meta(str(path), orig_name=name)]
    said = harmless(app, call(app, "/classify", question([gallery, gallery], gallery)))
    assert "<img" not in said.replace("\\u003c", "<")


def test_too_many_pixels_and_pictures(app: App, client: Client, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (20_000, 20_000)).save(tmp_path / "large.png")
    one = [handle_file(tmp_path / "large.png")]
    said = client.predict(*question([one, one], one), api_name="/classify")
    assert "pixels" in said["error"]
    many = photos(tmp_path, 1, 1) * 21
    said = client.predict(*question([many, many], one), api_name="/classify")
    assert "21 pictures were given, at most 20 are taken" in said["error"]


def test_the_server_lives(app: App) -> None:
    assert app.process.poll() is None
    assert httpx.get(app.url).status_code == 200


def test_findings_by_name(detectors: App) -> None:
    client = Client(detectors.url, verbose=False)
    rows = client.predict(api_name="/findings")["findings"]
    assert {row["analysis"] for row in rows} == set(ANALYSES)
    one = next(row for row in rows if row["analysis"] == "cka")
    whole = client.predict(name=one["name"], api_name="/findings")["finding"]
    assert whole["values"]["layers_a"][0] == "act1"
    assert whole["tasks"][0]["source"] == "local:data"  # no folder of the server
    for name in ("../../etc/passwd", "analyses/cka/none.json"):
        assert "no finding" in client.predict(name=name, api_name="/findings")["error"]
